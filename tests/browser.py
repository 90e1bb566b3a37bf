"""A real Chromium, driven as a person would."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PROGRAMS = ("chromium", "chromedriver")


def missing() -> list[str]:
    """The programs that are not installed (Debian: chromium chromium-driver)."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


needs_browser = pytest.mark.system("chromium chromium-driver", missing)


@contextlib.contextmanager
def chrome(downloads: Path | None = None) -> Iterator[webdriver.Chrome]:
    """A Chromium without a window, which ends with the block; what it loads and prints is in its logs."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


class Browser:
    """One Chromium, and what a person does with it."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver = driver
        self.folder = folder
        self.pages = 0

    def write(self, text: str) -> Path:
        self.pages += 1
        path = self.folder / f"{self.pages}.html"
        path.write_text(text, encoding="utf-8")
        return path

    def open(self, path: Path, state: str = "") -> None:
        self.driver.get("about:blank")  # another fragment alone would not load the page
        self.driver.get(f"{path.as_uri()}{state and '#'}{state}")
        # On a busy machine the driver is back before the page is there.
        loaded = "return location.href.split('#')[0] === arguments[0] && document.readyState === 'complete'"
        self.until(lambda: self.js(loaded, path.as_uri()))

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, true: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, 120).until(lambda _: true())

    def methods(self, table: str = "#ranking") -> list[str]:
        """The names in a table, top down; by one script, as a redraw would take single elements away."""
        names: list[str] = self.js(
            "return [...document.querySelectorAll(arguments[0])].map((name) => name.textContent)",
            f"{table} tbody th > bdi, {table} tbody th > a > bdi",
        )
        return names

    def shows(self, methods: list[str]) -> None:
        self.until(lambda: self.methods()[: len(methods)] == methods)

    def tick(self, method: str) -> None:
        self.click(f"input[aria-label='Compare {method}']")

    def click(self, selector: str) -> None:
        self.press(selector, 0)

    def press(self, selector: str, place: int) -> None:
        """Click one of the elements; a redraw that has not drawn it yet, or takes it away before, is waited out."""

        def pressed() -> bool:
            with contextlib.suppress(StaleElementReferenceException, IndexError):
                element = self.all(selector)[place]
                self.js("arguments[0].scrollIntoView({block: 'center'})", element)  # not below what was chosen
                element.click()
                return True
            return False

        self.until(pressed)

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def theme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def complaints(self) -> list[str]:
        return [line["message"] for line in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]
