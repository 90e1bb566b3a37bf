"""Which of two models is better, by task and overall, from their stored predictions.

python -m evaluate.compare A B [json=<file>] [samples=<task>]
python -m evaluate.compare A [B] published=openclip models='[ViT-B-32/openai, ViT-B-16/*]'

A and B are training runs or any folders of results. The last result of each task counts. Tests are paired: both models
have to be scored on the same data, and each sample's two predictions are compared (docs/statistics.md). Scores that
others published of public models stand beside them, without a test. `samples=` lists those that one model has right
and the other wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolbench.arrow import do_without_pandas
from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import write_json
from poolbench.options import option, output, source
from poolbench.text import aligned

from evaluate import disagreements
from evaluate.metrics import statistic_of
from evaluate.metrics.statistics import Mean, Statistic
from evaluate.probes.compare import as_values, compare_probes, probe_report
from tasks.aggregates import members
from tasks.registry import Task, load_tasks
from tasks.results import CONDITIONS, FILE, ResultLine, predictions_identity, predictions_path, read_results

LEVEL = 0.05  # of significance, two-sided
NO_DIFFERENCE = "no difference shown"

_ALIKE = ("precision", "limit", "grade", "version", "prompts")  # worth a warning where A and B differ
_TRUTH = ("label", "group", "captions", "size", "pictures")  # columns that do not depend on the model
_NO_SPREAD = 1e-12  # a standard error below this is rounding
_HEADINGS = ("task", "metric", "A", "B", "B - A", "± stderr", "p", "better")


@dataclass
class CompareOptions:
    """The options."""

    json: str | None = output("file that gets the comparison in full precision", None)
    published: str | None = source(
        "table of scores of public models: openclip, a file, or an address#sha256=<digest>", None, remote=True
    )
    models: Any = option("names or globs of those to show; null: those nearest to A", None)
    samples: str | None = option("a task of classification whose samples, on which A and B differ, to list", None)
    count: int = option("so many of them, those first of which both models are surest", 20)


class IncomparableError(Exception):
    """Why a task that both models have cannot be compared."""


class Difference(NamedTuple):
    """B compared with A on one task; `p` is of this test alone, `verdict` holds for all tasks together."""

    key: str
    metric: str
    a: float
    b: float
    difference: float
    stderr: float
    p: float
    verdict: str = NO_DIFFERENCE


class Overall(NamedTuple):
    """B compared with A on the mean over `tasks` tasks, and on how many of them which one is better."""

    name: str
    tasks: int
    a: float
    b: float
    difference: float
    stderr: float
    p: float
    verdict: str
    a_better: int
    b_better: int


class Comparison(NamedTuple):
    """Everything about two folders: tasks in the registry's order, a mean a suite, what could not be compared."""

    a: str
    b: str
    tasks: list[Difference]
    overall: list[Overall]
    not_comparable: dict[str, str]
    only_in_a: list[str]
    only_in_b: list[str]
    warnings: list[str]


def compare_named(folders: Sequence[str], options: CompareOptions) -> None:
    """The command: print the comparison.

    Raises:
        UserError: not two folders, or with published results not one or two; one without results, no task that can be
            compared, or published results that cannot be read.
    """
    if len(folders) != 2 and (len(folders) != 1 or options.published is None):
        raise UserError(
            "two folders are compared: python -m evaluate.compare A B [json=<file>]; or one with published=<table>"
        )
    if options.models is not None and options.published is None:
        raise UserError("models= are those of a table of published results; name it by published=")
    if options.samples is not None and (len(folders) != 2 or options.count < 1):
        raise UserError("samples= are those of two folders, A and B, and count= at least 1")
    do_without_pandas()
    texts, found = [f"A: {folders[0]}"], {}
    if len(folders) == 2:
        comparison = compare(Path(folders[0]), Path(folders[1]))
        probes = compare_probes(Path(folders[0]), Path(folders[1]))
        texts = [part for part in (report(comparison), probe_report(probes)) if part]
        found = {**as_json(comparison), **as_values(probes)}
    if options.samples is not None:
        one = differing(options.samples, Path(folders[0]), Path(folders[1]), options.count)
        texts.append(disagreements.report(one, options.samples))
        found["disagreements"] = disagreements.as_json(one, options.samples)
    if options.published is not None:
        text, found["published"] = _beside(folders, options.published, options.models)
        texts.append(text)
    print("\n\n".join(texts))
    if options.json is not None:
        try:
            write_json(options.json, found)
        except OSError as error:
            raise UserError(f"json={options.json} cannot be written: {error.strerror}") from None


def differing(key: str, a: Path, b: Path, count: int) -> disagreements.Disagreements:
    """The samples of a task of classification on which the models of two folders differ most.

    Raises:
        UserError: the task has no results in one of them, is of another kind, or cannot be compared.
    """
    lines = {folder: results_in(folder).get(key) for folder in (a, b)}
    missing = [folder for folder, line in lines.items() if line is None]
    if missing:
        raise UserError(f"{missing[0]} has no result of {key}; evaluate the task first (python -m evaluate ...)")
    try:
        first, second = _tables(*((folder, line) for folder in (a, b) if (line := lines[folder]) is not None))
        return disagreements.disagreements(first, second, count)
    except IncomparableError as error:
        raise UserError(f"{key} cannot be compared: {error}") from None
    except KeyError:
        raise UserError(f"{key} is not a task with a class for each sample; choose another one") from None
    except ValueError as error:
        raise UserError(f"{key} cannot be compared: its predictions cannot be right: {error}") from None


def _beside(folders: Sequence[str], place: str, models: str | list[str] | None) -> tuple[str, dict[str, Any]]:
    """What folders hold beside published results, as text and in JSON's types."""
    from evaluate import beside  # here, with what fetches files: it loads slowly
    from tasks.published import read

    own = {name: results_in(Path(folder)) for name, folder in zip("AB", folders, strict=False)}
    found = beside.beside(own, read(place), models)
    return beside.report(found), beside.as_json(found)


def compare(a: Path, b: Path) -> Comparison:
    """Compare the results in two folders.

    Raises:
        UserError: a folder or its results do not exist, or no task can be compared.
    """
    lines_a, lines_b = results_in(a), results_in(b)
    order = list(dict.fromkeys([*load_tasks(), *lines_a, *lines_b]))
    both = [key for key in order if key in lines_a and key in lines_b]
    if not both:
        raise UserError(f"{a} and {b} have no task in common")
    differences, refused = [], {}
    for key in both:
        try:
            differences.append(compare_task(key, (a, lines_a[key]), (b, lines_b[key])))
        except IncomparableError as error:
            refused[key] = str(error)
    if not differences:
        key, reason = next(iter(refused.items()))
        raise UserError(f"{a} and {b} have no task that can be compared: {key}: {reason}" + _and_more(len(refused) - 1))
    differences = with_verdicts(differences)
    return Comparison(
        str(a),
        str(b),
        differences,
        overall(differences),
        refused,
        [key for key in order if key in lines_a and key not in lines_b],
        [key for key in order if key in lines_b and key not in lines_a],
        [*_mixed("A", lines_a), *_mixed("B", lines_b), *_unlike(both, lines_a, lines_b)],
    )


def results_in(folder: Path) -> dict[str, ResultLine]:
    """The last line of each task in a folder, whatever its checkpoint.

    Raises:
        UserError: there is no such folder, it has no results, or something else stands there.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    lines = {line.key: line.regraded() for line in read_results(folder / FILE)}
    if not lines:
        raise UserError(f"{folder} has no results ({FILE}); evaluate the model first (python -m evaluate ...)")
    return lines


def compare_task(key: str, a: tuple[Path, ResultLine], b: tuple[Path, ResultLine]) -> Difference:
    """Compare two results of one task, each given by its folder and its line.

    Raises:
        IncomparableError: they are not over the same samples, or lack what a comparison needs.
    """
    task = load_tasks().get(key)
    if task is None:
        raise IncomparableError("not a task that is known here")
    if task.main_metric is None:
        raise IncomparableError("the task has no main metric")
    first, second = _tables(a, b)
    return difference_of(task, _statistic("A", task, first), _statistic("B", task, second))


def _tables(a: tuple[Path, ResultLine], b: tuple[Path, ResultLine]) -> tuple[pa.Table, pa.Table]:
    """The predictions of two results of one task, the same sample in the same row; raises as `compare_task` does."""
    first, second = _stored("A", *a), _stored("B", *b)
    if a[1].limit != b[1].limit:
        ways = ("all samples" if line.limit is None else f"limit={line.limit}" for _, line in (a, b))
        raise IncomparableError("A was scored with {} and B with {}".format(*ways))
    if a[1].data_digest != b[1].data_digest:
        raise IncomparableError("A and B were scored on different data (data_digest)")
    return paired(first, second)


def paired(a: pa.Table, b: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Both tables with the same sample in the same row: A's order.

    Raises:
        IncomparableError: they hold different samples, or the truth about them differs.
    """
    if not a.column("key").equals(b.column("key")):
        if len(a) != len(b):
            raise IncomparableError(f"A has {len(a):,} samples, B {len(b):,}")
        if pc.count_distinct(a.column("key")).as_py() < len(a):
            raise IncomparableError("keys of samples repeat, and come in another order in B")
        places = pc.index_in(a.column("key"), value_set=b.column("key"))
        if places.null_count:
            missing = a.column("key").filter(pc.is_null(places))
            raise IncomparableError(f"B lacks sample {missing[0].as_py()}" + _and_more(len(missing) - 1))
        b = b.take(places)
    for name in _TRUTH:
        if name in a.column_names and name in b.column_names and not a.column(name).equals(b.column(name)):
            raise IncomparableError(f"the predictions of A and B disagree about the samples themselves ({name})")
    return a, b


def difference_of(task: Task, a: Statistic, b: Statistic) -> Difference:
    """B's main metric less A's, its paired standard error, and the p-value of the test that fits the metric.

    Raises:
        IncomparableError: fewer than two independent samples.
    """
    stderr = a.paired_stderr(b)
    if stderr is None:
        raise IncomparableError("fewer than two independent samples")
    values = a.value(), b.value()
    difference = values[1] - values[0]
    if task.main_metric == "acc1":
        assert isinstance(a, Mean) and isinstance(b, Mean)
        p = mcnemar(int(np.sum(a.values > b.values)), int(np.sum(b.values > a.values)))
    else:
        p = two_sided(difference, stderr)
    assert task.main_metric is not None
    return Difference(task.key, task.main_metric, *values, difference, stderr, p)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value for the numbers of samples that only A and only B has right.

    McNemar, Note on the Sampling Error of the Difference between Correlated Proportions, 1947, with the binomial
    distribution in place of its approximation.
    """
    from scipy.stats import binomtest  # here, as it takes most of a second that help can do without

    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def two_sided(difference: float, stderr: float) -> float:
    """p-value of a difference that is normal with this standard error; 1 where nothing varies, and so nothing shows."""
    if stderr < _NO_SPREAD:
        return 1.0
    return math.erfc(abs(difference) / stderr / math.sqrt(2))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values: those below a level can all be called significant with that level for one error in all.

    Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def with_verdicts(differences: Sequence[Difference]) -> list[Difference]:
    """The differences, each with who is better after Holm's correction over all of them."""
    adjusted = holm([one.p for one in differences])
    return [one._replace(verdict=_better(one.difference, p)) for one, p in zip(differences, adjusted, strict=True)]


def overall(differences: Sequence[Difference]) -> list[Overall]:
    """The mean over the tasks of each suite of which any was compared; of `extra`, whose metrics are of many kinds, one
    over the tasks of each metric that several have.

    Tasks are taken for independent samples, so the standard error is sqrt(sum of squares) / tasks, and the test is a
    normal one. A mean over one task is that task, and is tested as it is.
    """
    rows = []
    suites = [(load_tasks()[one.key].suite, one) for one in differences]
    kinds = [(suite, one.metric if suite == "extra" else "") for suite, one in suites]
    for suite, metric in dict.fromkeys(kinds):
        inside = [one for one, kind in zip(differences, kinds, strict=True) if kind == (suite, metric)]
        count = len(inside)
        if metric and count == 1:
            continue  # its row says the same
        label = "" if suite == "main" else f"{suite} {metric} ".replace("  ", " ")
        complete = {one.key for one in inside} == set(members(suite).get("average", ()))
        name = f"{label}average" if complete else f"mean over the {count} comparable {label}tasks that both have"
        a, b = (math.fsum(values) / count for values in zip(*((one.a, one.b) for one in inside), strict=True))
        difference = math.fsum(one.difference for one in inside) / count
        stderr = math.sqrt(math.fsum(one.stderr**2 for one in inside)) / count
        p = inside[0].p if count == 1 else two_sided(difference, stderr)
        verdicts = [one.verdict for one in inside]
        better = _better(difference, p)
        rows.append(Overall(name, count, a, b, difference, stderr, p, better, verdicts.count("A"), verdicts.count("B")))
    return rows


def report(comparison: Comparison) -> str:
    """The comparison as text: who is who, a table of the tasks, the means, and what has to be known besides."""
    parts = [f"A: {comparison.a}\nB: {comparison.b}"]
    rows = [(one.key, one.metric, *_cells(one)) for one in comparison.tasks]
    means = [(one.name, "", *_cells(one)) for one in comparison.overall]
    tests = len(comparison.tasks)
    parts.append(aligned([_HEADINGS, *rows, *means], range(2, len(_HEADINGS) - 1)))
    parts += [
        f"{one.name}: B is better on {one.b_better}, A on {one.a_better}, {NO_DIFFERENCE} on "
        f"{one.tasks - one.a_better - one.b_better} of {one.tasks}"
        for one in comparison.overall
    ]
    parts.append(
        "p: paired, two-sided, of each row alone. Who is better on a task: at the 5 % level with Holm's correction "
        f"over the {tests} task{'s' * (tests > 1)};\non a mean: at the 5 % level."
    )
    parts += [f"not comparable: {key}: {reason}" for key, reason in comparison.not_comparable.items()]
    for name, keys in (("A", comparison.only_in_a), ("B", comparison.only_in_b)):
        if keys:
            parts.append(f"only in {name}: {', '.join(keys)}")
    parts += [f"warning: {warning}" for warning in comparison.warnings]
    return "\n\n".join(parts)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison in JSON's types; each task also has `p_holm`, the p-value after Holm's correction."""
    adjusted = holm([one.p for one in comparison.tasks])
    tasks = [{**one._asdict(), "p_holm": p} for one, p in zip(comparison.tasks, adjusted, strict=True)]
    return {**comparison._asdict(), "tasks": tasks, "overall": [one._asdict() for one in comparison.overall]}


def _stored(name: str, folder: Path, line: ResultLine) -> pa.Table:
    """The predictions behind a line.

    Raises:
        IncomparableError: there are none, or they are not those of the line.
    """
    path = predictions_path(folder, line.key)
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise IncomparableError(f"{name} has no stored predictions ({path})") from None
    except (OSError, pa.ArrowException):
        raise IncomparableError(f"{path} is not a file of predictions; evaluate the task again") from None
    if predictions_identity(path) != line.model_dump(include={*CONDITIONS, "data_digest"}):
        raise IncomparableError(f"{path} is not of the last result of {name}; evaluate the task again")
    if "key" not in table.column_names:
        raise IncomparableError(f"{path} has no column 'key'; evaluate the task again")
    return table


def _statistic(name: str, task: Task, predictions: pa.Table) -> Statistic:
    try:
        statistic = statistic_of(task.main_metric, predictions)
    except KeyError:
        raise IncomparableError(f"the predictions of {name} lack a column that {task.main_metric} needs") from None
    except ValueError as error:
        raise IncomparableError(f"the predictions of {name} cannot be right: {error}") from None
    if statistic is None:
        raise IncomparableError(f"no test is known for {task.main_metric}")
    return statistic


def _better(difference: float, p: float) -> str:
    if p >= LEVEL or difference == 0:
        return NO_DIFFERENCE
    return "B" if difference > 0 else "A"


def _mixed(name: str, lines: Mapping[str, ResultLine]) -> list[str]:
    """A warning where the results in a folder are of several checkpoints."""
    count = len({line.checkpoint_sha256 for line in lines.values()})
    return [f"{name} holds results of {count} checkpoints; the last of each task is compared"] if count > 1 else []


def _unlike(keys: Sequence[str], a: Mapping[str, ResultLine], b: Mapping[str, ResultLine]) -> list[str]:
    """A warning for each condition under which A and B were not evaluated alike."""
    warnings = []
    for field in _ALIKE:
        unlike = [key for key in keys if getattr(a[key], field) != getattr(b[key], field)]
        if unlike:
            first = unlike[0]
            values = f"{getattr(a[first], field)} in A and {getattr(b[first], field)} in B"
            warnings.append(f"{field} is {values} for {first}{_and_more(len(unlike) - 1)}")
    return warnings


def _and_more(count: int) -> str:
    return f" (and {count} more)" if count else ""


def _cells(row: Difference | Overall) -> tuple[str, ...]:
    numbers = f"{row.a:.4f}", f"{row.b:.4f}", f"{row.difference:+.4f}", f"{row.stderr:.4f}"
    return *numbers, "<0.0001" if row.p < 0.0001 else f"{row.p:.4f}", row.verdict


COMMAND = Command(CompareOptions, compare_named, takes_words=True)

if __name__ == "__main__":
    COMMAND.start()
