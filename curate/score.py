"""Embed and score image-text shards with any CLIP model: pool metadata, as the filters read them.

python -m curate.score checkpoint=runs/mine shards=pool out=metadata
python -m curate.score checkpoint=openai model=ViT-B-32 shards='pool/{00000..01287}.tar' out=metadata part=3/16
python -m curate.score checkpoint=openai model=ViT-B-32 shards='pool/{00000..01287}.tar' out=metadata merge=16

Each shard becomes `<shard>.parquet` (uid, url, text, sizes, sha256, clip_<arch>_similarity_score, face_bboxes) and,
row for row, `<shard>.npz` (<arch>_img, <arch>_txt: float16 unit vectors). The same command again scores what is
missing, with merge= it says what that is. Options: docs/score.md.
"""

import sys

from poolbench.command import Command
from poolbench.errors import exit_on_user_error
from poolbench.imports import uncollected

from curate.scorers.base import ScorerOptions
from curate.scorers.registry import schema


def score(options: ScorerOptions) -> int:
    """Score as the command line says; exit status 1 where samples or shards were left out.

    Raises:
        UserError: wrong options, no shards, no model, or other scores in the way.
    """
    options.check()
    with uncollected():
        from curate.scorers.run import run  # torch, which help and most mistakes do without

    return run(options, sys.argv[1:])


def main() -> int:
    """Answer the command line, whose `scorer=` says which options there are."""
    return Command(schema(sys.argv[1:]), score).answer(sys.argv[1:])


if __name__ == "__main__":
    exit_on_user_error(main)
