"""Score one model on many tasks: see `python -m evaluate` and docs/add_a_task.md."""

from poolbench.interrupts import unheard_in_imports

unheard_in_imports()
