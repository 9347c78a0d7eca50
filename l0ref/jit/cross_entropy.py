"""Twins of `l0ref.ops.cross_entropy`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import ops
from ..ops.cross_entropy import check_labels
from ._compile import kernel
from ._registry import NotForKernel, check_arrays, packed, twin

Array = NDArray[Any]


class CrossEntropyResiduals(NamedTuple):
    """The derivative at dloss = 1: the exponentials are there when the loss is."""

    dlogits: Array


@kernel()
def _loss_and_derivative(logits, labels, dlogits):  # type: ignore[no-untyped-def]
    n, k = logits.shape
    loss = 0.0
    for row in range(n):
        a, d, label = logits[row], dlogits[row], labels[row]
        at = 0
        for j in range(k):
            if a[j] > a[at]:
                at = j
        greatest = a[at]
        others = 0.0
        for j in range(k):
            d[j] = math.exp(a[j] - greatest)
            if j != at:
                others += d[j]
        total = (1.0 + others) * n
        rest = 0.0
        for j in range(k):
            d[j] /= total
            if j != label:
                rest += d[j]
        d[label] = -rest
        loss += math.log1p(others) - (a[label] - greatest)
    return loss / n


@twin(ops.softmax_cross_entropy)
def softmax_cross_entropy(
    logits: Array, labels: ArrayLike
) -> tuple[np.floating[Any], CrossEntropyResiduals]:
    """Loss and derivative from the same exponentials."""
    check_arrays(logits)
    targets = check_labels(logits, labels)
    dlogits = np.empty(logits.shape, logits.dtype)
    loss = _loss_and_derivative(packed(logits), packed(targets), dlogits)
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
