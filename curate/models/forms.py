"""Scores that are products of vectors with vectors, the same numbers however many rows come at once, on however many
threads and on whichever device.

They are summed in double precision. What single precision keeps of a sum could still differ where the sum lies next to
the middle between two of its numbers, nearer than the order of summing makes a difference: such a row, one in some
thousands, is summed again, in an order of its own (`settled`). So equal vectors have equal scores, and
which of them are kept is a question of their uids alone.

Vectors need not be of length 1, and none is made so: the published methods multiply embeddings as they are stored. A
score that single precision cannot hold is its largest number, or 0.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from curate.models.devices import CPU, Device

_ROWS = 2**10  # that are multiplied at a time
MANY = 2**14  # rows that are compared with a block of targets before the next block is looked at
_STRIP = 2**7  # columns of a matrix that are summed at a time
_LARGEST = float(np.finfo(np.float32).max)
_EXPONENT = 300.0  # of a power of e that a sum of a batch's can hold, and so can its inverse
_SINGLE, _DOUBLE = float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps)


def settled(low: np.ndarray, high: np.ndarray, exact: Callable[[int], float]) -> np.ndarray:
    """Values between `low` and `high`, float64 [n], in single precision, float32 [n].

    Args:
        exact: the value of a row, always the same to the last bit.
    """
    found, other = single(low), single(high)
    for row in np.flatnonzero(found != other).tolist():
        found[row] = single(np.array([exact(row)]))[0]
    return found


def single(values: np.ndarray) -> np.ndarray:
    """Numbers in single precision; those beyond it are its largest and smallest, float32."""
    found: np.ndarray = np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)
    return found


def gram(vectors: np.ndarray, device: Device = CPU) -> np.ndarray:
    """The sum of every vector's product with itself, float64 [width, width]; vectors [n, width], summed in order."""
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(vectors), _ROWS):
        block = device.put(vectors[start : start + _ROWS], np.float64)
        total += device.get(block.T @ block)
    return total


class Quadratic:
    """x' M x of vectors x.

    M has the same value for a pair of numbers twice: its upper half is multiplied with the lower one added, a strip of
    columns at a time, which is little more than half of the products.
    """

    def __init__(self, matrix: np.ndarray, device: Device = CPU) -> None:
        """
        Args:
            matrix: float64 [width, width], with no negative eigenvalue.
        """
        self._matrix, self._device = matrix, device
        upper = np.triu(matrix + matrix.T)
        np.fill_diagonal(upper, matrix.diagonal())
        # What so many products and sums can be wrong by, for a vector of length 1.
        self._error = (len(matrix) + 32) * _DOUBLE * float(np.linalg.norm(upper))
        strips = (slice(at, at + device.strip) for at in range(0, len(matrix), device.strip))
        self._strips = [(strip, device.put(upper[: strip.stop, strip], np.float64)) for strip in strips]

    def __call__(self, vectors: np.ndarray, last: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """`last` of each vector's value, float32 [n]; it must rise with its argument, which is no less than 0.

        Args:
            vectors: [n, width], of half or single precision, all finite.
        """
        parts = [np.empty(0, np.float32)]
        for start in range(0, len(vectors), _ROWS):
            some = vectors[start : start + _ROWS]
            values, squares = self._values(some)
            low, high = (last(np.maximum(values + sign * squares * self._error, 0)) for sign in (-1, 1))

            def exact(row: int, some: np.ndarray = some) -> float:
                return float(last(np.array([max(_quadratic(some[row].astype(np.float64), self._matrix), 0.0)]))[0])

            parts.append(settled(low, high, exact))
        return np.concatenate(parts)

    def _values(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The value and the squared length of each vector, float64 [n] both."""
        device = self._device
        block, values = device.put(vectors, np.float64), device.zeros(len(vectors))
        for strip, upper in self._strips:
            values += device.functions.einsum("ij,ij->i", block[:, : strip.stop] @ upper, block[:, strip])
        return device.get(values), device.get(device.functions.einsum("ij,ij->i", block, block))


def largest(vectors: np.ndarray, targets: Sequence[np.ndarray], device: Device = CPU) -> np.ndarray:
    """The largest absolute product of each vector with a target, float32 [n].

    Products in single precision choose the blocks of targets that come into question; in those it is found in double
    precision.

    Args:
        vectors: [n, width], of half or single precision, all finite.
        targets: matrices of them, [m, width], all finite.
    """
    blocks = [part[start : start + device.side] for part in targets for start in range(0, len(part), device.side)]
    scale, length = _scale(np.array([np.abs(block).max() for block in blocks])), 0.0
    for block in blocks:
        length = max(length, float(np.linalg.norm(block.astype(np.float64), axis=1).max()))
    parts = [np.empty(0, np.float32)]
    for start in range(0, len(vectors), MANY):
        parts.append(_largest(vectors[start : start + MANY], blocks, float(scale), length, device))
    return np.concatenate(parts)


def _largest(
    vectors: np.ndarray, blocks: Sequence[np.ndarray], scale: float, length: float, device: Device
) -> np.ndarray:
    """See `largest`: `length` is the longest target's, `scale` brings all of them near 1."""
    double = vectors.astype(np.float64)
    lengths = np.linalg.norm(double, axis=1)
    scales = np.ldexp(1.0, -np.frexp(np.abs(double).max(axis=1))[1])
    scaled = device.put((double * scales[:, None]).astype(np.float32), np.float32)
    tops = np.stack([_tops(scaled, block, scale, device) for block in blocks])  # [blocks, rows]
    # Twice the largest error of so many products and sums in single precision, and of what they are made of.
    error = 2 * (vectors.shape[1] + 4) * _SINGLE * lengths * scales * length * scale
    wanted = (tops >= tops.max(axis=0) - error) & (lengths > 0)
    values, errors = np.zeros(len(vectors)), vectors.shape[1] * _DOUBLE * 2 * lengths * length
    for block, rows in zip(blocks, wanted, strict=True):
        if rows.any():
            found = _absolute(device.put(vectors[rows], np.float64), device.put(block, np.float64).T, device)
            values[rows] = np.maximum(values[rows], found)

    def exact(row: int) -> float:
        return max(
            float(np.abs(_summed(block.astype(np.float64).T * double[row][:, None])).max())
            for block, rows in zip(blocks, wanted, strict=True)
            if rows[row]
        )

    return settled(values - errors, values + errors, exact)


def _tops(scaled: Any, block: np.ndarray, scale: float, device: Device) -> np.ndarray:
    """The largest product of each row with a block, in single precision, [rows]."""
    target = device.put((block * np.float64(scale)).astype(np.float32) if scale != 1 else block, np.float32).T
    rows = range(0, scaled.shape[0], device.side)
    return np.concatenate([_absolute(scaled[at : at + device.side], target, device) for at in rows])


def _absolute(left: Any, right: Any, device: Device) -> np.ndarray:
    """The largest absolute value of each row of a product."""
    products = left @ right
    functions = device.functions
    return device.get(functions.maximum(functions.amax(products, axis=1), -functions.amin(products, axis=1)))


def _scale(numbers: np.ndarray) -> np.float64:
    """A power of 2 that brings the largest of them between 1/2 and 1, 1 where half precision would do."""
    top = float(numbers.max())
    return np.float64(1.0) if 2**-40 < top < 2**40 or not top else np.ldexp(np.float64(1.0), -math.frexp(top)[1])


def _quadratic(vector: np.ndarray, matrix: np.ndarray) -> float:
    """x' M x, summed in an order that nothing changes; of as many columns at a time as fit the cache."""
    strips = (matrix[:, at : at + _STRIP] for at in range(0, len(matrix), _STRIP))
    return float(_summed(vector * np.concatenate([_summed(strip * vector[:, None]) for strip in strips])))


def _summed(terms: np.ndarray) -> Any:
    """The sum over the first axis, by halves: additions of whole arrays, which are the same on every machine."""
    while len(terms) > 1:
        half = len(terms) // 2
        terms = np.concatenate([terms[:half] + terms[half : 2 * half], terms[2 * half :]])
    return terms[0]


def pair_losses(
    left: np.ndarray, right: np.ndarray, batches: Sequence[np.ndarray], temperature: float, device: Device = CPU
) -> np.ndarray:
    """How hard each pair is to tell from those of its batch: T / 2 (log sum exp((x_i y_j - x_i y_i) / T) + log sum
    exp((x_j y_i - x_i y_i) / T)) over all j of the batch, float64 [n], no less than 0.

    Args:
        left: x, [n, width], of half or single precision, all finite.
        right: y, likewise.
        batches: the rows of each; together all of them, once.
    """
    losses = np.zeros(len(left))
    for rows in batches:
        losses[rows] = _batch_losses(left[rows], right[rows], temperature, device)
    return np.maximum(losses, 0)


def _batch_losses(left: np.ndarray, right: np.ndarray, temperature: float, device: Device) -> np.ndarray:
    x, y = device.put(left, np.float64) * (1 / temperature), device.put(right, np.float64)
    bound = float((x * x).sum(1).max()) ** 0.5 * float((y * y).sum(1).max()) ** 0.5
    losses = (_plain_losses if bound < _EXPONENT else _shifted_losses)(x, y, device)
    return device.get(losses * (temperature / 2))


def _blocks(x: Any, y: Any, device: Device, own: Any) -> Iterator[tuple[slice, slice, Any]]:
    """The products of all of x with all of y, a block at a time, with their rows and columns. Each one's with its own
    go into `own`, [n]."""
    starts = range(0, x.shape[0], device.side)
    for rows in (slice(start, start + device.side) for start in starts):
        for columns in (slice(start, start + device.side) for start in starts):
            products = x[rows] @ y[columns].T
            if rows == columns:
                own[rows] = products.diagonal()
            yield rows, columns, products


def _plain_losses(x: Any, y: Any, device: Device) -> Any:
    """The losses of logits none of which is too large a power of e: one for both directions, with nothing taken off it
    first."""
    own, across, down = (device.zeros(x.shape[0]) for _ in range(3))
    for rows, columns, products in _blocks(x, y, device, own):
        device.functions.exp(products, out=products)
        across[rows] += products.sum(1)
        down[columns] += products.sum(0)
    return device.functions.log(across) - own + (device.functions.log(down) - own)


def _shifted_losses(x: Any, y: Any, device: Device) -> Any:
    """The same of any logits: a sum's largest is taken off before."""
    functions, size = device.functions, x.shape[0]
    own, sums = device.zeros(size), [device.zeros(size) for _ in range(2)]
    tops = [device.zeros(size) - np.inf for _ in range(2)]
    for rows, columns, products in _blocks(x, y, device, own):
        for axis, at, block in ((0, rows, products), (1, columns, products.T)):
            top = functions.maximum(tops[axis][at], functions.amax(block, axis=1))
            sums[axis][at] *= functions.exp(tops[axis][at] - top)
            sums[axis][at] += functions.exp(block - top[:, None]).sum(1)
            tops[axis][at] = top
    across, down = (functions.log(total) + (top - own) for total, top in zip(sums, tops, strict=True))
    return across + down
