"""Positions of rows and columns, as kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._compile import kernel
from ._registry import NotForKernel

Index = NDArray[np.intp]

ALL = np.empty(0, np.intp)
"""Stands for all of them, in order."""


@kernel
def inside(rows, n_rows, columns, n_columns):  # type: ignore[no-untyped-def]
    """Whether every position is one, and none counts from the end."""
    good = True
    for i in range(rows.size):
        good &= 0 <= rows[i] < n_rows
    for i in range(columns.size):
        good &= 0 <= columns[i] < n_columns
    return good


def places_of(index: Any) -> Index:
    """Return the positions of an index that has some; `ALL` for None."""
    if index is None:
        return ALL
    if type(index) is not np.ndarray or index.ndim != 1 or index.dtype.kind not in "iu":
        raise NotForKernel
    if not index.size:
        raise NotForKernel
    return np.ascontiguousarray(index, dtype=np.intp)
