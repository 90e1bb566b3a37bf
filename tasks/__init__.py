"""The evaluation tasks: what they are, where their data come from, how the data are read."""

from poolbench.interrupts import unheard_in_imports

unheard_in_imports()
