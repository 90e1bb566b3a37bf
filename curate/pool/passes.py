"""Passes over all files of a pool: in parallel, each file's result kept, so that a second run and the parts of an array
find it."""

import concurrent.futures
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from curate.pool.files import BadFile, File, do_without_pandas
from curate.selectors.base import Filter
from poolbench.errors import UserError, first_line
from poolbench.files import atomic, digest_json, read_json, write_json
from poolbench.machine import end_with_parent


class Part(NamedTuple):
    """Part `number` (from 1) of `of`: every of-th file."""

    number: int
    of: int

    def own(self, files: list[File]) -> list[File]:
        return files[self.number - 1 :: self.of]


WHOLE = Part(1, 1)


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

    def array(self, file: File) -> Path:
        return self.mark(file).with_suffix(".npy")

    def spill(self, file: File) -> Path:
        return self.mark(file).with_suffix(".uids")


class Passes:
    """Does passes with a pool of processes, which lives as long as the `with` block.

    Attributes:
        files: the pool's.
        bad: why a file is left out, by its name.
        done: how many results had to be made, the others were found.
    """

    def __init__(self, files: list[File], work: Path, workers: int, part: Part = WHOLE) -> None:
        self.files = files
        self.bad: dict[str, str] = {}
        self.done = 0
        self._work, self._workers, self._part = work, workers, part
        self._complete: set[Path] = set()
        self._executor: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> "Passes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=error is None, cancel_futures=True)

    def map(self, function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[File, Any]]:
        """See curate.selectors.base.Passes. A part does its own files first, and then what the others have not done
        yet: nobody waits for a part that was killed or has not begun."""
        step = self.prepared(function, *arguments)
        if step.folder not in self._complete:
            number, of = self._part
            parts = [Part((number + turn - 1) % of + 1, of) for turn in range(of)]
            self.do(step, [file for part in parts for file in part.own(self.files)])
            self._complete.add(step.folder)
        for file in self.files:
            if file.name not in self.bad:
                yield file, result(step, file)

    def prepared(self, function: Callable[..., Any], *arguments: Any, spills: bool = False) -> Pass:
        """The pass that calls a function with these arguments, its results in a folder of their own."""
        described = [argument.identity() if isinstance(argument, Filter) else argument for argument in arguments]
        name = f"{function.__module__}.{function.__qualname__}"
        folder = self._work / f"{function.__name__}-{digest_json([name, described])[:16]}"
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
        return Pass(function, arguments, folder, spills)

    def found(self, step: Pass) -> int:
        """How many results are there."""
        return sum(step.mark(file).exists() for file in self.files)

    def do(self, step: Pass, files: list[File]) -> None:
        """Make the results that are missing. Files that cannot be read are noted in `bad`, and tried again by the next
        run.

        Raises:
            UserError: a worker died, or no file of the pool can be read.
        """
        wanted = [file for file in files if file.name not in self.bad and not step.mark(file).exists()]
        bar = tqdm(total=len(wanted), desc=step.function.__name__, unit="file", disable=None, leave=False)
        with bar, self._writing():  # errors of reading are BadFile
            for file, why in self._outcomes(step, wanted):
                bar.update()
                self.done += 1
                if why:
                    self.bad[file.name] = why
        if len(self.bad) == len(self.files):
            raise UserError(f"no file of the pool can be used; {next(iter(self.bad.values()))}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._work} cannot be written: {error.strerror or error}; make room and start the same command "
                "again, which continues, or choose another folder by work="
            ) from None

    def _outcomes(self, step: Pass, wanted: list[File]) -> Iterable[tuple[File, str]]:
        if self._workers == 1 or len(wanted) < 2:
            return ((file, make(step, file)) for file in wanted)
        return self._outcomes_of_workers(step, wanted)

    def _outcomes_of_workers(self, step: Pass, wanted: list[File]) -> Iterator[tuple[File, str]]:
        if self._executor is None:
            # Arrow's threads do not survive a fork.
            context = multiprocessing.get_context("spawn")
            self._executor = concurrent.futures.ProcessPoolExecutor(self._workers, context, _begin_worker)
        futures = {self._executor.submit(make, step, file): file for file in wanted}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker died, for want of memory most likely; the same command continues, with fewer workers= if so"
            ) from None


def make(step: Pass, file: File) -> str:
    """Make one result, unless another part has in the meantime; why the file is left out, "" where it is not."""
    if step.mark(file).exists():
        return ""
    try:
        value = step.function(file, *step.arguments, *([step.spill(file)] if step.spills else []))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        return f"{file.path}: {first_line(error)}"
    except BadFile as error:
        named = any(path and path in str(error) for path in (file.path, file.arrays))
        return str(error) if named else f"{file.path}: {error}"
    finally:
        pa.default_memory_pool().release_unused()  # what Arrow keeps of each file would add up over the first few
    if isinstance(value, np.ndarray):
        with atomic(step.array(file), "wb") as stream:
            np.save(stream, value)
        value = None
    write_json(step.mark(file), {"value": value})
    return ""


def _begin_worker() -> None:
    """A worker leaves Ctrl-C to the process that started it, and ends with it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    do_without_pandas()


def result(step: Pass, file: File) -> Any:
    """A result that is there."""
    if step.array(file).exists():
        return np.load(step.array(file), mmap_mode="r")
    return read_json(step.mark(file))["value"]
