"""What was drawn of a set, each sample in a place of its own: pictures small and square, on disk; captions and
embeddings."""

import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from poolbench.shards.pictures import decoding, opened, rgb
from poolbench.shards.samples import IMAGE_EXTENSIONS, Problem, Reasons, Sample, read_shard
from poolbench.shards.sources import Shard

from curate.classes.draws import CANDIDATE, digest_of, fresh, identity
from curate.classes.sets import DataSet
from curate.pool.files import File, read
from curate.pool.passes import Passes

PLAIN = "none"  # the view of a picture as it is
_WANTED = np.dtype([("row", CANDIDATE), ("place", "i8")])
_CAPTION = 2000  # characters that are held


class Kind(NamedTuple):
    """What is held of a sample.

    Attributes:
        side: pixels of the squares of pictures; 0: there are none.
        given: folders of pictures made of the set's pictures, by the name of the transformation.
        embedding: the array of metadata; "": none.
        captions: whether they are held.
    """

    side: int
    given: dict[str, str]
    embedding: str
    captions: bool


class Got(NamedTuple):
    """What became of one sample that is wanted.

    Attributes:
        problem: why it cannot be used.
        lacking: the transformations of which it has no given picture, and why.
        vector: its embedding, float32 [width].
    """

    place: int
    problem: Problem | None = None
    caption: str | None = None
    lacking: tuple[tuple[str, str], ...] = ()
    vector: np.ndarray | None = None


class Store:
    """The samples drawn of one set.

    Attributes:
        rows: which they are, CANDIDATE [n].
        filled: places of samples that are there, int64, ascending.
        captions: by place, None where there is none.
        lacking: by transformation which places have no given picture, bool [n].
        vectors: embeddings, float32 [n, width].
        bad: why samples were passed over; unmade: why given pictures cannot be used.
    """

    def __init__(self, folder: Path, of: DataSet, size: int, kind: Kind) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.of, self.kind, self.size = folder, of, kind, size
        self.rows = np.zeros(size, CANDIDATE)
        self.filled = np.empty(0, np.int64)
        self.captions: list[str | None] = [None] * size
        self.lacking = {name: np.zeros(size, bool) for name in kind.given}
        self.vectors = np.empty((0, 0), np.float32)
        self.bad, self.unmade = Reasons(), Reasons()
        if kind.side:
            for name in (PLAIN, *kind.given):
                allot(view_path(folder, name), size, kind.side)

    def fill(self, passes: Passes, order: np.ndarray, taken: Sequence[np.ndarray]) -> None:
        """Fill the places with the first samples of an order that can be used; where a picture is broken, the next
        sample takes its place."""
        rows, empty, begun = fresh(order, taken), np.arange(self.size), 0
        while len(empty) and begun < len(rows):
            some = rows[begun : begun + len(empty)]
            begun, places = begun + len(some), empty[: len(some)]
            self.rows[places] = some
            left = self._bring(passes, some, places)
            empty = np.union1d(empty[len(some) :], left)
        self.filled = np.setdiff1d(np.arange(self.size), empty)

    def _bring(self, passes: Passes, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Bring samples to their places; the places that stay empty, as their samples cannot be used."""
        wanted = np.empty(len(rows), _WANTED)
        wanted["row"], wanted["place"] = rows, places
        path = self.folder / "wanted.npy"
        np.save(path, wanted[np.lexsort((rows["uid"]["f1"], rows["uid"]["f0"]))])
        of, items = self.of._replace(items=(), subset=None, without=None), self.of.items
        left, seen = set(places.tolist()), set[int]()
        made = passes.gathered(gathered, items, of.name, str(path), str(self.folder), self.kind)
        for found in tqdm(made, f"reading {of.name}", len(items), unit="file", disable=None, leave=False):
            for got in found:
                if got.place in seen:  # the very same sample in two shards
                    continue
                seen.add(got.place)
                if got.problem is None:
                    left.discard(got.place)
                    self._take(got)
                else:
                    self.bad.add(got.problem)
        for _ in left - seen:
            self.bad.add(Problem(of.name, "", "a sample that was listed was not found again"))
        return np.array(sorted(left), np.int64)

    def _take(self, got: Got) -> None:
        self.captions[got.place] = got.caption
        for name, why in got.lacking:
            self.lacking[name][got.place] = True
            self.unmade.add(Problem(self.of.name, "", f"{name}: {why}"))
        if got.vector is not None:
            if not len(self.vectors):
                self.vectors = np.zeros((self.size, len(got.vector)), np.float32)
            self.vectors[got.place] = got.vector


def view_path(folder: Path | str, view: str) -> Path:
    """The file of a view of a store's pictures."""
    return Path(folder) / f"{view}.u8"


def allot(path: Path, size: int, side: int) -> None:
    """Make room for so many pictures."""
    with path.open("wb") as file:
        file.truncate(size * 3 * side**2)


def pictures(path: Path, side: int, writable: bool = False) -> np.ndarray:
    """The pictures in a file, uint8 [n, side, side, 3], memory-mapped."""
    found: np.ndarray = np.memmap(path, np.uint8, "r+" if writable else "r").reshape(-1, side, side, 3)
    return found


def gathered(item: Shard | File, name: str, wanted: str, folder: str, kind: Kind) -> list[Got]:
    """Those samples of a shard or a file of metadata that are wanted; their pictures go into the store.

    Args:
        name: of the set.
        wanted: file of the samples that are, sorted by uid.

    Raises:
        BadFile: a file of metadata cannot be read.
    """
    rows = np.load(wanted)
    if isinstance(item, File):
        return list(_in_file(item, rows, kind))
    return list(_in_shard(item, name, rows, folder, kind))


def _in_shard(shard: Shard, name: str, rows: np.ndarray, folder: str, kind: Kind) -> Iterator[Got]:
    halves = np.ascontiguousarray(rows["row"]["uid"]).view("u8").data
    views = {view: pictures(view_path(folder, view), kind.side, writable=True) for view in (PLAIN, *kind.given)}
    for sample in read_shard(shard.path, shard.size):
        if isinstance(sample, Problem):  # told when the set was listed
            continue
        uid, _ = identity(sample)
        at = bisect.bisect_left(range(len(rows)), uid, key=lambda row: (halves[2 * row], halves[2 * row + 1]))
        if at == len(rows) or (halves[2 * at], halves[2 * at + 1]) != uid:
            continue
        data = sample.first_of(IMAGE_EXTENSIONS)
        if data is None or digest_of(data) != tuple(rows["row"]["digest"][at].tolist()):
            continue  # another picture under this uid
        place = int(rows["place"][at])
        try:
            views[PLAIN][place] = square(data, kind.side)
        except ValueError as error:
            yield Got(place, Problem(shard.name, sample.key, str(error)))
            continue
        yield Got(place, None, _caption(sample, kind), tuple(_given(sample.key, name, place, views, kind)))


def _given(key: str, name: str, place: int, views: dict[str, np.ndarray], kind: Kind) -> Iterator[tuple[str, str]]:
    """Bring the given pictures of a sample to its place; those that cannot be, and why."""
    for view, folder in kind.given.items():
        paths = [Path(folder) / name / f"{key}.{extension}" for extension in IMAGE_EXTENSIONS]
        try:
            found = next((path for path in paths if path.is_file()), None)
            if found is None:
                raise ValueError(f"no picture, as {paths[0]} would be one")
            views[view][place] = square(found.read_bytes(), kind.side)
        except (ValueError, OSError) as error:
            yield view, str(error)


def _in_file(file: File, rows: np.ndarray, kind: Kind) -> Iterator[Got]:
    uids, places = np.ascontiguousarray(rows["row"]["uid"]), rows["place"]
    columns, arrays = (["text"] if kind.captions else []), ([kind.embedding] if kind.embedding else [])
    for piece in read(file, columns, arrays):
        found = piece.arrays["uid"]
        at = np.minimum(np.searchsorted(uids, found), len(uids) - 1)
        texts = piece.table["text"].to_pylist() if columns else None
        for row in np.flatnonzero(uids[at] == found).tolist():
            vector = piece.arrays[kind.embedding][row].astype(np.float32) if arrays else None
            if vector is not None and not np.isfinite(vector).all():
                why = Problem(file.name, "", f"{kind.embedding} is not finite")
                yield Got(int(places[at[row]]), why)
                continue
            text = None if texts is None else texts[row]
            yield Got(int(places[at[row]]), None, text and text[:_CAPTION], (), vector)


def _caption(sample: Sample, kind: Kind) -> str | None:
    try:
        return sample.caption()[:_CAPTION] if kind.captions else None
    except ValueError:
        return None


def square(data: bytes, side: int) -> np.ndarray:
    """The middle square of a picture, its shorter side resized to `side` (bicubic), uint8 [side, side, 3].

    Raises:
        ValueError: it cannot be decoded.
    """
    with decoding():
        image = opened(data)
        image.draft("RGB", (side, side))
        image = rgb(image)
        width, height = image.size
        shorter = min(width, height)
        left, top = (width - shorter) / 2, (height - shorter) / 2
        box = (left, top, left + shorter, top + shorter)
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))
