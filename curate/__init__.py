"""From a pool to the samples that are trained on: download, scores, selections, resharding, and reports on them."""

from poolbench.interrupts import unheard_in_imports

unheard_in_imports()
