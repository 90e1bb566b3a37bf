"""What cannot be scored: bad samples, damaged and absent shards, each listed; and wrong commands."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest
from pools import sample, uid_of, write_pool, write_tar
from scoring import run, table_of, write_varied

from poolbench.errors import UserError, status_of
from poolbench.files import read_lines


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/, 3 shards of 14 samples, and model.pt."""
    return write_varied(tmp_path_factory.mktemp("score"))


def damaged_pool(folder: Path) -> dict[str, str]:
    """A shard in which every kind of bad sample stands among good ones; key -> part of the reason."""
    good = [(f"good{number}", sample(number)) for number in range(5)]
    cases: dict[str, tuple[dict[str, bytes | None], str]] = {
        "nojson": ({"json": None}, "no .json with a uid"),
        "nouid": ({"json": b"{}"}, "its .json holds no uid"),
        "baduid": ({"json": b'{"uid": "xyz"}'}, "not 32 hex digits"),
        "brokenjson": ({"json": b"{"}, "its .json holds no uid"),
        "listjson": ({"json": b"[]"}, "its .json holds no uid"),
        "deepjson": ({"json": b"[" * 100_000}, "its .json holds no uid"),
        "noimage": ({"png": None}, "no image"),
        "emptyimage": ({"png": b""}, "empty image"),
        "html": ({"png": b"<html>"}, "none of JPEG"),
        "cut": ({"png": sample(9)["png"][:300]}, "cannot be decoded"),
        "notext": ({"txt": None}, "no caption"),
        "blank": ({"txt": b" \n"}, "empty caption"),
        "latin": ({"txt": b"caf\xe9"}, "not UTF-8"),
    }
    bad = []
    for number, (key, (changes, _)) in enumerate(cases.items(), start=10):
        members = sample(number) | changes
        bad.append((key, {name: data for name, data in members.items() if data is not None}))
    write_tar(folder / "0.tar", [*good[:2], *bad, *good[2:]])
    return {key: reason for key, (_, reason) in cases.items()}


def test_bad_samples_are_listed_each_time(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = damaged_pool(tmp_path / "pool")
    whole = write_pool(tmp_path / "more", shards=1, per_shard=4, first=100) / "00000.tar"
    data = whole.read_bytes()
    (tmp_path / "pool" / "1.tar").write_bytes(data[: len(data) * 2 // 3])
    for _ in range(2):
        assert run(tmp_path / "pool", root / "model.pt", tmp_path / "out") == 1
        lines = read_lines(tmp_path / "out" / "bad_samples.jsonl")
        found = {line["key"]: line["reason"] for line in lines if line["shard"] == "0.tar"}
        assert found.keys() == expected.keys()
        assert all(expected[key] in found[key] for key in expected)
        # The damage, and the sample that it cuts in two.
        assert [line["key"] for line in lines if line["shard"] == "1.tar"] == ["", "00000102"]
        rows = table_of(tmp_path / "out")
        assert {uid_of(number) for number in range(5)} <= set(rows) and uid_of(100) in rows and len(rows) < 9
        said = capsys.readouterr()
        assert f"{len(rows)} samples scored, 15 left out" in said.out and "lists all 15" in said.err
    assert "0 of 2 shards to score" in said.out


def test_joined_and_torn_shards_are_told_and_the_commonest_reason_where_nothing_is_left(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_pool(tmp_path / "pool", shards=2, per_shard=4)
    whole = (pool / "00000.tar").read_bytes()
    (pool / "00000.tar").write_bytes(whole + (pool / "00001.tar").read_bytes())
    parts = [(f"{n}", {name: sample(n)[name]}) for name in ("png", "txt", "json") for n in range(4, 9)]
    write_tar(pool / "00001.tar", parts)
    (pool / "._00000.tar").write_bytes(b"mac")
    assert run(pool, root / "model.pt", tmp_path / "out") == 1
    assert set(table_of(tmp_path / "out")) == {uid_of(number) for number in range(4)}
    lines = read_lines(tmp_path / "out" / "bad_samples.jsonl")
    assert [(line["shard"], line["key"]) for line in lines] == [
        ("00000.tar", ""),
        *(("00001.tar", f"{n}") for n in range(4, 9)),
    ]
    assert "as cat joins them" in lines[0]["reason"] and all("not adjacent" in line["reason"] for line in lines[1:])
    shutil.rmtree(pool)
    write_tar(pool / "0.tar", []).write_bytes(gzip.compress(whole))
    capsys.readouterr()
    assert run(pool, root / "model.pt", tmp_path / "none") == 1
    assert "nothing could be scored; 0.tar: no tar but a gzip file: gunzip it" in capsys.readouterr().err


def test_a_shard_that_cannot_be_read_now_is_tried_again(root: Path, tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", shards=2, per_shard=3)
    shards = [str(path) for path in sorted(pool.glob("*.tar"))]
    moved = tmp_path / "away.tar"

    def failing(path: str, size: int, tally: Any) -> Any:
        Path(shards[1]).rename(moved)
        monkeypatch.undo()
        return open(path, "rb")  # noqa: PTH123

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("curate.scorers.stream.open_shard", failing)  # the second shard goes while the first is read
    assert run(pool, root / "model.pt", tmp_path / "out") == 1
    assert read_lines(tmp_path / "out" / "bad_samples.jsonl")[0]["shard"] == "00001.tar"
    assert not (tmp_path / "out" / "00001.parquet").exists()
    moved.rename(shards[1])
    assert run(pool, root / "model.pt", tmp_path / "out") == 0
    assert len(table_of(tmp_path / "out")) == 6 and not (tmp_path / "out" / "bad_samples.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 3}, r"unknown key 'batch': did you mean 'batch_size'\?"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"batch_size": 0}, "batch_size=0: at least 1"),
        ({"workers": -1}, "workers=-1: 0 or more"),
        ({"arch": "B 32"}, "arch=B 32: small letters"),
        ({"part": "3/2"}, "part=3/2 is not i/n"),
        ({"device": "cuda:77"}, "device=cuda:77 is not there"),
        ({"out": "s3://bucket/out"}, "out=s3://bucket/out is not written: only local files and folders are"),
        ({"checkpoint": "/nowhere.pt"}, "neither a file nor a pretrained tag"),
        ({"model": "ViT-B-23"}, "unknown model 'ViT-B-23'; did you mean"),
        ({"model": None}, "model= is needed"),
        ({"model": None, "checkpoint": "runs/nowhere"}, "checkpoint=runs/nowhere is no file and no run"),
        ({"shards": "/nowhere"}, "shards=/nowhere does not exist"),
        ({"checkpoint": None}, "checkpoint= is needed"),
        ({"scorer": "clip_similarty"}, r"scorer=clip_similarty is not known; did you mean 'clip_similarity'\?"),
    ],
)
def test_wrong_commands_get_one_line(root: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    known: dict[str, Any] = {"pool": root / "pool", "checkpoint": root / "model.pt", "out": tmp_path / "out"}
    with pytest.raises(UserError, match=message) as caught:
        run(**{**known, **({"pool": options.pop("shards")} if "shards" in options else {}), **options})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_two_shards_of_one_name_are_refused(root: Path, tmp_path: Path) -> None:
    both = [write_pool(tmp_path / name, shards=1, per_shard=1) for name in "ab"]
    with pytest.raises(UserError, match="two are called 00000"):
        run(f"[{both[0]},{both[1]}]", root / "model.pt", tmp_path / "out")


def test_exit_status_of_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda: run(tmp_path, "x", tmp_path / "file.txt", model=None)) == 2
    assert (
        capsys.readouterr().err == "error: checkpoint=x is no file and no run; a pretrained tag needs model= as well\n"
    )
