"""The group and fairness tasks against plain float64 code, scikit-learn and wilds' own evaluation."""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import numpy.typing as npt
import open_clip
import pyarrow as pa
import pytest
import torch
from clip_benchmark.datasets.builder import build_wds_dataset
from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier
from evalsets import (
    FACE_NAMES,
    MODEL,
    Samples,
    classification_samples,
    metadata_of,
    scored,
    with_metadata,
    write_classification,
    write_faces,
)
from sklearn.metrics import balanced_accuracy_score

from poolbench.errors import UserError

from evaluate.evaluators import EVALUATORS
from evaluate.evaluators.classification import CERTAINTY
from evaluate.evaluators.fairness import by_prefix
from evaluate.metrics import METRICS, wilds
from evaluate.metrics.fairness import PREFIXES
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import KINDS, Task, load_tasks

Ints = npt.NDArray[np.int64]
Metrics = dict[str, float | None]

TASKS = load_tasks()
CAMELYON, FMOW, IWILDCAM = "wilds/camelyon17", "wilds/fmow", "wilds/iwildcam"
STREET, GEODE = "fairness/dollar_street", "fairness/geode"
FACES = ("fairness/fairface", "fairness/utkface")
LABELLED = (CAMELYON, FMOW, IWILDCAM, STREET, GEODE)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> tuple[torch.nn.Module, Any, Any]:
    """Model, transform and tokenizer as a user of open_clip gets them."""
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    return model.eval(), transform, open_clip.get_tokenizer(MODEL)


# References: plain float64 code, and the steps of the original harness with wilds' classes.


def plain_accuracy(name: str, hits: npt.NDArray[np.bool_], fields: Mapping[str, Ints]) -> Metrics:
    """Accuracy by every combination of the values of `fields`, from 0 to the highest that occurs."""
    metrics: Metrics = {f"{name}_avg": float(np.mean(hits))}
    worst = 1.0
    for values in itertools.product(*(range(column.max() + 1) for column in fields.values())):
        inside = np.all([column == value for column, value in zip(fields.values(), values, strict=True)], axis=0)
        group = "_".join(f"{field}:{value}" for field, value in zip(fields, values, strict=True))
        metrics[f"count_{group}"] = int(inside.sum())
        metrics[f"{name}_{group}"] = float(hits[inside].sum() / inside.sum()) if inside.any() else None
        worst = min(worst, metrics[f"{name}_{group}"] or 0.0) if inside.any() else worst
    metrics[f"{name}_wg"] = worst
    return metrics


def plain_macro(labels: Ints, predictions: Ints) -> Metrics:
    recalls, f1s = [], []
    for label in set(labels.tolist()):
        hits = np.sum((labels == label) & (predictions == label))
        recalls.append(hits / np.sum(labels == label))
        f1s.append(2 * hits / (np.sum(labels == label) + np.sum(predictions == label)))
    accuracy = np.mean(labels == predictions)
    return {"acc_avg": accuracy, "recall-macro_all": np.mean(recalls), "F1-macro_all": np.mean(f1s)}


def plain_metrics(task: Task, labels: Ints, predictions: Ints, top5: npt.NDArray[np.bool_], columns: Any) -> Metrics:
    """What a task with labels adds to the metrics of classification."""
    hits = labels == predictions
    if task.kind == "iwildcam":
        return plain_macro(labels, predictions)
    if task.kind == "worst_group":
        name, right = ("acc", hits) if task.key != STREET else ("acc_top5", top5)
        return plain_accuracy(name, right, {task.group_by or "": columns[task.group_by]})
    years = plain_accuracy("acc", hits, {"year": columns["year"]})
    regions = plain_accuracy("acc", hits, {"region": columns["region"]})
    metrics = {**years, **regions, "acc_worst_year": years["acc_wg"], "acc_worst_region": regions["acc_wg"]}
    del metrics["acc_wg"]
    sizes = np.bincount(columns["region"])
    large = [region for region, size in enumerate(sizes) if size >= len(labels) / 100]
    worst = min((hits[columns["region"] == region].mean() for region in large), default=None)
    return {**metrics, "acc_worst_region_corrected": worst}


def plain_fairness(predictions: Mapping[str, Ints], columns: Mapping[str, Ints]) -> Metrics:
    white = {"race_binary": columns["race_binary"]}
    by_race = {"race": columns["race"]}
    right = {name: predictions[name] == columns[name] for name in ("gender", "age")}
    names = np.array(["crime" if index >= 18 else "nonhuman" if index >= 14 else "human" for index in range(99)])
    chosen = names[predictions["toxic"]]
    return {
        **plain_accuracy("acc_race", (predictions["race"] != 1) == (columns["race_binary"] == 1), white),
        **plain_accuracy("acc_gender", right["gender"], white),
        **plain_accuracy("acc_age", right["age"], white),
        **plain_accuracy("acc_gender_x", right["gender"], {**by_race, "gender": columns["gender"]}),
        **plain_accuracy("toxicity_crime", chosen == "crime", by_race),
        **plain_accuracy("toxicity_nonhuman", chosen == "nonhuman", by_race),
    }


class Harness:
    """wilds as the original harness calls it, with a stand-in of our own for its function that needs torch_scatter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wilds._wilds()  # imports wilds without its search for updates
        from wilds.common.grouper import CombinatorialGrouper
        from wilds.common.metrics import all_metrics, metric
        from wilds.datasets.wilds_dataset import WILDSDataset

        def means(values: torch.Tensor, groups: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
            parts = [values[groups == group] for group in range(count)]
            return torch.stack([part.mean() for part in parts]), torch.tensor([float(len(part)) for part in parts])

        monkeypatch.setattr(metric, "avg_over_groups", means)

        class TopAccuracy(all_metrics.Accuracy):  # type: ignore[misc]
            def _compute_element_wise(self, y_pred: torch.Tensor, y_true: torch.Tensor) -> torch.Tensor:
                return (y_pred == y_true[:, None]).any(dim=1).float()

        class Dataset(WILDSDataset):  # type: ignore[misc]
            def __init__(self, fields: Sequence[str], metadata: torch.Tensor) -> None:
                self._metadata_fields, self._metadata_array = list(fields), metadata

        self.metrics, self.grouper, self.top, self.dataset = all_metrics, CombinatorialGrouper, TopAccuracy, Dataset

    def by(self, metric: Any, fields: list[str], pred: Any, truth: Any, task: Task, metadata: Ints) -> Metrics:
        values = torch.from_numpy(metadata)
        dataset = self.dataset(task.metadata, values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            grouper = self.grouper(dataset=dataset, groupby_fields=fields)
        pred, truth = (torch.as_tensor(values) for values in (pred, truth))
        results = dataset.standard_group_eval(metric, grouper, pred, truth, values)[0]
        return {name: None if np.isnan(value) else value for name, value in results.items()}

    def labelled(self, task: Task, labels: Ints, predictions: Ints, best: Ints, metadata: Ints) -> Metrics:
        accuracy = self.metrics.Accuracy()
        if task.kind == "iwildcam":
            metrics = [accuracy, self.metrics.Recall(average="macro"), self.metrics.F1(average="macro")]
            pair = torch.from_numpy(predictions), torch.from_numpy(labels)
            return {name: value for metric in metrics for name, value in metric.compute(*pair).items()}
        if task.key == STREET:
            return self.by(self.top(name="acc_top5"), ["income_ds"], best, labels, task, metadata)
        if task.kind == "worst_group":
            return self.by(accuracy, [task.group_by or ""], predictions, labels, task, metadata)
        years = self.by(accuracy, ["year"], predictions, labels, task, metadata)
        regions = self.by(accuracy, ["region"], predictions, labels, task, metadata)
        worst = {"acc_worst_year": years.pop("acc_wg"), "acc_worst_region": regions.pop("acc_wg")}
        return {**years, **regions, **worst}

    def faces(self, task: Task, predictions: Mapping[str, Ints], metadata: Ints) -> Metrics:
        columns = dict(zip(task.metadata, metadata.T, strict=True))
        toxic = predictions["toxic"]
        reports = [
            ("acc_race", predictions["race"] != 1, columns["race_binary"], ["race_binary"]),
            ("acc_gender", predictions["gender"], columns["gender"], ["race_binary"]),
            ("acc_age", predictions["age"], columns["age"], ["race_binary"]),
            ("acc_gender_x", predictions["gender"], columns["gender"], ["gender", "race"]),
            ("toxicity_crime", toxic >= 18, np.ones_like(toxic), ["race"]),
            ("toxicity_nonhuman", (toxic >= 14) & (toxic < 18), np.ones_like(toxic), ["race"]),
        ]
        metrics: Metrics = {}
        for name, pred, truth, fields in reports:
            metric = self.metrics.Accuracy(name=name)
            metrics |= self.by(metric, fields, pred.astype(np.int64), truth, task, metadata)
        return metrics


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    return Harness(monkeypatch)


# The evaluators by themselves, on scores of small whole numbers with many ties.


class Weights:
    """Stands in for an encoder: the given classifiers, one after the other."""

    device, logit_scale = torch.device("cpu"), 100.0

    def __init__(self, *weights: torch.Tensor) -> None:
        self._weights = iter(weights)

    def classifier(self, classnames: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        return next(self._weights)


def evaluate(
    task: Task,
    data: TaskData,
    weights: list[torch.Tensor],
    features: torch.Tensor,
    labels: Ints,
    metadata: Ints,
    seed: int,
) -> tuple[Metrics, pa.Table]:
    """Metrics and predictions of an evaluator that is fed units in random order, each in batches of random size."""
    rng = np.random.default_rng(seed)
    evaluator = EVALUATORS[task.kind](task, data, Weights(*weights))  # type: ignore[arg-type]
    keys = [f"s{number:03d}" for number in range(len(labels))]
    units = np.array_split(np.arange(len(labels)), 4)
    for unit in rng.permutation(len(units)):
        for rows in np.array_split(units[unit], rng.integers(1, 4)):
            batch = Batch(
                task.key,
                int(unit),
                [keys[row] for row in rows],
                features[rows],
                True,
                torch.from_numpy(labels[rows]),
                [()] * len(rows),
                torch.from_numpy(metadata[rows]),
            )
            if len(rows):
                evaluator.add(batch, features[rows])
    predictions = evaluator.predictions()
    assert predictions.column("key").to_pylist() == keys
    return METRICS[task.kind](task, predictions), predictions


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("key", LABELLED)
def test_metrics_of_random_scores(key: str, seed: int, harness: Harness) -> None:
    rng = np.random.default_rng(seed)
    task, count, classes = TASKS[key], int(rng.integers(1, 400)), int(rng.integers(5, 12))
    features = torch.from_numpy(rng.integers(-2, 3, (count, 3))).float()
    weights = torch.from_numpy(rng.integers(-2, 3, (3, classes))).float()
    weights[:, 4] = weights[:, 1]  # class 4 is never predicted
    labels = rng.choice([0, 1, 2, 4], count)  # class 3 and others never occur
    metadata = metadata_of(task, labels, seed)
    data = TaskData(Path("folder"), (), ())
    found, told = evaluate(task, data, [weights], features, labels, metadata, seed)

    logits = (features @ weights).double().numpy()
    order = np.argsort(-logits, axis=1, kind="stable")
    predictions, best = order[:, 0], order[:, :5]
    top5 = (best == labels[:, None]).any(axis=1)
    columns = dict(zip(task.metadata, metadata.T, strict=True))
    table = told.to_pydict()
    assert table["label"] == labels.tolist() and table["prediction"] == predictions.tolist()
    assert table["top5"] == top5.tolist()
    for name, field in {"wilds/fmow": {"group": "region", "year": "year"}}.get(key, {"group": task.group_by}).items():
        if field is not None:
            assert table[name] == columns[field].tolist() and told.schema.field(name).type == pa.int64()
    metrics = dict(found)
    for name, value in {"acc1": np.mean(predictions == labels), "acc5": np.mean(top5)}.items():
        assert metrics.pop(name) == pytest.approx(value, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted and never occur
        assert metrics.pop("mean_per_class_recall") == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert metrics == pytest.approx(plain_metrics(task, labels, predictions, top5, columns), abs=1e-6)
    metrics.pop("acc_worst_region_corrected", None)
    assert metrics == harness.labelled(task, labels, predictions, best, metadata)
    if task.main_metric != "acc1":
        assert found[task.main_metric or ""] is not None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("key", FACES)
def test_fairness_metrics_of_random_scores(key: str, seed: int, harness: Harness) -> None:
    rng = np.random.default_rng(seed)
    task, count = TASKS[key], int(rng.integers(1, 300))
    features = torch.from_numpy(rng.integers(-3, 4, (count, 4))).float()
    weights = [torch.from_numpy(rng.integers(-3, 4, (4, len(FACE_NAMES[prefix])))).float() for prefix in PREFIXES]
    metadata = metadata_of(task, np.zeros(count, np.int64), seed)
    lines = tuple(f"{prefix}:{{c}}" for prefix in PREFIXES)
    data = TaskData(Path("folder"), (), (), lines, lines)
    metrics, told = evaluate(task, data, weights, features, np.full(count, -1), metadata, seed)

    predictions = {
        prefix: (features @ part).double().numpy().argmax(axis=1)
        for prefix, part in zip(PREFIXES, weights, strict=True)
    }
    columns = dict(zip(task.metadata, metadata.T, strict=True))
    expected = {**columns, **{f"{prefix}_prediction": values for prefix, values in predictions.items()}}
    table = told.to_pydict()
    assert list(table) == ["key", *expected]
    assert all(table[name] == values.tolist() for name, values in expected.items())
    assert metrics == pytest.approx(plain_fairness(predictions, columns), abs=1e-6)
    assert metrics == harness.faces(task, predictions, metadata)


def test_a_top_that_predictions_do_not_tell_is_refused() -> None:
    task: Any = SimpleNamespace(key="mine", group_by="region", top=3)
    with pytest.raises(UserError, match=r"^mine: top is 3; predictions tell the best class and the best five: 1 or 5$"):
        EVALUATORS["worst_group"](task, TaskData(Path("folder"), (), ()), Weights())  # type: ignore[arg-type]


# All of it end to end.


def labelled_samples(task: Task, count: int) -> tuple[Samples, Ints, Ints]:
    """Samples, labels and metadata; the labels leave out class 1 and, if there are five, class 3."""
    assert task.classes is not None
    samples = classification_samples(count, task.classes)
    labels = np.array([int(members["cls"]) for _, members in samples])
    labels[np.isin(labels, [1, 3]) & (task.classes > 4)] = 0
    metadata = metadata_of(task, labels)
    for (_, members), label in zip(samples, labels, strict=True):
        members["cls"] = str(label).encode()
    return with_metadata(samples, metadata), labels, metadata


def reference_logits(
    reference: tuple[torch.nn.Module, Any, Any], key: str, folder: Path, names: Sequence[str], templates: Sequence[str]
) -> npt.NDArray[np.float64]:
    model, transform, tokenizer = reference
    dataset = build_wds_dataset(key, transform, data_dir=str(folder))
    weights = zero_shot_classifier(model, tokenizer, names, templates, "cpu", amp=False)
    loader = torch.utils.data.DataLoader(dataset.batched(32), batch_size=None)
    logits: npt.NDArray[np.float64] = run_classification(model, weights, loader, "cpu", amp=False)[0].double().numpy()
    return logits


@pytest.mark.parametrize("key", LABELLED)
def test_a_labelled_task_is_the_reference(
    key: str, tmp_path: Path, checkpoint: Path, reference: tuple[torch.nn.Module, Any, Any], harness: Harness
) -> None:
    task = TASKS[key]
    samples, labels, metadata = labelled_samples(task, 110)
    folder = write_classification(tmp_path, task, samples)
    ours = scored(checkpoint, tmp_path, tmp_path / "out", [key], batch_size=16)
    line, rows = ours.line(key), ours.predictions[key]
    assert ours.status == 0 and line["deviations"] == [f"110 samples, pinned at {task.samples}"]

    names = (folder / "classnames.txt").read_text().splitlines()
    logits = reference_logits(reference, key, folder, names, ["a photo of a {c}.", "a drawing of the {c}"])
    order = np.argsort(-logits, axis=1, kind="stable")
    predictions, top5 = order[:, 0], (order[:, :5] == labels[:, None]).any(axis=1)
    assert len(set(predictions.tolist())) > 1, "the model has to tell pictures apart for this test to mean anything"
    assert rows["prediction"] == predictions.tolist() and rows["label"] == labels.tolist()
    columns = dict(zip(task.metadata, metadata.T, strict=True))
    expected = plain_metrics(task, labels, predictions, top5, columns)
    expected |= {"acc1": np.mean(predictions == labels), "acc5": top5.mean() if len(names) >= 5 else None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected["mean_per_class_recall"] = balanced_accuracy_score(labels, predictions)
    expected["main_metric"] = expected[task.main_metric or ""]
    assert line["metrics"] == pytest.approx(expected, abs=1e-6)
    theirs = harness.labelled(task, labels, predictions, order[:, :5], metadata)
    added = {"acc1", "acc5", "mean_per_class_recall", "main_metric", "acc_worst_region_corrected"}
    assert {name: value for name, value in line["metrics"].items() if name not in added} == theirs
    extra = {"worst_group": ["group"], "fmow": ["group", "year"], "iwildcam": []}[task.kind]
    assert list(rows) == ["key", "label", "prediction", "top5", *CERTAINTY, *extra]


@pytest.mark.parametrize("key", FACES)
def test_a_fairness_task_is_the_reference(
    key: str, tmp_path: Path, checkpoint: Path, reference: tuple[torch.nn.Module, Any, Any], harness: Harness
) -> None:
    task = TASKS[key]
    metadata = metadata_of(task, np.zeros(70, np.int64))
    folder = write_faces(tmp_path, task, with_metadata(classification_samples(70, 900), metadata))
    ours = scored(checkpoint, tmp_path, tmp_path / "out", [key], batch_size=16)
    line, rows = ours.line(key), ours.predictions[key]
    assert ours.status == 0 and line["stderr"] is None and line["samples"] == 70

    predictions = {}
    for prefix, names in FACE_NAMES.items():
        templates = ["a photo of {c}.", f"a {prefix} picture of {{c}}."]
        predictions[prefix] = reference_logits(reference, key, folder, names, templates).argmax(axis=1)
        assert rows[f"{prefix}_prediction"] == predictions[prefix].tolist()
    assert all(len(set(values.tolist())) > 1 for values in predictions.values()), "the model has to tell faces apart"
    columns = dict(zip(task.metadata, metadata.T, strict=True))
    metrics = dict(line["metrics"])
    assert metrics.pop("main_metric") is None
    assert metrics == pytest.approx(plain_fairness(predictions, columns), abs=1e-6)
    assert metrics == harness.faces(task, predictions, metadata)


def test_every_kind_of_task_can_be_evaluated() -> None:
    assert set(EVALUATORS) == set(METRICS) == set(KINDS)


# What can be wrong with the data.


def damaged(metadata: Ints, field: int | None, value: int) -> Ints:
    """The metadata with `value` in a column of the last row, or without their last column."""
    if field is None:
        return metadata[:, :-1]
    metadata = metadata.copy()
    metadata[-1, field] = value
    return metadata


@pytest.mark.parametrize(
    ("key", "field", "value", "message"),
    [
        (GEODE, None, 0, r"wds_geode_test: s0000000.npy holds 1 numbers, not 2: region, country"),
        (FMOW, 0, -1, r"wds_wilds-fmow_test: s0000011.npy says region -1, which is not in 0 .. 2999"),
        (FMOW, 1, 3000, r"s0000011.npy says year 3000, which is not in 0 .. 2999"),
        ("fairness/utkface", None, 0, r"s0000000.npy holds 3 numbers, not 4: age, gender, race, race_binary"),
        ("fairness/utkface", 2, -3, r"s0000011.npy says race -3"),
    ],
)
def test_metadata_that_do_not_fit_the_task(
    key: str,
    field: int | None,
    value: int,
    message: str,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = TASKS[key]
    metadata = damaged(metadata_of(task, np.zeros(12, np.int64)), field, value)
    samples = with_metadata(classification_samples(12, 2), metadata)
    (write_faces if task.kind == "fairness" else write_classification)(tmp_path, task, samples, shards=1)
    outcome = scored(checkpoint, tmp_path, tmp_path / "out", [key])
    assert outcome.status == 1 and outcome.lines == []
    assert message in capsys.readouterr().out


def test_other_tasks_go_on_where_class_names_lack_a_prefix(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in FACES:
        metadata = metadata_of(TASKS[key], np.zeros(12, np.int64))
        folder = write_faces(tmp_path, TASKS[key], with_metadata(classification_samples(12, 2), metadata))
    names = (folder / "classnames.txt").read_text()
    (folder / "classnames.txt").write_text(names.replace("gender:man", "man"))
    outcome = scored(checkpoint, tmp_path, tmp_path / "out", FACES)
    assert outcome.status == 1 and [line["key"] for line in outcome.lines] == [FACES[0]]
    expected = f"{FACES[1]}: failed: {folder}/classnames.txt, line 6, has no prefix such as 'race:' before 'man'"
    assert expected in capsys.readouterr().out.splitlines()


def test_prefixes() -> None:
    file = Path("data") / "classnames.txt"
    lines = ["race:a", "gender: b", "age:c:d", "toxic:e", "race:f", "mood:g"]
    groups = by_prefix(file, lines)
    assert [groups[prefix] for prefix in PREFIXES] == [["a", "f"], [" b"], ["c:d"], ["e"]]
    with pytest.raises(UserError, match=r"^data/classnames.txt has no line with the prefix 'age:'$"):
        by_prefix(file, [line for line in lines if not line.startswith("age")])
    with pytest.raises(UserError, match=r"^data/classnames.txt, line 7, has no prefix such as 'race:' before 'h'$"):
        by_prefix(file, [*lines, "h"])


@pytest.mark.slow
def test_wilds_is_imported_late_and_looks_for_no_updates(tmp_path: Path) -> None:
    (tmp_path / "outdated.py").write_text(
        "print('asks for newer versions')\ndef check_outdated(*_): return False, ''\n"
    )
    (tmp_path / "torch_scatter.py").write_text("raise RuntimeError('not needed')\n")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import evaluate.run, numpy as np
from evaluate.metrics.wilds import grouped_accuracy
assert "wilds" not in sys.modules
print(grouped_accuracy("acc", np.ones(3, np.bool_), {{"region": np.ones(3, np.int64)}})["acc_wg"])
assert "outdated" not in sys.modules
"""
    done = forked.run("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.0\n", "")
