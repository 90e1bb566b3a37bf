"""What each command loads: help and a mistake are told in a moment, and what needs no model waits for none."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from metadata import write_metadata
from pools import uid_of, write_pool
from predictions import labelled
from runs import CONTACT, ROOT, make_run, result

from poolbench.console import commands
from poolbench.files import read_lines
from poolbench.uids import write_subset

from leaderboard.command import COMMANDS as OF_LEADERBOARD
from tasks.command import COMMANDS as OF_TASKS

# What takes long to load: torch 2 seconds, open_clip 5 with torch, scipy half of one, pyarrow a tenth.
HEAVY = {
    *("torch", "open_clip", "torchvision", "transformers", "timm", "wilds"),
    *("scipy", "pandas", "pyarrow", "wandb", "huggingface_hub"),
}
PACKAGES = {"tasks": OF_TASKS, "leaderboard": OF_LEADERBOARD}
COMMANDS = [*([name] for name, _ in commands()), *([name, verb] for name, verbs in PACKAGES.items() for verb in verbs)]

# Of these, what a command may load to answer --help or to tell a mistake; others nothing. pyarrow is a tenth of a
# second: what reads parquet loads it at once.
PARQUET = {"pyarrow"}
CURATE = (
    "attributes",
    "audit",
    "centroids",
    "classify",
    "columns",
    "inspect",
    "metaclip_metadata",
    "overlap",
    "pack",
    "score",
)
MAY_LOAD = {
    "train.demo_time": PARQUET,
    "demodata.text_pool": PARQUET,
    **dict.fromkeys(("evaluate.compare", "evaluate.contact_sheet", "evaluate.fairness", "evaluate.merge"), PARQUET),
    **dict.fromkeys(("tasks", *(f"tasks {verb}" for verb in OF_TASKS)), PARQUET),
    **dict.fromkeys(
        ("curate", *(f"curate.{verb}" for verb in CURATE)),
        PARQUET,
    ),
    "leaderboard.pull_request": PARQUET,
    **{f"leaderboard {verb}": PARQUET for verb in OF_LEADERBOARD},
}
# In one process: commands one after the other; at the end their statuses and all that is loaded.
PROBE = """
import json, runpy, sys
file, lines = sys.argv[1], json.loads(sys.argv[2])
statuses = []
for name, *words in lines:
    sys.argv = [name, *words]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        statuses.append(0)
    except SystemExit as ended:
        statuses.append(ended.code or 0)
with open(file, "w") as told:
    json.dump([statuses, list(sys.modules)], told)
"""


def probed(folder: Path, *lines: Sequence[str | Path], status: int | Sequence[int] = 0) -> set[str]:
    """What of HEAVY is loaded when commands, which end with `status`, have run in a new process."""
    return HEAVY & loaded_by(folder, *lines, status=status)


def loaded_by(folder: Path, *lines: Sequence[str | Path], status: int | Sequence[int] = 0) -> set[str]:
    """All modules that are loaded then."""
    file = folder / "probed.json"
    words = [sys.executable, "-c", PROBE, str(file), json.dumps([[str(word) for word in line] for line in lines])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    statuses, modules = json.loads(file.read_text())
    expected = [status] * len(lines) if isinstance(status, int) else list(status)
    assert statuses == expected, done.stdout + done.stderr
    return set(modules)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_and_a_mistake_load_little(words: list[str], tmp_path: Path) -> None:
    mistakes = {"train": "scale=tiny", "train.folder": "scale=tiny", "train.demo_time": "seeds=0"}
    wrong = [*words, *([mistakes[words[0]]] if words[0] in mistakes else []), "no_such_key=1"]
    loaded = probed(tmp_path, [*words, "--help"], wrong, status=(0, 2))
    assert loaded <= MAY_LOAD.get(" ".join(words), set())


@pytest.mark.parametrize(
    "words",
    [
        ["train", "scale=tiny", "precision=fp3"],
        ["train", "scale=tiny", "recipe.model=ViT-B-33"],
        ["train", "scale=small"],
        ["evaluate", "run=nowhere"],
        ["evaluate", "model=ViT-B-33", "checkpoint=openai", "out=x"],
        ["evaluate", "model=ViT-B-32", "checkpoint=openai", "out=x", "tasks=imagenet1l"],
        ["evaluate", "model=ViT-B-32", "checkpoint=openai", "out=x", "precision=fp3"],
        ["evaluate", "model=ViT-B-32", "checkpoint=openai", "out=x", "data=nowhere"],
    ],
    ids=" ".join,
)
def test_a_wrong_value_is_told_before_torch_is_loaded(words: list[str], tmp_path: Path) -> None:
    assert probed(tmp_path, words, status=2) == set()


def test_the_names_of_models_are_those_that_open_clip_has(tmp_path: Path) -> None:
    code = (
        "import sys; from poolbench.models.names import model_names; found = model_names(); "
        "assert 'open_clip' not in sys.modules; from poolbench.models import clip; import open_clip; "
        "assert found == set(open_clip.list_models()) == model_names(), found ^ set(open_clip.list_models())"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_leaves_imports_alone_and_is_as_it_was(on: bool) -> None:
    code = """
import gc, sys
from poolbench.imports import uncollected
on = sys.argv[1] == "True"
(gc.enable if on else gc.disable)()
frozen = gc.get_freeze_count()
try:
    with uncollected():
        assert not gc.isenabled()
        import email.message as kept
        raise ImportError
except ImportError:
    pass
assert gc.isenabled() is on and gc.get_freeze_count() > frozen
assert not any(one is kept.Message.__dict__["__init__"] for one in gc.get_objects())
"""
    subprocess.run([sys.executable, "-c", code, str(on)], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


# --- what needs no model ---

# A tenth of a second each, or the half of one, which is much of the time that a filter takes for a million rows.
FOR_OTHERS = {"omegaconf", "hydra", "yaml", "tqdm", "importlib.metadata", "pydantic", "fsspec"}


def test_a_selection_loads_what_it_uses(tmp_path: Path) -> None:
    write_metadata(tmp_path / "pool", files=3)
    by_score = ["curate", "filter=clip_score", "filter.fraction=.3", "pool=pool", "out=a.npy", "workers=2"]
    loaded = loaded_by(tmp_path, by_score, ["curate", "filter=no_filter", "pool=pool", "out=b.npy"])
    assert not loaded & (FOR_OTHERS | {"concurrent.futures.process", "difflib", "platformdirs", "pandas", "dateutil"})
    assert 225 <= len(np.load(tmp_path / "a.npy")) < len(np.load(tmp_path / "b.npy")) == 750


def test_a_resharding_loads_what_it_uses(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool")
    write_subset(tmp_path / "some.npy", [uid_of(number) for number in range(50)])
    assert not loaded_by(tmp_path, ["curate.reshard", "subset=some.npy", "shards=pool", "out=out"]) & (
        FOR_OTHERS | {"pyarrow", "PIL"}
    )
    assert (tmp_path / "out" / "00000000.tar").is_file()


def test_tasks_are_listed_and_verified(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = ["tasks", "list"], ["tasks", "verify", "data=data", "jobs=1"], ["tasks", "download", "data=data"]
    assert probed(tmp_path, *lines, status=(0, 1, 1)) <= {"pyarrow", "huggingface_hub"}


def stored(out: Path, model: int) -> Path:
    """Results of one of two models on the same samples of a task, with predictions."""
    from evaluate.results import Conditions, save
    from tasks.results import ResultLine, predictions_path

    key = "vtab/eurosat"
    table = labelled(np.random.default_rng(0))[model]
    conditions = Conditions("0" * 64, "ViT-B-32", None, "fp32", None)
    told = {**conditions.identity("1" * 64), "samples": len(table), "grade": "unofficial", "official": False}
    out.mkdir()
    save(out, ResultLine(**result("a", key, 0.5, **told, deviations=["limit=1"])), table, conditions)
    assert predictions_path(out, key).is_file()
    return out


def test_results_are_compared_and_merged(tmp_path: Path) -> None:
    a, b = stored(tmp_path / "a", 0), stored(tmp_path / "b", 1)
    lines = ["evaluate.compare", a, b, "json=c.json"], ["evaluate.merge", f"out={a}", "tasks=vtab/eurosat"]
    assert probed(tmp_path, *lines) <= {"pyarrow", "scipy"}
    assert json.loads((tmp_path / "c.json").read_text())["tasks"] and read_lines(a / "eval_results.jsonl")


def test_a_submission_is_made_checked_and_placed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a", "tiny")
    submit = ["method=a", "author=b", "track=filtering", f"contact={CONTACT}"]
    made = run / "submission.json"
    lines = (
        ["leaderboard", "submit", f"run={run}", *submit],
        ["leaderboard", "validate", made],
        ["leaderboard", "build", tmp_path / "runs", "out=site", "page=false"],
        ["leaderboard", "diff", "site/leaderboard.json", "site/leaderboard.json"],
    )
    assert probed(tmp_path, *lines) <= {"pyarrow"}
    assert (tmp_path / "site" / "leaderboard.json").is_file()
    assert probed(tmp_path, ["leaderboard", "build", tmp_path / "runs", "out=site"]) <= {"pyarrow", "scipy"}
