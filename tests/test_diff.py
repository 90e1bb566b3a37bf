"""What a change does to the boards, told in Markdown; and the workflow that tells it on a pull request."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from markdown_it import MarkdownIt
from runs import CONTACT, ROOT, edit, make_run, options, result, without_lock_file

from poolbench.errors import UserError
from poolbench.files import append_line

from leaderboard.boards import compose
from leaderboard.build import collect
from leaderboard.diff import DiffOptions, diff, markdown, shown
from leaderboard.models import Leaderboard, read_leaderboard
from leaderboard.submit import submit
from tasks.registry import load_tasks

pytestmark = pytest.mark.usefixtures("pinned_data")

NUMBER = 7  # of the pull request


def submission(
    folder: Path, name: str, value: float = 0.5, method: str | None = None, contact: str | None = None, **changes: Any
) -> Path:
    """A submission file whose scores are all `value`."""
    run = make_run(folder / "runs" / name, **changes)
    (run / "eval_results.jsonl").unlink()
    for task in load_tasks().values():
        if task.suite == "main":
            append_line(run / "eval_results.jsonl", result(name, task.key, value))
    path = submit(options(run, method=method or name, contact=contact))
    folder.mkdir(exist_ok=True)
    return path.rename(folder / f"{name}.submission.json")


def board_of(*paths: Path) -> Leaderboard:
    placed, refusals = collect(paths)
    assert not refusals
    return compose(placed)


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text as a reader sees them: a list of rows of cells each."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level > 3:
            found[-1][-1].append("".join(child.content for child in token.children or [] if child.type == "text"))
    return found


def test_a_new_entry_has_its_place_and_lead_and_moves_others(tmp_path: Path) -> None:
    old = [submission(tmp_path, "one", 0.5), submission(tmp_path, "two", 0.4)]
    new = submission(tmp_path, "new", 0.45)
    text = markdown(board_of(*old), board_of(*old, new))
    assert "### filtering, scale small" in text
    added, moved = tables(text)
    assert added[1:] == [["2 of 3", "new", "A. Author", "0.4500", "-0.0500 (noise 0.0075)"]]
    assert moved[1:] == [["two", "A. Author", "2", "3"]]
    assert "Warning" not in text


def test_a_lead_within_noise_is_said_to_be(tmp_path: Path) -> None:
    old, new = submission(tmp_path, "old", 0.5), submission(tmp_path, "new", 0.505)
    added, moved = tables(markdown(board_of(old), board_of(old, new)))
    assert added[1:] == [["1–2 of 2", "new", "A. Author", "0.5050", "+0.0050 (noise 0.0075), within noise"]]
    assert moved[1:] == [["old", "A. Author", "1", "1–2"]]
    (added,) = tables(markdown(board_of(), board_of(old)))
    assert added[1][-1] == "the only one"


def test_an_entry_that_is_not_ranked_tells_why(tmp_path: Path) -> None:
    new = submission(tmp_path, "new", status="running", official=False, deviations=["recipe.seed | is *odd*"])
    (table,) = tables(markdown(board_of(), board_of(new)))
    assert table[1:] == [["new", "A. Author", "0.5000", "recipe.seed | is *odd* and 1 more"]]


def test_an_unverified_entry_has_a_table_of_its_own_and_moves_when_it_is_verified(tmp_path: Path) -> None:
    old = submission(tmp_path, "old", 0.4)
    with without_lock_file():
        new = submission(tmp_path, "new", 0.5)
    before = board_of(old, new)
    (table,) = tables(markdown(board_of(old), before))
    assert table == [["Method", "Author", "Average"], ["new", "A. Author", "0.5000"]]
    verified = submit(options(tmp_path / "runs" / "new", method="new"))
    text = markdown(before, board_of(old, verified))
    assert ["new", "A. Author", "unverified", "1"] in tables(text)[0]


def test_changed_and_removed_entries_are_warned_of(tmp_path: Path) -> None:
    kept, gone = submission(tmp_path, "kept", 0.5), submission(tmp_path, "gone", 0.4)
    edited = submission(tmp_path, "edited", 0.3)
    before = board_of(kept, gone, edited)
    edit(edited, lambda value: value.update(method="Renamed"))
    text = markdown(before, board_of(kept, edited))
    warnings = [line for line in text.splitlines() if "Warning" in line]
    author = "<code>A&#46; Author</code>"
    assert warnings == [
        f"> **Warning:** the entry <code>gone</code> by {author} is removed.",
        f"> **Warning:** the entry <code>edited</code> by {author} is changed, its average from 0.3000 to 0.3000.",
    ]
    assert tables(text) == [[["Method", "Author", "Place before", "Place now"], ["Renamed", "A. Author", "3", "2"]]]
    text = markdown(before, board_of())
    assert text.count("is removed") == 3


def test_nothing_is_said_of_boards_that_stay(tmp_path: Path) -> None:
    one, other = submission(tmp_path, "one"), submission(tmp_path, "other", scale="medium")
    assert markdown(board_of(one), board_of(one)) == "## What this does to the leaderboard\n\nNothing.\n"
    text = markdown(board_of(one), board_of(one, other))
    assert "scale medium" in text
    assert "scale small" not in text


def test_a_long_table_is_cut(tmp_path: Path) -> None:
    new = [submission(tmp_path, f"new-{number:02}", number / 100) for number in range(30)]
    text = markdown(board_of(), board_of(*new))
    (table,) = tables(text)
    assert len(table) == 26
    assert "\nand 5 more\n" in text


HOSTILE = [
    "@everyone | `code` |",
    "</code><script>alert(1)</script>",
    "[link](https://example.org) ![](x) https://example.org www.example.org",
    "# *a* _b_ ~c~ #12 :smile: &lt; &#64;x \\",
    "a@example.org",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_submission_is_shown_as_text(tmp_path: Path, text: str) -> None:
    new = submission(tmp_path, "new", method=text)
    (table,) = tables(markdown(board_of(), board_of(new)))
    assert [len(row) for row in table] == [5, 5]
    assert table[1][1] == text
    inside = shown(text).removeprefix("<code>").removesuffix("</code>")
    assert re.fullmatch(r"(?:[A-Za-z0-9 ]|&#\d+;)*", inside)
    assert shown(text).count("<") == 2


def test_marks_that_cannot_be_seen_are_made_visible_and_long_texts_cut() -> None:
    assert shown("a\u202eb\nc\u200bd") == "<code>a&#92;u202eb&#92;u000ac&#92;u200bd</code>"
    assert shown("x" * 500) == f"<code>{'x' * 119}…</code>"
    assert shown("Näive ∩ 30") == "<code>Näive ∩ 30</code>"


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    good, bad, old = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "old.json"
    good.write_text(compose([]).model_dump_json())
    bad.write_text("{")
    old.write_text('{"format": 1, "aggregates_version": 1, "boards": []}')
    cases: list[tuple[Sequence[Path], str]] = [
        ([good], "diff needs two files"),
        ([good, tmp_path / "no.json"], "no.json cannot be read: No such file"),
        ([good, bad], "bad.json is no leaderboard.json of format 2: the file: Invalid JSON"),
        ([good, old], "old.json is no leaderboard.json of format 2: format: Input should be 2"),
    ]
    for paths, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            diff([str(path) for path in paths], DiffOptions())
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"diff\.md cannot be written: "):
        diff([str(good), str(good)], DiffOptions(out=str(good / "diff.md")))
    assert read_leaderboard(good) == compose([])


# ---- The workflow ----

WORKFLOW = ROOT / ".github" / "workflows" / "leaderboard.yml"
OURS = Path("leaderboard/submissions")


class Outcome(NamedTuple):
    """What the job made of a pull request: the steps that failed, all output, and the text of the comment."""

    failed: list[str]
    output: str
    comment: str


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of `main`, which has two submissions, of a repository beside it; and a branch `pull` in another."""
    origin = tmp_path / "origin"
    accepted = origin / OURS
    accepted.mkdir(parents=True)
    for name, value in [("first", 0.5), ("second", 0.4)]:
        submission(tmp_path / "made", name, value).rename(accepted / f"{name}.submission.json")
    shutil.copy(ROOT / OURS / "README.md", accepted)
    git(origin, "init", "--quiet", "--initial-branch=main")
    commit(origin)
    git(tmp_path, "clone", "--quiet", str(origin), "fork")
    git(tmp_path, "clone", "--quiet", str(origin), "checkout")
    return tmp_path / "checkout"


def git(folder: Path, *arguments: str) -> str:
    names = [f"GIT_{role}_{field}" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")]
    environment = {**os.environ, **dict.fromkeys(names, "somebody")}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Change")
    return git(folder, "rev-parse", "HEAD")


def open_pull_request(project: Path) -> str:
    """Commit what the fork holds and hand it in; meanwhile `main` goes on."""
    origin, fork = project.parent / "origin", project.parent / "fork"
    head = commit(fork)
    git(fork, "push", "--quiet", "origin", f"HEAD:refs/pull/{NUMBER}/head")
    submission(project.parent / "made", "later", 0.2).rename(origin / OURS / "later.submission.json")
    commit(origin)
    git(project, "pull", "--quiet")
    return head


def run_workflow(project: Path, head: str) -> Outcome:
    """The steps of our own of the jobs `check` and `comment`, as GitHub runs them; the rest is its own business."""
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    failed: list[str] = []
    output = ""
    for step in jobs["check"]["steps"]:
        if "run" not in step or step["name"] == "Install" or not due(step.get("if"), failed, project):
            continue
        status, said = run_step(step, project, {"NUMBER": str(NUMBER), "HEAD": head})
        output += said
        if status:
            failed.append(step["name"])
    review = project.parent / "review"
    review.mkdir()
    for path in jobs["check"]["steps"][-1]["with"]["path"].split():
        shutil.copy(project / path, review)
    status, said = run_step(jobs["comment"]["steps"][1], review, {"VERDICT": "failure" if failed else "success"})
    assert status == 0, said
    return Outcome(failed, output, (review / "comment.md").read_text(encoding="utf-8"))


def due(condition: str | None, failed: list[str], project: Path) -> bool:
    """Whether a step is run: without a condition, if none has failed."""
    if condition is None:
        return not failed
    if condition == "${{ !cancelled() }}":
        return True
    assert condition == "${{ !cancelled() && hashFiles('work/new/*') != '' }}"
    return any((project / "work" / "new").iterdir())


def run_step(step: dict[str, Any], folder: Path, variables: dict[str, str]) -> tuple[int, str]:
    assert "${{" not in step["run"], "text of a pull request must not become part of a command"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **variables, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["bash", "-e", "-c", step["run"]]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_good_submission_passes_and_its_effect_is_told(project: Path) -> None:
    fork = project.parent / "fork"
    submission(project.parent / "made", "new", 0.45, "@all").rename(fork / OURS / "new.submission.json")
    outcome = run_workflow(project, open_pull_request(project))
    assert outcome.failed == [], outcome.output
    assert "work/new/new.submission.json: ok" in outcome.output
    added, moved = tables(outcome.comment)
    assert added[1:] == [["2 of 4", "@all", "A. Author", "0.4500", "-0.0500 (noise 0.0075)"]]
    assert [row[0] for row in moved[1:]] == ["second", "later"]
    assert outcome.comment.startswith("success\n")
    assert "Warning" not in outcome.comment


def test_bad_files_fail_and_do_not_reach_the_board(project: Path) -> None:
    fork = project.parent / "fork" / OURS
    bad = submission(project.parent / "made", "bad", 0.9).rename(fork / "bad.submission.json")
    edit(bad, lambda value: value["aggregates"]["values"].update(average=0.99))
    shutil.copy(fork / "first.submission.json", fork / "copy.submission.json")
    contact = submission(project.parent / "made", "contact", contact=CONTACT).rename(fork / "contact.submission.json")
    (fork / "link.submission.json").symlink_to("/etc/passwd")
    (fork / "leaderboard.py").write_text("raise SystemExit('run!')\n")
    outcome = run_workflow(project, open_pull_request(project))
    assert {"Take its submissions", "Validate them"} < set(outcome.failed)
    assert "bad.submission.json: aggregates.values.average: 0.99 does not follow" in outcome.output
    assert re.search(r"work/new/copy\.submission\.json: .*first\.submission\.json", outcome.output)
    assert "run!" not in outcome.output
    assert "root:" not in outcome.output
    assert outcome.comment.count("is left out") == 2
    assert [row[1] for row in tables(outcome.comment)[0][1:]] == ["contact"]
    assert f"{shown(contact.name)} tells everybody its contact" in outcome.comment
    assert CONTACT not in outcome.comment + outcome.output


def test_edits_and_removals_are_flagged(project: Path) -> None:
    fork = project.parent / "fork" / OURS
    edit(fork / "first.submission.json", lambda value: value.update(author="Somebody else"))
    (fork / "second.submission.json").unlink()
    outcome = run_workflow(project, open_pull_request(project))
    assert {"Take its submissions", "Validate them"} <= set(outcome.failed)
    assert "was accepted before and is edited" in outcome.comment
    assert "was accepted before and is removed" in outcome.comment
    assert re.search(r"the entry <code>first</code> .* is changed", outcome.comment)
    assert re.search(r"the entry <code>second</code> .* is removed", outcome.comment)


def test_the_workflow_gives_no_rights_to_what_reads_a_pull_request() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    assert jobs["check"]["permissions"] == {"contents": "read"}
    assert jobs["comment"]["permissions"] == {"pull-requests": "write"}
    for name in ("check", "comment"):
        assert "secrets." not in yaml.dump(jobs[name])
    checkouts = [step for step in jobs["check"]["steps"] if step.get("uses", "").startswith("actions/checkout")]
    assert [step["with"] for step in checkouts] == [{"fetch-depth": 0, "persist-credentials": False}]  # no other ref
    assert not any("checkout" in step.get("uses", "") for step in jobs["comment"]["steps"])
