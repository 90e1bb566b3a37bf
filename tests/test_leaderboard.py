"""From submissions to leaderboard.json."""

import contextlib
import math
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from boards import board, entry, leaderboard_of, reference, scored_keys
from runs import CONTACT, ROOT, drop_line, edit, make_run, options, result, without_lock_file
from runs import leaderboard as leaderboard_command

from poolbench.errors import UserError
from poolbench.files import append_line, claimed, read_json

import leaderboard.build
from leaderboard.boards import compose
from leaderboard.build import BuildOptions, build, collect
from leaderboard.models import SCHEMAS, Leaderboard, Submission, as_json, schema, write_schemas
from leaderboard.references import references
from leaderboard.submissions import find
from leaderboard.submit import submit
from tasks.registry import load_tasks

pytestmark = pytest.mark.usefixtures("pinned_data")


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    return submit(options(make_run(tmp_path / "run")))


def test_command_line_from_run_to_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one")
    words = ("method=Näive = 30 %", "author=A. Author", "track=filtering", f"contact={CONTACT}")
    done = leaderboard_command("submit", f"run={run}", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{run}/submission.json: official\n"
    done = leaderboard_command("validate", run / "submission.json")
    assert (done.returncode, done.stdout) == (0, f"{run}/submission.json: ok\n")
    done = leaderboard_command("build", tmp_path / "runs", f"out={tmp_path / 'site'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "site").iterdir()} == {".lock", "leaderboard.json", "index.html"}
    assert "Näive = 30 %" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_tiny_is_scored_on_the_demo_suite(tmp_path: Path) -> None:
    value = read_json(submit(options(make_run(tmp_path / "run", scale="tiny"))))
    assert value["official"] is True
    assert {task["key"] for task in value["tasks"]} == {k for k, t in load_tasks().items() if t.suite == "demo"}
    assert list(value["aggregates"]["values"]) == ["average"]
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 0
    board = read_json(tmp_path / "site" / "leaderboard.json")["boards"][-1]
    assert (board["scale"], board["ranked"][0]["rank"], board["pool_size"]) == ("tiny", 1, 29_495)
    assert list(board["noise"]["values"]) == ["average"]


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
    placed, reasons = collect(find(folder))
    assert not reasons
    (board,) = compose(placed).model_dump(mode="json")["boards"]
    result: dict[str, Any] = board
    return result


def test_order_is_by_average_then_imagenet_and_noise_leaves_places_open(tmp_path: Path) -> None:
    for name, value, imagenet in [
        ("low", 0.25, None),
        ("tie", 0.5, 0.5),
        ("near", 0.499, 0.75),
        ("imagenet", 0.5, 0.625),
        ("high", 0.75, None),
    ]:
        submit(options(set_scores(make_run(tmp_path / name), value, imagenet), method=name))
    board = board_of(tmp_path)
    found = [(entry["method"], entry["rank"], entry["rank_last"]) for entry in board["ranked"]]
    assert found == [("high", 1, 1), ("imagenet", 2, 4), ("tie", 2, 4), ("near", 2, 4), ("low", 5, 5)]
    average = board["ranked"][0]["aggregates"]["average"]
    assert average == {"value": 0.75, "stderr": pytest.approx(0.01 / math.sqrt(38))}
    assert board["noise"]["values"]["average"] == 0.006
    assert board["pool_size"] == 12_800_000


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
    assert [entry["aggregates"]["average"]["value"] for entry in board["unranked"]] == [0.75, None]


def test_unverified_entries_have_a_list_of_their_own_by_score_and_no_ranks(tmp_path: Path) -> None:
    submit(options(set_scores(make_run(tmp_path / "good"), 0.25), method="good"))
    with without_lock_file():
        for name, value in (("lower", 0.5), ("higher", 0.75)):
            submit(options(set_scores(make_run(tmp_path / name), value), method=name))
        submit(options(make_run(tmp_path / "running", status="running"), method="running"))
    board = board_of(tmp_path)
    listed = {name: [entry["method"] for entry in board[name]] for name in ("ranked", "unverified", "unranked")}
    assert listed == {"ranked": ["good"], "unverified": ["higher", "lower"], "unranked": ["running"]}
    found = [(entry["rank"], entry["rank_last"], entry["official"], entry["grade"]) for entry in board["unverified"]]
    assert found == [(None, None, False, "unverified")] * 2 and board["ranked"][0]["rank"] == 1
    assert all(entry["deviations"] == [] for entry in board["unverified"])
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert page.count("<h3>Unverified</h3>") == 1 and "nothing pins the data" in page


def test_one_board_per_track_and_scale(tmp_path: Path) -> None:
    for name, scale, track in [
        ("a", "medium", "byod"),
        ("b", "small", "filtering"),
        ("c", "small", "byod"),
        ("d", "medium", "filtering"),
    ]:
        submit(options(make_run(tmp_path / name, scale=scale), track=track))
    boards = compose(collect(find(tmp_path))[0]).boards
    found = [(board.track, board.scale, board.pool_size) for board in boards]
    sizes = (12_800_000, 128_000_000)
    assert found == [("filtering", scale, size) for scale, size in zip(("small", "medium"), sizes, strict=True)] + [
        ("byod", "small", None),
        ("byod", "medium", None),
    ]


def test_published_results_stand_on_boards_of_their_own_accord(tmp_path: Path) -> None:
    submit(options(make_run(tmp_path / "run")))
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 0
    boards = read_json(tmp_path / "site" / "leaderboard.json")["boards"]
    assert [board["scale"] for board in boards] == ["small", "medium", "large", "xlarge"]
    published = [reference.model_dump(mode="json") for reference in references("filtering", "small")]
    assert boards[0]["references"] == published
    assert len(boards[0]["ranked"]) == 1
    assert boards[1]["ranked"] == boards[1]["unranked"] == []
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "bare"), references=False)) == 0
    (board,) = read_json(tmp_path / "bare" / "leaderboard.json")["boards"]
    assert board["references"] == []


def test_a_folder_without_submissions_gives_the_published_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 0
    assert f"note: {tmp_path} holds no submission.json" in capsys.readouterr().err
    assert len(read_json(tmp_path / "site" / "leaderboard.json")["boards"]) == 4


@pytest.mark.parametrize("many", [1000, 1])
def test_build_is_the_same_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """However the submissions are named, and whether one process reads them or several."""
    names = ["c", "a", "b"]
    for name in names:
        submit(options(make_run(tmp_path / "one" / name, status="running" if name == "b" else "complete")))
    (tmp_path / "two" / "sub").mkdir(parents=True)
    for place, name in enumerate(names):  # other names, other folders, another order
        target = tmp_path / "two" / ("sub" if place else "") / f"{9 - place}.submission.json"
        shutil.copy(tmp_path / "one" / name / "submission.json", target)
    for folder in ("one", "two"):
        if folder == "two":
            monkeypatch.setattr(leaderboard.build, "_MANY", many)
        assert build([str(tmp_path / folder)], BuildOptions(out=str(tmp_path / f"site-{folder}"))) == 0
    for name in ("leaderboard.json", "index.html"):
        assert (tmp_path / "site-one" / name).read_bytes() == (tmp_path / "site-two" / name).read_bytes()


def test_the_file_is_written_in_pieces_and_is_what_the_serialiser_writes_whole() -> None:
    draw = random.Random(1)
    keys = scored_keys()
    entries = [
        entry(f'method {number} "x" ü\u00e9', {key: draw.choice([draw.random(), 1e-7, 1.0]) for key in keys})
        for number in range(3)
    ]
    published = [reference("published", dict.fromkeys(keys, 1 / 3))]
    for whole in (
        leaderboard_of(),
        leaderboard_of(board()),
        leaderboard_of(board(entries, published), board(entries[:1], scale="medium")),
    ):
        assert "".join(as_json(whole)) == whole.model_dump_json(indent=2) + "\n"


def test_refused_files_are_named_and_left_out(tmp_path: Path) -> None:
    submit(options(make_run(tmp_path / "in" / "good"), method="good"))
    bad = submit(options(make_run(tmp_path / "in" / "bad"), method="bad"))
    edit(bad, lambda value: value["aggregates"]["values"].update(average=0.99))
    gone = tmp_path / "in" / "gone.submission.json"
    gone.symlink_to(tmp_path / "nowhere")  # as a file that disappears before it is read
    make_run(tmp_path / "in" / "forgotten")
    done = leaderboard_command("build", tmp_path / "in", f"out={tmp_path / 'site'}", "references=false", "page=false")
    assert done.returncode == 1
    assert f"refused: {bad}: aggregates.values.average: 0.99 does not follow from the tasks" in done.stderr
    assert f"refused: {gone}: " in done.stderr
    assert f"note: {tmp_path / 'in' / 'forgotten'} has results and no submission.json" in done.stderr
    (board,) = read_json(tmp_path / "site" / "leaderboard.json")["boards"]
    assert [entry["method"] for entry in [*board["ranked"], *board["unranked"]]] == ["good"]


def copied(original: Path, copy: Path, **changes: Any) -> Path:
    """The same submission in another file, with changes that its digest goes with."""
    shutil.copy(original, copy)
    return edit(copy, lambda value: value.update(changes))


def test_of_equal_submissions_one_is_kept(tmp_path: Path) -> None:
    good = submit(options(make_run(tmp_path / "good")))
    twice = copied(good, tmp_path / "zz.submission.json", private={"contact": None})
    placed, refusals = collect(find(tmp_path))
    assert refusals == [f"{twice}: checkpoint_sha256: the same submission as {good}"]
    assert len(placed) == 1


def test_of_differing_submissions_of_a_checkpoint_none_is_kept(tmp_path: Path) -> None:
    one = submit(options(make_run(tmp_path / "run"), method="one"))
    other = copied(one, tmp_path / "zz.submission.json", method="other")
    again = copied(one, tmp_path / "again.submission.json")
    copied(one, tmp_path / "byod.submission.json", track="byod")  # a track of its own
    submit(options(make_run(tmp_path / "another"), method="another"))
    placed, refusals = collect(find(tmp_path))
    assert sorted((placement.track, placement.entry.method) for placement in placed) == [
        ("byod", "one"),
        ("filtering", "another"),
    ]
    reason = "has the same checkpoint and other content; keep one of them"
    assert refusals == sorted(
        f"{path}: checkpoint_sha256: {against} {reason}"
        for path, against in [(one, other), (again, other), (other, again)]
    )


def test_contact_and_local_paths_are_not_published(tmp_path: Path) -> None:
    submit(options(make_run(tmp_path / "one")))
    submit(options(make_run(tmp_path / "two", status="running")))
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"))) == 0
    names = ("private", "contact", "secret")  # of fields and folders; the page's libraries use such words too
    for name, words in [("leaderboard.json", names), ("index.html", ("/secret",))]:
        text = (tmp_path / "site" / name).read_text(encoding="utf-8")
        assert "A. Author" in text
        for word in (CONTACT, str(tmp_path), *words):
            assert word not in text


def test_build_where_all_are_refused(tmp_path: Path, submission: Path) -> None:
    edit(submission, lambda value: value.update(seed=None))
    assert build([str(tmp_path)], BuildOptions(out=str(tmp_path / "site"), references=False)) == 1
    assert read_json(tmp_path / "site" / "leaderboard.json")["boards"] == []


def test_builds_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    submit(options(make_run(tmp_path / "in" / "one")))
    late, site = submit(options(make_run(tmp_path / "late"))), tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "leaderboard",
        "build",
        str(tmp_path / "in"),
        f"out={site}",
        "references=false",
        "page=false",
    ]
    with claimed(site):
        builds = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
        for process in builds:
            wait_for_lock(process, site / ".lock")
        shutil.copy(late, tmp_path / "in" / "late.submission.json")
        assert not (site / "leaderboard.json").exists()
    assert [process.wait(300) for process in builds] == [0, 0]
    (board,) = read_json(site / "leaderboard.json")["boards"]
    assert len(board["ranked"]) == 2  # also the one that came while they waited
    assert {path.name for path in site.iterdir()} == {".lock", "leaderboard.json"}


def wait_for_lock(process: subprocess.Popen[bytes], lock: Path) -> None:
    """Until the process has the file open."""
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if any(link.readlink() == lock for link in Path(f"/proc/{process.pid}/fd").iterdir()):
                return
        time.sleep(0.02)
    raise AssertionError("the process has ended")


def test_wrong_command_lines(tmp_path: Path) -> None:
    cases = [
        ([], "python -m leaderboard needs a command; known: submit, "),
        (["sumbit"], "unknown command 'sumbit': did you mean 'submit'?"),
        (["submit", "run=x", "method=x", "author=x"], "track= is needed"),
        (["submit", "run=x", "method=x", "author=x", "trak=byod"], "unknown key 'trak': did you mean 'track'?"),
        (["submit", "run=x", "method=a", "name"], "submit takes key=value only, not 'name'"),
        (["validate"], "validate needs the submission files"),
        (["build", str(tmp_path)], "out= is needed"),
        (["build", str(tmp_path / "no"), f"out={tmp_path / 'site'}"], "is no folder"),
    ]
    for arguments, message in cases:
        done = leaderboard_command(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "site").exists()


def test_folders_that_build_cannot_use(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    cases = [
        ([], tmp_path / "site", "build needs one folder of submissions"),
        ([tmp_path, tmp_path], tmp_path / "site", "build needs one folder of submissions"),
        ([file], tmp_path / "site", "is no folder; build needs"),
        ([tmp_path], tmp_path / "site", "holds no submission.json; python -m leaderboard submit"),
    ]
    for folders, out, message in cases:
        with pytest.raises(UserError, match=message):
            build([str(folder) for folder in folders], BuildOptions(out=str(out), references=False))
    with pytest.raises(UserError, match=r"site cannot be written: Not a directory"):
        build([str(tmp_path)], BuildOptions(out=str(file / "site")))
    assert list(tmp_path.iterdir()) == [file]


def test_a_reading_process_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard.build, "_MANY", 1)
    paths = [tmp_path / f"{name}.submission.json" for name in "ab"]
    for path in paths:
        os.mkfifo(path)  # whoever reads it waits for ever

    def kill() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.05)
        children[0].kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(UserError, match="was killed; is there enough memory"):
        collect(paths)
    killer.join()


def test_out_that_is_a_file(tmp_path: Path, submission: Path) -> None:
    with pytest.raises(UserError, match="is a file; name a folder"):
        build([str(tmp_path)], BuildOptions(out=str(submission)))


def test_a_folder_that_cannot_be_read() -> None:
    with tempfile.TemporaryDirectory() as folder:  # outside pytest's, which no other user may enter
        closed = Path(folder, "closed")
        closed.mkdir(mode=0)
        Path(folder).chmod(0o755)
        with as_nobody(), pytest.raises(UserError, match=f"{closed} cannot be read: Permission denied"):
            find(Path(folder))


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, who may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


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
        assert not checker.is_valid({**value, "format": 1})
        assert not checker.is_valid({**value, "extra": 1})
