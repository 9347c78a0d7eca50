r"""A matrix product that reads only what open gates leave of its operands.

In the product :math:`y_{no} = \sum_i x_{ni} z_i W_{io}` an input whose gate z is 0 adds nothing,
and an output behind a closed gate is not looked at. What is left is a product of some columns of x,
some rows of W and some columns of W. With a library's product they must be taken out first; one
that is written for gates need not, because it copies its operands into another order anyway
(`l0ref.jit.matmul`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from .pack import Index, PackResiduals, pack, pack_vjp

Array = NDArray[Any]


class GatedMatmulResiduals(NamedTuple):
    """What `gated_matmul_vjp` needs of the forward pass."""

    x: Array
    weight: Array
    z: Array | None
    take: Index | None
    rows: Index | None
    columns: Index | None


def gated_matmul(
    x: Array,
    weight: Array,
    z: Array | None = None,
    *,
    take: Index | None = None,
    rows: Index | None = None,
    columns: Index | None = None,
) -> tuple[Array, GatedMatmulResiduals]:
    r"""Product over what is open, :math:`y_{nj} = \sum_i x_{n t_i}\, z_i\, W_{r_i c_j}`.

    Parameters
    ----------
    x : array, (N, D)
    weight : array, (D_in, D_out)
    z : array, (K,), optional
        Gates of the inputs that are open; none means all 1.
    take : array of int, (K,), optional
        t, the columns of x that are open, each at most once. None where x has no others.
    rows, columns : array of int, (K,) and (M,), optional
        r and c, the rows and the columns of the weights that are open, each at most once. None
        stands for all.

    Returns
    -------
    y : array, (N, M)
    residuals : GatedMatmulResiduals

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    Two of three inputs are open, and one of two outputs:

    >>> import numpy as np
    >>> x = np.array([[1.0, np.nan, 2.0]])
    >>> weight = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> is_open = np.array([0, 2])
    >>> gated_matmul(x, weight, np.array([1.0, 0.5]), take=is_open, rows=is_open,
    ...              columns=np.array([1]))[0]
    array([[8.]])
    """
    _check(x, weight, z, take, rows)
    a, w = pack(x, None, take)[0], pack(weight, rows, columns)[0]
    y = a @ w if z is None else (a * z) @ w
    return y, GatedMatmulResiduals(x, weight, z, take, rows, columns)


def gated_matmul_vjp(
    dy: Array, residuals: GatedMatmulResiduals, *, need_dx: bool = True
) -> tuple[Array | None, Array, Array | None]:
    r"""Pull dy back through `gated_matmul`: two more products over what is open.

    With :math:`V_{ij} = z_i W_{r_i c_j}` the weights that were multiplied,

    .. math:: dV_{ij} = \sum_n x_{n t_i}\, dy_{nj}, \quad
              dW_{r_i c_j} = z_i\, dV_{ij}, \quad dz_i = \sum_j dV_{ij} W_{r_i c_j}, \quad
              dx_{n t_i} = \sum_j dy_{nj} V_{ij} .

    What was not read has the derivative 0, exactly.

    Parameters
    ----------
    dy : array, (N, M)
    residuals : GatedMatmulResiduals
    need_dx : bool, optional
        Whether anything wants dx.

    Returns
    -------
    dx, dweight : arrays
        Of the shapes of x and weight; dx is None where it is not needed.
    dz : array or None
        Of the shape of z.
    """
    x, weight, z, take, rows, columns = residuals
    a, w = pack(x, None, take)[0], pack(weight, rows, columns)[0]
    if dy.shape != (len(x), w.shape[1]):
        raise ValueError(f"dy must have shape {(len(x), w.shape[1])}, got {dy.shape}")
    dv = a.T @ dy
    dz = None if z is None else (dv * w).sum(axis=1)
    own = dv if z is None else dv * z[:, None]
    dweight = pack_vjp(own, PackResiduals(weight.shape, rows, columns))
    if not need_dx:
        return None, dweight, dz
    da = dy @ w.T
    da = da if z is None else da * z
    return pack_vjp(da, PackResiduals(x.shape, None, take)), dweight, dz


def _check(
    x: Array, weight: Array, z: Array | None, take: Index | None, rows: Index | None
) -> None:
    if x.ndim != 2 or weight.ndim != 2:
        raise ValueError(
            f"x must have shape (N, D) and weight (D_in, D_out), got {x.shape} and {weight.shape}"
        )
    inputs = x.shape[1] if take is None else len(take)
    read = weight.shape[0] if rows is None else len(rows)
    if inputs != read:
        raise ValueError(
            f"x must give as many columns as weight gives rows, got {inputs} and {read}"
        )
    if z is not None and z.shape != (read,):
        raise ValueError(f"z must have shape {(read,)}, got {z.shape}")
