"""The data sets that clip_benchmark can build, and one of them built, for `python -m tasks export`.

    data = build("mnist", Path("/data/mnist"), "test")
    for sample in data.read():
        ...                             # .pictures, each with .extension and .data; .target: a label, or captions

clip_benchmark imports torch, so it is imported when a data set is built and not before.
"""

import contextlib
import importlib
import io
import json
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from poolbench.errors import UserError, described, nearest
from poolbench.shards.pictures import EXTENSIONS, rgb

from tasks.names import data_folder, read_packaged
from tasks.readers import IMAGE_EXTENSIONS

# Names of data sets that are keys of tasks, too.
_TASKS = (
    *("imagenet1k", "imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-o", "imagenet-r", "objectnet"),
    *("cars", "cifar10", "country211", "fgvc_aircraft", "food101", "gtsrb", "mnist", "renderedsst2", "stl10"),
    *("sun397", "voc2007", "vtab/caltech101", "vtab/cifar100", "vtab/clevr_closest_object_distance"),
    *("vtab/clevr_count_all", "vtab/dtd", "vtab/eurosat", "vtab/flowers", "vtab/kitti_closest_vehicle_distance"),
    *("vtab/pcam", "vtab/pets", "vtab/resisc45", "vtab/svhn"),
)
_NO_TASKS = (
    *("caltech101", "eurosat"),  # without splits; the tasks have those of VTAB
    *("babel_imagenet", "fer2013", "vtab/cars", "vtab/cifar10", "vtab/cub", "vtab/diabetic_retinopathy"),
    *("vtab/dmlab", "vtab/dsprites_label_orientation", "vtab/dsprites_label_scale", "vtab/dsprites_label_shape"),
    *("vtab/dsprites_label_x_position", "vtab/dsprites_label_y_position", "vtab/food101", "vtab/inaturalist"),
    *("vtab/smallnorb_label_azimuth", "vtab/smallnorb_label_category", "vtab/smallnorb_label_elevation"),
    *("vtab/smallnorb_label_lighting", "vtab/sun397"),
)
# Data set -> the task of which its split `test` holds the samples, None where there is no such task.
CLASSIFICATION: dict[str, str | None] = {
    **{name: name for name in _TASKS},
    **{name: f"vtab/{name}" for name in ("cifar100", "dtd", "flowers", "pcam", "pets")},
    **{"imagenet1k-unverified": "imagenet1k"},
    **dict.fromkeys(_NO_TASKS),
}
RETRIEVAL: dict[str, str | None] = {
    "flickr30k": "retrieval/flickr_1k_test_image_text_retrieval",
    "mscoco_captions": "retrieval/mscoco_2014_5k_test_image_text_retrieval",
    **dict.fromkeys(("crossmodal3600", "flickr30k-200", "flickr8k", "multilingual_mscoco_captions", "xtd10", "xtd200")),
}
# Those with captions in many languages, and the modules of clip_benchmark that know which.
_LANGUAGES = {
    **{name: name for name in ("crossmodal3600", "xtd10", "xtd200")},
    "flickr30k-200": "flickr30k_200",
    "multilingual_mscoco_captions": "multilingual_mscoco",
}
_CREPES = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
MULTILABEL = {"voc2007_multilabel": "voc2007_multilabel"}
PAIRS = {"winoground": "winoground"}
SELECTION = {f"sugar_crepe/{name}": f"sugarcrepe/{name}" for name in _CREPES}
REFUSED = {
    "aro": "ARO's own code draws its captions anew; dataset=parquet takes files of the Hub",
    "dummy": "it holds no pictures",
    "imagenet-w": "its watermark is drawn by the transform of a model",
    "wds": "it is a webdataset folder already, which is read as it lies (docs/add_a_task.md)",
}
_TASK_NAMES = {  # clip_benchmark's
    "retrieval": "zeroshot_retrieval",
    "caption_selection": "image_caption_selection",
    "winoground": "image_caption_selection",
}
# What is not clip_benchmark's: files of the Hub, see tasks/from_tables.py, and what tasks/aro.py reads.
TABLES = "parquet"
ARO = {name: name for name in ("aro/attribution", "aro/relation")}
_TFDS = "tfds/"  # and the name of any data set of tensorflow_datasets

assert set(EXTENSIONS.values()) < set(IMAGE_EXTENSIONS)


class Picture(NamedTuple):
    """An encoded picture."""

    extension: str
    data: bytes
    untouched: bool  # whether it is the data set's own file, byte for byte


class Opened(NamedTuple):
    """A picture that was opened, and what gives the bytes that it was opened from."""

    image: Image.Image
    data: Callable[[], bytes]


class DatasetSample(NamedTuple):
    """One sample: a picture, or a pair of them, and its label (an int), 0 or 1 for each class, or captions (texts)."""

    pictures: tuple[Picture, ...]
    target: Any


@dataclass(frozen=True)
class Dataset:
    """A data set to be exported.

    Attributes:
        name: its name.
        split: the split of it.
        classnames: in the order of the labels, () for captions.
        templates: prompts that hold "{c}", () for captions.
        kind: that a task has which reads it, see `kind_of`.
        size: how many samples it has.
        read: gives the samples in order; it raises a UserError for one that cannot be read.
    """

    name: str
    split: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    kind: str
    size: int
    read: Callable[[], Iterator[DatasetSample]]


def task_of(name: str) -> str | None:
    """The key of the task of which the data set holds the samples, None where there is none.

    Raises:
        UserError: there is no such data set, or one of a kind that is not exported.
    """
    known = CLASSIFICATION | RETRIEVAL | SELECTION | MULTILABEL | PAIRS | ARO | {TABLES: None}
    if name in known:
        return known[name]
    refused = REFUSED.get(name.partition("/")[0])
    if refused is not None:
        raise UserError(f"dataset={name} is not exported: {refused}")
    if name.startswith(_TFDS) and len(name) > len(_TFDS):
        return None
    raise UserError(f"dataset={name}: clip_benchmark has no such data set; {nearest(name, {*known, f'{_TFDS}<name>'})}")


def kind_of(name: str) -> str:
    """The kind of the tasks that read an export of the data set."""
    kinds: dict[str, Collection[str]] = {
        "retrieval": RETRIEVAL,
        "caption_selection": {*SELECTION, *ARO},
        "multilabel": MULTILABEL,
        "winoground": PAIRS,
    }
    return next((kind for kind, names in kinds.items() if name in names), "classification")


def build(
    name: str, root: Path, split: str, *, language: str = "en", prompts: str | None = None, download: bool = False
) -> Dataset:
    """Let clip_benchmark build a data set from what lies in `root`.

    Args:
        language: of class names and templates, or of captions.
        prompts: a JSON file of templates by data set: one in clip_benchmark, or any other.
        download: whether it may fetch what is missing.

    Raises:
        UserError: it cannot; the package that is missing, or what else it says, is in the message.
    """
    kind = kind_of(name)
    _check_language(name, language)
    if name in PAIRS or name in _LANGUAGES:  # which pass over split= without a word
        check_split(name, split)
    file = None if prompts is None else _prompts(prompts)
    task = _TASK_NAMES.get(kind, "zeroshot_classification")
    with _told_in_a_line(name, root), warnings.catch_warnings(record=True) as caught, _fetching(download):
        warnings.simplefilter("always")
        from clip_benchmark.datasets.builder import build_dataset

        with contextlib.redirect_stdout(sys.stderr):
            built = build_dataset(
                name, str(root), None, split, download, None, language, task, custom_template_file=file
            )
        if any("split argument ignored" in str(one.message) for one in caught):
            check_split(name, split)
        made = partial(Dataset, kind=kind, size=len(built), read=partial(_samples, name, built))
        if kind in ("retrieval", "caption_selection", "winoground"):
            return made(name, split, (), ())
        _check_folders(built)
        if isinstance(found := getattr(built, "fnames", None), list):  # imagenetv2's, in the file system's order
            found.sort()
        return made(name, split, _lines("class name", built.classes), _lines("template", built.templates))


def check_split(name: str, split: str) -> None:
    """Refuse a split of a data set that has none but `test`."""
    if split != "test":
        raise UserError(f"dataset={name} has no splits, so split={split} would hold the samples of split=test")


def _samples(name: str, built: Any) -> Iterator[DatasetSample]:
    """What clip_benchmark's data set yields."""
    # What is gone through once alone has __getitem__, too, as torch gives it to every data set.
    plain = iter(built) if hasattr(built, "__iter__") else (built[index] for index in range(len(built)))
    number = 0
    while True:
        opened: list[Opened] = []
        try:
            with _watched(opened):
                images, target = next(plain)
            pair = isinstance(images, list)
            pictures = tuple(encoded(image, opened) for image in (images if pair else [images]))
            yield DatasetSample(pictures, target)
        except StopIteration:
            return
        except Exception as error:  # whatever a data set's code raises on what lies on the disk
            raise UserError(f"{name}: sample {number} cannot be read: {described(error)}") from None
        number += 1


def encoded(image: Any, opened: Sequence[Opened]) -> Picture:
    """The bytes that the picture came from, where they show nothing else than the picture, or a PNG of it.

    Raises:
        Exception: whatever Pillow raises for bytes that are not a whole picture.
    """
    if not isinstance(image, Image.Image):
        raise UserError(f"it is no picture but a {type(image).__name__}")
    image.load()  # one that is opened alone may be damaged, and keeps its file open
    for source in opened:
        if source.image.format in EXTENSIONS and _same(image, source.image):
            return Picture(EXTENSIONS[source.image.format], source.data(), True)
    buffer = io.BytesIO()
    (image if image.mode in ("L", "RGB") else rgb(image)).save(buffer, "PNG")
    return Picture("png", buffer.getvalue(), False)


def _same(image: Image.Image, source: Image.Image) -> bool:
    """Whether a model sees the same in both; a data set may have cut something out."""
    return source is image or (source.size == image.size and rgb(source).tobytes() == rgb(image).tobytes())


@contextlib.contextmanager
def _watched(opened: list[Opened]) -> Iterator[None]:
    """Remember which pictures are opened from which files: each data set keeps its paths in another place."""
    plain = Image.open

    def open_(file: Any, *rest: Any, **options: Any) -> Image.Image:
        image = plain(file, *rest, **options)
        name = file if isinstance(file, str | PathLike) else getattr(file, "name", None)
        if isinstance(name, str | PathLike):
            opened.append(Opened(image, Path(name).read_bytes))
        elif isinstance(file, io.BytesIO):
            opened.append(Opened(image, file.getvalue))
        return image

    with _replaced(Image, "open", open_):
        yield


def _check_language(name: str, language: str) -> None:
    """Refuse a language of which clip_benchmark has nothing; it would take English without a word."""
    if language == "en" and name != "babel_imagenet" and name not in _LANGUAGES:
        return
    folder = data_folder()
    if name in _LANGUAGES:
        try:
            module = importlib.import_module(f"clip_benchmark.datasets.{_LANGUAGES[name]}")
        except ImportError:  # which is told when the data set is built
            return
        known = set(module.SUPPORTED_LANGUAGES)
    elif name in RETRIEVAL:
        known = {"mscoco_captions": {"en"}}.get(name, {"en", "zh"})
    elif name == "babel_imagenet":
        known = {key.lower() for key in read_packaged(folder / "babel_imagenet.json")}
    else:
        listed = "imagenet1k" if name.startswith("imagenet") else name
        suffix = "_classnames.json"
        packaged = {path.name.removesuffix(suffix): path for path in folder.iterdir() if path.name.endswith(suffix)}
        known = {"en"} | {one for one, path in packaged.items() if listed in read_packaged(path)}
    if language not in known:
        raise UserError(f"language={language}: clip_benchmark has none such for {name}; {nearest(language, known)}")


def _prompts(name: str) -> str:
    """The file of a `prompts=`, made sure to hold templates."""
    ends = ("templates.json", "prompts.json")
    packaged = {path.name: path for path in data_folder().iterdir() if path.name.endswith(ends)}
    if not Path(name).is_file() and name not in packaged:
        raise UserError(f"prompts={name} is no file, and none of clip_benchmark's; {nearest(name, packaged)}")
    try:
        content = read_packaged(Path(name) if Path(name).is_file() else packaged[name])
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"prompts={name} is not JSON: {error}") from None
    if not isinstance(content, dict) or any(isinstance(value, dict) for value in content.values()):
        raise UserError(f"prompts={name} has prompts of each class, which an evaluation folder has no place for")
    return name


def _check_folders(built: Any) -> None:
    """The folder of a class that is missing would shift the labels of all that follow."""
    from torchvision.datasets import ImageFolder

    # Those with a choice of classes have a map of their own from folders to labels.
    if isinstance(built, ImageFolder) and not (hasattr(built, "label_map") or hasattr(built, "idxs")):
        folders = len({Path(path).parent.name for path, _ in built.samples})
        if folders != len(built.classes):
            raise UserError(f"{folders} folders of classes lie there, but there are {len(built.classes)} class names")


def _lines(what: str, lines: Any) -> tuple[str, ...]:
    """Class names or templates, each good for a line of its file."""
    found = tuple(str(line) for line in lines)
    for number, line in enumerate(found):
        if len(line.splitlines()) != 1 or not line.strip():
            raise UserError(f"{what} {number} is {line!r}, which makes no line of a file")
        if what == "template" and "{c}" not in line:
            raise UserError(f"template {number} is {line!r}, without {{c}} for the class name")
    return found


@contextlib.contextmanager
def _told_in_a_line(name: str, root: Path) -> Iterator[None]:
    """Whatever the code of a data set raises, in a line that names it."""
    try:
        yield
    except ImportError as error:
        what = f"the package {error.name}" if error.name else str(error)
        raise UserError(f"dataset={name} needs {what}, which is not installed here") from None
    except SystemExit:  # it has told why
        raise UserError(f"dataset={name}: clip_benchmark gave up on root={root}, for the reason above") from None
    except Exception as error:
        raise UserError(f"dataset={name} cannot be built from root={root}: {described(error)}") from None


class _NoFetching(subprocess.Popen[Any]):
    """In place of the shell commands with which clip_benchmark downloads."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        if options.get("shell"):
            _refuse()
        super().__init__(args, *rest, **options)


class _Fetching(subprocess.Popen[Any]):
    """The same commands, whose failure clip_benchmark passes over."""

    def wait(self, timeout: float | None = None) -> int:
        status = super().wait(timeout)
        if status and isinstance(self.args, str) and not self.args.startswith("which "):
            _, _, target = self.args.partition("--output-document=")
            with contextlib.suppress(OSError, IndexError):
                empty = Path(target.split()[0])
                if empty.stat().st_size == 0:  # which a second run would take for the file
                    empty.unlink()
            raise UserError(f"a download failed, with status {status}: {self.args.splitlines()[0]}")
        return status


def _refuse(*_: Any, **__: Any) -> Any:
    raise UserError("something is missing there that clip_benchmark would download; download=true lets it")


@contextlib.contextmanager
def _fetching(allowed: bool) -> Iterator[None]:
    """Hold a data set's code to what `download` says, and to the truth where it downloads."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_replaced(subprocess, "Popen", _Fetching if allowed else _NoFetching))
        if not allowed:
            stack.enter_context(_replaced(socket, "getaddrinfo", _refuse))
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
