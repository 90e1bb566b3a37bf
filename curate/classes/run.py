"""The whole question: draw, transform, train and ask, for each draw and each transformation.

What a classifier found is kept in the work folder, so that the same command goes on where it was stopped.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from poolbench.errors import UserError
from poolbench.files import read_json, write_json

from curate.classes.draws import MORE, Listing, listing, seed_of
from curate.classes.items import Items, Lesson, joined, of_store
from curate.classes.recipes import Recipe
from curate.classes.results import Answer
from curate.classes.sets import DataSet
from curate.classes.store import PLAIN, Kind, Store, allot, pictures, view_path
from curate.classes.transforms import CAPTIONS, TRANSFORMS, Transform, given
from curate.pool.hashes import hashed
from curate.pool.passes import Passes

CONTROL = "control"  # a name that no transformation has
_EXAMPLES = 6  # of each set
_PIECE = 256  # pictures that a worker transforms at a time


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        sets: those that are told apart; asked: those that are only asked about.
        train, validation: samples of each set.
        given: folders of pictures made of the sets' pictures, by transformation.
        recipe: None for the logistic regressions on embeddings.
        stored: side of the pictures that are held.
    """

    sets: Sequence[DataSet]
    asked: Sequence[DataSet]
    transforms: Sequence[str]
    given: dict[str, str]
    train: int
    validation: int
    draws: int
    seed: int
    model: str
    embedding: str
    recipe: Recipe | None
    stored: int
    control: bool
    device: str
    workers: int

    @property
    def kind(self) -> Kind:
        """What has to be held of each sample."""
        given_ = {name: folder for name, folder in self.given.items() if name in self.transforms}
        return Kind(self.stored, given_, self.embedding, CAPTIONS in self.transforms)

    def transform(self, name: str) -> Transform:
        return given(name) if name in self.given else TRANSFORMS[name]


class Outcome(NamedTuple):
    """What was found: answers by transformation, a list over the draws; those of the control."""

    answers: dict[str, list[Answer]]
    control: list[Answer]
    sets: dict[str, dict[str, Any]]
    examples: dict[str, dict[str, list[str]]]
    notes: list[str]


class Run:
    """One run in its work folder."""

    def __init__(self, plan: Plan, passes: Passes, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._plan, self._passes, self._folder = plan, passes, folder
        self._listings: dict[str, Listing] = {}
        self._limits = {one.name: 2 * self._most(one) for one in (*plan.sets, *plan.asked)}

    def outcome(self) -> Outcome:
        """Do what is not done yet.

        Raises:
            UserError: a set has too few pictures, or nothing is left of one.
        """
        plan, steps = self._plan, [*self._plan.transforms, *([CONTROL] if self._plan.control else [])]
        for draw in range(plan.draws):
            missing = [step for step in steps if not self._path(draw, step).is_file()]
            if missing or not self._path(draw, "drawn").is_file():
                self._draw(draw, missing)
        told = [read_json(self._path(draw, "drawn")) for draw in range(plan.draws)]
        found = {step: [read_json(self._path(draw, step)) for draw in range(plan.draws)] for step in steps}
        answers = {step: [Answer(one["confusion"], one["asked"]) for one in some] for step, some in found.items()}
        control = answers.pop(CONTROL, [])
        notes = [note for one in told for note in one["notes"]]
        notes += [note for some in found.values() for one in some for note in one["notes"]]
        examples = {step: some[0]["examples"] for step, some in found.items() if step != CONTROL}
        return Outcome(answers, control, told[0]["sets"], examples, list(dict.fromkeys(notes)))

    def _draw(self, draw: int, steps: Sequence[str]) -> None:
        """Draw once, and do the steps that are missing."""
        stores, notes = self._stores(draw)
        described = {
            of.name: {
                "source": of.source,
                "samples": self._listing(of).samples,
                "without_uid": self._listing(of).by_key,
                "drawn": len(stores[of.name].filled),
                "asked": of in self._plan.asked,
            }
            for of in (*self._plan.sets, *self._plan.asked)
        }
        for step in steps:
            write_json(self._path(draw, step), self._step(draw, step, list(stores.values())))
        write_json(self._path(draw, "drawn"), {"sets": described, "notes": notes})

    def _path(self, draw: int, step: str) -> Path:
        return self._folder / f"{draw}-{step}.json"

    def _most(self, of: DataSet) -> int:
        """Samples that are drawn of a set, at most."""
        return self._plan.validation + (0 if of in self._plan.asked else self._plan.train)

    def _listing(self, of: DataSet) -> Listing:
        if of.name not in self._listings:
            plan = self._plan
            self._listings[of.name] = listing(self._passes, of, plan.seed, plan.draws, self._limits[of.name])
        return self._listings[of.name]

    def _stores(self, draw: int) -> tuple[dict[str, Store], list[str]]:
        """The samples of a draw by set, in the order of the sets, and what is to be said of them.

        The largest set is drawn from first: where a set is a part of another one, both draws are then as if there were
        no other (what a draw of the whole takes of its part is drawn at random, and so is what it leaves).
        """
        sets = [*self._plan.sets, *self._plan.asked]
        made: dict[str, Store] = {}
        for of in sorted(sets, key=lambda one: (-self._listing(one).samples, one.name)):
            made[of.name] = self._store(draw, of, [store.rows[store.filled] for store in made.values()])
        notes = [note for of in sets for note in self._listing(of).notes]
        for name, store in made.items():
            if store.bad:
                notes.append(f"passed over in {name}, others were drawn instead{store.bad.commonest()}")
        return {of.name: made[of.name] for of in sets}, notes

    def _store(self, draw: int, of: DataSet, taken: Sequence[np.ndarray]) -> Store:
        """
        Raises:
            UserError: there are not so many.
        """
        plan, most = self._plan, self._most(of)
        while True:
            listed = self._listing(of)
            store = Store(self._folder / f"store-{of.name}", of, most, plan.kind)
            store.fill(self._passes, listed.orders[draw], taken)
            if len(store.filled) == most or (listed.whole and of in plan.asked and len(store.filled)):
                return store
            if listed.whole:
                needed = f"train={plan.train:,} and validation={plan.validation:,}" if of in plan.sets else "one"
                raise UserError(
                    f"the set {of.name!r} has {len(store.filled):,} different usable samples of {listed.samples:,} "
                    f"that no other set's draw has; {needed} together are {most:,}{store.bad.commonest()}"
                )
            self._limits[of.name] *= MORE
            del self._listings[of.name]

    def _step(self, draw: int, step: str, stores: Sequence[Store]) -> dict[str, Any]:
        """Train and ask once; the answer as JSON holds it, with examples and what is to be said."""
        plan, name = self._plan, self._plan.transforms[0] if step == CONTROL else step
        view = self._view(name, stores)
        sides = [self._usable(name, store) for store in stores]
        notes = [
            f"{len(store.filled) - len(side):,} samples of {store.of.name} have no {name}{store.unmade.commonest()}"
            for store, side in zip(stores, sides, strict=True)
            if len(side) < len(store.filled)
        ]
        classes, seed = len(plan.sets), seed_of(plan.seed, draw, step) % 2**31
        if step == CONTROL:
            lesson, notes = self._halves(draw, stores, sides, seed), []
        else:
            train = joined([of_store(at, side[side < plan.train], at) for at, side in enumerate(sides[:classes])])
            held = joined([of_store(at, side[side >= plan.train], at) for at, side in enumerate(sides[:classes])])
            asked = [of_store(at, side, 0) for at, side in enumerate(sides)][classes:]
            lesson = Lesson(stores, classes, train, [held, *asked], seed)
        _check(lesson, step, name)
        held = lesson.asked[0]
        taken, *rest = self._predictions(lesson, name, view, f"draw {draw + 1} {step}")
        confusion = np.zeros((lesson.classes, lesson.classes), np.int64)
        np.add.at(confusion, (held.label, taken), 1)
        counts = [np.bincount(one, minlength=classes).tolist() for one in rest]
        shown = {} if step == CONTROL or draw else self._examples(name, view, stores, sides)
        if view not in (PLAIN, *plan.given):  # it is as large as the pictures
            for store in stores:
                view_path(store.folder, view).unlink()
        return {
            "confusion": confusion.tolist(),
            "asked": {of.name: one for of, one in zip(plan.asked, counts, strict=True)} if step != CONTROL else {},
            "examples": shown,
            "notes": notes,
        }

    def _halves(self, draw: int, stores: Sequence[Store], sides: Sequence[np.ndarray], seed: int) -> Lesson:
        """The control: one set, of which each draw takes another, in two halves by a hash of the picture's bytes, so
        that a picture which is in training and validation is in one half both times, and the half is learnt."""
        at = draw % len(self._plan.sets)
        side = sides[at]
        half = (hashed(stores[at].rows["digest"], seed) >> np.uint64(63)).astype(np.int64)
        train, held = (
            of_store(at, some, 0) for some in (side[side < self._plan.train], side[side >= self._plan.train])
        )
        train, held = (Items(one.store, one.place, half[one.place]) for one in (train, held))
        return Lesson(stores, 2, train, [held], seed)

    def _usable(self, name: str, store: Store) -> np.ndarray:
        """The places of a store's samples that have what a transformation is made of, int64."""
        places = store.filled
        if name == CAPTIONS:
            has = np.array([bool((caption or "").strip()) for caption in store.captions], bool)
            places = places[has[places]]
        elif name in store.lacking:
            places = places[~store.lacking[name][places]]
        return places

    def _view(self, name: str, stores: Sequence[Store]) -> str:
        """The view of the stores that a transformation is trained on, made where it is not there."""
        if name in self._plan.given:
            return name
        if name == CAPTIONS or self._plan.recipe is None or TRANSFORMS[name].before is None:
            return PLAIN
        for store in stores:
            allot(view_path(store.folder, name), store.size, self._plan.stored)
        pieces = [(str(store.folder), at) for store in stores for at in range(0, store.size, _PIECE)]
        for _ in self._passes.gathered(transformed, pieces, name, self._plan.stored):
            pass
        return name

    def _predictions(self, lesson: Lesson, name: str, view: str, told: str) -> list[np.ndarray]:
        plan = self._plan
        if name == CAPTIONS:
            from curate.classes.linear import by_captions

            return by_captions(lesson)
        if plan.recipe is None:
            from curate.classes.linear import by_embeddings

            return by_embeddings(lesson)
        import torch

        from curate.classes.networks import Sight, Training, predictions

        training = Training(plan.model, torch.device(plan.device), plan.workers, told)
        return predictions(lesson, Sight(view, plan.stored, plan.transform(name), plan.recipe), training)

    def _examples(
        self, name: str, view: str, stores: Sequence[Store], sides: Sequence[np.ndarray]
    ) -> dict[str, list[str]]:
        """The first validation samples of each set as the classifier is asked about them."""
        first = {
            store.of.name: (store, side[side >= (self._plan.train if at < len(self._plan.sets) else 0)][:_EXAMPLES])
            for at, (store, side) in enumerate(zip(stores, sides, strict=True))
        }
        if name == CAPTIONS:
            return {of: [store.captions[at] or "" for at in some.tolist()] for of, (store, some) in first.items()}
        if self._plan.recipe is None:
            return {}
        from curate.classes.networks import Sight, shown

        sight = Sight(view, self._plan.stored, self._plan.transform(name), self._plan.recipe)
        found = {}
        for of, (store, some) in first.items():
            held = pictures(view_path(store.folder, view), self._plan.stored)
            found[of] = [_url(shown(held[at], sight, np.random.default_rng(at))) for at in some.tolist()]
        return found


def transformed(piece: tuple[str, int], name: str, side: int) -> None:
    """Transform some pictures of a store before they are augmented: from the plain view to that of the name."""
    folder, start = piece
    plain, view = (pictures(view_path(folder, one), side, writable=one == name) for one in (PLAIN, name))
    before = TRANSFORMS[name].before
    assert before is not None
    for place in range(start, min(start + _PIECE, len(plain))):
        view[place] = before(plain[place])


def _check(lesson: Lesson, step: str, name: str) -> None:
    """
    Raises:
        UserError: there is nothing to learn from, or to ask about.
    """
    if len(set(lesson.train.label.tolist())) < lesson.classes or not all(len(items) for items in lesson.asked):
        if step == CONTROL:
            raise UserError("control: half of a set has no sample; draw more (train=, validation=), or control=false")
        raise UserError(f"transforms={name}: a set has no such sample to train on, or none to ask about")


def _url(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
