"""What `dry_run=true` tells of a run: its numbers, and all that is wrong, in one go and without a trace."""

import subprocess
from pathlib import Path

import forked
import pytest
import torch
from pools import sample, uid_of, write_pool, write_tar

from poolbench.command import compose
from poolbench.files import append_line
from poolbench.machine import slow_bfloat16
from poolbench.models.clip import create
from poolbench.models.cost import _fake_kept, kept_bytes, shapes_of, work_of
from poolbench.run_record import write_record
from poolbench.shards.sources import resolve
from poolbench.uids import write_subset

from train.config import TrainConfig
from train.dry_run import Report, examined
from train.run_log import describe

ROOT = Path(__file__).parent.parent
SMALL = ("scale=small", "dry_run=true", "recipe.model=test-tiny", "recipe.warmup=1", "recipe.streams=8")


def dry_run(*words: str) -> subprocess.CompletedProcess[str]:
    return forked.run("tests/run_train.py", "dry_run=true", *words)


def report(*words: str) -> Report:
    return examined(compose("train", [*SMALL, *words], TrainConfig))


def row(found: Report, what: str) -> tuple[str, str]:
    return next((value, why) for name, value, why in found.rows if name.strip() == what)


def test_the_plan_of_a_good_run_leaves_no_trace(tmp_path: Path) -> None:
    done = dry_run("scale=large", "world_size=64", f"out={tmp_path}/runs", "rate=1000", "efficiency.workers=4")
    assert done.returncode == 0 and done.stderr == ""
    lines = [line.split() for line in done.stdout.splitlines()]
    told = {" ".join(words[:2]): words for words in lines} | {words[0]: words for words in lines}
    assert told["steps"][1] == "156,250"
    assert told["batch per"][3] == "128"
    assert told["FLOPs"][1:3] == ["158", "E"]  # 3 x 41.09 G x 1.28 G
    assert told["tokens"][1:3] == ["351", "G"]
    assert told["hours"][1:3] == ["5.6", "356"]  # 1.28 G / 64 / 1000 / 3600
    assert told["checkpoint"][1:3] == ["1.8", "GB"]
    assert told["data read"][2:4] == ["51.2", "TB"]
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = dry_run(
        "scale=large", "world_size=7", f"out={file}/runs", "data=/nowhere", "recipe.model=ViT-B-61", "subset=/no.npy"
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for word in (
        "7 processes cannot share batches of 8192 evenly; use 4 or 8 processes",
        "nothing can be written in",
        "data=/nowhere does not exist",
        "unknown model 'ViT-B-61'; did you mean 'ViT-B-16'?",
        "subset /no.npy cannot be read",
    ):
        assert sum(word in line for line in errors) == 1, word
    assert len(errors) == 5 and "Traceback" not in done.stderr
    assert "unofficial: recipe.model is ViT-B-61" in done.stderr
    assert "156,250" in done.stdout


@pytest.mark.parametrize("words", [("world_size=0",), ("recipe.batch_size=0",), ("efficiency.accumulate=0",)])
def test_what_cannot_be_counted_is_told_without_numbers(tmp_path: Path, words: tuple[str, ...]) -> None:
    found = report(f"out={tmp_path}", *words)
    assert len(found.errors) == 1 and words[0].split("=")[0] in found.errors[0]
    assert "steps" not in [name for name, _, _ in found.rows]


def test_a_few_samples_tell_of_the_pool(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", shards=4, per_shard=25)
    write_subset(tmp_path / "half.npy", [uid_of(number) for number in range(50)])
    size = sum(file.stat().st_size for file in pool.iterdir())
    words = (f"data={pool}", f"out={tmp_path}/runs", "recipe.samples=40960", "world_size=4", "efficiency.workers=2")
    found = report(*words, f"subset={tmp_path}/half.npy")
    assert found.errors == []
    assert row(found, "pool")[0] == "100"
    assert row(found, "subset")[1].startswith("uids, 50.0% of")
    assert row(found, "repeats")[0] == "819"  # 40,960 of 50
    assert row(found, "shard reads")[0] == f"{40960 * 2 / 25:,.0f}"
    assert row(found, "data read")[0] == f"{40960 * 2 / 100 * size / 1e6:.3g} MB"
    assert any("4 shards for 8 streams" in line for line in found.warnings)
    assert not any("streams: of more" in line for line in found.warnings)
    found = report(*words[:3], "world_size=16", "efficiency.workers=2")
    assert any("16 processes do not divide the 8 streams: 2 of them read each one" in line for line in found.warnings)
    assert any("efficiency.workers=1 reads each once" in line for line in found.warnings)


def test_a_subset_of_data_without_uids(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [(str(number), {**sample(number), "json": b"{}"}) for number in range(3)])
    write_subset(tmp_path / "subset.npy", [uid_of(1)])
    found = report(f"data={tmp_path}", f"out={tmp_path}/runs", f"subset={tmp_path}/subset.npy")
    assert found.errors == [f"{tmp_path}/0.tar has no .json with a uid (its .json holds no uid), which subset= needs"]


def test_a_pool_without_a_usable_sample_is_told_by_the_commonest_reason(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [(f"a.{number}", {"png": b"x", "txt": b"x"}) for number in range(3)])
    write_tar(tmp_path / "1.tar", [(f"{number}", {"png": b"x", "json": b"{}"}) for number in range(3)])
    (wrong,) = report(f"data={tmp_path}", f"out={tmp_path}/runs").errors
    assert "in the shards looked into; " in wrong and "1.tar, key 0: no caption: its members are .json, .png" in wrong
    assert wrong.endswith("(the commonest reason, 3 of 4 times)")


def test_hours_as_a_run_of_that_name_measured_them(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", shards=1, per_shard=5)
    words = [f"data={pool}", f"out={tmp_path}", "name=mine", "recipe.samples=7200000", "world_size=4"]
    config = compose("train", [*SMALL, *words], TrainConfig)
    record = describe(config, resolve(config.data), None, 2, torch.device("cpu"))
    config.folder.mkdir()
    write_record(config.folder, record)
    for rate in (900, 1000, 5000):
        append_line(config.folder / "metrics.jsonl", {"step": 1, "samples_per_second": rate})
    hours, why = row(report(*words), "hours")
    assert hours == "1" and "at 500 samples a second of a device, measured: median of 3 steps" in why
    assert row(report(*words, "rate=250"), "hours")[0] == "2"
    assert "what differs: seed: 0 -> 1" in report(*words, "seed=1").errors[0]
    assert "resume=false" in report(*words, "resume=false").errors[0]


def test_memory_and_disk_are_held_against_what_there_is(tmp_path: Path) -> None:
    words = (f"out={tmp_path}", "world_size=1")
    assert report(*words, "memory=80").errors == []
    assert "of a device's memory=0.01 GB" in report(*words, "memory=0.01").errors[0]
    many = ("efficiency.keep_checkpoints=1000000", "efficiency.checkpoint_every=1", "recipe.samples=409600000000")
    assert "the checkpoints need" in report(*words, *many).errors[0]


@pytest.mark.parametrize(
    ("name", "image", "text"), [("ViT-B-32", 8.82, 5.96), ("ViT-B-16", 35.13, 5.96), ("ViT-L-14", 162.0, 13.3)]
)
def test_flops_are_those_of_open_clips_profile(name: str, image: float, text: float) -> None:
    """Published in open_clip's docs/model_profile.csv, in GFLOP of a forward pass."""
    work = work_of(shapes_of(name))
    assert work.image_flops / 1e9 == pytest.approx(image, rel=0.01)
    assert work.text_flops / 1e9 == pytest.approx(text, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
def test_shapes_keep_what_the_model_keeps(precision: str, checkpointing: bool) -> None:
    """The estimate of activations, made of shapes, against the bytes that a real forward pass keeps."""
    real = create("test-tiny")
    fake = shapes_of("test-tiny")
    if checkpointing:
        real.set_grad_checkpointing()  # type: ignore[operator]
        fake.set_grad_checkpointing()
    inputs = torch.zeros(6, 3, 32, 32), torch.ones(6, 16, dtype=torch.int64)
    own = (*real.parameters(), *real.buffers(), *inputs)
    found = kept_bytes(real, lambda: real(*inputs), own, precision)
    shapes = _fake_kept(fake, 32, precision, 6)
    assert found.block == shapes.block
    assert found.total == pytest.approx(shapes.total, rel=0.005 if precision == "amp_bf16" else 0)
    assert found.total < kept_bytes(real, lambda: real(*inputs), (), precision).total  # which has the weights too


def test_a_cpu_without_wide_units_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    info = tmp_path / "cpuinfo"
    intel, amd = "GenuineIntel", "AuthenticAMD"
    slow = {(intel, "avx2 sha_ni"): True, (amd, "avx2 avx512f avx512_vnni"): True}
    slow |= {(intel, "avx512f avx512_bf16"): True, (amd, "avx512f avx512_bf16"): False}
    slow |= {(intel, "avx512f avx512_bf16 amx_bf16"): False}
    for (maker, flags), expected in slow.items():
        info.write_text(f"vendor_id\t: {maker}\nflags\t\t: fpu {flags}\n")
        assert slow_bfloat16(info) == expected, flags
    assert not slow_bfloat16(tmp_path / "none")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    info.write_text("flags\t\t: fpu avx2\n")
    assert not slow_bfloat16(info)
