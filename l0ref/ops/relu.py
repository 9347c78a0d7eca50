"""The rectifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def relu(x: Array) -> tuple[Array, Array]:
    """max(x, 0), elementwise; NaN stays NaN.

    Parameters
    ----------
    x : array, any shape

    Returns
    -------
    y : array, of x's shape
    residuals : array of bool
        Where x > 0.
    """
    return np.maximum(x, 0), x > 0


def relu_vjp(dy: Array, residuals: Array) -> Array:
    """Pull dy back through `relu`: dy where x > 0, else 0. At x = 0 itself, 0 is a convention."""
    return dy * residuals
