r"""Matrix products inside kernels: of views too, and added to what is there.

Numba's own ``np.dot`` calls SciPy's BLAS for arrays in one piece, and writes the product anew. BLAS
can do more: each operand may be a view, of some rows or some columns or turned over, as long as one
of its axes has no gaps; and the product may be added to the result. Then no block of a matrix has
to be copied before it is multiplied.

A product of so few numbers that copying them first, in the order in which they are used, would not
pay, BLAS makes out of them as they lie: OpenBLAS does so up to `SMALL` multiplications where it has
AVX-512. A large product in such pieces is a third faster than in one. Other libraries lose little
by them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic, overload

__all__ = ["SMALL", "multiply"]

SMALL = 10**6
"""Multiplications of a product that OpenBLAS makes without copying its operands first."""

_FUNCTIONS = {types.float32: "sgemm", types.float64: "dgemm"}

# By this name compiled code finds BLAS, wherever in memory a process has it: so it can be kept.
for _name in _FUNCTIONS.values():
    binding.add_symbol(
        f"l0ref_{_name}", get_cython_function_address("scipy.linalg.cython_blas", _name)
    )


@intrinsic
def _gemm(typing, turn_a, turn_b, m, n, k, a, stride_a, b, stride_b, add, out, stride_out):  # type: ignore[no-untyped-def]
    """Call BLAS's gemm, which wants a pointer to everything: out = a b + (add ? out : 0).

    To BLAS, which counts columns first, a matrix of rows is its transpose; and out^T = b^T a^T.
    """
    number = out.dtype

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        of = dict(zip(_ARGUMENTS, zip(values, signature.args, strict=True), strict=True))

        def pointer(value):  # type: ignore[no-untyped-def]
            return builder.bitcast(cgutils.alloca_once_value(builder, value), _POINTER)

        def integer(name):  # type: ignore[no-untyped-def]
            return pointer(builder.trunc(of[name][0], ir.IntType(32)))

        def letter(name):  # type: ignore[no-untyped-def]
            byte = ir.IntType(8)
            return pointer(builder.select(of[name][0], byte(ord("T")), byte(ord("N"))))

        def data(name):  # type: ignore[no-untyped-def]
            value, kind = of[name]
            return builder.bitcast(context.make_array(kind)(context, builder, value).data, _POINTER)

        real = context.get_value_type(number)
        beta = builder.select(of["add"][0], real(1.0), real(0.0))
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [_POINTER] * 13),
            f"l0ref_{_FUNCTIONS[number]}",
        )
        builder.call(
            function,
            [
                letter("turn_b"), letter("turn_a"), integer("n"), integer("m"), integer("k"),
                pointer(real(1.0)), data("b"), integer("stride_b"), data("a"),
                integer("stride_a"), pointer(beta), data("out"), integer("stride_out"),
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    whole, yes = types.intp, types.boolean
    return types.void(yes, yes, whole, whole, whole, a, whole, b, whole, yes, out, whole), generate


_call: Any = _gemm  # as a kernel calls it: without the first argument, which is the compiler's
_POINTER = ir.IntType(8).as_pointer()
_ARGUMENTS = ("turn_a", "turn_b", "m", "n", "k", "a", "stride_a", "b", "stride_b", "add", "out",
              "stride_out")  # fmt: skip


def multiply(a: Any, b: Any, out: Any, add: bool) -> None:
    """out = a @ b, or out += a @ b where `add`, of matrices with an axis without gaps.

    Parameters
    ----------
    a : array, (M, K)
    b : array, (K, N)
    out : array, (M, N)
        In rows without gaps; none of it among a and b.
    add : bool
    """
    if add:
        out += a @ b
    else:
        out[...] = a @ b


@overload(multiply, jit_options={"error_model": "numpy"})
def _multiply_in_kernel(a, b, out, add):  # type: ignore[no-untyped-def]
    size = np.dtype(str(out.dtype)).itemsize

    def multiply(a, b, out, add):  # type: ignore[no-untyped-def]
        m, k = a.shape
        n = b.shape[1]
        turn_a = k > 1 and a.strides[1] != size
        turn_b = n > 1 and b.strides[1] != size
        # From one row, or column, to the next; where there is one alone, its stride says nothing.
        stride_a = (a.strides[1] if turn_a else a.strides[0] * (m > 1)) // size
        stride_b = (b.strides[1] if turn_b else b.strides[0] * (k > 1)) // size
        stride_a = max(stride_a, m if turn_a else k)
        stride_b = max(stride_b, k if turn_b else n)
        stride_out = max(out.strides[0] * (m > 1) // size, n)
        _call(turn_a, turn_b, m, n, k, a, stride_a, b, stride_b, add, out, stride_out)

    return multiply
