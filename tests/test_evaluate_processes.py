"""Processes that share an evaluation: the numbers of one, whatever their number, and no hanging when one dies."""

import os
import subprocess
from pathlib import Path
from typing import Any

import forked
import pyarrow.parquet as pq
import pytest
from evalsets import (
    MODEL,
    ONE_OF_EACH_KIND,
    Outcome,
    classification_samples,
    same_predictions,
    scored,
    write_checkpoint,
    write_classification,
    write_every_kind,
)

from poolbench.files import read_lines

from evaluate.evaluators.classification import CERTAINTY
from tasks.registry import load_tasks
from tasks.results import FILE, predictions_path

ROOT = Path(__file__).parent.parent
TASKS = load_tasks()
EUROSAT, PETS = "vtab/eurosat", "vtab/pets"
KEYS = [*ONE_OF_EACH_KIND, PETS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt, and data/ with a task of each kind; one has a bad picture, and another one cannot be evaluated."""
    root = tmp_path_factory.mktemp("shared")
    write_checkpoint(root / "model.pt")
    write_every_kind(root / "data")
    samples = classification_samples(61, 10)
    samples[40][1]["png"] = b"no picture"
    write_classification(root / "data", TASKS[EUROSAT], samples, shards=5)
    wrong = classification_samples(37, 37)
    wrong[30][1]["cls"] = b"99"
    write_classification(root / "data", TASKS[PETS], wrong)
    return root


@pytest.fixture(scope="module")
def plain(folder: Path) -> Outcome:
    return scored(folder / "model.pt", folder / "data", folder / "plain", KEYS)


def torchrun(processes: int, folder: Path, out: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command as users type it, for several GPUs."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHON_EXEC": str(forked.interpreter())}
    return forked.run(*launcher, "tests/run_evaluate.py", *settings(folder, out, **options), env=environment)


def shared(processes: int, folder: Path, out: Path, **options: Any) -> tuple[list[int], str, str]:
    """What as many processes come to: their exit statuses, and all that they print."""
    group = forked.world(processes, "tests/run_evaluate.py", *settings(folder, out, **options))
    output, errors = zip(*(process.communicate() for process in group), strict=True)
    return [process.wait() for process in group], "".join(output), "".join(errors)


def settings(folder: Path, out: Path, **options: Any) -> list[str]:
    words = {"model": MODEL, "checkpoint": folder / "model.pt", "data": folder / "data", "out": out, "workers": 0}
    return [*(f"{key}={value}" for key, value in {**words, **options}.items()), f"tasks=[{','.join(KEYS)}]"]


@pytest.mark.slow
def test_the_scores_are_those_of_one_process(folder: Path, plain: Outcome, tmp_path: Path) -> None:
    options = {"batch_size": 7, "workers": 1, "cache": tmp_path / "cache"}
    statuses, output, errors = shared(3, folder, tmp_path / "out", **options)
    assert any(statuses), "a task failed and a picture was bad"
    assert f"{PETS}: failed: 2.tar: s0000030.cls says 99, but there are 37 class names" in output
    assert output.count("8 of 9 tasks have results") == 1, errors[-2000:]
    lines = {line["key"]: line for line in read_lines(tmp_path / "out" / FILE)}
    assert len(lines) == 8
    for key, line in lines.items():
        expected = plain.line(key)
        assert line["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)
        for name in ("samples", "stderr", "bad", "data_digest", "deviations"):
            assert line[name] == expected[name], (key, name)
        found = pq.read_table(predictions_path(tmp_path / "out", key)).to_pydict()
        assert same_predictions({key: found}, {key: plain.predictions[key]})
    _, output, _ = shared(2, folder, tmp_path / "out", **options)
    assert output.count("finished before") == 8 and len(read_lines(tmp_path / "out" / FILE)) == 8


@pytest.mark.slow
def test_a_mistake_ends_all_processes_with_one_line(folder: Path, tmp_path: Path) -> None:
    done = torchrun(2, folder, tmp_path / "out", data=tmp_path / "nowhere")
    assert done.returncode != 0
    assert f"error: data={tmp_path}/nowhere is not a folder" in done.stderr


@pytest.mark.parametrize("options", [{"batch_size": 7}, {"batch_size": 1, "workers": 3}, {"workers": 1}], ids=str)
def test_batches_and_workers_change_nothing(
    options: dict[str, Any], folder: Path, plain: Outcome, tmp_path: Path
) -> None:
    ours = scored(folder / "model.pt", folder / "data", tmp_path, KEYS, **options)
    assert same_predictions(ours.predictions, plain.predictions)
    for key in ONE_OF_EACH_KIND:
        assert ours.line(key)["metrics"] == pytest.approx(plain.line(key)["metrics"], abs=1e-6)
        assert ours.line(key)["stderr"] == plain.line(key)["stderr"]


@pytest.mark.parametrize(("shards", "order"), [(1, 0), (5, 1), (2, 2)])
def test_the_order_of_samples_and_shards_changes_nothing(
    shards: int, order: int, folder: Path, plain: Outcome, tmp_path: Path
) -> None:
    data = write_every_kind(tmp_path / "data", shards=shards, order=order)
    ours = scored(folder / "model.pt", data, tmp_path / "out", ONE_OF_EACH_KIND)
    assert ours.status == 0
    for key in set(ONE_OF_EACH_KIND) - {EUROSAT}:  # which has a bad picture in the other set
        assert ours.line(key)["metrics"] == pytest.approx(plain.line(key)["metrics"], abs=1e-6), key
        if key != "misc/winogavil":  # whose rows have no names of their own
            assert by_key(ours.predictions[key]) == by_key(plain.predictions[key])


def by_key(table: dict[str, list[Any]]) -> dict[str, tuple[Any, ...]]:
    """The rows of a predictions table by sample, but for what depends on which samples it was scored among, if only by
    rounding."""
    columns = [values for name, values in table.items() if name not in ("key", "top_captions", *CERTAINTY)]
    return dict(zip(table["key"], zip(*columns, strict=True), strict=True))


@pytest.mark.slow
def test_the_death_of_a_process_ends_the_evaluation(folder: Path, tmp_path: Path) -> None:
    """The second process is killed when it meets its first shard; the first one says so and does not wait for ever."""
    code = (
        "import os, runpy, signal, evaluate.stream as stream\n"
        "read = stream.EvaluationStream._read\n"
        "def deadly(self, *what):\n"
        "    if os.environ['RANK'] == '1':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    yield from read(self, *what)\n"
        "stream.EvaluationStream._read = deadly\n"
        "runpy.run_path('tests/run_evaluate.py', run_name='__main__')\n"
    )
    (tmp_path / "deadly.py").write_text(code)
    children = forked.world(2, tmp_path / "deadly.py", *settings(folder, tmp_path / "out")[:-1], f"tasks=[{EUROSAT}]")
    _, complaint = children[0].communicate(timeout=600)
    assert children[1].wait(timeout=600) == -9 and children[0].returncode != 0
    assert "a process of this evaluation died" in complaint
