"""`push` against a local server that speaks the Hub's protocol: all of a submission in one commit, or nothing."""

import html
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import Hub, serving
from runs import CONTACT, ROOT, edit, make_run, options, refusals

from poolbench.errors import UserError
from poolbench.files import digest_file, read_json

from leaderboard.push import PushOptions, UploadError, card, escaped, push, push_file
from leaderboard.submissions import read_submission
from leaderboard.submit import submit, submit_and_push

pytestmark = pytest.mark.usefixtures("pinned_data")

REPO = "somebody/model"
ALL = ["README.md", "checkpoint.pt", "submission.json", "subset.npy"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its submission, its checkpoint and its subset; tests do not write there."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "mine")
    submit(options(folder))
    (folder / "last.pt").write_bytes(b"mine")  # of the SHA-256 that the run names
    (folder / "chosen.npy").write_bytes(b"subset")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty Hub that asks for a token, which the client has. Waiting for it to recover takes no time."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with serving(Hub(token="hf_write")) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda _: None))
        monkeypatch.setenv("HF_TOKEN", "hf_write")
        yield hub


def everything(run: Path, **changes: object) -> PushOptions:
    values = {"subset": str(run / "chosen.npy"), "checkpoint": str(run / "last.pt"), **changes}
    return PushOptions(repo=REPO, **values)  # type: ignore[arg-type]


def pushed(hub: Hub) -> dict[str, bytes]:
    return hub.repositories.get(REPO, {}).get("main", {})


def test_all_goes_in_one_commit_but_what_is_private(run: Path, hub: Hub, tmp_path: Path) -> None:
    before = digest_file(run / "submission.json")
    said = push(run / "submission.json", everything(run, private=True))
    assert hub.commits == [(REPO, "Submission: A method", ALL)] and REPO in hub.private
    assert said == f"{hub.url}/{REPO}: 4 files in commit {hub.head(REPO)[:10]}"
    files = pushed(hub)
    assert (files["subset.npy"], files["checkpoint.pt"]) == (b"subset", b"mine")
    (tmp_path / "submission.json").write_bytes(files["submission.json"])
    assert refusals(tmp_path / "submission.json") == "", "what others find there is accepted as it is"
    mine, theirs = read_json(run / "submission.json"), read_json(tmp_path / "submission.json")
    assert mine.pop("private") == {"contact": CONTACT} and theirs.pop("private") == {"contact": None}
    assert mine == theirs
    for content in (*files.values(), bytes(hub.received)):
        assert CONTACT.encode() not in content
    assert digest_file(run / "submission.json") == before


def test_submit_pushes_what_the_run_names(
    run: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    edit(folder / "run.json", lambda value: value["checkpoint"].update(path="last.pt"), sealed=False)
    given = options(folder, push="hub", repo=REPO, checkpoint=True)
    assert submit_and_push(given) == 0 and "the run's subset, is not here" in capsys.readouterr().err
    assert sorted(pushed(hub)) == ["README.md", "checkpoint.pt", "submission.json"], "the subset lies elsewhere"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"push": "hub"}, "needs repo="),
        ({"push": "disk", "repo": REPO}, "push=disk"),
        ({"repo": REPO}, "belong to push="),
    ],
)
def test_submit_refuses_half_a_push(run: Path, hub: Hub, changes: dict[str, str], expected: str) -> None:
    before = digest_file(run / "submission.json")
    with pytest.raises(UserError, match=expected):
        submit_and_push(options(run, **changes))
    assert digest_file(run / "submission.json") == before and not pushed(hub)


def test_without_files_the_submission_goes_alone(run: Path, hub: Hub) -> None:
    push(run / "submission.json", PushOptions(repo=REPO))
    assert hub.commits == [(REPO, "Submission: A method", ["README.md", "submission.json"])]
    assert REPO not in hub.private


def test_the_same_again_makes_no_commit(run: Path, hub: Hub) -> None:
    push(run / "submission.json", everything(run))
    said = push(run / "submission.json", everything(run))
    assert said == f"{hub.url}/{REPO} holds the same already; nothing was uploaded"
    assert len(hub.commits) == 1 and hub.steps["upload"] == 2


def test_a_card_that_is_there_stays(run: Path, hub: Hub) -> None:
    hub.repositories[REPO] = {"main": {"README.md": b"licence: mine"}}
    said = push(run / "submission.json", everything(run))
    assert said.endswith("; its README.md was there and stays")
    assert pushed(hub)["README.md"] == b"licence: mine" and hub.commits[0][2] == ALL[1:]


@pytest.mark.parametrize(
    ("step", "status", "reason"),
    [
        ("create", 401, "the token (HF_TOKEN) is not accepted"),
        ("create", 403, "the token (HF_TOKEN) may not write there"),
        ("info", 500, "the Hub answered with status 500"),
        ("card", 502, ""),
        ("preupload", 503, "the Hub answered with status 503"),
        ("batch", 503, "the Hub answered with status 503"),
        ("upload", 400, "the Hub answered with status 400"),
        ("upload", 500, "the Hub answered with status 500"),
        ("verify", 404, "there is no such repository, or the token may not see it"),
        ("commit", 403, "the token (HF_TOKEN) may not write there"),
        ("commit", 503, "the Hub answered with status 503"),
    ],
)
def test_a_failure_at_any_step_leaves_nothing(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str], step: str, status: int, reason: str
) -> None:
    hub.refuses[step] = status
    before = digest_file(run / "submission.json")
    assert push_file([str(run / "submission.json")], everything(run)) == 1
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {REPO}: the upload failed, {reason}") and said.out == ""
    assert line.endswith("; the repository has all of it or nothing, the same command tries again")
    assert hub.steps[step] > 0 and hub.commits == [] and pushed(hub) == {}
    assert digest_file(run / "submission.json") == before
    hub.refuses.clear()
    assert push_file([str(run / "submission.json")], everything(run)) == 0
    assert [paths for _, _, paths in hub.commits] == [ALL]


def test_a_busy_hub_is_asked_again(run: Path, hub: Hub) -> None:
    hub.busy_steps.update({"preupload": 1, "upload": 2, "verify": 1})
    push(run / "submission.json", everything(run))
    assert [paths for _, _, paths in hub.commits] == [ALL]


def test_a_lost_answer_is_no_second_commit(run: Path, hub: Hub) -> None:
    hub.loses_answer = True
    with pytest.raises(UploadError, match="the upload failed"):
        push(run / "submission.json", everything(run))
    hub.loses_answer = False
    assert "holds the same already" in push(run / "submission.json", everything(run))
    assert len(hub.commits) == 1


def test_no_network_is_one_line(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens to "discard"
    with pytest.raises(UploadError, match=r"^somebody/model: the upload failed, .*refused.*tries again$"):
        push(run / "submission.json", everything(run))


def test_ctrl_c_while_a_file_goes_out(run: Path, hub: Hub, tmp_path: Path) -> None:
    hub.stuck_steps.add("upload")
    code = (
        "import sys\nfrom pathlib import Path\nfrom poolbench.errors import exit_on_user_error\n"
        "from leaderboard.push import PushOptions, push_file\n"
        "options = PushOptions(repo=sys.argv[2], subset=sys.argv[3], checkpoint=sys.argv[4])\n"
        "exit_on_user_error(lambda: push_file([sys.argv[1]], options))"
    )
    files = [run / "submission.json", REPO, run / "chosen.npy", run / "last.pt"]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, files)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not hub.steps["upload"]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and errors.count("\n") == 1 and "interrupted" in errors
    assert hub.commits == [] and pushed(hub) == {}
    hub.stuck_steps.clear()
    push(run / "submission.json", everything(run))
    assert [paths for _, _, paths in hub.commits] == [ALL]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subset": "/no/such.npy"}, "subset=/no/such.npy does not exist"),
        ({"subset": "last.pt"}, "last.pt is another file than the submission's: SHA-256 .*subset.digest is "),
        ({"checkpoint": "chosen.npy"}, "chosen.npy is another file than the submission's: .*checkpoint_sha256 is "),
        ({"repo": "model"}, "repo=model names no owner"),
        ({"repo": "some body/model"}, "repo=some body/model is no name of a repository"),
    ],
)
def test_wrong_options_send_nothing(run: Path, hub: Hub, change: dict[str, str], expected: str) -> None:
    wrong = everything(run)
    for key, value in change.items():
        setattr(wrong, key, str(run / value) if key != "repo" else value)
    with pytest.raises(UserError, match=expected) as caught:
        push(run / "submission.json", wrong)
    assert not isinstance(caught.value, UploadError) and not hub.steps and not hub.repositories


def test_wrong_submissions_send_nothing(run: Path, hub: Hub, tmp_path: Path) -> None:
    edited = tmp_path / "submission.json"
    edited.write_bytes((run / "submission.json").read_bytes())
    edit(edited, lambda value: value["aggregates"]["values"].update(average=0.99))
    with pytest.raises(UserError, match=r"submission.json: aggregates.values.average: 0.99"):
        push(edited, everything(run))
    with pytest.raises(UserError, match=r"gone.json: does not exist"):
        push(tmp_path / "gone.json", everything(run))
    without = submit(options(make_run(tmp_path / "without", subset=None), dataset_size=5))
    with pytest.raises(UserError, match="the submission was trained without one"):
        push(without, everything(run, checkpoint=None))
    assert not hub.steps and not hub.repositories


def test_without_a_token_or_offline_nothing_is_tried(run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="push needs a token that may write: set HF_TOKEN"):
        push(run / "submission.json", everything(run))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids it"):
        push(run / "submission.json", everything(run))
    assert not hub.steps


def test_private_is_not_pushed_to_a_public_repository(run: Path, hub: Hub) -> None:
    hub.repositories[REPO] = {"main": {}}
    with pytest.raises(UserError, match="is there and public"):
        push(run / "submission.json", everything(run, private=True))
    assert not hub.stored and not hub.commits


def test_an_ignored_file_is_not_left_out_in_silence(run: Path, hub: Hub) -> None:
    hub.ignored.add("checkpoint.pt")
    with pytest.raises(UserError, match=r"its \.gitignore leaves out checkpoint\.pt"):
        push(run / "submission.json", everything(run))
    assert not hub.commits


HOSTILE = "<script>alert(1)</script> | @everyone [a](javascript:b) `c` *d* \\ # ---"


def test_hostile_text_is_text_in_the_card(tmp_path: Path) -> None:
    assert html.unescape(escaped(HOSTILE)) == HOSTILE
    assert re.fullmatch(r"(?:[\w\s]|&#\d+;)*", escaped(HOSTILE))
    path = submit(options(make_run(tmp_path / "run", status="running"), method=HOSTILE, author=HOSTILE))
    submission = read_submission(path).submission
    assert submission is not None
    text = card(submission, ["submission.json"])
    assert "<script" not in text and "@" not in text and "](javascript" not in text and CONTACT not in text
    assert text.startswith("---\n") and text.count("\n---\n") == 1 and "- run not complete" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {3, 4}
