"""Uids as text, as pairs, and in files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf import uids
from conf.uids import (
    DTYPE,
    find,
    from_texts,
    pieces,
    search,
    split_uid,
    uid_text,
    unsorted_row,
    write_header,
    write_subset,
)

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
    with pytest.raises((ValueError, TypeError)):
        from_texts(["0" * 32, uid])  # type: ignore[list-item]


def test_one_uid_does_not_make_up_for_another() -> None:
    with pytest.raises(ValueError, match="another length"):
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
