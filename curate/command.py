"""What `python -m curate` does with its command line."""

import sys
from collections.abc import Sequence

from curate.config import CurateConfig, parsed
from curate.filters import names
from curate.pool import do_without_pandas
from curate.select import select


def run(arguments: Sequence[str]) -> int:
    """Select as the words say, or show what can be said."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        described = (CurateConfig.__doc__ or "").partition("Attributes:")[2].rstrip()
        print(f"{(sys.modules['__main__'].__doc__ or '').strip()}\n\nKeys:{described}\n\nFilters: {', '.join(names())}")
        return 0
    do_without_pandas()
    return select(*parsed(arguments))
