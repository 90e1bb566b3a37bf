"""Which data set does a picture come from? How well a classifier tells sets apart, and by what of their pictures.

python -m curate.classify datasets='{a: /a/shards, b: /b/shards}' transforms=[none,canny,mean_colour] out=classes
python -m curate.classify datasets='{mine: {shards: /pool, subset: mine.npy}, pool: /pool}' out=classes
python -m curate.classify datasets='{a: /a/shards, b: /b/shards}' asked='{mine: /mine}' out=classes

Writes accuracy.json and index.html. docs/audits.md explains them.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from poolbench.command import Command
from poolbench.errors import UserError, nearest
from poolbench.files import atomic, digest_json, write_json
from poolbench.machine import cores
from poolbench.options import Place, located, option, output

from curate.classes.page import page
from curate.classes.recipes import LOGISTIC, SMALL, recipe_of
from curate.classes.results import Classes, asked_of, control_of, rows_of
from curate.classes.run import Plan, Run
from curate.classes.sets import NAME, named, pairs
from curate.classes.transforms import CAPTIONS, TRANSFORMS, check_packages
from curate.models.devices import checked
from curate.pool.passes import Passes
from curate.pool.work import work_folder

_ALL = "all"


@dataclass
class ClassifyOptions:
    """The options; docs/audits.md says more."""

    datasets: str = option("the sets: '{a: <shards>, b: {shards: <shards>, subset: b.npy, without: c.npy}}'")
    transforms: Any = option("what is left of the pictures, a list, or all; docs/audits.md has the names", "none")
    out: str = output("folder for accuracy.json and the page", "classes")
    asked: str | None = option("sets that are only classified, in the same form", None)
    given: str | None = option(
        "where pictures made of the pictures lie: '{depth: <place>}', <place>/<set>/<key>.png", None
    )
    train: int = option("samples of each set to learn from, different ones", 1000)
    validation: int = option("more of each set to be asked about", 500)
    draws: int = option("times that all is drawn anew", 3)
    seed: int = option("of the draws and of all that is drawn while learning", 0)
    model: str = option("small | convnext_tiny or another one of timm's | logistic, on embeddings", SMALL)
    embedding: str = option("for model=logistic: the array of the metadata", "b32_img")
    side: int | None = option("pixels that the model sees; null: the model's own", None)
    epochs: int | None = option("times that the model sees each picture; null: the model's own", None)
    batch: int | None = option("pictures of a step; null: the model's own", None)
    learning_rate: float | None = option("null: the model's own", None)
    control: bool = option("also tell two halves of one set apart, which must fail", True)
    device: str = option("auto | cpu | cuda", "auto", efficiency=True)
    workers: int | None = option("processes; null: one for each core", None, efficiency=True)


def classify(options: ClassifyOptions) -> int:
    """The command: write what was found; exit status 1 where samples had to be left out or passed over, or where the
    halves of one set can be told apart.

    Raises:
        UserError: wrong options, too few samples, or nothing to look at.
    """
    plan, out = _plan(options), Path(options.out)
    with work_folder(out, None) as work, Passes([], None, plan.workers) as passes:
        done = Run(plan, passes, work.path / _identity(plan)[:16]).outcome()
        work.remove()
    names = [one.name for one in plan.sets]
    explained = {name: _explained(plan, name) for name in plan.transforms}
    tested = [names[draw % len(names)] for draw in range(plan.draws)]
    found = Classes(
        sets=done.sets,
        conditions=_conditions(plan),
        rows=rows_of(done.answers, explained, len(names)),
        asked=asked_of(done.answers, names),
        control=control_of(done.control, plan.transforms[0], tested) if done.control else None,
        examples=done.examples,
        notes=done.notes,
    )
    write_json(out / "accuracy.json", found.as_json())
    with atomic(out / "index.html") as file:
        file.write(page(found))
    return _told(found, out)


def _told(found: Classes, out: Path) -> int:
    """Say what was found; the exit status."""
    for row in found.rows:
        sd = "" if row.sd is None else f" ± {row.sd:.1%}"
        print(f"{row.transform}: {row.mean:.1%}{sd} right, chance {found.chance:.1%}")
    for one in found.asked:
        print(f"{one.transform}: {one.mean:.1%} of {one.name} taken for {one.taken_for}")
    for line in found.notes:
        print(line, file=sys.stderr)
    control = found.control
    if control is not None:
        told = f"{control.share:.1%} right of {control.of:,}, chance 50 % (p = {control.p:.2g})"
        print(f"control, halves of one set: {told}")
    print(out / "index.html")
    if control is None or control.passed:
        return 1 if found.notes else 0
    print(
        f"warning: halves of one set are told apart (p = {control.p:.2g}), which only a leak can do; believe no number "
        "above",
        file=sys.stderr,
    )
    return 1


def _plan(options: ClassifyOptions) -> Plan:
    """
    Raises:
        UserError: options that cannot be right.
    """
    _check_numbers(options)
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise UserError(f"out={options.out} is a file, not a folder")
    metadata = options.model == LOGISTIC
    sets = named("datasets", options.datasets, metadata)
    asked = [] if options.asked is None else named("asked", options.asked, metadata)
    if len(sets) < 2:
        raise UserError("datasets= names one set; two at least are told apart")
    if both := {one.name for one in sets} & {one.name for one in asked}:
        raise UserError(f"asked= names {sorted(both)[0]!r}, which datasets= does, too")
    given = {} if options.given is None else _given(options.given, [one.name for one in (*sets, *asked)])
    transforms = _transforms(options.transforms, given, metadata)
    recipe = None
    if metadata or CAPTIONS in transforms:
        from curate.classes.linear import check_packages as check_linear

        check_linear()
    if not metadata:
        changed = {name: getattr(options, name) for name in ("side", "epochs", "batch", "learning_rate")}
        recipe = recipe_of(options.model, **changed)
        check_packages(transforms)
    return Plan(
        sets=sets,
        asked=asked,
        transforms=transforms,
        given=given,
        train=options.train,
        validation=options.validation,
        draws=options.draws,
        seed=options.seed,
        model=options.model,
        embedding=options.embedding if metadata else "",
        recipe=recipe,
        stored=0 if recipe is None else recipe.side * 8 // 7,  # 256 for 224, as published
        control=options.control,
        device=checked(options.device, "device"),
        workers=options.workers or cores(),
    )


def _check_numbers(options: ClassifyOptions) -> None:
    for name, least in (("train", 2), ("validation", 1), ("draws", 1), ("workers", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"{name}={value}: at least {least}")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"seed={options.seed}: 0 or more")


def _given(text: str, sets: Sequence[str]) -> dict[str, str]:
    """The folders of given pictures, by transformation.

    Raises:
        UserError: a name of ours, or a folder that is not there.
    """
    found = {}
    for name, value in pairs("given", text):
        if name in {*TRANSFORMS, CAPTIONS, _ALL}:
            raise UserError(f"given= names {name!r}, which is made here")
        found[name] = located(f"given.{name}", value, Place(writes=False, remote=False))
        for one in sets:
            if not (Path(found[name]) / one).is_dir():
                raise UserError(f"given.{name}={value} has no folder {one!r} of pictures of that set")
    return found


def _transforms(typed: Any, given: dict[str, str], metadata: bool) -> list[str]:
    """
    Raises:
        UserError: an unknown one, or one twice.
    """
    known = ["none", CAPTIONS] if metadata else [*TRANSFORMS, CAPTIONS, *given]
    names = [typed] if isinstance(typed, str) else list(typed)
    names = known if names == [_ALL] else names
    for name in names:
        if not NAME.fullmatch(name) or name not in known:
            why = "; model=logistic sees no pictures" if metadata and name in TRANSFORMS else ""
            raise UserError(f"transforms= has no {name!r}; {nearest(name, known)}{why}")
    if len(set(names)) < len(names) or not names:
        raise UserError("transforms= names none, or one twice")
    return names


def _explained(plan: Plan, name: str) -> str:
    if name == CAPTIONS:
        return "the captions alone: words and pairs of words, by a logistic regression"
    if plan.recipe is None:
        return f"the embedding {plan.embedding}, by a logistic regression"
    return plan.transform(name).explained


def _conditions(plan: Plan) -> dict[str, Any]:
    """What the classifiers were trained by."""
    told = {name: getattr(plan, name) for name in ("train", "validation", "draws", "seed", "model")}
    how = {"embedding": plan.embedding} if plan.recipe is None else {"recipe": asdict(plan.recipe)}
    return {**told, **how}


def _identity(plan: Plan) -> str:
    """All that results depend on."""
    sets = [[one.name, one.digest, one.source] for one in (*plan.sets, *plan.asked)]
    return digest_json([sets, len(plan.sets), plan.transforms, plan.given, _conditions(plan), plan.control])


COMMAND = Command(ClassifyOptions, classify)

if __name__ == "__main__":
    COMMAND.start()
