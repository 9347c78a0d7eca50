"""A dense layer most of whose weights are 0: what pruning leaves of a gate a weight."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class SparseWeights(NamedTuple):
    """Weights other than 0, by output unit: compressed sparse rows of the transposed weights.

    Those of output o are ``values[starts[o]:starts[o+1]]``; they read the inputs
    ``inputs[starts[o]:starts[o+1]]``.
    """

    values: Array  # (n,)
    inputs: NDArray[np.int32]  # (n,), ascending for each output
    starts: NDArray[np.int64]  # (D_out + 1,)
    n_inputs: int

    @classmethod
    def of(cls, weight: Array) -> SparseWeights:
        """Take the zeros out of weights (D_in, D_out).

        Examples
        --------
        >>> SparseWeights.of(np.array([[0.0, 2.0], [0.0, 3.0], [5.0, 0.0]])).inputs
        array([2, 0, 1], dtype=int32)
        """
        outputs, inputs = np.nonzero(weight.T)
        starts = np.searchsorted(outputs, np.arange(weight.shape[1] + 1))
        return cls(weight[inputs, outputs], inputs.astype(np.int32), starts, weight.shape[0])

    def whole(self) -> Array:
        """Put the zeros back: (D_in, D_out)."""
        weight = np.zeros((self.n_inputs, len(self.starts) - 1), self.values.dtype)
        weight[self.inputs, np.repeat(np.arange(weight.shape[1]), np.diff(self.starts))] = (
            self.values
        )
        return weight


def sparse_dense(x: Array, weights: SparseWeights, bias: Array) -> Array:
    r"""Affine map that leaves the zeros out.

    .. math:: y_{no} = \sum_{i:\, W_{io} \ne 0} x_{ni} W_{io} + b_o

    For inference: there is no derivative here. A NaN or an infinity in x reaches only the outputs
    that read it, where 0 times it is a NaN in the whole product.

    Parameters
    ----------
    x : array, (N, D_in)
    weights : SparseWeights
    bias : array, (D_out,)

    Returns
    -------
    y : array, (N, D_out)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> weights = SparseWeights.of(np.array([[0.0, 2.0], [0.0, 3.0], [5.0, 0.0]]))
    >>> sparse_dense(np.array([[1.0, 1.0, 1.0]]), weights, np.zeros(2))
    array([[5., 5.]])
    """
    values, inputs, starts, n_inputs = weights
    n_outputs = len(starts) - 1
    if x.ndim != 2 or x.shape[1] != n_inputs:
        raise ValueError(f"x must have shape (N, {n_inputs}), got {x.shape}")
    if bias.shape != (n_outputs,):
        raise ValueError(f"bias must have shape {(n_outputs,)}, got {bias.shape}")
    y = np.empty((len(x), n_outputs), np.result_type(x, values, bias))
    for o in range(n_outputs):
        own = slice(starts[o], starts[o + 1])
        y[:, o] = x[:, inputs[own]] @ values[own] + bias[o]
    return y
