"""The model as evaluation needs it: embeddings of pictures and texts, and zero-shot classifiers."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch.nn import functional

from poolbench.files import digest_json
from poolbench.models.clip import load

from evaluate.cache import Cache
from evaluate.embedder import Embedder, OpenClip
from evaluate.python_model import PythonEmbedder
from evaluate.subject import Subject

Classes = tuple[Sequence[str], Sequence[str]]  # class names, templates

_Class = tuple[str, tuple[str, ...]]  # a name, its prompts
PROMPTS_AT_ONCE = 16384  # prompts whose embeddings are in memory at a time


class Prompted(Protocol):
    """What gives classes their prompts: evaluate.prompts.Part."""

    def of(self, classnames: Sequence[str], own: tuple[str, ...]) -> list[_Class]: ...


class Encoder:
    """A model on a device, loaded once for all tasks.

    Embeddings are float32 and of unit length whatever the precision of the towers; of a model of one's own that wants
    it so, they are as they come (`unit` False).
    """

    def __init__(self, embedder: Embedder, cache: Cache | None = None) -> None:
        self.device = embedder.device
        self.pixels = embedder.pixels
        self.cache = cache
        self.conventions, self.own = embedder.conventions, embedder.own
        self.logit_scale = embedder.logit_scale
        self._embedder = embedder
        self._classes: dict[_Class, torch.Tensor] = {}
        self._prompts: Sequence[Prompted] = ()
        self._given: dict[tuple[tuple[str, ...], tuple[str, ...]], torch.Tensor] = {}

    @classmethod
    def of(
        cls,
        subject: Subject,
        device: torch.device,
        precision: str,
        batch_size: int,
        cache: str | None = None,
        say: Callable[[str], None] = print,
    ) -> "Encoder":
        """Load the subject's weights; see poolbench.models.clip.load for what is said of them.

        Args:
            cache: folder for embeddings that are kept, None to keep none.
        """
        embedder: Embedder
        if subject.python is not None:
            embedder = PythonEmbedder(subject.python, device, precision, batch_size)
        else:
            model = load(subject.model, subject.checkpoint, folder=subject.folder, device=device, say=say)
            embedder = OpenClip(model, subject.model, device, precision, batch_size, subject.folder)
        if cache is None:
            return cls(embedder)
        conditions = [subject.sha256, subject.model, subject.tag, precision, embedder.transform]
        return cls(embedder, Cache(Path(cache), conditions, device))

    def prompted(self, prompts: Sequence[Prompted]) -> "Encoder":
        """The same, with other prompts for classes than the templates that it is asked for; of several the mean."""
        other = copy.copy(self)
        other._prompts, other._given = prompts, {}
        return other

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, h, w] -> float32 [n, d] on the device.

        Raises:
            UserError: the model gives embeddings that are not finite, as a diverged one does.
        """
        return self._embedder.images(images)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """n texts -> float32 [n, d] on the device, each different text encoded once.

        Raises:
            UserError: the model gives embeddings that are not finite.
        """
        unique = list(dict.fromkeys(texts))
        name = None if self.cache is None else self.cache.name("texts", unique)
        vectors = self._recalled(name)
        if vectors is None:
            vectors = self._embedder.texts(unique)
            self._keep(name, vectors)
        return _spread(vectors, unique, texts)

    def prepare(self, classifiers: Iterable[Classes]) -> None:
        """Encode the prompts of all (class names, templates) that `classifier` will be asked for, in large batches.

        A class that several tasks have with the same templates is encoded once (six tasks share ImageNet's).

        Raises:
            UserError: the model gives embeddings that are not finite.
        """
        wanted = [heads for pair in classifiers if _pair(pair) not in self._given for heads in self._heads(*pair)]
        names = [None if self.cache is None else self.cache.name("classes", _content(head)) for head in wanted]
        for head, name in zip(wanted, names, strict=True):
            known = self._recalled(name)
            if known is not None:
                self._classes |= dict(zip(head, known, strict=True))
        unknown = {one for head in wanted for one in head} - set(self._classes)
        for group in _groups(sorted(unknown)):
            self._encode_classes(group)
        for head, name in zip(wanted, names, strict=True):
            if not unknown.isdisjoint(head):
                self._keep(name, torch.stack([self._classes[one] for one in head]))

    @torch.inference_mode()
    def classifier(self, classnames: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        """Zero-shot weights, float32 [d, classes]: the mean over templates of unit vectors, scaled to unit length.

        Source of the formula: Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021, section 3.1.4.
        """
        given = self._given.get(_pair((classnames, templates)))
        if given is not None:
            return given
        heads = self._heads(classnames, templates)
        if any(one not in self._classes for head in heads for one in head):
            self.prepare([(classnames, templates)])
        weights = [torch.stack([self._classes[one] for one in head]) for head in heads]
        return (weights[0] if len(weights) == 1 else self._mean(torch.stack(weights))).T

    def prompts_digest(self, classnames: Sequence[str], templates: Sequence[str]) -> str:
        """What tells the prompts of these classes from others."""
        return digest_json(self._heads(classnames, templates))

    def give(self, classnames: Sequence[str], templates: Sequence[str], weights: torch.Tensor) -> None:
        """Let `classifier` answer with weights that were saved, float32 [d, classes]."""
        self._given[_pair((classnames, templates))] = weights.to(self.device)

    def _mean(self, vectors: torch.Tensor) -> torch.Tensor:
        """[n, ..., d] -> [..., d], of unit length where embeddings are."""
        mean = vectors.mean(dim=0)
        return functional.normalize(mean, dim=-1) if self._embedder.unit else mean

    def _heads(self, classnames: Sequence[str], templates: Sequence[str]) -> list[list[_Class]]:
        """The classes with their prompts, once for each part of the prompts."""
        own = tuple(templates)
        if not self._prompts:
            return [[(name, own) for name in classnames]]
        return [part.of(classnames, own) for part in self._prompts]

    @torch.inference_mode()
    def _encode_classes(self, classes: Sequence[_Class]) -> None:
        prompts = [template.replace("{c}", name) for name, templates in classes for template in templates]
        unique = list(dict.fromkeys(prompts))
        vectors = _spread(self._embedder.texts(unique), unique, prompts)
        for key, group in zip(classes, torch.split(vectors, [len(key[1]) for key in classes]), strict=True):
            self._classes[key] = self._mean(group)

    def _recalled(self, name: str | None) -> torch.Tensor | None:
        entry = None if self.cache is None or name is None else self.cache.get(name)
        return None if entry is None else torch.from_numpy(entry.vectors).to(self.device)

    def _keep(self, name: str | None, vectors: torch.Tensor) -> None:
        if self.cache is not None and name is not None:
            self.cache.put(name, vectors)


def _pair(classes: Classes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(classes[0]), tuple(classes[1])


def _content(head: Sequence[_Class]) -> tuple[tuple[str, ...], object]:
    """What the cache knows a head by: names and the templates that all share, or those of each."""
    names, prompts = tuple(name for name, _ in head), [texts for _, texts in head]
    return names, prompts[0] if len(set(prompts)) == 1 else prompts


def _groups(classes: Sequence[_Class]) -> Iterator[list[_Class]]:
    """The classes in order, as many at a time as have PROMPTS_AT_ONCE prompts together."""
    group: list[_Class] = []
    prompts = 0
    for name, templates in classes:
        if group and prompts + len(templates) > PROMPTS_AT_ONCE:
            yield group
            group, prompts = [], 0
        group.append((name, templates))
        prompts += len(templates)
    if group:
        yield group


def _spread(vectors: torch.Tensor, unique: Sequence[str], texts: Sequence[str]) -> torch.Tensor:
    """The vectors of `unique` texts for all `texts`, among which each may be several times."""
    place = {text: index for index, text in enumerate(unique)}
    return vectors[[place[text] for text in texts]]
