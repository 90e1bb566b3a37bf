"""The products that scores are made of, each against a few lines of float64, and whether the way to them shows."""

from typing import Any

import numpy as np
import pytest

from poolbench.errors import UserError

from curate.models import forms
from curate.models.devices import CPU, checked, on_torch
from curate.models.forms import Quadratic, gram, largest, pair_losses

KINDS = ("unit", "mixed", "tiny", "huge", "half")


def vectors_of(rows: int, width: int, kind: str, seed: int) -> np.ndarray:
    """Vectors of length 1, or of lengths from the smallest to the largest that fit; some are 0 and some equal."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(rows, width)) + 0.5
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    scale: dict[str, Any] = {
        "unit": 1.0,
        "half": 1.0,
        "mixed": 10.0 ** rng.integers(-20, 20, (rows, 1)),
        "tiny": 1e-43,
        "huge": 1e38,
    }
    found *= scale[kind]
    found[rng.integers(0, rows, rows // 10)] = 0
    found[rng.integers(0, rows, rows // 3)] = found[rng.integers(0, rows, rows // 3)]
    return found.astype(np.float16 if kind == "half" else np.float32)


def single(values: np.ndarray) -> np.ndarray:
    top = np.finfo(np.float32).max
    found: np.ndarray = np.clip(values, -top, top).astype(np.float32)
    return found


def devices() -> list[Any]:
    small = CPU._replace(side=7, strip=5)
    return [CPU, small, on_torch("cpu")._replace(side=5, strip=7)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", KINDS)
def test_products_are_those_of_double_precision(kind: str, targets: str) -> None:
    some, others = vectors_of(300, 24, kind, 1), vectors_of(90, 24, targets, 2)
    products = some.astype(np.float64) @ others.astype(np.float64).T
    for device in devices():
        near: dict[str, Any] = {"rtol": 1.3e-7, "atol": 2e-45}
        np.testing.assert_allclose(
            largest(some, [others[:50], others[50:]], device), single(abs(products).max(1)), **near
        )
        found = Quadratic(gram(others, device), device)(some, lambda values: values / 90)
        np.testing.assert_allclose(found, single((products**2).sum(1) / 90), **near)
        found = Quadratic(gram(others, device), device)(some, np.sqrt)
        np.testing.assert_allclose(found, single(np.sqrt((products**2).sum(1))), **near)


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_depends_on_the_rows_beside_a_row(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    some, others = vectors_of(400, 48, kind, 3), vectors_of(120, 48, "unit", 4)
    matrix = gram(others)
    whole = Quadratic(matrix)(some, np.sqrt), largest(some, [others])
    order = np.random.default_rng(5).permutation(len(some))
    for rows, device in zip((1, 3, 64), devices(), strict=True):
        monkeypatch.setattr(forms, "_ROWS", rows)
        monkeypatch.setattr(forms, "MANY", rows)
        np.testing.assert_array_equal(Quadratic(matrix, device)(some[order], np.sqrt), whole[0][order])
        np.testing.assert_array_equal(largest(some[order], [others[60:], others[:60]], device), whole[1][order])


def test_the_largest_is_not_what_single_precision_takes_for_it() -> None:
    """Targets that differ by less than the error of a sum in single precision, each in a block of its own."""
    rng = np.random.default_rng(20)
    some = rng.normal(size=(300, 512)).astype(np.float32)
    others = (rng.normal(size=512) + 1e-6 * rng.normal(size=(20, 512))).astype(np.float32)
    found = largest(some, [others], CPU._replace(side=1))
    exact = np.abs(some.astype(np.float64) @ others.astype(np.float64).T)
    np.testing.assert_array_equal(found, single(exact.max(1)))
    rough = np.abs(np.stack([some @ other for other in others], 1)).argmax(1)
    assert (single(exact[range(300), rough]) != found).any()  # the block that it would have chosen


def test_a_sum_between_two_numbers_is_summed_exactly() -> None:
    """Of all values between two float32 just where a wrong last bit decides: they are asked for, the others are not."""
    middle = 1 + 2.0**-24
    asked: list[int] = []

    def exact(row: int) -> float:
        asked.append(row)
        return 1.0

    low, high = np.array([middle - 1e-15, 0.5, middle - 1e-9]), np.array([middle + 1e-15, 0.5, middle - 1e-9])
    np.testing.assert_array_equal(forms.settled(low, high, exact), np.array([1, 0.5, 1], np.float32))
    assert asked == [0]


def test_equal_vectors_score_alike_wherever_they_stand() -> None:
    rng = np.random.default_rng(6)
    some = np.repeat(vectors_of(50, 40, "half", 7), 40, axis=0)
    order = rng.permutation(len(some))
    others = vectors_of(3000, 40, "half", 8)
    for scores in (Quadratic(gram(others))(some[order], np.sqrt), largest(some[order], [others])):
        back = np.empty_like(scores)
        back[order] = scores
        assert (back.reshape(50, 40) == back[::40, None]).all()


def losses(left: np.ndarray, right: np.ndarray, batch: np.ndarray, temperature: float) -> np.ndarray:
    """A few lines of float64."""
    logits = left[batch].astype(np.float64) @ right[batch].astype(np.float64).T / temperature
    found = np.zeros(len(batch))
    for less in (logits - np.diag(logits)[:, None], (logits - np.diag(logits)).T):
        top = less.max(1)
        found += temperature / 2 * (np.log(np.exp(less - top[:, None]).sum(1)) + top)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_losses_are_those_of_double_precision(kind: str, temperature: float) -> None:
    left, right = vectors_of(200, 16, kind, 9), vectors_of(200, 16, kind, 10)
    batches = np.array_split(np.random.default_rng(11).permutation(200), 3)
    wanted = np.empty(200)
    for batch in batches:
        wanted[batch] = losses(left, right, batch, temperature)
    for device in devices():
        found = pair_losses(left, right, batches, temperature, device)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13 * temperature)


def test_short_sums_are_the_shifted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of length 1 take the way without a shift; it must not be another one."""
    left, right = vectors_of(150, 16, "half", 12), vectors_of(150, 16, "half", 13)
    batches = [np.arange(150)]
    plain = pair_losses(left, right, batches, 0.01)
    monkeypatch.setattr(forms, "_EXPONENT", 0.0)
    np.testing.assert_allclose(pair_losses(left, right, batches, 0.01), plain, rtol=1e-12, atol=1e-15)


def test_nothing_is_an_answer_to_nothing() -> None:
    none = np.empty((0, 4), np.float16)
    assert Quadratic(np.eye(4))(none, np.sqrt).shape == (0,)
    assert largest(none, [np.ones((2, 4), np.float16)]).shape == (0,)


def test_devices_by_name() -> None:
    assert checked("cpu") == "cpu"
    with pytest.raises(UserError, match=r"filter\.device=gpu is not known"):
        checked("gpu")
