r"""Twins of `l0ref.ops.conv_block`: the maps before pooling are never stored.

Forward, a few examples' product is gated, rectified and pooled while it is in cache. What is kept
is, for each window, its greatest value and which place had it, or `NONE`: the rectifier has closed
the window.

Backward, a window of the pool has one place that feels it, if any. So its dy meets one window of x
only: dweight grows by dy times what that window holds, dx by dy times the weights. For a pool of
2 x 2 that is at most a fourth of the arithmetic of whole matrix products; the maps come last in
memory then, so that what a row of the kernel sees is one run of numbers.

What is not finite has rules of its own (0 times infinity is NaN, all over a map): such numbers, the
original takes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops import conv, pool
from ._compile import REASSOCIATE, inline, parallel, prange
from ._registry import TWINS, NotForKernel, check_arrays, packed, twin
from .conv import (
    PARTIALS,
    by_map,
    count_parts,
    gate_rows,
    new_maps,
    strips_size,
    windows_to_columns,
)

Array = NDArray[Any]
Gradients = tuple[Array | None, Array, Array | None, Array | None]

NONE = 255
"""The place of a window's greatest value where none is above 0."""

PARTS = 16
"""Parts that the examples are cut into, backward."""

LANES = 8
"""Rows of weights are filled up to a multiple of this, so that vectors fit."""


class Fused(NamedTuple):
    """What the twin of `conv_relu_pool_vjp` needs of the forward pass, and what the original."""

    arguments: tuple[Array, Array, Array | None, Array | None]  # x, weight, bias, z
    options: dict[str, Any]
    geometry: tuple[int, ...]
    pool: tuple[int, ...]
    winner: NDArray[np.uint8]  # (C_out, N, places): i kw + j in the window of the pool, or NONE
    ungated: Array  # (C_out, N, places): what z multiplied, there


@inline(fastmath=REASSOCIATE)
def _gated(source, shift, gate, gates_bias, out):  # type: ignore[no-untyped-def]
    """Add the bias, multiply by the gate; return 0, or NaN if a value is not finite."""
    zero = out.dtype.type(0)
    total = zero
    if gates_bias:
        for p in range(out.shape[0]):
            value = (source[p] + shift) * gate
            out[p] = value
            total += value * zero
    else:
        for p in range(out.shape[0]):
            value = source[p] * gate + shift
            out[p] = value
            total += value * zero
    return total


@inline(fastmath=REASSOCIATE)
def _not_finite(values):  # type: ignore[no-untyped-def]
    """0, or NaN if a value is not finite."""
    zero = values.dtype.type(0)
    total = zero
    for p in range(values.shape[0]):
        total += values[p] * zero
    return total


@inline()
def _forward_part(  # type: ignore[no-untyped-def]
    start, stop, block, x, weight, bias, z, gates_bias, keep, geometry, pool,
    y, winner, ungated,
):  # fmt: skip
    c_out, k = weight.shape
    h_out, w_out = geometry[8], geometry[9]
    ph, pw, s_h, s_w, h_pool, w_pool = pool
    places = h_out * w_out
    each = z.shape[0] > 1
    strips = np.empty(strips_size(geometry), x.dtype)
    columns_room = np.empty(k * block * places, x.dtype)
    tile_room = np.empty(c_out * block * places, x.dtype)
    gated = np.empty(places, x.dtype)
    # The windows that start anywhere are pooled, for vectors; then those wanted are picked.
    best = np.empty(s_h * (h_pool - 1) * w_out + s_w * (w_pool - 1) + 1, x.dtype)
    place = np.empty(best.shape[0], np.int32)
    offsets = np.empty(ph * pw, np.int64)
    for i in range(ph):
        for j in range(pw):
            offsets[i * pw + j] = i * w_out + j
    odd = x.dtype.type(0)
    for low in range(start, stop, block):
        high = min(stop, low + block)
        wide = (high - low) * places
        columns = columns_room[: k * wide].reshape(k, wide)
        tile = tile_room[: c_out * wide].reshape(c_out, wide)
        windows_to_columns(x, 0, low, high, geometry, strips, columns)
        np.dot(weight, columns, tile)
        for o in range(c_out):
            for n in range(low, high):
                source = tile[o, (n - low) * places : (n - low + 1) * places]
                odd += _gated(source, bias[o], z[n if each else 0, o], gates_bias, gated)
                for p in range(best.shape[0]):
                    best[p] = 0
                for p in range(best.shape[0]):
                    place[p] = NONE
                for candidate in range(ph * pw):
                    values, mine = gated[offsets[candidate] :], np.int32(candidate)
                    for p in range(best.shape[0]):
                        value, old, other = values[p], best[p], place[p]
                        best[p] = value if value > old else old
                        place[p] = mine if value > old else other
                out, out_winner, before = y[o, n], winner[o, n], ungated[o, n]
                shift = bias[o] if gates_bias else x.dtype.type(0)
                for h in range(h_pool):
                    for w in range(w_pool):
                        p = h * s_h * w_out + w * s_w
                        out[h * w_pool + w] = best[p]
                        out_winner[h * w_pool + w] = place[p]
                        if keep:
                            chosen = place[p]
                            before[h * w_pool + w] = (
                                source[p + offsets[chosen]] + shift if chosen != NONE else best[p]
                            )
    return odd


@parallel()
def _forward(  # type: ignore[no-untyped-def]
    parts, block, x, weight, bias, z, gates_bias, keep, geometry, pool, y, winner, ungated, odd
):
    n = x.shape[1]
    for part in prange(parts):
        odd[part] = _forward_part(
            part * n // parts, (part + 1) * n // parts, block, x, weight, bias, z, gates_bias, keep,
            geometry, pool, y, winner, ungated,
        )  # fmt: skip


@inline()
def _winners_part(  # type: ignore[no-untyped-def]
    start, stop, dy, winner, ungated, x, weight, z, gates_bias, keep, need_dx, geometry, pool,
    dx, dweight, dbias, dz,
):  # fmt: skip
    c_in, _, height, width = x.shape
    c_out = weight.shape[0]
    kh, _, s_h, s_w, p_h, p_w, d_h, _, _, _ = geometry
    ph, pw, q_h, q_w, h_pool, w_pool = pool
    run = weight.shape[1] // kh
    each = z.shape[0] > 1
    line = (width + 2 * p_w) * c_in
    # One example with its maps last: all that a row of a kernel sees lies in one piece.
    values = np.zeros((height + 2 * p_h) * line + LANES, x.dtype)
    slopes = np.zeros(values.shape[0] if need_dx else 1, x.dtype)
    offsets = np.empty(ph * pw, np.int64)
    for i in range(ph):
        for j in range(pw):
            offsets[i * pw + j] = i * s_h * line + j * s_w * c_in
    for o in range(c_out):
        for t in range(kh * run):
            dweight[o, t] = 0
    odd = x.dtype.type(0)
    for n in range(start, stop):
        for c in range(c_in):
            for h in range(height):
                row, source = values[(h + p_h) * line + p_w * c_in + c :], x[c, n, h]
                for w in range(width):
                    row[w * c_in] = source[w]
        if need_dx:
            for t in range(slopes.shape[0]):
                slopes[t] = 0
        for o in range(c_out):
            pulled, chosen, before = dy[o, n], winner[o, n], ungated[o, n]
            own, theta = dweight[o], weight[o]
            gate = z[n if each else 0, o]
            total, along = x.dtype.type(0), x.dtype.type(0)
            odd += _not_finite(pulled)
            for h in range(h_pool):
                for w in range(w_pool):
                    q = h * w_pool + w
                    if chosen[q] == NONE:
                        continue
                    total += pulled[q]
                    if keep:
                        along += pulled[q] * before[q]
                    da = pulled[q] * gate
                    if da == 0:
                        continue
                    base = h * q_h * s_h * line + w * q_w * s_w * c_in + offsets[chosen[q]]
                    for i in range(kh):
                        at = base + i * d_h * line
                        seen, out = values[at : at + run], own[i * run : (i + 1) * run]
                        for t in range(run):
                            out[t] += da * seen[t]
                    if need_dx:
                        for i in range(kh):
                            at = base + i * d_h * line
                            seen, out = theta[i * run : (i + 1) * run], slopes[at : at + run]
                            for t in range(run):
                                out[t] += da * seen[t]
            dbias[n, o] = total * gate if gates_bias else total
            dz[n, o] = along
        if need_dx:
            for c in range(c_in):
                for h in range(height):
                    row, source = dx[c, n, h], slopes[(h + p_h) * line + p_w * c_in + c :]
                    for w in range(width):
                        row[w] = source[w * c_in]
    return odd


@parallel()
def _winners(  # type: ignore[no-untyped-def]
    parts, dy, winner, ungated, x, weight, z, gates_bias, keep, need_dx, geometry, pool,
    dx, dweight, dbias, dz, odd,
):  # fmt: skip
    n = x.shape[1]
    for part in prange(parts):
        odd[part] = _winners_part(
            part * n // parts, (part + 1) * n // parts, dy, winner, ungated, x, weight, z,
            gates_bias, keep, need_dx, geometry, pool, dx, dweight[part], dbias, dz,
        )  # fmt: skip


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
    out_size = conv.output_sizes(x, weight.shape[2:], strides, pads, steps)
    n, c_out = x.shape[0], weight.shape[0]
    # Only the shape of what is pooled matters.
    kernel, pool_strides, pool_pads, pool_size = pool.check_pool(
        np.broadcast_to(x[0, 0, 0, 0], (n, c_out, *out_size)), kernel_size, **pooling
    )
    one_of_four = pool_strides[0] * pool_strides[1] >= 4
    simple = groups == 1 and steps[1] == 1 and not any(pool_pads) and one_of_four
    if not (simple and kernel[0] * kernel[1] <= NONE):
        a, of_conv = _twin(ops.conv2d)(x, weight, bias, z, **options)
        rectified, positive = _twin(ops.relu)(a)
        y, of_pool = _twin(ops.max_pool2d)(rectified, kernel_size, **pooling)
        return y, ops.conv_block.ConvReluPoolResiduals(of_conv, positive, of_pool)

    geometry = (*weight.shape[2:], *strides, *pads, *steps, *out_size)
    pool_geometry = (*kernel, *pool_strides, *pool_size)
    maps, rows = by_map(x), packed(weight).reshape(c_out, -1)
    gates = gate_rows(z, c_out, x.dtype)
    shift = np.zeros(c_out, x.dtype) if bias is None else packed(bias)
    y = new_maps(n, c_out, pool_size, x.dtype)
    rows_of_y = y.transpose(1, 0, 2, 3).reshape(c_out, n, -1)
    winner = np.empty(rows_of_y.shape, np.uint8)
    ungated = rows_of_y if z is None else np.empty_like(rows_of_y)
    parts, block = count_parts(n, rows.shape[1] * out_size[0] * out_size[1] * x.itemsize, 1)
    odd = np.empty(parts, x.dtype)
    _forward(
        parts, block, maps, rows, shift, gates, gates_bias, z is not None, geometry, pool_geometry,
        rows_of_y, winner, ungated, odd,
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
    gates = gate_rows(z, c_out, x.dtype)
    dbias, dz = np.empty((n, c_out), x.dtype), np.empty((n, c_out), x.dtype)
    c_in, kh, kw = weight.shape[1:]
    run = kw * c_in
    dx = np.empty_like(maps) if need_dx else maps
    rows = np.zeros((c_out, kh, -(-run // LANES) * LANES), x.dtype)
    rows[:, :, :run] = weight.transpose(0, 2, 3, 1).reshape(c_out, kh, run)
    rows = rows.reshape(c_out, -1)
    parts = min(n, PARTS, max(4, PARTIALS // rows.nbytes))
    dweights, odd = np.empty((parts, *rows.shape), x.dtype), np.empty(parts, x.dtype)
    _winners(
        parts, cotangent, winner, ungated, maps, rows, gates, options["gates_bias"], z is not None,
        need_dx, geometry, pool_geometry, dx, dweights, dbias, dz, odd,
    )  # fmt: skip
    if odd.any():
        return by_original()
    own = dweights.sum(axis=0).reshape(c_out, kh, -1)[:, :, :run].reshape(c_out, kh, kw, c_in)
    dweight = np.ascontiguousarray(own.transpose(0, 3, 1, 2))
    return (
        dx.transpose(1, 0, 2, 3) if need_dx else None,
        dweight,
        None if bias is None else dbias.sum(axis=0),
        None if z is None else dz if z.ndim == 2 else dz.sum(axis=0),
    )


def _twin(original: Any) -> Any:
    return TWINS.get(original, original)
