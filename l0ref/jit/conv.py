r"""Twins of `l0ref.ops.conv`: a matrix product for each few examples, whose windows stay in cache.

Arrays of maps keep their shape, (N, C, H, W), but lie in memory map by map, as (C, N, H, W): the
values that one map has in all examples are side by side. A few examples are then one product,
(C_out, K) @ (K, N P), whose rows are pieces of the maps; a bias, a gate or a sum belongs to a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops import conv as original
from ._compile import inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, packed, twin
from ._sums import add_up, inner

Array = NDArray[Any]
Geometry = tuple[int, ...]

WINDOWS = 2**19
"""Bytes that the windows of a block of examples may take, at most: half of a second-level cache."""

PARTIALS = 2**24
"""Bytes that the parts of the weights' gradient may take together, at most."""


def by_map(a: Array) -> Array:
    """(N, C, H, W), however it lies in memory, as a contiguous (C, N, H, W)."""
    return packed(a.transpose(1, 0, 2, 3))


def new_maps(n: int, c: int, size: Sequence[int], dtype: Any) -> Array:
    """Return room for (N, C, H, W), map by map."""
    return np.empty((c, n, *size), dtype).transpose(1, 0, 2, 3)


def _count_parts(n: int, row_bytes: int, weight_bytes: int) -> tuple[int, int]:
    """How many parts the examples are cut into, and how many of a part are a block.

    By the shapes alone, so that sums do not depend on the number of threads. Evenly many, for two
    threads to have the same work; not so many that the gradient's parts fill the memory.
    """
    block = min(n, max(1, WINDOWS // row_bytes))
    parts = -(-n // block)
    parts = min(n, parts + parts % 2, max(4, PARTIALS // weight_bytes))
    return parts, block


@inline
def windows_to_columns(x, first, start, stop, geometry, strips, columns):  # type: ignore[no-untyped-def]
    """Lay out the windows of examples start to stop: row (c, i, j) of columns, from map first on.

    What of an image the kernel's column j meets is gathered once, as a strip; rows (i, j) are
    pieces of it.
    """
    kh, kw, s_h, s_w, p_h, p_w, d_h, d_w, h_out, w_out = geometry
    height, width = x.shape[2], x.shape[3]
    places, tall = h_out * w_out, s_h * (h_out - 1) + d_h * (kh - 1) + 1
    for c in range(columns.shape[0] // (kh * kw)):
        for n in range(stop - start):
            image = x[first + c, start + n]
            for j in range(kw):
                strip = strips[j * tall * w_out : (j + 1) * tall * w_out]
                shift = d_w * j - p_w
                low = min(w_out, max(0, -(shift // s_w)))
                high = max(low, min(w_out, (width - 1 - shift) // s_w + 1))
                seen = max(0, low * s_w + shift)
                if low > 0 or high < w_out or p_h > 0:
                    for place in range(tall * w_out):
                        strip[place] = 0
                for h in range(p_h, min(tall, p_h + height)):
                    row, source = strip[h * w_out + low : h * w_out + high], image[h - p_h, seen:]
                    if s_w == 1:
                        for w in range(high - low):
                            row[w] = source[w]
                    else:
                        for w in range(high - low):
                            row[w] = source[w * s_w]
            for i in range(kh):
                for j in range(kw):
                    out = columns[(c * kh + i) * kw + j, n * places : (n + 1) * places]
                    strip = strips[(j * tall + d_h * i) * w_out : (j + 1) * tall * w_out]
                    if s_h == 1:
                        for place in range(places):
                            out[place] = strip[place]
                    else:
                        for h in range(h_out):
                            row, source = out[h * w_out : (h + 1) * w_out], strip[h * s_h * w_out :]
                            for w in range(w_out):
                                row[w] = source[w]


@inline
def columns_to_windows(columns, first, start, stop, geometry, strips, dx):  # type: ignore[no-untyped-def]
    """Add each column up in the window that it came from: the adjoint of `windows_to_columns`."""
    kh, kw, s_h, s_w, p_h, p_w, d_h, d_w, h_out, w_out = geometry
    height, width = dx.shape[2], dx.shape[3]
    places, tall = h_out * w_out, s_h * (h_out - 1) + d_h * (kh - 1) + 1
    for c in range(columns.shape[0] // (kh * kw)):
        for n in range(stop - start):
            image = dx[first + c, start + n]
            image[:] = 0
            for j in range(kw):
                strip = strips[j * tall * w_out : (j + 1) * tall * w_out]
                for place in range(tall * w_out):
                    strip[place] = 0
                for i in range(kh):
                    out = columns[(c * kh + i) * kw + j, n * places : (n + 1) * places]
                    seen = strip[d_h * i * w_out :]
                    if s_h == 1:
                        for place in range(places):
                            seen[place] += out[place]
                    else:
                        for h in range(h_out):
                            row, source = out[h * w_out : (h + 1) * w_out], seen[h * s_h * w_out :]
                            for w in range(w_out):
                                source[w] += row[w]
                shift = d_w * j - p_w
                low = min(w_out, max(0, -(shift // s_w)))
                high = max(low, min(w_out, (width - 1 - shift) // s_w + 1))
                for h in range(p_h, min(tall, p_h + height)):
                    inner = strip[h * w_out + low : h * w_out + high]
                    source = image[h - p_h, max(0, low * s_w + shift) :]
                    if s_w == 1:
                        for w in range(high - low):
                            source[w] += inner[w]
                    else:
                        for w in range(high - low):
                            source[w * s_w] += inner[w]


@inline
def strips_size(geometry):  # type: ignore[no-untyped-def]
    """How many values `windows_to_columns` gathers at once."""
    kh, kw, s_h, _, _, _, d_h, _, h_out, w_out = geometry
    return (s_h * (h_out - 1) + d_h * (kh - 1) + 1) * w_out * kw


@inline
def _convolve_part(  # type: ignore[no-untyped-def]
    part, parts, block, x, weight, bias, z, gates_bias, keep, geometry, y, ungated
):
    start, stop = part * x.shape[1] // parts, (part + 1) * x.shape[1] // parts
    groups, c_out, k = weight.shape
    places = geometry[8] * geometry[9]
    c_in = x.shape[0] // groups
    each = z.shape[0] > 1
    strips = np.empty(strips_size(geometry), x.dtype)
    columns_room = np.empty(k * block * places, x.dtype)
    tile_room = np.empty(c_out * block * places, x.dtype)
    for low in range(start, stop, block):
        high = min(stop, low + block)
        wide = (high - low) * places
        columns = columns_room[: k * wide].reshape(k, wide)
        tile = tile_room[: c_out * wide].reshape(c_out, wide)
        for g in range(groups):
            windows_to_columns(x, g * c_in, low, high, geometry, strips, columns)
            np.dot(weight[g], columns, tile)
            for row in range(c_out):
                o = g * c_out + row
                shift = bias[o]
                for n in range(low, high):
                    gate = z[n if each else 0, o]
                    source = tile[row, (n - low) * places : (n - low + 1) * places]
                    out = y[o, n]
                    if gates_bias:
                        for p in range(places):
                            out[p] = (source[p] + shift) * gate
                    else:
                        for p in range(places):
                            out[p] = source[p] * gate + shift
                    if keep:
                        out = ungated[o, n]
                        if gates_bias:
                            for p in range(places):
                                out[p] = source[p] + shift
                        else:
                            for p in range(places):
                                out[p] = source[p]


@parallel
def _convolve(many, parts, block, x, weight, bias, z, gates_bias, keep, geometry, y, ungated):  # type: ignore[no-untyped-def]
    args = (parts, block, x, weight, bias, z, gates_bias, keep, geometry, y, ungated)
    share_out(many, _convolve_part, parts, args)


@inline
def _gate_cotangent(dy, gate, da):  # type: ignore[no-untyped-def]
    for p in range(dy.shape[0]):
        da[p] = dy[p] * gate


@inline
def _pull_part(  # type: ignore[no-untyped-def]
    part, parts, block, dy, x, weight, z, gates_bias, keep, ungated, need_dx, geometry,
    dx, dweights, dbias, dz,
):  # fmt: skip
    start, stop = part * x.shape[1] // parts, (part + 1) * x.shape[1] // parts
    dweight = dweights[part]
    groups, c_out, k = weight.shape
    places = geometry[8] * geometry[9]
    c_in = x.shape[0] // groups
    each = z.shape[0] > 1
    strips = np.empty(strips_size(geometry), x.dtype)
    columns_room = np.empty(k * block * places, x.dtype)
    tile_room = np.empty(c_out * block * places, x.dtype)
    more = np.empty((c_out, k), x.dtype)
    for low in range(start, stop, block):
        high = min(stop, low + block)
        wide = (high - low) * places
        columns = columns_room[: k * wide].reshape(k, wide)
        tile = tile_room[: c_out * wide].reshape(c_out, wide)
        for g in range(groups):
            for row in range(c_out):
                o = g * c_out + row
                for n in range(low, high):
                    da = tile[row, (n - low) * places : (n - low + 1) * places]
                    _gate_cotangent(dy[o, n], z[n if each else 0, o], da)
                    dbias[n, o] = add_up(da if gates_bias else dy[o, n])
                    dz[n, o] = inner(dy[o, n], ungated[o, n]) if keep else 0
            windows_to_columns(x, g * c_in, low, high, geometry, strips, columns)
            if low == start:
                np.dot(tile, columns.T, dweight[g])
            else:
                np.dot(tile, columns.T, more)
                for row in range(c_out):
                    for i in range(k):
                        dweight[g, row, i] += more[row, i]
            if need_dx:
                np.dot(weight[g].T, tile, columns)
                columns_to_windows(columns, g * c_in, low, high, geometry, strips, dx)


@parallel
def _pull(  # type: ignore[no-untyped-def]
    many, parts, block, dy, x, weight, z, gates_bias, keep, ungated, need_dx, geometry,
    dx, dweights, dbias, dz,
):  # fmt: skip
    args = (
        parts, block, dy, x, weight, z, gates_bias, keep, ungated, need_dx, geometry,
        dx, dweights, dbias, dz,
    )  # fmt: skip
    share_out(many, _pull_part, parts, args)


@twin(ops.conv2d)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    z: Array | None = None,
    *,
    on: str = "outputs",
    gates_bias: bool = True,
    stride: original.IntOrPair = 1,
    padding: original.IntOrPair = 0,
    dilation: original.IntOrPair = 1,
    groups: int = 1,
) -> tuple[Array, original.Conv2dResiduals]:
    """Lay out the windows of a few examples, multiply; gate the product while it is in cache."""
    check_arrays(x, weight, bias, z)
    strides, pads = original.pair("stride", stride, 1), original.pair("padding", padding, 0)
    steps = original.pair("dilation", dilation, 1)
    original.check_conv(x, weight, bias, z, on, groups)
    on_weights = z is not None and on == "weights"
    if on_weights and z is not None and z.ndim != weight.ndim:
        raise NotForKernel
    out_size = original.output_sizes(x, weight.shape[2:], strides, pads, steps)
    geometry = (*weight.shape[2:], *strides, *pads, *steps, *out_size)
    n, c_out = x.shape[0], weight.shape[0]

    maps = by_map(x)
    rows = _rows(weight if not on_weights else weight * z, groups)
    gates = gate_rows(None if on_weights else z, c_out, x.dtype)
    shift = np.zeros(c_out, x.dtype) if bias is None else packed(bias)
    y = np.empty((c_out, n, out_size[0] * out_size[1]), x.dtype)
    keep = z is not None and not on_weights
    ungated = np.empty_like(y) if keep else y
    parts, block = _parts(x, rows, out_size)
    _convolve(parts, block, maps, rows, shift, gates, gates_bias, keep, geometry, y, ungated)
    return _maps(y, out_size), original.Conv2dResiduals(
        maps.transpose(1, 0, 2, 3), weight, z, on, gates_bias, bias is not None,
        _maps(ungated, out_size) if keep else None, strides, pads, steps, groups,
    )  # fmt: skip


@twin(ops.conv2d_vjp)
def conv2d_vjp(
    dy: Array, residuals: original.Conv2dResiduals, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array | None, Array | None]:
    """Lay out the same windows again: from them dweight, over them dx."""
    x, weight, z, on, gates_bias, has_bias, ungated, stride, padding, dilation, groups = residuals
    check_arrays(dy, x, weight, z, ungated)
    out_size = original.output_sizes(x, weight.shape[2:], stride, padding, dilation)
    n, c_out = x.shape[0], weight.shape[0]
    original.check_cotangent(dy, (n, c_out, *out_size))
    on_weights = z is not None and on == "weights"
    if on_weights and z is not None and z.ndim != weight.ndim:
        raise NotForKernel
    geometry = (*weight.shape[2:], *stride, *padding, *dilation, *out_size)

    maps, cotangent = by_map(x), by_map(dy).reshape(c_out, n, -1)
    rows = _rows(weight if not on_weights else weight * z, groups)
    gates = gate_rows(None if on_weights else z, c_out, x.dtype)
    keep = ungated is not None
    before = cotangent if ungated is None else by_map(ungated).reshape(c_out, n, -1)
    parts, block = _parts(x, rows, out_size)
    dx = np.empty_like(maps) if need_dx else maps
    dweights = np.empty((parts, *rows.shape), x.dtype)
    dbias, dz = np.empty((n, c_out), x.dtype), np.empty((n, c_out), x.dtype)
    _pull(
        parts, block, cotangent, maps, rows, gates, gates_bias, keep, before, need_dx, geometry,
        dx, dweights, dbias, dz,
    )  # fmt: skip
    dweight = dweights.sum(axis=0).reshape(weight.shape)
    dx_maps = dx.transpose(1, 0, 2, 3) if need_dx else None
    own_dbias = dbias.sum(axis=0) if has_bias else None
    if z is None:
        return dx_maps, dweight, own_dbias, None
    if on_weights:
        return dx_maps, dweight * z, own_dbias, dweight * weight
    return dx_maps, dweight, own_dbias, dz if z.ndim == 2 else dz.sum(axis=0)


def _rows(weight: Array, groups: int) -> Array:
    """(G, C_out/G, K)."""
    return packed(weight).reshape(groups, weight.shape[0] // groups, -1)


def gate_rows(z: Array | None, c_out: int, dtype: Any) -> Array:
    """One row for all examples, or one for each."""
    return np.ones((1, c_out), dtype) if z is None else packed(z).reshape(-1, c_out)


def _maps(y: Array, out_size: tuple[int, int]) -> Array:
    return y.reshape(*y.shape[:2], *out_size).transpose(1, 0, 2, 3)


def _parts(x: Array, rows: Array, out_size: tuple[int, int]) -> tuple[int, int]:
    row_bytes = rows.shape[2] * out_size[0] * out_size[1] * x.itemsize
    return _count_parts(x.shape[0], row_bytes, rows.nbytes)
