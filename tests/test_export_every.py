"""Every data set of clip_benchmark is exported or refused, as its source says what there is."""

import ast
from importlib.resources import files

from clip_benchmark.datasets.builder import (
    dataset_collection,
    get_dataset_default_task,
)
from test_export import ONE_SPLIT, TASKS

from tasks.datasets import CLASSIFICATION, MULTILABEL, PAIRS, REFUSED, RETRIEVAL, SELECTION, kind_of


def branches() -> set[str]:
    """The data sets of clip_benchmark, from the comparisons in the function that builds them."""
    source = (files("clip_benchmark") / "datasets" / "builder.py").read_text(encoding="utf-8")
    found = set()
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef) and function.name in ("build_dataset", "build_vtab_dataset"):
            for node in ast.walk(function):
                match node:
                    case ast.Compare(left=ast.Name(id="dataset_name"), comparators=[ast.Constant(value=str(name))]):
                        found.add(f"vtab/{name}" if "vtab" in function.name else name)
    return found


def test_every_data_set_of_clip_benchmark_is_exported_or_refused() -> None:
    known = {*CLASSIFICATION, *RETRIEVAL, *SELECTION, *MULTILABEL, *PAIRS, *REFUSED, "sugar_crepe"}
    assert len(branches()) > 50
    pairs = {name for name in branches() if name.partition("/")[0] in known or name in known}
    assert branches() - pairs <= {"vtab/cifar10", "vtab/cifar100"}
    for name in {*branches(), *(name for names in dataset_collection.values() for name in names)}:
        kind = get_dataset_default_task(name)
        if name.partition("/")[0] in REFUSED or name in ("sugar_crepe", *SELECTION, *PAIRS):
            assert name in REFUSED or kind == "image_caption_selection", name
            continue
        assert name in (RETRIEVAL if kind == "zeroshot_retrieval" else CLASSIFICATION | MULTILABEL), name
    assert set(SELECTION) == set(dataset_collection["sugar_crepe"])
    for name, key in (CLASSIFICATION | RETRIEVAL | SELECTION | MULTILABEL | PAIRS).items():
        assert key is None or TASKS[key].kind == kind_of(name)


def without_split() -> set[str]:
    """The data sets of clip_benchmark whose part of the function that builds them does not mention the split."""
    source = (files("clip_benchmark") / "datasets" / "builder.py").read_text(encoding="utf-8")
    (build,) = [one for one in ast.parse(source).body if getattr(one, "name", "") == "build_dataset"]
    found = set()
    for node in ast.walk(build):
        match node:
            case ast.If(test=ast.Compare(left=ast.Name(id="dataset_name"), comparators=[ast.Constant(value=name)])):
                used = {one.id for line in node.body for one in ast.walk(line) if isinstance(one, ast.Name)}
                found |= {str(name)} if not used & {"split", "train", "warnings"} else set()
    return found


def test_splits_that_clip_benchmark_passes_over_are_known() -> None:
    assert without_split() - {"dummy"} == set(ONE_SPLIT)
