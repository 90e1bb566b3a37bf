"""Retrieval sets as parquet files: every layout that published ones have is read alike, others are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalsets import picture, puzzles, scored, write_checkpoint

from poolbench.errors import UserError

from tasks.examples import Bad, Example, Puzzle
from tasks.readers import read_examples
from tasks.registry import load_tasks

CAPTIONS = frozenset({"captions"})
IMAGES = [picture(number)[1] for number in range(3)]
TEXTS = [["a dog", "an old dog"], ["a cat", "a cat on a mat"], ["a river", "water"]]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def texts(kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(TEXTS, pa.list_(pa.string()) if kind is None else kind)


def structs(kind: pa.DataType = STRUCT) -> pa.Array:
    return pa.array([{"bytes": image, "path": None} for image in IMAGES], kind)


@pytest.mark.parametrize(
    "columns",
    [
        {"image": structs(), "caption": texts()},
        {"image": structs(pa.struct([("bytes", pa.large_binary())])), "caption": texts(pa.large_list(pa.string()))},
        {"image": structs(pa.struct([("path", pa.string()), ("bytes", pa.binary())])), "captions": texts()},
        {"image": pa.array(IMAGES, pa.binary()), "caption": texts(pa.list_(pa.large_string()))},
        {"image": pa.array(IMAGES, pa.large_binary()), "text": texts(pa.list_(pa.string(), 2))},
        {"image": pa.array(IMAGES, pa.binary_view()), "caption": pa.array(TEXTS, pa.list_(pa.string_view()))},
        {"jpg": pa.array(IMAGES), "sentences": texts(), "url": pa.array(["a", "b", "c"])},
        {
            "img": pa.array(IMAGES),
            "caption_1": pa.array([pair[1] for pair in TEXTS]),
            "caption_0": pa.array([pair[0] for pair in TEXTS], pa.large_string()),
        },
    ],
)
def test_every_layout_gives_the_same_samples(columns: dict[str, pa.Array], tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    read = list(read_examples(tmp_path / "a.parquet", CAPTIONS, 0))
    assert all(isinstance(item, Example) for item in read)
    assert [(item.key, item.image, item.captions) for item in read if isinstance(item, Example)] == [
        (f"a-{row}", IMAGES[row], tuple(TEXTS[row])) for row in range(3)
    ]


@pytest.mark.parametrize(
    "column", [pa.array(["a", "b", "c"]), pa.array(["a", "b", "c"]).dictionary_encode(), pa.array(["a"] * 3)]
)
def test_one_caption_a_picture(column: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": structs(), "text": column}), tmp_path / "a.parquet")
    read = list(read_examples(tmp_path / "a.parquet", CAPTIONS, 0))
    assert [item.captions for item in read if isinstance(item, Example)] == [(text,) for text in column.to_pylist()]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": pa.array(["a.jpg"]), "caption": pa.array(["a"])}, "column 'image' is string, not binary"),
        (
            {"image": pa.array([{"path": "a.jpg"}]), "caption": pa.array(["a"])},
            "column 'image' is struct<path: string>, not binary, or a struct with binary 'bytes'; pictures that lie",
        ),
        ({"image": pa.array([[1, 2]]), "caption": pa.array(["a"])}, "'image' is list<element: int64>, not binary"),
        ({"image": pa.array([b"a"]), "caption": pa.array([3])}, "column 'caption' is int64, not text"),
        (
            {"image": pa.array([b"a"]), "sentences": pa.array([[{"raw": "a"}]])},
            "column 'sentences' is list<element: struct<raw: string>>, not text",
        ),
        ({"pixels": pa.array([b"a"]), "caption": pa.array(["a"])}, "no column of pictures (image, "),
        ({"image": pa.array([b"a"]), "words": pa.array(["a"])}, "no column of captions (caption, "),
    ],
)
def test_what_is_none_of_these_is_named(columns: dict[str, pa.Array], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError) as error:
        list(read_examples(tmp_path / "a.parquet", CAPTIONS, 0))
    assert message in str(error.value) and str(tmp_path / "a.parquet") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_with_a_path_and_no_picture_is_bad(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": None, "path": "a.jpg"}, "caption": ["a"]}]
    pq.write_table(
        pa.Table.from_pylist(rows, pa.schema([("image", STRUCT), ("caption", pa.list_(pa.string()))])),
        tmp_path / "a.parquet",
    )
    assert list(read_examples(tmp_path / "a.parquet", CAPTIONS, 0)) == [
        Bad("a.parquet", "a.jpg", "no picture in the column 'image', only the path a.jpg")
    ]


def test_puzzles_with_plain_pictures(tmp_path: Path) -> None:
    rows = puzzles(4)
    plain = [{**row, "candidate_images": [image["bytes"] for image in row["candidate_images"]]} for row in rows]
    read = []
    for name, table in (("a", rows), ("b", plain)):
        path = tmp_path / name / "0.parquet"
        path.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(table), path)
        found = list(read_examples(path, frozenset({"puzzles"}), 0))
        read.append([item if isinstance(item, Puzzle) else item[:2] for item in found])  # an Example's key and picture
    assert read[0] == read[1] and sum(isinstance(item, Puzzle) for item in read[0]) == 4
    pq.write_table(pa.Table.from_pylist([{**row, "candidate_images": ["a.jpg"]} for row in rows]), path)
    with pytest.raises(UserError, match=r"column 'candidate_images' is list<element: string>, not a list of binary"):
        list(read_examples(path, frozenset({"puzzles"}), 0))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for damage in (lambda data: b"", lambda data: data[:100], spoil):
        pq.write_table(pa.table({"image": structs(), "caption": texts()}), path)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UserError, match=r"a\.parquet is (damaged|not a parquet file): ") as error:
            list(read_examples(path, CAPTIONS, 0))
        assert "\n" not in str(error.value)


def spoil(data: bytes) -> bytes:
    """The same with other bytes where the pages are."""
    return data[:4] + b"\xff" * 2000 + data[2004:]


def test_a_plain_binary_column_is_evaluated(tmp_path: Path) -> None:
    task = load_tasks()["retrieval/flickr_1k_test_image_text_retrieval"]
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    metrics = []
    layouts: list[Callable[[], Any]] = [structs, lambda: pa.array(IMAGES)]
    for number, layout in enumerate(layouts):
        folder = tmp_path / str(number) / task.folder
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"image": layout(), "caption": texts()}), folder / "0.parquet")
        outcome = scored(checkpoint, tmp_path / str(number), tmp_path / f"out{number}", [task.key])
        assert outcome.status == 0
        metrics.append(outcome.line(task.key)["metrics"])
    assert metrics[0] == metrics[1]
