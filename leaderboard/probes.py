"""Probes as submissions carry them: as their authors' evaluations tell them, beside the benchmark and in no average."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from poolbench.fields import Count, Digest, Strict

from tasks.probes import FILE, ProbeLine, read_probes

LINEAR = "linear"
_MOST = 12  # probes of a task; more are taken for damage


class ProbeResult(Strict):
    """A probe of one task: the mean of the main metric over draws of the training pictures."""

    key: str
    probe: Annotated[str, Field(pattern=r"^(linear|(lp\+\+)?[1-9][0-9]{0,5})$")] = Field(
        description="linear: of all training pictures; a number: of so many of each class; lp++ before it: LP++"
    )
    value: Annotated[float, Field(ge=0, le=1)]
    sd: Annotated[float, Field(ge=0, le=1)] | None = Field(description="over the draws; null of one")
    stderr: Annotated[float, Field(ge=0, le=1)] | None = Field(description="over the test pictures")
    draws: Annotated[int, Field(ge=1)]
    leaked: Count = Field(description="test pictures that are in the training split, too")
    data_digest: Digest
    train_digest: Digest
    precision: Annotated[str, Field(max_length=40)]


def probes_of_run(folder: Path, checkpoint_sha256: str, keys: Iterable[str]) -> list[ProbeResult] | None:
    """The last line of each probe of some tasks, by task in their order; None where there is none.

    Raises:
        UserError: the run's file of probes holds something else.
    """
    lines = [line for line in read_probes(folder / FILE) if line.checkpoint_sha256 == checkpoint_sha256]
    last = {(line.key, line.probe): line for line in lines}
    found = [_result(line) for key in keys for line in last.values() if line.key == key]
    return [one for one in found if one is not None] or None


def check_probes(probes: Sequence[ProbeResult] | None, keys: Iterable[str]) -> Iterator[str]:
    """Why probes are refused: "probes.<task>: reason"."""
    known, seen = set(keys), set()
    if len(probes or ()) > _MOST * len(known):
        yield f"probes: {len(probes or ())}, more than {_MOST} for each task"
        return
    for one in probes or ():
        if one.key not in known:
            yield f"probes.{one.key[:80]!r}: no task of the scale"
        if (one.key, one.probe) in seen:
            yield f"probes.{one.key[:80]}: the probe {one.probe} is there twice"
        seen.add((one.key, one.probe))


def _result(line: ProbeLine) -> ProbeResult | None:
    value = line.metrics["main_metric"]
    if value is None:
        return None
    return ProbeResult(
        key=line.key,
        probe=line.probe,
        value=value,
        sd=line.sd["main_metric"],
        stderr=line.stderr,
        draws=len(line.draws),
        leaked=line.leaked,
        data_digest=line.data_digest,
        train_digest=line.train_digest,
        precision=line.precision,
    )
