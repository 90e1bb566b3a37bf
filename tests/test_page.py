"""The leaderboard's page in a real Chromium, used as a person would."""

import csv
import json
from pathlib import Path

import forked
import pytest
from browser import Browser, needs_browser
from page_boards import board, entry, leaderboard, reference, unverified, usual
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from poolbench.files import digest_bytes

from leaderboard.models import Score
from leaderboard.page import page
from leaderboard.page.data import Row, page_data, shown
from leaderboard.rank import margin


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
    view.until(lambda: len(view.methods()) == 50)
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
    view.shows(["Alpha"])
    assert view.find("#search").get_attribute("value") == "alpha"
    assert view.find("input[aria-label='Compare Alpha']").is_selected()
    view.open(usual_page, "track=byod")
    view.shows(["Own data"])
    view.open(
        usual_page, "track=nonsense&sort=<b>&rows=x&compare=,,nobody&metric=0&baseline=constructor&other=__proto__&a"
    )
    view.shows(["Alpha"])


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


def test_same_page_in_every_process() -> None:
    words = (
        "import sys",
        "sys.path.insert(0, 'tests')",
        "from page_boards import usual",
        "from leaderboard.page import page",
        "from poolbench.files import digest_bytes",
    )
    script = "; ".join((*words, "print(digest_bytes(page(usual()).encode()))"))
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
