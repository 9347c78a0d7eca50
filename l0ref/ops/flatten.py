"""From maps to units: what stands between the convolutions and the dense layers."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .conv import check_cotangent

Array = NDArray[Any]


def flatten(x: Array) -> tuple[Array, tuple[int, ...]]:
    """Lay the maps of each example end to end: (N, C, H, W) -> (N, C H W).

    Map after map, each row after row: unit j is in map j // (H W), at row (j // W) % H and column
    j % W. So all H W units of a map that is switched off lie side by side.

    Parameters
    ----------
    x : array, (N, C, H, W)

    Returns
    -------
    y : array, (N, C H W)
        A view of x where its memory allows.
    residuals : tuple of int
        The shape of x.

    Raises
    ------
    ValueError
        If x is not of four axes.
    """
    if x.ndim != 4:
        raise ValueError(f"x must have shape (N, C, H, W), got {x.shape}")
    n, c, h, w = x.shape
    return x.reshape(n, c * h * w), x.shape


def flatten_vjp(dy: Array, residuals: tuple[int, ...]) -> Array:
    """Pull dy back through `flatten`: the same numbers, in the shape of x.

    Parameters
    ----------
    dy : array, (N, C H W)
    residuals : tuple of int

    Returns
    -------
    dx : array, (N, C, H, W)

    Raises
    ------
    ValueError
        If dy does not have the shape of y.
    """
    n, c, h, w = residuals
    check_cotangent(dy, (n, c * h * w))
    return dy.reshape(residuals)
