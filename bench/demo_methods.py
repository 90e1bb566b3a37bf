"""What every selection method does on the demo pool: which captions it drops, and what a model learns from the rest.

    make methods                                                      # all of it: three seeds of every method
    make methods-text                                                 # the same on the demo pool with writing
    python bench/demo_methods.py --trainings 0 --page FILE.md         # what they drop, and the scores that are there

The first model is trained on the whole pool and scores it; every method of bench/demo_methods.yaml selects by these
scores, or by those that the table's own commands add; a model is trained on each selection, evaluated and submitted, as
by `make demo`, in its folder. What is there already is not made again, so the same command goes on after a stop. The
page says which trainings are missing.
"""

import argparse
import os
import resource
import shlex
import string
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import demo_inputs
import yaml
from demo_kinds import by_kind, dropped, read_kinds
from demo_page import Missing, Row, figures, page, put_between

from poolbench.files import atomic, digest_file, read_json, write_json
from poolbench.machine import cores
from poolbench.run_record import FILE, read_record
from poolbench.uids import Uids, from_texts, mapped

from demodata.pool import build
from leaderboard.models import Board, read_leaderboard
from leaderboard.rank import constants

TABLE = Path(__file__).with_name("demo_methods.yaml")
AUTHOR = "make demo"
WHOLE = "no_filter"  # the method that the first model and all gains are of


class Method(NamedTuple):
    """An entry of the table; see there."""

    name: str
    method: str
    select: list[str] | None
    why: str


class Table(NamedTuple):
    """What the YAML file says; see there.

    Attributes:
        pool: what the pool is called.
        make: the target of the Makefile that writes the page.
        skipped: methods that are left out, and why.
        before: commands that the selections need beforehand, each the words of `python -m`.
        scores: columns that are told by kinds of samples, where the pool has such.
    """

    pool: str
    make: str
    methods: list[Method]
    skipped: dict[str, str]
    before: list[list[str]]
    scores: list[str]


class Run(NamedTuple):
    """A training: of the whole pool, or of a subset."""

    name: str
    method: str
    seed: int
    subset: Path | None


class Place(NamedTuple):
    """Where all of it lies, and what every training is told besides."""

    out: Path
    pool: Path
    right: Path
    kinds: dict[str, Uids]
    train: list[str]

    @property
    def networks(self) -> Path:
        """Runs of networks that score and are not judged."""
        return self.out / "networks"

    @property
    def runs(self) -> Path:
        return self.out / "runs"

    @property
    def scored(self) -> Path:
        return self.out / "scored"

    def subset(self, name: str) -> Path:
        return self.out / f"{name}.npy"


def main() -> None:
    options = _parsed()
    table = load_table(options.table)
    methods, place = table.methods, _place(options)
    runs = in_order([one.name for one in methods], options.seeds)
    wanted = {(one.name, seed): _run(place, one, seed) for one in methods for seed in options.seeds}
    first = wanted[WHOLE, options.seeds[0]]
    train(place, first)
    given = prepare(place, first, table)
    commands = [_filled(words, given) for words in table.before]
    beforehand = run_before(place.out / "before.json", commands)
    seconds = {one.name: select(place, one, given, first) for one in methods}
    missing = [wanted[key] for key in runs if not is_done(place, wanted[key])]
    with ThreadPoolExecutor(options.at_once) as workers:
        for _ in workers.map(lambda run: train(place, run, options.at_once), missing[: options.trainings]):
            pass
    left = Missing(len(wanted), [(run.name, run.seed) for run in missing if not is_done(place, run)])
    _python("-m", "leaderboard", "build", str(place.runs), f"out={place.out}")
    rows = list(_rows(place, methods, seconds))
    more = [*_beforehand(table.before, beforehand), *by_kind(place.scored, place.kinds, table.scores)]
    text = page(table.pool, rows, table.skipped, [_told(one) for one in methods], left, more)
    if options.page:
        with atomic(options.page) as file:
            file.write(text)
    if options.docs:
        put_between(options.docs, rows, table.pool, table.make)
    print(text)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of `make demo`")
    parser.add_argument("--pool", type=Path, help="folder with pool/ and right.npy; default: the demo's")
    parser.add_argument("--table", type=Path, default=TABLE, help="the methods")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trainings", type=int, help="at most so many more, besides the first; 0: figures alone")
    parser.add_argument("--at-once", type=int, default=1, help="trainings at a time, which share the cores")
    parser.add_argument("--train", default="precision=fp32", help="more words for python -m train")
    parser.add_argument("--page", type=Path, help="write the results here")
    parser.add_argument("--docs", type=Path, help="put the short table between the marks of this page")
    return parser.parse_args()


def load_table(path: Path) -> Table:
    """The table of a file, its methods in their order."""
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    methods = [Method(name, **entry) for name, entry in read.pop("methods").items()]
    return Table(methods=methods, **{"skipped": {}, "before": [], "scores": [], **read})


def in_order(names: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """The first seed of every method, then the other seeds of the first method, of the second, and so on."""
    return [(name, seeds[0]) for name in names] + [(name, seed) for name in names for seed in seeds[1:]]


def prepare(place: Place, first: Run, table: Table) -> dict[str, str]:
    """Score the pool with the first model, and make what the table's words ask for; by its name in the table."""
    checkpoint = place.runs / f"{first.name}-{first.seed}"

    def score(shards: Path, out: Path) -> None:
        words = [f"checkpoint={checkpoint}", f"shards={shards}", f"out={out}", f"arch={demo_inputs.ARCH}"]
        _python("-m", "curate.score", *words)

    score(place.pool, place.scored)
    makers: dict[str, Callable[[], Any]] = {
        "targets": lambda: demo_inputs.targets(place.out, score),
        "entries": lambda: demo_inputs.entries(place.out, place.scored),
        "right": lambda: place.right,
        "half": lambda: len(demo_inputs.column(place.scored, "uid")) // 2,
        "pairs": lambda: demo_inputs.pairs(place.out, place.right),
        "first": lambda: checkpoint,
        "pool": lambda: place.pool,
        "scored": lambda: place.scored,
        "networks": lambda: place.networks,
    }
    every = [*table.before, *(one.select or [] for one in table.methods)]
    asked = {name for words in every for word in words for name in string.Template(word).get_identifiers()}
    return {name: str(makers[name]()) for name in sorted(asked)}


def run_before(record: Path, commands: Sequence[list[str]]) -> list[float]:
    """Run the commands, which go on where they were stopped; seconds of the processor that each took at most."""
    known: dict[str, float] = read_json(record) if record.is_file() else {}
    for words in commands:
        seconds = _python("-m", *words)
        known[shlex.join(words)] = max(seconds, known.get(shlex.join(words), 0.0))
        write_json(record, known)
    return [known[shlex.join(words)] for words in commands]


def select(place: Place, one: Method, given: Mapping[str, str], first: Run) -> float | None:
    """Write the subset of a method, and how it was made beside it, unless that was made so already.

    Returns:
        Seconds of the processor that it took, None where nothing is selected.
    """
    if one.select is None:
        return None
    out = place.subset(one.name)
    words = [demo_inputs.with_thresholds(word, place.scored) for word in _filled(one.select, given)]
    command = ["-m", "curate", *words, f"pool={place.scored}", f"out={out}", "overwrite=true"]
    model = read_record(place.runs / f"{first.name}-{first.seed}").checkpoint
    made: dict[str, Any] = {"command": command, "first_model": model and model.sha256, **_networks(place)}
    record = out.with_name(f"{out.name}.made.json")
    if record.is_file() and out.is_file():
        known = read_json(record)
        if {name: known.get(name) for name in made} == made and known["sha256"] == digest_file(out):
            return float(known["seconds"])
    seconds = _python(*command)
    write_json(record, {**made, "seconds": seconds, "sha256": digest_file(out)})
    return seconds


def is_done(place: Place, run: Run) -> bool:
    """Whether a training has ended and was submitted; one of another subset is refused."""
    folder = place.runs / f"{run.name}-{run.seed}"
    if not (folder / FILE).is_file():
        return False
    trained = read_record(folder).subset
    if (trained and trained.digest) != (run.subset and digest_file(run.subset)):
        sys.exit(f"error: {folder} was trained on another subset than {run.subset}; remove it, or take another --out")
    return (folder / "submission.json").is_file()


def train(place: Place, run: Run, at_once: int = 1) -> None:
    """Train, evaluate and submit, unless that is done."""
    if is_done(place, run):
        return
    name = f"{run.name}-{run.seed}"
    words = ["scale=tiny", f"seed={run.seed}", f"name={name}", f"out={place.runs}", *place.train]
    shared = {} if at_once == 1 else {"OMP_NUM_THREADS": str(max(1, cores() // at_once))}
    subset = [] if run.subset is None else [f"subset={run.subset}"]
    _python("-m", "train", *words, *subset, **shared)
    _python("-m", "evaluate", f"run={place.runs / name}", **shared)
    # Of any pool: it is by this number that the board knows what the gains are over.
    size = [] if run.subset is not None else [f"dataset_size={constants().pools['tiny']}"]
    described = [f"method={run.method}", f"author={AUTHOR}", "track=filtering", *size]
    _python("-m", "leaderboard", "submit", f"run={place.runs / name}", *described)


def _place(options: argparse.Namespace) -> Place:
    """By default of the demo's pool, on which training needs no `data=`."""
    words, given = options.train.split(), options.pool
    if given is None:
        demo = build()
        return Place(options.out, demo.pool, demo.right, {}, words)
    return Place(
        options.out, given / "pool", given / "right.npy", read_kinds(given), [f"data={given / 'pool'}", *words]
    )


def _filled(words: Sequence[str], given: Mapping[str, str]) -> list[str]:
    return [string.Template(word).substitute(given) for word in words]


def _networks(place: Place) -> dict[str, Any]:
    """The weights of the networks that score, {} where there are none."""
    records = {folder.parent.name: read_record(folder.parent) for folder in sorted(place.networks.glob(f"*/{FILE}"))}
    found = {name: one.checkpoint and one.checkpoint.sha256 for name, one in records.items()}
    return {"networks": found} if found else {}


def _run(place: Place, one: Method, seed: int) -> Run:
    return Run(one.name, one.method, seed, None if one.select is None else place.subset(one.name))


def _rows(place: Place, methods: Sequence[Method], seconds: Mapping[str, float | None]) -> Iterator[Row]:
    every = from_texts(demo_inputs.column(place.scored, "uid"))
    right = mapped(place.right)
    boards = read_leaderboard(place.out / "leaderboard.json").boards
    board: Board | None = next((one for one in boards if (one.track, one.scale) == ("filtering", "tiny")), None)
    scored = {one.method: one for one in board.methods if one.author == AUTHOR} if board else {}
    for one in methods:
        kept = every if one.select is None else mapped(place.subset(one.name))
        drop = dropped(place.kinds, every, kept)
        yield Row(one.method, figures(every, right, kept), seconds[one.name], scored.get(one.method), drop)


def _told(one: Method) -> str:
    """What a method is given, and why."""
    words = "trained as it is" if one.select is None else f"`{shlex.join(['python', '-m', 'curate', *one.select])}`"
    return f"{one.method}, {words}: {one.why}"


def _beforehand(commands: Sequence[list[str]], seconds: Sequence[float]) -> list[str]:
    """A section on the table's own commands, [] where it has none."""
    lines = [
        f"- {took:.0f} s: `{shlex.join(['python', '-m', *words])}`"
        for words, took in zip(commands, seconds, strict=True)
    ]
    return ["## What they need beforehand", "", *lines, ""] if lines else []


def _python(*words: str, **environment: str) -> float:
    """Run a Python command and show it; seconds of the processor that it and all it started took."""
    print("+", shlex.join(["python", *words]), file=sys.stderr, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *words], env={**os.environ, **environment}, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"error: exit status {done.returncode} of {shlex.join(['python', *words])}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
