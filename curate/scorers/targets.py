"""The pictures of evaluation or training sets as embeddings: the targets of a selection.

Sets lie in the tasks' layout, `<set>/train/<n>.tar` with `<key>.jpg` (or .png, .webp), or `<key>.0.jpg` and
`<key>.1.jpg`, and whatever else; nothing but the pictures is read. Docs: docs/score.md.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolbench.errors import UserError, nearest
from poolbench.options import option, output, source
from poolbench.text import some

from curate.pool import embedded
from curate.pool.embedded import EmbeddedShard, Plan
from curate.pool.scored import Identity, Made, Scores
from curate.scorers.base import Clock, Scorer, ScorerOptions

if TYPE_CHECKING:  # see base.py
    import torch

    from poolbench.shards.samples import Sample
    from poolbench.shards.sources import Shard

    from curate.scorers.stream import Batch

NAME = "targets"


@dataclass
class Options(ScorerOptions):
    """The options; docs/score.md says more."""

    out: str = output("folder for the embeddings, filter.targets= of a selection")
    overwrite: bool = option("true: replace other embeddings that are there", False)
    checkpoint: str | None = source(
        "file of weights, one of open_clip's pretrained tags, or folder of a run; null: what model= brings", None
    )
    model: str | None = source("open_clip's name of the model; null: as the run says", None, remote=True)
    dtype: str = option("float16 | float32, in which embeddings are kept", embedded.KINDS[0])

    def check(self) -> None:
        super().check()
        if self.dtype not in embedded.KINDS:
            raise UserError(f"dtype={self.dtype} is not known; {nearest(self.dtype, embedded.KINDS)}")


def picture_of(sample: "Sample") -> dict[str, Any]:
    """The row of any sample: it has none but its key."""
    return {"uid": sample.key}


def each_picture(sample: "Sample") -> "list[Sample]":
    """A sample for each picture: of a pair's two, as Winoground has them, `<key>-00` and `<key>-01`."""
    pair = sample.pair()
    if pair == (None, None):
        return [sample]
    return [
        sample._replace(key=f"{sample.key}-{place:02d}", members=sample.members if data is None else {"jpg": data})
        for place, data in enumerate(pair)
    ]


class Targets(Scorer):
    """Unit vectors, a picture each, in a folder of curate/pool/embedded.py.

    Raises:
        UserError: no such weights; see poolbench.models.weights.weights_named.
    """

    options: Options
    parted, row_of = staticmethod(each_picture), staticmethod(picture_of)
    tokenizer = None

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        from poolbench.models.weights import weights_named

        self._weights = weights_named(options.checkpoint, options.model)
        self.made = Made(NAME, columns=(), arrays=(NAME,))
        model, _, tag, sha256, _ = self._weights
        self.identity = Identity(
            model=model, tag=tag, sha256=sha256, precision=options.precision, options={"dtype": options.dtype}
        )

    def __str__(self) -> str:
        return f"{self._weights.model}, {self._weights.checkpoint}, as {self.made.name}"

    def called(self, shard: "Shard") -> str:
        """The folders above it, set and split, and its own name, so that several sets have room in one folder."""
        path = shard.path.partition("://")[2] or str(Path(shard.path).absolute())
        return "/".join(path.strip("/").split("/")[-3:])

    def files_of(self, name: str) -> EmbeddedShard:
        return EmbeddedShard(Path(self.options.out), name)

    def begin(self, shards: "Mapping[str, Shard]") -> None:
        """
        Raises:
            UserError: see curate.pool.embedded.begin.
        """
        sets = {shard.name.rpartition("/")[0] for shard in shards.values()}
        tests = sorted(one for one in sets if one.rpartition("/")[2] == "test")
        sizes = {name: shard.size for name, shard in shards.items()}
        embedded.begin(
            Path(self.options.out), Plan(made=self.identity, shards=sizes, tests=tests), self.options.overwrite
        )
        if tests:
            print(
                f"warning: these are evaluation pictures ({some(tests)}): the filtering track forbids selecting by "
                "them, and what is selected by these targets says so; a set's train/ lies beside its test/",
                file=sys.stderr,
            )

    def load(self, device: "torch.device") -> None:
        from poolbench.models.clip import load
        from poolbench.models.conventions import conventions_of
        from poolbench.models.towers import Towers
        from poolbench.models.transforms import WebPixels, evaluation_transform

        model, checkpoint, _, _, folder = self._weights
        clip = load(model, checkpoint, folder=folder, device=device, say=print, plain=True)
        self._towers = Towers(clip, device, self.options.precision)
        self.pixels = WebPixels(evaluation_transform(clip))
        self.conventions = conventions_of(clip)._asdict()

    def score(self, batch: "Batch", clock: Clock) -> Scores:
        with clock.on("image tower"):
            images = self._towers.images(batch.pictures).cpu().numpy()
        return Scores({}, {NAME: images})
