"""What submissions could do to the leaderboard's page, and what it needs: no request, and no script to be read."""

import json
from html.parser import HTMLParser
from pathlib import Path

from browser import Browser, needs_browser
from page_boards import (
    HOSTILE,
    OVERFLOW,
    SOURCE,
    TASKS,
    TURNING,
    board,
    entry,
    leaderboard,
    method,
    reference,
    usual,
)

from leaderboard.models import BoardTask, Noise, Reference, Spread
from leaderboard.page import page
from leaderboard.page.data import page_data


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
