"""The hashes of shards, made by the runner of scorers: in processes, in parts, each shard's kept for itself, so that
what is there is not made again and what cannot be hashed is named."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poolbench.errors import UserError
from poolbench.uids import from_texts

from curate.overlaps import hashes
from curate.pool.recorded import RecordedShard
from curate.pool.scored import Identity, Made, Record, Scores
from curate.scorers.base import Clock, Scorer, ScorerOptions

if TYPE_CHECKING:  # as in curate/scorers/base.py
    import torch

    from poolbench.shards.samples import Sample
    from poolbench.shards.sources import Shard

    from curate.scorers.stream import Batch

_BATCH = 256  # rows that a worker sends at a time


class Left(NamedTuple):
    """A sample that could not be looked at; an empty key stands for the rest of a shard."""

    shard: str
    key: str
    reason: str


class HashedShard(RecordedShard):
    """The hashes of one shard, by the names of a scorer's arrays, and what tells the rows apart."""

    suffix = ".npz"

    def _has(self, rows: int) -> bool:
        with np.load(self.path, allow_pickle=False) as stored:  # its directory is at its end
            return bool(stored.files)

    def _save(self, file: IO[bytes], rows: Sequence[Mapping[str, Any]], scores: Scores, record: Record) -> None:
        arrays = {name: value for name, value in scores.arrays.items() if value.shape != (0, 0)}  # of a shard of none
        np.savez(file, **self._named(rows), **arrays)  # type: ignore[arg-type]  # as in curate/pool/scored.py

    def read(self, name: str) -> np.ndarray:
        """An array of the file."""
        with np.load(self.path, allow_pickle=False) as stored:
            found: np.ndarray = stored[name]
        return found

    def left_out(self, made: Made) -> list[Left]:
        record = self.record(made)
        assert record is not None
        return [Left(self.name, key, reason) for key, reason in record.bad]

    def is_whole(self, made: Made) -> bool:
        """Whether it was hashed, and all of it."""
        record = self.record(made)
        return record is not None and not record.bad

    def _named(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """What tells the rows apart: uids of training samples, u8,u8."""
        return {"uid": from_texts([row["uid"] for row in rows])}


class ProbedShard(HashedShard):
    """The probes of a shard of an evaluation set, whose samples are known by their keys."""

    def _named(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        return {"key": np.array([row["uid"] for row in rows], dtype=np.str_)}


class Hashes(Scorer):
    """Hashes of training pictures, `hash` uint8 [n, BYTES]. Samples need a uid and a picture, no caption."""

    of_evaluation = False
    files: type[HashedShard] = HashedShard
    tokenizer = None
    look = staticmethod(hashes.look)  # a property there, as it may depend on what is loaded

    def __init__(self, options: ScorerOptions) -> None:
        super().__init__(options)
        self.made = Made(type(self).__name__, columns=(), arrays=self._arrays())
        self.identity = Identity(model=hashes.version(), tag=None, sha256="", precision="", options=self._options())

    def __str__(self) -> str:
        return f"{'probes of evaluation' if self.of_evaluation else 'hashes of training'} pictures"

    @staticmethod
    def row_of(sample: "Sample") -> dict[str, Any]:
        """The uid.

        Raises:
            ValueError: there is none.
        """
        return {"uid": sample.record()["uid"]}

    def files_of(self, name: str) -> HashedShard:
        return self.files(Path(self.options.out), name)

    def begin(self, shards: "Mapping[str, Shard]") -> None:
        """The folder is this command's own."""

    def load(self, device: "torch.device") -> None:
        """There is no model."""

    def score(self, batch: "Batch", clock: Clock) -> Scores:
        return Scores({}, {"hash": _bytes_of(batch.facts["hash"])})

    def _arrays(self) -> tuple[str, ...]:
        return ("hash",)

    def _options(self) -> dict[str, str | float | bool | None]:
        return {}


class Probes(Hashes):
    """Probes of evaluation pictures, `probes` uint8 [n, PROBES, BYTES], none of which is all zeros but those of blank
    pictures; and `content`, by which equal files are known, u8 [n]."""

    of_evaluation = True
    files = ProbedShard
    look = staticmethod(hashes.look_for)

    @staticmethod
    def row_of(sample: "Sample") -> dict[str, Any]:
        return {"uid": sample.key}

    def called(self, shard: "Shard") -> str:
        """The folders above it, set and split, and its own name."""
        return "/".join(Path(shard.path).absolute().parts[-3:])

    def score(self, batch: "Batch", clock: Clock) -> Scores:
        none = "00" * hashes.BYTES * hashes.PROBES
        found = _bytes_of([text or none for text in batch.facts["probes"]])
        files = np.array([int(text, 16) for text in batch.facts["file"]], np.uint64)
        return Scores({}, {"probes": found.reshape(-1, hashes.PROBES, hashes.BYTES), "content": files})

    def _arrays(self) -> tuple[str, ...]:
        return ("probes", "content")

    def _options(self) -> dict[str, str | float | bool | None]:
        return {"crops": str(hashes.CROPS)}


class Hashed(NamedTuple):
    """The files of hashed shards, in the order of the shards, and what could not be looked at."""

    shards: list[HashedShard]
    made: Made

    def left_out(self) -> list[Left]:
        return [one for shard in self.shards for one in shard.left_out(self.made)]

    def filled(self) -> list[HashedShard]:
        """Those with a row."""
        return [shard for shard in self.shards if (record := shard.record(self.made)) is not None and record.rows]


def hashed(
    kind: type[Hashes], shards: Any, out: Path, workers: int | None, part: str = "1/1", merge: int | None = None
) -> Hashed:
    """The hashes of shards, made where they are not there, unless they are of parts that are merged.

    Raises:
        UserError: no shards, or one that cannot be read, or that a part has not hashed.
    """
    import torch  # here and in the runner, as it takes seconds to load

    from poolbench.shards.sources import resolve

    from curate.scorers.run import score

    options = ScorerOptions(shards=shards, out=str(out), batch_size=_BATCH, workers=workers, part=part, merge=merge)
    scorer = kind(options)
    score(scorer, options, torch.device("cpu"))
    named = [scorer.called(shard) for shard in resolve(shards).shards]
    every = [scorer.files_of(name.removesuffix(".tar").replace("/", "_")) for name in named]
    if part == "1/1" and (missing := [shard for shard in every if shard.record(scorer.made) is None]):
        raise UserError(f"{len(missing)} shards could not be read, the first is {missing[0].name}; see above")
    return Hashed(every, scorer.made)


def _bytes_of(texts: Sequence[str]) -> np.ndarray:
    """Hexadecimal digits, equally many in each text, as uint8 [n, ...]."""
    data = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8)
    return data.reshape(len(texts), -1)
