"""Scoring shards: the numbers against open_clip's own, and what stands there already, kept, extended or made anew."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evalsets import MODEL, write_checkpoint
from PIL import Image
from pools import sample, uid_of, write_pool, write_tar
from runs import run_json
from scoring import REAL, run, scores_of, table_of, varied, write_varied
from test_dependencies import FILES, MODULES

from poolbench.errors import UserError
from poolbench.files import read_lines, write_json
from poolbench.models.clip import create

from curate import scorers
from curate.pool.files import list_pool, read
from curate.pool.scored import Conditions, Made, Record, ScoredShard, Scores
from curate.scorers import registry

B32 = Made("b32", ("clip_b32_similarity_score",), ("b32_img", "b32_txt"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/, 3 shards of 14 samples, model.pt and, in scores/, what scoring them gives."""
    root = write_varied(tmp_path_factory.mktemp("score"))
    assert run(root / "pool", root / "model.pt", root / "scores") == 0
    return root


# --- the numbers ---


def test_scores_are_open_clips(root: Path) -> None:
    """Row by row, each with a padded caption and open_clip's own transform."""
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(root / "model.pt"))
    tokenizer = open_clip.get_tokenizer(MODEL)
    model.eval()
    rows = table_of(root / "scores")
    assert len(rows) == 42
    for number in range(42):
        members = varied(number)
        picture = next(members[kind] for kind in ("png", "jpg", "webp") if kind in members)
        with torch.no_grad():
            image = model.encode_image(transform(Image.open(io.BytesIO(picture)))[None], normalize=True)[0].numpy()
            text = model.encode_text(tokenizer([members["txt"].decode()]), normalize=True)[0].numpy()
        row = rows[uid_of(number)]
        assert row["text"] == members["txt"].decode()
        assert abs(row["clip_b32_similarity_score"] - float(image @ text)) < 1e-5
        for stored, vector in ((row["b32_img"], image), (row["b32_txt"], text)):
            assert stored.dtype == np.float16
            np.testing.assert_allclose(stored.astype(np.float32), vector, atol=6e-4)
    assert np.ptp([row["clip_b32_similarity_score"] for row in rows.values()]) > 0.05  # a test of something


def test_scores_depend_on_the_samples_alone(root: Path, tmp_path: Path) -> None:
    assert run(root / "pool", root / "model.pt", tmp_path, batch_size=5, workers=2, part="1/2") == 0
    assert [path.stem for path in sorted(tmp_path.glob("*.parquet"))] == ["00000", "00002"]
    assert run(root / "pool", root / "model.pt", tmp_path, batch_size=14, part="2/2") == 0
    whole, parts = scores_of(root / "scores"), scores_of(tmp_path)
    assert whole.keys() == parts.keys()
    np.testing.assert_allclose([parts[uid] for uid in whole], list(whole.values()), atol=1e-6)


def test_filters_can_read_what_is_written(root: Path) -> None:
    pieces = [
        rows
        for file in list_pool(str(root / "scores"))
        for rows in read(file, ["text", "clip_b32_similarity_score", "original_width"], ["b32_img", "b32_txt"])
    ]
    assert [len(rows.table) for rows in pieces] == [14, 14, 14] and not any(rows.malformed for rows in pieces)
    for rows in pieces:
        vectors = [rows.arrays[name].astype(np.float64) for name in ("b32_img", "b32_txt")]
        stored = rows.table["clip_b32_similarity_score"].to_numpy()
        np.testing.assert_allclose((vectors[0] * vectors[1]).sum(axis=1), stored, atol=2e-3)


def test_what_a_pools_json_holds_is_kept(root: Path, tmp_path: Path) -> None:
    described = {
        "uid": uid_of(0), "url": "http://a.example/\ud800", "sha256": "ab", "original_width": 640,
        "original_height": 480.0, "face_bboxes": [[0.1, 0.2, 0.3, 0.4]], "clip_l14_similarity_score": 0.25,
        "clip_b32_similarity_score": 0.5, "caption": "not a field", "exif": "{}",
    }  # fmt: skip
    odd = {"uid": uid_of(1), "url": 7, "original_width": "wide", "original_height": 1e400, "face_bboxes": "none"}
    members = [sample(number) | {"json": json.dumps(one).encode()} for number, one in enumerate((described, odd))]
    write_tar(tmp_path / "pool" / "0.tar", [("a", members[0]), ("b", members[1])])
    assert run(tmp_path / "pool", root / "model.pt", tmp_path / "out", arch="mine") == 0
    first, second = pq.read_table(tmp_path / "out" / "0.parquet").to_pylist()
    assert first.pop("clip_mine_similarity_score") is not None
    assert first == {
        "uid": uid_of(0), "url": "http://a.example/?", "text": "red picture number 0", "sha256": "ab",
        "original_width": 640, "original_height": 480, "face_bboxes": [[0.1, 0.2, 0.3, 0.4]],
        "clip_b32_similarity_score": 0.5, "clip_l14_similarity_score": 0.25,
    }  # fmt: skip
    for name in ("url", "original_width", "original_height", "face_bboxes", "clip_l14_similarity_score"):
        assert second[name] is None


def test_a_diverged_model_is_told(root: Path, tmp_path: Path) -> None:
    state = torch.load(root / "model.pt", weights_only=True)
    state["state_dict"]["visual.proj"].fill_(float("nan"))
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(UserError, match="not finite numbers; did its training diverge"):
        run(root / "pool", tmp_path / "nan.pt", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_the_model_of_a_run_need_not_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = tmp_path / "runs" / "mine"
    checkpoint = run_folder / "checkpoints" / "step_000000009.pt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({"state_dict": create(REAL, seed=3).state_dict()}, checkpoint)
    write_json(
        run_folder / "run.json",
        {
            **run_json("mine", "tiny"),
            "recipe": {"model": REAL},
            "checkpoint": {"path": "checkpoints/step_000000009.pt", "sha256": "0" * 64},
        },
    )
    pool = write_pool(tmp_path / "pool", shards=1, per_shard=3)
    assert run(pool, run_folder, tmp_path / "a", model=None, arch=None) == 0
    assert run(pool, checkpoint, tmp_path / "b", model=None, arch=None) == 0
    assert "as vit_ti_32_64: 1 of 1 shards to score" in capsys.readouterr().out
    first, second = (pq.read_table(tmp_path / one / "00000.parquet") for one in "ab")
    assert first == second and "clip_vit_ti_32_64_similarity_score" in first.column_names


BRIGHTNESS = '''
"""How bright a picture is."""
from dataclasses import dataclass
import numpy as np
import torch
from curate.pool.scored import Identity, Made, Scores
from curate.scorers.base import Scorer, ScorerOptions
from poolbench.models.transforms import WebPixels
from poolbench.options import option
from torchvision.transforms import CenterCrop, Compose, Normalize, ToTensor

@dataclass
class Options(ScorerOptions):
    """The options."""
    side: int = option("pixels", 8)

class Brightness(Scorer):
    def __init__(self, options):
        super().__init__(options)
        self.made = Made("brightness", ("brightness", "longest"), ("colour",))
        self.identity = Identity(model="none", tag=None, sha256="", precision="fp32", options={"side": options.side})

    def load(self, device):
        self.pixels = WebPixels(Compose([CenterCrop(self.options.side), ToTensor(), Normalize([0] * 3, [1] * 3)]))
        self.tokenizer = lambda captions: torch.tensor([[len(caption)] for caption in captions])

    def score(self, batch, clock):
        with clock.on("counting"):
            colour = batch.pictures.double().mean((2, 3)).float().numpy()
        columns = {"brightness": colour.mean(1), "longest": batch.tokens[:, 0].float().numpy()}
        return Scores(columns, {"colour": colour})
'''


def test_a_scorer_is_one_file(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "brightness.py").write_text(BRIGHTNESS)
    monkeypatch.setattr(scorers, "__path__", [*scorers.__path__, str(tmp_path / "modules")])
    assert registry.names() == ["attributes", "brightness", "clip_similarity", "hyperbolic", "targets"]
    own: dict[str, Any] = {"scorer": "brightness", "model": None, "arch": None}
    out = tmp_path / "out"
    shutil.copytree(root / "scores", out)
    assert run(root / "pool", None, out, **own, side=4, batch_size=5) == 0
    assert "none as brightness: 3 of 3 shards to score, cpu" in capsys.readouterr().out
    before, after = table_of(root / "scores"), table_of(out)
    for number in range(42):
        members = varied(number)
        data = next(members[kind] for kind in ("png", "jpg", "webp") if kind in members)
        picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float64)
        top, left = (round((side - 4) / 2) for side in picture.shape[:2])
        colour = picture[top : top + 4, left : left + 4].mean((0, 1))
        row = after[uid_of(number)]
        np.testing.assert_allclose(row.pop("colour"), colour, rtol=1e-3)
        assert row.pop("brightness") == pytest.approx(colour.mean(), rel=1e-6)
        assert row.pop("longest") == len(members["txt"])
        assert row.keys() == before[uid_of(number)].keys()
        assert all(np.array_equal(row[name], value) for name, value in before[uid_of(number)].items())
    assert run(root / "pool", None, out, **own, side=4) == 0
    assert "0 of 3 shards to score" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds scores of another options"):
        run(root / "pool", None, out, **own)
    assert run(root / "pool", root / "model.pt", out) == 0
    assert "0 of 3 shards to score" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown key 'side'"):
        run(root / "pool", root / "model.pt", out, side=4)


# --- what stands there already ---


def test_finished_shards_are_found_again_and_damaged_ones_made_anew(root: Path, tmp_path: Path) -> None:
    assert run(root / "pool", root / "model.pt", tmp_path) == 0
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()}
    assert run(root / "pool", root / "model.pt", tmp_path) == 0
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()} == before
    (tmp_path / "00001.npz").write_bytes(before[tmp_path / "00001.npz"][1][:-40])
    (tmp_path / "00002.parquet").unlink()
    assert run(root / "pool", root / "model.pt", tmp_path) == 0
    after = {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()}
    assert {path.name for path in after if after[path][0] != before[path][0]} == {
        f"0000{shard}.{kind}" for shard in (1, 2) for kind in ("npz", "parquet")
    }
    assert scores_of(tmp_path) == pytest.approx(scores_of(root / "scores"), abs=1e-6)


def test_other_scores_are_not_replaced_unless_told(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(root / "pool", root / "model.pt", out) == 0
    ours = table_of(out)
    other = write_checkpoint(tmp_path / "other.pt", seed=1)
    with pytest.raises(UserError, match=r"00000\.parquet holds scores of another checkpoint; choose another arch="):
        run(root / "pool", other, out)
    with pytest.raises(UserError, match="scores of another precision"):
        run(root / "pool", root / "model.pt", out, precision="amp_bf16")
    assert run(root / "pool", other, out, arch="other") == 0
    both = table_of(out)
    for uid, row in ours.items():
        assert both[uid]["clip_b32_similarity_score"] == row["clip_b32_similarity_score"]
        assert (both[uid]["b32_img"] == row["b32_img"]).all() and both[uid]["other_img"].shape == (64,)
    assert run(root / "pool", other, out, overwrite="true") == 0
    replaced = table_of(out)
    for row in replaced.values():
        assert row["clip_b32_similarity_score"] == pytest.approx(row["clip_other_similarity_score"], abs=1e-6)
    assert ours.keys() == replaced.keys()


def test_published_metadata_of_the_same_samples_are_extended(root: Path, tmp_path: Path) -> None:
    """Its columns stay; with scores of its own under the same name they are safe, and so are other samples."""
    table = pq.read_table(root / "scores" / "00000.parquet").replace_schema_metadata(None)
    table = table.append_column("extra", pa.array(range(14)))
    pq.write_table(table, tmp_path / "00000.parquet")
    shard = root / "pool" / "00000.tar"
    with pytest.raises(UserError, match="a column clip_b32_similarity_score that was not made here"):
        run(shard, root / "model.pt", tmp_path)
    assert run(shard, root / "model.pt", tmp_path, arch="mine") == 0
    extended = pq.read_table(tmp_path / "00000.parquet")
    assert extended["extra"].to_pylist() == list(range(14))
    assert extended["clip_mine_similarity_score"].to_pylist() == pytest.approx(
        table["clip_b32_similarity_score"].to_pylist()
    )

    other = tmp_path / "other"
    pq.write_table(table.slice(1).drop_columns("clip_b32_similarity_score"), other.mkdir() or other / "00000.parquet")
    content = (other / "00000.parquet").read_bytes()
    assert run(shard, root / "model.pt", other) == 1
    assert "is of other samples" in read_lines(other / "bad_samples.jsonl")[0]["reason"]
    assert (other / "00000.parquet").read_bytes() == content
    (other / "demo.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"demo.parquet is metadata of no shard of shards="):
        run(shard, root / "model.pt", other)


def test_a_crash_between_the_two_files_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(seed: int) -> Record:
        images, texts = np.random.default_rng(seed).normal(size=(2, 3, 4)).astype(np.float32)
        record = Record(conditions=conditions(sha256=str(seed)), rows=3, bad=[])
        scores = Scores({B32.columns[0]: (images * texts).sum(1)}, {"b32_img": images, "b32_txt": texts})
        ScoredShard(tmp_path, "x").write(B32, rows, scores, record)
        return record

    rows = [{"uid": uid_of(number), "text": "t"} for number in range(3)]
    files = ScoredShard(tmp_path, "x")
    assert write(1) == files.record(B32)
    vectors = np.load(files.npz)["b32_img"]
    replace = ScoredShard._replace
    calls: list[int] = []

    def second_fails(self: ScoredShard, table: pa.Table, records: dict[str, Any]) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("power cut")
        replace(self, table, records)

    monkeypatch.setattr(ScoredShard, "_replace", second_fails)
    with pytest.raises(OSError, match="power cut"):
        write(2)
    assert (np.load(files.npz)["b32_img"] != vectors).any()  # the new vectors are there, and no old score beside them
    assert files.record(B32) is None
    assert pq.read_table(files.parquet)["clip_b32_similarity_score"].null_count == 3
    monkeypatch.undo()
    assert write(2) == files.record(B32)


def conditions(**changes: Any) -> Conditions:
    return Conditions(**{"model": "m", "tag": None, "sha256": "0", "precision": "fp32", "size": 7, **changes})


def test_what_differs_is_named_and_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    """The oldest records have no conventions, and no record has options where there are none."""
    files = ScoredShard(tmp_path, "x")
    stored = {
        "conditions": {"model": "m", "tag": None, "sha256": "0", "precision": "fp32", "size": 7},
        "rows": 1,
        "bad": [["", "cut"]],
    }
    table = pa.table({"uid": [uid_of(0)], B32.columns[0]: pa.array([0.5], pa.float32())})

    def store(record: dict[str, Any]) -> None:
        metadata = {b"poolbench.scores": json.dumps({"b32": record}).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), files.parquet)

    store(stored)
    np.savez(files.npz, b32_img=np.zeros((1, 2), np.float16), b32_txt=np.zeros((1, 2), np.float16))
    assert files.record(B32) == Record(conditions=conditions(), rows=1, bad=[("", "cut")])
    assert files.in_the_way(B32, conditions()) == ""
    changed = conditions(options={"mask": "text"}, precision="amp_bf16")
    assert files.in_the_way(B32, changed) == "scores of another precision and options"
    assert files.in_the_way(B32, conditions(size=8)) == "scores of another content of the shard"
    for broken in ({**stored, "shards": 1}, {**stored, "rows": "many"}, {"rows": 1}):
        store(broken)
        with pytest.raises(
            UserError, match=r"x\.parquet: its record of the scores b32 is of another version"
        ) as caught:
            files.record(B32)
        assert "\n" not in str(caught.value)


def test_one_module_writes_a_pools_columns() -> None:
    """What else of curate writes parquet files, and why they are no pool's columns."""
    others = {
        "curate.pool.scored": "the metadata of scored shards, a pool of its own",
        "curate.pack.shard": "the metadata of packed shards, a pool of its own",
        "curate.pack.plan": "which picture and caption goes into which shard, for the packing itself",
        "curate.download.images": "the list of what became of each url, beside its shard",
        "curate.scorers.attribute_table": "a table of attributes by uid, which an audit takes",
    }
    writing = re.compile(r"\bpq\.(write_table|ParquetWriter|write_to_dataset)|\bto_parquet\b")
    found = {
        module
        for module in MODULES
        if module.startswith("curate") and writing.search(FILES[module].read_text(encoding="utf-8"))
    }
    assert found == {"curate.pool.columns", *others}
