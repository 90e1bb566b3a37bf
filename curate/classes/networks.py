"""Networks that learn which set a picture is of, on what the store holds of the pictures.

The same seed gives the same batches, crops and mixtures, however many workers make them.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from poolbench.shards.workers import Iterated, begin_worker, readable_errors

from curate.classes.items import Items, Lesson
from curate.classes.recipes import SMALL, Recipe
from curate.classes.store import pictures, view_path
from curate.classes.transforms import Transform, crop_of

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, as published
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_ASKED = 256  # pictures that are classified at a time


class Sight(NamedTuple):
    """How a network sees pictures.

    Attributes:
        view: of the stores.
        stored: side of the pictures there, an eighth more or so than the recipe's.
    """

    view: str
    stored: int
    transform: Transform
    recipe: Recipe


class Training(NamedTuple):
    """Where and by what a network is trained."""

    model: str
    device: torch.device
    workers: int
    name: str  # beside its progress


class Small(nn.Sequential):
    """Three convolutions of stride 2 and the mean over the picture; 94,000 weights."""

    def __init__(self, classes: int) -> None:
        layers: list[nn.Module] = []
        for width, wider in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(width, wider, 3, 2, 1), nn.GroupNorm(8, wider), nn.GELU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """The pictures of items as the network sees them, found by (epoch, number); epoch -1 is the evaluation's."""

    def __init__(self, paths: Sequence[Path], items: Items, sight: Sight, seed: int) -> None:
        self._paths, self._items, self._sight, self._seed = list(paths), items, sight, seed
        self._files: dict[int, np.ndarray] = {}
        self._randaug: Any = None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, wanted: tuple[int, int]) -> tuple[torch.Tensor, int]:
        epoch, number = wanted
        store = int(self._items.store[number])
        if store not in self._files:  # each worker opens them for itself
            self._files[store] = pictures(self._paths[store], self._sight.stored)
        rng = np.random.default_rng([self._seed, epoch + 1, number])
        picture = self._files[store][int(self._items.place[number])]
        return torch.from_numpy(seen(picture, self._sight, rng, epoch >= 0, self._augment)), number

    def _augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """RandAugment by timm, whose draws come from Python's and numpy's own generators."""
        if self._randaug is None:
            from timm.data.auto_augment import rand_augment_transform

            side = self._sight.recipe.side
            mean = tuple(round(255 * float(one)) for one in _MEAN.tolist())
            self._randaug = rand_augment_transform(
                self._sight.recipe.randaug, {"translate_const": int(side * 0.45), "img_mean": mean}
            )
        drawn = int(rng.integers(2**32))
        random.seed(drawn)
        np.random.seed(drawn)
        augmented: Image.Image = self._randaug(image)
        return augmented


class Epochs:
    """(epoch, number) of the pictures of every step; what is left of an epoch behind its last whole batch is not
    shown. It is drawn as it is read: thirty epochs of millions of pictures would fill the memory."""

    def __init__(self, size: int, recipe: Recipe, seed: int) -> None:
        self._size, self._epochs, self._seed = size, recipe.epochs, seed
        self._batch = min(recipe.batch, size - size % 2)

    def __len__(self) -> int:
        return self._epochs * (self._size // self._batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self._epochs):
            order = np.random.default_rng([self._seed, epoch]).permutation(self._size)
            for start in range(0, self._size - self._batch + 1, self._batch):
                yield [(epoch, number) for number in order[start : start + self._batch].tolist()]


def seen(
    picture: np.ndarray,
    sight: Sight,
    rng: np.random.Generator,
    train: bool,
    augment: Callable[[Image.Image, np.random.Generator], Image.Image] | None = None,
) -> np.ndarray:
    """What the network gets of a stored picture, float32 [3, side, side]: cropped and augmented, or its middle."""
    recipe, transform, side = sight.recipe, sight.transform, sight.recipe.side
    image = Image.fromarray(picture)
    if train:
        left, top, width, height = crop_of(sight.stored, recipe.scale, rng)
        image = image.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        if transform.augmentation != "crop" and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if transform.augmentation == "full" and recipe.randaug and augment is not None:
            image = augment(image, rng)
    else:
        edge = (sight.stored - side) // 2
        image = image.crop((edge, edge, edge + side, edge + side))
    values = np.asarray(image, np.float32) / np.float32(255)
    if transform.augmentation == "full":
        values = (values - _MEAN) / _STD
    values = np.ascontiguousarray(values.transpose(2, 0, 1))
    return values if transform.after is None else np.ascontiguousarray(transform.after(values, rng))


def shown(picture: np.ndarray, sight: Sight, rng: np.random.Generator) -> np.ndarray:
    """What a classifier is asked about, as colours again, uint8 [side, side, 3]."""
    values = seen(picture, sight, rng, train=False).transpose(1, 2, 0)
    if sight.transform.augmentation == "full":
        values = values * _STD + _MEAN
    colours: np.ndarray = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return colours


def predictions(lesson: Lesson, sight: Sight, training: Training) -> list[np.ndarray]:
    """Train a network on a lesson and let it classify what is asked: classes, int64 [n], of each."""
    torch.manual_seed(lesson.seed)
    network = _network(training.model, lesson.classes).to(training.device)
    with readable_errors("workers"):
        _fit(network, lesson, sight, training)
        return [_classified(network, lesson, items, sight, training) for items in lesson.asked]


def _network(model: str, classes: int) -> nn.Module:
    if model == SMALL:
        return Small(classes)
    import timm

    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=classes)
    return network


def _fit(network: nn.Module, lesson: Lesson, sight: Sight, training: Training) -> None:
    recipe, device = sight.recipe, training.device
    batches = Epochs(len(lesson.train), recipe, lesson.seed)
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)
    warmup = recipe.warmup / recipe.epochs * len(batches)
    labels, mix = torch.from_numpy(lesson.train.label), _mixing(recipe, lesson.classes)
    network.train()
    loaded = _loaded(lesson, lesson.train, sight, training, batches)
    for step, (values, numbers) in enumerate(
        tqdm(loaded, training.name, len(batches), unit="step", disable=None, leave=False)
    ):
        rate = _rate((step + 1) / len(batches), min(1.0, warmup / len(batches)))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        np.random.seed((lesson.seed + step) % 2**32)
        torch.manual_seed(lesson.seed + step)
        values, targets = mix(values.to(device), labels[numbers].to(device))
        optimizer.zero_grad(set_to_none=True)
        chunk = recipe.chunk or len(values)
        for part in range(0, len(values), chunk):
            with _precision(device):
                logits = network(values[part : part + chunk])
            told = torch.log_softmax(logits.float(), dim=1)
            loss = -(targets[part : part + chunk] * told).sum() / len(values)
            loss.backward()
        optimizer.step()


def _classified(network: nn.Module, lesson: Lesson, items: Items, sight: Sight, training: Training) -> np.ndarray:
    network.eval()
    numbers = np.arange(len(items))
    batches = [[(-1, int(number)) for number in numbers[at : at + _ASKED]] for at in range(0, len(items), _ASKED)]
    found = np.empty(len(items), np.int64)
    with torch.inference_mode():
        for values, which in _loaded(lesson, items, sight, training, batches):
            with _precision(training.device):
                logits = network(values.to(training.device))
            found[which.numpy()] = logits.float().argmax(dim=1).cpu().numpy()
    return found


def _loaded(
    lesson: Lesson, items: Items, sight: Sight, training: Training, batches: Epochs | list[list[tuple[int, int]]]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches, made by workers besides this process."""
    paths = [view_path(store.folder, sight.view) for store in lesson.stores]
    data = Pictures(paths, items, sight, lesson.seed)
    workers = training.workers - 1 if len(batches) > 8 else 0  # a few are made sooner than workers start
    loader: Any = DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_begin,
        pin_memory=training.device.type == "cuda",
    )
    with Iterated(loader) as messages:
        yield from messages


def _begin(worker: int) -> None:
    torch.set_num_threads(1)
    begin_worker()


def _mixing(recipe: Recipe, classes: int) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Mixup, cutmix and label smoothing by timm; without the first two, smoothed labels alone."""
    if recipe.mixup or recipe.cutmix:
        from timm.data.mixup import Mixup

        make: Any = Mixup  # which has no types
        mixed: Callable[[Any, Any], tuple[Any, Any]] = make(
            recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=classes
        )
        return mixed

    def smoothed(values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ones = nn.functional.one_hot(labels, classes).float()
        return values, ones * (1 - recipe.smoothing) + recipe.smoothing / classes

    return smoothed


def _rate(done: float, warmup: float) -> float:
    """The share of the rate: linear to 1, then a cosine to 0."""
    if done < warmup:
        return done / warmup
    return float(0.5 * (1 + np.cos(np.pi * (done - warmup) / max(1e-9, 1 - warmup))))


def _precision(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
