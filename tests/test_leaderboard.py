"""From submissions to leaderboard.json and the page."""

import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from runs import CONTACT, drop_line, edit, leaderboard, make_run, options, result

from conf.errors import UserError
from conf.files import append_line, read_json
from leaderboard.build import BuildOptions, build, collect, compose, find
from leaderboard.models import SCHEMAS, Leaderboard, Submission, schema, write_schemas
from leaderboard.page import page
from leaderboard.submit import submit
from tasks.registry import load_tasks


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    return submit(options(make_run(tmp_path / "run")))


def test_command_line_from_run_to_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one")
    words = ("method=Näive = 30 %", "author=A. Author", "track=filtering", f"contact={CONTACT}")
    done = leaderboard("submit", f"run={run}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{run}/submission.json: official\n"
    done = leaderboard("validate", run / "submission.json")
    assert (done.returncode, done.stdout) == (0, f"{run}/submission.json: ok\n")
    done = leaderboard("build", tmp_path / "runs", f"out={tmp_path / 'site'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "site").iterdir()} == {"leaderboard.json", "index.html"}
    assert "Näive = 30 %" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_tiny_is_scored_on_the_demo_suite(tmp_path: Path) -> None:
    value = read_json(submit(options(make_run(tmp_path / "run", scale="tiny"))))
    assert value["official"] is True
    assert {task["key"] for task in value["tasks"]} == {k for k, t in load_tasks().items() if t.suite == "demo"}
    assert list(value["aggregates"]["values"]) == ["average"]
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 0
    (board,) = read_json(tmp_path / "site" / "leaderboard.json")["boards"]
    assert (board["scale"], board["ranked"][0]["rank"]) == ("tiny", 1)


def set_scores(run: Path, value: float, imagenet: float | None = None) -> Path:
    """Results that are all `value`; with `imagenet`, ImageNet has that and CIFAR-10 makes up for it."""
    (run / "eval_results.jsonl").unlink()
    for task in load_tasks().values():
        if task.suite == "main":
            score = value
            if imagenet is not None:
                score = {"imagenet1k": imagenet, "cifar10": 2 * value - imagenet}.get(task.key, value)
            append_line(run / "eval_results.jsonl", result(run.name, task.key, score))
    return run


def board_of(folder: Path) -> dict[str, Any]:
    submissions, reasons = collect(find(folder))
    assert not reasons
    (board,) = compose(submissions).model_dump(mode="json")["boards"]
    result: dict[str, Any] = board
    return result


def test_ranks_by_average_then_imagenet_and_ties_share(tmp_path: Path) -> None:
    for name, value, imagenet in [
        ("low", 0.25, None),
        ("tie-a", 0.5, 0.5),
        ("tie-b", 0.5, 0.5),
        ("imagenet", 0.5, 0.625),
        ("high", 0.75, None),
    ]:
        submit(options(set_scores(make_run(tmp_path / name), value, imagenet), method=name))
    ranked = board_of(tmp_path)["ranked"]
    found = [(entry["method"], entry["rank"]) for entry in ranked]
    assert found == [("high", 1), ("imagenet", 2), ("tie-a", 3), ("tie-b", 3), ("low", 5)]


def test_unofficial_entries_are_never_ranked(tmp_path: Path) -> None:
    submit(options(set_scores(make_run(tmp_path / "good"), 0.25), method="good"))
    better = set_scores(make_run(tmp_path / "better", status="running"), 0.75)
    submit(options(better, method="better"))
    incomplete = set_scores(make_run(tmp_path / "incomplete"), 0.75)
    drop_line(incomplete, "mnist")
    submit(options(incomplete, method="incomplete"))
    board = board_of(tmp_path)
    assert [(entry["method"], entry["rank"]) for entry in board["ranked"]] == [("good", 1)]
    assert [(entry["method"], entry["rank"]) for entry in board["unranked"]] == [("better", None), ("incomplete", None)]
    assert [entry["deviations"] for entry in board["unranked"]] == [["run not complete"], ["task mnist missing"]]
    assert [entry["aggregates"]["average"] for entry in board["unranked"]] == [0.75, None]


def test_one_board_per_track_and_scale(tmp_path: Path) -> None:
    for name, scale, track in [
        ("a", "medium", "byod"),
        ("b", "small", "filtering"),
        ("c", "small", "byod"),
        ("d", "medium", "filtering"),
    ]:
        submit(options(make_run(tmp_path / name, scale=scale), track=track))
    submissions, _ = collect(find(tmp_path))
    boards = [(board.track, board.scale) for board in compose(submissions).boards]
    assert boards == [("filtering", "small"), ("filtering", "medium"), ("byod", "small"), ("byod", "medium")]


def test_build_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    names = ["c", "a", "b"]
    for name in names:
        submit(options(make_run(tmp_path / "one" / name, status="running" if name == "b" else "complete")))
    (tmp_path / "two" / "sub").mkdir(parents=True)
    for place, name in enumerate(names):  # other names, other folders, another order
        target = tmp_path / "two" / ("sub" if place else "") / f"{9 - place}.submission.json"
        shutil.copy(tmp_path / "one" / name / "submission.json", target)
    for folder in ("one", "two"):
        assert build([str(tmp_path / folder)], BuildOptions(out=str(tmp_path / f"site-{folder}"))) == 0
    for name in ("leaderboard.json", "index.html"):
        assert (tmp_path / "site-one" / name).read_bytes() == (tmp_path / "site-two" / name).read_bytes()


def test_refused_and_duplicate_files_are_named_and_left_out(tmp_path: Path) -> None:
    good = submit(options(make_run(tmp_path / "in" / "good"), method="good"))
    bad = submit(options(make_run(tmp_path / "in" / "bad"), method="bad"))
    edit(bad, lambda value: value["aggregates"]["values"].update(average=0.99))
    twice = tmp_path / "in" / "zz.submission.json"
    shutil.copy(good, twice)
    edit(twice, lambda value: value["private"].update(contact="another@private.example"))
    make_run(tmp_path / "in" / "forgotten")
    done = leaderboard("build", tmp_path / "in", f"out={tmp_path / 'site'}")
    assert done.returncode == 1
    assert f"refused: {bad}: aggregates.values.average: 0.99 does not follow from the tasks" in done.stderr
    assert f"refused: {twice}: checkpoint_sha256: the same submission as {good}" in done.stderr
    assert f"note: {tmp_path / 'in' / 'forgotten'} has results and no submission.json" in done.stderr
    (board,) = read_json(tmp_path / "site" / "leaderboard.json")["boards"]
    assert [entry["method"] for entry in [*board["ranked"], *board["unranked"]]] == ["good"]


def test_contact_and_local_paths_are_not_published(tmp_path: Path) -> None:
    submit(options(make_run(tmp_path / "one")))
    submit(options(make_run(tmp_path / "two", status="running")))
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 0
    for path in (tmp_path / "site").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "A. Author" in text
        for word in (CONTACT, "private", "contact", "secret", str(tmp_path)):
            assert word not in text


class Tags(HTMLParser):
    """Every tag and attribute of a page, and that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_escapes_hostile_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
    url = "https://example.org/?a=1&b=<2>"
    with pytest.raises(UserError, match="writeup"):
        submit(options(make_run(tmp_path / "refused"), writeup=url))
    url = "https://example.org/?a=1&lt=2"
    submit(options(make_run(tmp_path / "one"), method=hostile, author=hostile, writeup=url))
    reason = f"why: {hostile}"
    submit(options(make_run(tmp_path / "two", official=False, deviations=[reason]), method=hostile))
    text = page(compose(collect(find(tmp_path))[0]))
    tags = Tags(text)
    assert not tags.open
    assert not tags.tags & {"script", "img", "link", "iframe"}
    assert ("href", url) in tags.attributes
    assert not any(name.startswith("on") for name, _ in tags.attributes)
    assert tags.text.count(hostile) == 4  # two methods, one author, one reason
    assert reason in tags.text


def test_page_needs_no_network_and_shows_the_numbers(tmp_path: Path) -> None:
    submit(options(set_scores(make_run(tmp_path / "one"), 0.25), method="Filtered"))
    submit(options(set_scores(make_run(tmp_path / "two", status="running"), 0.75), method="Unfinished"))
    text = page(compose(collect(find(tmp_path))[0]))
    tags = Tags(text)
    loads = {value for name, value in tags.attributes if name in ("src", "href")}
    assert loads == {"leaderboard.json"}
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    for word in ("Filtering, scale small", "Filtered", "0.250", "3.8M", "Unfinished", "0.750", "run not complete"):
        assert word in tags.text
    assert text.count('<th scope="row">') == 40
    assert "0.250 ± 0.010" in tags.text


def test_page_without_submissions() -> None:
    text = page(compose([]))
    assert "No submissions yet." in Tags(text).text


def test_build_where_all_are_refused(tmp_path: Path, submission: Path) -> None:
    edit(submission, lambda value: value.update(seed=None))
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 1
    assert read_json(tmp_path / "site" / "leaderboard.json")["boards"] == []


def test_wrong_command_lines(tmp_path: Path) -> None:
    cases = [
        ([], "python -m leaderboard needs a command; known: submit, validate, build, schema"),
        (["sumbit"], "unknown command 'sumbit': did you mean 'submit'?"),
        (["submit", "run=x", "method=x", "author=x"], "track= is needed"),
        (["submit", "run=x", "method=x", "author=x", "trak=byod"], "unknown key 'trak': did you mean 'track'?"),
        (["submit", "run=x", "method=a", "name"], "submit takes key=value only, not 'name'"),
        (["validate"], "validate needs the submission files"),
        (["build", str(tmp_path)], "out= is needed"),
        (["build", "out=x"], "build needs one folder of submissions"),
        (["build", str(tmp_path / "no"), "out=x"], "is no folder"),
        (["build", str(tmp_path), f"out={tmp_path / 'site'}"], "holds no submission.json"),
    ]
    for arguments, message in cases:
        done = leaderboard(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "site").exists()


def test_out_that_is_a_file(tmp_path: Path, submission: Path) -> None:
    with pytest.raises(UserError, match="is a file; name a folder"):
        build([str(tmp_path)], BuildOptions(out=str(submission)))


@pytest.mark.parametrize("model", [Submission, Leaderboard])
def test_schemas_are_those_of_the_models(model: type[Submission] | type[Leaderboard], tmp_path: Path) -> None:
    name = f"{model.__name__.lower()}.schema.json"
    assert read_json(SCHEMAS / name) == schema(model)
    write_schemas(tmp_path)
    assert (tmp_path / name).read_bytes() == (SCHEMAS / name).read_bytes()


def test_files_fit_their_schemas(tmp_path: Path, submission: Path) -> None:
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 0
    for name, path in [("submission", submission), ("leaderboard", tmp_path / "site" / "leaderboard.json")]:
        checker = jsonschema.Draft202012Validator(read_json(SCHEMAS / f"{name}.schema.json"))
        value = read_json(path)
        checker.validate(value)
        assert not checker.is_valid({**value, "format": 2})
        assert not checker.is_valid({**value, "extra": 1})
