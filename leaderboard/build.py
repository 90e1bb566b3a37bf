"""From a folder of submissions to leaderboard.json and a page.

    python -m leaderboard build leaderboard/submissions out=site

Every `submission.json` and `*.submission.json` below the folder is checked; a refused one is named on stderr and left
out. The same submissions give the same bytes, in whatever order they are found and whenever they are built. Published
results stand beside them (`references=false` leaves them out); `page=false` writes leaderboard.json alone. With
`published=<table>` the page has a section of public models and their scores. For each board it is printed what the best
method gains over the whole pool.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from poolbench import machine
from poolbench.errors import UserError
from poolbench.files import atomic, claimed, files_below
from poolbench.options import option, output, source
from poolbench.processes.pool import Pool

from leaderboard.boards import Placed, compose, no_references, place
from leaderboard.methods import sentence
from leaderboard.models import Entry, Track, as_json
from leaderboard.references import references
from leaderboard.submissions import find, read_submission

if TYPE_CHECKING:
    from leaderboard.public_models import PublicModels

_MANY = 400  # files from which on further processes, which take a second to start, are worth it
_PATIENCE = 600.0  # seconds that another build into the same folder is given to end


@dataclass
class BuildOptions:
    """The options of `build`."""

    out: str = output("folder of leaderboard.json and index.html")
    references: bool = option("false: without the published results beside the entries", True)
    page: bool = option("false: no index.html", True)
    published: str | None = source(
        "table of scores of public models, for the page: openclip, a file, or an address#sha256=<digest>",
        None,
        remote=True,
    )
    models: Any = option("names or globs of those to show; null: all", None)


class _Read(NamedTuple):
    """What came of a file. The entry is JSON: of all forms, that passes between processes the fastest."""

    refusals: list[str]
    track: Track | None = None
    scale: str | None = None
    entry: str | None = None


def build(folders: Sequence[str], options: BuildOptions) -> int:
    """Write `<out>/leaderboard.json` and `<out>/index.html`. The exit status is 1 where a submission was refused.

    Of builds into one folder at a time, each waits for the one before it and then reads: the last one to end has seen
    every submission that was there when it was started.

    Raises:
        UserError: not one folder is named, it cannot be read, nothing is in it, or `out` cannot be written.
    """
    if len(folders) != 1:
        raise UserError("build needs one folder of submissions: python -m leaderboard build FOLDER out=DIR")
    folder, out = Path(folders[0]), Path(options.out)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; build needs the folder that holds the submissions")
    if not options.references and not find(folder):
        raise UserError(_empty(folder))
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file; name a folder")
    public = _public(options)
    try:
        with claimed(out, wait=_PATIENCE):
            return _build(folder, out, options, public)
    except OSError as error:
        raise UserError(f"out={out} cannot be written: {error.strerror or error}") from None


def collect(paths: Sequence[Path]) -> tuple[list[Placed], list[str]]:
    """The entries of submissions that are accepted, and "<file>: <field>: <reason>" for each reason against the others.

    Raises:
        UserError: a process that reads them was killed.
    """
    refusals: list[str] = []
    placed: dict[Path, Placed] = {}
    for path, read in zip(paths, _read_all(paths), strict=True):
        refusals += [f"{path}: {reason}" for reason in read.refusals]
        if (placement := _placed(read)) is not None:
            placed[path] = placement
    repeats = _repeats(placed)
    refusals += [f"{path}: {reason}" for path, reason in repeats.items()]
    return [placement for path, placement in placed.items() if path not in repeats], sorted(refusals)


def _build(folder: Path, out: Path, options: BuildOptions, public: "PublicModels | None") -> int:
    paths = find(folder)
    if not paths:
        print(f"note: {_empty(folder)}", file=sys.stderr)
    for forgotten in _forgotten(folder):
        print(f"note: {forgotten} has results and no submission.json", file=sys.stderr)
    placed, refusals = collect(paths)
    for line in refusals:
        print(f"refused: {line}", file=sys.stderr)
    leaderboard = compose(placed, references if options.references else no_references)
    _write(out / "leaderboard.json", as_json(leaderboard))
    written = [out / "leaderboard.json"]
    if options.page:
        from leaderboard.page import page  # with scipy, which the processes that only read would wait for

        _write(out / "index.html", [page(leaderboard, public)])
        written.append(out / "index.html")
    print(f"{len(placed)} of {len(paths)} submissions: {', '.join(map(str, written))}")
    for board in leaderboard.boards:
        if (gained := sentence(board)) is not None:
            print(f"{board.track}, {board.scale}: {gained}")
    return 1 if refusals else 0


def _public(options: BuildOptions) -> "PublicModels | None":
    """The public models that the page is to show.

    Raises:
        UserError: their table cannot be read, has none that is asked for, or nothing would show them.
    """
    if options.published is None:
        if options.models is not None:
            raise UserError("models= are those of a table of published results; name it by published=")
        return None
    if not options.page:
        raise UserError("published= is for the page, which page=false does not write")
    from leaderboard.public_models import public_models  # here, with what fetches files: it loads slowly

    return public_models(options.published, options.models)


def _empty(folder: Path) -> str:
    return f"{folder} holds no submission.json; python -m leaderboard submit run=... writes one"


def _write(path: Path, texts: Iterable[str]) -> None:
    with atomic(path) as file:
        file.writelines(texts)


def _forgotten(folder: Path) -> list[Path]:
    """Folders of runs with results that nobody has made a submission of."""
    runs = sorted({path.parent for path in files_below(folder) if path.name == "eval_results.jsonl"})
    return [run for run in runs if (run / "run.json").exists() and not (run / "submission.json").exists()]


def _read_all(paths: Sequence[Path]) -> Iterator[_Read]:
    """What comes of each file, in the order of the paths."""
    processes = min(machine.cores(), len(paths) // _MANY + 1)
    if processes == 1:
        yield from map(_read, paths)
        return
    # Fresh processes: a fork of one that has threads may never come to life.
    with Pool(processes, "spawn") as pool:
        try:
            yield from pool.map(_read, paths, chunksize=32)
        except BrokenProcessPool:
            raise UserError("a process that read the submissions was killed; is there enough memory?") from None


def _read(path: Path) -> _Read:
    submission, refusals = read_submission(path)
    if submission is None or refusals:
        return _Read(refusals)
    placed = place(submission)
    return _Read([], placed.track, placed.scale, placed.entry.model_dump_json())


def _placed(read: _Read) -> Placed | None:
    if read.track is None or read.scale is None or read.entry is None:
        return None
    return Placed(read.track, read.scale, Entry.model_validate_json(read.entry))


def _repeats(placed: dict[Path, Placed]) -> dict[Path, str]:
    """Why files are refused that have the same checkpoint on the same track as others.

    Of equal submissions one is kept; of differing ones none, because nothing in them says which is right. What is kept
    does not depend on the names of the files.
    """
    groups: dict[tuple[Track, str], list[Path]] = defaultdict(list)
    for path, (track, _, entry) in placed.items():
        groups[track, entry.checkpoint_sha256].append(path)
    reasons = {}
    for paths in groups.values():
        if len({placed[path].entry.digest for path in paths}) == 1:
            reasons.update(dict.fromkeys(paths[1:], f"checkpoint_sha256: the same submission as {paths[0]}"))
            continue
        for path in paths:
            other = next(other for other in paths if placed[other].entry.digest != placed[path].entry.digest)
            reasons[path] = f"checkpoint_sha256: {other} has the same checkpoint and other content; keep one of them"
    return reasons
