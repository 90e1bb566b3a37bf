"""Files that hold what strangers' data say."""

import json
import os
from pathlib import Path

import pytest

from conf.files import append_line, read_lines


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe.jpg", "café 漢字.jpg".encode()])
def test_a_line_holds_a_name_that_is_not_utf8(tmp_path: Path, name: bytes) -> None:
    value = {"key": os.fsdecode(name)}  # as tarfile and the file system give it
    path = tmp_path / "lines.jsonl"
    append_line(path, value)
    append_line(path, {"key": "next"})
    assert read_lines(path) == [value, {"key": "next"}]
    assert json.loads(path.read_bytes().splitlines()[0]) == value
