"""The commands of `python -m leaderboard`. Each imports its own module: the charts and the Hub's client load slowly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poolbench.command import chosen, parse
from poolbench.errors import UserError
from poolbench.usage import asked_for


@dataclass
class SchemaOptions:
    """The options of `schema`."""


def main() -> int:
    """Run the command that the command line names.

    Raises:
        UserError: no command, an unknown one, or whatever the command raises.
    """
    run, arguments = chosen("leaderboard", COMMANDS)
    return run(arguments)


def _submit(arguments: Sequence[str]) -> int:
    from leaderboard.submit import SubmitOptions, submit_and_push

    # Before the options are looked at: an unquoted `method=two words` should be told as what it is.
    for word in () if asked_for(arguments) else arguments:
        if "=" not in word:
            raise UserError(f"submit takes key=value only, not {word!r}; a value with spaces needs quotes")
    _, options = parse(arguments, SubmitOptions)
    return submit_and_push(options)


def _push(arguments: Sequence[str]) -> int:
    from leaderboard.push import PushOptions, push_file

    return push_file(*parse(arguments, PushOptions))


def _validate(arguments: Sequence[str]) -> int:
    from leaderboard.validate import ValidateOptions, dashed, validate_files

    return validate_files(*parse(dashed(arguments), ValidateOptions))


def _build(arguments: Sequence[str]) -> int:
    from leaderboard.build import BuildOptions, build

    return build(*parse(arguments, BuildOptions))


def _diff(arguments: Sequence[str]) -> int:
    from leaderboard.diff import DiffOptions, diff

    return diff(*parse(arguments, DiffOptions))


def _plot(arguments: Sequence[str]) -> int:
    from leaderboard.plot import PlotOptions, plot

    return plot(*parse(arguments, PlotOptions))


def _schema(arguments: Sequence[str]) -> int:
    from leaderboard.models import write_schemas

    words, _ = parse(arguments, SchemaOptions)
    if words:
        raise UserError(f"schema takes no arguments, not {words[0]!r}")
    print("\n".join(str(path) for path in write_schemas()))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "submit": _submit,
    "push": _push,
    "validate": _validate,
    "build": _build,
    "diff": _diff,
    "plot": _plot,
    "schema": _schema,
}
