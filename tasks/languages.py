"""ImageNet's class names in other languages: clip_benchmark's lists, read from the package.

translated("it").of(data.classnames)         # the Italian names of the classes of ImageNet, or of ImageNet-R
open_task(task, Path("evalsets"))            # as tasks.readers.open_data, with the names that the task's file says
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from poolbench.errors import UserError, nearest
from poolbench.files import digest_json

from tasks.names import IMAGENETS, Names, data_folder, digest_of_names, imagenet_places, packaged, read_packaged
from tasks.readers import TaskData, open_data
from tasks.registry import Task


class Translated(NamedTuple):
    """ImageNet's class names in another language, in the order of its labels, and templates; `digest` is of both."""

    classnames: Names
    templates: Names

    @property
    def digest(self) -> str:
        return digest_json([self.classnames, self.templates])

    def of(self, classnames: Sequence[str]) -> Names:
        """The names of classes that are called `classnames` in English: ImageNet's, or those of one of its variants.

        Raises:
            UserError: they are other ones. By name alone they cannot be told: ImageNet has two missiles.
        """
        english = packaged()
        every = english["imagenet1k"]["classnames"]
        for key in IMAGENETS:
            if digest_of_names(classnames) == digest_of_names(english[key]["classnames"]):
                kept = imagenet_places(key)
                return tuple(name for place, name in enumerate(self.classnames) if kept is None or place in kept)
        raise UserError(f"clip_benchmark has it for the {len(every)} classes of ImageNet and its variants alone")


def translated(language: str) -> Translated:
    """The lists that clip_benchmark has for ImageNet in a language other than English.

    Raises:
        UserError: it has none.
    """
    ends = {"classnames": "_classnames.json", "templates": "_zeroshot_classification_templates.json"}
    found = {path.name: path for path in data_folder().iterdir()}
    known = {name.removesuffix(ends["classnames"]) for name in found if name.endswith(ends["classnames"])} - {"en"}
    if language not in known:
        raise UserError(f"clip_benchmark has no class names in the language {language}; {nearest(language, known)}")
    return Translated(*(tuple(read_packaged(found[f"{language}{end}"])["imagenet1k"]) for end in ends.values()))


def open_task(task: Task, root: Path) -> TaskData:
    """A task's folder as `open_data` finds it, with class names and templates in the language that the task says.

    Raises:
        MissingDataError, UserError: see there; the language's lists are not those of the task's file, or the folder
            holds other classes than ImageNet's.
    """
    return prompted(task, open_data(task, root))


def prompted(task: Task, data: TaskData) -> TaskData:
    """A task's data with class names and templates in the language that the task says.

    Raises:
        UserError: as `open_task`.
    """
    if task.prompts is None:
        return data
    try:
        lists = translated(task.prompts.language)
        names = lists.of(data.classnames)
    except UserError as error:
        raise UserError(f"{data.folder}: {task.key} needs prompts in another language: {error}") from None
    if lists.digest != task.prompts.sha256:
        raise UserError(
            f"{task.key} is pinned to other class names and templates (sha256 {task.prompts.sha256[:16]}) than "
            f"those of the clip_benchmark that is installed ({lists.digest[:16]})"
        )
    return replace(data, classnames=names, templates=lists.templates)
