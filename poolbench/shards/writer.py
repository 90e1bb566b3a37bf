"""Write shards with webdataset's `TarWriter`, the same bytes for the same samples wherever and whenever it is done."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any


class SampleWriter:
    """A shard under way; its bytes depend on names and contents alone: there is no time and no owner in its headers."""

    def __init__(self, file: IO[bytes]) -> None:
        from webdataset import TarWriter  # which brings torch along: commands that write nothing need neither

        self._tar: Any = TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False, keep_meta=True)

    def __enter__(self) -> "SampleWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self._tar.tarstream.__exit__(*exc)  # without an end mark where the block fails, unlike TarWriter's own

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Add a sample, its members (extension -> content) in the order given."""
        for extension, data in members.items():  # one by one, as TarWriter would sort them
            self._tar.write({"__key__": key, extension: data})


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
    """A shard of (key, members), see `SampleWriter.write`."""
    with path.open("wb") as file, SampleWriter(file) as shard:
        for key, members in samples:
            shard.write(key, members)
