"""Small real evaluation folders for the tests: pictures in every mode and format that evaluation sets hold."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from pools import write_tar

from conf.files import read_lines
from evaluate.config import EvaluateConfig
from evaluate.results import FILE, predictions_path
from evaluate.run import run
from tasks.registry import Task
from train.model import create

MODEL = "test-tiny"
Samples = list[tuple[str, dict[str, bytes]]]


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
    words = ["red", "blue", "old", "new", "tree", "house", "dog", "cat", "river", "on", "under", "many"]
    samples: Samples = []
    for number in range(count):
        extension, data = picture(number + 1000 * seed)
        captions = [f"{' '.join(rng.choice(words, 4))} {number} {line}" for line in range(rng.integers(1, 8))]
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
) -> Path:
    """A classification task's folder below `root`."""
    folder = root / task.folder
    write_shards(folder, samples, shards)
    names = [f"thing {index}" for index in range(classes or task.classes or 0)]
    (folder / "classnames.txt").write_text("\n".join(names) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(f"{line} " for line in templates))
    return folder


def write_retrieval(root: Path, task: Task, samples: Samples, *, shards: int = 2) -> Path:
    """A retrieval task's folder below `root`, as webdataset."""
    folder = root / task.folder
    write_shards(folder, samples, shards)
    (folder / "dataset_type.txt").write_text("retrieval\n")
    return folder


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
