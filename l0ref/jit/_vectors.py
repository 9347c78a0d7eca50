r"""Vectors: as many numbers as a register of the processor holds, as one value in a kernel.

A compiler keeps a local variable in a register, but hardly ever an array, not even a short one.
Kernels that sum into many vectors at once therefore need vectors that are variables. In a kernel
`load` gives a value of a type of its own, which LLVM knows as a vector; in Python, an array:

=============================  =========================================================
``lanes(x)``                   how many numbers of x's dtype are a vector
``zeros(x)``                   a vector of zeros
``load(x, at)``                ``x[at : at + lanes(x)]``
``store(x, at, v)``            puts v there
``add(total, v)``              ``total + v``
``add_product(total, c, v)``   ``total + c * v``, rounded once where the processor does so
``add_products(total, v, w)``  ``total + v * w``, likewise
``in_pairs(v)``                the sum of v: of halves, of quarters, and so on
``spread(number)``             a vector of float64 of this number
``widened(x, at)``             ``load`` as float64, of as many as one has; x may be of integers
``in_whole_registers()``       asks the compiler for vectors of full length in ordinary loops
=============================  =========================================================

x is one-dimensional and contiguous. ``at`` is not checked, and does not count from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    "F64_LANES",
    "add",
    "add_product",
    "add_products",
    "ask_for_whole_registers",
    "in_pairs",
    "in_whole_registers",
    "lanes",
    "load",
    "spread",
    "store",
    "widened",
    "zeros",
]

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


def add(total: Any, v: Any) -> Any:
    """Add a vector to a vector."""
    return total + v


def add_product(total: Any, factor: Any, v: Any) -> Any:
    """Add a number times a vector to a vector."""
    return total + factor * v


def add_products(total: Any, v: Any, w: Any) -> Any:
    """Add the products of two vectors to a vector."""
    return total + v * w


def in_pairs(v: Any) -> Any:
    """Add up the numbers of a vector: its first half to its second, and so on."""
    while len(v) > 1:
        v = v[: len(v) // 2] + v[len(v) // 2 :]
    return v[0]


def spread(number: Any) -> Any:
    """Return a vector of float64, all of which are this number."""
    return np.full(F64_LANES, number, np.float64)


def widened(x: Any, at: Any) -> Any:
    """Read a vector of float64."""
    return x[at : at + F64_LANES].astype(np.float64)


def in_whole_registers() -> None:
    """Have the loops of this function run on vectors of `BYTES`, if they run on vectors at all.

    Of many processors with registers of 512 bits LLVM by itself uses a half, as the first of them
    ran slower while the whole was in use. For loops of many operations a number the whole is faster
    even there: gates and their noise 1.6 times. It is said in a function that has such a loop, and
    holds for that function alone.
    """


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


def _add_code(typing, total, v):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fadd(*args)

    return total(total, total), generate


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


def _add_products_code(typing, total, v, w):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        before, one, other = args
        product = builder.fmul(one, other, flags=["contract"])
        return builder.fadd(before, product, flags=["contract"])

    return total(total, total, total), generate


def _in_pairs_code(typing, v):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        (sums,), half, whole = args, v.lanes // 2, ir.IntType(32)
        while half:
            nothing, counts = ir.Constant(sums.type, ir.Undefined), ir.VectorType(whole, half)
            first, second = (
                builder.shuffle_vector(sums, nothing, ir.Constant(counts, list(places)))
                for places in (range(half), range(half, 2 * half))
            )
            sums, half = builder.fadd(first, second), half // 2
        return builder.extract_element(sums, ir.Constant(whole, 0))

    return v.dtype(v), generate


def _spread_code(typing, number):  # type: ignore[no-untyped-def]
    of = Vector(types.float64)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        whole = ir.IntType(32)
        nothing = ir.Constant(context.get_value_type(of), ir.Undefined)
        first = builder.insert_element(nothing, args[0], ir.Constant(whole, 0))
        places = ir.Constant(ir.VectorType(whole, of.lanes), [0] * of.lanes)
        return builder.shuffle_vector(first, nothing, places)

    return of(types.float64), generate


def _widened_code(typing, x, at):  # type: ignore[no-untyped-def]
    of = Vector(types.float64)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        wide = context.get_value_type(of)
        narrow = ir.VectorType(context.get_value_type(x.dtype), of.lanes)
        v = builder.load(_place(context, builder, x, args, narrow))
        v.align = x.dtype.bitwidth // 8
        if x.dtype == types.float64:
            return v
        convert = builder.sitofp if isinstance(x.dtype, types.Integer) else builder.fpext
        return convert(v, wide)

    return of(x, types.uintp), generate


def ask_for_whole_registers(function: Any) -> None:
    """Note in LLVM's function that its loops want them."""
    # llvmlite's `add` knows attributes without a value alone; it writes out any.
    set.add(function.attributes, f'"prefer-vector-width"="{8 * BYTES}"')


def _in_whole_registers_code(typing):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        ask_for_whole_registers(builder.function)
        return context.get_dummy_value()

    return types.none(), generate


_zeros: Any = intrinsic(_zeros_code)
_load: Any = intrinsic(_load_code)
_store: Any = intrinsic(_store_code)
_add: Any = intrinsic(_add_code)
_add_product: Any = intrinsic(_add_product_code)
_add_products: Any = intrinsic(_add_products_code)
_in_pairs: Any = intrinsic(_in_pairs_code)
_spread: Any = intrinsic(_spread_code)
_widened: Any = intrinsic(_widened_code)
_in_whole_registers: Any = intrinsic(_in_whole_registers_code)


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


@overload(add)
def _add_in_kernel(total, v):  # type: ignore[no-untyped-def]
    return lambda total, v: _add(total, v)  # noqa: PLW0108


@overload(add_product)
def _add_product_in_kernel(total, factor, v):  # type: ignore[no-untyped-def]
    return lambda total, factor, v: _add_product(total, factor, v)  # noqa: PLW0108


@overload(add_products)
def _add_products_in_kernel(total, v, w):  # type: ignore[no-untyped-def]
    return lambda total, v, w: _add_products(total, v, w)  # noqa: PLW0108


@overload(in_pairs)
def _in_pairs_in_kernel(v):  # type: ignore[no-untyped-def]
    return lambda v: _in_pairs(v)  # noqa: PLW0108


@overload(spread)
def _spread_in_kernel(number):  # type: ignore[no-untyped-def]
    return lambda number: _spread(number)  # noqa: PLW0108


@overload(widened)
def _widened_in_kernel(x, at):  # type: ignore[no-untyped-def]
    return lambda x, at: _widened(x, at)  # noqa: PLW0108


@overload(in_whole_registers, inline="always")  # into the function that it is said in
def _in_whole_registers_in_kernel():  # type: ignore[no-untyped-def]
    return lambda: _in_whole_registers()  # noqa: PLW0108
