"""What `model=` may name, told in a moment: open_clip itself takes seconds to load."""

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from poolbench.errors import UserError, nearest

HUB, FOLDER = "hf-hub:", "local-dir:"  # before the name of a model that comes with a configuration of its own
PYTHON = "python:"  # before a module and a function of the user's own, see evaluate.python_model
CONFIG = "open_clip_config.json"
OURS = Path(__file__).parent / "configs"  # "ViT-Ti-32-64" and the like, in open_clip's form


def model_names() -> frozenset[str]:
    """The models that open_clip can build by name, our own small ones among them.

    Where open_clip is loaded it is asked, as it may have been told of more; else the files that it would read tell.
    """
    if "open_clip" in sys.modules:
        import open_clip

        return frozenset(open_clip.list_models()) | _stems(OURS)
    return _packaged() | _stems(OURS)


def check_name(name: str) -> None:
    """Raise UserError, naming the nearest model, where open_clip knows no model `name`."""
    if name.startswith(PYTHON):
        raise UserError(f"model={name}: only `python -m evaluate` takes a model of one's own")
    if name.startswith((HUB, FOLDER)):
        raise UserError(f"model {name} is not a name that open_clip has; only evaluate and curate.score take others")
    known = model_names()
    if name not in known:
        raise UserError(f"unknown model {name!r}; {nearest(name, known)}")


def brings_weights(model: str) -> bool:
    """Whether `model` is a repository, a folder with a configuration or a function, so that no checkpoint is needed."""
    return model.startswith((HUB, FOLDER, PYTHON)) or (Path(model).is_dir() and model not in model_names())


def python_parts(name: str) -> tuple[str, str]:
    """Module and function of `python:<module>:<function>`.

    Raises:
        UserError: the name is none such.
    """
    module, colon, function = name.removeprefix(PYTHON).partition(":")
    if not colon or not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise UserError(f"model={name} is not of the form {PYTHON}<module>:<function>, such as {PYTHON}my_model:load")
    return module, function


@cache
def _packaged() -> frozenset[str]:
    spec = find_spec("open_clip")
    assert spec is not None and spec.submodule_search_locations is not None
    found = _stems(Path(spec.submodule_search_locations[0]) / "model_configs")
    if not found:  # another version keeps them elsewhere
        import open_clip

        return frozenset(open_clip.list_models())
    return found


def _stems(folder: Path) -> frozenset[str]:
    return frozenset(path.stem for path in folder.glob("*.json"))
