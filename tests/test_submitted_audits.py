"""A submission that carries its audit: taken from curate.audit's own file, refused where it is another's, and shown."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, needs_browser
from page_boards import HOSTILE, board, entry
from page_boards import leaderboard as made_of
from runs import edit, make_run, options
from test_audit import write_pool

from poolbench.errors import UserError
from poolbench.files import digest_file, read_json, write_json
from poolbench.uids import write_subset

from curate import audit
from leaderboard.boards import compose, place
from leaderboard.models import MOST_GROUPS, Audit, AuditedGroup, AuditedLine, Submission
from leaderboard.page import page
from leaderboard.submissions import read_submission
from leaderboard.submit import submit

pytestmark = pytest.mark.usefixtures("pinned_data")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool, two subsets of it, of which the first is biased, and the audit of both."""
    root = tmp_path_factory.mktemp("audits")
    rows, rng = write_pool(root / "pool", 3000), np.random.default_rng(1)
    few = ("muslim", "asian")
    chances = [0.1 if any(word in (row["text"] or "").lower() for word in few) else 0.4 for row in rows]
    write_subset(root / "biased.npy", [row["uid"] for row, p in zip(rows, chances, strict=True) if rng.random() < p])
    write_subset(root / "fair.npy", [row["uid"] for row in rows if rng.random() < 0.3])
    words = [f"subset=[{root / 'biased.npy'},{root / 'fair.npy'}]", f"pool={root / 'pool'}", f"out={root / 'audit'}"]
    assert audit.COMMAND.answer([*words, "words=null", "workers=1"]) == 0
    return root


def run_on(subset: Path, folder: Path) -> Path:
    """A run that was trained on a subset."""
    told = {"path": str(subset), "digest": digest_file(subset), "size": len(np.load(subset))}
    return make_run(folder, subset=told)


def submitted(root: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    run = run_on(root / "biased.npy", folder)
    return dict(read_json(submit(options(run, **{"audit": str(root / "audit"), **changes}))))


def test_a_submission_carries_what_the_audit_found(root: Path, tmp_path: Path) -> None:
    value, found = submitted(root, tmp_path / "run"), read_json(root / "audit" / "groups.json")
    told, base = value["audit"], found["subsets"][0]["base"]
    assert found["subsets"][0]["size"] == value["subset"]["size"]
    ours = [one for one in found["groups"] if one["subset"] == "biased"]
    different = sorted((one for one in ours if one["different"]), key=lambda one: -abs(one["ratio"] - base))
    assert {one["group"] for one in different} >= {"muslim", "asian", "man and muslim"}
    assert told["digest"] == digest_file(root / "audit" / "groups.json")
    assert (told["pool"], told["kept"], told["groups"]) == (3000, found["subsets"][0]["kept"], len(ours))
    assert told["less"] == sum(one["ratio"] < base for one in different)
    assert told["less"] + told["more"] == len(different) <= MOST_GROUPS
    keys = ("attribute", "group", "raw", "kept", "ratio", "low", "high")
    assert told["different"] == [{key: one[key] for key in keys} for one in different]
    lines = [one for one in found["amplification"] if one["subset"] == "biased"]
    assert [one["attribute"] for one in told["amplification"]] == [
        one["attribute"] for one in sorted(lines, key=lambda one: one["p"])
    ]
    assert read_submission(tmp_path / "run" / "submission.json").refusals == []
    submission = Submission.model_validate(value)
    (only,) = compose([place(submission)]).boards
    assert only.ranked[0].audit == submission.audit


def test_a_file_can_be_named_itself(root: Path, tmp_path: Path) -> None:
    value = submitted(root, tmp_path / "a", audit=str(root / "audit" / "groups.json"))
    assert value["audit"] == submitted(root, tmp_path / "b")["audit"]


def test_what_was_submitted_before_stays_what_it_was(tmp_path: Path) -> None:
    """Neither the file nor its digest nor leaderboard.json knows of the field where it is not used."""
    path = submit(options(make_run(tmp_path / "run")))
    assert "audit" not in read_json(path)
    submission = read_submission(path).submission
    assert submission is not None and "audit" not in submission.public()
    (only,) = compose([place(submission)]).boards
    assert "audit" not in only.model_dump(mode="json")["ranked"][0]


def without_digests(found: Any) -> None:
    found["version"] = 1
    for one in found["subsets"]:
        del one["digest"], one["size"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_digests, "is of version 1, and 2 is needed; run curate.audit again"),
        (lambda found: found.update(version=3), "is of version 3, and 2 is needed"),
        (lambda found: found["subsets"].pop(0), "is of other subsets (fair"),
        (lambda found: found.pop("groups"), "is no groups.json of curate.audit: the key 'groups' is missing"),
        (lambda found: found["groups"][0].update(raw="many"), "is no groups.json of curate.audit: groups.0.raw"),
        (lambda found: found["groups"][0].update(ratio=float("nan")), "groups.0.ratio"),
        (lambda found: found.update(pool=0), "is no groups.json of curate.audit: pool"),
    ],
)
def test_another_file_is_refused(root: Path, tmp_path: Path, change: Callable[[Any], Any], said: str) -> None:
    found = read_json(root / "audit" / "groups.json")
    change(found)
    (tmp_path / "groups.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        submitted(root, tmp_path / "run", audit=str(tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not (tmp_path / "run" / "submission.json").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is not JSON"), ("[]", "is no groups.json of curate.audit"), ("[" * 100_000, "is not JSON: ")],
)
def test_what_is_no_audit_is_refused(root: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "groups.json").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        submitted(root, tmp_path / "run", audit=str(tmp_path / "groups.json"))
    assert "\n" not in str(caught.value)


def test_the_wrong_run_is_refused(root: Path, tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", subset=None)
    with pytest.raises(UserError, match="the run was trained without a subset"):
        submit(options(whole, audit=str(root / "audit"), dataset_size=3000))
    with pytest.raises(UserError, match=r"than the run's, .* of 3,800,000 uids"):
        submit(options(make_run(tmp_path / "other"), audit=str(root / "audit")))
    with pytest.raises(UserError, match="nowhere does not exist"):
        submitted(root, tmp_path / "run", audit=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told["different"][0].update(ratio=0.5), "audit.different.0: ratio: 0.5 is not that of"),
        (lambda told: told["different"][1].update(low=0.0), "audit.different.1: low: 0.0 is not that of"),
        (lambda told: told["different"][0].update(kept=10**6), "rows are kept, but"),
        (lambda told: told["different"].reverse(), "audit.different: not the farthest from kept / pool first"),
        (lambda told: told["different"].pop(), "groups, but"),
        (lambda told: told.update(kept=5000), "audit.kept: 5000 of 3000 rows"),
        (lambda told: told.update(less=told["less"] - 1, more=told["more"] + 1), "is not what the groups say"),
        (lambda told: told.update(groups=1), "groups, but"),
        (lambda told: told["amplification"][0].update(r=2), "audit.amplification.0.r"),
        (lambda told: told["different"][0].update(group="a\nb"), "audit.different.0.group: must be one line"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    root: Path, tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    submitted(root, tmp_path / "run")
    path = edit(tmp_path / "run" / "submission.json", lambda value: change(value["audit"]))
    found = read_submission(path).refusals
    assert any(said in line for line in found), found


def test_long_and_odd_names_are_cut(root: Path, tmp_path: Path) -> None:
    found = read_json(root / "audit" / "groups.json")
    strange = next(one for one in found["groups"] if one["different"] and one["subset"] == "biased")
    strange.update(attribute="\u202e\n", group="long " * 100)
    write_json(tmp_path / "groups.json", found)
    told = submitted(root, tmp_path / "run", audit=str(tmp_path))["audit"]["different"]
    (one,) = (one for one in told if one["group"].startswith("long long"))
    assert len(one["group"]) <= 200 and one["attribute"] == "??"


def test_no_more_than_some_groups_are_carried(root: Path, tmp_path: Path) -> None:
    found = read_json(root / "audit" / "groups.json")
    one = next(one for one in found["groups"] if one["different"] and one["subset"] == "biased")
    found["groups"] += [{**one, "group": f"copy {number:02}"} for number in range(40)]
    write_json(tmp_path / "groups.json", found)
    told = submitted(root, tmp_path / "run", audit=str(tmp_path))["audit"]
    assert len(told["different"]) == MOST_GROUPS < told["less"] + told["more"]
    assert read_submission(tmp_path / "run" / "submission.json").refusals == []


# --- the page ---


def audit_of(ratios: dict[str, tuple[int, int]], **changes: Any) -> Audit:
    """An audit of a pool of 10,000 rows, of which 3,000 are kept."""
    different = [
        AuditedGroup(
            attribute="religion", group=name, raw=raw, kept=kept, ratio=kept / raw,
            low=max(0, kept / raw - 0.05), high=min(1, kept / raw + 0.05),
        )
        for name, (kept, raw) in ratios.items()
    ]  # fmt: skip
    less = sum(one.ratio < 0.3 for one in different)
    lines = [AuditedLine(attribute="kind of picture", slope=1e-5, r=-0.85, p=0.0004, groups=4)]
    values = {"digest": "a" * 64, "pool": 10_000, "kept": 3000, "level": 0.05, "groups": 212, "less": less}
    values |= {"more": len(different) - less, "different": different, "amplification": lines, **changes}
    return Audit(**values)


@needs_browser
def test_the_page_shows_an_audit_with_its_method(browser: Browser) -> None:
    first = audit_of({"muslim": (40, 400), HOSTILE: (500, 1000), "christian": (200, 1000)})
    second = audit_of({}, amplification=[])
    rows = [entry("Alpha", 0.3, 1, audit=first), entry("Beta", 0.28, 2, audit=second), entry("Gamma", 0.2, 3)]
    browser.open(browser.write(page(made_of(board(rows, [], [])))))
    badges = "return [...document.querySelectorAll('#ranking tbody tr')].map(r => r.textContent.includes('audited'))"
    assert browser.js(badges) == [True, True, False]
    browser.tick("Alpha")
    browser.until(lambda: browser.all("#comparison .audit"))
    words = browser.text("#comparison .audit p")
    assert words.startswith(
        "Of the pool's 10.0k rows the subset keeps 30.0 %. Of 212 groups that were looked at, 2 are"
    )
    groups = browser.js(
        "return [...document.querySelectorAll('.audit tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert [row[1] for row in groups] == [
        "10.0 % (5.0 % to 15.0 %)", "50.0 % (45.0 % to 55.0 %)", "20.0 % (15.0 % to 25.0 %)",
    ]  # fmt: skip
    assert groups[0][0] == "muslimreligion, 400 rows"
    assert HOSTILE in groups[1][0] and browser.js("return window.ran ?? null") is None
    styles = browser.js(
        "return [...document.querySelectorAll('.audit .strip')].map(s => s.className + s.style.cssText)"
    )
    assert ["gain out" in one for one in styles] == [True, False, True]
    assert "--at: 10.0%" in styles[0] or "--at:10.0%" in styles[0]  # of the axis from 5 % to 55 %
    assert "kind of picture r = −0.85, p = 4e-4 (4 groups)" in browser.text(".audit .soft")
    browser.tick("Beta")
    browser.until(lambda: len(browser.all("#comparison .audit")) == 2)
    assert len(browser.all(".audit table")) == 1  # nothing differs in the second
    browser.resize(400)
    assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
    browser.click("#tray-clear")
    browser.tick("Gamma")
    browser.until(lambda: "0.200" in browser.text("#comparison"))
    assert browser.all("#comparison .audit") == []
