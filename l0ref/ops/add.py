"""The sum of two arrays: where a residual connection meets the path that it skips."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .conv import check_cotangent

Array = NDArray[Any]


def add(x: Array, y: Array) -> tuple[Array, tuple[int, ...]]:
    """x + y, of one shape.

    Parameters
    ----------
    x : array, any shape
        What comes out of a block.
    y : array, of x's shape
        What went into it, and skips it.

    Returns
    -------
    total : array, of x's shape
    residuals : tuple of int
        That shape.

    Raises
    ------
    ValueError
        If the shapes differ: nothing is broadcast.
    """
    if x.shape != y.shape:
        raise ValueError(f"y must have the shape of x, {x.shape}, got {y.shape}")
    return np.asarray(x + y), x.shape


def add_vjp(dy: Array, residuals: tuple[int, ...]) -> tuple[Array, Array]:
    """Pull dy, the derivative with respect to the sum, back through `add`: both get all of it.

    Parameters
    ----------
    dy : array, of x's shape
    residuals : tuple of int

    Returns
    -------
    dx, dy_skip : arrays, of x's shape
        With respect to x and to y: two copies, so that one may be changed without the other.

    Raises
    ------
    ValueError
        If dy does not have the shape of the sum.
    """
    check_cotangent(dy, residuals)
    return dy.copy(), dy.copy()
