"""What `python -m curate` does with its command line."""

from collections.abc import Sequence

from poolbench.arrow import do_without_pandas, hold_memory
from poolbench.text import aligned
from poolbench.usage import asked_for, titled, usage

from curate.config import CurateConfig, parsed
from curate.presets import preset, presets
from curate.select import select
from curate.selectors.registry import options_by_filter


def run(arguments: Sequence[str]) -> int:
    """Select as the words say, or show what can be said."""
    if not arguments or asked_for(arguments):
        of_filters = [titled(f"filter={name}", one, "  filter.") for name, one in options_by_filter().items()]
        methods = aligned([(f"  filter={name}", preset(name).method) for name in presets()])
        published = f"as published, with scale=; conf/method/<name>.yaml says who, where and how\n{methods}"
        print("\n\n".join([usage(CurateConfig), published, *of_filters]))
        return 0
    do_without_pandas()
    hold_memory()
    return select(*parsed(arguments))
