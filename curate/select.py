"""From a pool and a filter to a subset file, and a summary of it beside."""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.errors import UserError, unwritable
from poolbench.files import atomic, digest_file, digest_json, files_in, read_json, write_json
from poolbench.machine import cores
from poolbench.text import one_line
from poolbench.uids import DTYPE, malformed
from poolbench.versions import version

from curate.config import CurateConfig
from curate.pool.chosen import check_there, judged
from curate.pool.files import File, list_pool, spans
from curate.pool.merge import Run, RunWriter, merge, runs_in
from curate.pool.parts import WHOLE, Part, part_or_merge
from curate.pool.passes import Pass, Passes, light, result
from curate.pool.quantile import column_of
from curate.pool.work import work_folder
from curate.selectors.base import Filter, tallied
from curate.selectors.registry import build, described
from curate.selectors.subset import subsets

_SHOWN = 20  # malformed uids that the summary lists
_PACKAGES = ("poolbench", "numpy", "pyarrow")


class Inputs(NamedTuple):
    """What is selected from, and by what."""

    chosen: Filter
    files: list[File]

    def identity(self) -> str:
        """Digest of both, and of what made the columns that it reads; those that it makes are known once they are."""
        described_ = described(self.chosen)
        origins = [column_of(self.files, name) for name in self.chosen.needs.columns]
        made = [column for column in origins if column.origin]
        stamps = [[file.name, file.stamp] for file in self.files]
        return digest_json([described_, list(_stamps(described_)), stamps, *([made] if made else [])])


class Judged(NamedTuple):
    """One file's share of a subset."""

    rows: int
    kept: int
    uids: int  # rows kept, with repeats
    malformed: int
    examples: list[str]
    tallies: dict[str, int]
    runs: list[int]  # uids of each sorted run, one after the other in a file


def select(config: CurateConfig, spec: dict[str, Any]) -> int:
    """Write the subset that `spec` describes, or, with part=, do that part's files for a later run to merge.

    Returns:
        1 where files or rows had to be left out, else 0.

    Raises:
        UserError: wrong options, nothing to select from, nothing kept, a subset that is there already, a missing part.
    """
    part = part_or_merge(config.part, config.merge)
    inputs = _inputs(spec, config)
    out = Path(config.out).expanduser()
    if out.suffix != ".npy":
        raise UserError(f"out={config.out} must end in .npy")
    if out.exists() and not config.overwrite:
        return _found(out, inputs.identity())
    # Two runs that merge would take each other's results away; parts share them.
    with work_folder(out, config.work, shared=part is not WHOLE) as work:
        with Passes(inputs.files, work.path, config.workers or cores(), part, merge=config.merge) as passes:
            check_there(inputs.files, inputs.chosen.wanted)
            inputs.chosen.prepare(passes)
            step = passes.prepared(judge, inputs.chosen, spills=True)
            passes.tell_found(step)
            passes.do(step, part.own(inputs.files))
        if part is not WHOLE:
            return _tell_part(part, passes, step)
        status = _finish(config, inputs, passes, step, out)
        if not status:
            work.remove()
    return status


@light
def judge(file: File, chosen: Filter, spill: Path) -> dict[str, Any]:
    """Write the uids that a filter keeps of a file to `spill`, as sorted runs, and count."""
    rows = kept = wrong = 0
    examples: list[str] = []
    tallies: Counter[str] = Counter()
    with atomic(spill, "wb") as stream:
        runs = RunWriter(stream)
        for piece, counts in judged(file, chosen):
            rows += len(counts) + len(piece.malformed)
            wrong += len(piece.malformed)
            examples += [f"{file.name}, {one}" for one in piece.malformed[: _SHOWN - len(examples)]]
            kept += int((counts > 0).sum())
            tallies.update(tallied(chosen, piece.table, piece.arrays))
            runs.add(np.repeat(piece.arrays["uid"], counts))
        runs.end()
    return Judged(rows, kept, runs.uids, wrong, examples, dict(tallies), runs.lengths)._asdict()


def _inputs(spec: dict[str, Any], config: CurateConfig) -> Inputs:
    chosen = build(spec)
    for leaf in subsets(chosen):
        leaf.check_filled()
    if config.pool is not None:
        files = list_pool(config.pool, config.columns)
    else:
        leaves = subsets(chosen)
        if not leaves or any(chosen.needs):
            raise UserError("pool= is needed; only subset files can be combined without one")
        for leaf in leaves:
            leaf.repeats = True
        files = spans(sorted({leaf.options.path for leaf in leaves}))
    return Inputs(chosen, files)


def _stamps(described_: Any) -> Iterator[list[int]]:
    """Size and time of each file that a filter's options name, and of each .npy of a folder."""
    if isinstance(described_, str) and described_:
        path = Path(described_)
        for file in files_in(path, "*.npy") if path.is_dir() else [path] if path.is_file() else []:
            yield [file.stat().st_size, file.stat().st_mtime_ns]
    elif isinstance(described_, dict | list):
        for value in described_.values() if isinstance(described_, dict) else described_:
            yield from _stamps(value)


def _found(out: Path, identity: str) -> int:
    """What to do about a subset that is there already: nothing, where it is the one that is asked for."""
    summary = summary_path(out)
    if summary.exists():
        before = read_json(summary)
        if before.get("identity") == identity and not before.get("left_out"):
            print(f"{out} is complete: {before['uids']:,} uids", file=sys.stderr)
            return 0
    raise UserError(f"out={out} exists; choose another one, or overwrite=true")


def summary_path(out: Path) -> Path:
    """The file beside a subset that says what it is."""
    return out.with_name(f"{out.name}.json")


def _tell_part(part: Part, passes: Passes, step: Pass) -> int:
    own = part.own(passes.files)
    bad = [passes.bad[file.name] for file in own if file.name in passes.bad]
    rows = kept = wrong = 0
    examples: list[str] = []
    for file in own:
        if file.name not in passes.bad:
            judged_ = Judged(**result(step, file))
            rows, kept, wrong = rows + judged_.rows, kept + judged_.kept, wrong + judged_.malformed
            examples += judged_.examples[: 1 - len(examples)]
    print(f"part {part.number}/{part.of}: {len(own)} files, {kept:,} of {rows:,} rows kept", file=sys.stderr)
    print(f"merge={part.of} puts all parts together", file=sys.stderr)
    _warn(bad, wrong, examples)
    return 1 if bad or wrong else 0


def _finish(config: CurateConfig, inputs: Inputs, passes: Passes, step: Pass, out: Path) -> int:
    """Merge what was judged, write the summary, tell."""
    good = [file for file in inputs.files if file.name not in passes.bad]
    judged_ = [Judged(**result(step, file)) for file in good]
    summary = _summary(config, inputs, passes, judged_)
    if not summary["rows"]:
        raise UserError(f"pool={config.pool} has no rows")
    if not summary["uids"]:
        counts = "".join(f"; {what}: {count:,}" for what, count in summary["counts"].items() if count)
        name = described(inputs.chosen)["filter"]
        wrong = summary["malformed_uids"]
        counts += f"; {malformed(wrong, summary['malformed_examples'][0])}" if wrong else ""
        raise UserError(f"filter={name} keeps none of {summary['rows']:,} rows{counts}; {out} is not written")
    pairs = zip(good, judged_, strict=True)
    runs = [run for file, one in pairs for run in runs_in(step.spill(file), one.runs)]
    _write(runs, out, config.memory, summary)
    print(f"{out}: {summary['uids']:,} uids, {summary['kept']:,} of {summary['rows']:,} rows", file=sys.stderr)
    _warn(list(passes.bad.values()), summary["malformed_uids"], summary["malformed_examples"])
    for path, count in summary["not_in_pool"].items():
        print(f"not in the pool: {count:,} uids of {path}", file=sys.stderr)
    return 1 if summary["left_out"] else 0


def _write(runs: list[Run], out: Path, memory: float, summary: dict[str, Any]) -> None:
    """The subset and its summary.

    Raises:
        UserError: no room for them.
    """
    try:
        summary_path(out).unlink(missing_ok=True)
        merge(runs, out, int(memory * 1e9))
        with _undone(out):  # without its summary it would be in the next run's way
            write_json(summary_path(out), summary | {"sha256": digest_file(out)})
    except OSError as error:
        if not unwritable(error):
            raise
        size = summary["uids"] * DTYPE.itemsize
        raise UserError(
            f"{out} cannot be written: {error.strerror}; make room for {size:,} bytes and start the same command "
            "again, which has only this left to do"
        ) from None


@contextlib.contextmanager
def _undone(path: Path) -> Iterator[None]:
    """Take a file back where the block fails."""
    try:
        yield
    except OSError:
        path.unlink()
        raise


def _summary(config: CurateConfig, inputs: Inputs, passes: Passes, judged_: list[Judged]) -> dict[str, Any]:
    """What a subset is made of; the same for any number of workers and parts."""
    tallies: Counter[str] = Counter()
    for one in judged_:
        tallies.update(one.tallies)
    wrong = sum(one.malformed for one in judged_)
    rows, kept = sum(one.rows for one in judged_), sum(one.kept for one in judged_)
    return {
        "version": 1,
        "filter": described(inputs.chosen),
        "state": _states(inputs.chosen),
        "pool": config.pool,
        "identity": inputs.identity(),
        "files": len(inputs.files),
        "rows": rows,
        "kept": kept,
        "share": kept / rows if rows else 0.0,
        "uids": sum(one.uids for one in judged_),
        "left_out": len(passes.bad) + wrong,
        "bad_files": {name: passes.bad[name] for name in sorted(passes.bad)},
        "malformed_uids": wrong,
        "malformed_examples": [text for one in judged_ for text in one.examples][:_SHOWN],
        "counts": dict(sorted(tallies.items())),
        "not_in_pool": _not_in_pool(inputs.chosen, tallies),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _not_in_pool(chosen: Filter, tallies: Counter[str]) -> dict[str, int]:
    """By subset file, how many of its uids no row of the pool has; too few by rows that repeat another's uid."""
    leaves = [leaf for leaf in subsets(chosen) if not leaf.repeats]
    absent = {leaf.options.path: leaf.state["different_uids"] - tallies[leaf.found] for leaf in leaves}
    return {path: count for path, count in sorted(absent.items()) if count > 0}


def _states(chosen: Filter) -> Any:
    """What each filter found out about the pool, as they are nested."""
    if chosen.children:
        return {**chosen.state, "of": [_states(child) for child in chosen.children]}
    return chosen.state


def _warn(bad: list[str], wrong: int, examples: list[str]) -> None:
    for why in bad[:_SHOWN]:
        print(one_line(f"left out: {why}"), file=sys.stderr)
    if len(bad) > _SHOWN:
        print(f"left out: {len(bad) - _SHOWN} more files, which the summary lists", file=sys.stderr)
    if wrong:
        print(f"left out: {malformed(wrong, examples[0])}", file=sys.stderr)
