"""Select a subset of a pool by its metadata.

python -m curate filter=<name> filter.<option>=... pool=<folder or s3://...> out=<subset.npy>
python -m curate filter=<recipe.yaml> pool=<folder or s3://...> out=<subset.npy>
python -m curate filter=union filter.of='[a.npy, b.npy]' out=<subset.npy>
"""

import sys

from poolbench.errors import exit_on_user_error
from poolbench.imports import uncollected

with uncollected():  # numpy and Arrow, of which the looks for garbage are a twentieth of the start
    from curate.command import run

if __name__ == "__main__":
    exit_on_user_error(lambda: run(sys.argv[1:]))
