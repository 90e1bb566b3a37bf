"""The labels that fastText gives captions, by numpy for many at a time: the same ones, several times faster.

fastText adds up the vectors of a line's words and of their character n-grams, one n-gram at a time, and goes down a
tree of labels. Most words stand in many captions: here a word's vectors are added up once, a caption's words are looked
up, and all captions go down the tree together. Sums in another order are rounded otherwise, so a caption of which two
labels are nearly as likely, or that is odd otherwise, is named as one that fastText itself has to be asked about.

The rules and the file are those of fastText 0.9.2 (dictionary.cc, fasttext.cc, loss.cc, productquantizer.cc).
"""

import struct
import threading
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

_MAGIC, _VERSIONS = 793712314, (11, 12)
_SUPERVISED, _HIERARCHICAL = 3, 1  # of the enumerations model_name and loss_name
_ARGUMENTS = [
    "dim",
    "ws",
    "epoch",
    "min_count",
    "neg",
    "word_ngrams",
    "loss",
    "model",
    "bucket",
    "minn",
    "maxn",
    "update_rate",
]
_CODES = 256  # of a quantizer
_LABEL, _END = b"__label__", b"</s>"
_BLANK = np.zeros(256, bool)
_BLANK[list(b" \n\r\t\v\f\0")] = True
_FLOOR = np.float32(1e-5)  # that fastText adds to each probability before it takes the logarithm
_NEAR = 1.001  # times as likely as the second label; roundings came to 1e-5 of it
_LONG = 4096  # vectors of a caption, beyond which roundings may come to more
_CAPTIONS = 2**10  # that go down the tree at a time
_REMEMBERED = 2**17  # words of a thread


class OtherModelError(ValueError):
    """A model of a kind that this does not know."""


class Best(NamedTuple):
    """The label of each caption, its number, and whether it is fastText's for certain; int64 and bool [captions]."""

    labels: np.ndarray
    sure: np.ndarray


class Tree(NamedTuple):
    """The Huffman tree of the labels, from its root down: of each depth the nodes, and the children of each.

    Nodes are numbered as fastText does: labels first, then what joins two. All are int64.
    """

    depths: list[np.ndarray]
    left: np.ndarray
    right: np.ndarray


class Words:
    """What is known of the words that were seen: the sum of the vectors of each, float32 [dim, words], and how many
    they are, int64 [words]; -1 for the word that ends a line."""

    def __init__(self, dim: int) -> None:
        self.numbers: dict[bytes, int] = {}
        self.sums, self.counts = np.zeros((dim, 0), np.float32), np.zeros(0, np.int64)

    def add(self, words: list[bytes], sums: np.ndarray, counts: np.ndarray) -> None:
        self.numbers.update(zip(words, range(len(self.numbers), len(self.numbers) + len(words)), strict=True))
        self.sums = np.concatenate([self.sums, sums], axis=1)
        self.counts = np.concatenate([self.counts, counts])


class Lines:
    """A supervised model of fastText with a tree of labels and without n-grams of words, such as lid.176.

    Attributes:
        labels: their names.

    Raises:
        OtherModelError: the file holds another one.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            if struct.unpack("<i", file.read(4))[0] != _MAGIC or struct.unpack("<i", file.read(4))[0] not in _VERSIONS:
                raise OtherModelError(f"{path} is no model of fastText 0.9")
            said = dict(zip(_ARGUMENTS, struct.unpack("<12i", file.read(48)), strict=True))
            if (said["model"], said["loss"], said["word_ngrams"]) != (_SUPERVISED, _HIERARCHICAL, 1) or not said[
                "maxn"
            ]:
                raise OtherModelError(f"{path} is a model of another kind")
            file.read(8)
            self._dim, self._bucket, self._minn, self._maxn = (said[key] for key in ("dim", "bucket", "minn", "maxn"))
            entries, kept = _read_dictionary(file)
            self._inputs = _read_matrix(file, path)
            if file.read(1) != b"\0":
                raise OtherModelError(f"{path} has compressed outputs")
            self._outputs = _read_dense(file)
        labels = [(text, count) for text, count, is_label in entries if is_label]
        self.labels = [text.removeprefix(_LABEL).decode() for text, _ in labels]
        self._tree = _tree_of([count for _, count in labels])
        self._vocabulary = {text: number for number, (text, _, _) in enumerate(entries)}
        self._n_words = len(entries) - len(labels)
        self._place = None if kept is None else _places(kept, self._bucket)
        self._own = threading.local()

    def best(self, captions: pa.Array) -> Best:
        """The most likely label of each caption, a string array without nulls; a line end counts as a blank."""
        words, firsts = _words_of(captions)
        known = getattr(self._own, "words", None)
        if known is None or len(known.numbers) > _REMEMBERED:
            known = self._own.words = Words(self._dim)
        encoded = words.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        new = [word for word in distinct if word not in known.numbers]
        if new:
            known.add(new, *self._sums(new))
        numbers = np.fromiter(map(known.numbers.__getitem__, distinct), np.int64, len(distinct))
        of_words = numbers[encoded.indices.to_numpy()]
        end = self._inputs[self._vocabulary[_END]] if _END in self._vocabulary else np.zeros(self._dim, np.float32)
        counts = _added(known.counts[of_words], firsts) + (_END in self._vocabulary)
        odd = _added((known.counts[of_words] < 0).astype(np.int64), firsts) > 0
        hidden = np.stack([_added(sums[of_words], firsts) for sums in known.sums]) + end[:, None]
        hidden /= np.maximum(counts, 1).astype(np.float32)
        labels, margins = np.zeros(len(captions), np.int64), np.zeros(len(captions), np.float32)
        for start in range(0, len(captions), _CAPTIONS):
            piece = slice(start, start + _CAPTIONS)
            labels[piece], margins[piece] = self._descend(np.ascontiguousarray(hidden[:, piece]))
        return Best(labels, (margins > _NEAR) & ~odd & (counts > 0) & (counts <= _LONG))

    def _descend(self, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The most likely label of each caption, and how many times as likely it is as the second one.

        Args:
            hidden: float32 [dim, captions].
        """
        n_labels = len(self.labels)
        with np.errstate(over="ignore", divide="ignore"):  # an infinite exponential is a probability of 0
            right = 1 / (1 + np.exp(-(self._outputs[: n_labels - 1] @ hidden)))
            left = 1 - right
            right += _FLOOR
            left += _FLOOR
            likely = np.ones((2 * n_labels - 1, hidden.shape[1]), np.float32)
            for nodes in self._tree.depths:
                here = likely[nodes]
                likely[self._tree.left[nodes]] = here * left[nodes - n_labels]
                likely[self._tree.right[nodes]] = here * right[nodes - n_labels]
            leaves = likely[:n_labels]
            best = leaves.argmax(axis=0)
            columns = np.arange(len(best))
            highest = leaves[best, columns]
            leaves[best, columns] = 0
            return best, highest / leaves.max(axis=0)

    def _sums(self, words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The sum of each word's own vector and those of its n-grams, float32 [dim, words], and of how many, int64;
        -1 for the word that ends a line."""
        of, rows = self._grams(words)
        numbers = [self._vocabulary.get(word, -1) for word in words]
        own = np.array([number if number < self._n_words else -1 for number in numbers], np.int64)
        is_label = np.array(
            [
                number >= self._n_words or (number < 0 and word.startswith(_LABEL))
                for number, word in zip(numbers, words, strict=True)
            ],
            bool,
        )
        counted = ~is_label[of]
        of, rows = (
            np.concatenate([of[counted], np.flatnonzero(own >= 0)]),
            np.concatenate([rows[counted], own[own >= 0]]),
        )
        order = np.argsort(of, kind="stable")
        counts = np.bincount(of, minlength=len(words))
        rows, firsts = rows[order], np.concatenate([[0], np.cumsum(counts)])
        sums = np.stack([_added(column[rows], firsts) for column in self._inputs.T])
        counts[[place for place, word in enumerate(words) if word == _END]] = -1
        return sums, counts

    def _grams(self, words: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams of characters of words: the place of the word, and the row of the input matrix; int64 both."""
        data = np.frombuffer(b"".join(b"<%b>" % word for word in words), np.uint8)
        lengths = np.fromiter(map(len, words), np.int64, len(words)) + 2
        starts = np.flatnonzero((data & 0xC0) != 0x80)  # the first byte of each character
        word = np.repeat(np.arange(len(words)), lengths)[starts]
        sizes = np.diff(np.append(starts, len(data)))  # bytes of each character
        signed = data.view(np.int8).astype(np.int32).view(np.uint32)  # fastText's bytes have a sign
        last = np.append(word[1:] != word[:-1], True) if len(word) else np.zeros(0, bool)
        first = np.append(True, word[1:] != word[:-1]) if len(word) else np.zeros(0, bool)
        at = np.arange(len(starts))  # characters that an n-gram starts with
        hashes = np.full(len(starts), 2166136261, np.uint32)
        found_of, found = [], []
        for n in range(1, self._maxn + 1):
            end = at + n - 1
            there = end < len(starts)
            at, hashes, end = at[there], hashes[there], end[there]
            there = word[end] == word[at]
            at, hashes, end = at[there], hashes[there], end[there]
            for byte in range(int(sizes[end].max(initial=0))):
                more = np.flatnonzero(sizes[end] > byte)
                hashes[more] = (hashes[more] ^ signed[starts[end[more]] + byte]) * np.uint32(16777619)
            if n >= self._minn:
                whole = ~(first[at] | last[end]) if n == 1 else np.ones(len(at), bool)
                found_of.append(word[at[whole]])
                found.append(hashes[whole] % np.uint32(self._bucket))
        of, rows = np.concatenate(found_of), np.concatenate(found).astype(np.int64)
        if self._place is not None:
            rows = self._place[rows].astype(np.int64)
            of, rows = of[rows >= 0], rows[rows >= 0]
        return of, rows + self._n_words


def _words_of(captions: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The words of captions, one behind the other, as bytes, and the place of each caption's first one and of the end,
    int64 [captions + 1]."""
    captions = captions.cast(pa.large_string())
    _, ends, text = captions.buffers()
    offsets = np.frombuffer(ends, np.int64)[captions.offset : captions.offset + len(captions) + 1]
    data = np.frombuffer(text, np.uint8)[offsets[0] : offsets[-1]] if text is not None else np.zeros(0, np.uint8)
    offsets = offsets - offsets[0]
    written = ~_BLANK[data]
    begins, ends_ = written.copy(), written.copy()
    begins[1:] &= ~written[:-1]
    ends_[:-1] &= ~written[1:]
    inner = offsets[(offsets > 0) & (offsets < len(data))]  # a word ends with its caption
    begins[inner], ends_[inner - 1] = written[inner], written[inner - 1]
    starts = np.flatnonzero(begins)
    bounds = np.concatenate([[0], np.cumsum(np.flatnonzero(ends_) + 1 - starts)])
    words = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds.astype(np.int64)), pa.py_buffer(data[written])]
    )
    return words, np.searchsorted(starts, offsets)


def _added(values: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """The sums of values from each of `firsts` up to the next, [len(firsts) - 1, ...]; of none 0."""
    sums = np.zeros((len(firsts) - 1, *values.shape[1:]), values.dtype)
    some = np.flatnonzero(firsts[1:] > firsts[:-1])
    if len(some):
        sums[some] = np.add.reduceat(values, firsts[some], axis=0)
    return sums


def _read_dictionary(file: IO[bytes]) -> tuple[list[tuple[bytes, int, bool]], np.ndarray | None]:
    """Words, then labels, with their counts; and the n-grams that were kept of all, with their new numbers, int32
    [n, 2], or None for all."""
    size, _, _, _, kept = struct.unpack("<iiiqq", file.read(28))
    entries = []
    for _ in range(size):
        text = bytearray()
        while (byte := file.read(1)) != b"\0":
            text += byte
        count, kind = struct.unpack("<qb", file.read(9))
        entries.append((bytes(text), count, kind == 1))
    if kept < 0:
        return entries, None
    return entries, np.frombuffer(file.read(8 * kept), "<i4").reshape(kept, 2)


def _places(kept: np.ndarray, bucket: int) -> np.ndarray:
    """The new number of each n-gram, -1 for those that are gone, int32 [bucket]."""
    places = np.full(bucket, -1, np.int32)
    places[kept[:, 0]] = kept[:, 1]
    return places


def _read_matrix(file: IO[bytes], path: Path) -> np.ndarray:
    """The vectors of words and n-grams, float32 [rows, dim]; memory-mapped where they are not compressed."""
    if file.read(1) == b"\0":
        rows, dim = struct.unpack("<qq", file.read(16))
        mapped = np.memmap(path, "<f4", "r", file.tell(), (rows, dim))
        file.seek(4 * rows * dim, 1)
        return mapped
    has_norms = file.read(1) != b"\0"
    rows, dim, size = struct.unpack("<qqi", file.read(20))
    codes = np.frombuffer(file.read(size), np.uint8).reshape(rows, -1)
    matrix = _decoded(file, codes)[:, :dim]
    if has_norms:
        matrix = matrix * _decoded(file, np.frombuffer(file.read(rows), np.uint8)[:, None])
    return np.ascontiguousarray(matrix, np.float32)


def _decoded(file: IO[bytes], codes: np.ndarray) -> np.ndarray:
    """What a quantizer, which the file holds next, makes of its codes, uint8 [rows, parts]; float32 [rows, dim]."""
    dim, parts, width, last = struct.unpack("<4i", file.read(16))
    centroids = np.frombuffer(file.read(4 * dim * _CODES), "<f4")
    pieces, start = [], 0
    for part in range(parts):
        wide = last if part == parts - 1 else width
        table = centroids[start : start + _CODES * wide].reshape(_CODES, wide)
        pieces.append(table[codes[:, part]])
        start += _CODES * wide
    return np.concatenate(pieces, axis=1)


def _read_dense(file: IO[bytes]) -> np.ndarray:
    rows, dim = struct.unpack("<qq", file.read(16))
    return np.frombuffer(file.read(4 * rows * dim), "<f4").reshape(rows, dim)


def _tree_of(counts: list[int]) -> Tree:
    """The tree that fastText builds of the counts of the labels, which come in descending order."""
    size = len(counts)
    weights = [*counts, *([10**15] * (size - 1))]
    left, right = np.full(2 * size - 1, -1), np.full(2 * size - 1, -1)
    leaf, node = size - 1, size
    for joined in range(size, 2 * size - 1):
        pair = []
        for _ in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                pair.append(leaf)
                leaf -= 1
            else:
                pair.append(node)
                node += 1
        left[joined], right[joined] = pair
        weights[joined] = weights[pair[0]] + weights[pair[1]]
    depths, nodes = [], np.array([2 * size - 2])
    while len(nodes := nodes[nodes >= size]):
        depths.append(nodes)
        nodes = np.concatenate([left[nodes], right[nodes]])
    return Tree(depths, left, right)
