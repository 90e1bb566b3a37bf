"""The data sets that clip_benchmark can build, and one of them built, for `python -m tasks export`.

    data = build("mnist", Path("/data/mnist"), "test")
    for sample in data.samples():
        ...                             # .extension and .picture (bytes), .target: a label, or a list of captions

clip_benchmark imports torch, so it is imported when a data set is built and not before.
"""

import contextlib
import io
import json
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from poolbench.errors import UserError, described, nearest
from poolbench.shards.pictures import rgb

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
_CHOICES = "its captions are chosen among, which is neither classification nor retrieval"
REFUSED = {
    "dummy": "it holds no pictures",
    "imagenet-w": "its watermark is drawn by the transform of a model",
    "voc2007_multilabel": "its pictures have several labels",
    "winoground": _CHOICES,
    "sugar_crepe": _CHOICES,
    "wds": "it is a webdataset folder already, which is read as it lies (docs/add_a_task.md)",
}
_TFDS = "tfds/"  # and the name of any data set of tensorflow_datasets

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}  # by Pillow's name of the format
assert set(EXTENSIONS.values()) < set(IMAGE_EXTENSIONS)


class DatasetSample(NamedTuple):
    """One sample: the encoded picture, and its label (an int) or its captions (a list of texts)."""

    extension: str
    picture: bytes
    untouched: bool  # whether the picture is a file of the data set, byte for byte
    target: Any


@dataclass(frozen=True)
class Dataset:
    """A data set that clip_benchmark has built.

    Attributes:
        name: its name.
        split: the split of it.
        classnames: in the order of the labels, () for retrieval.
        templates: prompts that hold "{c}", () for retrieval.
    """

    name: str
    split: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    built: Any

    def __len__(self) -> int:
        return len(self.built)

    def samples(self) -> Iterator[DatasetSample]:
        """The samples in order.

        Raises:
            UserError: one that cannot be read.
        """
        built, number = self.built, 0
        # What is gone through once alone has __getitem__, too, as torch gives it to every data set.
        plain = iter(built) if hasattr(built, "__iter__") else (built[index] for index in range(len(built)))
        while True:
            opened: list[tuple[Path, Image.Image]] = []
            try:
                with _watched(opened):
                    image, target = next(plain)
                yield DatasetSample(*_encoded(image, opened), target)
            except StopIteration:
                return
            except Exception as error:  # whatever a data set's code raises on what lies on the disk
                raise UserError(f"{self.name}: sample {number} cannot be read: {described(error)}") from None
            number += 1


def task_of(name: str) -> str | None:
    """The key of the task of which the data set holds the samples, None where there is none.

    Raises:
        UserError: there is no such data set, or one that is neither classification nor retrieval.
    """
    known = CLASSIFICATION | RETRIEVAL
    if name in known:
        return known[name]
    refused = REFUSED.get(name.partition("/")[0])
    if refused is not None:
        raise UserError(f"dataset={name} is not exported: {refused}")
    if name.startswith(_TFDS) and len(name) > len(_TFDS):
        return None
    raise UserError(f"dataset={name}: clip_benchmark has no such data set; {nearest(name, {*known, f'{_TFDS}<name>'})}")


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
    retrieval = name in RETRIEVAL
    _check_language(name, language)
    file = None if prompts is None else _prompts(prompts)
    task = "zeroshot_retrieval" if retrieval else "zeroshot_classification"
    with _told_in_a_line(name, root), warnings.catch_warnings(record=True) as caught, _fetching(download):
        warnings.simplefilter("always")
        from clip_benchmark.datasets.builder import build_dataset

        with contextlib.redirect_stdout(sys.stderr):
            built = build_dataset(
                name, str(root), None, split, download, None, language, task, custom_template_file=file
            )
        if split != "test" and any("split argument ignored" in str(one.message) for one in caught):
            raise UserError(f"it has no splits, so split={split} would hold the samples of split=test")
        if retrieval:
            return Dataset(name, split, (), (), built)
        _check_folders(built)
        if isinstance(found := getattr(built, "fnames", None), list):  # imagenetv2's, in the file system's order
            found.sort()
        return Dataset(name, split, _lines("class name", built.classes), _lines("template", built.templates), built)


def _encoded(image: Any, opened: list[tuple[Path, Image.Image]]) -> tuple[str, bytes, bool]:
    """The file that the picture came from, where it shows nothing else than the picture, or a PNG of it."""
    if not isinstance(image, Image.Image):
        raise UserError(f"it is no picture but a {type(image).__name__}")
    image.load()  # one that is opened alone may be damaged, and keeps its file open
    for path, source in opened:
        if source.format in EXTENSIONS and _same(image, source):
            return EXTENSIONS[source.format], path.read_bytes(), True
    buffer = io.BytesIO()
    (image if image.mode in ("L", "RGB") else rgb(image)).save(buffer, "PNG")
    return "png", buffer.getvalue(), False


def _same(image: Image.Image, source: Image.Image) -> bool:
    """Whether a model sees the same in both; a data set may have cut something out."""
    return source is image or (source.size == image.size and rgb(source).tobytes() == rgb(image).tobytes())


@contextlib.contextmanager
def _watched(opened: list[tuple[Path, Image.Image]]) -> Iterator[None]:
    """Remember which pictures are opened from which files: each data set keeps its paths in another place."""
    plain = Image.open

    def open_(file: Any, *rest: Any, **options: Any) -> Image.Image:
        image = plain(file, *rest, **options)
        name = file if isinstance(file, str | PathLike) else getattr(file, "name", None)
        if isinstance(name, str | PathLike):
            opened.append((Path(name), image))
        return image

    with _replaced(Image, "open", open_):
        yield


def _check_language(name: str, language: str) -> None:
    """Refuse a language of which clip_benchmark has nothing; it would take English without a word."""
    if language == "en" and name != "babel_imagenet":
        return
    folder = data_folder()
    if name in RETRIEVAL:
        # The others say themselves which they know.
        known = {"mscoco_captions": {"en"}, "flickr30k": {"en", "zh"}, "flickr8k": {"en", "zh"}}.get(name, {language})
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
