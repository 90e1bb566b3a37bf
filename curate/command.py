"""What `python -m curate` does with its command line."""

from collections.abc import Sequence

from curate.config import CurateConfig, parsed
from curate.select import select
from curate.selectors.registry import options_by_filter
from poolbench.arrow import do_without_pandas
from poolbench.usage import asked_for, titled, usage


def run(arguments: Sequence[str]) -> int:
    """Select as the words say, or show what can be said."""
    if not arguments or asked_for(arguments):
        of_filters = [titled(f"filter={name}", one, "  filter.") for name, one in options_by_filter().items()]
        print("\n\n".join([usage(CurateConfig), *of_filters]))
        return 0
    do_without_pandas()
    return select(*parsed(arguments))
