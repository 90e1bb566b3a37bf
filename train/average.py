"""Average the weights of checkpoints of one model, or interpolate between two.

    python -m train.average checkpoints='[runs/a,runs/b,runs/c]' out=soup.pt
    python -m train.average checkpoints='[runs/before,runs/tuned]' weights='[.5,.5]' out=between.pt

The file loads in open_clip and wherever a checkpoint is named (checkpoint=soup.pt model=ViT-B-32). Under
`averaged_from` it says what went in: the names, their SHA-256 digests and shares.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolbench.command import Command
from poolbench.errors import UserError, first_line
from poolbench.files import atomic, digest_file
from poolbench.options import option, output, source

if TYPE_CHECKING:  # which brings open_clip along
    from poolbench.models.weights import Weights


@dataclass
class AverageOptions:
    """The options; docs/methods.md (dfn) says what it is good for."""

    checkpoints: Any = source("list of files, folders of runs (their newest checkpoint) or pretrained tags")
    out: str = output("the file, .pt")
    weights: Any = option("list of a number for each, relative to the others; null: all alike", None)
    model: str | None = option("open_clip's name of the model; null: as a run among them says", None)


def average(options: AverageOptions) -> int:
    """The command: write the average, unless it is there.

    Raises:
        UserError: a wrong option, checkpoints that cannot be read or do not go together, or another file in the way.
    """
    names = [options.checkpoints] if isinstance(options.checkpoints, str) else list(options.checkpoints)
    if len(names) < 2:
        raise UserError(f"checkpoints={options.checkpoints}: an average needs two at least, [a,b]")
    shares, out = _shares(options.weights, len(names)), Path(options.out)
    if out.suffix != ".pt":
        raise UserError(f"out={out} must end in .pt")
    from poolbench.models.weights import model_told, weights_named  # with open_clip, which takes seconds to load

    model = options.model or next((told for told in map(model_told, names) if told is not None), None)
    found = [weights_named(name, model) for name in names]
    record = [
        {"checkpoint": one.checkpoint, "sha256": one.sha256, "share": share / sum(shares)}
        for one, share in zip(found, shares, strict=True)
    ]
    if out.exists():
        _check_same(out, record)
        print(f"{out} is there already")
        return 0
    _write(out, found, shares, record)
    print(f"{out}: the average of {len(found)} checkpoints of {found[0].model}, SHA-256 {digest_file(out)}")
    return 0


def _shares(given: Any, count: int) -> list[float]:
    """The numbers of `weights=`, ones where it is not given."""
    if given is None:
        return [1.0] * count
    words = [given] if isinstance(given, str) else list(given)
    try:
        shares = [float(word) for word in words]
    except ValueError:
        raise UserError(f"weights={given} are no numbers; one for each checkpoint, [.5,.5]") from None
    if len(shares) != count:
        raise UserError(f"weights={given}: {len(shares)} for {count} checkpoints; one for each")
    if not all(math.isfinite(share) and share >= 0 for share in shares) or not sum(shares):
        raise UserError(f"weights={given} must be 0 or more, and not all of them 0")
    return shares


def _check_same(out: Path, record: list[dict[str, Any]]) -> None:
    """Raise UserError where the file is not the average that is asked for."""
    import torch

    from poolbench.models.state_dict import AVERAGED

    try:
        before = torch.load(out, map_location="cpu", weights_only=True, mmap=True)[AVERAGED]
        same = [(one["sha256"], one["share"]) for one in before] == [(one["sha256"], one["share"]) for one in record]
    except Exception:  # whatever lies there is not ours
        same = False
    if not same:
        raise UserError(f"out={out} exists and is another file; choose another name, or take it away")


def _write(out: Path, found: "list[Weights]", shares: list[float], record: list[dict[str, Any]]) -> None:
    import torch

    from poolbench.models.average import average as averaged
    from poolbench.models.state_dict import AVERAGED

    content = {"name": found[0].model, AVERAGED: record, "state_dict": averaged(found, shares)}
    try:
        with atomic(out, "wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # as which torch reports a failed write
        raise UserError(f"{out} cannot be written: {first_line(error)}; make room and start again") from None


COMMAND = Command(AverageOptions, average)

if __name__ == "__main__":
    COMMAND.start()
