"""Prompts from files in place of a task's own templates: sentences for each class, other templates, and ensembles.

    prompts=cupl.json                 # {"golden retriever": ["A golden retriever is a large, ...", ...], ...}
    prompts=templates.json            # ["a photo of a {c}.", ...]
    prompts=language:it               # ImageNet's class names and templates in Italian, as clip_benchmark has them
    prompts=[cupl.json,own+cupl.json] # two sets, one after the other; the second averages a file and the task's own

The form of sentences for each class is that of CuPL (Pratt et al., What Does a Platypus Look Like?, ICCV 2023).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from poolbench.errors import UserError
from poolbench.files import digest_json, read_json
from poolbench.text import some

if TYPE_CHECKING:
    from tasks.languages import Translated
    from tasks.readers import TaskData
    from tasks.registry import Task

LANGUAGE = "language:"  # before one that clip_benchmark has class names in
OWN = "own"  # the word for a task's own templates
Texts = tuple[str, ...]
_KINDS = ("classification", "iwildcam", "worst_group", "fmow")  # of tasks whose classes are those of one list


class Part(NamedTuple):
    """One file of prompts, or a task's own templates; `digest` is that of the values in the file, however written.

    Attributes:
        templates: for all classes; None of sentences, and of a task's own.
        sentences: by class name; None of templates, and of a task's own.
        language: class names and templates of another language.
    """

    name: str
    digest: str
    templates: Texts | None = None
    sentences: Mapping[str, Texts] | None = None
    language: "Translated | None" = None

    def of(self, classnames: Sequence[str], own: Texts) -> list[tuple[str, Texts]]:
        """Of each class what "{c}" stands for in its prompts, and these.

        Raises:
            UserError: the classes are not those that there are names of in the language.
        """
        if self.language is not None:
            return [(name, self.language.templates) for name in self.language.of(classnames)]
        if self.sentences is not None:
            return [(name, self.sentences[name]) for name in classnames]
        return [(name, own if self.templates is None else self.templates) for name in classnames]


class Prompts(NamedTuple):
    """A set of prompts. Of several parts a class is the mean of their unit vectors, of unit length again."""

    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def digest(self) -> str:
        return self.parts[0].digest if len(self.parts) == 1 else digest_json([part.digest for part in self.parts])

    @property
    def deviation(self) -> str:
        """Why a result with them is not official."""
        return f"prompts={self.name} (digest {self.digest[:16]}) in place of the task's own templates"

    @property
    def folder(self) -> Path:
        """Below a folder of results, where those with these prompts lie."""
        return Path("prompts") / f"{self.name}-{self.digest[:8]}"


def prompts_of(value: Any) -> list[Prompts]:
    """The sets that `prompts=` names; [] for none.

    Raises:
        UserError: it is no word or list of words, or a file is not one of prompts.
    """
    words = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise UserError(f"prompts={value} is not a file, or a list of files such as [cupl.json,own+cupl.json]")
    sets = [Prompts(tuple(map(_part, _files(word)))) for word in words]
    if any(all(part.name == OWN for part in one.parts) for one in sets):
        raise UserError(f"prompts={OWN}: the task's own templates are used without prompts=; join a file to them by +")
    if len({one.digest for one in sets}) < len(sets):
        raise UserError(f"prompts={value} names the same prompts twice")
    return sets


def check_prompts(sets: Sequence[Prompts], tasks: Mapping[str, "tuple[Task, TaskData]"]) -> None:
    """Raise UserError where a task has no use for prompts or a class without any, or a file has a class of no task."""
    for key, (task, _) in tasks.items():
        if task.kind not in _KINDS:
            raise UserError(f"prompts= are for tasks of classification; leave {key} out of tasks=")
    for part in (part for one in sets for part in one.parts if part.language is not None):
        for key, (_, data) in tasks.items():
            try:
                part.of(data.classnames, data.templates)
            except UserError as error:
                raise UserError(f"prompts={LANGUAGE}{part.name} and {key}: {error}") from None
    known = dict.fromkeys(name for _, data in tasks.values() for name in data.classnames)
    for part in (part for one in sets for part in one.parts if part.sentences is not None):
        assert part.sentences is not None
        for key, (_, data) in tasks.items():
            missing = [name for name in data.classnames if name not in part.sentences]
            if missing:
                raise UserError(f"prompts={part.name} has no sentences for classes of {key}: {some(missing)}")
        unknown = [name for name in part.sentences if name not in known]
        if unknown and known:
            raise UserError(f"prompts={part.name} has classes that no chosen task has: {some(unknown)}")


def _files(word: str) -> list[str]:
    return [word] if Path(word).is_file() else word.split("+")


def _part(word: str) -> Part:
    if word == OWN:
        return Part(OWN, OWN)
    if word.startswith(LANGUAGE):
        name = word.removeprefix(LANGUAGE)
        try:
            from tasks.languages import translated  # here: Arrow loads with it

            lists = translated(name)
        except UserError as error:
            raise UserError(f"prompts={word}: {error}") from None
        return Part(name, lists.digest, language=lists)
    path = Path(word)
    if not path.is_file():
        raise UserError(f"prompts={word} is not a file")
    value = read_json(path)
    name, digest = path.stem, digest_json(value)
    if isinstance(value, list):
        templates = _texts(value, f"prompts={word}")
        without = [one for one in templates if "{c}" not in one]
        if without:
            raise UserError(f"prompts={word}: a list is one of templates, and {without[0]!r} has no {{c}}")
        return Part(name, digest, templates=templates)
    if not isinstance(value, dict) or not value:
        raise UserError(f"prompts={word} is neither an object of class names with lists of sentences nor a list")
    return Part(
        name,
        digest,
        sentences={key: _texts(texts, f"prompts={word}: class {key!r}") for key, texts in value.items()},
    )


def _texts(value: Any, where: str) -> Texts:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one.strip() for one in value):
        raise UserError(f"{where} is not a list of at least one text, none of them empty")
    return tuple(value)
