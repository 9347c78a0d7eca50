"""What the machine does at best, on all threads: its peak, and a pass over memory."""

from __future__ import annotations

import numpy as np

from ._compile import inline, parallel, share_out
from ._vectors import add, add_products, lanes, load, store, zeros
from .optimizers import NEAR

STEPS = 2**14
"""Multiply-adds of a turn one after the other, of `CHAINS` vectors."""

CHAINS = 12
"""Vectors side by side: more multiply-adds than an x86 processor has under way."""


@inline
def _multiply_and_add_some(turn, numbers, out):  # type: ignore[no-untyped-def]
    width = lanes(numbers)
    a, b = load(numbers, np.uint64(0)), load(numbers, np.uint64(width))
    x0 = x1 = x2 = x3 = x4 = x5 = x6 = x7 = x8 = x9 = x10 = x11 = zeros(numbers)
    for _ in range(STEPS):
        x0, x1, x2 = add_products(b, a, x0), add_products(b, a, x1), add_products(b, a, x2)
        x3, x4, x5 = add_products(b, a, x3), add_products(b, a, x4), add_products(b, a, x5)
        x6, x7, x8 = add_products(b, a, x6), add_products(b, a, x7), add_products(b, a, x8)
        x9, x10 = add_products(b, a, x9), add_products(b, a, x10)
        x11 = add_products(b, a, x11)
    first = add(add(add(x0, x1), add(x2, x3)), add(add(x4, x5), add(x6, x7)))
    store(out, np.uint64(turn * width), add(first, add(add(x8, x9), add(x10, x11))))


@parallel
def multiply_and_add(many, numbers, out):  # type: ignore[no-untyped-def]
    """Let x be a x + b, over and over, in registers: a turn for each vector of `out`.

    `numbers` are a vector of a and one of b.
    """
    share_out(many, _multiply_and_add_some, out.shape[0] // lanes(numbers), (numbers, out))


@inline
def _touch(grad, theta, m, v, average):  # type: ignore[no-untyped-def]
    for i in range(theta.shape[0]):
        m[i] += grad[i]
        v[i] += grad[i]
    for i in range(theta.shape[0]):
        theta[i] += m[i] + v[i]
    for i in range(theta.shape[0]):
        average[i] += theta[i]


@inline
def _stream_some(turn, grad, theta, m, v, average):  # type: ignore[no-untyped-def]
    here = slice(turn * NEAR, min(theta.shape[0], (turn + 1) * NEAR))
    _touch(grad[here], theta[here], m[here], v[here], average[here])


@parallel
def stream(many, grad, theta, m, v, average):  # type: ignore[no-untyped-def]
    """Read the gradients, and read and write what Adam and the average keep, once."""
    turns = (theta.shape[0] + NEAR - 1) // NEAR
    share_out(many, _stream_some, turns, (grad, theta, m, v, average))
