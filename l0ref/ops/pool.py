"""Pooling: one number for each window, its greatest or its mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .conv import (
    IntOrPair,
    Pair,
    add_windows,
    check_cotangent,
    output_sizes,
    pair,
    sliding_windows,
)

Array = NDArray[Any]


class PoolResiduals(NamedTuple):
    """What `max_pool2d_vjp` and `avg_pool2d_vjp` need of the forward pass."""

    shape: tuple[int, ...]  # of x
    out_size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    winner: NDArray[np.intp] | None  # which element i kw + j of each window is the greatest


def max_pool2d(
    x: Array, kernel_size: IntOrPair, *, stride: IntOrPair | None = None, padding: IntOrPair = 0
) -> tuple[Array, PoolResiduals]:
    r"""Greatest element of each window.

    .. math:: y_{nchw} = \max_{i < k_h,\, j < k_w} x_{n,\,c,\;s h + i - p,\;s w + j - p}

    over the elements inside x: the padding never wins. A NaN in a window makes its maximum NaN.

    Parameters
    ----------
    x : array, (N, C, H, W)
    kernel_size : int or pair of int
        A pair is (along H, along W), here and below.
    stride : int or pair of int, optional
        By default kernel_size: windows side by side.
    padding : int or pair of int, optional
        At most half of kernel_size, so that each window sees something of x.

    Returns
    -------
    y : array, (N, C, H_out, W_out)
        With `conv_output_size` of each axis: rows and columns left over at the end are not seen.
    residuals : PoolResiduals

    Raises
    ------
    ValueError
        If x is not of four axes, a number is out of range, or the kernel does not fit.

    Examples
    --------
    >>> y, _ = max_pool2d(np.array([[[[1.0, 5.0, 2.0], [0.0, 3.0, 9.0]]]]), 2)
    >>> y
    array([[[[5.]]]])
    """
    kernel, strides, pads, out_size = check_pool(x, kernel_size, stride, padding)
    n, c = x.shape[:2]
    flat = (n, c, kernel[0] * kernel[1], *out_size)
    windows = sliding_windows(x, kernel, strides, pads, fill=-np.inf).reshape(flat)
    y = windows.max(axis=2)
    # A window may be -inf all over, and then equals its padding: only elements of x may win.
    inside = sliding_windows(np.ones((1, 1, *x.shape[2:]), bool), kernel, strides, pads)
    greatest = (windows == y[:, :, None]) | np.isnan(windows)
    greatest &= inside.reshape(1, 1, *flat[2:])
    winner = greatest.argmax(axis=2)  # the first that is True
    return y, PoolResiduals(x.shape, out_size, kernel, strides, pads, winner)


def max_pool2d_vjp(dy: Array, residuals: PoolResiduals) -> Array:
    r"""Pull dy back through `max_pool2d`: each window hands its dy to its greatest element.

    Where that is one element alone, y is that element nearby too, and

    .. math:: dx_{ncab} = \sum_{(h, w):\; (a, b) \text{ wins}} dy_{nchw} .

    In a tie y has no derivative; by convention (PyTorch's too) all of dy goes to the first of the
    greatest in row-major order. Where y is NaN it goes to the first NaN.

    Parameters
    ----------
    dy : array, (N, C, H_out, W_out)
    residuals : PoolResiduals

    Returns
    -------
    dx : array, (N, C, H, W)

    Raises
    ------
    ValueError
        If dy does not have the shape of y.
    """
    shape, out_size, kernel, stride, padding, winner = residuals
    if winner is None:
        raise ValueError("residuals must be those of max_pool2d, got those of avg_pool2d")
    n, c = shape[:2]
    check_cotangent(dy, (n, c, *out_size))
    place = np.arange(kernel[0] * kernel[1])[:, None, None]
    d_windows = np.where(winner[:, :, None] == place, dy[:, :, None], 0)
    d_windows = d_windows.reshape(n, c, *kernel, *out_size)
    return add_windows(d_windows, shape, stride, padding)


def avg_pool2d(
    x: Array, kernel_size: IntOrPair, *, stride: IntOrPair | None = None, padding: IntOrPair = 0
) -> tuple[Array, PoolResiduals]:
    r"""Mean of each window.

    .. math:: y_{nchw} = \frac{1}{k_h k_w} \sum_{i < k_h,\, j < k_w}
              x_{n,\,c,\;s h + i - p,\;s w + j - p}

    with zeros beyond the border. The padding counts: a window half outside is divided by all of
    k_h k_w (PyTorch's default, ``count_include_pad=True``).

    Parameters
    ----------
    x : array, (N, C, H, W)
    kernel_size : int or pair of int
        A pair is (along H, along W), here and below.
    stride : int or pair of int, optional
        By default kernel_size: windows side by side.
    padding : int or pair of int, optional
        At most half of kernel_size, so that each window sees something of x.

    Returns
    -------
    y : array, (N, C, H_out, W_out)
        With `conv_output_size` of each axis: rows and columns left over at the end are not seen.
    residuals : PoolResiduals

    Raises
    ------
    ValueError
        If x is not of four axes, a number is out of range, or the kernel does not fit.

    Examples
    --------
    >>> y, _ = avg_pool2d(np.array([[[[1.0, 5.0, 2.0], [0.0, 3.0, 9.0]]]]), 2)
    >>> y
    array([[[[2.25]]]])
    """
    kernel, strides, pads, out_size = check_pool(x, kernel_size, stride, padding)
    y = sliding_windows(x, kernel, strides, pads).sum(axis=(2, 3)) / (kernel[0] * kernel[1])
    return y, PoolResiduals(x.shape, out_size, kernel, strides, pads, None)


def avg_pool2d_vjp(dy: Array, residuals: PoolResiduals) -> Array:
    r"""Pull dy back through `avg_pool2d`: each element of a window gets an equal share of its dy.

    .. math:: dx_{ncab} = \frac{1}{k_h k_w} \sum_{(h, w):\; (a, b) \text{ is seen}} dy_{nchw}

    Parameters
    ----------
    dy : array, (N, C, H_out, W_out)
    residuals : PoolResiduals

    Returns
    -------
    dx : array, (N, C, H, W)

    Raises
    ------
    ValueError
        If dy does not have the shape of y.
    """
    shape, out_size, kernel, stride, padding, _ = residuals
    n, c = shape[:2]
    check_cotangent(dy, (n, c, *out_size))
    share = dy / (kernel[0] * kernel[1])
    d_windows = np.broadcast_to(share[:, :, None, None], (n, c, *kernel, *out_size))
    return add_windows(d_windows, shape, stride, padding)


def check_pool(
    x: Array, kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair
) -> tuple[Pair, Pair, Pair, Pair]:
    """Kernel, stride, padding and (H_out, W_out), checked."""
    if x.ndim != 4:
        raise ValueError(f"x must have shape (N, C, H, W), got {x.shape}")
    kernel = pair("kernel_size", kernel_size, 1)
    strides = kernel if stride is None else pair("stride", stride, 1)
    pads = pair("padding", padding, 0)
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        raise ValueError(
            f"padding must be at most half of kernel_size, else a window may see nothing of x: "
            f"got padding {padding} for kernel_size {kernel_size}"
        )
    return kernel, strides, pads, output_sizes(x, kernel, strides, pads)
