r"""Twins of `l0ref.ops.matmul`: a blocked matrix product that gathers as it packs.

Written plainly, :math:`y_{ij} = \sum_k a_{ik} b_{kj}` reads two numbers for each multiplication. A
core multiplies 32 pairs in the time in which it reads 32 numbers that lie side by side in its
fastest cache, and waits a hundred times as long for one from memory. So each number that is read
must be used many times before it is dropped, on each level of memory:

* **Registers**: a *tile* of y, six rows and two vectors wide, stays in 12 registers while k goes
  from end to end (`_tile`). For each k, two vectors of b and six numbers of a are read and
  multiplied with one another: 12 multiplications of vectors for 8 reads. The sums meet memory once,
  at the end. There must be several of them for another reason too: a sum can be added to again
  only after 4 cycles, in each of which a core can begin two.
* **First cache** (32 to 48 kB): the *panel* of b, all k by the width of a tile, or 512 k at a time.
  Each strip of six rows of y goes over the whole panel again, so that it comes from further away
  once, and from near as often as there are strips.
* **Second cache** (1 MB): a. It is read once for each panel, six numbers at a time.

The panel is not as b is in memory. There two rows are as far apart as b is wide, which caches bear
badly; so a blocked product begins with *packing*, which copies the panel into the order in which
tiles read it. **That is where the gates come in.** To pack the open columns of the open rows is the
same copy with another index, and nothing more than a product without gates does; a is not packed at
all, but read by number, wherever the next open one is. So nothing is gathered beforehand, nothing
is scattered afterwards, and what is closed is never looked at. Even the gates' values come along:
they multiply the rows of b as these are packed, and the rows of y as they are written.

A task is one panel, or where panels are few, one of a few blocks of rows of it. Tasks are made by
the shapes alone and each sum goes over k in order, so that the result is the same to the bit on any
number of threads.

What it gains, in float32 on two cores of an AMD EPYC with AVX-512, where a tile is multiplied as
fast as a core can: with half of the inputs and outputs of a layer 784-300 or 800-500 open, forward
and VJP take half as long as to take out in NumPy, multiply by OpenBLAS and put back. To gather
takes a cycle for each number, where those that lie side by side take a quarter; so it shows where
few rows use a panel. On operands that lie ready OpenBLAS is faster throughout: by a fifth where
they are large, several times where y is narrower than a tile, which multiplies zeros then, or where
all is over in some microseconds, which is what it takes to call a kernel.

K. Goto, R. A. van de Geijn, *Anatomy of high-performance matrix multiplication*, ACM TOMS 34, 2008.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.conv import check_cotangent
from ..ops.matmul import GatedMatmulResiduals
from ..ops.pack import PackResiduals
from ._compile import inline, parallel, share_out
from ._places import ALL, Index, inside, places_of
from ._registry import NotForKernel, check_arrays, packed, twin
from ._vectors import add, add_product, add_products, in_pairs, lanes, load, store, zeros

Array = NDArray[Any]

HEIGHT = 6
"""Rows of a tile; with two vectors in each there are 12 sums, for 16 registers or 32."""

DEPTH = 512
"""Most k of a panel: 64 kB of float32 at two vectors of 16, and 32 at two of 8."""

TASKS, LEAST_STRIPS = 4, 8
"""Tasks that there should be, if each has as many strips: a block of rows packs its own panel."""

PER_NUMBER = 16
"""Multiplications that take as long as one number of an elementwise function."""


@inline
def _tile(a, starts, strip, steps, first, last, panel, sums, at, fresh):  # type: ignore[no-untyped-def]
    """Add a's six rows from `strip` on, times the panel, to the tile of sums that begins at `at`.

    Number k of row i of a is ``a[starts[i] + steps[k]]``; k goes from `first` to `last`.
    """
    n = np.uint64(lanes(a))
    a0, a1, a2 = starts[strip], starts[strip + 1], starts[strip + 2]
    a3, a4, a5 = starts[strip + 3], starts[strip + 4], starts[strip + 5]
    l0, l1, l2, l3, l4, l5 = zeros(a), zeros(a), zeros(a), zeros(a), zeros(a), zeros(a)
    r0, r1, r2, r3, r4, r5 = zeros(a), zeros(a), zeros(a), zeros(a), zeros(a), zeros(a)
    if not fresh:
        l0, r0 = load(sums, at), load(sums, at + n)
        l1, r1 = load(sums, at + 2 * n), load(sums, at + 3 * n)
        l2, r2 = load(sums, at + 4 * n), load(sums, at + 5 * n)
        l3, r3 = load(sums, at + 6 * n), load(sums, at + 7 * n)
        l4, r4 = load(sums, at + 8 * n), load(sums, at + 9 * n)
        l5, r5 = load(sums, at + 10 * n), load(sums, at + 11 * n)
    here = np.uint64(0)
    for k in range(last - first):
        step = steps[first + k]
        left, right = load(panel, here), load(panel, here + n)
        here += n + n
        one = a[a0 + step]
        l0, r0 = add_product(l0, one, left), add_product(r0, one, right)
        one = a[a1 + step]
        l1, r1 = add_product(l1, one, left), add_product(r1, one, right)
        one = a[a2 + step]
        l2, r2 = add_product(l2, one, left), add_product(r2, one, right)
        one = a[a3 + step]
        l3, r3 = add_product(l3, one, left), add_product(r3, one, right)
        one = a[a4 + step]
        l4, r4 = add_product(l4, one, left), add_product(r4, one, right)
        one = a[a5 + step]
        l5, r5 = add_product(l5, one, left), add_product(r5, one, right)
    store(sums, at, l0)
    store(sums, at + n, r0)
    store(sums, at + 2 * n, l1)
    store(sums, at + 3 * n, r1)
    store(sums, at + 4 * n, l2)
    store(sums, at + 5 * n, r2)
    store(sums, at + 6 * n, l3)
    store(sums, at + 7 * n, r3)
    store(sums, at + 8 * n, l4)
    store(sums, at + 9 * n, r4)
    store(sums, at + 10 * n, l5)
    store(sums, at + 11 * n, r5)


@inline
def _side_by_side(places):  # type: ignore[no-untyped-def]
    together = True
    for j in range(1, places.size):
        together &= places[j] == places[j - 1] + np.uint64(1)
    return together


@inline
def _pack(b, starts, first, last, columns, factors, panel):  # type: ignore[no-untyped-def]
    """Put rows `first` to `last` of b, times their factors, into the panel.

    Number j of row k is ``b[starts[k] + columns[j]]``. What is wider than the columns is never
    used, and may be anything.
    """
    n, one = np.uint64(lanes(b)), b.dtype.type(1)
    wide, together = n + n, _side_by_side(columns)
    at, k = np.uint64(0), first
    while k < last:
        start, factor = starts[k], factors[k] if factors.size else one
        here = start + columns[0]
        if together and here + wide <= np.uint64(b.size):
            store(panel, at, add_product(zeros(b), factor, load(b, here)))
            store(panel, at + n, add_product(zeros(b), factor, load(b, here + n)))
            at, k = at + wide, k + 1
            continue
        if columns.size < 2 * lanes(b):
            for row in range(min(4, last - k)):
                store(panel, at + np.uint64(row) * wide, zeros(b))
                store(panel, at + np.uint64(row) * wide + n, zeros(b))
        if k + 4 > last:
            for j in range(columns.size):
                panel[at + np.uint64(j)] = factor * b[start + columns[j]]
            at, k = at + wide, k + 1
            continue
        # Four rows for each column that is looked up: a third faster.
        start_1, start_2, start_3 = starts[k + 1], starts[k + 2], starts[k + 3]
        factor_1 = factors[k + 1] if factors.size else one
        factor_2 = factors[k + 2] if factors.size else one
        factor_3 = factors[k + 3] if factors.size else one
        for j in range(columns.size):
            column, to = columns[j], at + np.uint64(j)
            panel[to] = factor * b[start + column]
            panel[to + wide] = factor_1 * b[start_1 + column]
            panel[to + wide + wide] = factor_2 * b[start_2 + column]
            panel[to + wide + wide + wide] = factor_3 * b[start_3 + column]
        at, k = at + np.uint64(4) * wide, k + 4


@inline
def _write(sums, at, scales, y, starts, first, last, columns, together):  # type: ignore[no-untyped-def]
    """Write rows of the tile of sums that begins at `at`, times their scales, to y."""
    n, one = np.uint64(lanes(y)), y.dtype.type(1)
    for i in range(first, last):
        start, scale = starts[i], scales[i] if scales.size else one
        if together and columns.size == 2 * lanes(y):
            here = start + columns[0]
            store(y, here, add_product(zeros(y), scale, load(sums, at)))
            store(y, here + n, add_product(zeros(y), scale, load(sums, at + n)))
        else:
            for j in range(columns.size):
                y[start + columns[j]] = scale * sums[at + np.uint64(j)]
        at += n + n


@inline
def _dot(sums, at, other, starts, first, last, columns, together, products, dots, block):  # type: ignore[no-untyped-def]
    """Sum each row of the tile times what lies in its places in `other`."""
    n = np.uint64(lanes(sums))
    for i in range(first, last):
        start = starts[i]
        if together and columns.size == 2 * lanes(sums):
            here = start + columns[0]
            left = add_products(zeros(sums), load(sums, at), load(other, here))
            right = add_products(zeros(sums), load(sums, at + n), load(other, here + n))
        else:
            for j in range(columns.size):
                products[j] = sums[at + np.uint64(j)] * other[start + columns[j]]
            left, right = load(products, np.uint64(0)), load(products, n)
        dots[block, i] = in_pairs(add(left, right))
        at += n + n


@inline
def _places(index, count, step, more):  # type: ignore[no-untyped-def]
    """Return where rows or columns begin, all or those of the index, and the last `more` times."""
    places = np.empty(count + more, np.uint64)
    for i in range(places.size):
        j = min(i, count - 1)
        places[i] = np.uint64((index[j] if index.size else j) * step)
    return places


@inline
def _multiply_block(  # type: ignore[no-untyped-def]
    task, blocks, height, a, a_starts, a_steps, b, b_starts, b_steps, factors,
    y, y_starts, y_steps, scales, other, dots,
):  # fmt: skip
    """Fill a block of rows of one panel of y."""
    m, depth, n = y_starts.size, a_steps.size, b_steps.size
    width = 2 * lanes(a)
    panel_number, block = task // blocks, task % blocks
    left, top = panel_number * width, block * height
    right, bottom = min(n, left + width), min(m, top + height)
    columns, targets = b_steps[left:right], y_steps[left:right]
    together = _side_by_side(targets)
    panel = np.empty(min(depth, DEPTH) * width, a.dtype)
    # All sums of the block wait for the next panel; if there is none, those of one tile do.
    several = depth > DEPTH
    sums = np.empty((height if several else HEIGHT) * width, a.dtype)
    products = np.zeros(width, a.dtype)
    for first in range(0, depth, DEPTH):
        last = min(depth, first + DEPTH)
        _pack(b, b_starts, first, last, columns, factors, panel)
        for strip in range(top, bottom, HEIGHT):
            at = np.uint64((strip - top) * width if several else 0)
            _tile(a, a_starts, strip, a_steps, first, last, panel, sums, at, first == 0)
            if last == depth:
                end = min(bottom, strip + HEIGHT)
                if dots.size:
                    _dot(
                        sums, at, other, y_starts, strip, end, targets, together, products,
                        dots, panel_number,
                    )  # fmt: skip
                _write(sums, at, scales, y, y_starts, strip, end, targets, together)


@parallel
def multiply_gathered(  # type: ignore[no-untyped-def]
    many, a, a_rows, m, a_row, a_columns, depth, a_column,
    b, b_rows, _b_count, b_row, b_columns, n, b_column, factors,
    y, y_rows, _y_count, y_row, y_columns, _y_width, y_column, scales,
    other, dots,
):  # fmt: skip
    """Let y be a b: the numbers of each, and `Operand`'s words on its rows and on its columns."""
    width = 2 * lanes(a)
    panels, strips = (n + width - 1) // width, (m + HEIGHT - 1) // HEIGHT
    blocks = max(1, min((TASKS + panels - 1) // panels, strips // LEAST_STRIPS))
    height = HEIGHT * ((strips + blocks - 1) // blocks)
    blocks = (m + height - 1) // height
    # The last strip may have less than six rows of its own, and then has its last row again.
    a_starts = _places(a_rows, m, a_row, HEIGHT - 1)
    a_steps = _places(a_columns, depth, a_column, 0)
    b_starts, b_steps = _places(b_rows, depth, b_row, 0), _places(b_columns, n, b_column, 0)
    y_starts, y_steps = _places(y_rows, m, y_row, 0), _places(y_columns, n, y_column, 0)
    args = (
        blocks, height, a, a_starts, a_steps, b, b_starts, b_steps, factors,
        y, y_starts, y_steps, scales, other, dots,
    )  # fmt: skip
    share_out(many, _multiply_block, panels * blocks, args)
    for block in range(1, dots.shape[0]):
        for i in range(m):
            dots[0, i] += dots[block, i]


_EMPTY = {dtype: np.empty(0, dtype) for dtype in (np.dtype("f4"), np.dtype("f8"))}


class Operand(NamedTuple):
    """A matrix as the kernel takes it; an index without places stands for all rows or columns."""

    numbers: Array
    rows: Index
    n_rows: int
    row: int  # from one row to the next
    columns: Index
    n_columns: int
    column: int

    @classmethod
    def of(cls, a: Array, rows: Index | None = None, columns: Index | None = None) -> Operand:
        """Take some rows and columns of a whole array."""
        rows = ALL if rows is None else rows
        columns = ALL if columns is None else columns
        r, c = rows.size or a.shape[0], columns.size or a.shape[1]
        return cls(a.reshape(-1), rows, r, a.shape[1], columns, c, 1)

    @property
    def transposed(self) -> Operand:
        """The same numbers, rows for columns."""
        return Operand(self[0], *self[4:], *self[1:4])


class _Residuals(NamedTuple):
    """What the twin of `gated_matmul_vjp` needs of the forward pass."""

    x: Array
    weight: Array
    z: Array | None
    take: Index
    rows: Index
    columns: Index


def product(
    a: Operand,
    b: Operand,
    y: Operand,
    *,
    factors: Array | None = None,
    scales: Array | None = None,
    other: Array | None = None,
) -> Array:
    """Let y be ``a @ (factors * b)``, its rows times the scales.

    Returned is the dot product of each of its rows, before the scales, with what lies in its places
    in `other`, an array of the shape that y is taken from.
    """
    nothing = _EMPTY[a.numbers.dtype]
    panels = -(-b.n_columns // (2 * lanes(nothing)))
    dots = np.empty((0 if other is None else panels, a.n_rows), nothing.dtype)
    multiply_gathered.sized(
        a.n_rows * a.n_columns * b.n_columns // PER_NUMBER,
        *a,
        *b,
        nothing if factors is None else factors,
        *y,
        nothing if scales is None else scales,
        nothing if other is None else other.reshape(-1),
        dots,
    )
    return dots


@twin(ops.gated_matmul)
def gated_matmul(
    x: Array,
    weight: Array,
    z: Array | None = None,
    *,
    take: Index | None = None,
    rows: Index | None = None,
    columns: Index | None = None,
) -> tuple[Array, _Residuals]:
    """Pack the weights, times the gates."""
    check_arrays(x, weight, z)
    if x.ndim != 2 or weight.ndim != 2:
        raise NotForKernel
    x, weight = packed(x), packed(weight)
    t, r, c = places_of(take), places_of(rows), places_of(columns)
    if not (inside(ALL, 0, t, x.shape[1]) and inside(r, weight.shape[0], c, weight.shape[1])):
        raise NotForKernel
    a, b = Operand.of(x, None, t), Operand.of(weight, r, c)
    if a.n_columns != b.n_rows or not (z is None or z.shape == (b.n_rows,)):
        raise NotForKernel
    z = None if z is None else packed(z)
    y = np.empty((len(x), b.n_columns), x.dtype)
    product(a, b, Operand.of(y), factors=z)
    return y, _Residuals(x, weight, z, t, r, c)


@twin(ops.gated_matmul_vjp)
def gated_matmul_vjp(
    dy: Array, residuals: Any, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array | None]:
    """Pack dy for the weights, and the weights, turned, for dx."""
    if not isinstance(residuals, _Residuals):
        raise NotForKernel
    x, weight, z, take, rows, columns = residuals
    a, b = Operand.of(x, None, take), Operand.of(weight, rows, columns)
    check_cotangent(dy, (len(x), b.n_columns))
    try:
        check_arrays(dy, x)
    except NotForKernel:
        return ops.gated_matmul_vjp(dy, _originals(residuals), need_dx=need_dx)
    dy = packed(dy)
    some = rows.size or columns.size
    dweight = (np.zeros if some else np.empty)(weight.shape, weight.dtype)
    own, cotangent = b._replace(numbers=dweight.reshape(-1)), Operand.of(dy)
    other = None if z is None else weight
    dots = product(a.transposed, cotangent, own, scales=z, other=other)
    dz = None if z is None else dots[0]
    if not need_dx:
        return None, dweight, dz
    dx = np.empty((len(x), b.n_rows), x.dtype)
    product(cotangent, b.transposed, Operand.of(dx))
    if z is not None:
        dx *= z
    return ops.pack_vjp(dx, PackResiduals(x.shape, None, take)) if take.size else dx, dweight, dz


def _originals(residuals: _Residuals) -> GatedMatmulResiduals:
    x, weight, z, *indices = residuals
    return GatedMatmulResiduals(x, weight, z, *(i if i.size else None for i in indices))
