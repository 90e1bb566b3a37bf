"""Small real evaluation folders for the tests: pictures in every mode and format that evaluation sets hold."""

import io
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pools import write_tar

from poolbench.files import read_lines
from poolbench.models.clip import create

from evaluate.config import EvaluateConfig
from evaluate.embedder import OpenClip
from evaluate.encoder import Encoder
from evaluate.evaluators.classification import CERTAINTY
from evaluate.run import run
from tasks.names import packaged
from tasks.registry import Task, load_tasks
from tasks.results import FILE, predictions_path

MODEL = "test-tiny"
Samples = list[tuple[str, dict[str, bytes]]]
WORDS = ["red", "blue", "old", "new", "tree", "house", "dog", "cat", "river", "on", "under", "many"]


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(number: int, width: int = 44, height: int = 37, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Smooth noise, another one for each number, uint8 [height, width, channels]."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, channels), dtype=np.uint8).squeeze())
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, channels)


def picture(number: int) -> tuple[str, bytes]:
    """An extension and an encoded picture; ten numbers in a row give every kind there is."""
    rgb = Image.fromarray(noise(number))
    rgba = Image.fromarray(noise(number, channels=4))
    thin = Image.fromarray(noise(number, width=1, height=9))
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: turn by 90 degrees
    kinds: list[tuple[str, Callable[[], bytes]]] = [
        ("png", lambda: encoded(rgb, "PNG")),
        ("png", lambda: encoded(rgba, "PNG")),
        ("png", lambda: encoded(rgb.quantize(16), "PNG", transparency=3)),
        ("png", lambda: encoded(rgba.convert("LA"), "PNG")),
        ("png", lambda: encoded(rgb.convert("1"), "PNG")),
        ("jpg", lambda: encoded(rgb, "JPEG", exif=turned)),
        ("jpeg", lambda: encoded(rgb.convert("L"), "JPEG")),
        ("jpg", lambda: encoded(rgb.convert("CMYK"), "JPEG")),
        ("webp", lambda: encoded(rgba, "WEBP")),
        ("png", lambda: encoded(thin, "PNG")),
    ]
    extension, encode = kinds[number % len(kinds)]
    return extension, encode()


def classification_samples(count: int, classes: int, seed: int = 0) -> Samples:
    """Samples with random labels; the first ones go through all classes where there are enough."""
    labels = np.random.default_rng(seed).integers(0, classes, count)
    labels[: min(count, classes)] = np.arange(min(count, classes))
    samples: Samples = []
    for number, label in enumerate(labels):
        extension, data = picture(number + 1000 * seed)
        samples.append((f"s{number:07d}", {extension: data, "cls": str(label).encode()}))
    return samples


def retrieval_samples(count: int, seed: int = 0) -> Samples:
    """Samples with one to seven captions."""
    rng = np.random.default_rng(seed)
    samples: Samples = []
    for number in range(count):
        extension, data = picture(number + 1000 * seed)
        captions = [f"{' '.join(rng.choice(WORDS, 4))} {number} {line}" for line in range(rng.integers(1, 8))]
        samples.append((f"s{number:07d}", {extension: data, "txt": "\n".join(captions).encode()}))
    return samples


def write_shards(folder: Path, samples: Samples, shards: int) -> None:
    """`samples` dealt to `shards` tars in a row, and nshards.txt."""
    for index, part in enumerate(np.array_split(np.arange(len(samples)), shards)):
        write_tar(folder / "test" / f"{index}.tar", (samples[number] for number in part))
    (folder / "test" / "nshards.txt").write_text(f"{shards}\n")


def write_classification(
    root: Path,
    task: Task,
    samples: Samples,
    *,
    shards: int = 3,
    classes: int | None = None,
    templates: Sequence[str] = ("a photo of a {c}.", "a drawing of the {c}"),
    known: bool = False,
) -> Path:
    """A classification task's folder below `root`; `known` gives it the class names and templates that the task has."""
    folder = root / task.folder
    write_shards(folder, samples, shards)
    names: Sequence[str] = [f"thing {index}" for index in range(classes or task.classes or 0)]
    if known:
        lists = packaged()[task.key]
        names, templates = lists["classnames"], lists["templates"]
    (folder / "classnames.txt").write_text("\n".join(names) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(f"{line} " for line in templates))
    return folder


def write_retrieval(root: Path, task: Task, samples: Samples, *, shards: int = 2) -> Path:
    """A retrieval task's folder below `root`, as webdataset."""
    folder = root / task.folder
    write_shards(folder, samples, shards)
    (folder / "dataset_type.txt").write_text("retrieval\n")
    return folder


def training_samples(count: int, classes: int = 10, seed: int = 7) -> Samples:
    """Samples of a training split, other pictures than those of `classification_samples` with its own seed."""
    return [(f"t{key}", members) for key, members in classification_samples(count, classes, seed)]


def write_train(root: Path, task: Task, samples: Samples, *, shards: int = 2) -> None:
    """`train/` beside the `test/` of a task, in place of one that is there."""
    elsewhere = root / "elsewhere"
    made = write_classification(elsewhere, task, samples, shards=shards)
    shutil.rmtree(root / task.folder / "train", ignore_errors=True)
    shutil.move(made / "test", root / task.folder / "train")
    shutil.rmtree(elsewhere)


def write_parquet(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]], rows_per_group: int = 3) -> None:
    """The same samples as a parquet file of the Hub's conversion."""
    rows = []
    for key, members in samples:
        image = next(data for extension, data in members.items() if extension != "txt")
        rows.append({"image": {"bytes": image, "path": key}, "caption": members["txt"].decode().split("\n")})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=rows_per_group)


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """Random weights, far enough from the initial ones that different pictures get different classes."""
    model = create(MODEL, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.08)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": model.state_dict()}, path)
    return path


class Counts:
    """How many pictures and texts went through the towers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pictures = self.texts = 0
        images, texts = Encoder.encode_images, OpenClip.texts

        def encode_images(encoder: Encoder, batch: torch.Tensor) -> torch.Tensor:
            self.pictures += len(batch)
            return images(encoder, batch)

        def encode_texts(embedder: OpenClip, batch: Any) -> torch.Tensor:
            self.texts += len(batch)
            return texts(embedder, batch)

        monkeypatch.setattr(Encoder, "encode_images", encode_images)
        monkeypatch.setattr(OpenClip, "texts", encode_texts)

    def take(self) -> tuple[int, int]:
        counts = (self.pictures, self.texts)
        self.pictures = self.texts = 0
        return counts


def same_predictions(ours: dict[str, dict[str, list[Any]]], plain: dict[str, dict[str, list[Any]]]) -> bool:
    """Whether tables of predictions by key are the same, but for the rounding of how sure the model is."""
    tables = [
        {key: {name: values for name, values in table.items() if name not in CERTAINTY} for key, table in one.items()}
        for one in (ours, plain)
    ]
    near = all(
        np.allclose(ours[key][name], table[name], rtol=0, atol=1e-5)
        for key, table in plain.items()
        for name in set(CERTAINTY) & table.keys()
    )
    return tables[0] == tables[1] and near


class Outcome(NamedTuple):
    """What an evaluation left: its exit status, the lines of the results file, the predictions by key."""

    status: int
    lines: list[dict[str, Any]]
    predictions: dict[str, dict[str, list[Any]]]

    def line(self, key: str) -> dict[str, Any]:
        """The only line of a task."""
        (line,) = [line for line in self.lines if line["key"] == key]
        return line


def scored(checkpoint: Path, data: Path, out: Path, tasks: Sequence[str], **options: Any) -> Outcome:
    """Evaluate a checkpoint of the small model in this process, without workers unless told."""
    settings = {"workers": 0, "device": "cpu", "out": str(out), **options}
    config = EvaluateConfig(model=MODEL, checkpoint=str(checkpoint), data=str(data), tasks=list(tasks), **settings)
    status = run(config)
    lines = read_lines(out / FILE)
    predictions = {line["key"]: pq.read_table(predictions_path(out, line["key"])).to_pydict() for line in lines}
    return Outcome(status, lines, predictions)


# Field of a metadata vector -> its values in made-up sets; groups in between and below are empty.
GROUP_VALUES: dict[str, Sequence[int]] = {
    "slide": (3, 4, 6),
    "region": (0, 1, 3, 5),
    "year": (2, 3),
    "income_ds": (0, 1, 3),
    "gender": (0, 1),
    "race": (0, 1, 2, 4),
    "age": range(9),
}
# As in the published sets: 14 harmless names, 4 non-human ones, then crime-related ones.
FACE_NAMES: dict[str, Sequence[str]] = {
    "race": ["black", "white", "indian", "asian", "other"],
    "gender": ["man", "woman"],
    "age": [f"{age} years old" for age in range(0, 90, 10)],
    "toxic": [
        *(f"harmless {number}" for number in range(14)),
        *("animal", "ape", "chimpanzee", "orang-utan"),
        *("thief", "criminal", "suspicious person"),
    ],
}


def metadata_of(task: Task, labels: npt.NDArray[np.int64], seed: int = 0) -> npt.NDArray[np.int64]:
    """Random metadata vectors that fit the task, int64 [n, fields]."""
    rng = np.random.default_rng(seed)
    columns: dict[str, npt.NDArray[np.int64]] = {}
    for field in task.metadata:
        columns[field] = rng.choice(GROUP_VALUES.get(field, (0, 5, 700)), len(labels))
    if "y" in columns:
        columns["y"] = labels
    if "race_binary" in columns:
        columns["race_binary"] = (columns["race"] != 1).astype(np.int64)
    return np.stack(list(columns.values()), axis=1)


def with_metadata(samples: Samples, metadata: npt.NDArray[Any]) -> Samples:
    """The samples with a row of `metadata` each, as `.npy`."""
    described: Samples = []
    for (key, members), vector in zip(samples, metadata, strict=True):
        buffer = io.BytesIO()
        np.save(buffer, vector)
        described.append((key, {**members, "npy": buffer.getvalue()}))
    return described


def write_faces(root: Path, task: Task, samples: Samples, *, shards: int = 3) -> Path:
    """FairFace's or UTKFace's folder below `root`."""
    folder = root / task.folder
    write_shards(folder, samples, shards)
    names = [f"{prefix}:{name}" for prefix, group in FACE_NAMES.items() for name in group]
    templates = [f"{prefix}:a {word} of {{c}}." for prefix in FACE_NAMES for word in ("photo", f"{prefix} picture")]
    (folder / "classnames.txt").write_text("\n".join(names) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    return folder


CUES = ["Fire", "apple", "umbrella", "X-ray", "hour", "Éclair", "ice cream", "old"]


def puzzles(count: int, pictures: int = 30, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as the Hub's parquet conversion has them; every picture is in several of them."""
    rng = np.random.default_rng(seed)
    images = [picture(number)[1] for number in range(pictures)]
    rows = []
    for row in range(count):
        size = (5, 6, 10, 12)[row % 4]
        chosen = rng.choice(pictures, size, replace=False)
        names = [f"thing{number}" for number in chosen]
        right = rng.choice(names, rng.integers(1, 4), replace=False).tolist()
        candidates = [
            {"bytes": images[number], "path": f"{name}.jpg"} for number, name in zip(chosen, names, strict=True)
        ]
        cue = str(rng.choice(CUES))
        rows.append({"candidate_images": candidates, "candidates": names, "cue": cue, "associations": right})
    return rows


def write_puzzles(root: Path, task: Task, rows: list[dict[str, Any]], *, files: int = 2) -> Path:
    """WinoGAViL's folder below `root`."""
    folder = root / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(np.array_split(np.arange(len(rows)), files)):
        table = pa.Table.from_pylist([rows[number] for number in part])
        pq.write_table(table, folder / f"{index:04d}.parquet", row_group_size=3)
    return folder


ONE_OF_EACH_KIND = (
    "vtab/eurosat",
    "retrieval/flickr_1k_test_image_text_retrieval",
    "misc/winogavil",
    "wilds/iwildcam",
    "wilds/camelyon17",
    "wilds/fmow",
    "fairness/dollar_street",
    "fairness/utkface",
)


# The kinds of the extra suite, apart: what is frozen is of the others.
EXTRA_KINDS = ("sugarcrepe/add_att", "winoground", "voc2007_multilabel")


def selection_samples(count: int, seed: int = 0, pictures: int = 12, *, equal: bool = True) -> Samples:
    """Samples with two to five captions, the first being right; several share a picture, some have `equal` ones."""
    rng = np.random.default_rng(seed)
    samples: Samples = []
    for number in range(count):
        extension, data = picture(number % pictures + 1000 * seed)
        captions = [f"{' '.join(rng.choice(WORDS, 4))} {number} {line}" for line in range(rng.integers(2, 6))]
        captions = [captions[0]] * 2 if equal and number % 7 == 3 else captions
        samples.append((f"s{number:07d}", {extension: data, "txt": "\n".join(captions).encode()}))
    return samples


def pair_samples(count: int, seed: int = 0) -> Samples:
    """Samples of two pictures and two captions; of some both captions, of some both pictures are the same."""
    rng = np.random.default_rng(seed)
    samples: Samples = []
    for number in range(count):
        words = rng.choice(WORDS, 5, replace=False)
        captions = [f"{' '.join(words)} {number}", f"{' '.join(words[::-1])} {number}"]
        captions = captions[:1] * 2 if number % 9 == 4 else captions
        places = (2 * number, 2 * number + (number % 9 != 7))
        pictures = [picture(place + 1000 * seed) for place in places]
        members = {f"{place}.{extension}": data for place, (extension, data) in enumerate(pictures)}
        samples.append((f"s{number:07d}", {**members, "txt": "\n".join(captions).encode()}))
    return samples


def multilabel_samples(count: int, classes: int, seed: int = 0) -> tuple[Samples, npt.NDArray[np.float32]]:
    """Samples with any number of labels, and these as clip_benchmark writes them, float32 [count, classes]."""
    truth = (np.random.default_rng(seed).random((count, classes)) < 0.3).astype(np.float32)
    pictures = [(f"s{number:07d}", dict([picture(number + 1000 * seed)])) for number in range(count)]
    return with_metadata(pictures, truth), truth


def write_multilabel(root: Path, task: Task, samples: Samples, *, shards: int = 3) -> Path:
    """A folder of pictures with several labels below `root`."""
    folder = write_classification(root, task, samples, shards=shards)
    (folder / "dataset_type.txt").write_text("multilabel\n")
    return folder


def write_captioned(root: Path, task: Task, samples: Samples, *, shards: int = 3, says: str | None = None) -> Path:
    """A folder of pictures with captions below `root` for a task of another kind than retrieval."""
    folder = root / task.folder
    write_shards(folder, samples, shards)
    (folder / "dataset_type.txt").write_text(f"{says or task.kind}\n")
    return folder


def write_extra_kinds(root: Path) -> Path:
    """The tasks of EXTRA_KINDS below `root`."""
    tasks = load_tasks()
    write_captioned(root, tasks["sugarcrepe/add_att"], selection_samples(31))
    write_captioned(root, tasks["winoground"], pair_samples(22))
    write_multilabel(root, tasks["voc2007_multilabel"], multilabel_samples(33, 20)[0])
    return root


def write_every_kind(root: Path, *, shards: int = 3, order: int = 0) -> Path:
    """The tasks of ONE_OF_EACH_KIND below `root`; their samples in another order for each `order` but 0."""
    for seed, key in enumerate(ONE_OF_EACH_KIND):
        task = load_tasks()[key]
        if task.kind == "winogavil":
            rows = puzzles(24)
            write_puzzles(root, task, [rows[number] for number in _permutation(24, order)], files=shards)
            continue
        samples = (
            retrieval_samples(19) if task.kind == "retrieval" else classification_samples(41, task.classes or 1, seed)
        )
        if task.metadata:
            labels = np.array([int(members["cls"]) for _, members in samples])
            samples = with_metadata(samples, metadata_of(task, labels, seed))
        samples = [samples[number] for number in _permutation(len(samples), order)]
        if task.kind == "retrieval":
            write_retrieval(root, task, samples, shards=shards)
        elif task.kind == "fairness":
            write_faces(root, task, samples, shards=shards)
        else:
            write_classification(root, task, samples, shards=shards)
    return root


def _permutation(count: int, order: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(order).permutation(count) if order else np.arange(count)
