"""Whether a submission is what it says it is: every number that follows from others is computed again.

    python -m leaderboard validate runs/*/submission.json
    python -m leaderboard validate runs/mine/submission.json subset=mine.npy pool=/pool/metadata
    python -m leaderboard validate runs/mine/submission.json --recheck mnist,vtab/pets --data /evalsets

A refusal is one line that names the file and the field. What cannot be checked from the file alone (that the
checkpoint was trained on that data, that the metrics are those of the checkpoint) needs evidence: docs/submit.md.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from poolbench.errors import UserError
from poolbench.files import files_in
from poolbench.options import option, source

from leaderboard.evidence import (
    Finding,
    check_again,
    check_pool,
    check_predictions,
    check_subset,
    checkpoint_of,
)
from leaderboard.models import Submission
from leaderboard.submissions import find, read_submission, text_of
from tasks.registry import words_of

Claim = tuple[str, str]  # a track, and the checkpoint that is on it: each at most once

_OF_ONE_FILE = ("predictions", "subset", "pool", "recheck", "data", "checkpoint")


@dataclass
class ValidateOptions:
    """The options of `validate`."""

    against: str | None = source("folder of accepted submissions, none of which may come again", None)
    predictions: str | None = source("folder of the predictions; null: predictions/ beside the file, if there", None)
    subset: str | None = source("subset file to check the submission's digest and size by", None)
    pool: str | None = source("what the subset is a part of: sorted .npy of uids, or folder of parquets", None)
    recheck: str | None = option("tasks to evaluate again, separated by commas", None)
    data: str | None = source("folder of the evaluation sets for that; null: the embedded ones", None)
    checkpoint: str | None = source("file of weights for that; null: the one that run.json beside the file names", None)


def dashed(arguments: Sequence[str]) -> list[str]:
    """Arguments with `--key value` and `--key=value` turned into `key=value`.

    Raises:
        UserError: a `--key` without a value behind it.
    """
    words, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--help":
            return [word]
        if word.startswith("--") and "=" not in word:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"{word} needs a value")
            word = f"{word}={rest.pop(0)}"
        words.append(word.removeprefix("--"))
    return words


def validate_files(paths: Sequence[str | Path], options: ValidateOptions | None = None) -> int:
    """Print "<file>: ok" and what else it was held against, or its refusals, one a line.

    Returns:
        Exit status: 1 where any file is refused.

    Raises:
        UserError: no file is named, options contradict each other, or evidence cannot be read.
    """
    options = options or ValidateOptions()
    _check_options(paths, options)
    claims = {} if options.against is None else _claims_in(Path(options.against))
    status = 0
    for path in map(Path, paths):
        submission, refusals = read_submission(path)
        used: list[str] = []
        if submission is not None and not refusals:
            refusals = _duplicates(path, submission, claims)
        if submission is not None and not refusals:
            used, refusals = _evidence(path, submission, options)
        lines = [f"{path}: {refusal}" for refusal in refusals] or [f"{path}: ok", *(f"  {line}" for line in used)]
        print("\n".join(lines), flush=True)
        status = 1 if refusals else status
    return status


def _check_options(paths: Sequence[str | Path], options: ValidateOptions) -> None:
    if not paths:
        raise UserError("validate needs the submission files to check: python -m leaderboard validate FILE...")
    given = {field.name for field in fields(options) if getattr(options, field.name) is not None}
    for name in _OF_ONE_FILE:
        if name in given and len(paths) > 1:
            raise UserError(f"{name}= holds for one submission; {len(paths)} files are named")
    for name, needed in {"pool": "subset", "data": "recheck", "checkpoint": "recheck"}.items():
        if name in given and needed not in given:
            raise UserError(f"{name}= is of no use without {needed}=")
    for name in ("against", "predictions"):
        folder = getattr(options, name)
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"{name}={folder} is not a folder")
    if options.pool is not None and not Path(options.pool).exists():
        raise UserError(f"pool={options.pool} does not exist")


def _evidence(path: Path, submission: Submission, options: ValidateOptions) -> Finding:
    """Hold a submission against everything that is supplied, until something refuses it."""
    used: list[str] = []
    for finding in _findings(path, submission, options):
        used += finding.used
        if finding.refusals:
            return Finding(used, finding.refusals)
    return Finding(used, [])


def _findings(path: Path, submission: Submission, options: ValidateOptions) -> Iterator[Finding]:
    beside = path.parent / "predictions"
    if options.predictions is not None or files_in(beside, "*.parquet"):
        yield check_predictions(submission, beside if options.predictions is None else Path(options.predictions))
    if options.subset is not None:
        yield check_subset(submission, Path(options.subset))
        if options.pool is not None:
            yield check_pool(submission, Path(options.subset), Path(options.pool))
    if options.recheck is not None:
        checkpoint = checkpoint_of(path.parent) if options.checkpoint is None else Path(options.checkpoint)
        yield check_again(submission, checkpoint, words_of(options.recheck), options.data)


def _claims_in(folder: Path) -> dict[Claim, list[Path]]:
    """Who is on which track already. Accepted files are not checked again; one that cannot be read is told."""
    claims: dict[Claim, list[Path]] = {}
    for path in find(folder):
        try:
            value = json.loads(text_of(path))
            claims.setdefault((value["track"], value["checkpoint_sha256"]), []).append(path)
        except (OSError, RecursionError, ValueError, LookupError, TypeError):
            print(f"note: {path} is no submission and is left out", file=sys.stderr)
    return claims


def _duplicates(path: Path, submission: Submission, claims: dict[Claim, list[Path]]) -> list[str]:
    """Refuses a checkpoint that another file has on the same track; the first of several files gets it."""
    holders = claims.setdefault((submission.track, submission.checkpoint_sha256), [])
    others = [holder for holder in holders if holder.resolve() != path.resolve()]
    if others:
        return [f"checkpoint_sha256: the one of {others[0]}, which is on the track {submission.track} already"]
    holders.append(path)
    return []
