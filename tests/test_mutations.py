"""Submissions changed at random: whatever `validate` accepts publishes the same numbers."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from evalsets import (
    MODEL,
    classification_samples,
    retrieval_samples,
    write_checkpoint,
    write_classification,
    write_retrieval,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import evaluated_run, forge, make_run, options, refusals, seal

from poolbench.files import read_json

from leaderboard.boards import place
from leaderboard.evidence import check_predictions
from leaderboard.models import Submission
from leaderboard.submissions import read_submission
from leaderboard.submit import submit
from tasks.registry import load_tasks

pytestmark = pytest.mark.usefixtures("pinned_data")

TASKS = load_tasks()
Way = tuple[str | int, ...]  # to a value inside of a submission
Change = Callable[[Any], Any]  # of a submission, in place

# Files are written over, so a folder for each example is not needed.
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
SECOND = [b'"main_metric": 1.0,', b'"stderr": 0.0,', b'"official": true,', b'"scale": "tiny",', b'"x": 1,']


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An official submission on all tasks."""
    return submit(options(make_run(tmp_path_factory.mktemp("original") / "run"), writeup="https://example.org/paper"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A submission with an average and the predictions behind it: a small model on the tasks of the demo."""
    folder = tmp_path_factory.mktemp("evaluated")
    keys = [key for key, task in TASKS.items() if task.suite == "demo"]
    for seed, key in enumerate(keys):
        if TASKS[key].kind == "retrieval":
            write_retrieval(folder / "data", TASKS[key], retrieval_samples(9))
        else:
            write_classification(folder / "data", TASKS[key], classification_samples(14, 6, seed), classes=6)
    checkpoint = write_checkpoint(folder / "model.pt")
    return submit(options(evaluated_run(folder / "run", "tiny", folder / "data", keys, MODEL, checkpoint)))


def ways(value: Any, way: Way = ()) -> Iterator[Way]:
    """The ways to everything inside of `value`."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*way, key)
        yield from ways(item, (*way, key))


def at(value: Any, way: Way) -> Any:
    for key in way:
        value = value[key]
    return value


# Numbers near those that are there, and whatever else JSON can say.
numbers = st.one_of(st.floats(0, 1), st.integers(-2, 2**40), st.floats(allow_nan=True, allow_infinity=True))
texts = st.one_of(st.text(max_size=20), st.sampled_from(["", "filtering", "byod", "0" * 64, "2030-01-01", "tiny"]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=4,
)


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """`value` after one to three changes: replace, nudge, delete, add, swap."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        every = list(ways(value))
        way = draw(st.sampled_from(every))
        parent, key = at(value, way[:-1]), way[-1]
        kind = draw(st.sampled_from(["replace", "nudge", "delete", "add", "swap"]))
        if kind == "nudge" and isinstance(parent[key], int | float):
            parent[key] += draw(st.sampled_from([1, -1, 1e-3, 1e-10, 1e-16]))
        elif kind == "delete":
            del parent[key]
        elif kind == "add" and isinstance(parent, dict):
            parent[draw(texts)] = draw(values)
        elif kind == "add":
            parent.insert(key, copy.deepcopy(parent[key]))
        elif kind == "swap":
            other = draw(st.sampled_from([w for w in every if w[: len(way)] != way and way[: len(w)] != w] or [way]))
            there = at(value, other[:-1])
            parent[key], there[other[-1]] = there[other[-1]], parent[key]
        else:
            parent[key] = draw(values)
    return value


@st.composite
def scribbled(draw: st.DrawFn, text: str) -> bytes:
    """The bytes of a file after one to three changes: flip, cut, write a member a second time."""
    data = bytearray(text.encode())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data) - 2))
        kind = draw(st.sampled_from(["flip", "byte", "cut", "twice"]))
        if kind == "flip":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            data[place : place + 1] = draw(st.binary(max_size=2))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 40))]
        else:
            begin = data.find(b"{", place) + 1
            member = draw(
                st.sampled_from([b'"main_metric": 1.0,', b'"stderr": 0.0,', b'"official": true,', b'"x": 1,'])
            )
            data[begin:begin] = member
    return bytes(data)


def assert_same(submission: Submission, value: Any) -> None:
    """Everything that is published is that of `value`, and so is the entry of the board."""
    right = Submission.model_validate(value)
    assert submission.public() == right.public()
    assert place(submission) == place(right)


def accepted(path: Path, content: bytes) -> Submission | None:
    path.write_bytes(content)
    submission, reasons = read_submission(path)
    return submission if not reasons else None


@settings(quick, max_examples=400)
@given(data=st.data())
def test_an_accepted_mutation_publishes_the_same(original: Path, tmp_path: Path, data: st.DataObject) -> None:
    value = read_json(original)
    changed = data.draw(mutated(value))
    submission = accepted(tmp_path / "submission.json", json.dumps(changed).encode())
    if submission is not None:
        assert_same(submission, value)


@settings(quick, max_examples=400)
@given(data=st.data())
def test_an_accepted_scribble_publishes_the_same(original: Path, tmp_path: Path, data: st.DataObject) -> None:
    text = original.read_text(encoding="utf-8")
    content = data.draw(scribbled(text))
    submission = accepted(tmp_path / "submission.json", content)
    if submission is not None:
        assert_same(submission, json.loads(text))
        # Python takes the last of equal keys, other programs the first.
        assert_same(submission, json.loads(content, object_pairs_hook=lambda pairs: dict(reversed(pairs))))


def test_what_may_be_changed(original: Path, tmp_path: Path) -> None:
    """Else the two tests above would hold of a program that accepts nothing."""
    value = read_json(original)
    value["private"]["contact"] = None
    backwards = json.dumps(dict(reversed(value.items())), indent=7).encode()
    submission = accepted(tmp_path / "submission.json", backwards)
    assert submission is not None
    assert_same(submission, read_json(original))


def published(submission: Submission) -> dict[str, float | None]:
    """The numbers of a board that predictions can prove."""
    numbers: dict[str, float | None] = {}
    for result in submission.tasks:
        numbers[f"{result.key} main"] = result.metrics["main_metric"]
        numbers[f"{result.key} stderr"] = result.stderr
    return {**numbers, **submission.aggregates.values}


def proved(path: Path, predictions: Path) -> Submission | None:
    """The submission, where it is accepted with its predictions at hand."""
    submission, reasons = read_submission(path)
    if submission is None or reasons:
        return None
    return None if check_predictions(submission, predictions).refusals else submission


@st.composite
def forged(draw: st.DrawFn, value: Any) -> Any:
    """A submission changed where its numbers are, and made to fit together again."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        result = draw(st.sampled_from(value["tasks"]))
        main = TASKS[result["key"]].main_metric
        kind = draw(st.sampled_from(["main", "main", "stderr", "metric", "samples", "swap", "drop", "mutate"]))
        if kind == "main":
            nudged = result["metrics"]["main_metric"] + draw(st.sampled_from([1e-3, -1e-3, 1e-6, 1e-8]))
            better = draw(st.one_of(st.floats(0, 1), st.integers(0, 1), st.just(nudged)))
            result["metrics"].update({main: better, "main_metric": better})
        elif kind == "stderr":
            result["stderr"] = draw(st.one_of(st.none(), st.floats(0, 1)))
        elif kind == "metric":
            result["metrics"][draw(st.sampled_from([*result["metrics"], "acc7"]))] = draw(st.floats(0, 1))
        elif kind == "samples":
            result["samples"] = draw(st.integers(0, 30))
        elif kind == "swap":
            other = draw(st.sampled_from(value["tasks"]))
            result["metrics"], other["metrics"] = other["metrics"], result["metrics"]
        elif kind == "drop" and len(value["tasks"]) > 1:
            value["tasks"].remove(result)
        else:
            value = draw(mutated(value))
            break
    return value


@settings(quick, max_examples=80)
@given(data=st.data())
def test_predictions_prove_every_number(evaluated: Path, tmp_path: Path, data: st.DataObject) -> None:
    value = read_json(evaluated)
    changed = forge(data.draw(forged(value)))
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(changed), encoding="utf-8")
    submission = proved(path, evaluated.parent / "predictions")
    if submission is None:
        return
    right = published(Submission.model_validate(value))
    numbers = published(submission)
    missing = {task["key"] for task in value["tasks"]} - {result.key for result in submission.tasks}
    assert missing or numbers.keys() == right.keys()
    for name, number in numbers.items():
        if missing and name in submission.aggregates.values:
            assert number is None
        else:
            assert number == pytest.approx(right[name], abs=1e-8)


def test_what_predictions_do_not_prove(evaluated: Path, tmp_path: Path) -> None:
    """What nobody measures may be claimed: else the test above would hold of a program that accepts nothing."""
    value = forge({**read_json(evaluated), "method": "Another name", "seconds": 1.0})
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    submission = proved(path, evaluated.parent / "predictions")
    assert submission is not None and submission.method == "Another name"
    shutil.copyfile(evaluated, path)
    assert proved(path, evaluated.parent / "predictions") is not None


NUMBERS = ["tasks.0.metrics.main_metric", "tasks.3.stderr", "tasks.1.seconds", "aggregates.values.average", "seconds"]
NUMBERS += ["recipe.learning_rate", "samples_seen", "dataset_size"]


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", NUMBERS)
def test_numbers_that_are_none(original: Path, tmp_path: Path, field: str, literal: str) -> None:
    value = read_json(original)
    way = tuple(int(part) if part.isdecimal() else part for part in field.split("."))
    at(value, way[:-1])[way[-1]] = "HERE"
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(value).replace('"HERE"', literal), encoding="utf-8")
    assert f"{field}: {float(literal)} is not a JSON number; write null" in refusals(path)


LITERALS = {"1" * 5000: "is not JSON: ", '"\\ud800"': "", "[" * 400 + "]" * 400: "", "true": "", '"1"': "", "{}": ""}


@pytest.mark.parametrize("literal", LITERALS, ids=range(len(LITERALS)))
@pytest.mark.parametrize("field", [*NUMBERS, "method", "recipe"])
def test_values_of_another_kind(original: Path, tmp_path: Path, field: str, literal: str) -> None:
    """A line that says so, and no traceback."""
    value = read_json(original)
    way = tuple(int(part) if part.isdecimal() else part for part in field.split("."))
    at(value, way[:-1])[way[-1]] = "HERE"
    text = json.dumps(seal(value)).replace('"HERE"', literal)
    if field == "method" and literal == '"1"':
        return
    path = tmp_path / "submission.json"
    path.write_text(text, encoding="utf-8")
    told = refusals(path)
    assert told and LITERALS[literal] in told
