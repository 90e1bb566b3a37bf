"""FairFace and UTKFace as the tables of the fairness appendix of Gadre et al., DataComp, 2023.

python -m evaluate.fairness run=runs/<name> [task=fairness/fairface]

Reads eval_results.jsonl of a run or of any other folder of results, also one that the original harness wrote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poolbench.command import Command
from poolbench.errors import UserError, nearest
from poolbench.files import read_lines
from poolbench.options import option, source
from poolbench.text import aligned

from tasks.registry import Task, load_tasks
from tasks.results import FILE

RACE_GROUPS = {"white": "race_binary:0", "non-white": "race_binary:1", "overall": "avg"}
GENDERS = {"male": "gender:0", "female": "gender:1"}
RATES = {"crime-related": "toxicity_crime", "non-human": "toxicity_nonhuman"}
OVERALL = (
    "acc_race_avg",
    "acc_gender_avg",
    "acc_age_avg",
    "acc_gender_x_avg",
    *(f"{name}_avg" for name in RATES.values()),
)

Metrics = Mapping[str, float | None]
Rows = Mapping[str, Sequence[float | None]]


@dataclass
class TableOptions:
    """The options."""

    run: str = source("folder of a run, or of other results")
    task: str | None = option("one of the two tasks; null: those with results", None)


def show(options: TableOptions) -> None:
    """The command: print the tables.

    Raises:
        UserError: no such task, or no results of it.
    """
    known = {key: task for key, task in load_tasks().items() if task.kind == "fairness"}
    if options.task is not None and options.task not in known:
        raise UserError(f"task={options.task} has no fairness tables; {nearest(options.task, known)}")
    wanted = known if options.task is None else {options.task: known[options.task]}
    if not Path(options.run).is_dir():
        raise UserError(f"run={options.run} is not a folder")
    found = last_metrics(Path(options.run) / FILE, wanted)
    print("\n\n".join(tables(wanted[key], metrics) for key, metrics in found.items()))


def last_metrics(file: Path, tasks: Mapping[str, Task]) -> dict[str, Metrics]:
    """The metrics of the last line of each of `tasks` that has one, by key, in the order of `tasks`.

    Lines of other programs have less than ours, and NaN; the metrics are all that is looked at.

    Raises:
        UserError: none has one, or the file is not one of results.
    """
    metrics: dict[str, Metrics] = {}
    for number, line in enumerate(read_lines(file), start=1):
        if not isinstance(line, dict) or not isinstance(line.get("metrics"), dict):
            raise UserError(f"{file}, line {number}, is not a line of results")
        metrics[str(line.get("key"))] = line["metrics"]
    found = {key: metrics[key] for key in tasks if key in metrics}
    if not found:
        raise UserError(f"{file} has no results of {' or '.join(tasks)}; evaluate with tasks={next(iter(tasks))} first")
    return found


def tables(task: Task, metrics: Metrics) -> str:
    """The three tables in percent: accuracies by white and non-white, of gender by race, misclassification by race.

    A group without pictures is "-".

    Raises:
        UserError: `metrics` are not those of a fairness task.
    """
    for name in OVERALL:
        if name not in metrics:
            raise UserError(f"the results of {task.key} lack the metric {name}; evaluate it again")
    targets = ("race", "gender", "age")
    by_race_group = {
        row: [metrics.get(f"acc_{target}_{group}") for target in targets] for row, group in RACE_GROUPS.items()
    }
    races = range(len(task.races))
    genders = {
        row: [metrics.get(f"acc_gender_x_race:{race}_{group}") for race in races] for row, group in GENDERS.items()
    }
    rates = {row: [metrics.get(f"{name}_race:{race}") for race in races] for row, name in RATES.items()}
    return "\n\n".join(
        [
            _table(f"{task.name}: accuracy in % for white and non-white faces", targets, by_race_group),
            _table(f"{task.name}: accuracy of gender in % by gender and race", task.races, genders),
            _table(f"{task.name}: rate of misclassification in % by race, lower is better", task.races, rates),
        ]
    )


def _table(title: str, columns: Sequence[str], rows: Rows) -> str:
    """A title, the names of the columns, and the rows; numbers are aligned at the point."""
    cells = [("", *columns), *((name, *map(_percent, values)) for name, values in rows.items())]
    return f"{title}\n{aligned(cells, range(1, len(cells[0])))}"


def _percent(share: float | None) -> str:
    """With one decimal; the original harness writes NaN where there is no number."""
    return "-" if share is None or share != share else f"{100 * share:.1f}"


COMMAND = Command(TableOptions, show)

if __name__ == "__main__":
    COMMAND.start()
