"""Twins of `l0ref.ops.norm`: each channel is read as often as its formulas need, on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops import norm as original
from ..ops.conv import check_cotangent
from ._compile import inline, parallel, share_out
from ._registry import NotForKernel, check_arrays, packed, twin
from ._sums import add_up, add_up_squares, inner

Array = NDArray[Any]


@inline
def _batch_norm_channel(c, x, weight, bias, eps, given, normalised, y, mean, var, inv_std):  # type: ignore[no-untyped-def]
    m = x.shape[1]
    values = x[c]
    if not given:
        mean[c] = add_up(values) / m
        var[c] = add_up_squares(values, np.float64(mean[c])) / m
    mu, r = mean[c], x.dtype.type(1) / np.sqrt(var[c] + x.dtype.type(eps))
    w, b = weight[c], bias[c]
    inv_std[c] = r
    hat, out = normalised[c], y[c]
    for i in range(m):
        value = (values[i] - mu) * r
        hat[i] = value
        out[i] = value * w + b


@parallel
def _batch_norm(many, x, weight, bias, eps, given, normalised, y, mean, var, inv_std):  # type: ignore[no-untyped-def]
    args = (x, weight, bias, eps, given, normalised, y, mean, var, inv_std)
    share_out(many, _batch_norm_channel, x.shape[0], args)


@inline
def _batch_norm_channel_vjp(c, dy, normalised, inv_std, weight, given, dx, dweight, dbias):  # type: ignore[no-untyped-def]
    m = dy.shape[1]
    pulled, hat, out = dy[c], normalised[c], dx[c]
    total, along = add_up(pulled), inner(pulled, hat)
    dbias[c], dweight[c] = total, along
    w, r = weight[c], inv_std[c]
    if given:
        for i in range(m):
            out[i] = r * w * pulled[i]
        return
    mean_g, mean_gx = dy.dtype.type(total / m * w), dy.dtype.type(along / m * w)
    for i in range(m):
        out[i] = r * (pulled[i] * w - mean_g - hat[i] * mean_gx)


@parallel
def _batch_norm_vjp(many, dy, normalised, inv_std, weight, given, dx, dweight, dbias):  # type: ignore[no-untyped-def]
    args = (dy, normalised, inv_std, weight, given, dx, dweight, dbias)
    share_out(many, _batch_norm_channel_vjp, dy.shape[0], args)


@twin(ops.batch_norm)
def batch_norm(
    x: Array, weight: Array, bias: Array, *, eps: float = 1e-5
) -> tuple[Array, original.BatchNormResiduals]:
    """Three passes over a channel, the last of which writes both results."""
    check_arrays(x, weight, bias)
    original.check_norm(x, eps, weight=weight, bias=bias)
    n_values = x.size // x.shape[1]
    if n_values < 2:
        raise NotForKernel
    mean, var = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype)
    y, normalised, inv_std = _normalise(x, weight, bias, eps, False, mean, var)
    return y, original.BatchNormResiduals(normalised, inv_std, weight, mean, var, n_values)


@twin(ops.batch_norm_vjp)
def batch_norm_vjp(dy: Array, residuals: original.BatchNormResiduals) -> tuple[Array, Array, Array]:
    """Both sums in one pass over a channel, dx in another."""
    return _pull(dy, residuals, False)


@twin(ops.batch_norm_inference)
def batch_norm_inference(
    x: Array, weight: Array, bias: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> tuple[Array, original.BatchNormInferenceResiduals]:
    """One pass, which writes both results."""
    check_arrays(x, weight, bias, mean, var)
    original.check_norm(x, eps, weight=weight, bias=bias, mean=mean, var=var)
    if (var < 0).any():
        raise NotForKernel
    y, normalised, inv_std = _normalise(x, weight, bias, eps, True, packed(mean), packed(var))
    return y, original.BatchNormInferenceResiduals(normalised, inv_std, weight)


@twin(ops.batch_norm_inference_vjp)
def batch_norm_inference_vjp(
    dy: Array, residuals: original.BatchNormInferenceResiduals
) -> tuple[Array, Array, Array]:
    """Both sums in one pass over a channel, dx in another."""
    return _pull(dy, residuals, True)


def _normalise(
    x: Array, weight: Array, bias: Array, eps: float, given: bool, mean: Array, var: Array
) -> tuple[Array, Array, Array]:
    """y, x normalised, and 1 / sqrt(var + eps); unless they are given, mean and var are filled."""
    channels = _channels(x)
    normalised, y = np.empty_like(channels), np.empty_like(channels)
    inv_std = np.empty_like(mean)
    _batch_norm(
        channels, packed(weight), packed(bias), float(eps), given, normalised, y, mean, var, inv_std
    )
    return _maps(y, x.shape), _maps(normalised, x.shape), inv_std


def _pull(dy: Array, residuals: Any, given: bool) -> tuple[Array, Array, Array]:
    normalised, inv_std, weight = residuals[:3]
    check_arrays(dy, normalised, inv_std, weight)
    check_cotangent(dy, normalised.shape)
    # An infinite weight: the original multiplies before it adds up.
    if dy.ndim != 4 or not np.isfinite(weight).all():
        raise NotForKernel
    channels = _channels(dy)
    dx = np.empty_like(channels)
    dweight, dbias = np.empty_like(inv_std), np.empty_like(inv_std)
    _batch_norm_vjp(
        channels, _channels(normalised), packed(inv_std), packed(weight), given, dx, dweight, dbias
    )
    return _maps(dx, dy.shape), dweight, dbias


def _channels(x: Array) -> Array:
    """(C, N H W)."""
    if x.ndim != 4:  # units, not maps: too few numbers to share out
        raise NotForKernel
    return packed(x.transpose(1, 0, 2, 3)).reshape(x.shape[1], -1)


def _maps(a: Array, shape: tuple[int, ...]) -> Array:
    n, c, h, w = shape
    return a.reshape(c, n, h, w).transpose(1, 0, 2, 3)
