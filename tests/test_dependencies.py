"""What the code imports is what pyproject.toml declares: no package is there only because another one needs it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("poolbench", "train", "tasks", "evaluate", "curate", "leaderboard", "demodata")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BY_NAME = {"find_spec", "import_module"}  # calls that take a module's name, where it is written out


class Import(NamedTuple):
    """An import of the code; a late one is not done when its module is imported."""

    module: str
    late: bool


def imports(path: Path) -> Iterator[Import]:
    """All imports of a file, those within functions too."""

    def within(node: ast.AST, late: bool) -> Iterator[Import]:
        match node:
            case ast.Import():
                yield from (Import(alias.name, late) for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield from (Import(f"{module}.{alias.name}", late) for alias in node.names)
            case ast.Call(func=ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]) if (
                called in BY_NAME
            ):
                yield Import(name, True)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        late = late or typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from within(child, late)

    return within(ast.parse(path.read_text(encoding="utf-8")), False)


def declared(requirements: list[str]) -> set[str]:
    """The distributions of requirements, in the form in which names are compared."""
    return {normal(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


ALWAYS = declared(PROJECT["dependencies"])
OPTIONAL = declared([one for name, group in EXTRAS.items() if name != "dev" for one in group])
INSTALLED = {module: {normal(name) for name in names} for module, names in packages_distributions().items()}


def distributions(module: str) -> set[str]:
    """Those that install a module; a module that nothing installs stands for one that has its name."""
    top = module.partition(".")[0]
    return INSTALLED.get(top, {normal(top)})


def foreign(found: Import, own: set[str]) -> bool:
    top = found.module.partition(".")[0]
    return top not in own and top not in sys.stdlib_module_names


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
MODULES = {module: list(imports(path)) for module, path in FILES.items()}


def needs_an_extra() -> set[str]:
    """The modules that cannot be imported without an extra, by themselves or by what they import."""
    found = {
        module
        for module, all_ in MODULES.items()
        if any(not one.late and foreign(one, set(PACKAGES)) and not distributions(one.module) & ALWAYS for one in all_)
    }
    while True:
        more = {module for module, all_ in MODULES.items() if any(not one.late and needed(one, found) for one in all_)}
        if more <= found:
            return found
        found |= more


def needed(one: Import, found: set[str]) -> bool:
    """Whether an import reaches one of the modules; `from a import b` may mean a module or what is in it."""
    return one.module in found or one.module.rpartition(".")[0] in found


def test_what_the_packages_import_is_declared() -> None:
    found = [(module, one) for module, all_ in MODULES.items() for one in all_ if foreign(one, set(PACKAGES))]
    assert {"poolbench.models.clip", "curate.models.languages", "poolbench.hub", "evaluate.cache"} <= {
        module for module, _ in found
    }
    missing = [(module, one.module) for module, one in found if not distributions(one.module) & (ALWAYS | OPTIONAL)]
    assert not missing, "declare them in pyproject.toml"


def test_commands_start_without_any_extra() -> None:
    """What needs one imports it when it is asked for it, so that it can name the extra."""
    commands = {name for name in MODULES if '__name__ == "__main__"' in FILES[name].read_text(encoding="utf-8")}
    assert {"train.__main__", "evaluate.__main__", "curate.__main__", "curate.download.__main__"} <= commands
    assert not commands & needs_an_extra()


def test_modules_that_need_an_extra_are_found() -> None:
    """One that has its package on its first lines, one that imports that one, and none that does so late."""
    assert {"curate.download.resize", "curate.download.web", "curate.download.images"} <= needs_an_extra()
    assert not {"curate.download.__main__", "poolbench.remote"} & needs_an_extra()


@pytest.mark.parametrize("folder", ["tests", "bench"])
def test_what_tests_and_benchmarks_import_is_declared(folder: str) -> None:
    """But for what a benchmark asks of the original code or of another peer, in an environment of that one's."""
    peers = ("original_", "polars_")
    files = [path for path in (ROOT / folder).glob("*.py") if not path.name.startswith(peers)]
    own = {*PACKAGES, *(path.stem for name in ("tests", "bench") for path in (ROOT / name).glob("*.py"))}
    known = ALWAYS | OPTIONAL | declared(EXTRAS["dev"])
    found = {one.module for path in files for one in imports(path) if foreign(one, own)}
    assert "pytest" in found or folder == "bench"
    assert not {module for module in found if not distributions(module) & known}
