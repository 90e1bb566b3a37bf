"""Published selections by name: conf/method/<name>.yaml says by which filter and options a method selected."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from poolbench import HOME
from poolbench.errors import UserError, nearest
from poolbench.recipes import scales

if TYPE_CHECKING:
    from curate.preset import Preset

_FOLDER = HOME / "conf" / "method"
# Of these options one is given: that of the command line replaces a preset's other one.
_EITHER = (("fraction", "threshold"), ("column", "weights"), ("t", "tail", "size"))


def presets() -> list[str]:
    """The names of the published selections."""
    return sorted(path.stem for path in _FOLDER.glob("[!_.]*.yaml"))


def preset(name: str) -> "Preset":
    """
    Raises:
        UserError: there is no such one, or its file is not what it should be.
    """
    path = _FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"filter={name} has no published selection; {nearest(name, presets())}")
    from curate.preset import read_preset

    return read_preset(path)


def selection(name: str, scale: str | None, given: Iterable[str]) -> dict[str, Any]:
    """The filter and options of a published selection, as `filter` of a recipe has them.

    Args:
        scale: None: only what is the same at every scale.
        given: options that the command line gives, which take the place of those that exclude them.

    Raises:
        UserError: it was not published at this scale.
    """
    found = preset(name)
    if scale is not None and scale not in scales():
        raise UserError(f"scale={scale} is not known; {nearest(scale, scales())}")
    if scale is not None and scale not in found.scales:
        raise UserError(
            f"filter={name} was published at scale={' and '.join(found.scales)}, not at {scale}; without scale= its "
            "options are yours to give"
        )
    options = found.options | (found.scales[scale] if scale is not None else {})
    return {"filter": found.filter, **_without_rivals(options, set(given))}


def _without_rivals(options: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    replaced = {name for group in _EITHER if given & set(group) for name in group}
    return {name: value for name, value in options.items() if name not in replaced}
