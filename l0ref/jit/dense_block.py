"""Twins of `l0ref.ops.dense_block`: the kernels of `l0ref.jit.dense`, which can rectify."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .. import ops
from ..ops.conv import check_cotangent
from ..ops.dense_block import DenseReluResiduals as OriginalResiduals
from ._registry import TWINS, NotForKernel, twin
from .dense import DenseResiduals, Gradients, affine, pull

Array = NDArray[Any]


@twin(ops.dense_relu)
def dense_relu(
    x: Array,
    weight: Array,
    bias: Array,
    z: Array | None = None,
    *,
    on: str = "inputs",
    gates_bias: bool = True,
) -> tuple[Array, DenseResiduals]:
    """The rectifier runs while a block is at hand."""
    return affine(x, weight, bias, z, on, rectified=True)


@twin(ops.dense_relu_vjp)
def dense_relu_vjp(dy: Array, residuals: Any, *, need_dx: bool = True) -> Gradients:
    """One pass over dy for its mask and the bias."""
    if not isinstance(residuals, DenseResiduals):
        check_cotangent(dy, residuals.positive.shape)
        da = TWINS[ops.relu_vjp](dy, residuals.positive)
        gradients: Gradients = TWINS[ops.dense_vjp](da, residuals.dense, need_dx=need_dx)
        return gradients
    try:
        return pull(dy, residuals, need_dx=need_dx)
    except NotForKernel:
        assert residuals.positive is not None
        own = OriginalResiduals(residuals.originals, residuals.positive)
        return ops.dense_relu_vjp(dy, own, need_dx=need_dx)
