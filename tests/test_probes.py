"""Probes: what an evaluation makes and leaves of them, and what verify and compare tell."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from evalsets import (
    MODEL,
    Counts,
    Outcome,
    classification_samples,
    retrieval_samples,
    scored,
    training_samples,
    write_checkpoint,
    write_classification,
    write_retrieval,
    write_train,
)
from sklearn.linear_model import LogisticRegression

from poolbench.errors import UserError
from poolbench.files import append_line, read_json, read_lines
from poolbench.models.clip import load

from evaluate.compare import CompareOptions, compare_named
from evaluate.config import EvaluateConfig
from evaluate.embedder import OpenClip
from evaluate.encoder import Encoder
from evaluate.probes import lp_plus
from evaluate.probes.draws import Draw
from evaluate.probes.search import GRID
from evaluate.run import run
from tasks.examples import Example
from tasks.probes import FILE, ProbeLine, read_probes
from tasks.readers import open_data, open_labelled, read_examples
from tasks.registry import load_tasks
from tasks.results import FILE as RESULTS
from tasks.verify import verify

TASKS = load_tasks()
EUROSAT, PETS, STL = "vtab/eurosat", "vtab/pets", "stl10"
FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"
WITHIN = 0.003  # of an accuracy: what may lie between a probe and an independent one


def write_data(root: Path, *, shards: int = 2) -> Path:
    """A task with a training split, in which two pictures of its test split are; one without; one of another kind."""
    samples = classification_samples(23, 10)
    write_classification(root, TASKS[EUROSAT], samples)
    both = [*training_samples(60), *((f"leak{key}", members) for key, members in samples[:2])]
    write_train(root, TASKS[EUROSAT], both, shards=shards)
    write_classification(root, TASKS[PETS], classification_samples(12, 37))
    write_retrieval(root, TASKS[FLICKR], retrieval_samples(9))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


PROBES: dict[str, Any] = {"probes": ["linear", 4, "lp++2"], "probe_draws": 2}


@pytest.fixture(scope="module")
def first(data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("first")
    return out, scored(checkpoint, data, out, [EUROSAT, PETS, FLICKR], **PROBES)


def probed(out: Path) -> dict[str, ProbeLine]:
    lines = {line.probe: line for line in read_probes(out / FILE)}
    assert len(lines) == len(read_probes(out / FILE)), "a probe was trained twice"
    return lines


def told(line: ProbeLine) -> dict[str, Any]:
    """A line without what a clock says, and with metrics that may differ by rounding."""
    return line.model_dump(exclude={"seconds"})


def test_a_line_holds_all_that_a_reader_needs(first: tuple[Path, Outcome], data: Path) -> None:
    out, outcome = first
    lines = probed(out)
    assert outcome.status == 0 and set(lines) == {"linear", "4", "lp++2"}
    zero_shot = outcome.line(EUROSAT)
    for line in lines.values():
        assert (line.key, line.dataset, line.samples, line.train_samples) == (EUROSAT, "EuroSAT", 23, 62)
        assert line.data_digest == zero_shot["data_digest"] != line.train_digest
        assert line.checkpoint_sha256 == zero_shot["checkpoint_sha256"] and line.model == MODEL
        assert line.leaked == 2 and line.bad == []
        assert line.seeds == [draw.seed for draw in line.draws]
        assert line.metrics["main_metric"] == line.metrics["acc1"] is not None
        values = [draw.metrics["acc1"] for draw in line.draws]
        assert line.metrics["acc1"] == pytest.approx(np.mean(values))  # type: ignore[arg-type]
    assert lines["linear"].seeds == [0] and lines["linear"].sd["acc1"] is None
    assert lines["linear"].draws[0].train == 62
    assert lines["4"].seeds == [0, 1] and [draw.train for draw in lines["4"].draws] == [40 - missing(data, 4)] * 2
    assert lines["4"].sd["acc1"] == pytest.approx(np.std([draw.metrics["acc1"] for draw in lines["4"].draws], ddof=1))
    assert all(draw.weight_decay in GRID for draw in lines["4"].draws)
    assert all(draw.weight_decay is None for draw in lines["lp++2"].draws)


def missing(data: Path, shots: int) -> int:
    """By how many pictures the classes fall short of so many, once a tenth of each is put aside."""
    labels = [int(members["cls"]) for _, members in training_samples(60)] + [0, 1]
    counts = {label: count - max(1, round(0.1 * count)) for label, count in Counter(labels).items()}
    return sum(max(0, shots - counts.get(label, 0)) for label in range(10))


def test_the_numbers_are_those_of_the_same_features_by_another_hand(
    first: tuple[Path, Outcome], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Features of the plain encoder, shots as told by the draw, scikit-learn for the fit."""
    out, _ = first
    encoder = Encoder(OpenClip(load(MODEL, str(checkpoint)), MODEL, torch.device("cpu"), "fp32", 32))
    task = TASKS[EUROSAT]
    found = []
    for here in (open_data(task, data), open_labelled(data / task.folder, "train")):
        examples = [one for shard in here.shards for one in read_examples(shard, frozenset({"label"}), 10)]
        assert all(isinstance(one, Example) for one in examples)
        pixels = torch.stack([encoder.pixels(one.image) for one in examples])  # type: ignore[union-attr]
        labels = np.array([one.label for one in examples])  # type: ignore[union-attr]
        found.append(([one.key for one in examples], encoder.encode_images(pixels).double().numpy(), labels))  # type: ignore[union-attr]
    (_, test, truth), (keys, train, labels) = found
    for probe, line in probed(out).items():
        if line.head != "linear":
            continue
        for result in line.draws:
            draw = Draw(keys, labels, result.seed)
            rows = np.arange(len(keys)) if probe == "linear" else draw.training(line.shots)
            assert result.weight_decay is not None
            plain = LogisticRegression(C=1 / result.weight_decay, tol=1e-8, max_iter=20_000).fit(
                train[rows], labels[rows]
            )
            right = np.mean(plain.classes_[plain.decision_function(test).argmax(axis=1)] == truth)
            assert result.metrics["acc1"] == pytest.approx(right, abs=1 / 23 + WITHIN)


@pytest.mark.parametrize("options", [{"workers": 2, "batch_size": 5}, {"cache": "cache"}], ids=str)
def test_workers_batches_and_the_cache_change_nothing(
    options: dict[str, Any], first: tuple[Path, Outcome], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    if "cache" in options:
        options = {"cache": str(tmp_path / "cache")}
    scored(checkpoint, data, tmp_path / "out", [EUROSAT], **PROBES, **options)
    for probe, line in probed(tmp_path / "out").items():
        before = probed(first[0])[probe]
        assert line.metrics == pytest.approx(before.metrics, abs=1 / 23 + 1e-6)
        assert [draw.train for draw in line.draws] == [draw.train for draw in before.draws]
    assert not probe_folders(tmp_path / "out")


def test_the_order_of_shards_changes_nothing(first: tuple[Path, Outcome], checkpoint: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", shards=5)
    samples = [*training_samples(60), *((f"leak{key}", members) for key, members in classification_samples(23, 10)[:2])]
    write_train(data, TASKS[EUROSAT], samples[::-1], shards=5)
    scored(checkpoint, data, tmp_path / "out", [EUROSAT], **PROBES)
    for probe, line in probed(tmp_path / "out").items():
        before = probed(first[0])[probe]
        assert [(draw.seed, draw.weight_decay, draw.metrics) for draw in line.draws] == [
            (draw.seed, draw.weight_decay, draw.metrics) for draw in before.draws
        ]
        assert line.train_digest != before.train_digest and line.data_digest == before.data_digest


def test_a_part_probes_the_tasks_that_it_has(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    write = {"probes": "1", "probe_draws": 1}
    for part in ("1/2", "2/2"):
        scored(checkpoint, data, tmp_path, [EUROSAT, PETS], part=part, **write)
    assert [line.key for line in read_probes(tmp_path / FILE)] == [EUROSAT]


def probe_folders(out: Path) -> list[Path]:
    return list(out.glob(".probes*"))


def test_each_picture_is_encoded_once(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For zero-shot and all probes together, without cache= too; and that leaves nothing behind."""
    counts = Counts(monkeypatch)
    scored(checkpoint, data, tmp_path / "out", [EUROSAT], **PROBES)
    assert counts.pictures == 23 + 62 and not probe_folders(tmp_path / "out")
    scored(checkpoint, data, tmp_path / "plain", [EUROSAT])
    assert counts.pictures == 23 + 62 + 23 and not (tmp_path / "plain" / FILE).exists()


def test_what_is_finished_is_found_again(
    first: tuple[Path, Outcome],
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    shutil.copytree(first[0], out)
    counts = Counts(monkeypatch)
    scored(checkpoint, data, out, [EUROSAT], **PROBES)
    assert counts.pictures == 0 and [told(line) for line in probed(out).values()] == [
        told(line) for line in probed(first[0]).values()
    ]
    printed = capsys.readouterr().out
    assert "lp++2" in printed and "± sd" in printed, "the table has what was there before"
    scored(checkpoint, data, out, [EUROSAT], probes=["linear", 1], probe_draws=1)
    assert [line.probe for line in read_probes(out / FILE)] == ["linear", "4", "lp++2", "1"]


@pytest.mark.parametrize("what", ["train", "test", "weights", "seed", "draws"])
def test_what_changed_is_trained_afresh(what: str, data: Path, checkpoint: Path, tmp_path: Path) -> None:
    root, out, weights = tmp_path / "data", tmp_path / "out", tmp_path / "model.pt"
    shutil.copytree(data / TASKS[EUROSAT].folder, root / TASKS[EUROSAT].folder)
    shutil.copy(checkpoint, weights)
    options: dict[str, Any] = {"probes": "1", "probe_draws": 1}
    scored(weights, root, out, [EUROSAT], **options)
    if what == "train":
        write_train(root, TASKS[EUROSAT], training_samples(61))
    if what == "test":
        shutil.rmtree(root / TASKS[EUROSAT].folder / "test")
        shutil.move(root / TASKS[EUROSAT].folder / "train", tmp_path / "train")
        write_classification(root, TASKS[EUROSAT], classification_samples(24, 10))
        shutil.move(tmp_path / "train", root / TASKS[EUROSAT].folder / "train")
    if what == "weights":
        write_checkpoint(weights, seed=5)
    options |= {"seed": {"probe_seed": 1}, "draws": {"probe_draws": 2}}.get(what, {})
    scored(weights, root, out, [EUROSAT], **options)
    assert len(read_probes(out / FILE)) == 2


def test_a_crash_between_probes_loses_no_finished_one(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the embeddings are still there."""
    fit, out = lp_plus.fit, tmp_path / "out"

    def killed(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(lp_plus, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        scored(checkpoint, data, out, [EUROSAT], **PROBES)
    assert set(probed(out)) == {"linear", "4"} and probe_folders(out)
    monkeypatch.setattr(lp_plus, "fit", fit)
    counts = Counts(monkeypatch)
    scored(checkpoint, data, out, [EUROSAT], **PROBES)
    assert set(probed(out)) == {"linear", "4", "lp++2"}
    assert counts.pictures == 0 and not probe_folders(out)


@pytest.mark.slow
def test_processes_that_share_the_work_find_the_same(
    first: tuple[Path, Outcome], data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = [f"model={MODEL}", f"checkpoint={checkpoint}", f"data={data}", f"out={tmp_path}", "workers=0"]
    group = forked.world(
        2, "tests/run_evaluate.py", *words, f"tasks=[{EUROSAT}]", "probes=[linear,4,lp++2]", "probe_draws=2"
    )
    _, errors = zip(*(process.communicate(timeout=900) for process in group), strict=True)
    assert [process.wait() for process in group] == [0, 0], errors
    for probe, line in probed(tmp_path).items():
        before = probed(first[0])[probe]
        assert line.metrics["acc1"] == pytest.approx(before.metrics["acc1"], abs=1 / 23 + 1e-6)
        assert (line.data_digest, line.train_digest, line.leaked) == (before.data_digest, before.train_digest, 2)
        assert [draw.train for draw in line.draws] == [draw.train for draw in before.draws]
    assert not probe_folders(tmp_path)


def test_what_has_no_training_split_is_told_and_no_failure(
    first: tuple[Path, Outcome], data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = scored(checkpoint, data, tmp_path, [PETS, FLICKR], probes="linear")
    printed = capsys.readouterr().out
    assert outcome.status == 0 and len(outcome.lines) == 2 and not (tmp_path / FILE).exists()
    assert (
        f"{PETS}: no probes, as it has no training split: {data / TASKS[PETS].folder / 'train'} does not exist"
        in printed
    )
    assert f"{FLICKR}: no probes" not in printed


def test_leaked_pictures_and_short_classes_are_told(
    first: tuple[Path, Outcome], data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(checkpoint, data, tmp_path, [EUROSAT], probes="[linear,16]", probe_draws=1)
    printed = capsys.readouterr().out
    assert f"{EUROSAT}: 2 of 23 test pictures are in the training split, too" in printed
    assert f"{EUROSAT}: 10 classes have fewer than 16 training pictures, and gave all" in printed
    assert probed(tmp_path)["16"].short_classes == 10 and probed(tmp_path)["linear"].short_classes == 0


def test_classes_that_the_training_split_lacks_are_told(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data / TASKS[EUROSAT].folder, root / TASKS[EUROSAT].folder)
    some = [one for one in training_samples(60) if one[1]["cls"] not in (b"3", b"9")]
    write_train(root, TASKS[EUROSAT], some)
    outcome = scored(checkpoint, root, tmp_path / "out", [EUROSAT], probes="[linear,1]", probe_draws=1)
    printed = capsys.readouterr().out
    assert outcome.status == 0 and f"{EUROSAT}: 2 classes have no training picture, so that none is" in printed
    assert {key: line.short_classes for key, line in probed(tmp_path / "out").items()} == {"linear": 2, "1": 2}


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "train" / "1.tar").unlink(), "1.tar is missing"),
        (lambda folder: (folder / "train" / "nshards.txt").unlink(), "nshards.txt is missing"),
        (lambda folder: (folder / "train" / "0.tar").write_bytes(b""), None),
    ],
)
def test_a_damaged_training_split_fails_its_own_task_alone(
    spoil: Any, complaint: str | None, data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)
    write_classification(root, TASKS[STL], classification_samples(12, 10))
    write_train(root, TASKS[STL], training_samples(30))
    spoil(root / TASKS[EUROSAT].folder)
    outcome = scored(checkpoint, root, tmp_path / "out", [EUROSAT, STL], probes="2", probe_draws=1)
    lines = read_probes(tmp_path / "out" / FILE)
    assert len(outcome.lines) == 2 and {line.key for line in lines} >= {STL}
    assert outcome.status == 1
    if complaint is not None:
        assert complaint in capsys.readouterr().out and {line.key for line in lines} == {STL}
    else:
        assert [bad.shard for bad in next(line for line in lines if line.key == EUROSAT).bad] == ["train/0.tar"]


@pytest.mark.parametrize("what", ["label", "single"])
def test_what_cannot_be_trained_on_is_told_in_a_line(
    what: str, data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data / TASKS[EUROSAT].folder, root / TASKS[EUROSAT].folder)
    samples = training_samples(10)
    if what == "label":
        samples[3][1]["cls"] = b"10"
    write_train(root, TASKS[EUROSAT], samples)
    outcome = scored(checkpoint, root, tmp_path / "out", [EUROSAT], probes="1", probe_draws=1)
    printed = capsys.readouterr().out
    expected = {"label": ".cls says 10, but there are 10 class names", "single": "no class has two training pictures"}
    assert outcome.status == 1 and expected[what] in printed and not (tmp_path / "out" / FILE).exists()
    assert len(read_lines(tmp_path / "out" / RESULTS)) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_verify_counts_the_training_split_and_what_it_gives_away(
    jobs: int, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TASKS[EUROSAT].model_copy(update={"samples": 23})
    verify([task], data, images=True, jobs=jobs)
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(EUROSAT)]
    assert "23 samples, 10 classes, 62 samples to train probes on, 2 test pictures among them, not pinned" in told


def test_verify_says_what_is_wrong_in_a_training_split(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, task = tmp_path / "data", TASKS[EUROSAT].model_copy(update={"samples": 23})
    shutil.copytree(data / task.folder, root / task.folder)
    samples = training_samples(14)
    samples[3][1]["png"] = b"no picture"
    write_train(root, task, samples, shards=1)
    assert verify([task], root, images=True, jobs=1) == 1
    printed = capsys.readouterr().out
    assert "train/0.tar ts0000003: the picture cannot be decoded" in printed
    assert "14 samples to train probes on" in printed and "test pictures among them" not in printed
    write_train(root, task, [*training_samples(3), training_samples(1)[0]], shards=2)
    verify([task], root, images=False, jobs=1)
    printed = capsys.readouterr().out
    assert "train: 1 keys occur more than once, the first is ts0000000" in printed
    assert "7 classes without one" in printed
    (root / task.folder / "train" / "1.tar").unlink()
    assert verify([task], root, images=False, jobs=1) == 1
    assert "1.tar is missing: train/nshards.txt says" in capsys.readouterr().out


def test_models_are_compared_probe_by_probe(
    first: tuple[Path, Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """B's draws lie .1, .3 above A's; one probe of B was trained on other data, one is A's alone."""
    (tmp_path / "b").mkdir()
    shutil.copy(first[0] / RESULTS, tmp_path / "b" / RESULTS)
    shutil.copytree(first[0] / "predictions", tmp_path / "b" / "predictions")
    lines = probed(first[0])
    values = [draw.metrics["main_metric"] or 0.0 for draw in lines["4"].draws]
    higher = [value + gain for value, gain in zip(values, (0.1, 0.3), strict=True)]
    told = lines["4"].model_dump()
    told["metrics"]["main_metric"] = sum(higher) / 2
    for draw, value in zip(told["draws"], higher, strict=True):
        draw["metrics"]["main_metric"] = value
    for line in (told, {**lines["linear"].model_dump(), "train_digest": "0" * 64}):
        append_line(tmp_path / "b" / FILE, line)
    compare_named([str(first[0]), str(tmp_path / "b")], CompareOptions(json=str(tmp_path / "c.json")))
    printed = capsys.readouterr().out
    (row,) = [line.split() for line in printed.splitlines() if line.startswith(f"{EUROSAT}  4 ")]
    assert row[-3:] == ["+0.2000", f"{0.2 / np.sqrt(2):.4f}", "2"]
    assert f"not comparable: {EUROSAT}, probe linear: A and B were trained or tested on different data" in printed
    found = read_json(tmp_path / "c.json")
    assert [one["probe"] for one in found["probes"]] == ["4"]
    assert found["probes"][0]["difference"] == pytest.approx(0.2) and list(found["probes_not_comparable"])
    assert len(found["overall"]) == 1 and found["overall"][0]["difference"] == 0, "no mean moves"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"probes": "lin"}, "probes=lin is none"),
        ({"probes": "linear", "limit": 3}, "probes= and limit= do not go together"),
        ({"probes": "1", "probe_draws": 0}, "probe_draws= is at least 1"),
        ({"probes": "1", "probe_seed": -1}, "probe_seed= at least 0"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], complaint: str, data: Path, checkpoint: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        run(EvaluateConfig(model=MODEL, checkpoint=str(checkpoint), data=str(data), out="x", **options))


def test_a_file_of_something_else_is_refused(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"key": "a"}\n')
    with pytest.raises(UserError, match=r"probe_results.jsonl, line 1, is not a line of probes"):
        scored(checkpoint, data, tmp_path, [EUROSAT], probes="1")
