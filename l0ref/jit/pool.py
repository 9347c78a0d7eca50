"""Twins of `l0ref.ops.pool`: each map on its own, one image after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops import pool as original
from ..ops.conv import IntOrPair, check_cotangent
from ._compile import inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, twin
from ._sums import add_up
from .conv import by_map, new_maps

Array = NDArray[Any]

PLACES = 256
"""Elements of a window, at most: which of them is the greatest is kept in a byte."""

MOST = 16
"""If the windows lie further apart than one in so many, those between them cost too much."""


@inline
def _greatest(image, geometry, y, winner):  # type: ignore[no-untyped-def]
    """Window after window, by the rules for what is not finite."""
    kh, kw, s_h, s_w, p_h, p_w, h_out, w_out = geometry
    height, width = image.shape
    for h in range(h_out):
        top = s_h * h - p_h
        upper, lower = max(0, top), min(height, top + kh)
        for w in range(w_out):
            left = s_w * w - p_w
            first, last = max(0, left), min(width, left + kw)
            best, at = image[upper, first], (upper - top) * kw + first - left
            for a in range(upper, lower):
                for b in range(first, last):
                    value = image[a, b]
                    # The first NaN wins, and keeps what it has won.
                    if best == best and (value > best or value != value):
                        best, at = value, (a - top) * kw + b - left
            y[h, w] = best
            winner[h, w] = at


@inline
def _framed(image, p_h, p_w, out):  # type: ignore[no-untyped-def]
    """Copy the image into its padding; return whether all of it is finite."""
    height, width = image.shape
    line = width + 2 * p_w
    if p_h or p_w:
        for p in range(out.shape[0]):
            out[p] = -np.inf
    odd = False
    for h in range(height):
        source, row = image[h], out[(h + p_h) * line + p_w :]
        for w in range(width):
            value = source[w]
            row[w] = value
            odd |= value - value != 0
    return not odd


@inline
def _greatest_of_finite(values, geometry, line, y, winner):  # type: ignore[no-untyped-def]
    """One element of all windows at once, also of those between the ones that are wanted."""
    kh, kw, s_h, s_w, _, _, h_out, w_out = geometry
    count = s_h * (h_out - 1) * line + s_w * (w_out - 1) + 1
    best, place = np.empty(count, values.dtype), np.empty(count, np.int32)
    for p in range(count):
        best[p] = -np.inf
    for p in range(count):
        place[p] = 0
    for mine in range(kh * kw):
        seen, own = values[mine // kw * line + mine % kw :], np.int32(mine)
        for p in range(count):
            value, old, other = seen[p], best[p], place[p]
            best[p] = value if value > old else old
            place[p] = own if value > old else other
    for h in range(h_out):
        for w in range(w_out):
            p = s_h * h * line + s_w * w
            y[h, w] = best[p]
            winner[h, w] = place[p]


@inline
def _max_pool_image(i, x, geometry, y, winner):  # type: ignore[no-untyped-def]
    height, width = x.shape[1], x.shape[2]
    p_h, p_w = geometry[4], geometry[5]
    line = width + 2 * p_w
    values = np.empty((height + 2 * p_h) * line, x.dtype)
    if geometry[2] * geometry[3] <= MOST and _framed(x[i], p_h, p_w, values):
        _greatest_of_finite(values, geometry, line, y[i], winner[i])
    else:
        _greatest(x[i], geometry, y[i], winner[i])


@parallel
def _max_pool(many, x, geometry, y, winner):  # type: ignore[no-untyped-def]
    share_out(many, _max_pool_image, x.shape[0], (x, geometry, y, winner))


@inline
def _max_pool_image_vjp(i, dy, winner, geometry, dx):  # type: ignore[no-untyped-def]
    _, kw, s_h, s_w, p_h, p_w, h_out, w_out = geometry
    out = dx[i]
    for a in range(out.shape[0]):
        for b in range(out.shape[1]):
            out[a, b] = 0
    for h in range(h_out):
        for w in range(w_out):
            place = np.int64(winner[i, h, w])
            a = place // kw
            out[s_h * h - p_h + a, s_w * w - p_w + place - a * kw] += dy[i, h, w]


@parallel
def _max_pool_vjp(many, dy, winner, geometry, dx):  # type: ignore[no-untyped-def]
    share_out(many, _max_pool_image_vjp, dx.shape[0], (dy, winner, geometry, dx))


@inline
def _avg_pool_image(i, x, geometry, y):  # type: ignore[no-untyped-def]
    kh, kw, s_h, s_w, p_h, p_w, h_out, w_out = geometry
    height, width, number = x.shape[1], x.shape[2], x.dtype.type
    values = x[i].reshape(-1)
    for h in range(h_out):
        upper, lower = max(0, s_h * h - p_h), min(height, s_h * h - p_h + kh)
        for w in range(w_out):
            left = s_w * w - p_w
            first, last = max(0, left), min(width, left + kw)
            if last - first == width:  # rows follow each other
                total = number(add_up(values[upper * width : lower * width]))
            else:
                total = number(0)
                for a in range(upper, lower):
                    seen = values[a * width + first : a * width + last]
                    for b in range(seen.shape[0]):
                        total += seen[b]
            y[i, h, w] = total / number(kh * kw)


@parallel
def _avg_pool(many, x, geometry, y):  # type: ignore[no-untyped-def]
    share_out(many, _avg_pool_image, x.shape[0], (x, geometry, y))


@inline
def _avg_pool_image_vjp(i, dy, geometry, dx):  # type: ignore[no-untyped-def]
    kh, kw, s_h, s_w, p_h, p_w, h_out, w_out = geometry
    height, width = dx.shape[1], dx.shape[2]
    for a in range(height):
        for b in range(width):
            dx[i, a, b] = 0
    for h in range(h_out):
        for w in range(w_out):
            share = dy[i, h, w] / dx.dtype.type(kh * kw)
            first, last = max(0, s_w * w - p_w), min(width, s_w * w - p_w + kw)
            for a in range(max(0, s_h * h - p_h), min(height, s_h * h - p_h + kh)):
                out = dx[i, a, first:last]
                for b in range(out.shape[0]):
                    out[b] += share


@parallel
def _avg_pool_vjp(many, dy, geometry, dx):  # type: ignore[no-untyped-def]
    share_out(many, _avg_pool_image_vjp, dx.shape[0], (dy, geometry, dx))


@twin(ops.max_pool2d)
def max_pool2d(
    x: Array,
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
) -> tuple[Array, original.PoolResiduals]:
    """One pass over x, which finds the greatest and its place together."""
    check_arrays(x)
    kernel, strides, pads, out_size = original.check_pool(x, kernel_size, stride, padding)
    if kernel[0] * kernel[1] > PLACES:
        raise NotForKernel
    n, c = x.shape[:2]
    y, winner = new_maps(n, c, out_size, x.dtype), new_maps(n, c, out_size, np.uint8)
    geometry = (*kernel, *strides, *pads, *out_size)
    _max_pool(_images(x), geometry, _images(y), _images(winner))
    return y, original.PoolResiduals(x.shape, out_size, kernel, strides, pads, winner)


@twin(ops.max_pool2d_vjp)
def max_pool2d_vjp(dy: Array, residuals: original.PoolResiduals) -> Array:
    """Scatter."""
    shape, out_size, kernel, strides, pads, winner = residuals
    check_arrays(dy)
    if winner is None or winner.dtype != np.uint8:
        raise NotForKernel
    check_cotangent(dy, (*shape[:2], *out_size))
    n, c, *size = shape
    dx = new_maps(n, c, size, dy.dtype)
    geometry = (*kernel, *strides, *pads, *out_size)
    _max_pool_vjp(_images(dy), _images(winner), geometry, _images(dx))
    return dx


@twin(ops.avg_pool2d)
def avg_pool2d(
    x: Array,
    kernel_size: IntOrPair,
    *,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
) -> tuple[Array, original.PoolResiduals]:
    """Add up each window."""
    check_arrays(x)
    kernel, strides, pads, out_size = original.check_pool(x, kernel_size, stride, padding)
    n, c = x.shape[:2]
    y = new_maps(n, c, out_size, x.dtype)
    _avg_pool(_images(x), (*kernel, *strides, *pads, *out_size), _images(y))
    return y, original.PoolResiduals(x.shape, out_size, kernel, strides, pads, None)


@twin(ops.avg_pool2d_vjp)
def avg_pool2d_vjp(dy: Array, residuals: original.PoolResiduals) -> Array:
    """Add each share where it belongs."""
    shape, out_size, kernel, strides, pads, _ = residuals
    check_arrays(dy)
    check_cotangent(dy, (*shape[:2], *out_size))
    n, c, *size = shape
    dx = new_maps(n, c, size, dy.dtype)
    _avg_pool_vjp(_images(dy), (*kernel, *strides, *pads, *out_size), _images(dx))
    return dx


def _images(a: Array) -> Array:
    """(C N, H, W)."""
    return by_map(a).reshape(-1, *a.shape[2:])
