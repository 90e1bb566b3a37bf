"""What is scored: the checkpoint of a run, or a model and checkpoint named on the command line."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from poolbench.errors import UserError
from poolbench.files import digest_file
from poolbench.models.names import PYTHON
from poolbench.models.weights import Trained, trained, weights_of

from evaluate.config import EvaluateConfig
from evaluate.prompts import Prompts

if TYPE_CHECKING:
    from evaluate.python_model import PythonModel


class Subject(NamedTuple):
    """A model to score: poolbench.models.weights.Weights, and

    Attributes:
        out: folder for the results.
        scale: of the run, None without one.
        deviations: what already keeps every result from being official.
        prompts: other ones than the tasks' own.
        python: the model itself, where it is one that open_clip does not know.
    """

    model: str
    checkpoint: str
    tag: str | None
    sha256: str
    folder: Path | None
    out: Path
    scale: str | None
    deviations: tuple[str, ...]
    prompts: Prompts | None = None
    python: "PythonModel | None" = None

    def with_prompts(self, prompts: Prompts) -> "Subject":
        """The same with other prompts; its results go into a folder of their own, and none is official.

        Raises:
            UserError: the folder cannot be made.
        """
        deviations = (*self.deviations, prompts.deviation)
        return _with_folder(self._replace(prompts=prompts, out=self.out / prompts.folder, deviations=deviations))


def subject_of(config: EvaluateConfig) -> Subject:
    """Find the checkpoint, hash it, and make the folder for the results.

    Raises:
        UserError: the run, checkpoint, model or tag does not exist, or the folder for the results cannot be written.
    """
    return _with_folder(_from_run(config, Path(config.run)) if config.run is not None else _from_names(config))


def _with_folder(subject: Subject) -> Subject:
    try:
        subject.out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(f"out={subject.out} is a file, not a folder") from None
    if not os.access(subject.out, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write into {subject.out}; choose another folder with out=")
    return subject


def newest_of(run: Path) -> Trained:
    """The newest checkpoint of the training run in a folder, which is there.

    Raises:
        UserError: there is no such run, or its checkpoint is missing.
    """
    if not run.is_dir():
        raise UserError(f"run={run} is not a folder")
    newest = trained(run)
    if not newest.checkpoint.is_file():
        raise UserError(f"{newest.checkpoint}, which {run / 'run.json'} names, does not exist")
    return newest


def _from_run(config: EvaluateConfig, run: Path) -> Subject:
    newest = newest_of(run)
    sha256 = digest_file(newest.checkpoint)
    deviations = () if sha256 == newest.sha256 else ("the checkpoint is not the one that run.json names",)
    out = run if config.out is None else Path(config.out)
    return Subject(newest.model, str(newest.checkpoint), None, sha256, None, out, newest.scale, deviations)


def _from_names(config: EvaluateConfig) -> Subject:
    assert config.model is not None and config.out is not None
    if config.model.startswith(PYTHON):
        return _from_python(config.model, config.checkpoint, Path(config.out))
    return Subject(*weights_of(config.model, config.checkpoint), Path(config.out), None, ())


def _from_python(name: str, checkpoint: str | None, out: Path) -> Subject:
    from evaluate.python_model import load_python  # with torch, which takes seconds to load

    given = load_python(name, checkpoint)
    deviation = f"model={name} is not one that open_clip builds"
    told = checkpoint or given.source[:23]
    return Subject(name, told, given.source, given.sha256, None, out, None, (deviation,), python=given)
