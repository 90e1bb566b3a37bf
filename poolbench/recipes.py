"""The pinned recipes: what conf/scale/*.yaml says, read without Hydra by whoever has to compare with it."""

from typing import Any

from poolbench import HOME
from poolbench.errors import UserError, nearest
from poolbench.files import digest_json

EVALUATION_PRECISIONS = ("fp32", "amp_bf16")  # those that a finished model runs in

_FOLDER = HOME / "conf" / "scale"


def scales() -> list[str]:
    """The names of the compute scales, smallest first."""
    names = [path.stem for path in _FOLDER.glob("[!_.]*.yaml")]
    return sorted(names, key=lambda name: int(pinned(name)["samples"]))


def pinned(scale: str) -> dict[str, Any]:
    """The recipe of a scale as it is pinned: what all scales share, overlaid with what the scale says.

    Raises:
        UserError: there is no such scale.
    """
    path = _FOLDER / f"{scale}.yaml"
    if not path.is_file():
        raise UserError(f"unknown scale {scale!r}; {nearest(scale, scales())}")
    import yaml  # for those who read one: all that is curated asks which there are

    common = yaml.safe_load((_FOLDER / "_common.yaml").read_text(encoding="utf-8"))["recipe"]
    own = yaml.safe_load(path.read_text(encoding="utf-8"))["recipe"]
    return {**common, **own}


def deviations(scale: str, recipe: dict[str, Any]) -> list[str]:
    """One line for each key in which `recipe` is not the pinned recipe of `scale`; [] where it is."""
    right = pinned(scale)
    return [
        f"recipe.{key} is {recipe.get(key)}, pinned at {right.get(key)}"
        for key in sorted({*right, *recipe})
        if recipe.get(key) != right.get(key)
    ]


def digest(recipe: dict[str, Any]) -> str:
    """SHA-256 of a recipe, by which runs of one recipe know each other."""
    return digest_json(recipe)
