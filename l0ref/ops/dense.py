"""A dense layer with gates on its inputs, its weights or its outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class DenseResiduals(NamedTuple):
    """What `dense_vjp` needs of the forward pass."""

    x: Array
    weight: Array
    z: Array | None
    on: str
    ungated: Array | None  # what z multiplied, kept for gates on the outputs only
    gates_bias: bool


def dense(
    x: Array,
    weight: Array,
    bias: Array,
    z: Array | None = None,
    *,
    on: str = "inputs",
    gates_bias: bool = True,
) -> tuple[Array, DenseResiduals]:
    r"""Gated affine map.

    ===========  =================================  ======================================
    on           y                                  shape of z
    ===========  =================================  ======================================
    inputs       (x * z) @ weight + bias            (D_in,) or (N, D_in)
    weights      x @ (weight * z) + bias            (D_in, D_out) or (N, D_in, D_out)
    outputs      (x @ weight + bias) * z            (D_out,) or (N, D_out)
    ===========  =================================  ======================================

    The longer shape of z is one draw of the gates for each example. Gates on outputs switch the
    bias off too, unless gates_bias is False: then y = (x @ weight) * z + bias. The others leave it
    on.

    Parameters
    ----------
    x : array, (N, D_in)
    weight : array, (D_in, D_out)
    bias : array, (D_out,)
    z : array, optional
        Gates; none means all 1.
    on : {"inputs", "weights", "outputs"}, optional
    gates_bias : bool, optional
        Whether gates on the outputs multiply the bias too.

    Returns
    -------
    y : array, (N, D_out)
    residuals : DenseResiduals

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    _check(x, weight, bias, z, on)
    ungated = None
    if z is None:
        y = x @ weight + bias
    elif on == "inputs":
        y = (x * z) @ weight + bias
    elif on == "outputs":
        ungated = x @ weight + bias if gates_bias else x @ weight
        y = ungated * z
        if not gates_bias:
            y = y + bias
    elif z.ndim == 2:
        y = x @ (weight * z) + bias
    else:
        y = np.matmul(x[:, None, :], weight * z)[:, 0, :] + bias
    return y, DenseResiduals(x, weight, z, on, ungated, gates_bias)


def dense_vjp(
    dy: Array, residuals: DenseResiduals, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array, Array | None]:
    r"""Pull dy back through `dense`.

    Gates on the inputs or on the weights make a plain layer with the weights :math:`V_{io} = z_i
    W_{io}` or :math:`V_{io} = z_{io} W_{io}`, so that

    .. math:: dx_{ni} = \sum_o dy_{no} V_{io}, \quad dV_{io} = \sum_n x_{ni}\, dy_{no}, \quad
              db_o = \sum_n dy_{no}

    and from V the product rule gives :math:`dW = dV\,z` and :math:`dz = dV\,W`, summed over the
    outputs where they share a gate, :math:`dz_i = \sum_o dV_{io} W_{io}`. One draw an example keeps
    the n of dV until it has met W or z; for gates on the inputs that is

    .. math:: dW_{io} = \sum_n x_{ni} z_{ni}\, dy_{no}, \quad
              dz_{ni} = x_{ni} \sum_o dy_{no} W_{io} .

    With gates on the outputs, :math:`y = a z` with the plain layer's output a: :math:`da = dy\,z`,
    :math:`dz = \sum_n dy\,a`. A bias that the gates leave alone is not in a but added after it:
    :math:`db = \sum_n dy`, where it is :math:`\sum_n da` else.

    Parameters
    ----------
    dy : array, (N, D_out)
    residuals : DenseResiduals
    need_dx : bool, optional
        Whether anything wants dx; nothing does in a network's first layer.

    Returns
    -------
    dx, dweight, dbias : arrays
        Of the shapes of x, weight and bias; dx is None where it is not needed.
    dz : array or None
        Of the shape of z.
    """
    x, weight, z, on, ungated, gates_bias = residuals
    if dy.shape != (x.shape[0], weight.shape[1]):
        raise ValueError(f"dy must have shape {(x.shape[0], weight.shape[1])}, got {dy.shape}")
    if z is None:
        return dy @ weight.T if need_dx else None, x.T @ dy, dy.sum(axis=0), None
    if on == "outputs":
        assert ungated is not None
        da, dz = dy * z, dy * ungated
        dbias = (da if gates_bias else dy).sum(axis=0)
        dx = da @ weight.T if need_dx else None
        return dx, x.T @ da, dbias, dz if z.ndim == 2 else dz.sum(axis=0)
    dbias = dy.sum(axis=0)
    if on == "inputs" and z.ndim == 2:
        dxz = dy @ weight.T
        return dxz * z if need_dx else None, (x * z).T @ dy, dbias, dxz * x
    if on == "inputs" or z.ndim == 2:
        by_weight = z[:, None] if on == "inputs" else z
        dv = x.T @ dy
        dz = dv * weight
        if on == "inputs":  # what all outputs have in common may come after the sum
            dx = (dy @ weight.T) * z if need_dx else None
            return dx, dv * by_weight, dbias, dz.sum(axis=1)
        return dy @ (weight * by_weight).T if need_dx else None, dv * by_weight, dbias, dz
    dv = x[:, :, None] * dy[:, None, :]
    dx = np.matmul(weight * z, dy[:, :, None])[:, :, 0] if need_dx else None
    return dx, (dv * z).sum(axis=0), dbias, dv * weight


def _check(x: Array, weight: Array, bias: Array, z: Array | None, on: str) -> None:
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        raise ValueError(
            "x must have shape (N, D_in) and weight (D_in, D_out), "
            f"got {x.shape} and {weight.shape}"
        )
    (n, d_in), d_out = x.shape, weight.shape[1]
    if bias.shape != (d_out,):
        raise ValueError(f"bias must have shape {(d_out,)}, got {bias.shape}")
    one_draw = {"inputs": (d_in,), "weights": (d_in, d_out), "outputs": (d_out,)}
    if on not in one_draw:
        raise ValueError(f"on must be one of {sorted(one_draw)}, got {on!r}")
    if z is not None and z.shape not in (one_draw[on], (n, *one_draw[on])):
        raise ValueError(
            f"z must have shape {one_draw[on]} or {(n, *one_draw[on])} for gates on {on}, "
            f"got {z.shape}"
        )
