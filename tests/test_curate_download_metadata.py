"""A pool's metadata from a local hub: the whole way, in parts, and again where files broke off or were damaged."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pyarrow.parquet as pq
import pytest
from downloading import download, report_of, write_metadata
from hub_server import Hub
from hub_server import serving as serving_hub
from web_server import Web

import poolbench.hub


@pytest.fixture
def hub(tmp_path: Path, hosts: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the metadata of a small pool and, in subfolders, of an xlarge one."""
    origin = tmp_path / "origin"
    for name in ("a", "b"):
        write_metadata(origin / f"small/{name}.parquet", hosts, [hosts.url("good", number) for number in range(4)])
        (origin / f"small/{name}.npz").write_bytes(f"arrays of {name}".encode())
        write_metadata(origin / f"xlarge/part_{name}/{name}.parquet", hosts, [hosts.url("good", 1)])
    (origin / "small/README.md").write_text("not for us")
    hub = Hub()
    hub.add("mlfoundations/datacomp_small", origin / "small")
    hub.add("mlfoundations/datacomp_xlarge", origin / "xlarge")
    monkeypatch.setattr(poolbench.hub, "FIRST_PAUSE", 0.01)
    with serving_hub(hub):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield hub


def test_the_whole_way(tmp_path: Path, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    hub.cut["a.parquet"] = 1
    assert download(out, "metadata=true", "npz=true") == 0, capfd.readouterr().err
    names = ["a.npz", "a.parquet", "b.npz", "b.parquet"]
    assert sorted(path.name for path in (out / "metadata").glob("[!.]*")) == names
    for name in names:
        assert (out / "metadata" / name).read_bytes() == (tmp_path / "origin/small" / name).read_bytes()
    report = report_of(out)
    assert (report["repository"], report["arrived"]) == ("mlfoundations/datacomp_small", 8)
    assert report["commit"] == hub.head("mlfoundations/datacomp_small")
    hub.requests.clear()
    hub.repositories.clear()  # a second run asks the hub nothing
    assert download(out, "metadata=true", "npz=true") == 0
    assert not hub.requests


def test_metadata_that_broke_off_or_were_damaged_come_again(tmp_path: Path, hub: Hub) -> None:
    out = tmp_path / "out"
    hub.busy["b.parquet"] = 1000
    assert download(out, "metadata=true", "images=false") == 2
    hub.busy.clear()
    hub.requests.clear()
    assert download(out, "metadata=true", "images=false") == 0
    assert hub.requests == {"b.parquet": 1}
    (out / "metadata/a.parquet").write_bytes(b"cut")
    assert download(out, "metadata=true", "npz=true", "images=false") == 0
    assert hub.requests == {"a.parquet": 1, "b.parquet": 1, "a.npz": 1, "b.npz": 1}
    assert pq.read_table(out / "metadata/a.parquet").num_rows == 4


def test_the_largest_pools_folders_become_one(tmp_path: Path, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert download(out, "scale=xlarge", "metadata=true", "images=false") == 0
    assert sorted(path.name for path in (out / "metadata").glob("[!.]*")) == ["a.parquet", "b.parquet"]
    assert download(out, "scale=small", "metadata=true", "images=false") == 2
    assert "holds the metadata of mlfoundations/datacomp_xlarge" in capfd.readouterr().err
    assert download(tmp_path / "new", "scale=xlarge", "metadata=true", "npz=true") == 2
    assert "mlfoundations/datacomp_xlarge has no .npz files" in capfd.readouterr().err
    assert download(tmp_path / "new", "scale=large", "metadata=true") == 2
    assert "mlfoundations/datacomp_large cannot be fetched: there is no such" in capfd.readouterr().err


def test_metadata_come_in_parts(tmp_path: Path, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    out, words = tmp_path / "out", ["metadata=true", "npz=true"]
    assert download(out, *words, "merge=2") == 2
    assert "no part has begun to bring those of mlfoundations/datacomp_small" in capfd.readouterr().err
    assert download(out, *words, "images=false", "part=1/2") == 0
    assert hub.requests == {"a.parquet": 1, "a.npz": 1}
    capfd.readouterr()
    assert download(out, *words, "images=false", "merge=2") == 2
    said = capfd.readouterr().err
    assert "part 2/2: 2 of its 2 metadata files missing: b.parquet, b.npz\n" in said
    assert "error: nothing is put together: 2 of 4 metadata files are missing, see above\n" in said
    # The pictures need all rows: a part brings what nobody has brought, and another one finds it.
    assert download(out, *words, "part=1/2", "shard_size=2") == 0
    assert hub.requests == dict.fromkeys(["a.parquet", "a.npz", "b.parquet", "b.npz"], 1)
    assert [path.name for path in sorted((out / "shards").glob("*.tar"))] == ["00000000.tar", "00000002.tar"]
    assert download(out, *words, "part=2/2", "shard_size=2") == 0 and sum(hub.requests.values()) == 4
    assert not (out / "arrived.json").exists()
    assert download(out, *words, "merge=2", "shard_size=2") == 0
    assert report_of(out)["shards"] == {"planned": 4, "finished": 4} and not list(out.glob(".part-*"))
    for path in (tmp_path / "origin/small").glob("[ab].*"):
        assert (out / "metadata" / path.name).read_bytes() == path.read_bytes()
