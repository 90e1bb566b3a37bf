"""The commands of `python -m leaderboard`. Each imports its own module: the charts and the Hub's client load slowly."""

from collections.abc import Callable
from dataclasses import dataclass

from poolbench.command import Command, Verbs


@dataclass
class SchemaOptions:
    """The options of `schema`."""


def _submit() -> Command:
    from leaderboard.submit import SubmitOptions, submit_and_push

    refusal = "submit takes key=value only, not {word!r}; a value with spaces needs quotes"
    return Command(SubmitOptions, submit_and_push, refusal=refusal)


def _push() -> Command:
    from leaderboard.push import PushOptions, push_file

    return Command(PushOptions, push_file, takes_words=True)


def _validate() -> Command:
    from leaderboard.validate import ValidateOptions, dashed, validate_files

    return Command(ValidateOptions, validate_files, takes_words=True, rewritten=dashed)


def _build() -> Command:
    from leaderboard.build import BuildOptions, build

    return Command(BuildOptions, build, takes_words=True)


def _diff() -> Command:
    from leaderboard.diff import DiffOptions, diff

    return Command(DiffOptions, diff, takes_words=True)


def _plot() -> Command:
    from leaderboard.plot import PlotOptions, plot

    return Command(PlotOptions, plot, takes_words=True)


def _schema() -> Command:
    def write(options: SchemaOptions) -> None:
        from leaderboard.models import write_schemas

        print("\n".join(str(path) for path in write_schemas()))

    return Command(SchemaOptions, write, refusal="schema takes no arguments, not {word!r}")


COMMANDS: dict[str, Callable[[], Command]] = {
    "submit": _submit,
    "push": _push,
    "validate": _validate,
    "build": _build,
    "diff": _diff,
    "plot": _plot,
    "schema": _schema,
}
VERBS = Verbs("leaderboard", COMMANDS)
