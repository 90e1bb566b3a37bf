"""The faces of the chosen samples: their boxes from a pool's metadata, and their pictures encoded anew without them."""

import io
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from poolbench.errors import UserError
from poolbench.files import atomic, digest_json, files_below
from poolbench.shards.members import padded
from poolbench.shards.pictures import opened, rgb
from poolbench.shards.samples import IMAGE_EXTENSIONS
from poolbench.uids import find, from_texts, mapped

from curate.pool.faces import blurred
from curate.reshard.job import Job, planned
from curate.reshard.tars import HeldTar, header, members

FORMATS = ("JPEG", "PNG", "WEBP")
METHOD = (
    "img2dataset's Gaussian blur through a blurred mask of the boxes; JPEG and WebP encoded anew at this quality, "
    "PNG lossless"
)
_ENTRY = np.dtype([("row", "u8"), ("start", "u8"), ("count", "u4")])


class Faces:
    """The boxes of the chosen samples that have any, looked up by the first row of the uid in the subset."""

    def __init__(self, folder: Path) -> None:
        self._entries, self._boxes = np.load(folder / "entries.npy"), np.load(folder / "boxes.npy")

    def of(self, row: int) -> np.ndarray[Any, Any]:
        """Float [faces, 4]: left, top, right, bottom, as shares of width and height."""
        place = int(np.searchsorted(self._entries["row"], row))
        if place == len(self._entries) or self._entries["row"][place] != row:
            empty: np.ndarray[Any, Any] = self._boxes[:0]
            return empty
        _, start, count = self._entries[place].tolist()
        boxes: np.ndarray[Any, Any] = self._boxes[start : start + count]
        return boxes

    def hidden(self, blocks: memoryview, key: str, boxes: Any, quality: int) -> list[bytes | memoryview]:
        """The pieces of a sample with its picture blurred, as tars.renamed gives the others'.

        Raises:
            ValueError: see `without_faces`.
        """
        pieces: list[bytes | memoryview] = []
        for member in members(HeldTar(blocks), len(blocks)):
            content: bytes | memoryview = blocks[member.data : member.data + member.size]
            if member.extension in IMAGE_EXTENSIONS:
                content = without_faces(bytes(content), boxes, quality)
            padding = bytes(padded(len(content)) - len(content))
            pieces += [header(f"{key}.{member.extension}", len(content)), content, padding]
        return pieces


def collect(job: Job, metadata: str) -> None:
    """Write the boxes of the chosen samples, and which of those the metadata know.

    Raises:
        UserError: no metadata there, or of another kind.
    """
    subset = mapped(job.subset)
    known = np.zeros(len(subset), np.bool_)
    entries: list[tuple[int, int, int]] = []
    boxes: list[np.ndarray[Any, Any]] = [np.zeros((0, 4))]
    held, names = 0, _parquets(metadata)
    for name in tqdm(names, desc="reading face boxes", unit=" files", mininterval=0.5):
        for rows, lists in _rows(name, subset):
            known[rows[rows >= 0]] = True
            for row, found in zip(rows.tolist(), lists, strict=True):
                if row >= 0 and found:
                    boxes.append(_checked(found, name))
                    entries.append((row, held, len(found)))
                    held += len(found)
    table = np.array(entries, _ENTRY)
    table = table[np.unique(table["row"], return_index=True)[1]]
    job.faces.mkdir(exist_ok=True)
    for file_name, array in (("known", known), ("boxes", np.concatenate(boxes)), ("entries", table)):
        with atomic(job.faces / f"{file_name}.npy", "wb") as file:
            np.save(file, array)


def unknown(job: Job) -> int:
    """How many samples of the output the metadata do not know: nobody can say whether they show faces."""
    plan, known = planned(job), np.load(job.faces / "known.npy")
    first = plan["row"][plan["repeat"] == 0]
    return int((~known[first]).sum())


def without_faces(data: bytes, boxes: np.ndarray[Any, Any], quality: int) -> bytes:
    """A picture with its faces blurred, in the format it had.

    Raises:
        ValueError: it cannot be decoded, or is none of FORMATS.
    """
    try:
        image = opened(data, FORMATS)
        clear = image.has_transparency_data and not image.mode.startswith("I")
        kind, plain = image.format, image.convert("RGBA") if clear else rgb(image)
    except UnidentifiedImageError:
        raise ValueError(f"its faces cannot be blurred: it is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # what a decoder raises on foreign bytes is not documented
        raise ValueError(f"its faces cannot be blurred: {error}") from None
    made = Image.fromarray(blurred(np.asarray(plain), boxes.tolist()))
    made.info = plain.info  # a profile of colours, which PNG and WebP keep
    buffer = io.BytesIO()
    made.save(buffer, kind, **({} if kind == "PNG" else {"quality": quality}))
    return buffer.getvalue()


def digest(metadata: str) -> str:
    """Of the names and sizes of the metadata's files, and of how faces are blurred.

    Raises:
        UserError: there are none.
    """
    system, _ = fsspec.core.url_to_fs(metadata)
    files = [[name.rpartition("/")[2], system.info(name)["size"]] for name in _parquets(metadata)]
    return digest_json([METHOD, *files])


def _parquets(metadata: str) -> list[str]:
    system, root = fsspec.core.url_to_fs(metadata)
    try:
        if system.isfile(root):
            names = [root]
        else:
            found = map(str, files_below(root)) if "://" not in metadata and Path(root).is_dir() else system.find(root)
            shown = (name for name in found if not name.rpartition("/")[2].startswith("."))
            names = sorted(name for name in shown if name.endswith(".parquet"))
    except OSError as error:
        raise UserError(f"blur_faces={metadata} cannot be listed: {error}") from None
    if not names:
        raise UserError(f"blur_faces={metadata}: no .parquet there")
    return [system.unstrip_protocol(name) for name in names]


def _rows(name: str, subset: np.ndarray[Any, Any]) -> Any:
    """For each row group: the first row in the subset of each uid, -1 where it is not chosen, and its boxes."""
    try:
        with fsspec.open(name, "rb") as file:
            table = pq.ParquetFile(file)
            for column in ("uid", "face_bboxes"):
                if column not in table.schema_arrow.names:
                    raise UserError(f"{name}: no column {column!r}, which blur_faces= needs")
            for batch in table.iter_batches(2**16, columns=["uid", "face_bboxes"]):
                first, times = find(subset, _uids(batch.column("uid"), name))
                yield np.where(times > 0, first, -1), batch.column("face_bboxes").to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{name} cannot be read: {error}") from None


def _uids(column: Any, name: str) -> np.ndarray[Any, Any]:
    """A column of hex uids as rows of a subset, at the speed of bytes.fromhex."""
    try:
        return from_texts(column.to_pylist())
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def _checked(found: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        boxes = np.array(found, np.float64)
        if boxes.ndim == 2 and boxes.shape[1] == 4 and np.isfinite(boxes).all():
            return boxes
    except (TypeError, ValueError):
        pass
    raise UserError(f"{name}: face_bboxes {found} are no boxes of 4 numbers")
