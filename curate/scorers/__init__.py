"""What makes score columns: one module for each scorer, and what all of them share.

- base: what a scorer is; registry: scorers by their names
- run: the runner, shards -> batches -> scorer -> files; stream: what its workers read

docs/score.md says how to add one.
"""
