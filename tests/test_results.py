"""A line of results as a file may hold it."""

from pathlib import Path
from typing import Any

import pytest
from runs import result

from poolbench.errors import UserError
from poolbench.files import append_line

from tasks.results import FILE, ResultLine, read_results

LINE = result("run", "mnist", 0.5)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Names of files and members that are not UTF-8 are text with lone surrogates."""
    name = b"caf\xe9.tar".decode(errors="surrogateescape")
    bad = [{"shard": name, "key": "a", "reason": "cannot be decoded"}]
    value = {**LINE, "bad": bad, "deviations": [f"1 unreadable, first: {name}"]}
    line = ResultLine.model_validate(value)
    append_line(tmp_path / FILE, line.model_dump())
    assert read_results(tmp_path / FILE) == [line]
    assert line.model_dump() == {**value, "conventions": None, "prompts": None, "own": None}
    assert read_results(tmp_path / "nowhere") == []


def test_lines_of_earlier_versions_have_no_grade(tmp_path: Path) -> None:
    older = {name: value for name, value in LINE.items() if name not in ("grade", "pinned")}
    append_line(tmp_path / FILE, {**older, "official": True})
    (line,) = read_results(tmp_path / FILE)
    assert (line.grade, line.pinned) == (None, None) and line.regraded().grade == "unverified"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({**LINE, "stder": 0.1}, "unknown key 'stder'; did you mean 'stderr'?"),
        ({name: LINE[name] for name in LINE if name != "samples"}, "the key 'samples' is missing"),
        ({**LINE, "samples": "many"}, "samples: Input should be a valid integer"),
        ({**LINE, "deviations": [3]}, "deviations.0: Input should be a valid string"),
        ({**LINE, "bad": [{"shard": "a", "key": "b"}]}, "bad.0: the key 'reason' is missing"),
        (3, "it is not a mapping of fields"),
    ],
)
def test_a_line_that_is_none_is_named(value: Any, problem: str, tmp_path: Path) -> None:
    append_line(tmp_path / FILE, LINE)
    append_line(tmp_path / FILE, value)
    with pytest.raises(UserError) as caught:
        read_results(tmp_path / FILE)
    expected = f"{tmp_path / FILE}, line 2, is not a line of results: {problem}; mend it or move the file away"
    assert str(caught.value) == expected
