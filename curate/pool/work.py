"""The folder in which a command keeps what it found of each file, and mistakes of writing there."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from poolbench.errors import UserError, no_room
from poolbench.files import claimed


class WorkFolder(NamedTuple):
    """Where a command keeps what it found of each file, until what it makes of all of it is written."""

    path: Path
    named: bool  # by the user, who keeps it

    def remove(self) -> None:
        """Take it away, as its work is done, unless the user named it."""
        if not self.named:
            shutil.rmtree(self.path)

    def remove_unused(self) -> None:
        """Take it away where no pass has begun in it."""
        if not any(path.is_dir() for path in self.path.iterdir()):
            self.remove()


@contextlib.contextmanager
def work_folder(out: Path, named: str | None, shared: bool = False) -> Iterator[WorkFolder]:
    """The folder that `named` names, else `<out>.work`, for this process alone unless it is shared, as by parts.

    Raises:
        UserError: another process works there.
    """
    path = Path(named).expanduser() if named else out.with_name(f"{out.name}.work")
    with contextlib.nullcontext() if shared else claimed(path):
        try:
            yield WorkFolder(path, bool(named))
        except OSError as error:
            if no_room(error) and error.filename is None:  # of a stream, which does not know its file
                error.filename = str(path)
            raise


@contextlib.contextmanager
def writing_results(folder: Path | str | None, way_out: str) -> Iterator[None]:
    """Tell in a line that results cannot be written. Errors of reading the pool are BadFile, so an OSError is one of
    writing.

    Raises:
        UserError: as said.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}; make room and start the same command again, which "
            f"continues, or {way_out}"
        ) from None
