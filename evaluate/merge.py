"""The last step of an evaluation in parts: one line a task in eval_results.jsonl, and a check that none is missing.

python -m evaluate.merge run=runs/<name> [tasks=all]
python -m evaluate.merge out=<folder> [tasks=all]

The parts append to one eval_results.jsonl as they go, which some network file systems do not keep in order; here it is
written anew from the predictions, of which each task has its own file. Lines that these supersede go into
eval_results.old.jsonl. The exit status is 1 where a task has no result, or one over damaged data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import append_line, atomic, json_line
from poolbench.options import option, output
from poolbench.run_record import read_record

from evaluate.summary import summary
from tasks.registry import load_tasks, select, suite_of, words_of
from tasks.results import CONDITIONS, FILE, ResultLine, read_results, saved_results

OLD = "eval_results.old.jsonl"


@dataclass
class MergeOptions:
    """The options; one of run= and out= is needed."""

    run: str | None = output("folder of a training run", None)
    out: str | None = output("folder of results; null: the run's", None)
    tasks: str | None = option("tasks that have to be there, separated by commas; null: the suite", None)


def merge(options: MergeOptions) -> int:
    """The command: merge and print the table of results; the exit status.

    Raises:
        UserError: no folder, no results in it, or results that do not belong together.
    """
    given = options.out or options.run
    if given is None:
        raise UserError("run=<training run> or out=<folder of results> is needed")
    record = None if options.run is None else read_record(Path(options.run))
    out = Path(given)
    tasks = select(words_of(options.tasks or ""), suite_of(record.scale if record else ""))
    lines = merged(out, record.checkpoint.sha256 if record and record.checkpoint else None)
    problems = {task.key: "missing: no part has evaluated it; submit the parts again" for task in tasks}
    problems = {key: reason for key, reason in problems.items() if key not in lines}
    wanted = {task.key: lines[task.key] for task in tasks if task.key in lines}
    print(summary(tasks, wanted, problems, lines, out / FILE))
    return int(bool(problems) or any(line.bad for line in wanted.values()))


def merged(out: Path, sha256: str | None) -> dict[str, ResultLine]:
    """Write eval_results.jsonl of `out` anew and return its lines by key, in the registry's order.

    Args:
        sha256: of the run's checkpoint; results of another one are left out. None takes what is there.

    Raises:
        UserError: there are no results, or some were made under other conditions than the rest.
    """
    known = load_tasks()
    saved = [line for line in saved_results(out) if line.key in known]
    current = [line for line in saved if sha256 in (None, line.checkpoint_sha256)]
    if not current:
        raise UserError(f"{out / 'predictions'} holds no results" + (" of the run's checkpoint" if saved else ""))
    _check_alike(out, current)
    lines = {line.key: line for line in sorted(current, key=lambda line: list(known).index(line.key))}
    superseded = [line for line in read_results(out / FILE) if lines.get(line.key) != line]
    for line in superseded:
        append_line(out / OLD, line.model_dump())
    with atomic(out / FILE) as file:
        file.writelines(json_line(line.model_dump()) for line in lines.values())
    return lines


def _check_alike(out: Path, lines: Sequence[ResultLine]) -> None:
    for name in CONDITIONS:  # what the parts have in common
        values: dict[Any, ResultLine] = {getattr(line, name): line for line in lines}
        if len(values) > 1:
            (one, first), (other, second), *_ = values.items()
            raise UserError(
                f"{out} holds results of different conditions: {name} is {one} for {first.key} and {other} for "
                f"{second.key}; evaluate one of them again"
            )


COMMAND = Command(MergeOptions, merge)

if __name__ == "__main__":
    COMMAND.start()
