"""Train CLIP with a pinned recipe: recipe -> model, data stream, step, loop, checkpoint."""

from poolbench.interrupts import unheard_in_imports

unheard_in_imports()
