"""Two data sets of the same things by different artists, for python -m curate.classify: OpenMoji's and Twemoji's emoji.

    python bench/emoji_sets.py FOLDER

Writes FOLDER/openmoji and FOLDER/twemoji: shards of all emoji that both draw, 64 x 64 pixels in the same frame.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from poolbench.shards.writer import write_shard
from poolbench.uids import uid_of

from demodata.emoji import TWEMOJI, Picture, pictures, render

_SHARD = 500  # samples


def write_sets(folder: Path, every: Iterable[Picture]) -> None:
    """The pictures that both artists draw, as two sets of shards."""
    both = [(one, one.twemoji) for one in every if one.twemoji is not None]
    _write(folder / "openmoji", [(one, one.png) for one, _ in both])
    _write(folder / "twemoji", [(one, render(svg, TWEMOJI)) for one, svg in both])


def _write(folder: Path, drawn: Sequence[tuple[Picture, bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(drawn), _SHARD):
        samples = []
        for one, png in drawn[start : start + _SHARD]:
            record = {"uid": uid_of(png, one.names[0])}
            members = {"png": png, "txt": one.names[0].encode(), "json": json.dumps(record).encode()}
            samples.append((one.code, members))
        write_shard(folder / f"{start // _SHARD:05d}.tar", samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    write_sets(parser.parse_args().folder, pictures())


if __name__ == "__main__":
    main()
