"""What evaluation during training starts: a command that means what the options say, and one process."""

import os
import random
import sys

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from test_train_evaluation import SMALL, configured

from poolbench.command import quoted
from poolbench.processes.place import place

from evaluate.config import EvaluateConfig
from tasks.registry import select
from train import evaluation


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "MASTER_ADDR": "a"},
    ],
)
def test_the_evaluation_takes_itself_for_one_process(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    kept = {"CUDA_VISIBLE_DEVICES": "3", "SLURM_JOB_ID": "7", "RANKING": "x", "LOCAL_CACHE": "y"}
    for key, value in {**variables, **kept}.items():
        monkeypatch.setenv(key, value)
    assert place() is not None
    environment = evaluation._environment()
    assert kept.items() <= environment.items()
    monkeypatch.setattr(os, "environ", environment)
    assert place() is None


@pytest.mark.parametrize("seed", range(5))
def test_the_command_means_what_the_options_say(seed: int) -> None:
    """Whatever a path holds that Hydra's grammar knows: commas, blanks, brackets, quotes, numbers, null."""
    draw = random.Random(seed)

    def name() -> str:
        text = "".join(draw.choice("ab ,=[]{}()'\"1.~*:%äπ") for _ in range(draw.randint(1, 12)))
        # A path that begins with ~ or ends with : would be another one in any command.
        return draw.choice([text.strip(" .~:") or "x", "null", "1e5", "true", "[a,b]", "a,b", "{0..3}"])

    config = configured(SMALL | {"data": "pool"})
    for _ in range(50):
        config.out, config.name, config.evaluate.data = name(), name(), name()
        config.evaluate.tasks = [name() for _ in range(draw.randint(1, 3))]
        config.evaluate.limit = draw.choice([None, 5])
        path = config.folder / "checkpoints" / "step_000000004.pt"
        command = evaluation._command(config, path, torch.device("cuda", 0))
        assert command[: len(evaluation.EVALUATE)] == [sys.executable, "-m", "evaluate"]
        words = [quoted(word, EvaluateConfig) for word in command[len(evaluation.EVALUATE) :]]
        parsed = {word.key_or_group: word.value() for word in OverridesParser.create().parse_overrides(words)}
        expected = {
            "model": "test-tiny",
            "checkpoint": str(path),
            "out": str(config.folder / "evaluations" / path.stem),
            "tasks": list(config.evaluate.words),
            "data": config.evaluate.data,
            "limit": config.evaluate.limit,
            "precision": "fp32",
            "device": "cuda:0",
        }
        assert parsed == {key: value for key, value in expected.items() if value is not None}


@pytest.mark.parametrize("words", [("all",), ("demo",), ("vtab", "imagenet1k"), ("*pets", "retrieval/*", "vtab/pets")])
def test_tasks_are_those_of_the_registry(words: tuple[str, ...]) -> None:
    assert evaluation.task_keys(words) == [task.key for task in select(words)]
