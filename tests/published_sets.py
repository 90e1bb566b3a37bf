"""Data sets on the disk as their publishers lay them out, small and made on the fly, for clip_benchmark to build."""

import ast
import hashlib
import io
import json
import pickle
import struct
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from evalsets import encoded, noise
from PIL import Image

EUROSAT_CLASSES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
FER_CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
RGB = [Image.fromarray(noise(number)) for number in range(12)]


class Published(NamedTuple):
    """A data set that can be made here."""

    make: Callable[[Path, pytest.MonkeyPatch], None]
    folder: str  # that the export gets
    samples: int
    untouched: int  # pictures that stay as they are
    language: str = "en"


def cifar10(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Pickles of rows of 3072 bytes; torchvision knows the digests of the real ones."""
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def written(name: str, content: Any) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(count: int) -> dict[str, Any]:
        rows = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return {"data": rows, "labels": rng.integers(0, 10, count).tolist()}

    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    patch.setattr(
        CIFAR10, "train_list", [[f"data_batch_{n}", written(f"data_batch_{n}", batch(4))] for n in range(1, 6)]
    )
    patch.setattr(CIFAR10, "test_list", [["test_batch", written("test_batch", batch(23))]])
    patch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": written("batches.meta", {"label_names": names})})


def mnist(root: Path, patch: pytest.MonkeyPatch) -> None:
    """The idx format: a magic number, sizes, bytes."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name, count in (("train", 7), ("t10k", 30)):
        images, labels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count, np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()
        )
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())


def eurosat(root: Path, patch: pytest.MonkeyPatch) -> None:
    """A folder a class; no splits."""
    for number, name in enumerate(EUROSAT_CLASSES):
        (root / "eurosat" / "2750" / name).mkdir(parents=True)
        for count in range(2):
            picture = encoded(RGB[(number + count) % 12], "JPEG")
            (root / "eurosat" / "2750" / name / f"{name}_{count}.jpg").write_bytes(picture)


def fer2013(root: Path, patch: pytest.MonkeyPatch) -> None:
    """A folder a class in a folder a split; among grey pictures one with a palette and a bitmap."""
    forms = [("png", "PNG", "L"), ("png", "PNG", "P"), ("bmp", "BMP", "RGB"), ("jpeg", "JPEG", "L")]
    for split in ("train", "test"):
        for number, name in enumerate(FER_CLASSES):
            (root / split / name).mkdir(parents=True)
            ending, form, mode = forms[number % 4]
            picture = encoded(RGB[number].convert(mode), form)
            (root / split / name / f"{split}_{number}.{ending}").write_bytes(picture)


def imagenet_a(root: Path, patch: pytest.MonkeyPatch) -> None:
    """A folder for each of 200 of ImageNet's classes."""
    for number, wnid in enumerate(wnids("imagenet_a_wnids")):
        (root / wnid).mkdir(parents=True)
        (root / wnid / f"0.000{number}_x.jpg").write_bytes(encoded(RGB[number % 12], "JPEG"))


def imagenetv2(root: Path, patch: pytest.MonkeyPatch) -> None:
    """A folder a label; clip_benchmark counts the pictures, and takes them as the file system has them."""
    from clip_benchmark.datasets import imagenetv2

    patch.setattr(imagenetv2, "V2_DATASET_SIZE", 16)
    for label in (7, 70, 8, 999, 0, 123, 500, 31):
        folder = root / "ImageNetV2-matched-frequency" / str(label)
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / f"{label}{number}.jpeg").write_bytes(encoded(RGB[label % 11 + number], "JPEG"))


def gtsrb(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Portable pixmaps, and a table of labels beside them."""
    folder = root / "gtsrb" / "GTSRB" / "Final_Test" / "Images"
    folder.mkdir(parents=True)
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for number in range(9):
        RGB[number].save(folder / f"0000{number}.ppm")
        rows.append(f"0000{number}.ppm;44;37;1;1;9;9;{number * 5}")
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(rows) + "\n")


def voc2007(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Boxes around things; one of them is the whole picture."""
    base = root / "VOCdevkit" / "VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (base / name).mkdir(parents=True)
    boxes = {"000001": [("dog", 2, 3, 20, 30), ("person", 0, 0, 44, 37)], "000002": [("sofa", 5, 1, 9, 8)]}
    for number, (key, things) in enumerate(boxes.items()):
        (base / "JPEGImages" / f"{key}.jpg").write_bytes(encoded(RGB[number], "JPEG"))
        objects = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{X}</xmax><ymax>{Y}</ymax></bndbox></object>"
            for name, x, y, X, Y in things
        )
        (base / "Annotations" / f"{key}.xml").write_text(f"<annotation>{objects}</annotation>")
    (base / "ImageSets" / "Main" / "aeroplane_test.txt").write_text("000001 -1\n000002 -1\n")


def pets(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Lists of names and labels, one a split; among the files that end in .jpg a GIF and a PNG."""
    base = root / "oxford-iiit-pet"
    for name in ("images", "annotations"):
        (base / name).mkdir(parents=True)
    for split, count in (("test", 6), ("trainval", 4)):
        rows = []
        for number in range(count):
            name, form = f"breed_{number % 3}_{split}", ("JPEG", "GIF", "PNG", "JPEG", "JPEG", "JPEG")[number]
            (base / "images" / f"{name}_{number}.jpg").write_bytes(encoded(RGB[number], form))
            rows.append(f"{name}_{number} {number % 3 + 1} 1 1")
        (base / "annotations" / f"{split}.txt").write_text("\n".join(rows) + "\n")


def caltech101(root: Path, patch: pytest.MonkeyPatch) -> None:
    """A folder for each of 102 categories, of which pictures are opened and no more."""
    listed = json.loads((files("clip_benchmark") / "datasets" / "en_classnames.json").read_text(encoding="utf-8"))
    for number in range(len(listed["caltech101"])):
        folder = root / "caltech101" / "101_ObjectCategories" / f"category_{number:03}"
        folder.mkdir(parents=True)
        picture = RGB[number % 12].convert("L" if number % 2 else "RGB")
        (folder / "image_0001.jpg").write_bytes(encoded(picture, "JPEG"))


def objectnet(root: Path, patch: pytest.MonkeyPatch) -> None:
    """A folder a thing, of which those count that four tables lead to classes of ImageNet."""
    things = {"chair_f": "Chair", "air_f": "Air freshener", "mug_f": "Mug"}
    for number, name in enumerate(things):
        (root / "objectnet-1.0" / "images" / name).mkdir(parents=True)
        for count in range(2):
            picture = encoded(RGB[3 * number + count], "PNG")
            (root / "objectnet-1.0" / "images" / name / f"{count}.png").write_bytes(picture)
    tables = {
        "folder_to_objectnet_label.json": json.dumps(things),
        "objectnet_to_imagenet_1k.json": json.dumps({"Mug": "coffee mug", "Chair": "folding chair; rocking chair"}),
        "pytorch_to_imagenet_2012_id.json": json.dumps({"559": 0, "765": 1, "504": 2}),
        "imagenet_to_label_2012_v2": "folding chair\nrocking chair\ncoffee mug\n",
    }
    for name, text in tables.items():
        (root / name).write_text(text)


def flickr30k(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Pictures in one folder, and lines of a picture's name and a caption."""
    root.mkdir(parents=True)
    lines = ["image,caption"]
    for number in range(12):
        (root / f"{number}.jpg").write_bytes(encoded(RGB[number], "JPEG"))
        lines += [f"{number}.jpg,A thing, number {number}, seen {times} times." for times in range(1 + number % 3)]
    (root / "flickr30k_test_karpathy.txt").write_text("\n".join(lines) + "\n")


def mscoco_captions(root: Path, patch: pytest.MonkeyPatch) -> None:
    """COCO's JSON of images and annotations; a caption there may hold a line break."""
    (root / "val2014").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(12):
        name = f"COCO_val2014_{number:012}.jpg"
        (root / "val2014" / name).write_bytes(encoded(RGB[number], "JPEG"))
        images.append({"id": 100 - number, "file_name": name})
        for times in range(2):
            caption = f"Thing {number}\nseen {times} times " if times else f"Thing {number}."
            annotations.append({"id": len(annotations), "image_id": 100 - number, "caption": caption})
    (root / "coco_test_karpathy.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def sugar_crepe(root: Path, patch: pytest.MonkeyPatch) -> None:
    """COCO's pictures and a table of captions by numbers with gaps; a picture is in two samples."""
    (root / "val2017").mkdir(parents=True)
    table: dict[str, dict[str, str]] = {}
    for number in range(9):
        name = f"{number // 2:012}.jpg"
        (root / "val2017" / name).write_bytes(encoded(RGB[number // 2], "JPEG"))
        captions = {"caption": f"A red thing {number}.", "negative_caption": f"A blue thing {number}."}
        table[str(number * 2)] = {"filename": name, **captions}
    (root / "swap_att.json").write_text(json.dumps(table))


def crossmodal3600(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Places of pictures and a caption of each, as clip_benchmark writes them down for a language."""
    (root / "xm3600" / "images").mkdir(parents=True)
    paths = [root / "xm3600" / "images" / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(RGB[number], "JPEG"))
    content = {"image_paths": [str(path) for path in paths], "annotations": [f"Ein Bäumchen {n}" for n in range(5)]}
    (root / "crossmodal3600_captions-de.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


PUBLISHED = {
    "cifar10": Published(cifar10, "wds_cifar10_test", 23, 0),
    "mnist": Published(mnist, "wds_mnist_test", 30, 0),
    "eurosat": Published(eurosat, "wds_eurosat_test", 20, 20),
    "fer2013": Published(fer2013, "wds_fer2013_test", 7, 5),
    "imagenet-a": Published(imagenet_a, "wds_imagenet-a_test", 200, 200),
    "imagenetv2": Published(imagenetv2, "wds_imagenetv2_test", 16, 16),
    "gtsrb": Published(gtsrb, "wds_gtsrb_test", 9, 0),
    "voc2007": Published(voc2007, "wds_voc2007_test", 3, 1),
    "pets": Published(pets, "wds_vtab-pets_test", 6, 5),
    "caltech101": Published(caltech101, "wds_caltech101_test", 102, 102),
    "objectnet": Published(objectnet, "wds_objectnet_test", 4, 4),
    "flickr30k": Published(flickr30k, "flickr_1k_test_image_text_retrieval", 12, 12),
    "mscoco_captions": Published(mscoco_captions, "mscoco_2014_5k_test_image_text_retrieval", 12, 12),
    "voc2007_multilabel": Published(voc2007, "wds_voc2007_multilabel_test", 2, 2),
    "sugar_crepe/swap_att": Published(sugar_crepe, "wds_sugarcrepe-swap_att_test", 9, 9),
    "crossmodal3600": Published(crossmodal3600, "wds_crossmodal3600-de_test", 5, 5, "de"),
}


def wnids(name: str) -> list[str]:
    """A list of WordNet's identifiers that stands in clip_benchmark's source."""
    source = (files("clip_benchmark") / "datasets" / "builder.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            found: list[str] = sorted(ast.literal_eval(node.value))
            return found
    raise LookupError(name)


def pixels(picture: bytes | Image.Image) -> bytes:
    """What a model gets to see."""
    image = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
    return image.convert("RGB").tobytes()
