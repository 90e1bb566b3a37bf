"""The cache of embeddings: nothing is computed twice, and nothing stale is ever returned."""

from pathlib import Path
from typing import Any

import pytest
import torch
from evalsets import (
    MODEL,
    Counts,
    Outcome,
    classification_samples,
    puzzles,
    retrieval_samples,
    same_predictions,
    scored,
    write_checkpoint,
    write_classification,
    write_puzzles,
    write_retrieval,
)

from evaluate import cache as module
from evaluate.cache import Cache
from tasks.registry import load_tasks

TASKS = load_tasks()
EUROSAT, FLICKR = "vtab/eurosat", "retrieval/flickr_1k_test_image_text_retrieval"
WINOGAVIL = "misc/winogavil"
KEYS = [EUROSAT, FLICKR, WINOGAVIL]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    samples = classification_samples(23, 10)
    samples[4][1]["png"] = b"no picture"
    write_classification(root, TASKS[EUROSAT], samples)
    write_retrieval(root, TASKS[FLICKR], retrieval_samples(17))
    write_puzzles(root, TASKS[WINOGAVIL], puzzles(12))
    return root


def same(outcome: Outcome, plain: Outcome) -> None:
    assert same_predictions(outcome.predictions, plain.predictions)
    for key in KEYS:
        assert outcome.line(key)["metrics"] == plain.line(key)["metrics"]
        assert outcome.line(key)["bad"] == plain.line(key)["bad"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model.pt")


def test_a_second_run_encodes_nothing(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(monkeypatch)
    plain = scored(checkpoint, data, tmp_path / "plain", KEYS)
    encoded = counts.take()
    cache = str(tmp_path / "cache")
    same(scored(checkpoint, data, tmp_path / "first", KEYS, cache=cache), plain)
    assert counts.take() == encoded
    for number, options in enumerate(({}, {"workers": 2}, {"batch_size": 5})):
        same(scored(checkpoint, data, tmp_path / f"again{number}", KEYS, cache=cache, **options), plain)
        assert counts.take() == (0, 0)


@pytest.mark.parametrize("what", ["weights", "shard", "precision", "library", "classes"])
def test_what_changes_is_encoded_anew(
    what: str, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(monkeypatch)
    cache, options = str(tmp_path / "cache"), {}
    scored(checkpoint, data, tmp_path / "first", KEYS, cache=cache)
    pictures, texts = counts.take()
    folder = data / TASKS[EUROSAT].folder
    if what == "weights":
        write_checkpoint(checkpoint, seed=5)
    if what == "shard":
        write_classification(data, TASKS[EUROSAT], classification_samples(23, 10, seed=1))
        pictures, texts = 23, 0
    if what == "precision":
        options = {"precision": "amp_bf16"}
    if what == "library":
        monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "0")
    if what == "classes":
        (folder / "classnames.txt").write_text("\n".join(f"other {number}" for number in range(10)))
        pictures, texts = 0, 20
    plain = scored(checkpoint, data, tmp_path / "plain", KEYS, **options)
    counts.take()
    same(scored(checkpoint, data, tmp_path / "again", KEYS, cache=cache, **options), plain)
    assert counts.take() == (pictures, texts)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-4], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda _: b""]
)
def test_a_damaged_entry_is_made_anew(
    damage: Any, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    plain = scored(checkpoint, data, tmp_path / "first", KEYS, cache=str(cache))
    entries = sorted(cache.glob("*/*.safetensors"))
    assert len(entries) == 3 + 2 + 1 + 3  # shards of pictures; class names, captions, cues
    for entry in entries:
        entry.write_bytes(damage(entry.read_bytes()))
    same(scored(checkpoint, data, tmp_path / "again", KEYS, cache=str(cache)), plain)
    counts = Counts(monkeypatch)
    same(scored(checkpoint, data, tmp_path / "third", KEYS, cache=str(cache)), plain)
    assert counts.take() == (0, 0)


def test_entries_keep_vectors_and_notes(tmp_path: Path) -> None:
    cache = Cache(tmp_path, ["weights"], torch.device("cpu"))
    vectors = torch.randn(7, 5)
    cache.put(cache.name("pictures", ["a"]), vectors, keys=["ä"])
    entry = cache.get(cache.name("pictures", ["a"]))
    assert (
        entry is not None and torch.equal(torch.from_numpy(entry.vectors), vectors) and entry.notes == {"keys": ["ä"]}
    )
    assert cache.get(cache.name("texts", ["a"])) is None
    assert Cache(tmp_path, ["others"], torch.device("cpu")).name("pictures", ["a"]) != cache.name("pictures", ["a"])


def test_a_cache_that_cannot_be_written_is_told_in_one_line(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cache=.*file cannot be a folder"):
        scored(checkpoint, data, tmp_path / "out", KEYS, cache=str(tmp_path / "file"))
    assert MODEL in capsys.readouterr().out
