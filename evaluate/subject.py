"""What is scored: the checkpoint of a run, or a model and checkpoint named on the command line."""

import os
from pathlib import Path
from typing import NamedTuple

import open_clip

from conf.errors import UserError
from conf.files import digest_file, read_json
from evaluate.config import EvaluateConfig
from train.model import check_checkpoint


class Subject(NamedTuple):
    """A model to score.

    Attributes:
        model: open_clip's name of the architecture.
        checkpoint: a file, or a pretrained tag.
        tag: the pretrained tag, None for a file. open_clip gives a model another activation or preprocessing for
            some tags, so that weights and architecture alone do not settle the scores.
        sha256: of the weights' file as it is now.
        out: folder for the results.
        scale: of the run, None without one.
        deviations: what already keeps every result from being official.
    """

    model: str
    checkpoint: str
    tag: str | None
    sha256: str
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


def _from_run(config: EvaluateConfig, run: Path) -> Subject:
    if not run.is_dir():
        raise UserError(f"run={run} is not a folder")
    file = run / "run.json"
    record = read_json(file)
    try:
        model, scale, saved = record["recipe"]["model"], record["scale"], record["checkpoint"]
    except (KeyError, TypeError):
        raise UserError(f"{file} does not say which model, scale and checkpoint; is it of a training run?") from None
    if not saved:
        raise UserError(f"{file} names no checkpoint: the run has not written one yet")
    checkpoint = run / saved["path"]
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}, which {file} names, does not exist")
    sha256 = digest_file(checkpoint)
    deviations = () if sha256 == saved["sha256"] else ("the checkpoint is not the one that run.json names",)
    out = run if config.out is None else Path(config.out)
    return Subject(model, str(checkpoint), None, sha256, out, scale, deviations)


def _from_names(config: EvaluateConfig) -> Subject:
    assert config.model is not None and config.checkpoint is not None and config.out is not None
    check_checkpoint(config.model, config.checkpoint)
    file = _weights_file(config.model, config.checkpoint)
    tag = None if Path(config.checkpoint).is_file() else config.checkpoint
    return Subject(config.model, config.checkpoint, tag, digest_file(file), Path(config.out), None, ())


def _weights_file(model: str, checkpoint: str) -> Path:
    """The file behind a checkpoint; the weights of a pretrained tag are downloaded into open_clip's cache."""
    if Path(checkpoint).is_file():
        return Path(checkpoint)
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, checkpoint)))
    except Exception as error:  # network libraries raise many kinds; all mean the same to the user
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the weights {model}/{checkpoint} cannot be downloaded: {reason}") from None
