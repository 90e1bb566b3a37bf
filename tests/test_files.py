"""Files that hold what strangers' data say."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from poolbench import files
from poolbench.errors import UserError
from poolbench.files import append_line, atomic, claimed, json_line, read_lines

_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # of `str.splitlines`


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.text(st.one_of(st.sampled_from(_LINE_ENDS), st.characters())), min_size=1))
@example(list(_LINE_ENDS))
def test_a_text_of_any_letters_is_read_again(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "lines.jsonl"
    path.unlink(missing_ok=True)
    for text in texts:
        append_line(path, {"key": text, text: 1})
    assert read_lines(path) == [{"key": text, text: 1} for text in texts]
    if not any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):  # which UTF-8 does not have
        with atomic(path) as file:
            file.writelines(json_line(text) for text in texts)
        assert read_lines(path) == texts


def test_only_a_line_without_an_end_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for left in (b'{"key": "a\xe2\x80', b'{"key": "\xe2\x80\xa8"', b"2\x85"):
        path.write_bytes(b"1\n" + left)
        assert read_lines(path) == [1]
        path.write_bytes(b"1\r\n" + left + b"\n")
        with pytest.raises(UserError, match=r"lines.jsonl, line 2, is not JSON"):
            read_lines(path)


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_line_that_names_a_key_twice_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"a": 1, "b": {"c": 2, "c": 3}}' + end)
    with pytest.raises(UserError, match=r"lines.jsonl, line 2: c: the key is there twice$"):
        read_lines(path)


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe.jpg", "café 漢字.jpg".encode()])
def test_a_line_holds_a_name_that_is_not_utf8(tmp_path: Path, name: bytes) -> None:
    value = {"key": os.fsdecode(name)}  # as tarfile and the file system give it
    path = tmp_path / "lines.jsonl"
    append_line(path, value)
    append_line(path, {"key": "next"})
    assert read_lines(path) == [value, {"key": "next"}]
    assert json.loads(path.read_bytes().splitlines()[0]) == value


def test_a_folder_that_went_while_it_was_waited_for_is_claimed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the process before takes its work folder away, and the lock with it."""
    folder, locked, tries = tmp_path / "work", files._locked, list[bool]()

    def after_the_other(file: IO[str], kind: int) -> bool:
        if not tries:
            shutil.rmtree(folder)
        tries.append(locked(file, kind))
        return tries[-1]

    monkeypatch.setattr(files, "_locked", after_the_other)
    with claimed(folder):
        assert tries == [True, True] and (folder / ".lock").is_file()
        process = os.fork()
        if process == 0:  # another process finds the folder taken
            with (folder / ".lock").open("a+") as file:
                os._exit(int(locked(file, fcntl.LOCK_EX)))
        assert os.waitpid(process, 0)[1] == 0
