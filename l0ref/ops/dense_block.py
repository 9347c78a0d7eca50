"""Dense layer and rectifier in a row: the block that a perceptron is made of."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from .conv import check_cotangent
from .dense import DenseResiduals, dense, dense_vjp
from .relu import relu, relu_vjp

Array = NDArray[Any]


class DenseReluResiduals(NamedTuple):
    """What `dense_relu_vjp` needs of the forward pass: what each of the two needs."""

    dense: DenseResiduals
    positive: Array


def dense_relu(
    x: Array,
    weight: Array,
    bias: Array,
    z: Array | None = None,
    *,
    on: str = "inputs",
    gates_bias: bool = True,
) -> tuple[Array, DenseReluResiduals]:
    r"""Gated affine map, then the rectifier: :math:`y = \max(a, 0)`, a the output of `dense`.

    They are one op because they can be computed together: each block of a is rectified while it is
    at hand.

    Parameters
    ----------
    x, weight, bias, z, on, gates_bias
        As in `dense`.

    Returns
    -------
    y : array, (N, D_out)
    residuals : DenseReluResiduals

    Raises
    ------
    ValueError
        Where `dense` does.

    Examples
    --------
    >>> import numpy as np
    >>> x, weight = np.array([[1.0, 2.0]]), np.array([[1.0, -1.0], [1.0, -1.0]])
    >>> y, _ = dense_relu(x, weight, bias=np.array([0.5, 0.5]), z=np.array([1.0, 0.0]))
    >>> y
    array([[1.5, 0. ]])
    """
    a, residuals = dense(x, weight, bias, z, on=on, gates_bias=gates_bias)
    y, positive = relu(a)
    return y, DenseReluResiduals(residuals, positive)


def dense_relu_vjp(
    dy: Array, residuals: DenseReluResiduals, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array, Array | None]:
    """Pull dy back through `dense_relu`: the two VJPs, last op first.

    Parameters
    ----------
    dy : array, (N, D_out)
    residuals : DenseReluResiduals
    need_dx : bool, optional
        Whether anything wants dx; nothing does in a network's first layer.

    Returns
    -------
    dx, dweight, dbias, dz : arrays or None
        As of `dense_vjp`.

    Raises
    ------
    ValueError
        If dy does not have the shape of y.
    """
    check_cotangent(dy, residuals.positive.shape)
    return dense_vjp(relu_vjp(dy, residuals.positive), residuals.dense, need_dx=need_dx)
