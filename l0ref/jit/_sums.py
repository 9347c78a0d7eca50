"""Sums in an order that is written here.

A compiler that may add in any order chooses one anew wherever it puts a function, and may choose
another when the code comes from disk. Then a run that was broken off and taken up again ends in
other last digits than one that was not. So kernels allow no other order than their own, and long
sums come here: many at once, side by side in four vectors of float64, then these in pairs. (`dot`
has vectors of its arguments' precision.)

Arrays are contiguous, and have one dimension.
"""

from __future__ import annotations

import numpy as np

from ._compile import inline
from ._vectors import (
    F64_LANES,
    add,
    add_products,
    in_pairs,
    lanes,
    load,
    spread,
    widened,
    zeros,
)

__all__ = ["add_up", "add_up_squares", "dot", "inner"]

_STEP = np.uint64(F64_LANES)


@inline
def add_up(values):  # type: ignore[no-untyped-def]
    """Sum the values."""
    at, vectors = np.uint64(0), values.shape[0] // F64_LANES
    t0 = t1 = t2 = t3 = spread(0.0)
    for _ in range(vectors // 4):
        at_1, at_2, at_3 = at + _STEP, at + _STEP + _STEP, at + _STEP + _STEP + _STEP
        t0, t1 = add(t0, widened(values, at)), add(t1, widened(values, at_1))
        t2, t3 = add(t2, widened(values, at_2)), add(t3, widened(values, at_3))
        at = at_3 + _STEP
    for _ in range(vectors % 4):
        t0 = add(t0, widened(values, at))
        at += _STEP
    total = in_pairs(add(add(t0, t1), add(t2, t3)))
    for i in range(vectors * F64_LANES, values.shape[0]):
        total += np.float64(values[i])
    return total


@inline
def add_up_squares(values, mean):  # type: ignore[no-untyped-def]
    """Sum the squares of what the values are above the mean."""
    at, vectors, below = np.uint64(0), values.shape[0] // F64_LANES, spread(-mean)
    t0 = t1 = t2 = t3 = spread(0.0)
    for _ in range(vectors // 4):
        at_1, at_2, at_3 = at + _STEP, at + _STEP + _STEP, at + _STEP + _STEP + _STEP
        v0, v1 = add(below, widened(values, at)), add(below, widened(values, at_1))
        v2, v3 = add(below, widened(values, at_2)), add(below, widened(values, at_3))
        t0, t1 = add_products(t0, v0, v0), add_products(t1, v1, v1)
        t2, t3 = add_products(t2, v2, v2), add_products(t3, v3, v3)
        at = at_3 + _STEP
    for _ in range(vectors % 4):
        v0 = add(below, widened(values, at))
        t0 = add_products(t0, v0, v0)
        at += _STEP
    total = in_pairs(add(add(t0, t1), add(t2, t3)))
    for i in range(vectors * F64_LANES, values.shape[0]):
        deviation = np.float64(values[i]) - mean
        total += deviation * deviation
    return total


@inline
def inner(a, b):  # type: ignore[no-untyped-def]
    """Sum the products of the values of two arrays of the same size."""
    at, vectors = np.uint64(0), a.shape[0] // F64_LANES
    t0 = t1 = t2 = t3 = spread(0.0)
    for _ in range(vectors // 4):
        at_1, at_2, at_3 = at + _STEP, at + _STEP + _STEP, at + _STEP + _STEP + _STEP
        t0 = add_products(t0, widened(a, at), widened(b, at))
        t1 = add_products(t1, widened(a, at_1), widened(b, at_1))
        t2 = add_products(t2, widened(a, at_2), widened(b, at_2))
        t3 = add_products(t3, widened(a, at_3), widened(b, at_3))
        at = at_3 + _STEP
    for _ in range(vectors % 4):
        t0 = add_products(t0, widened(a, at), widened(b, at))
        at += _STEP
    total = in_pairs(add(add(t0, t1), add(t2, t3)))
    for i in range(vectors * F64_LANES, a.shape[0]):
        total += np.float64(a[i]) * np.float64(b[i])
    return total


@inline
def dot(a, b):  # type: ignore[no-untyped-def]
    """Sum the products in their own precision, as a matrix product does."""
    at, step = np.uint64(0), np.uint64(lanes(a))
    vectors = a.shape[0] // lanes(a)
    t0 = t1 = t2 = t3 = zeros(a)
    for _ in range(vectors // 4):
        at_1, at_2, at_3 = at + step, at + step + step, at + step + step + step
        t0 = add_products(t0, load(a, at), load(b, at))
        t1 = add_products(t1, load(a, at_1), load(b, at_1))
        t2 = add_products(t2, load(a, at_2), load(b, at_2))
        t3 = add_products(t3, load(a, at_3), load(b, at_3))
        at = at_3 + step
    for _ in range(vectors % 4):
        t0 = add_products(t0, load(a, at), load(b, at))
        at += step
    total = in_pairs(add(add(t0, t1), add(t2, t3)))
    for i in range(vectors * lanes(a), a.shape[0]):
        total += a[i] * b[i]
    return total
