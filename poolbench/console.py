"""The command `poolbench <command> ...`, which does what `python -m <command> ...` does, from any folder."""

import ast
import difflib
import os
import runpy
import sys
from collections.abc import Iterator

from poolbench import HOME, PACKAGES


def main() -> None:
    """Run the command that the command line names, in this process."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        sys.exit(0 if words else 2)
    os.environ["PYTHONSAFEPATH"] = "1"  # processes that it starts must not take what the current folder holds for ours
    known = dict(commands())
    if words[0] not in known:
        close = difflib.get_close_matches(words[0], known, n=1, cutoff=0.6)
        told = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
        _end(f"unknown command {words[0]!r}: {told}")
    sys.argv = [words[0], *words[1:]]
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def commands() -> Iterator[tuple[str, str]]:
    """Every command and what it is for, in a line."""
    for package in PACKAGES:
        folder = HOME / package
        found = {path: f"{package}.{path.stem}" for path in folder.glob("*.py")}
        found |= {path: f"{package}.{path.parent.name}" for path in folder.glob("*/__main__.py")}
        found[folder / "__main__.py"] = package
        for path, name in sorted(found.items(), key=lambda one: one[1]):
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            if '\nif __name__ == "__main__":' in text:
                yield name, _first_line(text)


def _overview() -> str:
    rows = list(commands())
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:{width}}  {line}" for name, line in rows]
    return "\n".join(["poolbench <command> <options>; poolbench <command> --help shows the options", "", *lines])


def _first_line(text: str) -> str:
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def _end(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
