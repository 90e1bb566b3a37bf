"""Probes: what a little training on a task's own pictures makes of the embeddings (docs/evaluate.md, Probes)."""
