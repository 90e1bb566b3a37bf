"""The commands of `python -m leaderboard`."""

import sys
from collections.abc import Sequence

from conf.command import parse
from conf.errors import UserError, nearest
from leaderboard.build import BuildOptions, build
from leaderboard.models import write_schemas
from leaderboard.submit import SubmitOptions, submit
from leaderboard.validate import validate_files

COMMANDS = ("submit", "validate", "build", "schema")


def main() -> int:
    """Run the command that the command line names.

    Raises:
        UserError: no command, an unknown one, or whatever the command raises.
    """
    if not sys.argv[1:]:
        raise UserError(f"python -m leaderboard needs a command; known: {', '.join(COMMANDS)}")
    command, *arguments = sys.argv[1:]
    if command == "submit":
        return _submit(arguments)
    if command == "validate":
        return validate_files(arguments)
    if command == "build":
        folders, options = parse(arguments, BuildOptions)
        return build(folders, options)
    if command == "schema":
        if arguments:
            raise UserError(f"schema takes no arguments, not {arguments[0]!r}")
        print("\n".join(str(path) for path in write_schemas()))
        return 0
    raise UserError(f"unknown command {command!r}: {nearest(command, COMMANDS)}")


def _submit(arguments: Sequence[str]) -> int:
    # Before the options are looked at: an unquoted `method=two words` should be told as what it is.
    for word in arguments:
        if "=" not in word:
            raise UserError(f"submit takes key=value only, not {word!r}; a value with spaces needs quotes")
    _, options = parse(arguments, SubmitOptions)
    submit(options)
    return 0
