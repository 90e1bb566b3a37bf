"""The submissions of a pull request, taken out of git as data: nothing of it is run or checked out.

    python -m leaderboard.pull_request head=<commit> out=work

In a checkout of the branch that the pull request is for, writes `<out>/new/` (the submissions that it adds or edits),
`<out>/after/` (all submissions as they would be) and `<out>/notes.md` (what a person has to look at). The exit status
is 1 where there is such a thing: an accepted submission edited or removed, a file that is no submission, a contact.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import atomic
from poolbench.options import option, output

from leaderboard.diff import shown
from leaderboard.submissions import read_submission

FOLDER = Path("leaderboard/submissions")

# The names are given to commands and shown to people, so they hold nothing that either could misread.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}\.submission\.json")
_LARGEST = 2_000_000  # bytes; a submission has some 50,000
_REGULAR = ("100644", "100755")  # git's modes; links could lead anywhere


@dataclass
class ReviewOptions:
    """The options of `python -m leaderboard.pull_request`."""

    head: str = option("commit of the pull request")
    out: str = output("folder to write, which does not exist yet")


class File(NamedTuple):
    """A file that a pull request touches. `status` is git's letter: A added, D deleted, others edited."""

    path: Path
    mode: str
    blob: str
    status: str


def review(options: ReviewOptions) -> int:
    """The command: take the files of a pull request and print the notes; the exit status.

    Raises:
        UserError: no such commit, or `out` holds something already.
    """
    notes = take(options.head, Path(options.out))
    for line in notes:
        print(line)
    return 1 if notes else 0


def take(head: str, out: Path) -> list[str]:
    """Write the folders and the notes, which are returned too."""
    if out.exists():
        raise UserError(f"out={out} exists; name a folder that does not")
    files = changed(head)
    after, new = out / "after", out / "new"
    shutil.copytree(FOLDER, after)
    new.mkdir()
    notes = []
    for file in files:
        note = _note(file)
        if note is not None:
            notes.append(f"**Warning:** {shown(str(file.path))} {note}.")
        if _is_submission(file):
            _apply(file, after, new)
    notes += _contacts(new)
    with atomic(out / "notes.md") as stream:
        stream.writelines(f"{note}\n\n" for note in notes)
    return notes


def changed(head: str) -> list[File]:
    """What a branch changes below FOLDER since it left the branch that is checked out.

    Raises:
        UserError: `head` is no commit here, or shares no history with the checkout.
    """
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{head}^{{commit}}").decode().strip()
    base = _git("merge-base", "HEAD", commit).decode().strip()
    output = _git("diff-tree", "-r", "-z", "--no-renames", base, commit, "--", FOLDER.as_posix()).decode()
    return list(_files(output.split("\0")[:-1]))


def _files(fields: list[str]) -> Iterator[File]:
    """From git's raw format: ":<old mode> <mode> <old blob> <blob> <status>", then the path, and so on."""
    for what, path in zip(fields[::2], fields[1::2], strict=True):
        _, mode, _, blob, status = what.split()
        yield File(Path(path), mode, blob, status)


def _is_submission(file: File) -> bool:
    if file.path.parent != FOLDER or not _NAME.fullmatch(file.path.name):
        return False
    return file.status == "D" or (file.mode in _REGULAR and int(_git("cat-file", "-s", file.blob)) <= _LARGEST)


def _note(file: File) -> str | None:
    """What a person has to know of a file, None where there is nothing."""
    if file.path == FOLDER / "README.md":
        return None
    if not _is_submission(file):
        return (
            f"is left out: a submission is a file of at most {_LARGEST // 1_000_000} MB directly in {FOLDER}, "
            "its name of letters, digits and . _ - ends in .submission.json"
        )
    if file.status == "D":
        return "was accepted before and is removed"
    return None if file.status == "A" else "was accepted before and is edited"


def _contacts(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        submission = read_submission(path).submission
        if submission is not None and submission.private.contact is not None:
            yield f"**Warning:** {shown(path.name)} tells everybody its contact; set it to null and commit again."


def _apply(file: File, after: Path, new: Path) -> None:
    if file.status == "D":
        (after / file.path.name).unlink(missing_ok=True)
        return
    content = _git("cat-file", "blob", file.blob)
    for folder in (after, new):
        (folder / file.path.name).write_bytes(content)


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split()) or "nothing found"
        raise UserError(f"git {arguments[0]} {arguments[-1]}: {reason}")
    return done.stdout


COMMAND = Command(ReviewOptions, review)

if __name__ == "__main__":
    COMMAND.start()
