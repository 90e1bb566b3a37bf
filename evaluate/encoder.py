"""The model as evaluation needs it: embeddings of pictures and texts, and zero-shot classifiers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch.nn import functional

from poolbench.models.clip import load, tokenizer_of
from poolbench.models.conventions import conventions_of
from poolbench.models.texts import text_lengths
from poolbench.models.towers import Towers
from poolbench.models.transforms import Pixels, evaluation_transform

from evaluate.cache import Cache
from evaluate.subject import Subject

Classes = tuple[Sequence[str], Sequence[str]]  # class names, templates

PROMPTS_AT_ONCE = 16384  # prompts whose embeddings are in memory at a time


class Encoder:
    """A model on a device, loaded once for all tasks.

    Embeddings are float32 and of unit length whatever the precision of the towers.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        device: torch.device,
        precision: str,
        batch_size: int,
        cache: Cache | None = None,
        folder: Path | None = None,
    ) -> None:
        self.device = device
        self.pixels = Pixels(evaluation_transform(model))
        self.cache = cache
        self.conventions = conventions_of(model)
        self._model = model
        self._towers = Towers(model, device, precision)
        self._tokenizer = tokenizer_of(name, folder)
        self._batch_size = batch_size
        self._classes: dict[tuple[str, tuple[str, ...]], torch.Tensor] = {}

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
        model = load(subject.model, subject.checkpoint, folder=subject.folder, device=device, say=say)
        kept = None
        if cache is not None:
            conditions = [subject.sha256, subject.model, subject.tag, precision, repr(evaluation_transform(model))]
            kept = Cache(Path(cache), conditions, device)
        return cls(model, subject.model, device, precision, batch_size, kept, subject.folder)

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, h, w] -> float32 [n, d] on the device.

        Raises:
            UserError: the model gives embeddings that are not finite, as a diverged one does.
        """
        return self._towers.images(images)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """n texts -> float32 [n, d] on the device, each different text encoded once.

        Raises:
            UserError: the model gives embeddings that are not finite.
        """
        unique = list(dict.fromkeys(texts))
        name = None if self.cache is None else self.cache.name("texts", unique)
        vectors = self._recalled(name)
        if vectors is None:
            vectors = self._encode_unique(unique)
            self._keep(name, vectors)
        return _spread(vectors, unique, texts)

    def prepare(self, classifiers: Iterable[Classes]) -> None:
        """Encode the prompts of all (class names, templates) that `classifier` will be asked for, in large batches.

        A class that several tasks have with the same templates is encoded once (six tasks share ImageNet's).

        Raises:
            UserError: the model gives embeddings that are not finite.
        """
        wanted = [(tuple(names), tuple(templates)) for names, templates in classifiers]
        names = [None if self.cache is None else self.cache.name("classes", pair) for pair in wanted]
        for (classnames, templates), name in zip(wanted, names, strict=True):
            known = self._recalled(name)
            if known is not None:
                self._classes |= {(one, templates): row for one, row in zip(classnames, known, strict=True)}
        unknown = {(one, templates) for classnames, templates in wanted for one in classnames} - set(self._classes)
        for group in _groups(sorted(unknown)):
            self._encode_classes(group)
        for (classnames, templates), name in zip(wanted, names, strict=True):
            if not unknown.isdisjoint((one, templates) for one in classnames):
                self._keep(name, torch.stack([self._classes[one, templates] for one in classnames]))

    @torch.inference_mode()
    def classifier(self, classnames: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        """Zero-shot weights, float32 [d, classes]: the mean over templates of unit vectors, scaled to unit length.

        Source of the formula: Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021, section 3.1.4.
        """
        templates = tuple(templates)
        if any((name, templates) not in self._classes for name in classnames):
            self.prepare([(classnames, templates)])
        return torch.stack([self._classes[name, templates] for name in classnames], dim=1)

    @torch.inference_mode()
    def _encode_classes(self, classes: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        prompts = [template.replace("{c}", name) for name, templates in classes for template in templates]
        unique = list(dict.fromkeys(prompts))
        vectors = _spread(self._encode_unique(unique), unique, prompts)
        for key, group in zip(classes, torch.split(vectors, [len(key[1]) for key in classes]), strict=True):
            self._classes[key] = functional.normalize(group.mean(dim=0), dim=-1)

    @torch.inference_mode()
    def _encode_unique(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts of like length share a batch, which is as long as its longest."""
        tokens = self._tokenizer(texts)
        lengths = text_lengths(self._model, tokens)
        order = torch.argsort(lengths, stable=True)
        batches = torch.split(order, self._batch_size)
        vectors = self._towers.texts(tokens[rows, : int(lengths[rows].max())] for rows in batches)
        return vectors[torch.argsort(order).to(self.device)]

    def _recalled(self, name: str | None) -> torch.Tensor | None:
        entry = None if self.cache is None or name is None else self.cache.get(name)
        return None if entry is None else torch.from_numpy(entry.vectors).to(self.device)

    def _keep(self, name: str | None, vectors: torch.Tensor) -> None:
        if self.cache is not None and name is not None:
            self.cache.put(name, vectors)


def _groups(classes: Sequence[tuple[str, tuple[str, ...]]]) -> Iterator[list[tuple[str, tuple[str, ...]]]]:
    """The classes in order, as many at a time as have PROMPTS_AT_ONCE prompts together."""
    group: list[tuple[str, tuple[str, ...]]] = []
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
