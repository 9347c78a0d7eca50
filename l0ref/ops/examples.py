r"""A matrix product in which each example reads what its own gates leave open.

With a draw for each example there may be no unit that is closed for the whole minibatch, though
most gates are closed. Then no rows of the weights can be left out for all; but each example can go
through its own open rows,

.. math:: y_{no} = \sum_{i:\, z_{ni} \ne 0} x_{ni}\, z_{ni}\, W_{io} .

A product of whole matrices runs several times as fast for each multiplication, so this pays only
where few gates are open.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .conv import check_cotangent

Array = NDArray[Any]


class ExampleMatmulResiduals(NamedTuple):
    """What `example_matmul_vjp` needs of the forward pass."""

    x: Array
    weight: Array
    z: Array


def example_matmul(x: Array, weight: Array, z: Array) -> tuple[Array, ExampleMatmulResiduals]:
    r"""Multiply each example by the rows of the weights that its own gates leave open.

    Where a gate is 0 neither x nor the weights are looked at.

    Parameters
    ----------
    x : array, (N, D_in)
    weight : array, (D_in, D_out)
    z : array, (N, D_in)
        Each example's gates.

    Returns
    -------
    y : array, (N, D_out)
    residuals : ExampleMatmulResiduals

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> x = np.array([[1.0, np.nan], [2.0, 3.0]])
    >>> example_matmul(x, np.array([[1.0], [10.0]]), np.array([[1.0, 0.0], [0.5, 1.0]]))[0]
    array([[ 1.],
           [31.]])
    """
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        raise ValueError(
            "x must have shape (N, D_in) and weight (D_in, D_out), "
            f"got {x.shape} and {weight.shape}"
        )
    if z.shape != x.shape:
        raise ValueError(f"z must have the shape of x, {x.shape}, got {z.shape}")
    y = np.zeros((len(x), weight.shape[1]), np.result_type(x, weight, z))
    for n, gates in enumerate(z):
        own = np.flatnonzero(gates)
        y[n] = (x[n, own] * gates[own]) @ weight[own]
    return y, ExampleMatmulResiduals(x, weight, z)


def example_matmul_vjp(
    dy: Array, residuals: ExampleMatmulResiduals, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array]:
    r"""Pull dy back through `example_matmul`.

    With :math:`s_{ni} = \sum_o W_{io}\, dy_{no}`, where the gate is open,

    .. math:: dW_{io} = \sum_{n:\, z_{ni} \ne 0} x_{ni}\, z_{ni}\, dy_{no}, \quad
              dx_{ni} = z_{ni}\, s_{ni}, \quad dz_{ni} = x_{ni}\, s_{ni} ;

    where it is closed, dx and dz are exact zeros. (dz is not the derivative there, which nobody
    needs: a closed gate is flat in its log alpha.)

    Parameters
    ----------
    dy : array, (N, D_out)
    residuals : ExampleMatmulResiduals
    need_dx : bool, optional
        Whether anything wants dx.

    Returns
    -------
    dx, dweight, dz : arrays
        Of the shapes of x, weight and z; dx is None where it is not needed.
    """
    x, weight, z = residuals
    check_cotangent(dy, (len(x), weight.shape[1]))
    dtype = np.result_type(dy, x, weight, z)
    dweight, dx, dz = (np.zeros(a.shape, dtype) for a in (weight, x, z))
    for n, gates in enumerate(z):
        own = np.flatnonzero(gates)
        dweight[own] += np.outer(x[n, own] * gates[own], dy[n])
        slopes = weight[own] @ dy[n]
        dx[n, own], dz[n, own] = gates[own] * slopes, x[n, own] * slopes
    return dx if need_dx else None, dweight, dz
