"""Dropout, for comparison with gates: a gate that does not learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..concrete import as_noise

Array = NDArray[Any]


def dropout(x: Array, u: Array, rate: float) -> tuple[Array, Array]:
    """Set each element to 0 with probability `rate`, and scale the rest by 1 / (1 - rate).

    Parameters
    ----------
    x : array, any shape
    u : array, of x's shape
        Noise, uniform on (0, 1): an element is dropped where u < rate.
    rate : float
        Drop rate, in [0, 1).

    Returns
    -------
    y : array, of x's shape
    residuals : array
        The factor that each element met, 0 or 1 / (1 - rate).

    Raises
    ------
    ValueError
        If rate or u is out of range, or the shapes differ.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    noise = as_noise(u)
    if noise.shape != x.shape:
        raise ValueError(f"u must have the shape of x, {x.shape}, got {noise.shape}")
    factor = ((noise >= rate) / (1 - rate)).astype(x.dtype)
    return x * factor, factor


def dropout_vjp(dy: Array, residuals: Array) -> Array:
    """Pull dy back through `dropout`: it is linear, so dy meets the same factors."""
    return np.asarray(dy * residuals)
