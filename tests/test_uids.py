"""Uids as text, as pairs, and in files."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metadata import write_metadata
from pools import write_pool

from poolbench import uids
from poolbench.errors import UserError
from poolbench.subset import Subset
from poolbench.uids import (
    DTYPE,
    find,
    from_texts,
    mapped,
    pieces,
    search,
    split_uid,
    uid_text,
    unsorted_row,
    write_header,
    write_subset,
)

from curate.inspect import InspectOptions, inspected
from curate.reshard.options import ReshardOptions
from curate.reshard.run import reshard
from curate.selectors.registry import build

PAIRS = st.tuples(*[st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])] * 2)  # few, so that there are equals


def test_a_subset_file_is_the_formats(tmp_path: Path) -> None:
    write_subset(tmp_path / "s.npy", ["0" * 15 + "2" + "f" * 16, "0" * 15 + "1" + "0" * 16])
    array = np.load(tmp_path / "s.npy")
    assert array.dtype == DTYPE and array.tolist() == [(1, 0), (2, 2**64 - 1)]
    with (tmp_path / "piecewise.npy").open("wb") as file:
        write_header(file, 2)
        file.write(array[:1].tobytes() + array[1:].tobytes())
    assert (tmp_path / "piecewise.npy").read_bytes() == (tmp_path / "s.npy").read_bytes()


@pytest.mark.parametrize("uid", ["", "abc", "g" * 32, "0" * 33, "0" * 31 + "\n", " " + "0" * 31, None, 5])
def test_malformed_uids_are_refused(uid: object) -> None:
    with pytest.raises(ValueError, match="32 hex digits"):
        split_uid(uid)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^1 uids are not 32 hex digits, the first is ") as told:
        from_texts(["0" * 32, uid])  # type: ignore[list-item]
    assert repr(uid) in str(told.value)


def foreign_subsets(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are taken for a subset, and what each is."""
    texts = [uid_text((n, n)) for n in range(5)]
    pairs = np.array([(n, n) for n in range(5)], np.uint64)
    found = {}

    def add(name: str, told: str, content: Any) -> None:
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            np.save(folder / name, content)
        found[name] = (folder / name, told)

    np.savez(folder / "a.npz", uids=pairs)
    add("b.npz.npy", "is an archive of arrays (.npz)", (folder / "a.npz").read_bytes())
    found["a.npz"] = (folder / "a.npz", "is an archive of arrays (.npz)")
    add("uids.txt", f"is text, which begins '{texts[0]}'", "\n".join(texts).encode())
    add("uids.csv", "is text, which begins 'uid,text'", f"uid,text\n{texts[1]},é\n".encode() * 40)
    add("uids.json", "is JSON, which begins", json.dumps(texts).encode())
    add("uids.parquet", "is a parquet file", b"PAR1" + bytes(100))
    add("uids.pkl", "is a pickle", pickle.dumps(texts))
    add("none.npy", "is an empty file", b"")
    add("noise.npy", "is no .npy", bytes(range(256)))
    add("texts.npy", "holds <U32 [5], not a list of u8,u8 uids", np.array(texts))
    add("objects.npy", "holds Python objects, not a list", np.array(texts, object))
    add("rows.npy", "holds uint64 [5, 2], not a list of u8,u8 uids; np.sort(np.ascontiguousarray(", pairs)
    add("floats.npy", "holds float64 [3]", np.zeros(3))
    return found


def test_what_is_no_subset_is_called_what_it_is(tmp_path: Path) -> None:
    for name, (path, told) in foreign_subsets(tmp_path).items():
        with pytest.raises(UserError, match=re.escape(f"{path} {told}")) as error:
            mapped(path)
        line = str(error.value)
        assert "\n" not in line and "pickled" not in line, name
        assert ("write_subset('mine.npy', uids)" in line) == (name != "rows.npy")
    rows = np.load(tmp_path / "rows.npy")
    np.save(tmp_path / "right.npy", np.sort(np.ascontiguousarray(rows).view("u8,u8").ravel()))
    assert mapped(tmp_path / "right.npy").tolist() == [(n, n) for n in range(5)]


@pytest.mark.parametrize("name", ["uids.txt", "a.npz"])
def test_every_command_says_so(tmp_path: Path, name: str) -> None:
    path, told = foreign_subsets(tmp_path)[name]
    pool = write_metadata(tmp_path / "pool", 1, 10)
    write_pool(tmp_path / "shards", 1, 3)
    for call in (
        lambda: Subset(str(path)),
        lambda: build(str(path)),
        lambda: inspected(str(path), InspectOptions(pool=str(pool))),
        lambda: reshard(ReshardOptions(subset=str(path), shards=str(tmp_path / "shards"), out=str(tmp_path / "out"))),
    ):
        with pytest.raises(UserError, match=re.escape(f"{path} {told}")):
            call()


def test_one_uid_does_not_make_up_for_another() -> None:
    with pytest.raises(ValueError, match=r"^2 uids are not 32 hex digits, the first is '0{31}'; "):
        from_texts(["0" * 31, "0" * 33])


@given(st.lists(PAIRS))
def test_texts_come_back(pairs: list[tuple[int, int]]) -> None:
    texts = [uid_text(pair) for pair in pairs]
    found = from_texts([text.upper() for text in texts])
    assert found.dtype == DTYPE and found.tolist() == pairs == [split_uid(text) for text in texts]
    assert [uid_text(uid) for uid in found] == texts


@given(st.lists(PAIRS, min_size=1), st.lists(PAIRS))
def test_search(held: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    ordered, wanted = np.array(sorted(held), DTYPE), np.array(asked, DTYPE)
    assert search(ordered, wanted).tolist() == [sum(one < pair for one in held) for pair in asked]
    assert search(ordered, wanted, after=True).tolist() == [sum(one <= pair for one in held) for pair in asked]
    assert find(ordered, wanted)[1].tolist() == [held.count(pair) for pair in asked]


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_equals_are_found_across_the_pieces(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uids, "_ROWS", rows)
    held = [(0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (1, 1), (2, 1)]
    found = [
        (piece.start + place, bool(new))
        for piece in pieces(np.array(held, DTYPE))
        for place, new in enumerate(piece.new)
    ]
    assert found == [(row, row in (0, 3, 4, 6)) for row in range(7)]


def test_the_first_row_out_of_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uids, "_ROWS", 3)
    rows = [(0, n) for n in range(20)]
    assert unsorted_row(np.array(rows, DTYPE)) is None
    for wrong in range(1, 20):
        swapped = [*rows[: wrong - 1], rows[wrong], rows[wrong - 1], *rows[wrong + 1 :]]
        assert unsorted_row(np.array(swapped, DTYPE)) == wrong
