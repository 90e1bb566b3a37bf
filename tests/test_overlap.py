"""Which training pictures show evaluation pictures: hashes and distances against plain computations, planted copies,
what is left out, and what is refused."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalsets import encoded, write_classification, write_retrieval
from PIL import Image, ImageOps
from pools import uid_of, write_tar
from scipy import fft

from poolbench.errors import UserError, status_of
from poolbench.files import digest_file, read_json
from poolbench.uids import uid_text, write_subset

from curate import overlap
from curate.overlaps import calibrate, embedded, hashes, pictures, search, sets
from curate.pool.embedded import EmbeddedShard, Plan, begin
from curate.pool.scored import Conditions, Identity, Made, Record, Scores
from tasks.readers import digest_of, open_data
from tasks.registry import load_tasks

TASKS = load_tasks()
FIRST, SECOND = TASKS["vtab/eurosat"], TASKS["vtab/dtd"]
Samples = list[tuple[str, dict[str, bytes]]]


def image(number: int, width: int = 132, height: int = 118) -> Image.Image:
    """A picture of patches, another one for each number."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def training(number: int, picture: Image.Image | None = None, form: str = "PNG", **more: Any) -> dict[str, bytes]:
    """The members of a training sample."""
    data = encoded(image(1000 + number) if picture is None else picture, form, **more)
    uid = json.dumps({"uid": uid_of(number)}).encode()
    return {"png" if form == "PNG" else "jpg": data, "txt": f"caption {number}".encode(), "json": uid}


def write_sets(root: Path, count: int = 12) -> None:
    """Two sets of `count` pictures each, of the numbers from 0 and from 500 on."""
    for task, first in ((FIRST, 0), (SECOND, 500)):
        samples: Samples = [(f"s{n:04d}", {"png": encoded(image(first + n), "PNG"), "cls": b"0"}) for n in range(count)]
        write_classification(root, task, samples, shards=2, classes=2)


def run(root: Path, *words: str, out: str = "leak") -> tuple[int, dict[str, Any], list[dict[str, str]]]:
    """`python -m curate.overlap` in this process; its exit status, overlap.json and hits.csv. Mistakes raise."""
    known = [f"shards={root}/pool", f"data={root}/sets", f"out={root}/{out}.npy", "workers=0"]
    given = {word.partition("=")[0] for word in words}
    status = overlap.COMMAND.answer([*(word for word in known if word.partition("=")[0] not in given), *words])
    with (root / out / "hits.csv").open(newline="") as file:
        return status, read_json(root / out / "overlap.json"), list(csv.DictReader(file))


def uids_in(path: Path) -> list[str]:
    found = np.load(path)
    assert found.dtype == np.dtype("u8,u8") and (np.sort(found) == found).all()
    return [uid_text(one) for one in found]


def test_a_hash_is_the_signs_of_low_frequencies() -> None:
    for number in range(5):
        small = image(number).convert("L").resize((64, 64), Image.Resampling.LANCZOS)
        low = fft.dctn(np.asarray(small, float), 2)[:16, :16]
        expected = np.packbits((low > np.median(low)).ravel())
        found = hashes.hash_of(image(number).convert("L"))
        np.testing.assert_array_equal(found, expected)
        probes = hashes.probes_of(image(number).convert("L"))
        assert probes.shape == (hashes.PROBES, hashes.BYTES)
        np.testing.assert_array_equal(probes[0], expected)
        mirrored = hashes.hash_of(ImageOps.mirror(image(number)).convert("L"))
        assert hashes.distances(mirrored, probes[len(hashes.CROPS)]) <= 2  # resized, then mirrored


def test_distances_are_those_of_plain_python() -> None:
    rng = np.random.default_rng(0)
    one, others = rng.integers(0, 256, 32, np.uint8), rng.integers(0, 256, (3, 4, 32), np.uint8)
    number = int.from_bytes(one.tobytes(), "big")
    expected = [[(number ^ int.from_bytes(o.tobytes(), "big")).bit_count() for o in row] for row in others]
    assert hashes.distances(one, others).tolist() == expected


@pytest.mark.parametrize("flat", [True, False])
def test_an_index_finds_all_that_is_near(flat: bool) -> None:
    rng = np.random.default_rng(1)
    probes = rng.integers(0, 256, (300, 32), np.uint8)
    owners = np.repeat(np.arange(100, dtype=np.int32), 3)
    asked, far = [], []
    for number in range(200):  # each some bits away from one of them
        bits = np.unpackbits(probes[number])
        bits[rng.choice(256, number % 45, replace=False)] ^= 1
        asked.append(np.packbits(bits))
        far.append(number % 45)
    near = search.Index(probes, owners, flat).near(np.stack(asked))
    every = [
        (row, int(owners[p]), int(hashes.distances(hash_, probes[p])))
        for row, hash_ in enumerate(asked)
        for p in range(300)
    ]
    expected: dict[tuple[int, int], int] = {}
    for row, owner, distance in every:
        if distance <= search.MOST:
            expected[row, owner] = min(distance, expected.get((row, owner), 999))
    found = dict(zip(zip(near.row.tolist(), near.picture.tolist(), strict=True), near.distance.tolist(), strict=True))
    assert found == expected and len(expected) >= sum(one <= search.MOST for one in far)


def test_planted_copies_are_found_as_often_as_stated(tmp_path: Path) -> None:
    """Every edit of every evaluation picture is planted; others are not hits."""
    write_sets(tmp_path / "sets", 6)
    planted: dict[str, str] = {}
    number, samples = 0, []
    for name, edit in calibrate.EDITS.items():
        for picture in (*range(6), *range(500, 506)):
            samples.append((f"{number:06d}", training(number, edit(image(picture)))))
            planted[uid_of(number)] = name
            number += 1
    others = [(f"{number + n:06d}", training(number + n)) for n in range(40)]
    write_tar(tmp_path / "pool" / "0.tar", samples)
    write_tar(tmp_path / "pool" / "1.tar", others)
    status, report, hits = run(tmp_path)
    assert status == 0
    found = {hit["uid"] for hit in hits}
    assert found <= planted.keys() and uids_in(tmp_path / "leak.npy") == sorted(found)
    by = report["by_hash"]
    assert by["positives"] == 12 and by["false_positives"] == 0.0 and by["distance"] == search.MOST
    for edit in by["edits"]:
        mine = [uid for uid, name in planted.items() if name == edit["name"]]
        assert edit["recall"] == pytest.approx(sum(uid in found for uid in mine) / 12), edit["name"]
    recalls = {edit["name"]: edit["recall"] for edit in by["edits"]}
    assert recalls.pop("10 % cut off each side") < 0.5  # a test that all are found would prove nothing
    assert recalls.pop("brighter by a fifth") < 1  # these pictures are so bright that whites are cut off
    assert min(recalls.values()) > 0.7 and recalls["mirrored"] == recalls["JPEG, quality 75"] == 1
    assert report["samples"] == len(samples) + 40 and report["found"] == len(found) and report["left_out"] == 0
    page = (tmp_path / "leak" / "index.html").read_text()
    assert page.count("data:image/jpeg") == 60 and "<script" not in page and "http" not in page.split("</style>")[1]


def test_a_hit_names_both_pictures_and_its_distance(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    copy = ImageOps.mirror(image(3))
    write_tar(
        tmp_path / "pool" / "a" / "0.tar",
        [("0", training(0)), ("1", training(1, copy, "JPEG", quality=80)), ("2", training(2, image(507)))],
    )
    status, report, hits = run(tmp_path, "distance=20")
    assert status == 0 and report["by_hash"]["chosen"] and report["by_hash"]["distance"] == 20
    assert [(hit["uid"], hit["set"], hit["evaluation_shard"].split("/")[-1], hit["key"]) for hit in hits] == sorted(
        [(uid_of(1), FIRST.folder, "0.tar", "s0003"), (uid_of(2), SECOND.folder, "1.tar", "s0007")]
    )
    of = {hit["uid"]: hit for hit in hits}
    assert of[uid_of(2)]["distance"] == "0" and of[uid_of(1)]["shard"] == "a_0" and of[uid_of(2)]["cosine"] == ""
    jpeg = Image.open(io.BytesIO(encoded(copy, "JPEG", quality=80))).convert("L")
    probes = hashes.probes_of(image(3).convert("L"))
    assert int(of[uid_of(1)]["distance"]) == hashes.distances(hashes.hash_of(jpeg), probes).min()


def test_digests_of_sets_are_those_of_evaluation(tmp_path: Path) -> None:
    write_sets(tmp_path)
    captions = TASKS["retrieval/flickr_1k_test_image_text_retrieval"]
    write_retrieval(tmp_path, captions, [("a", {"png": encoded(image(0), "PNG"), "txt": b"a dog"})], shards=1)
    (tmp_path / "no_set").mkdir()
    found = {one.name: one for one in sets.sets_in(tmp_path)}
    assert found.keys() == {FIRST.folder, SECOND.folder, captions.folder}
    for task in (FIRST, SECOND, captions):
        data = open_data(task, tmp_path)
        shards = {data.name_of(path): digest_file(path) for path in data.shards}
        assert found[task.folder].digest() == data.digest(shards)
    several = TASKS["voc2007_multilabel"]
    (tmp_path / several.folder).mkdir()
    for name, text in (("classnames.txt", "cat"), ("zeroshot_classification_templates.txt", "{c}")):
        (tmp_path / several.folder / name).write_text(text)
    table = pa.table({"image": [encoded(image(1), "PNG")], "labels": [["cat"]]})
    for split in ("test", "train"):
        pq.write_table(table, tmp_path / several.folder / f"{split}-00000-of-00001.parquet")
    data = open_data(several, tmp_path)
    expected = data.digest({data.name_of(path): digest_file(path) for path in data.shards})
    assert next(one for one in sets.sets_in(tmp_path) if one.name == several.folder).digest() == expected


def test_pictures_of_parquet_files_are_looked_for(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    puzzles, pairs = tmp_path / "sets" / "winogavil", tmp_path / "sets" / "flickr"
    puzzles.mkdir()
    pairs.mkdir()
    data = [encoded(image(600 + number), "PNG") for number in range(4)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    lists = pa.array([[{"bytes": data[0], "path": None}, {"bytes": data[1], "path": None}]], pa.list_(struct))
    pq.write_table(pa.table({"candidate_images": lists, "cue": ["a"]}), puzzles / "0.parquet")
    pq.write_table(pa.table({"image": pa.array(data[2:], pa.binary()), "caption": ["a", "b"]}), pairs / "0.parquet")
    two = tmp_path / "sets" / "winoground"
    two.mkdir()
    for split, first in (("test", 604), ("train", 606)):  # the latter is not what is evaluated
        columns = {f"image_{place}": [encoded(image(first + place), "PNG")] for place in range(2)}
        pq.write_table(pa.table(columns), two / f"{split}-00000-of-00001.parquet")
    found = {one.name: one for one in sets.sets_in(tmp_path / "sets")}
    assert found["winogavil"].digest() == digest_of({"0.parquet": digest_file(puzzles / "0.parquet")})
    numbers = [600, 601, 602, 603, 604, 605]
    write_tar(tmp_path / "pool" / "0.tar", [(str(n), training(n, image(n))) for n in [*numbers, 606, 607]])
    status, report, hits = run(tmp_path)
    assert status == 0 and {hit["uid"] for hit in hits} == {uid_of(n) for n in numbers}
    counts = {one["name"]: one["pictures"] for one in report["sets"]}
    assert counts["winogavil"] == counts["winoground"] == 2


def test_both_pictures_of_a_pair_are_looked_for(tmp_path: Path) -> None:
    folder = tmp_path / "sets" / TASKS["winoground"].folder
    pair = {
        n: {"0.png": encoded(image(n), "PNG"), "1.jpg": encoded(image(n + 1), "JPEG"), "txt": b"a b\nb a"}
        for n in (610, 612)
    }
    write_tar(folder / "test" / "0.tar", [(f"s{n}", members) for n, members in pair.items()])
    for name, text in (("dataset_type.txt", "winoground\n"), ("test/nshards.txt", "1\n"), ("classnames.txt", "a\n")):
        (folder / name).write_text(text)
    write_tar(tmp_path / "pool" / "0.tar", [(str(n), training(n, image(n))) for n in range(610, 616)])
    status, report, hits = run(tmp_path)
    assert status == 0 and report["left_out"] == 0 and [one["pictures"] for one in report["sets"]] == [4]
    keys = ("s610-00", "s610-01", "s612-00", "s612-01")
    assert {hit["uid"]: hit["key"] for hit in hits} == {uid_of(610 + place): key for place, key in enumerate(keys)}
    data = open_data(TASKS["winoground"], folder.parent)
    expected = data.digest({data.name_of(path): digest_file(path) for path in data.shards})
    assert sets.sets_in(folder.parent)[0].digest() == expected


def test_a_pair_without_a_picture_is_left_out_and_a_damaged_tar_of_pairs_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "sets" / "winoground"
    members = {"0.png": encoded(image(620), "PNG"), "txt": b"a b\nb a"}
    tar = folder / "test" / "0.tar"
    write_tar(tar, [("s0", {**members, "1.png": encoded(image(621), "PNG")}), ("s1", members)])
    (folder / "dataset_type.txt").write_text("winoground\n")
    (folder / "test" / "nshards.txt").write_text("1\n")
    write_tar(tmp_path / "pool" / "0.tar", [("0", training(0, image(621)))])
    status, report, hits = run(tmp_path)
    assert status == 1 and [(one["pictures"], one["left_out"]) for one in report["sets"]] == [(3, 1)]
    assert [hit["key"] for hit in hits] == ["s0-01"]
    tar.write_bytes(tar.read_bytes()[:-9000])
    with pytest.raises(UserError, match=rf"^{tar}: "):
        run(tmp_path)


def test_what_cannot_be_looked_at_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sets(tmp_path / "sets")
    broken = training(1) | {"png": b"\x89PNG broken"}
    without = {name: data for name, data in training(2).items() if name != "json"}
    write_tar(tmp_path / "pool" / "0.tar", [("a", training(0, image(2))), ("b", broken), ("c", without)])
    torn = write_tar(tmp_path / "pool" / "1.tar", [(f"d{n}", training(5 + n)) for n in range(3)])
    torn.write_bytes(torn.read_bytes()[: -12 * 1024])
    blank = [("blank", {"png": encoded(Image.new("RGB", (50, 50), "white"), "PNG"), "cls": b"0"})]
    bad = [("bad", {"png": b"no picture", "cls": b"0"})]
    write_classification(tmp_path / "sets", TASKS["vtab/pets"], [*blank, *bad], shards=1, classes=1)
    status, report, hits = run(tmp_path)
    assert status == 1 and [hit["uid"] for hit in hits] == [uid_of(0)]
    left = [json.loads(line) for line in (tmp_path / "leak" / "left_out.jsonl").read_text().splitlines()]
    told = {(one["shard"], one["key"]): one["reason"] for one in left}
    assert "cannot be decoded" in told["0", "b"] and told["0", "c"] == "no .json with a uid"
    assert any(shard == "1" and ("cut off" in reason or "mark" in reason) for (shard, _), reason in told.items())
    pets = next(one for one in report["sets"] if one["name"] == TASKS["vtab/pets"].folder)
    assert (pets["pictures"], pets["blank"], pets["left_out"]) == (1, 1, 1)
    assert report["left_out"] == len(left) - 1
    assert "left out: 0 b: image cannot be decoded" in capsys.readouterr().err
    assert (tmp_path / "leak.npy.work").is_dir()  # kept, as something is to be mended
    write_tar(tmp_path / "pool" / "2.tar", [("e", training(9))])
    words = [f"shards={tmp_path}/pool", f"data={tmp_path}/sets", f"out={tmp_path}/leak.npy", "workers=0"]
    assert [overlap.COMMAND.answer([*words, f"part={part}/3"]) for part in (1, 2, 3)] == [1, 1, 0]


def test_hashes_are_made_once_whatever_the_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sets(tmp_path / "sets")
    for shard in range(3):
        samples = [(str(n), training(n, image(n) if n % 4 == 0 else None)) for n in range(10 * shard, 10 * shard + 8)]
        write_tar(tmp_path / "pool" / f"{shard}.tar", samples)
    _, whole, hits = run(tmp_path, out="whole")
    work = f"work={tmp_path}/kept"
    for part in (2, 1):
        words = [f"shards={tmp_path}/pool", f"data={tmp_path}/sets", f"out={tmp_path}/parts.npy", work, "workers=0"]
        assert overlap.COMMAND.answer([*words, f"part={part}/2"]) == 0
    assert not (tmp_path / "parts.npy").exists()
    capsys.readouterr()
    _, parts, same = run(tmp_path, work, out="parts")
    assert "hashes of training pictures: 0 of 3 shards to score" in capsys.readouterr().out
    assert parts == whole and same == hits and [hit for hit in hits if hit["distance"] == "0"]
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert (tmp_path / "kept").is_dir() and not (tmp_path / "whole.npy.work").exists()
    write_tar(tmp_path / "pool" / "1.tar", [("x", training(99, image(1))), ("y", training(98))])
    _, changed, hits = run(tmp_path, work, out="parts")
    assert changed["samples"] == 18 and uid_of(99) in {hit["uid"] for hit in hits}
    assert not any(hit["shard"] == "1" and hit["uid"] != uid_of(99) for hit in hits)


def test_only_the_samples_of_a_subset_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sets(tmp_path / "sets")
    write_tar(tmp_path / "pool" / "0.tar", [(str(n), training(n, image(n))) for n in range(6)])
    write_subset(tmp_path / "some.npy", [uid_of(1), uid_of(1), uid_of(4), uid_of(77)])
    _, report, hits = run(tmp_path, f"subset={tmp_path}/some.npy")
    assert {hit["uid"] for hit in hits} == {uid_of(1), uid_of(4)} and report["samples"] == 2
    assert report["subset"] == {"digest": digest_file(tmp_path / "some.npy"), "size": 4}
    assert "some.npy: 1 of its 3 uids are in no shard that was looked at" in capsys.readouterr().err
    write_subset(tmp_path / "other.npy", [uid_of(77), uid_of(78)])
    with pytest.raises(UserError, match="2 of its 2 uids are in no shard that was looked at; is it of another pool"):
        run(tmp_path, f"subset={tmp_path}/other.npy")


def test_no_hit_is_an_empty_subset(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    write_tar(tmp_path / "pool" / "0.tar", [(str(n), training(n)) for n in range(6)])
    status, report, hits = run(tmp_path)
    assert (status, report["found"], report["shown"], hits) == (0, 0, 0, []) and uids_in(tmp_path / "leak.npy") == []


def test_embeddings_find_what_hashes_do_not(tmp_path: Path) -> None:
    write_sets(tmp_path / "sets")
    write_tar(tmp_path / "pool" / "0.tar", [(str(n), training(n, image(1) if n == 1 else None)) for n in range(6)])
    rng = np.random.default_rng(0)
    of = {task.folder: rng.normal(size=(12, 16)) for task in (FIRST, SECOND)}
    identity = Identity(model="ViT-B-32", tag=None, sha256="a" * 64, precision="fp32", options={"dtype": "float32"})
    names = [(folder, shard) for folder in of for shard in (0, 1)]
    tars = {f"{f}_test_{s}": tmp_path / "sets" / f / "test" / f"{s}.tar" for f, s in names}
    sizes = {name: tar.stat().st_size for name, tar in tars.items()}
    begin(tmp_path / "targets", Plan(made=identity, shards=sizes, tests=["x"]), False)
    for (folder, number), (name, size) in zip(names, sizes.items(), strict=True):
        rows = of[folder][6 * number : 6 * number + 6]
        record = Record(conditions=Conditions(**identity.model_dump(), size=size), rows=6, bad=[])
        scores = Scores({}, {"targets": rows})
        EmbeddedShard(tmp_path / "targets", name).write(Made("targets", (), ("targets",)), [], scores, record)
    vectors = rng.normal(size=(6, 16)).astype(np.float32)
    vectors[4] = 3 * (of[SECOND.folder][8] + 0.05 * rng.normal(size=16))
    vectors[1] = of[FIRST.folder][1]
    (tmp_path / "meta").mkdir()
    pq.write_table(pa.table({"uid": [uid_of(n) for n in range(6)]}), tmp_path / "meta" / "0.parquet")
    np.savez(tmp_path / "meta" / "0.npz", b32_img=vectors.astype(np.float16))
    words = [f"embeddings={tmp_path}/targets", f"pool={tmp_path}/meta"]
    _, report, _ = run(tmp_path, *words)
    every = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in of.items()}
    between = every[FIRST.folder] @ every[SECOND.folder].T
    by = report["by_embedding"]
    assert by["cosine"] == pytest.approx(between.max(), abs=1e-5) and by["false_positives"] == 0
    words.append("cosine=0.95")
    status, report, hits = run(tmp_path, *words)
    assert status == 0 and report["by_embedding"]["pictures"] == 24 and report["by_embedding"]["samples"] == 6
    rows = {(hit["uid"], hit["set"], hit["key"]): (hit["distance"], float(hit["cosine"])) for hit in hits}
    assert rows.keys() == {(uid_of(1), FIRST.folder, "s0001"), (uid_of(4), SECOND.folder, "s0008")}
    both, alone = rows[uid_of(1), FIRST.folder, "s0001"], rows[uid_of(4), SECOND.folder, "s0008"]
    target = of[SECOND.folder][8]
    cosine = vectors[4] @ target / np.linalg.norm(vectors[4]) / np.linalg.norm(target)
    assert both == ("0", pytest.approx(1, abs=1e-3)) and alone == ("", pytest.approx(cosine, abs=1e-3))
    with pytest.raises(UserError, match=r"b32_img is \[6, 12\], embeddings= has 16 columns"):
        np.savez(tmp_path / "meta" / "0.npz", b32_img=vectors[:, :12].astype(np.float16))
        run(tmp_path, *words)


def test_sets_with_pictures_in_common_are_one_family(tmp_path: Path) -> None:
    """Else the same picture of another set would count as a false positive."""
    set_of = np.array([0, 0, 1, 1, 2, 3], np.int32)
    content = np.array([7, 8, 8, 9, 10, 9], np.uint64)
    assert pictures._families(set_of, content, 4).tolist() == [0, 0, 2, 0]


def test_the_cosine_follows_from_other_pictures() -> None:
    others = np.array([0.9, 0.2, 0.5, 0.7])
    for most, expected in ((0, 0.9), (0.24, 0.9), (0.25, 0.7), (0.5, 0.5), (0.99, 0.2)):
        found = embedded.least_cosine(others, most)
        assert found == pytest.approx(expected, abs=1e-5) and (others >= found).mean() <= most
    assert embedded.least_cosine(np.ones(3), 0) == embedded.least_cosine(np.zeros(0), 0) < 1


def test_the_distance_follows_from_other_pictures() -> None:
    others = np.array([5, 12, 12, 30, *([33] * 96)])
    assert calibrate.threshold(others, 0.0, None) == (4, 0.0)
    assert calibrate.threshold(others, 0.01, None) == (11, 0.01)
    assert calibrate.threshold(others, 0.03, None) == (29, 0.03)
    assert calibrate.threshold(others, 0.5, None) == (search.MOST, 0.04)
    assert calibrate.threshold(others, 0.0, 20) == (20, 0.03)
    assert calibrate.threshold(np.array([0, 0, 33]), 0.1, None) == (0, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=nowhere"], "data=nowhere is no folder"),
        (["data=pool"], "data=pool holds no evaluation set"),
        (["shards=nowhere"], "shards=nowhere does not exist"),
        (["out=leak"], "out=leak must end in .npy"),
        (["distance=40"], "distance=40: from 0 to 32"),
        (["false_positives=2"], "false_positives=2.0 is no share"),
        (["cosine=3"], "cosine=3.0"),
        (["samples=0"], "samples=0"),
        (["part=3/2"], "part=3/2 is not i/n"),
        (["weights=[a]"], "weights=['a'] are no numbers"),
        (["workers=-1"], "workers=-1"),
        (["embeddings=sets"], "embeddings= and pool= belong together"),
        (["embeddings=sets", "pool=pool"], "embeddings=sets has no targets.json"),
        (["subset=pool/0.tar"], "subset pool/0.tar is no .npy"),
        (["data=latin"], "nshards.txt has to hold the number of shards"),
        (["shards=empty"], "no sample can be looked at; no .json with a uid"),
        (["data=bad"], "data= holds no picture that can be looked for"),
        (["data=short"], "1.tar is missing"),
        (["data=uncounted"], "nshards.txt has to hold the number of shards"),
        (["shard=pool"], "unknown key 'shard'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told(
    words: Sequence[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sets(tmp_path / "sets", 2)
    write_tar(tmp_path / "pool" / "0.tar", [("0", training(0))])
    write_tar(tmp_path / "empty" / "0.tar", [("0", {"png": training(0)["png"]})])
    write_classification(tmp_path / "bad", FIRST, [("a", {"png": b"none", "cls": b"0"})], shards=1, classes=1)
    for name, text in (("short", b"2"), ("uncounted", b""), ("latin", b"\xb2")):
        write_classification(tmp_path / name, FIRST, [("a", training(1))], shards=1, classes=1)
        (tmp_path / name / FIRST.folder / "test" / "nshards.txt").write_bytes(text)
    known = {"shards": "pool", "data": "sets", "out": "leak.npy", "workers": "0"}
    given = dict(word.split("=", 1) for word in words)
    arguments = [f"{key}={value}" for key, value in {**known, **given}.items()]
    assert status_of(lambda: overlap.COMMAND.answer(arguments)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said in line and not (tmp_path / "leak.npy").exists()


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(UserError, match=re.escape("imagehash is missing; pip install 'poolbench[overlap]'")):
        hashes.check_installed()
