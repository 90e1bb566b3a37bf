"""The runs of a manifest, methods x seeds, for an array of jobs.

python -m train.manifest runs.yaml      lists them by number, and checks each method's options
python -m train.manifest runs.yaml 5    prints the options of the fifth, one a line

A manifest is a YAML file:

    common: # options of python -m train for every run; may be left out
      - scale=small
      - data=/pool
    methods: # by name, what is each one's own
      everything: []
      clip_score: [subset=/subsets/clip_score.npy]
    seeds: [0, 1, 2] # one run each; [0] where left out

A run is called <method>-seed<seed>. An option of a method takes the place of the common one of the same key.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from poolbench.command import compose, start
from poolbench.errors import UserError
from poolbench.text import aligned
from poolbench.usage import usage
from poolbench.validation import first_problem

from train.config import TrainConfig

_OURS = ("name", "seed")  # keys that the manifest itself decides


class Manifest(BaseModel):
    """A manifest as it stands in its file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    methods: dict[str, list[str]] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    common: list[str] = []

    @field_validator("seeds", mode="before")
    @classmethod
    def _numbers(cls, seeds: Any) -> Any:
        """Seeds as integers, those that are: all of a manifest is text."""
        whole = isinstance(seeds, list) and all(isinstance(seed, str) for seed in seeds)
        return [int(seed) if re.fullmatch(r"-?[0-9]+", seed) else seed for seed in seeds] if whole else seeds


class _Texts(yaml.SafeLoader):
    """Reads each value as the text that stands there, a method 2024_05_01 too; a key that is there twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: list[str] = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.YAMLError(f"found duplicate key {twice[0]}")
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


_Texts.yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<$"))]}


class Run(NamedTuple):
    """One run of a manifest: its options, as python -m train takes them."""

    name: str
    words: tuple[str, ...]


def main(arguments: list[str]) -> None:
    """List the runs, or print the options of one.

    Raises:
        UserError: a bad manifest, a number that it does not have, or a wrong option.
    """
    if not 1 <= len(arguments) <= 2:
        raise UserError("give a manifest, and the number of a run to see its options alone")
    path = Path(arguments[0])
    runs = read_runs(path)
    if len(arguments) == 2:
        print("\n".join(_numbered(path, runs, arguments[1]).words))
        return
    check(path, runs)
    rows = [(str(number), run.name, " ".join(run.words)) for number, run in enumerate(runs, start=1)]
    print(aligned(rows, right=(0,)))
    print(f"{len(runs)} runs: sbatch --array=1-{len(runs)} slurm/train.sbatch manifest={path}")


def read_runs(path: Path) -> list[Run]:
    """The runs of the manifest at `path`: all seeds of the first method, then those of the second, ...

    Raises:
        UserError: the file is missing, is not YAML, or is no manifest.
    """
    manifest = _read(path)
    twice = [seed for seed, count in Counter(manifest.seeds).items() if count > 1]
    if twice:
        raise UserError(f"manifest {path}: seeds names {twice[0]} twice, which would be two runs of one name")
    common = _by_key(path, "common", manifest.common)
    runs = []
    for method, words in manifest.methods.items():
        if not method or "/" in method:
            raise UserError(f"manifest {path}: a method cannot be called {method!r}; it names the folder of a run")
        options = common | _by_key(path, f"methods.{method}", words)
        for seed in manifest.seeds:
            name = f"{method}-seed{seed}"
            runs.append(Run(name, (*options.values(), f"name={name}", f"seed={seed}")))
    return runs


def check(path: Path, runs: Iterable[Run]) -> None:
    """Compose the first run of each method; seeds differ in nothing that could be wrong.

    Raises:
        UserError: naming the run, for an option that python -m train would refuse.
    """
    seen = set()
    for run in runs:
        if run.words[:-2] not in seen:
            seen.add(run.words[:-2])
            try:
                compose("train", run.words, TrainConfig)
            except UserError as error:
                raise UserError(f"manifest {path}: {run.name}: {error}") from None


def _read(path: Path) -> Manifest:
    try:
        with path.open(encoding="utf-8") as file:
            loaded = yaml.load(file, Loader=_Texts)
    except OSError as error:
        raise UserError(f"manifest {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"manifest {path} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return Manifest.model_validate(loaded)
    except ValidationError as error:
        raise UserError(f"manifest {path}: {first_problem(error, Manifest)}") from None


def _by_key(path: Path, place: str, words: Iterable[str]) -> dict[str, str]:
    """Options by their key.

    Raises:
        UserError: a word is no option, a key is given twice, or is one that the manifest decides.
    """
    options: dict[str, str] = {}
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or "\n" in word:
            raise UserError(f"manifest {path}: {place}: {word!r} is not key=value")
        if key in _OURS:
            raise UserError(f"manifest {path}: {place}: {key}= follows from the keys methods and seeds")
        if key in options:
            raise UserError(f"manifest {path}: {place}: {key}= is given twice")
        options[key] = word
    return options


def _numbered(path: Path, runs: list[Run], number: str) -> Run:
    if not number.isdecimal() or not 1 <= int(number) <= len(runs):
        raise UserError(f"manifest {path} has no run {number}; they are numbered 1 to {len(runs)}, as in --array=")
    return runs[int(number) - 1]


if __name__ == "__main__":
    start(main, partial(usage, None))
