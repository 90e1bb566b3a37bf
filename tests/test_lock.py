"""Lock files of the data of tasks: damaged ones, and others than the package has."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_tasks_data import KITTI, TASKS

from poolbench.errors import UserError

from tasks.lock import is_pinned, load_lock, pinned, unpinned


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 1, "tasks": {KITTI: {}}}, "is damaged (KeyError('files')); python -m tasks lock writes it anew"),
        ({"version": 2}, "is not a lock file of version 1"),
        ([], "is not a lock file of version 1"),
    ],
)
def test_a_damaged_lock_file_is_told(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    assert load_lock(path) == {}
    load_lock.cache_clear()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"lock\.json") as error:
        load_lock(path)
    assert message in str(error.value)


def test_another_lock_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_LOCK", str(tmp_path / "mine.json"))
    with pytest.raises(UserError, match=r"mine.json does not exist; python -m tasks lock writes it"):
        pinned(KITTI)
    entry = {"repo": "a/b", "revision": "c", "licence": None, "files": [], "data_digest": "0" * 64}
    (tmp_path / "mine.json").write_text(json.dumps({"version": 1, "tasks": {KITTI: entry}}))
    assert (is_pinned(KITTI, "0" * 64), is_pinned(KITTI, "1" * 64), is_pinned("mnist", "0" * 64)) == (True, False, None)
    assert pinned("demo/twemoji") is not None, "the demo's are pinned with the code"
    assert unpinned([TASKS[KITTI], TASKS["mnist"]]) == (
        "1 of 2 tasks are not pinned: the lock file mine.json does not name them; python -m tasks lock pins them"
    )
