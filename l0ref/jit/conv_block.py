r"""Twins of `l0ref.ops.conv_block`: the maps before pooling are never stored.

Forward, the numbers of an example are laid out so that those which a kernel's element meets at the
same place of neighbouring windows of the pool lie side by side. Then a vector holds one place of
many windows, a few vectors are all places of these windows, and all products of a few maps with
them are added up in registers (`multiply`). Sums are gated, rectified and pooled in cache; what is
kept is, for each window, its greatest value and which place had it, or `NONE`: the rectifier has
closed the window.

Backward, a window of the pool has one place that feels it, if any. So its dy meets one window of x
only: dweight grows by dy times what that window holds, dx by dy times the weights. For a pool of
2 x 2 that is at most a fourth of the arithmetic of whole matrix products. Both are sums of a few
rows out of many (`add_many`): of windows of x, for each map, and of weights, for each window. The
maps come last in memory then, so that what a row of the kernel sees is one run of numbers.

What is not finite has rules of its own (0 times infinity is NaN, all over a map): such numbers, the
original takes.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops import conv, pool
from ._compile import inline, parallel, share_out
from ._registry import TWINS, NotForKernel, check_arrays, packed, twin
from ._tiles import FEW, MANY, MAPS, PHASES, add_few, add_many, multiply, onward, pointer
from ._vectors import BYTES
from .conv import PARTIALS, by_map, gate_rows, new_maps

Array = NDArray[Any]
Gradients = tuple[Array | None, Array, Array | None, Array | None]
Geometry = tuple[int, ...]

NONE = 255
"""The place of a window's greatest value where none is above 0."""

PARTS = 8
"""Parts that the examples are cut into."""

WINDOWS = 64
"""Windows of the pool, at least, that are pooled at once where there are as many."""


class Fused(NamedTuple):
    """What the twin of `conv_relu_pool_vjp` needs of the forward pass, and what the original."""

    arguments: tuple[Array, Array, Array | None, Array | None]  # x, weight, bias, z
    options: dict[str, Any]
    geometry: Geometry
    pool: Geometry
    winner: NDArray[np.uint8]  # (C_out, N, places): i kw + j in the window of the pool, or NONE
    ungated: Array  # (C_out, N, places): what z multiplied, there


@functools.lru_cache(maxsize=64)
def layout(height: int, width: int, geometry: Geometry, pool: Geometry) -> tuple[Array, Array]:
    """Return where the laid-out numbers of a map come from, and where `multiply` finds them.

    Windows of the pool lie (t_h, t_w) apart in the padded map. Number (u, v) after the first of
    each, for all windows in their order, is a piece of what is laid out: there
    [v, u % t_h, u // t_h + h, w] is number (t_h h + u, t_w w + v) of the map.

    Returns
    -------
    order : array of int32
        Positions in the padded map.
    first : array of int32, (ceil(ph pw / PHASES), kh kw, PHASES)
        Where that piece begins which the element (i, j) of the kernel meets at a place of the
        window, for all places; the last is repeated to fill the array.
    """
    kh, kw, s_h, s_w, p_h, p_w, d_h, d_w, _, _ = geometry
    ph, pw, q_h, q_w, h_pool, w_pool = pool
    t_h, t_w = s_h * q_h, s_w * q_w
    tall, wide = (ph - 1) * s_h + (kh - 1) * d_h + 1, (pw - 1) * s_w + (kw - 1) * d_w + 1
    rests, rows = min(t_h, tall), h_pool + (tall - 1) // t_h
    v, rest, row, w = np.ix_(*map(np.arange, (wide, rests, rows, w_pool)))
    # The last row may lie below the map where its rest is large: nothing reads it then.
    source = np.minimum(t_h * row + rest, height + 2 * p_h - 1)
    order = source * (width + 2 * p_w) + t_w * w + v
    a, b, i, j = np.ix_(*map(np.arange, (ph, pw, kh, kw)))
    u, v = a * s_h + i * d_h, b * s_w + j * d_w
    starts = ((v * rests + u % t_h) * rows + u // t_h) * w_pool
    starts = starts.reshape(ph * pw, kh * kw)
    places = np.minimum(np.arange(-(-ph * pw // PHASES) * PHASES), ph * pw - 1)
    first = starts[places].reshape(-1, PHASES, kh * kw).swapaxes(1, 2)
    return order.ravel().astype(np.int32), np.ascontiguousarray(first, dtype=np.int32)


@inline
def _lay_out(image, height, width, pads, order, size, frame, out):  # type: ignore[no-untyped-def]
    """Bring a map in the order of `layout`; the border of frame is 0."""
    p_h, p_w = pads
    if p_h > 0 or p_w > 0:
        for h in range(height):
            first = (h + p_h) * (width + 2 * p_w) + p_w
            for w in range(width):
                frame[first + w] = image[h * width + w]
        for t in range(size):
            out[t] = frame[order[t]]
    else:
        for t in range(size):
            out[t] = image[order[t]]


@inline
def _gated(source, size, shift, gate, gates_bias, out):  # type: ignore[no-untyped-def]
    """Add the bias, multiply by the gate; return whether a value is not finite."""
    odd = False
    if gates_bias:
        for p in range(size):
            value = (source[p] + shift) * gate
            out[p] = value
            odd |= value - value != 0
    else:
        for p in range(size):
            value = source[p] * gate + shift
            out[p] = value
            odd |= value - value != 0
    return odd


@inline
def _pool(  # type: ignore[no-untyped-def]
    sums, stride, n_places, size, shift, gate, gates_bias, keep, gated, best, place, before,
    zero,
):  # fmt: skip
    """Rectify and pool `size` windows; place k of them is in row k % PHASES of tile k // PHASES."""
    odd = False
    for p in range(size):
        best[p] = 0
    for p in range(size):
        place[p] = NONE
    for k in range(n_places):
        row = (k // PHASES * MAPS * PHASES + k % PHASES) * stride
        mine = np.uint8(k)
        odd |= _gated(onward(sums, row), size, shift, gate, gates_bias, gated)
        for p in range(size):
            value, old, other = gated[p], best[p], place[p]
            best[p] = value if value > old else old
            place[p] = mine if value > old else other
    if keep:
        inner = shift if gates_bias else zero
        for p in range(size):
            before[p] = 0
        for k in range(n_places):
            source = onward(sums, (k // PHASES * MAPS * PHASES + k % PHASES) * stride)
            mine = np.uint8(k)
            for p in range(size):
                before[p] = source[p] + inner if place[p] == mine else before[p]
    return odd


@inline
def _forward_part(  # type: ignore[no-untyped-def]
    part, parts, x, weight, bias, z, gates_bias, keep, pads, n_places, order, table,
    y, winner, ungated, is_odd,
):  # fmt: skip
    c_in, n_all, height, width = x.shape
    start, stop = part * n_all // parts, (part + 1) * n_all // parts
    c_out, windows = y.shape[0], y.shape[2]
    tables, k = table.shape[0], table.shape[1]
    lanes, tile, each = BYTES // x.itemsize, MAPS * PHASES, z.shape[0] > 1
    block, size = max(1, WINDOWS // windows), order.shape[0]
    # At the end of an example a vector overhangs; what it left there is overwritten or not read.
    stride = block * windows + lanes
    frame = np.zeros((height + 2 * pads[0]) * (width + 2 * pads[1]), x.dtype)
    laid = np.zeros(block * c_in * size + lanes, x.dtype)
    sums = np.empty((tables, MAPS, PHASES, stride), x.dtype)
    gated = np.empty(stride, x.dtype)
    odd = False
    for low in range(start, stop, block):
        high = min(stop, low + block)
        for n in range(low, high):
            for c in range(c_in):
                _lay_out(
                    pointer(x, (c * n_all + n) * height * width), height, width, pads,
                    pointer(order, 0), size, pointer(frame, 0),
                    pointer(laid, ((n - low) * c_in + c) * size),
                )  # fmt: skip
        for g in range(weight.shape[0]):
            for t in range(tables):
                for n in range(high - low):
                    for w in range(0, windows, lanes):
                        multiply(
                            pointer(weight, g * k * MAPS), k, pointer(laid, n * c_in * size + w),
                            pointer(table, t * k * PHASES),
                            pointer(sums, t * tile * stride + n * windows + w), stride,
                        )  # fmt: skip
            step = 1 if each else high - low
            for o in range(g * MAPS, min(c_out, (g + 1) * MAPS)):
                first = (o - g * MAPS) * PHASES * stride
                for n in range(low, high, step):
                    at = (o * n_all + n) * windows
                    odd |= _pool(
                        pointer(sums, first + (n - low) * windows), stride, n_places,
                        step * windows, bias[o], z[n if each else 0, o], gates_bias, keep,
                        pointer(gated, 0), pointer(y, at), pointer(winner, at),
                        pointer(ungated, at), x.dtype.type(0),
                    )  # fmt: skip
    is_odd[part] = odd


@inline
def _turn_group(g, weight, turned):  # type: ignore[no-untyped-def]
    c_out, k = weight.shape
    for m in range(MAPS):
        for t in range(k):
            turned[g, t, m] = weight[g * MAPS + m, t] if g * MAPS + m < c_out else 0


@parallel
def forward(  # type: ignore[no-untyped-def]
    many, parts, x, weight, bias, z, gates_bias, keep, pads, n_places, order, first,
    y, winner, ungated, odd,
):  # fmt: skip
    """Go forward; what is not finite is noted for each part of the examples."""
    c_in, (c_out, k), elements = x.shape[0], weight.shape, first.shape[1]
    groups = (c_out + MAPS - 1) // MAPS
    turned = np.empty((groups, k, MAPS), x.dtype)
    share_out(many, _turn_group, groups, (weight, turned))
    table = np.empty((first.shape[0], k, PHASES), np.int32)
    for t in range(first.shape[0]):
        for c in range(c_in):
            for i in range(elements):
                for q in range(PHASES):
                    table[t, c * elements + i, q] = first[t, i, q] + c * order.shape[0]
    args = (
        parts, x, turned, bias, z, gates_bias, keep, pads, n_places, order, table,
        y, winner, ungated, odd,
    )  # fmt: skip
    share_out(many, _forward_part, parts, args)


@inline
def _sums_of(dy, winner, ungated, size, keep, zero):  # type: ignore[no-untyped-def]
    """Return the sums of dy where a place of the window won, and of dy times what the gate met.

    The four parts of each are written out: in an order of the compiler's own, a sum would not be
    the same wherever this function is put.
    """
    t0, t1, t2, t3, a0, a1, a2, a3 = zero, zero, zero, zero, zero, zero, zero, zero
    for p in range(0, size - 3, 4):
        t0 += dy[p] if winner[p] != NONE else zero
        t1 += dy[p + 1] if winner[p + 1] != NONE else zero
        t2 += dy[p + 2] if winner[p + 2] != NONE else zero
        t3 += dy[p + 3] if winner[p + 3] != NONE else zero
        if keep:
            a0 += dy[p] * ungated[p]
            a1 += dy[p + 1] * ungated[p + 1]
            a2 += dy[p + 2] * ungated[p + 2]
            a3 += dy[p + 3] * ungated[p + 3]
    for p in range(size - size % 4, size):
        t0 += dy[p] if winner[p] != NONE else zero
        if keep:
            a0 += dy[p] * ungated[p]
    return (t0 + t1) + (t2 + t3), (a0 + a1) + (a2 + a3)


@inline
def _overflows(values, size, factor):  # type: ignore[no-untyped-def]
    """Whether a value times the factor is not finite."""
    odd = False
    for p in range(size):
        product = values[p] * factor
        odd |= product - product != 0
    return odd


@inline
def _find_winners(  # type: ignore[no-untyped-def]
    pulled, gate, chosen, size, corner, inside, begin, factor, place, at
):
    """Collect dy times the gate wherever a window has a winner, and where; return how many."""
    found = 0
    for p in range(size):
        own = corner[p] + inside[np.intp(chosen[p])]
        factor[found], place[found], at[found] = pulled[p] * gate, own, begin[own]
        found += chosen[p] != NONE
    return found


@inline
def _sort_by_place(factor, place, found, row, most, counts, factors, rows):  # type: ignore[no-untyped-def]
    """Append winners of a map, whose weights begin at row, to those of their places."""
    for k in range(found):
        own = place[k]
        last = counts[own]
        slot = np.intp(own) * most + last
        factors[slot], rows[slot] = factor[k], row
        counts[own] = last + 1


@inline
def _maps_last(image, step, c_in, height, width, line, out):  # type: ignore[no-untyped-def]
    """Lay the maps of an example, step apart in memory, side by side in each place of out."""
    if line == width * c_in:  # no border: rows follow each other
        height, width = 1, height * width
    for c in range(c_in):
        for h in range(height):
            source, row = onward(image, c * step + h * width), onward(out, h * line + c)
            for w in range(width):
                row[w * c_in] = source[w]


@inline
def _maps_first(image, line, step, c_in, height, width, out):  # type: ignore[no-untyped-def]
    """Undo `_maps_last`."""
    if line == width * c_in:
        height, width = 1, height * width
    for c in range(c_in):
        for h in range(height):
            source, row = onward(image, h * line + c), onward(out, c * step + h * width)
            for w in range(width):
                row[w] = source[w * c_in]


@inline
def _add_rows(weights, at, n, values, shifts, out, places, left):  # type: ignore[no-untyped-def]
    """Add up n rows, weights times values from at on: a piece of `MANY` or `FEW` vectors."""
    if left > FEW:
        add_many(weights, at, n, values, shifts, out, places)
    else:
        add_few(weights, at, n, values, shifts, out, places)


@inline
def _sum_part(  # type: ignore[no-untyped-def]
    part, start, stop, dy, winner, ungated, z, gates_bias, keep, most, dbias, dz
):
    c_out, n_all, windows = dy.shape
    each, zero = z.shape[0] > 1, z.dtype.type(0)
    step, odd = 1 if each else stop - start, False
    for o in range(c_out):
        for n in range(start, stop, step):
            first, gate = (o * n_all + n) * windows, z[n if each else 0, o]
            # What a place feels: the dy of at most so many windows, then times the gate. From where
            # that overflows, on places that no window looks at, 0 times infinity is NaN.
            reach = z.dtype.type(most) * max(abs(gate), z.dtype.type(1))
            odd |= _overflows(pointer(dy, first), step * windows, reach)
            total, along = _sums_of(
                pointer(dy, first), pointer(winner, first), pointer(ungated, first),
                step * windows, keep, zero,
            )  # fmt: skip
            odd |= (total - total != 0) | (along - along != 0)
            mine = n if each else part
            dbias[mine, o] = total * gate if gates_bias else total
            dz[mine, o] = along
    return odd


@inline
def _pull_part(  # type: ignore[no-untyped-def]
    part, parts, dy, winner, ungated, x, theta, z, gates_bias, keep, need_dx, pads, most,
    corner, inside, begin, seen, held, dx, dweights, dbias, dz, odd,
):  # fmt: skip
    c_in, n_all, height, width = x.shape
    (c_out, row), windows = theta.shape, dy.shape[2]
    start, stop = part * n_all // parts, (part + 1) * n_all // parts
    odd[part] = _sum_part(
        part, start, stop, dy, winner, ungated, z, gates_bias, keep, most, dbias, dz
    )
    line, pieces, step = (width + 2 * pads[1]) * c_in, seen.shape[0], n_all * height * width
    inner, each = pads[0] * line + pads[1] * c_in, z.shape[0] > 1
    size = (height + 2 * pads[0]) * line + BYTES // x.itemsize
    # With its maps last, all that a row of the kernel sees of an example lies in one piece.
    values, slopes = np.zeros(size, x.dtype), np.zeros(size if need_dx else 1, x.dtype)
    factor, at = np.empty(windows + 1, x.dtype), np.empty(windows + 1, np.int32)
    place = np.empty(windows + 1, np.int32)
    # The same winners by place: how many, their factors, and where the weights of their maps are.
    counts, room = np.zeros(begin.shape[0] if need_dx else 1, np.int32), most * c_out
    factors = np.empty((counts.shape[0], room), x.dtype)
    rows = np.empty((counts.shape[0], room), np.int32)
    dweight = dweights[part]
    for o in range(c_out):
        for t in range(row):
            dweight[o, t] = 0
    for n in range(start, stop):
        image = n * height * width
        _maps_last(pointer(x, image), step, c_in, height, width, line, pointer(values, inner))
        for o in range(c_out):
            first = (o * n_all + n) * windows
            found = _find_winners(
                pointer(dy, first), z[n if each else 0, o], pointer(winner, first), windows,
                pointer(corner, 0), pointer(inside, 0), pointer(begin, 0),
                pointer(factor, 0), pointer(place, 0), pointer(at, 0),
            )  # fmt: skip
            if need_dx:
                _sort_by_place(
                    pointer(factor, 0), pointer(place, 0), found, o * row, room,
                    pointer(counts, 0), pointer(factors, 0), pointer(rows, 0),
                )  # fmt: skip
            for t in range(0, pieces, MANY):
                _add_rows(
                    pointer(factor, 0), pointer(at, 0), found, pointer(values, 0),
                    pointer(seen, t), pointer(dweight, o * row), pointer(held, t), pieces - t,
                )  # fmt: skip
        if not need_dx:
            continue
        for t in range(slopes.shape[0]):
            slopes[t] = 0
        for t in range(0, pieces, MANY):
            for own in range(counts.shape[0]):
                if counts[own] > 0:
                    _add_rows(
                        pointer(factors, own * room), pointer(rows, own * room), counts[own],
                        pointer(theta, 0), pointer(held, t), pointer(slopes, begin[own]),
                        pointer(seen, t), pieces - t,
                    )  # fmt: skip
        for own in range(counts.shape[0]):
            counts[own] = 0
        _maps_first(pointer(slopes, inner), line, step, c_in, height, width, pointer(dx, image))


@parallel
def pull(  # type: ignore[no-untyped-def]
    many, parts, dy, winner, ungated, x, theta, z, gates_bias, keep, need_dx, pads, most,
    corner, inside, begin, seen, held, dx, dweights, dbias, dz, odd,
):  # fmt: skip
    """Pull dy back: a sum for each part of the examples; what is not finite is noted."""
    args = (
        parts, dy, winner, ungated, x, theta, z, gates_bias, keep, need_dx, pads, most,
        corner, inside, begin, seen, held, dx, dweights, dbias, dz, odd,
    )  # fmt: skip
    share_out(many, _pull_part, parts, args)


@inline
def _weights_of_map(o, weight, rows, columns, width, across, theta):  # type: ignore[no-untyped-def]
    source, out = weight[rows[o]], theta[o]
    for t in range(out.shape[0]):
        out[t] = 0
    for e in range(source.shape[1]):
        first = e // width * across + e % width * columns.shape[0]
        for c in range(columns.shape[0]):
            out[first + c] = source[columns[c], e]


@parallel
def weights_by_row(many, weight, rows, columns, width, across, theta):  # type: ignore[no-untyped-def]
    """Lay out some maps' weights (C_out, C_in, kh kw) as `pull` reads them; zeros between."""
    share_out(many, _weights_of_map, theta.shape[0], (weight, rows, columns, width, across, theta))


@inline
def _gradient_of_map(o, dweights, rows, columns, width, across, dweight):  # type: ignore[no-untyped-def]
    out = dweight[o]
    for c in range(out.shape[0]):
        row = out[c]
        for e in range(row.shape[0]):
            row[e] = 0
    if rows[o] >= 0:
        total = np.zeros(dweights.shape[2], dweights.dtype)
        for part in range(dweights.shape[0]):
            source = dweights[part, rows[o]]
            for t in range(total.shape[0]):
                total[t] += source[t]
        for e in range(out.shape[1]):
            first = e // width * across + e % width * columns.shape[0]
            for c in range(columns.shape[0]):
                out[columns[c], e] = total[first + c]


@parallel
def gradient_by_map(many, dweights, rows, columns, width, across, dweight):  # type: ignore[no-untyped-def]
    """Add up the parts of `pull` and put them back, with zeros where nothing was read.

    ``rows[o]`` is the row of dweights that map o has, or -1.
    """
    args = (dweights, rows, columns, width, across, dweight)
    share_out(many, _gradient_of_map, dweight.shape[0], args)


@functools.lru_cache(maxsize=64)
def places(geometry: Geometry, pool: Geometry, line: int, c_in: int) -> tuple[Array, ...]:
    """Return what leads from a window of the pool and its winner to a window of x.

    Returns
    -------
    corner : array of int32
        The first place of each window of the pool, among those of the convolution.
    inside : array of int32
        How far after that each winner is; that of `NONE` is never read, but looked up.
    begin : array of int32
        Where the window of x begins that each place of the convolution sees, in an example with its
        maps last and `line` numbers a row.
    """
    _, _, s_h, s_w, _, _, _, _, h_out, w_out = geometry
    ph, pw, q_h, q_w, h_pool, w_pool = pool

    def positions(h: Array, w: Array, to_h: int, to_w: int) -> Array:
        places: Array = (h[:, None] * to_h + w * to_w).ravel().astype(np.int32)
        return places

    corner = positions(np.arange(h_pool), np.arange(w_pool), q_h * w_out, q_w)
    begin = positions(np.arange(h_out), np.arange(w_out), s_h * line, s_w * c_in)
    inside = np.zeros(NONE + 1, np.int32)
    inside[: ph * pw] = positions(np.arange(ph), np.arange(pw), w_out, 1)
    return corner, inside, begin


@functools.lru_cache(maxsize=64)
def pieces(kernel: tuple[int, int], c_in: int, line: int, lanes: int) -> tuple[Array, Array]:
    """Return where the vectors of a window lie from its beginning on, in x and in the weights.

    x has its maps last, and `line` numbers between two rows that the kernel sees. For whole calls
    of `add_many` and `add_few`, the last vector of x is repeated; weights are 0 there.
    """
    kh, kw = kernel
    across = -(-kw * c_in // lanes)
    i, v = np.divmod(np.arange(kh * across), across)
    n = kh * across
    filled = -(-n // MANY) * MANY
    filled -= MANY - FEW if filled - n >= MANY - FEW else 0
    seen = np.full(filled, i[-1] * line + v[-1] * lanes, np.int32)
    seen[:n] = i * line + v * lanes
    return seen, np.arange(filled, dtype=np.int32) * lanes


@functools.lru_cache(maxsize=64)
def geometries(
    x_shape: tuple[int, ...],
    weight_size: tuple[int, ...],
    strides: conv.Pair,
    pads: conv.Pair,
    steps: conv.Pair,
    kernel: conv.Pair,
    pool_strides: conv.Pair,
    pool_pads: conv.Pair,
) -> tuple[Geometry, Geometry, bool, bool]:
    """Check what follows from shapes, which training asks at each step.

    Returns
    -------
    geometry, pool_geometry : tuple of int
    simple : bool
        Whether the kernels can do it, if there is one group.
    looks : bool
        Whether each place of the convolution is in a window of the pool. An infinity or a NaN where
        none looks counts in the original: there it meets zeros.
    """
    x = np.broadcast_to(np.float32(0), x_shape)  # only its shape matters
    out_size = conv.output_sizes(x, weight_size, strides, pads, steps)
    pooled = np.broadcast_to(np.float32(0), (*x_shape[:2], *out_size))
    _, _, _, pool_size = pool.check_pool(pooled, kernel, pool_strides, pool_pads)
    simple = steps[1] == 1 and not any(pool_pads) and pool_strides[0] * pool_strides[1] >= 4
    looks = all(
        step <= side and (n_places - 1) * step + side >= size
        for step, side, n_places, size in zip(
            pool_strides, kernel, pool_size, out_size, strict=True
        )
    )
    return (
        (*weight_size, *strides, *pads, *steps, *out_size),
        (*kernel, *pool_strides, *pool_size),
        simple and kernel[0] * kernel[1] <= NONE,
        looks,
    )


@twin(ops.conv_relu_pool)
def conv_relu_pool(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    z: Array | None = None,
    *,
    gates_bias: bool = True,
    stride: conv.IntOrPair = 1,
    padding: conv.IntOrPair = 0,
    dilation: conv.IntOrPair = 1,
    groups: int = 1,
    kernel_size: conv.IntOrPair,
    pool_stride: conv.IntOrPair | None = None,
    pool_padding: conv.IntOrPair = 0,
) -> tuple[Array, Any]:
    """Lay out the windows of a few examples, multiply; gate, rectify and pool what is in cache."""
    check_arrays(x, weight, bias, z)
    options: dict[str, Any] = {"gates_bias": gates_bias, "stride": stride, "padding": padding,
               "dilation": dilation, "groups": groups}  # fmt: skip
    pooling: dict[str, Any] = {"stride": pool_stride, "padding": pool_padding}
    strides, pads = conv.pair("stride", stride, 1), conv.pair("padding", padding, 0)
    steps = conv.pair("dilation", dilation, 1)
    conv.check_conv(x, weight, bias, z, "outputs", groups)
    kernel = conv.pair("kernel_size", kernel_size, 1)
    pool_strides = kernel if pool_stride is None else conv.pair("stride", pool_stride, 1)
    pool_pads = conv.pair("padding", pool_padding, 0)
    try:
        geometry, pool_geometry, simple, looks = geometries(
            x.shape, weight.shape[2:], strides, pads, steps, kernel, pool_strides, pool_pads
        )
    except ValueError:  # the original says it of its own arguments
        raise NotForKernel from None
    n, c_out, pool_size = x.shape[0], weight.shape[0], pool_geometry[4:]
    seen = looks or bool(np.isfinite(x).all())
    if not (groups == 1 and simple and seen):
        a, of_conv = _twin(ops.conv2d)(x, weight, bias, z, **options)
        rectified, positive = _twin(ops.relu)(a)
        y, of_pool = _twin(ops.max_pool2d)(rectified, kernel_size, **pooling)
        return y, ops.conv_block.ConvReluPoolResiduals(of_conv, positive, of_pool)

    maps, rows = by_map(x), packed(weight).reshape(c_out, -1)
    gates = gate_rows(z, c_out, x.dtype)
    shift = np.zeros(c_out, x.dtype) if bias is None else packed(bias)
    y = new_maps(n, c_out, pool_size, x.dtype)
    rows_of_y = y.transpose(1, 0, 2, 3).reshape(c_out, n, -1)
    winner = np.empty(rows_of_y.shape, np.uint8)
    ungated = rows_of_y if z is None else np.empty_like(rows_of_y)
    parts = min(n, PARTS)
    odd = np.empty(parts, np.bool_)
    order, first = layout(*x.shape[2:], geometry, pool_geometry)
    forward(
        parts, maps, rows, shift, gates, gates_bias, z is not None, pads, kernel[0] * kernel[1],
        order, first, rows_of_y, winner, ungated, odd,
    )  # fmt: skip
    if odd.any():
        raise NotForKernel
    options |= {"kernel_size": kernel_size} | {f"pool_{name}": v for name, v in pooling.items()}
    arguments = (maps.transpose(1, 0, 2, 3), weight, bias, z)
    return y, Fused(arguments, options, geometry, pool_geometry, winner, ungated)


@twin(ops.conv_relu_pool_vjp)
def conv_relu_pool_vjp(dy: Array, residuals: Any, *, need_dx: bool = True) -> Gradients:
    """Each dy meets the one window of x that it came from."""
    if not isinstance(residuals, Fused):
        of_conv, positive, of_pool = residuals
        da = _twin(ops.relu_vjp)(_twin(ops.max_pool2d_vjp)(dy, of_pool), positive)
        gradients: Gradients = _twin(ops.conv2d_vjp)(da, of_conv, need_dx=need_dx)
        return gradients
    arguments, options, geometry, pool_geometry, winner, ungated = residuals
    x, weight, bias, z = arguments
    n, c_out, pool_size = x.shape[0], weight.shape[0], pool_geometry[4:]
    conv.check_cotangent(dy, (n, c_out, *pool_size))

    def by_original() -> Gradients:
        _, own = ops.conv_relu_pool(*arguments, **options)
        return ops.conv_relu_pool_vjp(dy, own, need_dx=need_dx)

    try:
        check_arrays(dy, x)
    except NotForKernel:
        return by_original()
    maps, cotangent = by_map(x), by_map(dy).reshape(c_out, n, -1)
    gates, lanes, pads = gate_rows(z, c_out, x.dtype), BYTES // x.itemsize, geometry[4:6]
    c_in, kh, kw = weight.shape[1:]
    line = (x.shape[3] + 2 * pads[1]) * c_in
    corner, inside, begin = places(geometry, pool_geometry, line, c_in)
    seen, held = pieces((kh, kw), c_in, geometry[6] * line, lanes)
    most = -(-pool_geometry[0] // pool_geometry[2]) * -(-pool_geometry[1] // pool_geometry[3])
    theta = aligned((c_out, len(held) * lanes), x.dtype)
    across = -(-kw * c_in // lanes) * lanes
    rows, columns = np.arange(c_out), np.arange(c_in)
    if need_dx:
        elements = packed(weight).reshape(c_out, c_in, -1)
        weights_by_row.sized(theta.size, elements, rows, columns, kw, across, theta)
    parts = min(n, PARTS, max(4, PARTIALS // theta.nbytes))
    dx = np.empty_like(maps) if need_dx else maps
    dweights = np.empty((parts, *theta.shape), x.dtype)
    odd, sums = np.empty(parts, np.bool_), (n if len(gates) > 1 else parts, c_out)
    dbias, dz = np.empty(sums, x.dtype), np.empty(sums, x.dtype)
    pull(
        parts, cotangent, winner, ungated, maps, theta, gates, options["gates_bias"],
        z is not None, need_dx, pads, most, corner, inside, begin, seen, held, dx, dweights, dbias,
        dz, odd,
    )  # fmt: skip
    if odd.any():
        return by_original()
    dweight = np.empty(weight.shape, x.dtype)
    out = dweight.reshape(c_out, c_in, -1)
    gradient_by_map.sized(dweights.size, dweights, rows, columns, kw, across, out)
    return (
        dx.transpose(1, 0, 2, 3) if need_dx else None,
        dweight,
        None if bias is None else dbias.sum(axis=0),
        None if z is None else dz if z.ndim == 2 else dz.sum(axis=0),
    )


def aligned(shape: tuple[int, int], dtype: Any) -> Array:
    """Return room that begins where a vector may: it is then read from one cache line."""
    size = shape[0] * shape[1]
    room = np.empty(size + BYTES, dtype)
    first = -room.ctypes.data % BYTES // room.itemsize
    return room[first : first + size].reshape(shape)


def _twin(original: Any) -> Any:
    return TWINS.get(original, original)
