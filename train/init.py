"""The weights that a run starts from, where it does not start from scratch (`init=`)."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from poolbench.errors import UserError
from poolbench.models.clip import check_checkpoint, load
from poolbench.models.conventions import conventions_of
from poolbench.models.weights import weights_named
from poolbench.run_record import InitOfRun

from train.config import TrainConfig


def init_of(config: TrainConfig) -> InitOfRun | None:
    """What `init=` names, found and hashed, None where it is not given. A pretrained tag is downloaded.

    Raises:
        UserError: no such file, run or tag, or a run without a checkpoint.
    """
    if config.init is None:
        return None
    with _named(config.init):
        model, checkpoint, tag, sha256, _ = weights_named(config.init, config.recipe.model)
    return InitOfRun(model=model, checkpoint=checkpoint, tag=tag, sha256=sha256)


def is_tag(init: str, model: str) -> bool:
    """Whether `init=` names no file and no folder, but a pretrained tag of a model, which is not downloaded.

    Raises:
        UserError: it names nothing at all.
    """
    if Path(init).exists():
        return False
    with _named(init):
        check_checkpoint(model, init)
    return True


def fill(model: torch.nn.Module, init: InitOfRun, say: Callable[[str], None]) -> None:
    """Put the weights into `model`, which open_clip built by the name that they are recorded with.

    Args:
        say: told what is assumed of the weights, and what of the file is not used, a line each.

    Raises:
        UserError: weights of another architecture, or a tag whose pictures or activation are not those of the name:
            the checkpoints of this run will tell no more than the name.
    """
    with _named(init.checkpoint):
        given = load(init.model, init.checkpoint, say=say)
    theirs, ours = conventions_of(given), conventions_of(model)
    if theirs != ours:
        raise UserError(
            f"init={init.checkpoint} wants {theirs}; recipe.model={init.model} has {ours}: choose one that has the same"
        )
    model.load_state_dict(given.state_dict())


@contextlib.contextmanager
def _named(init: str) -> Iterator[None]:
    """Let what is said of a checkpoint name the option."""
    try:
        yield
    except UserError as error:
        raise UserError(f"init={init}: {error}") from None
