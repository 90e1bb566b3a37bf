"""The ground that every command stands on: errors, files, command lines, shards, models, processes."""

import os
import sys

from poolbench.clash import HOME, PACKAGES, ClashError, ours_first

__all__ = ["HOME", "PACKAGES", "ClashError", "ours_first"]

# Several processes share the cores of a machine (training, data workers, ranks). OpenMP threads that spin at a
# barrier while another process holds their core slow a step down by up to 7 times; passive waiting costs nothing.
# It is read when the OpenMP runtime loads, so it has to be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Before anything of ours is imported by a name that another package has too.
try:
    ours_first()
except ClashError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
