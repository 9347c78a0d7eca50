"""Softmax and the negative log-likelihood of the labels, as one op."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


class CrossEntropyResiduals(NamedTuple):
    """What `softmax_cross_entropy_vjp` needs of the forward pass."""

    shifted: Array  # logits minus their maximum, (N, K)
    labels: NDArray[np.int64]


def softmax_cross_entropy(
    logits: Array, labels: ArrayLike
) -> tuple[np.floating[Any], CrossEntropyResiduals]:
    r"""Mean negative log-likelihood of the labels, in nats an example.

    .. math:: L = \frac1N \sum_n \Big(\log\sum_k e^{a_{nk}} - a_{n y_n}\Big)

    The maximum of each row is taken off first: it leaves L as it is, and no exponential overflows.
    Its own term is then the 1 of a log1p, so that a confident prediction's small loss keeps its
    digits.

    Parameters
    ----------
    logits : array, (N, K)
    labels : array_like of int, (N,)
        Each in 0 .. K-1.

    Returns
    -------
    loss : floating scalar, of the dtype of logits
    residuals : CrossEntropyResiduals

    Raises
    ------
    ValueError
        If the shapes do not fit, there is no example, or a label is out of range.

    Examples
    --------
    >>> loss, _ = softmax_cross_entropy(np.array([[0.0, 0.0]]), [1])
    >>> round(float(loss), 6)
    0.693147
    """
    targets = check_labels(logits, labels)
    shifted = logits - logits.max(axis=1, keepdims=True)
    rows = np.arange(len(targets))
    others = np.exp(shifted)
    others[rows, shifted.argmax(axis=1)] = 0
    log_sum = np.log1p(others.sum(axis=1))
    picked = shifted[rows, targets]
    return (log_sum - picked).mean(), CrossEntropyResiduals(shifted, targets)


def softmax_cross_entropy_vjp(dloss: float, residuals: CrossEntropyResiduals) -> Array:
    r"""Pull dloss back to the logits.

    .. math:: \frac{\partial L}{\partial a_{nk}} = \frac{p_{nk} - [k = y_n]}{N}, \quad
              p_{nk} = \frac{e^{a_{nk}}}{\sum_j e^{a_{nj}}}

    At the label's own place p - 1 is taken as minus the sum of the others, so that a confident
    prediction's small gradient keeps its digits.

    Parameters
    ----------
    dloss : float
    residuals : CrossEntropyResiduals

    Returns
    -------
    dlogits : array, (N, K)
    """
    shifted, labels = residuals
    rows = np.arange(len(labels))
    p = np.exp(shifted)
    p /= p.sum(axis=1, keepdims=True)
    p[rows, labels] = 0
    p[rows, labels] = -p.sum(axis=1)
    p *= dloss / len(labels)
    return p


def check_labels(logits: Array, labels: ArrayLike) -> NDArray[np.int64]:
    """Return the labels as integers; refuse those that do not fit the logits."""
    if logits.ndim != 2 or logits.shape[0] == 0:
        raise ValueError(f"logits must have shape (N, K) with N > 0, got {logits.shape}")
    given = np.asarray(labels)
    if given.shape != logits.shape[:1]:
        raise ValueError(f"labels must have shape {logits.shape[:1]}, got {given.shape}")
    if given.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, got dtype {given.dtype}")
    bad = (given < 0) | (given >= logits.shape[1])
    if bad.any():
        raise ValueError(f"labels must be in 0 .. {logits.shape[1] - 1}, got {given[bad][0]}")
    return given.astype(np.int64, copy=False)
