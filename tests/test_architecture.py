"""The plan of the house, as docs/architecture.md draws it: imports go one way, and no two files import each other."""

from pathlib import Path

import pytest
from test_dependencies import FILES, MODULES

# Package -> those of ours that it may import, besides itself.
MAY = {
    "poolbench": set(),
    "demodata": {"poolbench"},
    "tasks": {"poolbench"},
    "train": {"poolbench", "demodata"},  # the default of data=
    "evaluate": {"poolbench", "tasks", "demodata"},
    "curate": {"poolbench"},
    "leaderboard": {"poolbench", "tasks", "evaluate"},
}
OF_EVALUATE = {"evaluate.metrics"}  # what the leaderboard may know of it: its metrics
KNOW_THE_DEMO = {"train.command", "train.demo_time", "train.evaluation", "evaluate.config"}
# Within curate/: folder -> what it may import of the others. The verbs on top may import them all.
CURATE = {
    "pool": set(),
    "models": {"pool"},
    "scorers": {"pool", "models"},
    "selectors": {"pool", "models", "scorers"},
    "download": {"pool"},
    "reshard": {"pool"},
    "pack": {"pool", "reshard"},  # the headers of tars
    "report": {"pool", "models"},
    "audits": {"pool", "models", "report"},
    "overlaps": {"pool", "scorers", "report"},
    "classes": {"pool", "models", "report", "audits"},
}
LINES = 500  # of a file

ARROWS = {
    module: {
        found
        for one in all_
        for found in (one.module, one.module.rpartition(".")[0])  # `from a import b`: a module, or what is in one
        if found in FILES and found != module
    }
    for module, all_ in MODULES.items()
}
ARROWS = {
    module: {to for to in all_ if not any(one.startswith(f"{to}.") for one in all_)} for module, all_ in ARROWS.items()
}


def test_every_package_stands_in_the_plan() -> None:
    assert {module.partition(".")[0] for module in FILES} == set(MAY)
    folders = {path.parent.name for path in FILES["curate"].parent.glob("*/__init__.py")}
    assert folders == set(CURATE)


@pytest.mark.parametrize("package", MAY)
def test_imports_go_one_way(package: str) -> None:
    wrong = {
        f"{module} -> {to}"
        for module, all_ in ARROWS.items()
        for to in all_
        if module.partition(".")[0] == package and to.partition(".")[0] not in {package, *MAY[package]}
    }
    assert not wrong


def test_the_leaderboard_knows_of_evaluation_its_metrics() -> None:
    wrong = {
        f"{module} -> {to}"
        for module, all_ in ARROWS.items()
        for to in all_
        if module.startswith("leaderboard") and to.startswith("evaluate") and not to.startswith(tuple(OF_EVALUATE))
    }
    assert not wrong


def test_only_the_default_of_data_knows_the_demo() -> None:
    found = {module for module, all_ in ARROWS.items() if any(to.startswith("demodata") for to in all_)}
    assert {module for module in found if not module.startswith("demodata")} == KNOW_THE_DEMO


def test_no_arrow_in_curate_runs_back_up() -> None:
    wrong = set()
    for module, all_ in ARROWS.items():
        package, _, rest = module.partition(".")
        folder = rest.partition(".")[0]
        if package == "curate" and folder in CURATE:
            seen = {to for to in all_ if to.startswith("curate.") and to.split(".")[1] not in {folder, *CURATE[folder]}}
            wrong |= {f"{module} -> {to}" for to in seen}
    assert not wrong


def test_no_entry_point_is_imported() -> None:
    assert not {f"{module} -> {to}" for module, all_ in ARROWS.items() for to in all_ if to.endswith(".__main__")}


def test_no_two_files_import_each_other() -> None:
    """Nor three in a circle; imports within functions count, too."""
    left = {module: set(all_) for module, all_ in ARROWS.items()}
    while True:
        ends = {module for module, all_ in left.items() if not all_}
        if not ends:
            break
        left = {module: all_ - ends for module, all_ in left.items() if module not in ends}
    assert not left, "these are in a circle, or import one that is"


@pytest.mark.parametrize("path", sorted(FILES.values()), ids=str)
def test_a_file_is_not_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES
