"""The class names and templates that are known for a task, by digest: they decide a score as the pictures do.

    python -m tasks names        # writes known_names.json anew, from clip_benchmark as installed

The published sets were exported with the lists that clip_benchmark carries, which have been the same since November
2022; OpenAI's, of which open_clip has a copy, are among them. known_names.json holds the digest of each list and is
what counts: another version of the package changes no grade. Tasks whose names come with their data alone (CIFAR-100's,
for one) are not in it, and nothing is said of them.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from poolbench.errors import UserError
from poolbench.files import digest_json, read_json, write_json

from tasks.readers import CLASSNAMES, TEMPLATES

KNOWN = Path(__file__).parent / "known_names.json"

Names = tuple[str, ...]
Lists = dict[str, dict[str, Names]]  # task key -> "classnames" and "templates" -> the lines

_FILES = {"classnames": CLASSNAMES, "templates": TEMPLATES}
IMAGENETS = ("imagenet1k", "imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-o", "imagenet-r")
# clip_benchmark's lists by task, where its exporter took the names from them. Others come from torchvision or TFDS.
_CLASSNAMES = {
    "country211": "country211",
    "gtsrb": "gtsrb",
    "mnist": "mnist",
    "vtab/caltech101": "caltech101_vtab",
    "vtab/clevr_closest_object_distance": "clevr_closest_object_distance",
    "vtab/clevr_count_all": "clevr_count_all",
    "vtab/eurosat": "eurosat",
    "vtab/kitti_closest_vehicle_distance": "kitti_closest_vehicle_distance",
    "vtab/pcam": "pcam",
    "vtab/pets": "pets",
    "vtab/svhn": "svhn",
}
_TEMPLATES = {
    **{key: name for key, name in _CLASSNAMES.items() if key != "vtab/caltech101"},
    **{key: key for key in ("cars", "cifar10", "fgvc_aircraft", "food101", "renderedsst2", "stl10", "sun397")},
    **{key: key for key in ("voc2007", "voc2007_multilabel")},
    **{f"vtab/{name}": name for name in ("caltech101", "cifar100", "dtd", "flowers", "resisc45")},
    **dict.fromkeys((*IMAGENETS, "objectnet"), "imagenet1k"),
}


def unlike_known(key: str, classnames: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Where a task's names differ from all that are known for it: a reason for each of the two lists that does."""
    found = {"classnames": classnames, "templates": templates}
    known = _digests().get(key, {})
    return [
        _difference(key, what, lines)
        for what, lines in found.items()
        if known.get(what) and digest_of_names(lines) not in known[what]
    ]


def speaks_of_names(reason: str) -> bool:
    """Whether a reason is one of `unlike_known`."""
    return reason.startswith(tuple(_FILES.values()))


def digest_of_names(lines: Sequence[str]) -> str:
    """SHA-256 of the JSON list of the lines; stretches of blanks count as one."""
    return digest_json(_normal(lines))


def write(path: Path = KNOWN) -> None:
    """Write the digests of the package's lists; a file may hold several of one list, each of which is known."""
    digests = {
        key: {what: [digest_of_names(lines)] for what, lines in sorted(lists.items())}
        for key, lists in sorted(packaged().items())
    }
    write_json(path, digests)


@cache
def packaged() -> Lists:
    """The lists of clip_benchmark; without the package, none.

    Nothing of its `datasets` is run, which would import torch: the lists are read from the files in the package.
    """
    try:
        folder = data_folder()
    except UserError:
        return {}
    names = read_packaged(folder / "en_classnames.json")
    prompts = read_packaged(folder / "en_zeroshot_classification_templates.json")
    lists: Lists = {key: {"templates": tuple(prompts[name])} for key, name in _TEMPLATES.items()}
    for key, name in _CLASSNAMES.items():
        lists[key]["classnames"] = tuple(names[name])
    for key in ("voc2007", "voc2007_multilabel"):
        lists[key]["classnames"] = tuple(_literals(folder / "voc2007.py")["object_categories"])
    for key in IMAGENETS:
        kept = imagenet_places(key)
        numbered = enumerate(names["imagenet1k"])
        lists[key]["classnames"] = tuple(name for place, name in numbered if kept is None or place in kept)
    return lists


@cache
def imagenet_places(key: str) -> frozenset[int] | None:
    """Which of ImageNet's 1,000 classes one of IMAGENETS has, None for all."""
    builder = _literals(data_folder() / "builder.py")
    wnids = builder.get(f"{key.replace('-', '_')}_wnids")
    every = builder["all_imagenet_wordnet_ids"]
    return None if wnids is None else frozenset(place for place, wnid in enumerate(every) if wnid in wnids)


def data_folder() -> Traversable:
    """Where clip_benchmark keeps its lists.

    Raises:
        UserError: it is not installed.
    """
    try:
        return files("clip_benchmark") / "datasets"
    except ModuleNotFoundError:
        raise UserError("the package clip_benchmark is not installed here") from None


def read_packaged(path: Traversable) -> Any:
    """A JSON file of a package."""
    return json.loads(path.read_text(encoding="utf-8"))


def _difference(key: str, what: str, lines: Sequence[str]) -> str:
    """The first line that is another one, beside the known text where the package that is here has it."""
    here, known = _normal(lines), _known_text(key, what)
    if known is None:
        return f"{_FILES[what]} does not hold what is known for the task"
    index = _first_difference(here, known)
    found, wanted = (_shown(side[index]) if index < len(side) else "missing" for side in (here, known))
    return f"{_FILES[what]}, line {index + 1}, is {found}, known is {wanted}"


def _known_text(key: str, what: str) -> list[str] | None:
    """The known list, as far as the package that is here has it; its version may have another one."""
    try:
        lines = packaged()[key][what]
    except (LookupError, OSError, SyntaxError, ValueError):
        return None
    return _normal(lines) if digest_of_names(lines) in _digests()[key][what] else None


def _shown(text: str) -> str:
    """A text in quotes on one line, cut where it is long."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def _first_difference(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _normal(lines: Sequence[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


@cache
def _digests() -> Mapping[str, Mapping[str, Sequence[str]]]:
    digests: dict[str, dict[str, list[str]]] = read_json(KNOWN)
    return digests


def _literals(path: Traversable) -> dict[str, Any]:
    """Names that a module or its functions bind to a list or a set written out, with their values."""
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List | ast.Set):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue
            found.update({target.id: value for target in node.targets if isinstance(target, ast.Name)})
    return found
