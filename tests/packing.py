"""Pictures with captions as people have them, in every layout, for the tests of packing; and what was made of them."""

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from poolbench.files import read_lines

from curate.pack.options import PackOptions

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
WORDS = ["ein", "Bild,", '"quoted";', "çedilla", "|", "and\ttab\nnew line", "猫", "🙂"]


class Pair(NamedTuple):
    """A picture with its captions, as a source has it."""

    name: str
    data: bytes
    captions: list[str]
    url: str | None


def encoded(rng: np.random.Generator, form: str, least: int = 1, most: int = 24) -> bytes:
    """A picture of noise, of so many pixels a side."""
    buffer = io.BytesIO()
    shape = (*rng.integers(least, most, 2, endpoint=True), 3)
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(buffer, form)
    return buffer.getvalue()


def drawn(rng: np.random.Generator, count: int, captions: int = 1) -> list[Pair]:
    """Random pairs, some in folders, no two alike."""
    found = []
    for number in range(count):
        form = str(rng.choice(list(SUFFIXES)))
        folder = str(rng.choice(["", "a/", "b c/é/"]))
        suffix = SUFFIXES[form].upper() if rng.random() < 0.2 else SUFFIXES[form]
        several = range(int(rng.integers(1, captions + 1)))
        texts = [" ".join([f"{number}.{one}", *rng.choice(WORDS, int(rng.integers(1, 9)))]) for one in several]
        url = f"https://x.test/{number}" if rng.random() < 0.5 else None
        found.append(Pair(f"{folder}picture {number}{suffix}", encoded(rng, form), texts, url))
    return found


def with_repeats(rng: np.random.Generator) -> list[Pair]:
    """30 pairs, and 28 times one of them again, under names of their own, in any order; at the end nothing else."""
    pairs = drawn(rng, 30)
    again = [
        pairs[int(place)]._replace(name=f"again/{number}.x") for number, place in enumerate(rng.integers(0, 30, 28))
    ]
    mixed = pairs + again[:20]
    return [mixed[int(place)] for place in rng.permutation(50)] + again[20:]


def stored(folder: Path, pairs: list[Pair]) -> Path:
    """The pictures as files."""
    for one in pairs:
        path = folder / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.data)
    return folder


def as_csv(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    with (stored(folder, pairs) / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["license", "file_name", "text", "url"])
        table.writerows(["by", one.name, text, one.url or ""] for one in pairs for text in one.captions)
    return {"from_": folder}


def as_tsv(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    stored(folder / "jpegs", pairs)
    with (folder / "captions.tsv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["what it says", "where it is", "link"])
        table.writerows([text, one.name, one.url or ""] for one in pairs for text in one.captions)
    columns = {"image_column": "where it is", "caption_column": "what it says", "url_column": "link"}
    return {"from_": folder / "captions.tsv", "pictures": folder / "jpegs", **columns}


def as_jsonl(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    stored(folder / "images", pairs)
    lines = [json.dumps({"image": one.name, "captions": one.captions, "url": one.url}) for one in pairs]
    (folder / "data.jsonl").write_text("\n\n".join(lines))
    return {"from_": folder / "data.jsonl"}


def as_parquet_of_names(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    rows = [{"filename": str(folder / one.name), "caption": one.captions, "url": one.url} for one in pairs]
    pq.write_table(pa.Table.from_pylist(rows), stored(folder, pairs) / "names.parquet", row_group_size=3)
    return {"from_": folder / "names.parquet"}


def as_coco(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    stored(folder / "val2017", pairs)
    images = [{"id": 7 * number, "file_name": one.name, "coco_url": one.url} for number, one in enumerate(pairs)]
    captions = [(number, text) for number, one in enumerate(pairs) for text in one.captions]
    told = [{"id": id_, "image_id": 7 * number, "caption": text} for id_, (number, text) in enumerate(captions)]
    (folder / "annotations").mkdir()
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": told}))
    return {"from_": folder}


def as_pairs(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    for one in pairs:
        (stored(folder, [one]) / one.name).with_suffix(".txt").write_text(f" {one.captions[0]}\n", encoding="utf-8")
    (folder / "readme.md").write_text("no picture")
    return {"from_": folder}


def as_structs(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    """As the Hub has data sets: several files, `image` a struct."""
    (folder / "data").mkdir(parents=True)
    rows = [
        {"image": {"bytes": one.data, "path": one.name}, "caption": one.captions, "url": one.url, "id": 1}
        for one in pairs
    ]
    for number, start in enumerate(range(0, len(rows), 11)):
        path = folder / "data" / f"train-{number:05d}-of-00009.parquet"
        pq.write_table(pa.Table.from_pylist(rows[start : start + 11]), path, row_group_size=4)
    return {"from_": folder}


def as_bytes(folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    folder.mkdir()
    rows = [{"jpg": one.data, "txt": one.captions[0], "link": one.url} for one in pairs]
    for number in range(3):
        pq.write_table(pa.Table.from_pylist(rows[number::3]), folder / f"{number}.parquet")
    return {"from_": folder / "[0-9].parquet", "url_column": "link", "layout": "parquet"}


LAYOUTS: dict[Callable[[Path, list[Pair]], dict[str, Any]], bool] = {  # whether a picture may have several captions
    as_csv: True,
    as_tsv: True,
    as_jsonl: True,
    as_parquet_of_names: True,
    as_coco: True,
    as_pairs: False,
    as_structs: True,
    as_bytes: False,
}


def options(out: Path, **given: Any) -> PackOptions:
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    words: dict[str, Any] = {"out": str(out), "workers": 1, **texts}
    return PackOptions(**words)


def samples(out: Path) -> list[dict[str, bytes]]:
    """The samples of all shards in their order, read by Python's own tarfile."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted((out / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                found.setdefault(key, {})[extension] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return list(found.values())


def uid(picture: bytes, caption: str) -> str:
    return hashlib.sha256(picture + caption.encode()).hexdigest()[:32]


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("[!.]*/*") if path.is_file()} | {
        path.name: path.read_bytes() for path in out.glob("[!.]*") if path.is_file()
    }


def reasons(out: Path) -> list[tuple[str, str]]:
    return [(line["source"], line["reason"]) for line in read_lines(out / "rejected.jsonl")]


def check_metadata(out: Path, found: list[dict[str, bytes]]) -> None:
    """Row for row the samples, and the uids as a subset."""
    shards, files = (sorted(path.stem for path in (out / name).iterdir()) for name in ("shards", "metadata"))
    assert shards == files
    rows = [row for path in sorted((out / "metadata").iterdir()) for row in pq.read_table(path).to_pylist()]
    told = [{**json.loads(one["json"]), "text": one["txt"].decode()} for one in found]
    assert [{name: row[name] for name in row if name != "key"} for row in rows] == told
    uids = np.load(out / "uids.npy")
    assert [f"{high:016x}{low:016x}" for high, low in uids.tolist()] == sorted(row["uid"] for row in rows)
