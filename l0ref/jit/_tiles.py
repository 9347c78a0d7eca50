r"""Sums of products that stay in vector registers: what a convolution does all day.

A loop over an array loads, adds and stores each number for every term of its sum. Here a tile of a
few vectors is held in registers while all terms are added, and stored once, which is several times
faster. Compilers do not find that way by themselves, and as Python a tile of 20 vectors would be
written out 20 times; so a few lines here write it in LLVM's language. What the functions mean
stands before that in Python, and that is what runs where Numba is disabled.

A lane of a vector is a sum of its own, over its terms in their order: the result does not depend
on how long vectors are.

Arrays come as pointers, which nobody counts: Numba keeps count of who uses an array, for each piece
of it that a loop takes, and that would cost more than the loop. So **a function that makes a
pointer must have been given the array**: then its caller holds it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

from ._vectors import BYTES

__all__ = ["FEW", "MANY", "MAPS", "PHASES", "add_few", "add_many", "multiply", "onward", "pointer"]

PHASES = 4
"""Vectors of a tile of `multiply`, for each of its rows."""

MAPS = 5 if BYTES == 64 else 3
"""Rows of a tile of `multiply`: there are 32 registers of 64 bytes, 16 of 32."""

FEW, MANY = 6, 12
"""Vectors that `add_few` and `add_many` hold."""


# --- in Python ------------------------------------------------------------------------------------


def _pointer_in_python(array: Any, first: int) -> Any:
    """Return the numbers of a C-contiguous array, from one on."""
    return array.reshape(-1)[first:]


def _onward_in_python(pointer: Any, by: int) -> Any:
    """Move a pointer on."""
    return pointer[by:]


def _multiply_in_python(
    weights: Any, n: int, values: Any, table: Any, out: Any, stride: int
) -> None:
    """Sum weights[k, m] times the vector of values at table[k, q] over k < n.

    For `MAPS` m and `PHASES` q, side by side in their tables; the sums are put `stride` apart.
    """
    lanes = BYTES // values.itemsize
    for m in range(MAPS):
        for q in range(PHASES):
            total = np.zeros(lanes, out.dtype)
            for k in range(n):
                total += weights[k * MAPS + m] * values[table[k * PHASES + q] :][:lanes]
            out[(m * PHASES + q) * stride :][:lanes] = total


def _add_in_python(rows: int) -> Callable[..., None]:
    def add(weights: Any, at: Any, n: int, values: Any, shifts: Any, out: Any, places: Any) -> None:
        """Sum weights[k] times the vector of values at at[k] + shifts[q] over k < n.

        Added to what is in out at places[q].
        """
        lanes = BYTES // values.itemsize
        for q in range(rows):
            total = np.zeros(lanes, out.dtype)
            for k in range(n):
                total += weights[k] * values[at[k] + shifts[q] :][:lanes]
            out[places[q] :][:lanes] += total

    return add


# --- in LLVM's language ---------------------------------------------------------------------------

INDEX = ir.IntType(64)


@intrinsic
def _pointer(typing: Any, array: Any, first: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), emit


@intrinsic
def _onward(typing: Any, pointer: Any, by: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), emit


def _read(builder: Any, pointer: Any, *index: Any) -> Any:
    """Read a number; whole numbers as indices."""
    number = builder.load(_to(builder, pointer, *index))
    return builder.sext(number, INDEX) if isinstance(number.type, ir.IntType) else number


def _to(builder: Any, pointer: Any, *index: Any) -> Any:
    """Move a pointer on by the sum of what is given."""
    for one in index:
        pointer = builder.gep(pointer, [one if isinstance(one, ir.Value) else INDEX(one)])
    return pointer


def _vector(number: Any) -> Any:
    """Vector of a kind of numbers, and the bytes of one of these."""
    size = 4 if number == ir.FloatType() else 8
    return ir.VectorType(number, BYTES // size), size


def _load(builder: Any, pointer: Any, number: Any) -> Any:
    kind, size = _vector(number)
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=size)


def _store(builder: Any, value: Any, pointer: Any, number: Any) -> None:
    kind, size = _vector(number)
    builder.store(value, builder.bitcast(pointer, kind.as_pointer()), align=size)


def _sums(
    builder: Any, n: Any, shape: tuple[int, int], number: Any, weight: Any, place: Any
) -> Any:
    """Sum weight(k, m) times the vector at place(k, q) over k < n, for all m and q at once."""
    kind, _ = _vector(number)
    zero, word = ir.Constant(kind, [0.0] * kind.count), ir.IntType(32)
    everywhere = ir.Constant(ir.VectorType(word, kind.count), [0] * kind.count)
    sums = [[cgutils.alloca_once(builder, kind) for _ in range(shape[1])] for _ in range(shape[0])]
    for one in (one for row in sums for one in row):
        builder.store(zero, one)
    with cgutils.for_range(builder, n) as loop:
        factors = []
        for m in range(shape[0]):
            first = builder.insert_element(zero, weight(loop.index, m), word(0))
            factors.append(builder.shuffle_vector(first, zero, everywhere))
        for q in range(shape[1]):
            values = _load(builder, place(loop.index, q), number)
            for m, factor in enumerate(factors):
                term = builder.fmul(factor, values, flags=("contract",))
                total = builder.fadd(builder.load(sums[m][q]), term, flags=("contract",))
                builder.store(total, sums[m][q])
    return [[builder.load(one) for one in row] for row in sums]


@intrinsic
def _multiply(
    typing: Any, weights: Any, n: Any, values: Any, table: Any, out: Any, stride: Any
) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w, n, v, t, o, stride = args
        number = context.get_value_type(signature.args[0].dtype)
        sums = _sums(
            builder, n, (MAPS, PHASES), number,
            lambda k, m: _read(builder, w, builder.mul(k, INDEX(MAPS)), m),
            lambda k, q: _to(builder, v, _read(builder, t, builder.mul(k, INDEX(PHASES)), q)),
        )  # fmt: skip
        for i, one in enumerate(one for row in sums for one in row):
            _store(builder, one, _to(builder, o, builder.mul(INDEX(i), stride)), number)
        return context.get_dummy_value()

    return types.void(weights, types.intp, values, table, out, types.intp), emit


def _adding(rows: int) -> Any:
    @intrinsic
    def add(
        typing: Any, weights: Any, at: Any, n: Any, values: Any, shifts: Any, out: Any, places: Any
    ) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w, a, n, v, s, o, p = args
            number = context.get_value_type(signature.args[0].dtype)
            shift = [_read(builder, s, q) for q in range(rows)]
            (sums,) = _sums(
                builder, n, (1, rows), number, lambda k, m: _read(builder, w, k),
                lambda k, q: _to(builder, v, _read(builder, a, k), shift[q]),
            )  # fmt: skip
            for q, one in enumerate(sums):
                target = _to(builder, o, _read(builder, p, q))
                _store(builder, builder.fadd(_load(builder, target, number), one), target, number)
            return context.get_dummy_value()

        kinds = (weights, at, types.intp, values, shifts, out, places)
        return types.void(*kinds), emit

    return add


pointer: Any
onward: Any
multiply: Any
if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    pointer, onward, multiply = _pointer_in_python, _onward_in_python, _multiply_in_python
    add_few, add_many = _add_in_python(FEW), _add_in_python(MANY)
else:
    pointer, onward, multiply = _pointer, _onward, _multiply
    add_few, add_many = _adding(FEW), _adding(MANY)
