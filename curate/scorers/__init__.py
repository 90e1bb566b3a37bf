"""What makes score columns: one module for each scorer, and what all of them share.

- base: what a scorer of pictures and captions is; registry: those by their names
- run: their runner, shards -> batches -> scorer -> files; stream: what its workers read; views: what they make of a
  picture, and text_masks: what of one whose text is painted over
- rows: what a scorer of a pool's rows is, and their runner; embeddings: those of vectors

docs/score.md says how to add the one, docs/curate.md the other.
"""
