"""What a submission says of evaluation pictures in its training data: whose report it takes, and what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from runs import edit, make_run, options

from poolbench.errors import UserError
from poolbench.files import digest_bytes, digest_file, read_json, write_json
from poolbench.overlap_report import read_report

from leaderboard import submit
from leaderboard.boards import place
from leaderboard.page.data import page_data
from leaderboard.submissions import read_submission


def report_of(run: Path, folder: Path, **changes: Any) -> Path:
    """overlap.json as the command writes it of a run's data, in a folder."""
    record = read_json(run / "run.json")
    digest = json.loads((run / "eval_results.jsonl").read_text().splitlines()[0])["data_digest"]
    value = {
        "format": 1,
        "data": {"shards": 15, "bytes": 1500, "digest": record["data"]["digest"]},
        "subset": {"digest": record["subset"]["digest"], "size": record["subset"]["size"]},
        "samples": 3_800_000,
        "left_out": 2,
        "sets": [{"name": "a", "pictures": 10, "left_out": 0, "blank": 0, "digest": digest}],
        "by_hash": {
            "hash": "phash 256",
            "bits": 256,
            "distance": 30,
            "chosen": False,
            "false_positives": 0.0,
            "negatives": 10,
            "positives": 10,
            "edits": [],
        },
        "by_embedding": None,
        "found": 12,
        "shown": 3,
    }
    write_json(folder / "overlap.json", {**value, **changes})
    return folder


def test_a_submission_says_what_was_found(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a")
    report = report_of(run, tmp_path / "leak")
    path = submit.submit(options(run, overlap=str(report)))
    found = read_json(path)["overlap"]
    first = json.loads((run / "eval_results.jsonl").read_text().splitlines()[0])["key"]
    assert (found["found"], found["samples"], found["shown"], found["tasks"]) == (12, 3_800_000, 3, [first])
    assert found["digest"] == digest_file(report / "overlap.json")
    assert read_submission(path)[1] == []
    assert read_report(report / "overlap.json").found == 12
    without = submit.submit(options(run))
    assert "overlap" not in read_json(without)  # as it was before there was the field


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"shards": 1, "bytes": 1, "digest": "b" * 64}}, "is of other shards than the run's"),
        ({"subset": None}, "is of all of the shards; run curate.overlap with subset=/secret/subset.npy"),
        ({"subset": {"digest": "b" * 64, "size": 1}}, "is of another subset than the run's"),
        (
            {"sets": [{"name": "a", "pictures": 1, "left_out": 0, "blank": 0, "digest": digest_bytes(b"other")}]},
            "looked for pictures of other evaluation data",
        ),
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"found": -1}, "is no report of curate.overlap: found"),
        ({"fund": 1}, "unknown key 'fund'; did you mean 'found'?"),
    ],
    ids=["data", "whole", "subset", "sets", "format", "negative", "unknown"],
)
def test_a_report_of_something_else_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a")
    report = report_of(run, tmp_path / "leak", **changes)
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        submit.submit(options(run, overlap=str(report / "overlap.json")))
    assert "\n" not in str(raised.value) and not (run / "submission.json").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"found": 4_000_000}, "overlap.found: 4000000 of 3800000 samples"),
        ({"shown": 0}, "overlap.shown: 0 pictures, but 12 samples show one"),
        ({"tasks": []}, "overlap.tasks: none, or one twice"),
        ({"tasks": ["vtab/none"]}, "overlap.tasks: 'vtab/none' is no task of this submission"),
        ({"distance": 300}, "overlap.distance: 300 of 256 bits"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a")
    path = submit.submit(options(run, overlap=str(report_of(run, tmp_path / "leak"))))
    edit(path, lambda value: value["overlap"].update(changes))
    assert read_submission(path)[1] == [said]


def test_an_entry_carries_it_to_the_page(tmp_path: Path) -> None:
    from leaderboard.boards import compose, no_references

    placed = []
    for name, looked in (("a", True), ("b", False)):
        run = make_run(tmp_path / "runs" / name)
        more = {"overlap": str(report_of(run, tmp_path / name))} if looked else {}
        submission, refusals = read_submission(submit.submit(options(run, name, track="byod", **more)))
        assert submission is not None and not refusals
        placed.append(place(submission))
    found = compose(placed, no_references)
    data = page_data(found)
    column = data["fields"].index("overlap")
    rows = {row[data["fields"].index("method")]: row[column] for row in data["boards"][0]["rows"]}
    assert rows["a"] == [12, 3_800_000, 1, len(placed[0].entry.scores)] and rows["b"] is None
    entries = (
        json.loads(found.model_dump_json())["boards"][0]["unranked"] + found.model_dump()["boards"][0]["unverified"]
    )
    assert [entry["method"] for entry in entries if "overlap" in entry] == ["a"]
