"""How the leaderboard's page looks: themes, narrow screens, contrast, screen readers, boards of all kinds."""

from pathlib import Path

import pytest
from browser import Browser, needs_browser
from page_boards import OVERFLOW, TASKS, board, entry, leaderboard, method, reference

from leaderboard.models import Score, Spread
from leaderboard.page import page


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
    for name in ("Alpha", "Method 00"):
        browser.tick(name)
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
    for name in ("Alpha", "Method 00"):
        view.tick(name)
    view.until(lambda: "Verdict" in view.text("#comparison"))
    assert view.js(ACCESSIBLE) == []


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
