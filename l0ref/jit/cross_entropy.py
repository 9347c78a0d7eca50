"""Twins of `l0ref.ops.cross_entropy`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import ops
from ._compile import kernel
from ._registry import NotForKernel, check_arrays, packed, twin
from .elementary import exp

Array = NDArray[Any]


class CrossEntropyResiduals(NamedTuple):
    """The derivative at dloss = 1: the exponentials are there when the loss is."""

    dlogits: Array


@kernel
def loss_and_derivative(logits, labels, dlogits):  # type: ignore[no-untyped-def]
    """NaN for a label that is none."""
    n, k = logits.shape
    number = logits.dtype.type
    flat, places, loss = dlogits.reshape(-1), np.empty(n, np.int64), 0.0
    for row in range(n):
        a, d, label = logits[row], dlogits[row], labels[row]
        if label < 0 or label >= k:
            return np.nan
        at = 0
        for j in range(k):
            if a[j] > a[at]:
                at = j
        places[row] = at
        for j in range(k):
            d[j] = a[j] - a[at]
        loss -= d[label]
    for i in range(flat.shape[0]):
        flat[i] = exp(flat[i])
    for row in range(n):
        d, at, label = dlogits[row], places[row], labels[row]
        others = 0.0
        for j in range(k):
            if j != at:
                others += d[j]
        share = number(1.0 / ((1.0 + others) * n))
        rest = number(0)
        for j in range(k):
            d[j] *= share
            if j != label:
                rest += d[j]
        d[label] = -rest
        loss += math.log1p(others)
    return loss / n


@twin(ops.softmax_cross_entropy)
def softmax_cross_entropy(
    logits: Array, labels: ArrayLike
) -> tuple[np.floating[Any], CrossEntropyResiduals]:
    """Loss and derivative from the same exponentials."""
    check_arrays(logits)
    if type(labels) is not np.ndarray or labels.dtype != np.int64:
        raise NotForKernel
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise NotForKernel
    dlogits = np.empty(logits.shape, logits.dtype)
    loss = loss_and_derivative(packed(logits), packed(labels), dlogits)
    if not math.isfinite(loss):  # which of the logits are NaN or infinite is the original's matter
        raise NotForKernel
    return logits.dtype.type(loss), CrossEntropyResiduals(dlogits)


@twin(ops.softmax_cross_entropy_vjp)
def softmax_cross_entropy_vjp(dloss: float, residuals: Any) -> Array:
    """Scale what is there."""
    if not isinstance(residuals, CrossEntropyResiduals):
        raise NotForKernel
    dlogits: Array = residuals.dlogits * residuals.dlogits.dtype.type(dloss)
    return dlogits
