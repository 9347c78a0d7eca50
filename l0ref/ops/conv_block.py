"""Convolution, rectifier and max pooling in a row: the block that a LeNet is made of."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from .conv import Conv2dResiduals, IntOrPair, conv2d, conv2d_vjp
from .pool import PoolResiduals, max_pool2d, max_pool2d_vjp
from .relu import relu, relu_vjp

Array = NDArray[Any]


class ConvReluPoolResiduals(NamedTuple):
    """What `conv_relu_pool_vjp` needs of the forward pass: what each of the three needs."""

    conv: Conv2dResiduals
    relu: Array
    pool: PoolResiduals


def conv_relu_pool(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    z: Array | None = None,
    *,
    gates_bias: bool = True,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    kernel_size: IntOrPair,
    pool_stride: IntOrPair | None = None,
    pool_padding: IntOrPair = 0,
) -> tuple[Array, ConvReluPoolResiduals]:
    r"""Gated convolution, then the rectifier, then max pooling.

    .. math:: y = \operatorname{maxpool}\big(\max(a, 0)\big), \qquad
              a = ((x \star W) + b)\, z \quad\text{or}\quad (x \star W)\, z + b

    They are one op because they can be computed together: the maps before pooling, the largest
    arrays of a LeNet, then never have to be stored.

    Parameters
    ----------
    x, weight, bias
        As in `conv2d`.
    z : array, (C_out,) or (N, C_out), optional
        Gates on the output maps; none means all 1.
    gates_bias, stride, padding, dilation, groups
        As in `conv2d`.
    kernel_size, pool_stride, pool_padding
        The ``kernel_size``, ``stride`` and ``padding`` of `max_pool2d`.

    Returns
    -------
    y : array, (N, C_out, H_out, W_out)
    residuals : ConvReluPoolResiduals

    Raises
    ------
    ValueError
        Where `conv2d` or `max_pool2d` does.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, -2.0, 3.0, 0.5], [0.0, 1.0, -1.0, 4.0]]]])
    >>> y, _ = conv_relu_pool(x, np.array([[[[-1.0]]]]), kernel_size=2)
    >>> y
    array([[[[2., 1.]]]])
    """
    a, conv = conv2d(
        x,
        weight,
        bias,
        z,
        gates_bias=gates_bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    rectified, positive = relu(a)
    y, pool = max_pool2d(rectified, kernel_size, stride=pool_stride, padding=pool_padding)
    return y, ConvReluPoolResiduals(conv, positive, pool)


def conv_relu_pool_vjp(
    dy: Array, residuals: ConvReluPoolResiduals, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array | None, Array | None]:
    """Pull dy back through `conv_relu_pool`: the three VJPs, last op first.

    Parameters
    ----------
    dy : array, (N, C_out, H_out, W_out)
    residuals : ConvReluPoolResiduals
    need_dx : bool, optional
        Whether anything wants dx; nothing does in a network's first layer.

    Returns
    -------
    dx, dweight, dbias, dz : arrays or None
        As of `conv2d_vjp`.

    Raises
    ------
    ValueError
        If dy does not have the shape of y.
    """
    conv, positive, pool = residuals
    da = relu_vjp(max_pool2d_vjp(dy, pool), positive)
    return conv2d_vjp(da, conv, need_dx=need_dx)
