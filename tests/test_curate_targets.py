"""Targets of selections from sets in the tasks' layout: their embeddings against open_clip's own, the folder that they
lie in, and what selections make of one folder, of several, and of evaluation pictures."""

import io
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import forked
import numpy as np
import open_clip
import pytest
import torch
from evalsets import MODEL, classification_samples, encoded, pair_samples, picture, write_checkpoint
from metadata import columns_of, write_file
from PIL import Image
from pools import write_pool, write_tar
from scoring import HOLDING, REAL
from selecting import SMALL, curate, selected
from waiting import until

from poolbench.errors import UserError, status_of
from poolbench.files import read_json, read_lines, write_json
from poolbench.models.clip import create
from poolbench.shards.pictures import rgb

from curate import score
from curate.models.targets import name_of, named, ordered, targets_of

WIDTH = 64  # of the small model's embeddings


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))


def embed(shards: Any, checkpoint: Path, out: Path, **options: Any) -> int:
    """`python -m curate.score scorer=targets` in this process; mistakes raise."""
    known = {"scorer": "targets", "checkpoint": checkpoint, "model": MODEL, "shards": shards, "out": out, "workers": 0}
    before, sys.argv = sys.argv, ["score", *(f"{key}={value}" for key, value in {**known, **options}.items())]
    try:
        return score.main()
    finally:
        sys.argv = before


def write_set(folder: Path, count: int, shards: int = 2, split: str = "train", seed: int = 0) -> Path:
    """A split as tasks export writes it: pictures of every kind with labels, and nothing else."""
    samples = classification_samples(count, 3, seed)
    for number in range(shards):
        write_tar(folder / split / f"{number}.tar", samples[number::shards])
    (folder / split / "nshards.txt").write_text(f"{shards}\n")
    return folder / split


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.pt, sets/ of two training sets and a test set, and a/ and b/, embeddings of the former."""
    root = tmp_path_factory.mktemp("made")
    write_checkpoint(root / "model.pt")
    for number, name in enumerate("ab"):
        train = write_set(root / "sets" / f"wds_{name}_test", 9 + number, seed=number)
        assert embed(train, root / "model.pt", root / name) == 0
    write_set(root / "sets" / "wds_a_test", 4, split="test", seed=5)
    return root


def vectors_of(folder: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])


def test_embeddings_are_open_clips(made: Path, tmp_path: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(made / "model.pt"))
    model.eval()
    samples, rows = classification_samples(9, 3, 0), []
    for _, members in [*samples[0::2], *samples[1::2]]:
        data = next(value for name, value in members.items() if name != "cls")
        with torch.no_grad():
            image = transform(rgb(Image.open(io.BytesIO(data))))[None]
            rows.append(model.encode_image(image, normalize=True)[0].numpy())
    assert embed(made / "sets/wds_a_test/train", made / "model.pt", tmp_path / "32", dtype="float32", batch_size=2) == 0
    assert sorted(path.name for path in (tmp_path / "32").iterdir()) == [
        "targets.json", *(f"wds_a_test_train_{n}.npy{end}" for n in (0, 1) for end in ("", ".json")),
    ]  # fmt: skip
    np.testing.assert_allclose(vectors_of(tmp_path / "32"), np.stack(rows), atol=1e-5)
    assert vectors_of(made / "a").dtype == np.float16
    np.testing.assert_array_equal(vectors_of(made / "a"), vectors_of(tmp_path / "32").astype(np.float16))
    record = read_json(made / "a" / "wds_a_test_train_0.npy.json")
    size = (made / "sets/wds_a_test/train/0.tar").stat().st_size
    assert record["rows"] == 5 and record["conditions"]["size"] == size and record["conventions"]["activation"]
    assert record["conditions"]["options"] == {"dtype": "float16"} and len(record["conditions"]["sha256"]) == 64


def test_both_pictures_of_a_pair_are_embedded(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [members for _, members in pair_samples(3)]
    del pairs[2]["txt"], pairs[1][next(name for name in pairs[1] if name.startswith("0."))]
    write_tar(tmp_path / "pairs/train/0.tar", [(f"s{number}", members) for number, members in enumerate(pairs)])
    single = [{name.partition(".")[2]: data} for members in pairs for name, data in members.items() if name != "txt"]
    write_tar(tmp_path / "single/train/0.tar", [(f"s{number}", members) for number, members in enumerate(single)])
    assert embed(tmp_path / "pairs/train", made / "model.pt", tmp_path / "two") == 1
    assert "0.tar s1-00: no image: " in capsys.readouterr().err
    assert embed(tmp_path / "single/train", made / "model.pt", tmp_path / "one") == 0
    np.testing.assert_array_equal(vectors_of(tmp_path / "two"), vectors_of(tmp_path / "one"))
    assert len(vectors_of(tmp_path / "two")) == 5


def test_several_sets_have_room_in_one_folder_whatever_the_parts(made: Path, tmp_path: Path) -> None:
    sets = f"[{made}/sets/wds_b_test/train,{made}/sets/wds_a_test/train]"
    for part in (3, 1, 2):
        assert embed(sets, made / "model.pt", tmp_path / "all", part=f"{part}/3") == 0
        if part != 2:
            with pytest.raises(UserError, match=r"all is not finished: [13] of 4 shards have no embeddings"):
                named(str(tmp_path / "all"))
    for name in "ab":
        for path in (made / name).glob("*.npy"):
            np.testing.assert_allclose(np.load(tmp_path / "all" / path.name), np.load(path), atol=1e-3)
    assert targets_of("x", named(str(tmp_path / "all"))).rows == 19


def test_targets_are_known_by_their_contents_however_they_are_parted(made: Path, tmp_path: Path) -> None:
    joined = tmp_path / "all"
    for name in "ab":
        shutil.copytree(made / name, joined, dirs_exist_ok=True)
    plans = [read_json(made / name / "targets.json") for name in "ab"]
    write_json(joined / "targets.json", plans[0] | {"shards": plans[0]["shards"] | plans[1]["shards"]})
    both = ordered([str(made / "b"), str(made / "a")])
    assert both == ordered([str(made / "a"), str(made / "b")])
    one, several = (targets_of(given, named(given)) for given in (str(joined), both))
    assert one.digest == several.digest and one.rows == several.rows == 19 and one.name != several.name
    assert several.name == name_of([str(made / "b"), str(made / "a")])
    flat = np.concatenate([np.load(path) for path in several.paths])
    np.testing.assert_array_equal(flat, np.concatenate([np.load(path) for path in one.paths]))


def write_matching(pool: Path, rows: int = 60) -> Path:
    rng = np.random.default_rng(3)
    arrays = {name: rng.normal(size=(rows, WIDTH)).astype(np.float32) for name in ("l14_img", "l14_txt")}
    write_file(pool / "0.parquet", columns_of(rows), arrays)
    return pool


@pytest.mark.parametrize("name", ["vas", "norm_sim"])
def test_a_selection_by_folders_is_that_by_one_matrix(made: Path, tmp_path: Path, name: str) -> None:
    pool = write_matching(tmp_path / "pool")
    np.save(tmp_path / "plain.npy", np.concatenate([vectors_of(made / one) for one in "ba"]))
    words = (f"filter={name}", "filter.fraction=0.3", f"pool={pool}")
    plain = selected(tmp_path / "plain_out.npy", *words, f"filter.targets={tmp_path}/plain.npy")
    for number, given in enumerate((f"[{made}/a,{made}/b]", f"[ {made}/b, {made}/a]")):
        out = tmp_path / f"{number}.npy"
        np.testing.assert_array_equal(plain, selected(out, *words, f"filter.targets={given}"))
    summaries = [read_json(tmp_path / f"{number}.npy.json") for number in (0, 1)]
    assert summaries[0] == summaries[1] and summaries[0]["filter"]["targets"] == [f"{made}/a", f"{made}/b"]
    assert summaries[0]["state"]["targets"] == 19 and "evaluation_pictures" not in summaries[0]["state"]
    assert len(list((pool / "columns").iterdir())) == 2  # one for both orders


def test_another_content_of_a_folder_is_another_subset(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_matching(tmp_path / "pool")
    shutil.copytree(made / "a", tmp_path / "t")
    words = [
        "filter=vas",
        "filter.fraction=0.3",
        f"filter.targets={tmp_path}/t",
        f"pool={pool}",
        f"out={tmp_path}/o.npy",
    ]
    assert curate(*words) == 0 == curate(*words)
    assert "is complete" in capsys.readouterr().err
    for end in ("", ".json"):
        shutil.copy(made / f"b/wds_b_test_train_0.npy{end}", tmp_path / "t" / f"more.npy{end}")
    plan = read_json(tmp_path / "t/targets.json")
    plan["shards"]["more"] = read_json(tmp_path / "t/more.npy.json")["conditions"]["size"]
    write_json(tmp_path / "t/targets.json", plan)
    assert curate(*words) == 2
    assert curate(*words, "overwrite=true") == 0
    assert read_json(tmp_path / "o.npy.json")["state"]["targets"] == 14


def test_image_based_takes_folders(made: Path, tmp_path: Path) -> None:
    pool = write_matching(tmp_path / "pool")
    np.save(tmp_path / "c.npy", np.random.default_rng(1).normal(size=(20, WIDTH)).astype(np.float32))
    np.save(tmp_path / "plain.npy", np.concatenate([vectors_of(made / one) for one in "ab"]))
    words = ("filter=image_based", SMALL, f"filter.centroids={tmp_path}/c.npy", f"pool={pool}")
    plain = selected(tmp_path / "a.npy", *words, f"filter.targets={tmp_path}/plain.npy")
    found = selected(tmp_path / "b.npy", *words, f"filter.targets=[{made}/b,{made}/a]")
    np.testing.assert_array_equal(plain, found)


def test_evaluation_pictures_are_told_and_recorded(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Be they all that there is, or one of the splits of a set."""
    pool = write_matching(tmp_path / "pool")
    for place, rows in (("wds_a_test/test", 4), ("wds_a_test", 13)):
        out = tmp_path / place.replace("/", "_")
        assert embed(made / "sets" / place, made / "model.pt", out) == 0
        assert "warning: these are evaluation pictures (wds_a_test/test)" in capsys.readouterr().err
        subset = tmp_path / f"{out.name}.npy"
        given = f"filter.targets=[{out},{made}/b]"
        assert curate("filter=vas", "filter.fraction=0.2", given, f"pool={pool}", f"out={subset}") == 0
        assert "evaluation pictures (wds_a_test/test), by which the filtering track forbids" in capsys.readouterr().err
        state = read_json(tmp_path / f"{subset.name}.json")["state"]
        assert state["evaluation_pictures"] == ["wds_a_test/test"] and state["targets"] == 10 + rows


def test_bad_pictures_are_counted_and_nothing_else_is_asked_of_a_sample(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = picture(3)[1]
    samples: list[tuple[str, dict[str, bytes]]] = [
        ("good", {"png": good}),
        ("label", {"png": good, "cls": b"no label"}),
        ("html", {"png": b"<html>", "cls": b"0"}),
        ("none", {"cls": b"0"}),
    ]
    write_tar(tmp_path / "s/train/0.tar", samples)
    write_tar(tmp_path / "s/train/1.tar", samples[2:])
    for _ in range(2):
        assert embed(tmp_path / "s/train", made / "model.pt", tmp_path / "out") == 1
        assert "2 samples scored, 4 left out" in capsys.readouterr().out
        lines = read_lines(tmp_path / "out" / "bad_samples.jsonl")
        assert [line["key"] for line in lines] == ["html", "none", "html", "none"]
        assert {line["shard"] for line in lines} == {"s/train/0.tar", "s/train/1.tar"}
    found = targets_of(str(tmp_path / "out"), named(str(tmp_path / "out")))
    assert found.rows == 2 and len(found.paths) == 1
    shutil.rmtree(tmp_path / "s/train")
    write_tar(tmp_path / "s/train/0.tar", samples[2:])
    assert embed(tmp_path / "s/train", made / "model.pt", tmp_path / "nothing") == 1
    with pytest.raises(UserError, match="holds no embedding: no picture of its shards could be used"):
        named(str(tmp_path / "nothing"))


def test_finished_shards_are_found_again_and_damaged_ones_made_anew(made: Path, tmp_path: Path) -> None:
    sets = write_set(tmp_path / "s", 9, shards=3)
    assert embed(sets, made / "model.pt", tmp_path / "out") == 0
    first, second, third = sorted((tmp_path / "out").glob("*.npy"))
    before = {path: path.stat().st_ino for path in (first, second, third)}
    second.write_bytes(second.read_bytes()[:-3])
    third.with_name(f"{third.name}.json").unlink()
    with pytest.raises(UserError, match="2 of 3 shards have no embeddings, the first is s_train_1; the command that"):
        named(str(tmp_path / "out"))
    assert embed(sets, made / "model.pt", tmp_path / "out") == 0
    assert [path.stat().st_ino == inode for path, inode in before.items()] == [True, False, False]
    write_tar(sets / "3.tar", classification_samples(2, 2, 7))  # more of the set
    assert embed(sets, made / "model.pt", tmp_path / "out") == 0
    assert first.stat().st_ino == before[first] and targets_of("x", named(str(tmp_path / "out"))).rows == 11


def test_other_embeddings_are_not_replaced_unless_told(made: Path, tmp_path: Path) -> None:
    sets, out = write_set(tmp_path / "s", 6), tmp_path / "out"
    other = write_checkpoint(tmp_path / "other.pt", seed=1)
    assert embed(sets, made / "model.pt", out) == 0
    ours = vectors_of(out)
    for options, why in (({"checkpoint": other}, "checkpoint"), ({"dtype": "float32"}, "options")):
        with pytest.raises(UserError, match=f"holds targets of another {why}; choose another out="):
            embed(sets, **{"checkpoint": made / "model.pt", "out": out, **options})
    with pytest.raises(UserError, match="holds targets of s_train_1, which shards= does not have"):
        embed(sets / "0.tar", made / "model.pt", out)
    write_tar(sets / "1.tar", classification_samples(30, 2, 9))
    with pytest.raises(
        UserError, match="holds targets of s_train_1, which shards= does not have, or with another content"
    ):
        embed(sets, made / "model.pt", out)
    np.testing.assert_array_equal(vectors_of(out), ours)
    assert embed(sets, other, out, overwrite="true") == 0
    named(str(out))
    with pytest.raises(UserError, match=f"out was made by {MODEL} with weights .*, .*/a by {MODEL} with weights"):
        named(ordered([str(made / "a"), str(out)]))
    np.save(tmp_path / "foreign.npy", ours)
    with pytest.raises(UserError, match=r"foreign\.npy was not made by this command"):
        embed(sets, other, tmp_path)


def test_a_pool_by_another_model_is_told(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scoring import run

    pairs = write_pool(tmp_path / "pairs", shards=1, per_shard=12)
    other = write_checkpoint(tmp_path / "other.pt", seed=1)
    assert run(pairs, other, tmp_path / "pool", arch="l14") == 0
    assert run(pairs, made / "model.pt", tmp_path / "pool", arch="mine") == 0
    words = ["filter.fraction=0.5", f"filter.targets={made}/a", f"pool={tmp_path}/pool", f"out={tmp_path}/out.npy"]
    for name in ("vas", "norm_sim"):
        capsys.readouterr()
        assert curate(f"filter={name}", *words) == 2
        said = capsys.readouterr().err
        assert f"00000.parquet: l14_img was made by {MODEL} with weights" in said and said.count("\n") == 1
    assert curate("filter=vas", *words, "filter.embedding=mine_img") == 0


def test_what_is_wrong_is_told_in_a_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_matching(tmp_path / "pool")

    def told(given: str, name: str = "vas") -> str:
        capsys.readouterr()
        words = (f"filter={name}", f"filter.targets={given}", "filter.fraction=0.2", f"pool={pool}")
        assert curate(*words, f"out={tmp_path}/out.npy") == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
        return said

    assert "pool has no targets.json; python -m curate.score scorer=targets makes" in told(str(pool))
    assert "filter.targets=[] is empty" in told("[]")
    assert "neither a file nor 'imagenet'" in told(f"[{made}/a,imagenot]")
    assert "targets= names" in told(f"[{made}/a,{made}/../{made.name}/a]") and "twice" in told(f"[{made}/a,{made}/a]")
    np.save(tmp_path / "narrow.npy", np.ones((3, 5), np.float32))
    assert "numbers a row" in told(f"[{made}/a,{tmp_path}/narrow.npy]")
    shutil.copytree(made / "a", tmp_path / "t")
    for content, why in (("{", "targets.json is not JSON"), ('{"shards": 1}', "targets.json is of another version")):
        (tmp_path / "t/targets.json").write_text(content)
        assert why in told(str(tmp_path / "t"))
    with pytest.raises(UserError, match="dtype=float64 is not known"):
        embed(made / "sets/wds_a_test/train", made / "model.pt", tmp_path / "no", dtype="float64")
    spec = tmp_path / "f.yaml"
    spec.write_text(f"filter: vas\nfraction: 0.2\ntargets: [{made}/a, 3]\n")
    assert curate(f"filter={spec}", f"pool={pool}", f"out={tmp_path}/out.npy") == 2
    assert "filter.targets=3 is not a text" in capsys.readouterr().err
    spec.write_text(f"filter: vas\nfraction: 0.2\ntargets: [{made}/a, {made}/b]\n")
    assert curate(f"filter={spec}", f"pool={pool}", f"out={tmp_path}/out.npy") == 0


def test_a_full_disk_leaves_no_record(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    sets = write_set(tmp_path / "s", 4, shards=1)
    monkeypatch.setattr("curate.pool.embedded.np.save", full)
    with pytest.raises(UserError, match=r"s_train_0\.npy cannot be written: .*No space left"):
        embed(sets, made / "model.pt", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["targets.json"]


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    torch.save({"state_dict": create(REAL, seed=1).state_dict()}, tmp_path / "model.pt")
    samples = [(f"{n}", {"png": encoded(Image.new("RGB", (70, 70), (n, 9, 9)), "PNG")}) for n in range(40)]
    for number in range(10):
        write_tar(tmp_path / "s/train" / f"{number}.tar", samples[number::10])
    words = [f"checkpoint={tmp_path}/model.pt", f"model={REAL}", f"shards={tmp_path}/s/train", "scorer=targets"]
    process = forked.start("-c", HOLDING, *words, f"out={tmp_path}/out", "workers=1", "batch_size=1", new_session=True)
    until(lambda: len(list((tmp_path / "out").glob("*.npy.json"))) == 3 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_ino for path in (tmp_path / "out").glob("*.npy.json")}
    assert len(finished) == 3
    for out in ("out", "whole"):
        assert embed(tmp_path / "s/train", tmp_path / "model.pt", tmp_path / out, model=REAL, batch_size=1) == 0
    assert all(path.stat().st_ino == inode for path, inode in finished.items())
    np.testing.assert_allclose(vectors_of(tmp_path / "out"), vectors_of(tmp_path / "whole"), atol=1e-3)


def test_help_shows_its_options(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["score", "scorer=targets", "--help"])
    with pytest.raises(SystemExit):
        score.main()
    said = capsys.readouterr().out
    assert "dtype=" in said and "filter.targets= of a selection" in said and "arch=" not in said
    monkeypatch.setattr(sys, "argv", ["score", "scorer=targets", "arch=b32", "shards=x", "out=y"])
    assert status_of(score.main) == 2
