"""Evaluation folders: what is read, what is refused, and the digest of it all."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalsets import (
    classification_samples,
    picture,
    retrieval_samples,
    write_classification,
    write_parquet,
    write_retrieval,
    write_shards,
)
from pools import write_tar

from poolbench.errors import UserError
from poolbench.files import digest_file

from tasks.examples import Bad, Example
from tasks.readers import MissingDataError, open_data, read_examples
from tasks.registry import load_tasks

EUROSAT = load_tasks()["vtab/eurosat"]
FLICKR = load_tasks()["retrieval/flickr_1k_test_image_text_retrieval"]
LABEL = frozenset({"label"})
CAPTIONS = frozenset({"captions"})


def npy(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=True)
    return buffer.getvalue()


def test_a_classification_folder(tmp_path: Path) -> None:
    samples = classification_samples(11, 10)
    folder = write_classification(tmp_path, EUROSAT, samples, shards=3)
    data = open_data(EUROSAT, tmp_path)
    assert data.folder == folder
    assert data.classnames == tuple(f"thing {index}" for index in range(10))
    assert data.templates == ("a photo of a {c}.", "a drawing of the {c}")  # stripped
    assert [path.name for path in data.shards] == ["0.tar", "1.tar", "2.tar"]
    read = [item for shard in data.shards for item in read_examples(shard, LABEL, 10)]
    assert all(isinstance(item, Example) for item in read)
    for item, (key, members) in zip(read, samples, strict=True):
        assert isinstance(item, Example)
        assert (item.key, item.label) == (key, int(members["cls"]))
        assert item.image in members.values()


def test_retrieval_is_the_same_from_tars_and_from_parquet(tmp_path: Path) -> None:
    samples = retrieval_samples(9)
    write_retrieval(tmp_path / "tars", FLICKR, samples)
    write_parquet(tmp_path / "parquet" / FLICKR.folder / "0000.parquet", samples[:5])
    write_parquet(tmp_path / "parquet" / FLICKR.folder / "0001.parquet", samples[5:])
    read = []
    for root in ("tars", "parquet"):
        data = open_data(FLICKR, tmp_path / root)
        assert data.classnames == data.templates == ()
        items = [item for shard in data.shards for item in read_examples(shard, CAPTIONS, 0)]
        read.append([(i.key, i.image, i.captions) for i in items if isinstance(i, Example)])
    assert read[0] == read[1]
    assert [item[2] for item in read[0]] == [tuple(m["txt"].decode().split("\n")) for _, m in samples]


def test_a_retrieval_export_under_its_webdataset_name(tmp_path: Path) -> None:
    folder = write_retrieval(tmp_path, FLICKR, retrieval_samples(2))
    folder.rename(tmp_path / "wds_retrieval-flickr_1k_test_image_text_retrieval_test")
    assert len(open_data(FLICKR, tmp_path).shards) == 2


def test_metadata_are_read_without_pickle(tmp_path: Path) -> None:
    extension, image = picture(0)
    good = write_tar(tmp_path / "0.tar", [("a", {extension: image, "npy": npy([3, -1, 2**40])})])
    (item,) = read_examples(good, frozenset({"metadata"}), 0)
    assert isinstance(item, Example)
    assert item.metadata.tolist() == [3, -1, 2**40] and item.metadata.dtype == np.int64
    for value, reason in (
        (npy([{"a": 1}]), "not a NumPy array"),
        (npy([0.5]), "not a vector of integers"),
        (npy([[1]]), "not a vector of integers"),
        (b"", "not a NumPy array"),
    ):
        bad = write_tar(tmp_path / "1.tar", [("a", {extension: image, "npy": value})])
        with pytest.raises(UserError, match=f"1.tar: a.npy is {reason}"):
            list(read_examples(bad, frozenset({"metadata"}), 0))


def test_the_digest_is_over_names_and_contents(tmp_path: Path) -> None:
    folder = write_classification(tmp_path, EUROSAT, classification_samples(6, 10), shards=2)
    data = open_data(EUROSAT, tmp_path)
    shards = {data.name_of(path): digest_file(path) for path in data.shards}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    expected = sorted(
        [path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files
    )
    text = json.dumps(expected, separators=(",", ":"))
    assert data.digest(shards) == hashlib.sha256(text.encode()).hexdigest()
    (folder / "classnames.txt").write_text("other\n")
    assert data.digest(shards) != hashlib.sha256(text.encode()).hexdigest()


def test_bad_samples_are_told_and_the_others_read(tmp_path: Path) -> None:
    samples = classification_samples(4, 10)
    del samples[1][1]["png"]
    path = write_tar(tmp_path / "0.tar", samples)
    read = list(read_examples(path, LABEL, 10))
    assert [type(item) for item in read] == [Example, Bad, Example, Example]
    assert read[1] == Bad("0.tar", "s0000001", "no picture (.webp, .png, .jpg, .jpeg): its members are .cls")


def test_hidden_files_and_members_of_a_task_are_no_data(tmp_path: Path) -> None:
    folder = write_classification(tmp_path, EUROSAT, classification_samples(4, 10), shards=2)
    before = [item for path in open_data(EUROSAT, tmp_path).shards for item in read_examples(path, LABEL, 10)]
    for name in ("test/._0.tar", "test/._1.tar", "._classnames.txt", "._0.parquet", ".DS_Store"):
        (folder / name).write_bytes(b"mac")
    for tar in (folder / "test").glob("[0-9].tar"):
        with tarfile.open(tar) as file:
            members = [(info.name, file.extractfile(info).read()) for info in file]  # type: ignore[union-attr]
        with tarfile.open(tar, "w") as file:
            for name, data in [
                (other, content) for one in members for other, content in ((f"._{one[0]}", b"mac"), one)
            ]:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    data = open_data(EUROSAT, tmp_path)
    assert not data.surplus and len(data.shards) == 2
    after = [item for path in data.shards for item in read_examples(path, LABEL, 10)]
    assert [item[:4] for item in after] == [item[:4] for item in before]


def test_a_shard_that_was_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", classification_samples(3, 10))
    with tarfile.open(path) as tar:
        label = tar.getmember("s0000002.cls").offset
    path.write_bytes(path.read_bytes()[:label])  # ends after the last picture, before its label
    *whole, shard, sample = read_examples(path, LABEL, 10)
    assert [item.key for item in whole] == ["s0000000", "s0000001"]
    assert shard == Bad("0.tar", "", "ends without an end-of-archive mark: it was cut off")
    assert sample == Bad("0.tar", "s0000002", "0.tar: sample s0000002 has no .cls; its members are .png")


def test_a_blank_class_name_keeps_the_others_in_place(tmp_path: Path) -> None:
    folder = write_classification(tmp_path, EUROSAT, classification_samples(2, 2))
    (folder / "classnames.txt").write_text("first\n\n  third  \n\n\n")
    assert open_data(EUROSAT, tmp_path).classnames == ("first", "", "third")


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("classnames.txt"), "classnames.txt is missing"),
        (remove("zeroshot_classification_templates.txt"), "templates.txt is missing"),
        (remove("test/nshards.txt"), "test/nshards.txt is missing"),
        (remove("test/1.tar"), "test/1.tar is missing: test/nshards.txt says that there are 3 shards"),
        (write("test/nshards.txt", b"many"), "has to hold the number of shards, not 'many'"),
        (write("test/nshards.txt", b"0"), "has to hold the number of shards, not '0'"),
        (write("classnames.txt", b" \n"), "classnames.txt is empty"),
        (write("classnames.txt", b"\xff\xfe"), "classnames.txt is not UTF-8 text"),
        (write("zeroshot_classification_templates.txt", b"a {c}\na {d}\n"), "line 2, has no {c}"),
        (write("dataset_type.txt", b"retrieval"), "dataset_type.txt says 'retrieval', but vtab/eurosat is of the kind"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(write_classification(tmp_path, EUROSAT, classification_samples(6, 10)))
    with pytest.raises(UserError) as error:
        open_data(EUROSAT, tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not isinstance(error.value, MissingDataError)


def test_other_kinds_of_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="wds_vtab-eurosat_test does not exist"):
        open_data(EUROSAT, tmp_path)
    write_parquet(tmp_path / EUROSAT.folder / "0.parquet", retrieval_samples(1))
    with pytest.raises(UserError, match="holds parquet files, but vtab/eurosat is read from webdataset"):
        open_data(EUROSAT, tmp_path)
    write_shards(tmp_path / FLICKR.folder, retrieval_samples(1), 1)
    with pytest.raises(UserError, match="has to say 'retrieval'"):
        open_data(FLICKR, tmp_path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "0.tar: sample k has no .cls; its members are .png"),
        ({"cls": b"cat"}, "0.tar: k.cls holds 'cat', not an integer"),
        ({"cls": b"1.0"}, "0.tar: k.cls holds '1.0', not an integer"),
        ({"cls": b""}, "0.tar: k.cls holds '', not an integer"),
        ({"cls": b"10"}, "0.tar: k.cls says 10, but there are 10 class names"),
        ({"cls": b"-1"}, "0.tar: k.cls says -1, but there are 10 class names"),
    ],
)
def test_a_wrong_label_is_refused(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    extension, image = picture(0)
    path = write_tar(tmp_path / "0.tar", [("k", {extension: image, **members})])
    with pytest.raises(UserError) as error:
        list(read_examples(path, LABEL, 10))
    assert str(error.value) == message


def test_wrong_retrieval_data_are_refused(tmp_path: Path) -> None:
    extension, image = picture(0)
    path = write_tar(tmp_path / "0.tar", [("k", {extension: image, "txt": b" \n\n"})])
    with pytest.raises(UserError, match=r"k\.txt holds no caption"):
        list(read_examples(path, CAPTIONS, 0))
    path = write_tar(tmp_path / "1.tar", [("k", {extension: image, "txt": "a café\n".encode("latin-1")})])
    with pytest.raises(UserError, match=r"1\.tar: k\.txt is not UTF-8 text: .* at byte 5"):
        list(read_examples(path, CAPTIONS, 0))
    parquet = tmp_path / "0.parquet"
    parquet.write_bytes(b"PAR1 and so on")
    with pytest.raises(UserError, match=r"0\.parquet is not a parquet file"):
        list(read_examples(parquet, CAPTIONS, 0))
    pq.write_table(pa.table({"image": [b""], "words": ["a"]}), parquet)
    with pytest.raises(UserError, match=r"has no column of captions \(caption, .*; it has image, words"):
        list(read_examples(parquet, CAPTIONS, 0))
    rows = [{"image": {"bytes": image, "path": None}, "caption": ["a"]}, {"image": None, "caption": ["b"]}]
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    first, second = read_examples(parquet, CAPTIONS, 0)
    assert isinstance(first, Example) and first.key == "0-0"
    assert second == Bad("0.parquet", "0-1", "no picture in the column 'image'")
    pq.write_table(pa.Table.from_pylist([{"image": {"bytes": image}, "caption": []}]), parquet)
    with pytest.raises(UserError, match="row 0, holds no caption"):
        list(read_examples(parquet, CAPTIONS, 0))
