"""Some rows and columns of an array, side by side: what is left when the others are closed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.intp]


class PackResiduals(NamedTuple):
    """What `pack_vjp` needs of the forward pass."""

    shape: tuple[int, ...]
    rows: Index | None
    columns: Index | None


def pack(x: Array, rows: Index | None, columns: Index | None) -> tuple[Array, PackResiduals]:
    r"""Take rows and columns, :math:`y_{ij\ldots} = x_{r_i c_j\ldots}`.

    Parameters
    ----------
    x : array, (R, C, ...)
    rows, columns : array of int or None
        Positions along the first and the second axis, in the order wanted, each at most once. None
        stands for all of them.

    Returns
    -------
    y : array, (len(rows), len(columns), ...)
    residuals : PackResiduals

    Examples
    --------
    >>> pack(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), None, np.array([2, 0]))[0]
    array([[3., 1.],
           [6., 4.]])
    """
    y = x if rows is None else x[rows]
    y = y if columns is None else y[:, columns]
    return y, PackResiduals(x.shape, rows, columns)


def pack_vjp(dy: Array, residuals: PackResiduals) -> Array:
    """Put dy back in its places, and exact zeros elsewhere.

    Parameters
    ----------
    dy : array, (len(rows), len(columns), ...)
    residuals : PackResiduals

    Returns
    -------
    dx : array, (R, C, ...)
    """
    shape, rows, columns = residuals
    dx = np.zeros(shape, dy.dtype)
    if rows is None and columns is None:
        dx[...] = dy
    elif columns is None:
        dx[rows] = dy
    elif rows is None:
        dx[:, columns] = dy
    else:
        dx[rows[:, None], columns] = dy
    return dx
