r"""Vectors: as many numbers as a register of the processor holds, as one value in a kernel.

A compiler keeps a local variable in a register, but hardly ever an array, not even a short one.
Kernels that sum into many vectors at once therefore need vectors that are variables. In a kernel
`load` gives a value of a type of its own, which LLVM knows as a vector; in Python, an array:

=============================  =========================================================
``lanes(x)``                   how many numbers of x's dtype are a vector
``zeros(x)``                   a vector of zeros
``load(x, at)``                ``x[at : at + lanes(x)]``
``store(x, at, v)``            puts v there
``add_product(total, c, v)``   ``total + c * v``, rounded once where the processor does so
=============================  =========================================================

x is one-dimensional and contiguous. ``at`` is not checked, and does not count from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, models, overload, register_model

__all__ = ["add_product", "lanes", "load", "store", "zeros"]

BYTES = 64 if binding.get_host_cpu_features().get("avx512f") else 32
"""Of a vector. Longer than a register is right too: it then takes several."""

F32_LANES, F64_LANES = BYTES // 4, BYTES // 8


class Vector(types.Type):
    """Numba's type of a vector."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = F32_LANES if dtype == types.float32 else F64_LANES
        super().__init__(f"Vector({dtype}, {self.lanes})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """LLVM's type of a vector."""

    def __init__(self, manager: Any, of: Vector) -> None:
        number = ir.FloatType() if of.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, of, ir.VectorType(number, of.lanes))


# --- in Python ------------------------------------------------------------------------------------


def lanes(x: Any) -> int:
    """Return how many numbers of x's dtype are a vector."""
    return F32_LANES if x.dtype == np.float32 else F64_LANES


def zeros(x: Any) -> Any:
    """Return a vector of zeros."""
    return np.zeros(lanes(x), x.dtype)


def load(x: Any, at: Any) -> Any:
    """Read a vector."""
    return x[at : at + lanes(x)].copy()


def store(x: Any, at: Any, v: Any) -> None:
    """Write a vector."""
    x[at : at + len(v)] = v


def add_product(total: Any, factor: Any, v: Any) -> Any:
    """Add a number times a vector to a vector."""
    return total + factor * v


# --- in a kernel ----------------------------------------------------------------------------------


def _place(context: Any, builder: Any, x: Any, args: Any, vector: Any) -> Any:
    data = context.make_array(x)(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())


def _zeros_code(typing, x):  # type: ignore[no-untyped-def]
    of = Vector(x.dtype)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return ir.Constant(context.get_value_type(of), [0.0] * of.lanes)

    return of(x), generate


def _load_code(typing, x, at):  # type: ignore[no-untyped-def]
    of = Vector(x.dtype)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        v = builder.load(_place(context, builder, x, args, context.get_value_type(of)))
        v.align = x.dtype.bitwidth // 8  # that of a number: a vector begins at any
        return v

    return of(x, types.uintp), generate


def _store_code(typing, x, at, v):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = _place(context, builder, x, args, args[2].type)
        builder.store(args[2], place).align = x.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(x, types.uintp, v), generate


def _add_product_code(typing, total, factor, v):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        before, number, vector = args
        nothing, whole = ir.Constant(vector.type, ir.Undefined), ir.IntType(32)
        first = builder.insert_element(nothing, number, ir.Constant(whole, 0))
        places = ir.Constant(ir.VectorType(whole, total.lanes), [0] * total.lanes)
        everywhere = builder.shuffle_vector(first, nothing, places)
        product = builder.fmul(everywhere, vector, flags=["contract"])
        return builder.fadd(before, product, flags=["contract"])

    return total(total, total.dtype, total), generate


_zeros: Any = intrinsic(_zeros_code)
_load: Any = intrinsic(_load_code)
_store: Any = intrinsic(_store_code)
_add_product: Any = intrinsic(_add_product_code)


@overload(lanes)
def _lanes_in_kernel(x):  # type: ignore[no-untyped-def]
    if x.dtype == types.float32:
        return lambda x: F32_LANES
    return lambda x: F64_LANES


@overload(zeros)
def _zeros_in_kernel(x):  # type: ignore[no-untyped-def]
    return lambda x: _zeros(x)  # noqa: PLW0108


@overload(load)
def _load_in_kernel(x, at):  # type: ignore[no-untyped-def]
    return lambda x, at: _load(x, at)  # noqa: PLW0108


@overload(store)
def _store_in_kernel(x, at, v):  # type: ignore[no-untyped-def]
    return lambda x, at, v: _store(x, at, v)  # noqa: PLW0108


@overload(add_product)
def _add_product_in_kernel(total, factor, v):  # type: ignore[no-untyped-def]
    return lambda total, factor, v: _add_product(total, factor, v)  # noqa: PLW0108
