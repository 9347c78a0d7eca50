"""Softmax cross-entropy's twins: the original's numbers, its NaN and infinities, its errors."""

from typing import Any

import numpy as np
import pytest

from l0ref import ops
from l0ref.jit import TWINS

forward, backward = TWINS[ops.softmax_cross_entropy], TWINS[ops.softmax_cross_entropy_vjp]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spread", [1.0, 30.0, 300.0])
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_the_same_loss_and_derivative(dtype: str, spread: float, layout: str) -> None:
    rng = np.random.default_rng(int(spread))
    logits = (spread * rng.normal(size=(7, 5))).astype(dtype)
    if layout == "F":
        logits = np.asfortranarray(logits)
    elif layout == "strided":
        logits = np.repeat(logits, 2, axis=1)[:, ::2]
    labels = rng.integers(0, 5, 7)
    before = logits.copy()
    loss, residuals = forward(logits, labels)
    expected, originals = ops.softmax_cross_entropy(logits, labels)
    eps = np.finfo(dtype).eps
    assert type(loss) is type(expected)
    assert abs(loss - expected) <= 4 * eps * expected  # sums of seven rows, in another order
    d, d_expected = backward(-0.7, residuals), ops.softmax_cross_entropy_vjp(-0.7, originals)
    assert d.dtype == dtype
    # Each is a quotient of exponentials: relative to itself, not to 1.
    np.testing.assert_allclose(d, d_expected, rtol=20 * eps, atol=np.finfo(dtype).tiny)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("label", [1, 2])
def test_what_is_not_finite_is_the_originals(odd: float, label: int) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4))
    logits[1, 2] = odd
    with np.errstate(all="ignore"):
        labels = np.array([0, label, 2])
        loss, residuals = forward(logits, labels)
        expected, originals = ops.softmax_cross_entropy(logits, labels)
        d, d_expected = (
            backward(1.0, residuals), ops.softmax_cross_entropy_vjp(1.0, originals)
        )  # fmt: skip
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_allclose(d, d_expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.ones((2, 3)), [0, 3], "labels must be in 0 .. 2, got 3"),
        (np.ones((2, 3)), [0, -1], "labels must be in 0 .. 2, got -1"),
        (np.ones((2, 3)), [0.0, 1.0], "labels must be integers"),
        (np.ones((2, 3)), [0], r"labels must have shape \(2,\)"),
        (np.ones((0, 3)), [], "N > 0"),
        (np.ones(3), [0], "logits must have shape"),
    ],
)
def test_errors_are_the_originals(logits: Any, labels: Any, message: str) -> None:
    for function in (forward, ops.softmax_cross_entropy):
        with pytest.raises(ValueError, match=message):
            function(logits, np.array(labels) if labels else np.zeros(0, int))


def test_the_originals_residuals_are_taken() -> None:
    _, originals = ops.softmax_cross_entropy(np.ones((2, 3), np.float32), np.array([0, 2]))
    expected = ops.softmax_cross_entropy_vjp(2.0, originals)
    np.testing.assert_array_equal(backward(2.0, originals), expected)


def test_a_label_that_is_all_but_certain_keeps_its_digits() -> None:
    """What is left of 1 - p there, 1e-13 and 9e-22, a difference of the two would not have."""
    logits = np.array([[30.0, 0.0, -4.0], [1.0, 0.5, 50.0]])
    labels = np.array([0, 2])  # an array: lists are left to the original
    d = backward(1.0, forward(logits, labels)[1])
    d_expected = ops.softmax_cross_entropy_vjp(1.0, ops.softmax_cross_entropy(logits, labels)[1])
    np.testing.assert_allclose(d, d_expected, rtol=20 * np.finfo(np.float64).eps)


def test_a_gradient_is_the_callers_to_change() -> None:
    logits, labels = np.array([[0.5, -1.0, 2.0]]), np.array([1])
    _, residuals = TWINS[ops.softmax_cross_entropy](logits, labels)
    first = TWINS[ops.softmax_cross_entropy_vjp](1.0, residuals)
    kept = first.copy()
    first *= 0
    np.testing.assert_array_equal(TWINS[ops.softmax_cross_entropy_vjp](1.0, residuals), kept)
