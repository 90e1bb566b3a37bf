"""A submission on the Hugging Face Hub, with the subset and the checkpoint it speaks of, in one commit.

    python -m leaderboard push runs/mine/submission.json repo=user/name subset=subset.npy
    python -m leaderboard push runs/mine/submission.json repo=user/name checkpoint=runs/mine/checkpoints/last.pt

Everything is checked before the first byte goes out, and what is private stays here. A failed upload leaves nothing in
the repository; the same command tries again. A README.md that is there already is left alone.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolbench.errors import UserError, first_line, tell
from poolbench.options import option, source

from leaderboard.models import Submission
from leaderboard.submissions import read_submission

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

CARD = "README.md"


class UploadError(UserError):
    """The files were right, but the Hub did not take them: the same command may succeed later."""


@dataclass
class PushOptions:
    """The options of `push`."""

    repo: str = option("user/name on the Hugging Face Hub")
    subset: str | None = source("subset file to upload too", None)
    checkpoint: str | None = source("checkpoint file to upload too", None)
    private: bool = option("true: make a private repository", False)


def push_file(words: Sequence[str], options: PushOptions) -> int:
    """The command: push one file and say where it is. The exit status is 1 where the Hub did not take it.

    Raises:
        UserError: not one file is named, or something is wrong with it or an option.
    """
    if len(words) != 1:
        raise UserError("push needs one submission: python -m leaderboard push submission.json repo=user/name")
    try:
        print(push(Path(words[0]), options))
    except UploadError as error:
        tell(error)
        return 1
    return 0


def push(submission: Path, options: PushOptions) -> str:
    """Upload a submission without what is private, and with it the subset and the checkpoint that are named.

    Returns:
        A line that says what is at which address.

    Raises:
        UserError: the submission is refused, a file is missing or not the submission's, the name of the repository is
            wrong, there is no token, or the repository is public and `private` is set.
        UploadError: the Hub could not be reached or refused; the repository has all of it, or nothing.
    """
    _check_ready(options.repo)
    checked = read_submission(submission)
    if checked.submission is None or checked.refusals:
        raise UserError(f"{submission}: {checked.refusals[0]}")
    files = [_published(checked.submission), *_attachments(checked.submission, options)]
    try:
        return _upload(options, checked.submission, files)
    except UserError:
        raise
    except Exception as error:  # whatever the Hub's client and its HTTP package raise, which changes with its version
        raise UploadError(
            f"{options.repo}: the upload failed, {_reason(error)}; the repository has all of it or nothing, "
            "the same command tries again"
        ) from error


def published(submission: Submission) -> bytes:
    """The bytes of submission.json as others may see them: valid as it is, but nothing private is in it."""
    value = {**submission.public(), "private": {"contact": None}}
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def card(submission: Submission, names: Sequence[str]) -> str:
    """The model card. The licence is the author's to choose, so the card names none."""
    values = submission.aggregates.values
    model = submission.recipe.get("model")
    facts = [
        ("Author", escaped(submission.author)),
        ("Track, scale", f"{submission.track}, {escaped(submission.scale)}"),
        ("Model", escaped(str(model))),
        ("Dataset size", "unknown" if submission.dataset_size is None else f"{submission.dataset_size:,}"),
        ("Samples seen", f"{submission.samples_seen:,}"),
        ("Grade", submission.grade),
        ("Checkpoint", f"SHA-256 `{submission.checkpoint_sha256}`"),
    ]
    if submission.writeup is not None:
        facts.insert(1, ("Writeup", f"<{submission.writeup}>"))
    parts = [
        "---\npipeline_tag: zero-shot-image-classification\ntags:\n- clip\n- poolbench\n---",
        f"# {escaped(submission.method)}",
        "A CLIP model trained with the pinned recipe of [its scale](submission.json) on a dataset of the author's "
        "choice, and scored on every task of the benchmark.",
        _table(("", ""), facts),
        "## Scores",
        _table(("Aggregate", "Score"), [(escaped(name), _number(value)) for name, value in values.items()]),
        _table(
            ("Task", "Metric", "Standard error"),
            [
                (escaped(task.dataset), _number(task.metrics.get("main_metric")), _number(task.stderr))
                for task in submission.tasks
            ],
        ),
    ]
    if submission.grade == "unverified":
        parts.append("Unverified: every condition was met, but nothing pins the evaluation data.")
    if submission.deviations:
        parts += ["## Why it is unofficial", "\n".join(f"- {escaped(line)}" for line in submission.deviations)]
    parts += ["## Files", "\n".join(f"- `{name}`" for name in names)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no mention."""
    return re.sub(r"[!-/:-@\[-`{-~]", lambda found: f"&#{ord(found[0])};", text)


def _check_ready(repo: str) -> None:
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(f"repo={repo} is no name of a repository; it is user/name") from None
    if "/" not in repo:
        raise UserError(f"repo={repo} names no owner; it is user/name")
    if constants.HF_HUB_OFFLINE:
        raise UserError("push has to reach the Hub, and HF_HUB_OFFLINE forbids it")
    if get_token() is None:
        raise UserError("push needs a token that may write: set HF_TOKEN, or log in with hf auth login")


def _published(submission: Submission) -> "CommitOperationAdd":
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd("submission.json", published(submission))


def _attachments(submission: Submission, options: PushOptions) -> list["CommitOperationAdd"]:
    """The subset and the checkpoint, as far as they are named, each held against its digest in the submission."""
    subset = submission.subset.digest if submission.subset else None
    attached = []
    if options.subset is not None:
        if subset is None:
            raise UserError(f"subset={options.subset}: the submission was trained without one; leave it out")
        attached.append(_attachment("subset", Path(options.subset), subset, "subset.digest"))
    if options.checkpoint is not None:
        path = Path(options.checkpoint)
        attached.append(_attachment("checkpoint", path, submission.checkpoint_sha256, "checkpoint_sha256"))
    return attached


def _attachment(key: str, path: Path, digest: str, field: str) -> "CommitOperationAdd":
    from huggingface_hub import CommitOperationAdd

    if not path.is_file():
        raise UserError(f"{key}={path} does not exist")
    file = CommitOperationAdd(f"{key}{path.suffix}", str(path))
    # The digest the Hub's client sends along, which the Hub checks: what arrives is what was checked here.
    found = file.upload_info.sha256.hex()
    if found != digest:
        raise UserError(f"{key}={path} is another file than the submission's: SHA-256 {found}, {field} is {digest}")
    return file


def _upload(options: PushOptions, submission: Submission, files: list["CommitOperationAdd"]) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi()
    api.create_repo(options.repo, private=options.private, exist_ok=True)
    before = api.model_info(options.repo)
    if options.private and not before.private:
        raise UserError(f"private=true, but {options.repo} is there and public; make it private, or name another")
    note = ""
    if any(sibling.rfilename == CARD for sibling in before.siblings or ()):
        note = f"; its {CARD} was there and stays"
    else:
        names = [file.path_in_repo for file in files]
        files = [CommitOperationAdd(CARD, card(submission, names).encode()), *files]
    _send(api, options.repo, files)
    done = api.create_commit(options.repo, files, commit_message=f"Submission: {submission.method}")
    address = f"{api.endpoint}/{options.repo}"
    if done.oid == before.sha:
        return f"{address} holds the same already; nothing was uploaded"
    return f"{address}: {len(files)} files in commit {done.oid[:10]}{note}"


def _send(api: "HfApi", repo: str, files: Sequence["CommitOperationAdd"]) -> None:
    """Bring large files to where a commit can name them; nobody sees them before.

    One after the other: side by side they would go in threads, and Ctrl-C would have to wait for their end.
    """
    for file in files:
        api.preupload_lfs_files(repo, [file], free_memory=False)
        # Half a submission would be committed without a word.
        if getattr(file, "_should_ignore", False):
            raise UserError(f"{repo}: its .gitignore leaves out {file.path_in_repo}; take that line from it")


def _reason(error: BaseException) -> str:
    """What the Hub answered, or what kept it from answering, in a few words."""
    while not hasattr(error, "response") and error.__cause__ is not None:
        error = error.__cause__  # the client wraps what befell one of several files
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    known = {
        401: "the token (HF_TOKEN) is not accepted",
        403: "the token (HF_TOKEN) may not write there",
        404: "there is no such repository, or the token may not see it",
        413: "a file is too large for the Hub",
        429: "the Hub is asked too often",
    }
    return first_line(error) if status is None else known.get(status, f"the Hub answered with status {status}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
