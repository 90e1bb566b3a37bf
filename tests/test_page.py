"""The leaderboard's page in a real Chromium, driven as a person would."""

import contextlib
import csv
import json
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import forked
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from poolbench.files import digest_bytes

from leaderboard.models import (
    Bad,
    Board,
    BoardTask,
    Citation,
    Entry,
    Gain,
    Leaderboard,
    Method,
    Noise,
    Reference,
    Score,
    Spread,
)
from leaderboard.page import page
from leaderboard.page.data import Row, page_data, shown
from leaderboard.rank import margin

PROGRAMS = ("chromium", "chromedriver")
AGGREGATES = ["imagenet", "vtab", "average"]
TASKS = [
    BoardTask(key="imagenet1k", name="ImageNet 1k", main_metric="acc1", groups=["imagenet"]),
    BoardTask(key="vtab/dtd", name="Textures", main_metric="acc1", groups=["vtab"]),
    BoardTask(key="vtab/pets", name="Pets", main_metric="mean_per_class_recall", groups=["vtab"]),
    BoardTask(key="mnist", name="MNIST", main_metric="acc1", groups=["other"]),
    BoardTask(key="fairface", name="FairFace", main_metric=None, groups=["fairness"]),
]
SOURCE = Citation(text="A. Paper, 2023, Table 3", url="https://example.org/paper")
NOISE = Noise(values={"average": 0.006, "imagenet": 0.002}, citation=SOURCE)
HOSTILE = "<script>window.ran=1</script><img src=x onerror='window.ran=2'>\"'&amp;</td></table>"
TURNING = "\u202edesrever\u2066 \u200b\x1b[31m"


def missing() -> list[str]:
    """The programs that are not installed (Debian: chromium chromium-driver)."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


needs_browser = pytest.mark.system("chromium chromium-driver", missing)


def entry(method: str, average: float, rank: int | None = None, last: int | None = None, **changes: Any) -> Entry:
    """An entry whose tasks all have `average` but MNIST, which goes the other way."""
    scores = {task.key: Score(value=average, stderr=0.004) for task in TASKS[:3]}
    values = {
        "rank": rank,
        "rank_last": last if last is not None else rank,
        "digest": digest_bytes(repr((method, average, rank)).encode()),
        "method": method,
        "author": "A. Author",
        "writeup": None,
        "aggregates": {name: Score(value=average, stderr=0.002) for name in AGGREGATES},
        "scores": {**scores, "mnist": Score(value=0.9 - average, stderr=0.003)},
        "dataset_size": round(12_800_000 * (1 - average)),
        "samples_seen": 12_800_000,
        "seed": 0,
        "precision": "amp_bf16",
        "official": rank is not None,
        "grade": "unofficial" if rank is None else "official",
        "deviations": [] if rank is not None else ["run not complete"],
        **dict.fromkeys(("recipe_digest", "data_digest", "subset_digest", "checkpoint_sha256"), "a" * 64),
        "bad": Bad(samples=3, shards=0),
        "version": "0.1.0",
        "finished": "2026-01-01T04:00:00+00:00",
    }
    return Entry.model_construct(**{**values, **changes})


def reference(method: str, average: float, scores: bool = True) -> Reference:
    return Reference(
        method=method,
        author="A. Paper",
        aggregates=dict.fromkeys(AGGREGATES, average),
        scores={task.key: average for task in TASKS[:4]} if scores else {},
        dataset_size=12_800_000,
        citations=[SOURCE],
        notes=["the table and the text disagree"] if scores else [],
    )


def board(ranked: list[Entry], unranked: list[Entry], published: list[Reference], **changes: Any) -> Board:
    values: dict[str, Any] = {
        "track": "filtering",
        "scale": "small",
        "pool_size": 12_800_000,
        "aggregates": AGGREGATES,
        "tasks": TASKS,
        "noise": NOISE,
        "ranked": ranked,
        "unverified": [],
        "unranked": unranked,
        "references": published,
        "methods": [],
    }
    return Board.model_construct(**{**values, **changes})


def leaderboard(*boards: Board) -> Leaderboard:
    return Leaderboard.model_construct(format=2, aggregates_version=1, boards=list(boards))


def method(name: str, seeds: int, average: Spread, interval: Gain | None, **changes: Any) -> Method:
    values = {
        "method": name,
        "author": "A. Author",
        "dataset_size": 12_800_000,
        "entries": [],
        "seeds": list(range(seeds)),
        "aggregates": {"average": average},
        "baseline": False,
        "gain": interval,
    }
    return Method.model_construct(**{**values, **changes})


METHODS = [
    method("Clip", 3, Spread(mean=0.353, sd=0.007), Gain(value=0.083, low=0.071, high=0.095), dataset_size=3_840_000),
    method("Beta once", 1, Spread(mean=0.3, sd=None), Gain(value=0.03, low=None, high=None)),
    method("No filter", 3, Spread(mean=0.27, sd=0.004), None, baseline=True),
    method("Basic", 2, Spread(mean=0.26, sd=0.01), Gain(value=-0.01, low=-0.04, high=0.02)),
]


def usual() -> Leaderboard:
    """A tie of two at the top, 68 behind, one not ranked, two published; ten of them at medium too; one elsewhere.

    Methods with several seeds are on the first board alone.
    """
    rest = [entry(f"Method {n:02}", 0.26 - n / 1000, n + 3, min(n + 8, 70), seed=n) for n in range(68)]
    top = [entry("Alpha", 0.3, 1, 2, writeup="https://example.org/alpha"), entry("=Beta ∩ Gamma", 0.298, 1, 2)]
    published = [reference("Pool as it is", 0.1), reference("Published best", 0.29, scores=False)]
    medium = [entry(row.method, 0.4 - n / 50, n + 1) for n, row in enumerate([*top, *rest[:8]])]
    return leaderboard(
        board([*top, *rest], [entry("Unfinished", 0.5)], published, methods=METHODS),
        board(medium, [], [], scale="medium", pool_size=128_000_000),
        board([entry("Own data", 0.4, 1)], [], [], track="byod", pool_size=None),
    )


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

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, true: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, 20).until(lambda _: true())

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


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("pages")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "downloads")})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield Browser(driver, folder)
    driver.quit()


@pytest.fixture(scope="module")
def usual_page(chromium: Browser) -> Path:
    return chromium.write(page(usual()))


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser, wide and light; whatever a page complains of in the console fails the test."""
    chromium.resize(1280)
    chromium.theme("light")
    yield chromium
    assert chromium.complaints() == []


@pytest.fixture
def view(browser: Browser, usual_page: Path) -> Browser:
    browser.open(usual_page)
    return browser


@needs_browser
def test_who_leads_and_by_how_much(view: Browser) -> None:
    leader = view.text("#leader")
    assert "Alpha has the highest average, 0.300, but noise does not set it apart from =Beta ∩ Gamma." in leader
    noise = margin(Score(value=0.3, stderr=0.002), Score(value=0.26, stderr=0.002), 0.006)
    assert f"0.040, {0.04 / noise:.1f} times what noise explains ({noise:.3f})" in leader
    assert "The best published result, Published best, has 0.290, 0.010 less than the leader." in leader
    assert view.methods()[:4] == ["Alpha", "=Beta ∩ Gamma", "Published best", "Method 00"]
    first, second, published, behind = (row.text for row in view.all("#ranking tbody tr")[:4])
    assert first.startswith("1–2 Alpha") and "0.300 ± 0.002" in first and "9.0M" in first and "70 %" in first
    assert second.startswith("1–2 ") and behind.startswith("3–8 ")
    assert published.startswith("Published best") and "published" in published
    assert view.find("#ranking a").get_attribute("href") == "https://example.org/alpha"
    assert view.text("#count") == "70 ranked entries, 2 published results, 1 entry not ranked"
    assert "Unfinished" in view.text("#unranked") and "run not complete" in view.text("#unranked")


@needs_browser
def test_search_and_filters(view: Browser) -> None:
    view.find("#search").send_keys("13 AUTHOR")
    view.until(lambda: view.methods() == ["Method 13"])
    assert view.text("#count") == "1 ranked entry, 0 published results, 0 entries not ranked (1 of 73)"
    assert view.find("#count").get_attribute("role") == "status"
    view.find("#search").send_keys("zzz")
    view.until(lambda: "No entry fits" in view.text("#ranking"))
    view.find("#search").clear()
    view.find("#search").send_keys("best")
    view.shows(["Published best"])
    view.click("#published")
    view.until(lambda: "No entry fits" in view.text("#ranking"))
    view.click("#unofficial")
    view.find("#search").send_keys(Keys.BACKSPACE * 4)
    view.shows(["Alpha", "=Beta ∩ Gamma", "Method 00"])
    assert view.text("#unranked") == ""


def unverified() -> Leaderboard:
    """A board on which the best two entries are unverified."""
    apart = [entry(f"Nobody {n}", 0.4 - n / 10, grade="unverified", official=False, deviations=[]) for n in range(2)]
    return leaderboard(board([entry("Alpha", 0.25, 1)], [entry("Unfinished", 0.9)], [], unverified=apart))


@needs_browser
def test_unverified_entries_stand_apart_without_ranks(browser: Browser) -> None:
    browser.open(browser.write(page(unverified())))
    assert browser.methods() == ["Alpha"] and browser.methods("#unverified") == ["Nobody 0", "Nobody 1"]
    assert "Alpha leads with an average of 0.250." in browser.text("#leader")
    assert browser.text("#unverified h3") == "Unverified" and "nothing pins the data" in browser.text("#unverified p")
    assert "Rank" not in browser.text("#unverified thead") and "0.400 ± 0.002" in browser.text("#unverified tbody")
    assert browser.text("#count") == ("1 ranked entry, 0 published results, 2 unverified entries, 1 entry not ranked")
    browser.tick("Nobody 0")
    browser.until(lambda: "unverified" in browser.text("#comparison"))
    browser.click("#unofficial")
    browser.until(lambda: browser.text("#unverified") == browser.text("#unranked") == "")


@needs_browser
def test_sort_and_back(view: Browser) -> None:
    def sorted_by(key: str) -> str | None:
        head = f"document.getElementById('sort-{key}').closest('th')"
        order: str | None = view.js(f"return {head}.getAttribute('aria-sort')")
        return order

    assert sorted_by("rank") == "ascending"
    view.click("#sort-seed")
    view.shows(["Alpha", "=Beta ∩ Gamma", "Method 00", "Method 01"])
    assert (sorted_by("seed"), sorted_by("rank")) == ("ascending", None)
    view.click("#sort-seed")
    view.shows(["Method 67", "Method 66"])
    assert sorted_by("seed") == "descending"
    view.click("#sort-size")
    view.shows(["Alpha", "=Beta ∩ Gamma", "Method 00"])  # the smallest dataset
    view.driver.back()
    view.shows(["Method 67", "Method 66"])
    view.driver.back()
    view.until(lambda: sorted_by("seed") == "ascending")
    view.driver.forward()
    view.until(lambda: sorted_by("seed") == "descending")
    view.click("#sort-method")
    view.shows(["=Beta ∩ Gamma", "Alpha", "Method 00"])


@needs_browser
def test_more_rows_on_demand(view: Browser) -> None:
    assert len(view.methods()) == 50
    assert view.text("#more") == "Show 22 more of 22"
    view.click("#more")
    view.until(lambda: len(view.methods()) == 72)
    assert not view.find("#more").is_displayed()


@needs_browser
def test_compare_two_against_noise(view: Browser) -> None:
    view.tick("Alpha")
    view.until(lambda: "Known by" in view.text("#comparison"))
    view.tick("Method 00")
    view.until(lambda: "Verdict" in view.text("#comparison"))
    cells = {row.text.split("\n")[0].split(" ")[0]: row.text for row in view.all("#comparison .versus tbody tr")}
    noise = margin(Score(value=0.3, stderr=0.002), Score(value=0.26, stderr=0.002), 0.006)
    assert cells["Average"] == f"Average +0.040 ▲ better 0.300 0.260 {noise:.3f}"
    assert cells["MNIST"] == "MNIST −0.040 ▼ worse 0.600 0.640 0.008"
    assert "Alpha is better on 3, worse on 1 and within noise on 0 of 4 tasks." in view.text("#comparison")
    view.tick("=Beta ∩ Gamma")  # takes the place of the first
    view.until(lambda: view.text("#tray").startswith("Method 00 against =Beta ∩ Gamma"))
    view.tick("Method 00")
    view.tick("Alpha")
    view.until(lambda: "0 and within noise on 4 of 4 tasks" in view.text("#comparison"))
    view.click("#tray-show")
    view.until(lambda: view.js("return document.activeElement.id") == "comparison-section")
    view.click("#tray-clear")
    view.until(lambda: not view.find("#tray").is_displayed())
    view.tick("Published best")
    view.tick("Alpha")
    view.until(lambda: "of 3 aggregates" in view.text("#comparison"))


@needs_browser
def test_link_to_a_state(view: Browser, usual_page: Path) -> None:
    view.find("#search").send_keys("alpha")
    view.shows(["Alpha"])
    view.tick("Alpha")
    view.until(lambda: "compare=" in view.driver.current_url)
    address = view.driver.current_url
    view.driver.get("about:blank")
    view.driver.get(address)
    assert view.methods() == ["Alpha"]
    assert view.find("#search").get_attribute("value") == "alpha"
    assert view.find("input[aria-label='Compare Alpha']").is_selected()
    view.open(usual_page, "track=byod")
    assert view.methods() == ["Own data"]
    view.open(
        usual_page, "track=nonsense&sort=<b>&rows=x&compare=,,nobody&metric=0&baseline=constructor&other=__proto__&a"
    )
    assert view.methods()[0] == "Alpha"


@needs_browser
def test_methods_over_their_seeds(view: Browser) -> None:
    assert [" ".join(row.text.split()) for row in view.all("#methods tbody tr")] == [
        "Clip A. Author 0.353 ± 0.007 +0.083 (0.071 to 0.095) 3 3.8M",
        "No filter A. Author 0.270 ± 0.004 baseline 3 12.8M",
        "Basic A. Author 0.260 ± 0.010 −0.010 (−0.040 to 0.020) 2 12.8M",
    ]
    assert "The gain is over No filter, with Welch's interval" in view.text("#methods-note")
    assert "Over 3 seeds, Clip gains +0.083 (0.071 to 0.095) over No filter." in view.text("#leader")
    view.find("#search").send_keys("basic")
    view.until(lambda: len(view.all("#methods tbody tr")) == 1)
    view.click("label:has(#scale-medium)")
    view.until(lambda: not view.find("#methods-section").is_displayed())
    assert "Over " not in view.text("#leader")
    view.driver.back()
    view.until(lambda: view.find("#methods-section").is_displayed())


@needs_browser
def test_another_board(view: Browser) -> None:
    view.click("label:has(#scale-medium)")
    view.until(lambda: len(view.methods()) == 10)
    assert view.driver.title == "poolbench leaderboard: Filtering, scale medium"
    view.click("label:has(#track-byod)")
    view.shows(["Own data"])
    assert "It is the only ranked entry." in view.text("#leader")
    assert "Kept" not in view.text("#ranking thead")
    view.driver.back()
    view.until(lambda: len(view.methods()) == 10)


@needs_browser
def test_by_keyboard_alone(view: Browser) -> None:
    def press(*keys: str) -> None:
        for key in keys:
            view.driver.switch_to.active_element.send_keys(key)

    def focused() -> str:
        return str(view.js("return document.activeElement.id"))

    press(Keys.TAB)
    assert focused() == "skip"
    press(Keys.ENTER)
    view.until(lambda: focused() == "content")
    assert view.methods()[0] == "Alpha"  # the address of the state was left alone
    press(Keys.TAB)
    assert focused() == "track-filtering"
    press(Keys.TAB)
    assert focused() == "scale-small"
    press(Keys.ARROW_RIGHT)
    view.until(lambda: len(view.methods()) == 10)
    assert focused() == "scale-medium"
    press(Keys.TAB)
    assert focused() == "search"
    for _ in range(12):
        press(Keys.TAB)
        style = view.js("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
        assert style[0] != "none" and style[1] != "0px", focused()
        if focused() == "sort-seed":
            break
    press(Keys.ENTER)
    view.until(lambda: "sort=seed" in view.driver.current_url)
    view.until(lambda: focused() == "sort-seed")  # still there, though the table is another
    press(Keys.TAB, Keys.SPACE)
    view.until(lambda: "compare=" in view.driver.current_url)
    view.until(lambda: focused().startswith("compare-"))


@needs_browser
def test_downloads_hold_the_view(view: Browser) -> None:
    def downloaded(name: str) -> Path:
        path = view.folder / "downloads" / name
        view.until(path.exists)
        return path

    view.find("#search").send_keys("a")  # not in "Method", but in "A. Author"
    view.shows(["Alpha", "=Beta ∩ Gamma"])
    view.click("#csv")
    with downloaded("poolbench-filtering-small.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 73
    assert (rows[0]["rank"], rows[0]["rank_last"], rows[0]["method"]) == ("1", "2", "Alpha")
    assert (rows[0]["average"], rows[0]["average_stderr"], rows[0]["MNIST"]) == ("0.3", "0.002", "0.6")
    assert rows[1]["method"] == "'=Beta ∩ Gamma"  # no formula in a spreadsheet
    assert (rows[2]["kind"], rows[2]["rank"], rows[2]["MNIST"]) == ("published", "", "")
    view.click("#json")
    value = json.loads(downloaded("poolbench-filtering-small.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in value["entries"]] == [row["method"].removeprefix("'") for row in rows]
    assert value["entries"][0]["tasks"] == {"ImageNet 1k": 0.3, "Textures": 0.3, "Pets": 0.3, "MNIST": 0.6}


@needs_browser
def test_tasks_against_a_baseline(view: Browser) -> None:
    def cells(task: str) -> list[str]:
        row = next(row for row in view.all("#tasks tbody tr") if row.text.startswith(task))
        return [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]

    assert Select(view.find("#baseline")).first_selected_option.text == "Pool as it is"
    assert cells("MNIST")[:4] == ["0.100", "+50.0", "+50.2", "+54.0"]
    assert [row.text for row in view.all("#tasks .group")] == ["ImageNet", "VTAB", "Other"]
    assert "FairFace" not in view.text("#tasks")
    Select(view.find("#baseline")).select_by_visible_text("1–2. Alpha")
    view.until(lambda: cells("Pets")[0] == "0.300")
    assert cells("Pets")[1:3] == ["−0.2", "−4.0"]
    kinds = [cell.get_attribute("class") for cell in view.all("#tasks tbody tr:nth-child(2) td")[1:3]]
    assert [kind.split()[-1] for kind in kinds if kind] == ["weak", "worse"]


@needs_browser
def test_charts_show_the_rows(view: Browser) -> None:
    def points(chart: str) -> int:
        return len(view.all(f"#{chart} .points_marks path, #{chart} .mark-symbol.role-mark path"))

    view.until(lambda: points("size-chart") == 73)
    assert "ImageNet" in view.text("#correlations-chart svg")
    assert "10 methods are known at both small and medium" in view.text("#across-caption")
    assert "rank correlation is 1.00: the small scale is a good guide" in view.text("#across-caption")
    view.until(lambda: points("across-chart") == 10)
    view.click("#correlations-details summary")
    rows = {row.text.split(" ")[0]: row.text for row in view.all("#correlations-table tbody tr")}
    assert rows["Textures"].startswith("Textures VTAB 1.00 ")
    assert rows["MNIST"].endswith(" 71")
    view.find("#search").send_keys("alpha")
    view.until(lambda: points("size-chart") == 1)
    Select(view.find("#metric")).select_by_visible_text("VTAB")
    view.until(lambda: "VTAB" in view.text("#size-chart svg"))
    for chart in ("size", "across", "correlations"):
        assert view.find(f"#{chart}-chart [role='graphics-document']").get_attribute("aria-label")


@needs_browser
def test_theme_follows_the_system_until_it_is_switched(view: Browser, usual_page: Path) -> None:
    def paper() -> str:
        return str(view.js("return getComputedStyle(document.body).backgroundColor"))

    def ink() -> str | None:
        fill: str | None = view.js(
            "return document.querySelector('#size-chart .role-axis-title text')?.getAttribute('fill')"
        )
        return fill

    light = paper()
    view.until(lambda: ink() == "#1a2027")
    view.theme("dark")
    view.until(lambda: paper() != light and ink() == "#e6eaee")
    view.click("#theme")  # light
    view.until(lambda: paper() == light and ink() == "#1a2027")
    view.open(usual_page)
    assert paper() == light
    view.theme("light")
    view.click("#theme")  # dark
    view.until(lambda: paper() != light)
    view.click("#theme")  # the system's again
    view.until(lambda: paper() == light)


OVERFLOW = """
const wide = [];
for (const node of document.querySelectorAll("body *")) {
  const box = node.getBoundingClientRect();
  if (!box.width || box.right <= innerWidth + 1 || node.closest(".scroll, .unseen, .skip, .chart")) continue;
  wide.push(node.outerHTML.slice(0, 200));
}
if (document.scrollingElement.scrollWidth > innerWidth) wide.push("the page");
return wide;
"""


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, usual_page: Path, width: int) -> None:
    browser.resize(width)
    browser.open(usual_page, "track=filtering&scale=small")
    browser.tick("Alpha")
    browser.tick("=Beta ∩ Gamma")
    browser.until(lambda: browser.all("#size-chart svg") and browser.all("#correlations-chart svg"))
    browser.until(lambda: "Verdict" in browser.text("#comparison"))
    assert browser.js(OVERFLOW) == []
    assert all(svg.size["width"] <= width for svg in browser.all(".chart svg"))


CONTRAST = """
const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function rgb(colour) {
  scratch.clearRect(0, 0, 1, 1);
  scratch.fillStyle = colour;
  scratch.fillRect(0, 0, 1, 1);
  return [...scratch.getImageData(0, 0, 1, 1).data];
}
function behind(node) {
  for (; node; node = node.parentElement) {
    const colour = rgb(getComputedStyle(node).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255];
}
function light([r, g, b]) {
  const [x, y, z] = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
const poor = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text = walker.nextNode(); text; text = walker.nextNode()) {
  const node = text.parentElement;
  if (!text.data.trim() || !node.getClientRects().length || node.closest("script, style")) continue;
  const style = getComputedStyle(node);
  const [one, other] = [light(rgb(node.closest("svg") ? style.fill : style.color)), light(behind(node))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (ratio < 4.5) poor.push([ratio, text.data.slice(0, 40), node.className.baseVal ?? node.className]);
}
return poor;
"""


@needs_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(browser: Browser, usual_page: Path, theme: str) -> None:
    browser.theme(theme)
    browser.open(usual_page)
    for method in ("Alpha", "Method 00"):
        browser.tick(method)
    browser.until(lambda: browser.all("#size-chart svg") and browser.all("#correlations-chart svg"))
    browser.until(lambda: "Verdict" in browser.text("#comparison"))
    assert browser.js(CONTRAST) == []


ACCESSIBLE = """
const wrong = [];
const seen = (node) => node.getClientRects().length > 0;
for (const node of document.querySelectorAll("button, input, select, a, summary")) {
  const labels = [...(node.labels ?? [])].map((label) => label.textContent).join("");
  const name = node.getAttribute("aria-label") || labels || node.textContent;
  if (seen(node) && !name.trim()) wrong.push(`no name: ${node.outerHTML}`);
}
const ids = [...document.querySelectorAll("#app [id], header [id]")].map(({ id }) => id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`twice: ${id}`);
let level = 0;
for (const node of document.querySelectorAll("h1, h2, h3, h4")) {
  const next = Number(node.tagName[1]);
  if (next > level + 1) wrong.push(`heading: ${node.textContent}`);
  level = next;
}
for (const table of document.querySelectorAll("#app table")) {
  if (!table.caption?.textContent) wrong.push("table without caption");
  for (const head of table.querySelectorAll("th")) if (!head.scope) wrong.push(`th without scope: ${head.textContent}`);
}
for (const node of document.querySelectorAll("#app .scroll")) {
  if (node.tabIndex !== 0 || node.getAttribute("role") !== "region") wrong.push("region that no key scrolls");
}
for (const node of document.querySelectorAll("[aria-labelledby]")) {
  if (!document.getElementById(node.getAttribute("aria-labelledby"))) wrong.push(`nothing names ${node.outerHTML}`);
}
for (const once of ["h1", "main", "header"]) if (document.querySelectorAll(once).length !== 1) wrong.push(once);
if (!document.documentElement.lang || !document.title) wrong.push("language or title");
return wrong;
"""


@needs_browser
def test_names_headings_and_tables_for_screen_readers(view: Browser) -> None:
    for method in ("Alpha", "Method 00"):
        view.tick(method)
    view.until(lambda: "Verdict" in view.text("#comparison"))
    assert view.js(ACCESSIBLE) == []


@needs_browser
def test_hostile_text_is_text(browser: Browser) -> None:
    long = "x" * 10_000
    names = [HOSTILE, TURNING, long, "عنوان طويل", "__proto__"]
    ranked = [
        entry(name, 0.3 - n / 100, n + 1, author=name, writeup="javascript:window.ran=3")
        for n, name in enumerate(names)
    ]
    unranked = [entry("lost", 0.2, deviations=names)]
    evil = Reference.model_construct(
        **{
            **dict(reference(HOSTILE, 0.295)),
            "notes": names,
            "citations": [SOURCE.model_copy(update={"text": HOSTILE})],
        }
    )
    tasks = [TASKS[0], BoardTask(key="evil", name=HOSTILE, main_metric=HOSTILE, groups=[HOSTILE])]
    noise = Noise.model_construct(values={"average": 0.006}, citation=SOURCE)
    seeded = [method(name, 2, Spread(mean=0.3, sd=0.1), None, author=name) for name in names]
    seeded[0] = seeded[0].model_copy(update={"baseline": True})
    text = page(leaderboard(board(ranked, unranked, [evil], tasks=tasks, noise=noise, methods=seeded)))
    browser.open(browser.write(text))
    for box in range(2):
        browser.press("#ranking input", box)
    browser.until(lambda: "Verdict" in browser.text("#comparison") and browser.all("#size-chart svg"))
    assert browser.methods()[:2] == [HOSTILE, HOSTILE]  # the second is the published one
    assert "\ufffddesrever\ufffd \ufffd\ufffd[31m" in browser.methods()
    assert "x" * 300 + "\u2026" in browser.methods()
    assert browser.js("return window.ran ?? null") is None
    assert browser.js("return document.querySelectorAll('body img, iframe, object, script:not([id=data])').length") == 2
    assert not [
        link for link in browser.all("a") if not (link.get_attribute("href") or "").startswith(("http", "file"))
    ]
    for width in (390, 1280):
        browser.resize(width)
        assert browser.js(OVERFLOW) == []
    assert max(row.size["height"] for row in browser.all("#ranking tbody tr")) < 250


@needs_browser
def test_policy_stops_what_would_get_into_the_markup(chromium: Browser) -> None:
    text = page(usual()).replace("<main", f"{HOSTILE}<script src='http://127.0.0.1:9/x.js'></script><main", 1)
    chromium.open(chromium.write(text))
    assert chromium.js("return window.ran ?? null") is None
    assert chromium.methods()[0] == "Alpha"  # while its own script runs
    complaints = chromium.complaints()
    assert len(complaints) >= 3
    assert all("Content Security Policy" in line for line in complaints)


@needs_browser
def test_nothing_is_requested(view: Browser, usual_page: Path) -> None:
    view.driver.get_log("performance")  # type: ignore[no-untyped-call]
    view.open(usual_page)
    view.until(lambda: view.all("#size-chart svg") and view.all("#correlations-chart svg"))
    messages = [json.loads(line["message"])["message"] for line in view.driver.get_log("performance")]  # type: ignore[no-untyped-call]
    sent = {m["params"]["request"]["url"].split("#")[0] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in sent if not url.startswith("data:")} == {usual_page.as_uri()}


@needs_browser
def test_without_scripts(browser: Browser, usual_page: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(usual_page)
        text = browser.find("body").text
        assert not browser.find("#app").is_displayed() and not browser.find("#theme").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    for words in ("Filtering, scale small", "Bring your own data", "Alpha", "0.300 ± 0.002", "Unfinished", "published"):
        assert words in text
    for row in (
        "Clip A. Author 0.353 ± 0.007 +0.083 (0.071 to 0.095) 3",
        "0.270 ± 0.004 baseline",
        "−0.010 (−0.040 to",
    ):
        assert row in " ".join(text.split())


ODD = {
    "empty": (board([], [], []), "No ranked entry yet."),
    "one entry": (board([entry("Only", 0.3, 1)], [], []), "Only leads with an average of 0.300. It is the only"),
    "published alone": (board([], [], [reference("Best", 0.3)]), "The best published result, Best, has 0.300."),
    "not ranked alone": (board([], [entry("Lost", 0.3)], []), "No ranked entry yet."),
    "seeds of one": (
        board([entry("A", 0.3, 1, 2), entry("A", 0.299, 1, 2, seed=1), entry("B", 0.2, 3)], [], []),
        "A leads with an average of 0.300.\nIt is ahead of B by 0.100",
    ),
    "one method over seeds, no baseline": (
        board([], [], [], methods=[method("A", 2, Spread(mean=0.3, sd=0.01), None)]),
        "Nobody trained on the whole pool here",
    ),
    "no scores of tasks": (board([entry("A", 0.3, 1, scores={})], [], []), "No entry with scores of single tasks."),
    "no sizes": (board([entry("A", 0.3, 1, dataset_size=None)], [], [], pool_size=None), "No entry of known size"),
    "no noise": (board([entry("A", 0.3, 1), entry("B", 0.2, 2)], [], [], noise=None), "not known"),
    "no average": (board([], [entry("A", 0.3, aggregates={})], [reference("R", 0.2)]), "The best published result, R"),
    "demo": (
        board(
            [entry("A", 0.3, 1, aggregates={"average": Score(value=0.3, stderr=None)})],
            [],
            [],
            scale="tiny",
            aggregates=["average"],
            tasks=TASKS[3:],
        ),
        "A leads with an average of 0.300.",
    ),
}


@needs_browser
@pytest.mark.parametrize("name", ODD)
def test_odd_boards(browser: Browser, name: str) -> None:
    odd, words = ODD[name]
    browser.open(browser.write(page(leaderboard(odd))))
    assert words in browser.find("#app").text
    if odd.ranked or odd.references:
        browser.find("#ranking input").click()
        browser.until(lambda: "Known by" in browser.text("#comparison"))
    browser.resize(390)
    assert browser.js(OVERFLOW) == []


@needs_browser
def test_no_boards(browser: Browser) -> None:
    browser.open(browser.write(page(leaderboard())))
    assert "No submissions yet." in browser.find("main").text


@needs_browser
@pytest.mark.slow
def test_ten_thousand_entries(browser: Browser) -> None:
    many = [entry(f"Method {n}", 0.5 - n / 50_000, n + 1, min(n + 50, 10_000)) for n in range(10_000)]
    path = browser.write(page(leaderboard(board(many, [], [reference("Pool", 0.4)]))))
    assert path.stat().st_size < 6e6
    browser.open(path)
    browser.find("#search").send_keys("method 9999")
    browser.shows(["Method 9999"])
    browser.find("#search").send_keys(Keys.BACKSPACE * 11)
    browser.shows(["Method 0"])
    browser.click("#sort-imagenet")
    browser.click("#sort-imagenet")
    browser.shows(["Method 9999", "Method 9998"])
    assert len(browser.methods()) == 50


class Tags(HTMLParser):
    """That the tags of a page nest, and which there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_markup_nests_whatever_is_submitted() -> None:
    names = [HOSTILE, "</script><img>", "<!--", "]]>", "$data"]
    given = leaderboard(
        board(
            [entry(name, 0.3, 1) for name in names],
            [entry(HOSTILE, 0.2)],
            [reference(HOSTILE, 0.1)],
            methods=[method(name, 2, Spread(mean=0.3, sd=0.1), None, author=name) for name in names],
        )
    )
    text = page(given)
    tags = Tags(text)
    assert tags.open == []
    assert not tags.seen & {"img", "iframe"}
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert not set("<>&") & set(data)
    assert json.loads(data) == json.loads(json.dumps(page_data(given)))


def test_same_page_in_every_process() -> None:
    words = (
        "import sys",
        "sys.path.insert(0, 'tests')",
        "import test_page",
        "from poolbench.files import digest_bytes",
    )
    script = "; ".join((*words, "print(digest_bytes(test_page.page(test_page.usual()).encode()))"))
    done = forked.run("-c", script, check=True)
    assert done.stdout.strip() == digest_bytes(page(usual()).encode())


def test_data_keeps_the_order_and_leaves_out_what_is_not_shown() -> None:
    data = page_data(usual())
    rows = [Row(*row) for row in data["boards"][0]["rows"]]
    assert [row.method for row in rows[:4]] == ["Alpha", "=Beta ∩ Gamma", "Published best", "Method 00"]
    assert rows[-1].kind == "unranked"
    assert (rows[0].aggregates, rows[0].errors) == ([30_000] * 3, [200] * 3)
    assert rows[0].scores == [30_000, 30_000, 30_000, 60_000]
    assert [pair["scales"] for pair in data["pairs"]] == [["small", "medium"]]
    assert "a" * 64 not in json.dumps(data)


def test_unverified_rows_come_between_the_ranked_and_the_unranked_and_have_no_rank() -> None:
    rows = [Row(*row) for row in page_data(unverified())["boards"][0]["rows"]]
    found = [(row.kind, row.method, row.rank, row.last) for row in rows]
    apart = [("unverified", "Nobody 0", None, None), ("unverified", "Nobody 1", None, None)]
    assert found == [("entry", "Alpha", 1, 1), *apart, ("unranked", "Unfinished", None, None)]
    plain = page(unverified()).split("<h3>Unverified</h3>")[1].split("<h3>")[0]
    assert "Rank" not in plain and plain.index("Nobody 0") < plain.index("Nobody 1")
    assert "Alpha" not in plain and "Unfinished" not in plain


def test_unseen_characters_are_made_visible() -> None:
    assert shown("a\u202eb\u200bc\x00d\u2028e\ud800") == "a\ufffdb\ufffdc\ufffdd\ufffde\ufffd"
    assert shown("Näive ∩ 中文 عنوان") == "Näive ∩ 中文 عنوان"
    assert shown("y" * 301) == "y" * 300 + "\u2026"
