"""Many arrays for one kernel: as a table of where in memory their numbers are.

To hand an array over to compiled code takes Python a fraction of a microsecond, and of lists of
arrays Numba compiles a kernel anew for each length. A table of addresses is one array, however many
they are of. Nobody counts who uses them then: **whoever has the table keeps the arrays**, and has
seen to it that they are in one piece, of one dtype and of the length that the kernel takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

__all__ = ["addresses_of", "numbers_at"]

Array = NDArray[Any]


def addresses_of(arrays: Iterable[Array]) -> NDArray[np.uint64]:
    """Return where in memory each array begins."""
    return np.array([a.__array_interface__["data"][0] for a in arrays], np.uint64)


def numbers_at(address: Any, n: int, like: Array) -> Array:
    """Return the n numbers at an address, of the dtype of another array."""
    number = np.ctypeslib.as_ctypes_type(like.dtype)
    return np.ctypeslib.as_array((number * n).from_address(int(address)))


def _pointer_code(typing: Any, address: Any, like: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.uint64, like), emit


_pointer_at: Any = intrinsic(_pointer_code)


@overload(numbers_at)
def _numbers_at_in_kernel(address, n, like):  # type: ignore[no-untyped-def]
    return lambda address, n, like: carray(_pointer_at(address, like), (n,))
