"""The same subset whatever the workers, the parts and the memory, for every filter."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from selecting import EXAMPLES, curate, selected, write_inputs
from small_wordnet import DEBIAN, editions, needs_wordnet

from poolbench.files import read_json

from curate.models import wordnet
from curate.selectors.registry import names


@pytest.mark.parametrize("name", names())
def test_neither_parts_nor_memory_change_a_subset(
    name: str, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    monkeypatch.setattr(wordnet, "_EDITIONS", wordnet._EDITIONS | editions(tmp_path / "wordnet"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"filter": name, **EXAMPLES[name]}))
    words = (f"filter={recipe}", f"pool={pool}")
    one = selected(tmp_path / "one.npy", *words)
    assert 0 < len(one) < 1000 or name == "no_filter"
    selected(tmp_path / "little.npy", *words, "memory=0.00001")
    for part in (3, 1, 2):
        assert curate(*words, f"out={tmp_path}/parts.npy", f"part={part}/3") == 0
        assert not (tmp_path / "parts.npy").exists()
    calls: list[Any] = []
    monkeypatch.setattr("curate.pool.passes.attempt", lambda function, *_: calls.append(function))
    selected(tmp_path / "parts.npy", *words, "merge=3")
    assert not calls  # the parts have kept all that is known of a file
    for other in ("little", "parts"):
        assert (tmp_path / f"{other}.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
        assert read_json(tmp_path / f"{other}.npy.json") == read_json(tmp_path / "one.npy.json")
    assert not list(tmp_path.glob("*.work"))


def test_workers_do_not_change_what_any_filter_keeps(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    assert_workers_change_nothing(tmp_path, pool, {name: EXAMPLES[name] for name in names() if name != "text_based"})


@needs_wordnet
def test_workers_do_not_change_what_the_text_filter_keeps(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are processes of their own, which take no other WordNet than the real one."""
    monkeypatch.chdir(tmp_path)
    assert_workers_change_nothing(tmp_path, pool, {"text_based": EXAMPLES["text_based"] | {"wordnet": str(DEBIAN)}})


def assert_workers_change_nothing(folder: Path, pool: Path, filters: dict[str, dict[str, Any]]) -> None:
    every = {"filter": "sum", "of": [{"filter": name, **options} for name, options in filters.items()]}
    (folder / "every.yaml").write_text(yaml.safe_dump(every))
    for workers in (1, 2):
        words = ("filter=every.yaml", f"pool={pool}", f"workers={workers}")
        assert len(selected(folder / f"{workers}.npy", *words)) > (1000 if len(filters) > 1 else 0)
    assert (folder / "1.npy").read_bytes() == (folder / "2.npy").read_bytes()
    assert read_json(folder / "1.npy.json") == read_json(folder / "2.npy.json")


def test_parts_share_their_work(pool: Path, tmp_path: Path) -> None:
    """The merge makes nothing anew that the parts have made."""
    words = (
        "filter=clip_score",
        "filter.fraction=0.3",
        f"pool={pool}",
        f"out={tmp_path}/out.npy",
        f"work={tmp_path}/work",
    )
    for part in (1, 2):
        assert curate(*words, f"part={part}/2") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*/*")}
    assert len(list((tmp_path / "work").glob("judge-*/*.uids"))) == 4
    assert curate(*words) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*/*")} == before
