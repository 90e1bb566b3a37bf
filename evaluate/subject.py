"""What is scored: the checkpoint of a run, or a model and checkpoint named on the command line."""

import os
from pathlib import Path
from typing import NamedTuple

from poolbench.errors import UserError
from poolbench.files import digest_file
from poolbench.models.weights import Trained, trained, weights_of

from evaluate.config import EvaluateConfig


class Subject(NamedTuple):
    """A model to score: poolbench.models.weights.Weights, and

    Attributes:
        out: folder for the results.
        scale: of the run, None without one.
        deviations: what already keeps every result from being official.
    """

    model: str
    checkpoint: str
    tag: str | None
    sha256: str
    folder: Path | None
    out: Path
    scale: str | None
    deviations: tuple[str, ...]


def subject_of(config: EvaluateConfig) -> Subject:
    """Find the checkpoint, hash it, and make the folder for the results.

    Raises:
        UserError: the run, checkpoint, model or tag does not exist, or the folder for the results cannot be written.
    """
    subject = _from_run(config, Path(config.run)) if config.run is not None else _from_names(config)
    try:
        subject.out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"out={subject.out} is a file, not a folder") from None
    if not os.access(subject.out, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write into {subject.out}; choose another folder with out=")
    return subject


def newest_of(run: Path) -> Trained:
    """The newest checkpoint of the training run in a folder, which is there.

    Raises:
        UserError: there is no such run, or its checkpoint is missing.
    """
    if not run.is_dir():
        raise UserError(f"run={run} is not a folder")
    newest = trained(run)
    if not newest.checkpoint.is_file():
        raise UserError(f"{newest.checkpoint}, which {run / 'run.json'} names, does not exist")
    return newest


def _from_run(config: EvaluateConfig, run: Path) -> Subject:
    newest = newest_of(run)
    sha256 = digest_file(newest.checkpoint)
    deviations = () if sha256 == newest.sha256 else ("the checkpoint is not the one that run.json names",)
    out = run if config.out is None else Path(config.out)
    return Subject(newest.model, str(newest.checkpoint), None, sha256, None, out, newest.scale, deviations)


def _from_names(config: EvaluateConfig) -> Subject:
    assert config.model is not None and config.out is not None
    return Subject(*weights_of(config.model, config.checkpoint), Path(config.out), None, ())
