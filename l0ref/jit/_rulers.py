"""What the machine can do at best, on all threads: for `l0ref.bench` to hold kernels against."""

from __future__ import annotations

import numpy as np

from ._compile import inline, parallel, prange
from ._vectors import add, add_products, lanes, load, store, zeros
from .optimizers import NEAR

TERMS = 2**14
"""Terms of each sum of a turn."""

SUMS = 12
"""Vectors that are summed at a time: more than a processor has multiply-adds under way."""


@parallel
def multiply_and_add(factors, out):  # type: ignore[no-untyped-def]
    """Sum products in registers, nothing else: a turn for each vector of `out`.

    `factors` are two vectors. A turn is `SUMS` times `TERMS` multiply-adds of a vector.
    """
    width = lanes(factors)
    for turn in prange(out.shape[0] // width):
        a, b = load(factors, np.uint64(0)), load(factors, np.uint64(width))
        t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = t8 = t9 = t10 = t11 = zeros(factors)
        for _ in range(TERMS):
            t0, t1, t2 = add_products(t0, a, b), add_products(t1, a, b), add_products(t2, a, b)
            t3, t4, t5 = add_products(t3, a, b), add_products(t4, a, b), add_products(t5, a, b)
            t6, t7, t8 = add_products(t6, a, b), add_products(t7, a, b), add_products(t8, a, b)
            t9, t10 = add_products(t9, a, b), add_products(t10, a, b)
            t11 = add_products(t11, a, b)
        first = add(add(add(t0, t1), add(t2, t3)), add(add(t4, t5), add(t6, t7)))
        store(out, np.uint64(turn * width), add(first, add(add(t8, t9), add(t10, t11))))


@inline
def _touch(grad, theta, m, v, average):  # type: ignore[no-untyped-def]
    for i in range(theta.shape[0]):
        m[i] += grad[i]
        v[i] += grad[i]
    for i in range(theta.shape[0]):
        theta[i] += m[i] + v[i]
    for i in range(theta.shape[0]):
        average[i] += theta[i]


@parallel
def go_over(grad, theta, m, v, average):  # type: ignore[no-untyped-def]
    """Read the gradients, and read and write what Adam and the average keep, once."""
    size = theta.shape[0]
    for turn in prange((size + NEAR - 1) // NEAR):
        here = slice(turn * NEAR, min(size, (turn + 1) * NEAR))
        _touch(grad[here], theta[here], m[here], v[here], average[here])
