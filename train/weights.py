"""Which weights: a file, one of open_clip's pretrained tags, or the checkpoint of a training run."""

from pathlib import Path
from typing import NamedTuple

import open_clip

from conf.errors import UserError, first_line
from conf.files import digest_file, read_json
from train.model import check_checkpoint


class Weights(NamedTuple):
    """A model's weights, and what tells them from others.

    Attributes:
        model: open_clip's name of the architecture.
        checkpoint: a file, or a pretrained tag.
        tag: the pretrained tag, None for a file. open_clip gives a model another activation or preprocessing for
            some tags, so that weights and architecture alone do not settle the scores.
        sha256: of the weights' file as it is now.
    """

    model: str
    checkpoint: str
    tag: str | None
    sha256: str


class Trained(NamedTuple):
    """What run.json says of a training run's newest checkpoint; the file may be another one by now, or gone."""

    model: str
    scale: str
    checkpoint: Path
    sha256: str


def weights_of(model: str, checkpoint: str) -> Weights:
    """Find and hash the weights of `model`; those of a pretrained tag are downloaded into open_clip's cache.

    Raises:
        UserError: no such model, no such file or tag, or the download fails.
    """
    check_checkpoint(model, checkpoint)
    if Path(checkpoint).is_file():
        return Weights(model, checkpoint, None, digest_file(checkpoint))
    return Weights(model, checkpoint, checkpoint, digest_file(_downloaded(model, checkpoint)))


def trained(run: Path) -> Trained:
    """The newest checkpoint of the training run in a folder, as recorded.

    Raises:
        UserError: there is no run.json, it is not of a training run, or it names no checkpoint yet.
    """
    file = run / "run.json"
    record = read_json(file)
    try:
        model, scale, saved = record["recipe"]["model"], record["scale"], record["checkpoint"]
    except (KeyError, TypeError):
        raise UserError(f"{file} does not say which model, scale and checkpoint; is it of a training run?") from None
    if not saved:
        raise UserError(f"{file} names no checkpoint: the run has not written one yet")
    return Trained(model, scale, run / saved["path"], saved["sha256"])


def _downloaded(model: str, tag: str) -> Path:
    """The file of a pretrained tag, in open_clip's cache."""
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, tag)))
    except Exception as error:  # network libraries raise many kinds; all mean the same to the user
        raise UserError(f"the weights {model}/{tag} cannot be downloaded: {first_line(error)}") from None
