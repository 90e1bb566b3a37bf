"""Columns made of a pool: written beside it, read by name, made anew when what they depend on changes; and the best
rows of a column, an exact number of them."""

import dataclasses
import functools
import http.server
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from local_server import Quiet, answering
from metadata import columns_of, embeddings_of, write_file
from pools import uid_of

from poolbench.errors import UserError
from poolbench.uids import split_uid

from curate.pool import quantile
from curate.pool.columns import origin_of, write
from curate.pool.files import BadFile, File, list_pool, read, read_columns
from curate.pool.origins import Origin, read_origin
from curate.pool.parts import Part
from curate.pool.passes import Passes
from curate.pool.places import forget
from curate.scorers.rows import RowScorer, score_columns
from curate.selectors.registry import build

SCORE = "clip_l14_similarity_score"


def write_random(folder: Path, seed: int, files: int = 4) -> Path:
    """A pool with ties, NaN, files of any number of rows, malformed uids, and uids that stand twice."""
    rng = np.random.default_rng(seed)
    for number in range(files):
        rows = 0 if number == 1 and files > 1 else int(rng.integers(1, 300))
        columns = columns_of(rows, 1000 * number)
        if rows > 12:
            columns["uid"][3], columns["uid"][5] = "none", columns["uid"][4]
            columns["uid"][9] = uid_of(0)
        write_file(folder / f"{number:04d}.parquet", columns, embeddings_of(rows, 1000 * number))
    return folder


def frame(pool: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(pool.glob("*.parquet"))], ignore_index=True)


@dataclass
class Length(RowScorer):
    """How many pixels, in units; NaN where there are none. `folder` has a line for each file that was scored."""

    unit: float = 1.0
    log: str = ""
    dies: str = ""
    name = "length"
    columns = ("original_width", "original_height")
    arrays = ("l14_img",)
    makes = ("pixels", "first")

    def identity(self) -> Any:
        return {"unit": self.unit}

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        if self.log:
            with Path(self.log).open("a") as stream:
                stream.write(f"{file.name}\n")
        if self.dies == file.name:
            raise KeyboardInterrupt
        pixels, first = [], []
        for table, arrays in read_columns(file, self.columns, self.arrays):
            product = table["original_width"].to_numpy() * table["original_height"].to_numpy() / self.unit
            pixels.append(np.where(product == 0, np.nan, product))
            first.append(arrays["l14_img"][:, 0])
        return {
            "pixels": np.concatenate([*pixels, []]).astype(np.float32),
            "first": np.concatenate([*first, []]).astype(np.float32),
        }


def scored(pool: Path, scorer: RowScorer, workers: int = 1, part: Part | None = None) -> Passes:
    with Passes(list_pool(str(pool)), None, workers, part or Part(1, 1)) as passes:
        score_columns(passes, scorer)
    return passes


def values(pool: Path, name: str) -> np.ndarray:
    return np.concatenate(
        [table[name].to_numpy() for file in list_pool(str(pool)) for table, _ in read_columns(file, [name])]
    )


@pytest.mark.parametrize("size", [2**16, 17])
def test_a_column_is_made_beside_the_pool_and_read_by_its_name(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = write_random(tmp_path / "pool", 0)
    before = {path: path.read_bytes() for path in pool.iterdir()}
    monkeypatch.setattr("curate.pool.files.ROWS", size)
    scored(pool, Length())
    rows = frame(pool)
    pixels = (rows.original_width * rows.original_height).to_numpy()
    np.testing.assert_array_equal(values(pool, "pixels"), np.where(pixels == 0, np.nan, pixels).astype(np.float32))
    np.testing.assert_array_equal(values(pool, "length/pixels"), values(pool, "pixels"))
    assert {path: path.read_bytes() for path in pool.iterdir() if path.is_file()} == before
    made = sorted((pool / "columns" / "length").iterdir())
    assert [path.name for path in made] == [f"{number:04d}.parquet" for number in range(4)]  # and nothing hidden
    assert pq.read_table(made[0])["uid"].to_pylist() == pd.read_parquet(pool / "0000.parquet").uid.to_list()
    assert origin_of(made[0]).identity == {"unit": 1.0} and origin_of(made[0]).makes == ["pixels", "first"]
    (file, *_) = list_pool(str(pool))
    for piece in read(file, ["text", "first", SCORE], ["l14_img"]):  # among others, in the order asked for
        assert piece.table.column_names == ["text", "first", SCORE]
        np.testing.assert_array_equal(piece.table["first"].to_numpy(), piece.arrays["l14_img"][:, 0].astype(np.float32))


def test_what_is_there_is_not_made_again_until_something_changes(tmp_path: Path) -> None:
    pool, log = write_random(tmp_path / "pool", 1), tmp_path / "log"

    def made(**changed: Any) -> list[str]:
        log.write_text("")
        scored(pool, Length(log=str(log), **changed))
        return log.read_text().split()

    every = [f"{number:04d}" for number in range(4)]
    assert made() == every and made() == []
    (pool / "columns" / "length" / "0002.parquet").unlink()
    assert made() == ["0002"]
    columns = columns_of(30, 77)
    write_file(pool / "0003.parquet", columns, embeddings_of(30, 77))
    assert made() == ["0003"]
    assert made(unit=2.0) == every and made(unit=2.0) == []
    (pool / "columns" / "length" / "0000.parquet").write_bytes(b"broken")
    assert made(unit=2.0) == ["0000"]


def test_a_killed_run_is_continued_and_parts_do_their_own_first(tmp_path: Path) -> None:
    pool, log = write_random(tmp_path / "pool", 2), tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        scored(pool, Length(log=str(log), dies="0002"))
    scored(pool, Length(log=str(log)))
    assert log.read_text().split() == ["0000", "0001", "0002", "0002", "0003"]
    bytes_ = {path.name: path.read_bytes() for path in (pool / "columns" / "length").iterdir()}
    shutil.rmtree(pool / "columns")
    log.write_text("")
    scored(pool, Length(log=str(log)), part=Part(2, 3))
    assert log.read_text().split() == ["0001", "0002", "0000", "0003"]
    assert {path.name: path.read_bytes() for path in (pool / "columns" / "length").iterdir()} == bytes_
    shutil.rmtree(pool / "columns")
    scored(pool, Length(), workers=2)
    assert {path.name: path.read_bytes() for path in (pool / "columns" / "length").iterdir()} == bytes_


def test_columns_of_another_file_or_of_several_folders_are_refused(tmp_path: Path) -> None:
    pool = write_random(tmp_path / "pool", 3)
    scored(pool, Length())
    shutil.copytree(pool / "columns" / "length", pool / "columns" / "other")
    (file, *_) = list_pool(str(pool))

    def refusal(column: str) -> str:
        with pytest.raises(BadFile) as caught:
            list(read(list_pool(str(pool))[0], [column]))
        return str(caught.value)

    assert refusal("pixels").endswith("name length/pixels or other/pixels")
    assert len(list(read(file, ["other/pixels"]))) == 1
    assert "did you mean 'length'?" in refusal("lenth/pixels")
    assert "has no column 'pixel' of 0000" in refusal("length/pixel")
    assert "did you mean 'pixels'?" in refusal("pixel")
    os.utime(pool / "0000.parquet", ns=(1, 1))
    said = refusal("length/pixels")
    assert "0000.parquet was made of another" in said and "\n" not in said and "again" in said
    shutil.copy(pool / "0002.parquet", pool / "columns" / "other" / "0000.parquet")
    assert "does not say what made it" in refusal("other/" + SCORE)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    pool = write_random(tmp_path / "pool", 4)
    (pool / "columns").write_text("in the way")
    with pytest.raises(UserError, match=r"columns/length cannot be written: .*columns="):
        scored(pool, Length())
    files = list_pool(str(pool), str(tmp_path / "elsewhere"))
    with Passes(files, None, 1) as passes:
        score_columns(passes, Length())
    assert len(list((tmp_path / "elsewhere" / "length").iterdir())) == 4
    elsewhere = files[0]._replace(made=("https://a.example/pool/columns",))
    why = "https://a.example/pool/columns/length cannot be written: name a local folder"
    with Passes([elsewhere], None, 1) as passes, pytest.raises(UserError, match=why):
        score_columns(passes, Length())


@pytest.mark.parametrize("seed", range(8))
def test_an_exact_number_is_kept_ties_by_uid(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a sort of the whole pool, by score, uid, and the place of the row."""
    pool = write_random(tmp_path / "pool", seed, files=1 if seed == 0 else 4)
    rng = np.random.default_rng(seed)
    if seed % 2:
        monkeypatch.setattr(quantile, "_FEW", 3)
    if seed % 4 > 1:
        monkeypatch.setattr("curate.pool.files.ROWS", 13)
    if seed == 5:  # one score only
        for path in pool.glob("*.parquet"):
            one = pd.read_parquet(path)
            one[SCORE] = np.float32(0.25)
            one.to_parquet(path)
    rows = frame(pool)
    good = rows.uid != "none"
    order = rows[good & rows[SCORE].notna()].assign(place=range(int((good & rows[SCORE].notna()).sum())))
    order[SCORE] = -order[SCORE] + 0.0
    order = order.sort_values([SCORE, "uid", "place"])
    files = list_pool(str(pool))
    for fraction in (0, 0.1, float(rng.random()), 0.5, 0.9, 1):
        asked = int(len(rows) * fraction)
        with Passes(files, tmp_path / "work", 1) as passes:
            found = quantile.best(passes, SCORE, fraction)
        assert (found.asked, found.rows) == (asked, min(asked, len(order)))
        assert quantile.Best.of(found.state()) == found
        kept = kept_by(files, found)
        np.testing.assert_array_equal(np.sort(kept), np.sort(order.index[:asked].to_numpy()))


def kept_by(files: list[File], found: quantile.Best) -> np.ndarray:
    """The rows of the pool that are among the best."""
    kept, start = [], 0
    for file in files:
        for rows in read(file, [SCORE], ["place"]):
            mask = np.zeros(len(rows.good), bool)
            mask[rows.good] = found.keep(rows.table[SCORE].to_numpy(), rows.arrays)
            kept.append(start + np.flatnonzero(mask))
            start += len(rows.good)
    return np.concatenate([*kept, np.zeros(0, int)]).astype(int)


def test_an_exact_number_among_others(tmp_path: Path) -> None:
    pool = write_random(tmp_path / "pool", 9)
    rows = frame(pool)
    of = build({"filter": "clip_score", "arch": "b32", "threshold": 0.2})
    with Passes(list_pool(str(pool)), tmp_path / "work", 2) as passes:
        of.prepare(passes)
        found = quantile.best(passes, SCORE, count=40, among=of)
    among = rows[(rows.uid != "none") & (rows.clip_b32_similarity_score >= 0.2) & rows[SCORE].notna()]
    order = among.assign(score=-among[SCORE] + 0.0, place=range(len(among))).sort_values(["score", "uid", "place"])
    kept = set(kept_by(list_pool(str(pool)), found)) & set(among.index)
    assert kept == set(order.index[:40]) and split_uid(rows.uid[order.index[39]])


def test_a_column_made_otherwise_is_another_one_to_a_selection(tmp_path: Path) -> None:
    """Results of a kept work folder are found again only as long as the column is the same."""
    pool = write_random(tmp_path / "pool", 6)
    scored(pool, Length())

    def threshold() -> tuple[float, int]:
        # A part, as what light functions count is kept for the other parts alone.
        with Passes(list_pool(str(pool)), tmp_path / "work", 1, Part(1, 2)) as passes:
            return quantile.nth_largest(passes, "pixels", 0.3), passes.done

    first, done = threshold()
    assert done and threshold() == (first, 0)
    scored(pool, Length(unit=4.0))
    assert threshold()[0] == first / 4


class _Files(Quiet, http.server.SimpleHTTPRequestHandler):
    """The files below a folder, any part of them, and pages that list them."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


def test_columns_of_a_pool_on_a_web_server_are_read(tmp_path: Path) -> None:
    pool = write_random(tmp_path / "pool", 6)
    with answering(functools.partial(_Files, directory=str(tmp_path)), threading.Event()) as port:  # type: ignore[arg-type]
        far = f"http://127.0.0.1:{port}/pool"
        with pytest.raises(BadFile, match="has no column 'pixels'"):
            list(read(list_pool(far)[0], ["pixels"]))
        scored(pool, Length())
        files = list_pool(far)
        made = sorted((pool / "columns").rglob("*.parquet"))
        for path, file in zip(made, files, strict=True):  # as if they had been made of what the server tells
            table = pq.read_table(path)
            origin = dataclasses.replace(origin_of(path), stamp=file.stamp)
            found = {name: table[name].to_numpy() for name in origin.makes}
            write(path, iter([table["uid"]]), found, origin)
        for name in ("pixels", "length/pixels"):
            forget()
            parts = [table[name].to_numpy() for file in files for table, _ in read_columns(file, [name])]
            near = np.concatenate([pq.read_table(path)["pixels"].to_numpy() for path in made])
            np.testing.assert_array_equal(np.concatenate(parts), near)


ORIGIN = Origin(
    scorer="a", version=2, identity={"b": [1, None]}, makes=["c"], inputs={"d": "e"}, size=3, stamp="f", remake="g"
)


def test_an_origin_is_read_as_it_was_written() -> None:
    assert read_origin(ORIGIN.text()) == ORIGIN and read_origin(ORIGIN.text()).digest() == ORIGIN.digest()
    told = json.loads(ORIGIN.text())
    del told["inputs"]  # which older ones lack
    assert read_origin(json.dumps(told).encode()) == dataclasses.replace(ORIGIN, inputs={})
    for change, named in (
        ({"version": "2"}, "version"),
        ({"size": 3.0}, "size"),
        ({"makes": [1]}, "makes"),
        ({"inputs": {"d": None}}, "inputs"),
        ({"more": 1}, "more"),
    ):
        with pytest.raises(ValueError, match=named):
            read_origin(json.dumps({**told, **change}).encode())
    for text in (b"[]", b"{", b"{}"):
        with pytest.raises(ValueError):
            read_origin(text)
