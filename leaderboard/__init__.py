"""From a run's files to a submission, and from submissions to a leaderboard. Reads files only."""

from poolbench.interrupts import unheard_in_imports

unheard_in_imports()
