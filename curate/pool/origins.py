"""What made a column of a pool, as its file says it."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from poolbench.files import digest_json

_TYPES = {"scorer": str, "version": int, "makes": list, "inputs": dict, "size": int, "stamp": str, "remake": str}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What made the columns of a file.

    Attributes:
        scorer: name of what made them, and `version` of its rule.
        identity: all that the numbers depend on besides the file and `inputs`, JSON-able.
        makes: the columns.
        inputs: of each made column that they were made of, the digest of its origin.
        size: of the pool's file in bytes.
        stamp: of the pool's file and its npz as they were, see curate.pool.files.File.
        remake: the command that makes them anew.
    """

    scorer: str
    version: int
    identity: Any
    makes: list[str]
    inputs: dict[str, str]
    size: int
    stamp: str
    remake: str

    def digest(self) -> str:
        """Of what made the numbers, whatever the file."""
        return digest_json([self.scorer, self.version, self.identity, self.makes, self.inputs])[:16]

    def text(self) -> bytes:
        """As JSON, which `read_origin` reads."""
        return json.dumps(asdict(self), sort_keys=True).encode()


def read_origin(text: bytes) -> Origin:
    """Without pydantic, which takes a tenth of a second to load: every selection by a made column reads these.

    Raises:
        ValueError: it is not what this version writes.
    """
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("no mapping of fields")
    said = {"inputs": {}, **said}
    if odd := said.keys() ^ {*_TYPES, "identity"}:
        raise ValueError(f"{min(odd)}: a field that is missing, or not known")
    for name, kind in _TYPES.items():
        if type(said[name]) is not kind:
            raise ValueError(f"{name}: {said[name]!r} is no {kind.__name__}")
    if not all(isinstance(word, str) for word in (*said["makes"], *said["inputs"].values())):
        raise ValueError("makes, inputs: not all of them are texts")
    return Origin(**said)
