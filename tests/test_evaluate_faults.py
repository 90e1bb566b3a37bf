"""A fault in one task's data, foreseen or not, is that task's: named, the others evaluated, the exit status not 0."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evalsets import EXTRA_KINDS, ONE_OF_EACH_KIND, scored, write_every_kind, write_extra_kinds

from evaluate import run, stream
from evaluate.cache import Cache
from evaluate.encoder import Encoder
from evaluate.evaluators import EVALUATORS, Evaluator
from evaluate.metrics import METRICS
from tasks import verify
from tasks.registry import KINDS, load_tasks

TASKS = {key: load_tasks()[key] for key in (*ONE_OF_EACH_KIND, *EXTRA_KINDS)}
BY_KIND = {task.kind: key for key, task in reversed(TASKS.items())}
HEALTHY = {"classification": "wilds/iwildcam"}  # what is evaluated beside the damaged task; else EuroSAT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_extra_kinds(write_every_kind(tmp_path_factory.mktemp("every_kind") / "data"))


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> Path:
    """The data as links, so that a test may replace a file."""
    for path in data.rglob("*"):
        if path.is_file():
            link = tmp_path / "data" / path.relative_to(data)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)
    return tmp_path / "data"


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def check_alone(
    kind: str, data: Path, checkpoint: Path, out: Path, capsys: pytest.CaptureFixture[str], **options: Any
) -> str:
    """Evaluate the task of a kind, which is to fail, with another one; the line that says why."""
    key, other = BY_KIND[kind], HEALTHY.get(kind, "vtab/eurosat")
    outcome = scored(checkpoint, data, out, [key, other], **options)
    printed = capsys.readouterr().out
    assert outcome.status == 1 and [line["key"] for line in outcome.lines] == [other], printed
    (line,) = {line for line in printed.splitlines() if line.startswith(f"{key}: failed: ")}
    assert "Traceback" not in printed
    return line


@pytest.mark.parametrize(
    ("kind", "content", "workers"),
    [
        *((kind, content, 0) for kind in KINDS for content in (b"", b"PAR1\xff\xff\xff\xff" * 200)),
        ("retrieval", b"\x00", 1),
        ("winogavil", b"\x00", 1),
    ],
)
def test_damaged_shards(
    kind: str,
    content: bytes,
    workers: int,
    copied: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = copied / TASKS[BY_KIND[kind]].folder
    for shard in [*folder.rglob("*.tar"), *folder.rglob("*.parquet")]:
        replace(shard, content)
    line = check_alone(kind, copied, checkpoint, tmp_path / "out", capsys, workers=workers)
    assert str(folder) in line or ".tar" in line


UNFORESEEN = RuntimeError("something that\nnobody foresaw")


def raising(error: Exception = UNFORESEEN) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["classifiers", "__init__", "add", "end", "predictions"])
def test_an_evaluator_that_fails(
    method: str,
    kind: str,
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluator: type[Evaluator] = EVALUATORS[kind]
    failing = type("Failing", (evaluator,), {method: raising()})
    monkeypatch.setitem(EVALUATORS, kind, failing)
    line = check_alone(kind, data, checkpoint, tmp_path / "out", capsys)
    folder = data / TASKS[BY_KIND[kind]].folder
    assert line.endswith(f"{folder}: RuntimeError: something that")


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_that_fail(
    kind: str,
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(METRICS, kind, raising())
    line = check_alone(kind, data, checkpoint, tmp_path / "out", capsys)
    assert line.endswith("RuntimeError: something that")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["open_task", "read_examples", "finished"])
def test_a_reader_that_fails(
    place: str,
    kind: str,
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = TASKS[BY_KIND[kind]].folder
    module = stream if place == "read_examples" else run
    original = getattr(module, place)

    def fail(*arguments: Any, **options: Any) -> Any:
        if any(folder in str(argument) for argument in arguments) or TASKS[BY_KIND[kind]] in arguments:
            raise UNFORESEEN
        return original(*arguments, **options)

    monkeypatch.setattr(module, place, fail)
    if place == "finished":  # then it is evaluated again
        outcome = scored(checkpoint, data, tmp_path / "out", [BY_KIND[kind]])
        assert outcome.status == 0
        return
    line = check_alone(kind, data, checkpoint, tmp_path / "out", capsys)
    assert str(data / folder) in line and line.endswith("RuntimeError: something that")


def test_prompts_that_cannot_be_encoded_end_their_task(
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = Encoder._encode_classes

    def encode(self: Encoder, classes: Any) -> None:
        if any(name.startswith("thing 150") for name, _ in classes):  # of iWildCam's 182 classes
            raise UNFORESEEN
        original(self, classes)

    monkeypatch.setattr(Encoder, "_encode_classes", encode)
    line = check_alone("iwildcam", data, checkpoint, tmp_path / "out", capsys)
    assert line.endswith("RuntimeError: something that")


def test_a_metric_that_is_no_number_ends_its_task(
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(METRICS, "retrieval", lambda *_: {"mean_recall@1": float("nan")})
    assert "its metric mean_recall@1 is nan" in check_alone("retrieval", data, checkpoint, tmp_path / "out", capsys)


def test_too_little_memory_is_no_fault_of_a_task(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EVALUATORS["classification"], "add", raising(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(ValueError, match="out of memory on cpu; lower batch_size="):
        scored(checkpoint, data, tmp_path / "out", ["vtab/eurosat"])


def test_a_cache_that_fails_ends_the_task_whose_pictures_it_was_to_keep(
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = Cache.put

    def put(self: Cache, name: str, vectors: Any, **notes: Any) -> None:
        if len(notes.get("keys", ())) == 7:  # of the retrieval task's first shard
            raise UNFORESEEN
        original(self, name, vectors, **notes)

    monkeypatch.setattr(Cache, "put", put)
    check_alone("retrieval", data, checkpoint, tmp_path / "out", capsys, cache=str(tmp_path / "cache"))


@pytest.mark.parametrize("place", ["open_task", "read_examples"])
def test_verifying_goes_on_behind_a_fault(
    place: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = TASKS["vtab/eurosat"], TASKS["wilds/iwildcam"]
    original = getattr(verify, place)

    def fail(*arguments: Any, **options: Any) -> Any:
        if first in arguments or first.folder in str(arguments[0]):
            raise UNFORESEEN
        return original(*arguments, **options)

    monkeypatch.setattr(verify, place, fail)
    assert verify.verify([first, second], data, images=False, jobs=1) == 2
    printed = capsys.readouterr().out
    assert f"{data / first.folder}" in printed and "RuntimeError: something that\n" in printed
    assert f"{second.key}: wrong, 41 samples" in printed


def test_every_kind_is_looked_at() -> None:
    assert set(BY_KIND) == set(KINDS) == set(EVALUATORS)
