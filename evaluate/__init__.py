"""Score one model on many tasks: see `python -m evaluate` and docs/add_a_task.md."""
