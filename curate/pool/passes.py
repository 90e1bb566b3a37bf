"""Passes over all files of a pool: in processes, each file's result kept, so that a second run and the parts of an
array find it; or, where finding it again is of no use, handed on as it comes.

How results are kept and found again stands in curate/pool/__init__.py.
"""

import concurrent.futures
import contextlib
import functools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa

from poolbench.arrow import do_without_pandas, hold_memory
from poolbench.errors import UserError, first_line, full_gpu
from poolbench.files import atomic, digest_json, read_json, write_json
from poolbench.machine import cores
from poolbench.progress import Progress

from curate.pool.files import BadFile, File
from curate.pool.parts import WHOLE, Part, tell_missing
from curate.pool.places import forget, is_remote
from curate.pool.work import writing_results

if TYPE_CHECKING:
    from threadpoolctl import threadpool_limits

    from poolbench.processes.pool import Pool

_Work = TypeVar("_Work")  # what a worker is given: a file, or a group of them
_Function = TypeVar("_Function", bound=Callable[..., Any])
# Threads that a light function's calls run in, at most: a fifth of it Python does, for one thread at a time, so that
# more would wait. For pools beyond so many bytes more processes are soon worth the second that they take to begin.
_THREADS, _THREADS_BYTES = 4, 1e9
_SLOW_BYTES = 2e8  # the same for arguments that are slow, where each core has a worker
_MARKS_END = b"\n}\n"  # as `write_json` has it, and nowhere else in a file
_AHEAD = 2  # results for each worker that wait, at most, to be taken where none is kept


@runtime_checkable
class Identified(Protocol):
    """An argument of a pass that JSON does not hold."""

    def identity(self) -> Any:
        """All that tells it from another one, JSON-able."""
        ...


def light(function: _Function) -> _Function:
    """Mark a function of a file as one whose work Arrow and numpy do, all but a few calls for each piece of rows: it is
    called in threads of one process. Starting others costs half a second of a core each, which is 2 million rows.

    An argument that says of itself `light = False` takes the mark away. One that says `slow = True` takes microseconds
    a row, so that of a large pool the share that Python does, for one thread at a time, costs more than processes do.
    """
    function.light = True  # type: ignore[attr-defined]
    return function


def _is_light(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    return getattr(function, "light", False) and all(getattr(one, "light", True) for one in arguments)


class Pass(NamedTuple):
    """One function of every file, and the folder of its results.

    Attributes:
        spills: whether the function takes, as its last argument, the path of a file that it may write, too.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    folder: Path
    spills: bool

    def mark(self, file: File) -> Path:
        """The file that is there once a result is."""
        return self.folder / f"{file.name}.{file.stamp}.json"

    def is_there(self, file: File) -> bool:
        """Whether a result is. Nobody waits for the disk to have a mark, of which a crash of the machine may leave a
        part, or zeros: pools of many small files would wait for little else."""
        try:
            with self.mark(file).open("rb") as mark:
                mark.seek(max(0, mark.seek(0, os.SEEK_END) - len(_MARKS_END)))
                return mark.read() == _MARKS_END
        except FileNotFoundError:
            return False

    def array(self, file: File) -> Path:
        return self.mark(file).with_suffix(".npy")

    def refusal(self, file: File) -> Path:
        """The file that is there where the function refused the pool's, with the reason."""
        return self.mark(file).with_suffix(".bad")

    def spill(self, file: File) -> Path:
        return self.mark(file).with_suffix(".uids")

    def identity(self) -> str:
        """The name of the folder, in which function and arguments are."""
        return self.folder.name


class Outcome(NamedTuple):
    """What a function made of a file, or why the file is left out, "" where it is not."""

    value: Any
    why: str


class Passes:
    """Does passes with a pool of processes, which lives as long as the `with` block.

    Attributes:
        files: the pool's.
        bad: why a file is left out, by its name.
        done: how many results had to be made, the others were found.
    """

    def __init__(
        self,
        files: list[File],
        work: Path | None,
        workers: int,
        part: Part = WHOLE,
        whole: bool = False,
        merge: int | None = None,
    ) -> None:
        """
        Args:
            work: folder of the results; None: they are handed on, a few at a time in memory, and not kept.
            whole: whether a file that cannot be used is a mistake, as the result would be another one without it.
            merge: of how many parts the results are to be there: none is made, and a missing one is a mistake.
        """
        self.files = files
        self.bad: dict[str, str] = {}
        self.done = 0
        self._work, self._workers, self._part, self._whole, self._merge = work, workers, part, whole, merge
        self._complete: set[Path] = set()
        self._processes: Pool | None = None
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._limits: set[str] = set()  # variables that are set for the workers, and nobody else
        self._blas: threadpool_limits | None = None  # while light functions are called

    @property
    def suffix(self) -> str:
        """What a part adds to the name of a folder that it has for itself."""
        return "" if self._part == WHOLE else f"-{self._part.number}"

    def __enter__(self) -> "Passes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._processes is not None:
            self._processes.end(at_once=error is not None)
        if self._threads is not None:
            self._threads.shutdown(wait=error is None, cancel_futures=True)
        for name in self._limits:
            os.environ.pop(name, None)
        self._limit_blas(False)

    def map(self, function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[File, Any]]:
        """`function(file, *arguments)` of every readable file, in parallel; results come in the order of the files.

        Args:
            function: of a module, picklable; raises BadFile for a file that has to be left out. Where results are kept,
                it returns an array, which comes back memory-mapped, or something that JSON can hold.
            arguments: JSON-able or Identified; where results are not kept, whatever can be pickled.

        Raises:
            UserError: a worker died, or no file of the pool can be read.
        """
        # What a light function finds is found again as soon as it is read, but for a part, which finds that of others,
        # and for the merge, which would do alone what all of them have done.
        alone = self._part is WHOLE and self._merge is None
        if self._work is None or (alone and _is_light(function, arguments)):
            call = functools.partial(attempt, function, arguments)
            started = self._workers_for(function, arguments)
            yield from self._made(call, function.__name__, self.usable(), _AHEAD * self._workers, started)
            return
        step = self.made(function, *arguments)
        for file in self.usable():
            yield file, result(step, file)

    def made(self, function: Callable[..., Any], *arguments: Any) -> Pass:
        """A pass whose results are all there, but for those of bad files, for `result` to read.

        A part does its own files first, and then what the others have not done yet: nobody waits for a part that was
        killed or has not begun.
        """
        step = self.prepared(function, *arguments)
        if step.folder not in self._complete:
            self.do(step, [file for files in self._turns() for file in files])
            self._complete.add(step.folder)
        return step

    def prepared(self, function: Callable[..., Any], *arguments: Any, spills: bool = False) -> Pass:
        """The pass that calls a function with these arguments, its results in a folder of their own."""
        assert self._work is not None
        described = [argument.identity() if isinstance(argument, Identified) else argument for argument in arguments]
        name = f"{function.__module__}.{function.__qualname__}"
        folder = self._work / f"{function.__name__}-{digest_json([name, described])[:16]}"
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
        return Pass(function, arguments, folder, spills)

    def tell_found(self, step: Pass) -> None:
        """Say how many results are there, where any is."""
        if found := sum(step.is_there(file) for file in self.files):
            print(f"continuing: {found} of {len(self.files)} files are done", file=sys.stderr)

    def do(self, step: Pass, files: Sequence[File]) -> None:
        """Make the results that are missing. Files that cannot be read are noted in `bad`, and tried again by the next
        run.

        Raises:
            UserError: see `map`; or one is missing where the parts are only merged.
        """
        wanted = [file for file in files if file.name not in self.bad and not step.is_there(file)]
        if self._merge is not None:
            self._note_refusals(step, wanted)
            self._check_there(lambda file: file.name in self.bad or step.is_there(file))
            return
        with self._writing():  # errors of reading are BadFile
            call, started = functools.partial(make, step), self._workers_for(step.function, step.arguments)
            deque(self._made(call, step.function.__name__, wanted, len(wanted), started), maxlen=0)

    def each(self, function: Callable[..., Any], *arguments: Any, done: Callable[[File], bool]) -> None:
        """Call a function of every readable file of which `done` does not say that it was: it leaves what it makes in a
        place of its own. A part does its own files first, then those that the others have not done yet.

        Raises:
            UserError: see `do`.
        """
        if self._merge is not None:
            self._check_there(done)
            return
        for files in self._turns():
            wanted = [file for file in files if file.name not in self.bad and not done(file)]
            call, started = functools.partial(attempt, function, arguments), self._workers_for(function, arguments)
            deque(self._made(call, function.__name__, wanted, len(wanted), started), maxlen=0)

    def gathered(self, function: Callable[..., Any], groups: Sequence[Any], *arguments: Any) -> Iterator[Any]:
        """`function(group, *arguments)` of each group of files, in parallel; results come in the order of the groups,
        and are kept nowhere.

        Args:
            function: of a module, picklable; what it raises of a file is BadFile.

        Raises:
            UserError: a file cannot be used, or see `map`.
        """
        call = functools.partial(attempt_group, function, arguments)
        for _, outcome in self._outcomes(call, groups, _AHEAD * self._workers, self._started):
            if outcome.why:
                raise UserError(outcome.why)
            yield outcome.value

    def _note_refusals(self, step: Pass, files: list[File]) -> None:
        """Leave out the files that a part could not use."""
        for file in files:
            if step.refusal(file).exists():
                self.bad[file.name] = read_json(step.refusal(file))["why"]
        self._check_usable()

    def _check_there(self, done: Callable[[File], bool]) -> None:
        """
        Raises:
            UserError: a part has not done all of its files.
        """
        assert self._merge is not None
        there = [done(file) for file in self.files]
        if missing := tell_missing([file.name for file in self.files], there, self._merge, "files"):
            raise UserError(
                f"nothing is written: {missing:,} of {len(there):,} files are missing, see above; without merge= this "
                "command does them itself"
            )

    def _turns(self) -> Iterator[Sequence[File]]:
        """The files of this part, then those of each of the others."""
        number, of = self._part
        return (Part((number + turn - 1) % of + 1, of).own(self.files) for turn in range(of))

    def folder(self, name: str) -> Path:
        """A folder beside the passes' own for what is made of many of them, where results are kept."""
        assert self._work is not None
        return self._work / name

    def usable(self) -> list[File]:
        """The files that have not been left out, so far."""
        return [file for file in self.files if file.name not in self.bad]

    def _made(
        self,
        call: Callable[[File], Outcome],
        name: str,
        files: Sequence[File],
        ahead: int,
        started: Callable[[], concurrent.futures.Executor],
    ) -> Iterator[tuple[File, Any]]:
        """What a call makes of each file that it can use, in their order; the others are noted."""
        with Progress(len(files), name, "file") as bar:
            for file, outcome in self._outcomes(call, files, ahead, started):
                bar.update()
                self.done += 1
                if not outcome.why:
                    yield file, outcome.value
                    continue
                if self._whole:
                    raise UserError(outcome.why)
                self.bad[file.name] = outcome.why
        self._check_usable()

    def _check_usable(self) -> None:
        if self.bad and len(self.bad) == len(self.files):
            raise UserError(f"no file of the pool can be used; {next(iter(self.bad.values()))}")

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing_results(self._work, "choose another folder by work=")

    def _outcomes(
        self,
        call: Callable[[_Work], Outcome],
        files: Sequence[_Work],
        ahead: int,
        started: Callable[[], concurrent.futures.Executor],
    ) -> Iterator[tuple[_Work, Outcome]]:
        """The calls, in the order of the files or groups of them, of which at most `ahead` are begun before the first
        is taken, by the workers that `started` gives."""
        if self._workers == 1 or len(files) < 2:
            for file in files:
                yield file, call(file)
            return
        waiting: deque[tuple[_Work, concurrent.futures.Future[Outcome]]] = deque()
        try:
            for file in files:
                waiting.append((file, started().submit(call, file)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except concurrent.futures.BrokenExecutor:
            again = "give fewer" if self._work is None else "the same command continues, with fewer"
            raise UserError(f"a worker died, for want of memory most likely; {again} workers= if so") from None

    def _workers_for(
        self, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Callable[[], concurrent.futures.Executor]:
        """What gives the workers that call a function: threads where it is light, else processes."""
        # Fewer processes than cores would each multiply on several, and wait for products as `_limit_blas` has it.
        each_core = self._workers >= cores() > 1 and len(self.files) > 1
        slow = each_core and any(getattr(one, "slow", False) for one in arguments)
        size = sum(file.size for file in self.files)
        large = size > _SLOW_BYTES if slow else self._workers > _THREADS and size > _THREADS_BYTES
        # What is known of a store's files is one for all threads.
        local = not any(map(is_remote, (place for file in self.files for place in (file.path, *file.made))))
        in_threads = _is_light(function, arguments) and local and not large
        self._limit_blas(in_threads)
        return self._in_threads if in_threads else self._started

    def _limit_blas(self, limited: bool) -> None:
        """Let matrices be multiplied in the thread that asks for it, or, as by default, on all cores: threads that wait
        for a product of a thousand rows turn round for longer than it takes."""
        if limited and self._blas is None:
            from threadpoolctl import threadpool_limits

            self._blas = threadpool_limits(1, "blas")
        elif not limited and self._blas is not None:
            self._blas.restore_original_limits()
            self._blas = None

    def _in_threads(self) -> concurrent.futures.ThreadPoolExecutor:
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(min(self._workers, _THREADS))
        return self._threads

    def _started(self) -> "Pool":
        if self._processes is None:
            # Else each worker would multiply matrices on all cores. Libraries look when they are loaded.
            names = {f"{library}_NUM_THREADS" for library in ("OMP", "OPENBLAS", "MKL")}
            self._limits = names - os.environ.keys()
            os.environ.update(dict.fromkeys(self._limits, str(max(1, cores() // self._workers))))
            from poolbench.processes.pool import Pool  # with all that processes need, which a pass in threads does not

            # Arrow's threads do not survive a fork.
            self._processes = Pool(self._workers, "spawn", _begin_worker)
        return self._processes


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...], file: File) -> Outcome:
    """Call a function of a file; what is wrong with the file is told with its path.

    Raises:
        UserError: it ran out of a GPU's memory, of which another file may need less, but not all of them.
    """
    forget()
    try:
        return Outcome(function(file, *arguments), "")
    except (pa.ArrowException, UnicodeDecodeError) as error:
        return Outcome(None, f"{file.path}: {first_line(error)}")
    except BadFile as error:
        named = any(path and path in str(error) for path in (file.path, file.arrays))
        return Outcome(None, str(error) if named else f"{file.path}: {error}")
    except RuntimeError as error:
        if (gpu := full_gpu(error)) is None:
            raise
        raise UserError(
            f"out of memory on {gpu}; give fewer workers=, of which each holds its blocks there, or filter.device=cpu"
        ) from None
    finally:
        pa.default_memory_pool().release_unused()  # what Arrow keeps of each file would add up over the first few


def attempt_group(function: Callable[..., Any], arguments: tuple[Any, ...], group: Any) -> Outcome:
    """Call a function of some files."""
    try:
        return Outcome(function(group, *arguments), "")
    except (BadFile, pa.ArrowException) as error:
        return Outcome(None, first_line(error))
    finally:
        pa.default_memory_pool().release_unused()


def make(step: Pass, file: File) -> Outcome:
    """Make and keep one result, unless another part has in the meantime; its value stays where it is kept."""
    if step.is_there(file):
        return Outcome(None, "")
    value, why = attempt(step.function, (*step.arguments, *([step.spill(file)] if step.spills else [])), file)
    if why:
        write_json(step.refusal(file), {"why": why})
        return Outcome(None, why)
    step.refusal(file).unlink(missing_ok=True)
    if isinstance(value, np.ndarray):
        with atomic(step.array(file), "wb") as stream:
            np.save(stream, value)
        value = None
    write_json(step.mark(file), {"value": value}, durable=False)
    return Outcome(None, "")


def _begin_worker() -> None:
    do_without_pandas()
    hold_memory()


def result(step: Pass, file: File) -> Any:
    """A result that is there."""
    if step.array(file).exists():
        return np.load(step.array(file), mmap_mode="r")
    return read_json(step.mark(file))["value"]
