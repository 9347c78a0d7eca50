"""Known mistakes in gated layers."""

# What a class is, its entry says.
# ruff: noqa: D101

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..plain import Plain
from .catalogue import AUTHORS, known

_layer = partial(known, area="Gated layers", at="dense")
_vjp = partial(known, area="Derivatives of layers", at="dense_vjp")
_conv = partial(known, area="Gated layers", at="conv2d")


@_layer(
    "gate-applied-twice",
    formula="y = (x W + b) z^2, and the like",
    sentence="your layers apply the gate twice: on the input and the weight, or the weight and "
    "the output",
)
class GateAppliedTwice(Plain):
    def _layer(
        self, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        z = None if z is None else z * z
        return super()._layer(x, weight, bias, z, on, gates_bias, how)

    def _layer_vjp(
        self, dy: Any, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        if z is None:
            return super()._layer_vjp(dy, x, weight, bias, z, on, gates_bias, how)
        dx, dw, db, dz = super()._layer_vjp(dy, x, weight, bias, z * z, on, gates_bias, how)
        return dx, dw, db, 2 * z * dz


class _GatesBias(Plain):
    """Layers have gates on the bias, or have none there, whatever they are asked for."""

    GATES_BIAS: bool

    def _layer(
        self, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        return super()._layer(x, weight, bias, z, on, self.GATES_BIAS, how)

    def _layer_vjp(
        self, dy: Any, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        return super()._layer_vjp(dy, x, weight, bias, z, on, self.GATES_BIAS, how)


@_layer(
    "bias-never-gated",
    formula="y = (x W) z + b, though the gates switch the bias off",
    sentence="your gates on outputs leave the bias on: a closed unit still hands on its bias",
)
class BiasNeverGated(_GatesBias):
    GATES_BIAS = False


@known(
    "bias-always-gated",
    area="Gated layers",
    at="loss_and_grads",
    formula="y = (x W + b) z, though the gates leave the bias alone",
    sentence="your gates on outputs switch off a bias that they are to leave alone",
)
class BiasAlwaysGated(_GatesBias):
    GATES_BIAS = True


@_conv(
    "conv-bias-dropped",
    formula="y = conv(x, W z): no bias while gates are drawn",
    sentence="your convolution drops its bias in training",
    wild=f"{AUTHORS}, l0_layers.py, `L0Conv2d.forward` (the bias is None unless local_rep)",
)
class ConvBiasDropped(Plain):
    def _conv_bias_in_training(self, bias: Any) -> Any:
        return None


@_layer(
    "dense-bias-dropped",
    formula="y = x W z: no bias while gates are drawn",
    sentence="your dense layer drops its bias in training",
)
class DenseBiasDropped(Plain):
    def _bias_in_training(self, bias: Any, on: Any) -> Any:
        return None


@known(
    "bias-ungated-at-test",
    area="Gated layers",
    at="predict",
    formula="y = (x W) z_hat + b at test time, (x W + b) z in training",
    sentence="your gates switch the bias off in training, and leave it on at test time",
)
class BiasUngatedAtTest(Plain):
    def _apply(self, layer: Any, x: Any, z: Any, training: bool) -> Any:
        if not training and layer.get("on") == "outputs":
            layer = {**layer, "gates_bias": False}
        return super()._apply(layer, x, z, training)


@_layer(
    "per-example-gates-shared",
    formula="the gates of the first example for all of them",
    sentence="where there is a draw for each example, you use the first one for all",
)
class PerExampleGatesShared(Plain):
    def _first(self, z: Any, weight: Any, on: Any) -> Any:
        is_many = on is not None and z.ndim > (weight.ndim if on == "weights" else 1)
        return (z[0] if is_many else z), is_many

    def _layer(
        self, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        first, _ = self._first(z, weight, on)
        return super()._layer(x, weight, bias, first, on, gates_bias, how)

    def _layer_vjp(
        self, dy: Any, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        first, is_many = self._first(z, weight, on)
        dx, dw, db, dz = super()._layer_vjp(dy, x, weight, bias, first, on, gates_bias, how)
        if is_many:
            only = np.zeros_like(z)
            only[0] = dz
            dz = only
        return dx, dw, db, dz


@_conv(
    "conv-kernel-mirrored",
    formula="y[i] = sum_j x[i - j] W[j]",
    sentence="your convolution mirrors the kernel; the interface's does not (it is a correlation)",
)
class ConvKernelMirrored(Plain):
    def _linear(self, x: Any, weight: Any, how: Any) -> Any:
        return super()._linear(x, weight if how is None else weight[..., ::-1, ::-1], how)

    def _linear_vjp(self, dy: Any, x: Any, weight: Any, how: Any) -> Any:
        if how is None:
            return super()._linear_vjp(dy, x, weight, how)
        dx, dw = super()._linear_vjp(dy, x, weight[..., ::-1, ::-1], how)
        return dx, dw[..., ::-1, ::-1]


class _OtherHow(Plain):
    """A convolution by other strides, paddings or dilations than it was asked for."""

    def _changed(self, how: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _how(self, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
        return self._changed(dict(super()._how(stride, padding, dilation, groups)))


@_conv(
    "conv-stride-swapped",
    formula="stride (horizontal, vertical)",
    sentence="your convolution takes its strides the other way round",
)
class ConvStrideSwapped(_OtherHow):
    def _changed(self, how: dict[str, Any]) -> dict[str, Any]:
        return how | {"stride": how["stride"][::-1]}


@_conv(
    "conv-padding-swapped",
    formula="padding (horizontal, vertical)",
    sentence="your convolution takes its paddings the other way round",
)
class ConvPaddingSwapped(_OtherHow):
    def _changed(self, how: dict[str, Any]) -> dict[str, Any]:
        return how | {"padding": how["padding"][::-1]}


@_conv(
    "conv-dilation-ignored",
    formula="dilation 1",
    sentence="your convolution ignores its dilation",
)
class ConvDilationIgnored(_OtherHow):
    def _changed(self, how: dict[str, Any]) -> dict[str, Any]:
        return how | {"dilation": (1, 1)}


# --- derivatives ---


class _Ungated(Plain):
    """Some derivatives of a layer are those of the layer with open gates."""

    PARTS: tuple[int, ...] = ()

    def _layer_vjp(
        self, dy: Any, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        right = list(super()._layer_vjp(dy, x, weight, bias, z, on, gates_bias, how))
        if on is None:
            return tuple(right)
        ones = np.ones_like(z)
        free = super()._layer_vjp(dy, x, weight, bias, ones, on, gates_bias, how)
        for part in self.PARTS:
            right[part] = free[part]
        return tuple(right)


@_vjp(
    "dweight-ungated",
    formula="dW = x^T dy, without z",
    sentence="your gradient of the weights is not multiplied by the gate: weights of closed units "
    "go on moving",
)
class DWeightUngated(_Ungated):
    PARTS = (1,)


@_vjp(
    "dx-ungated",
    formula="dx = dy W^T, without z",
    sentence="your gradient of the input is not multiplied by the gate",
)
class DxUngated(_Ungated):
    PARTS = (0,)


@_vjp(
    "dbias-ungated",
    formula="db = sum dy, without z, though the gate switches the bias off",
    sentence="your gradient of a gated bias is not multiplied by the gate",
)
class DBiasUngated(_Ungated):
    PARTS = (2,)


@_vjp(
    "dz-without-bias",
    formula="dz = sum dy (x W), though the gate switches the bias off",
    sentence="your gradient of a gate that switches the bias off leaves out the bias",
)
class DzWithoutBias(Plain):
    def _layer_vjp(
        self, dy: Any, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        dx, dw, db, _ = super()._layer_vjp(dy, x, weight, bias, z, on, gates_bias, how)
        dz = super()._layer_vjp(dy, x, weight, None, z, on, gates_bias, how)[3]
        return dx, dw, db, dz


class _Changed(Plain):
    """The derivatives of a layer are right at first, and then something is done to them."""

    def _layer_vjp(
        self, dy: Any, x: Any, weight: Any, bias: Any, z: Any, on: Any, gates_bias: bool, how: Any
    ) -> Any:
        right = super()._layer_vjp(dy, x, weight, bias, z, on, gates_bias, how)
        is_shared = on is not None and z.ndim == (weight.ndim if on == "weights" else 1)
        return self._change(*right, len(x), is_shared)

    def _change(self, dx: Any, dw: Any, db: Any, dz: Any, n: int, is_shared: bool) -> Any:
        """Return what becomes of them, for n examples, whose gates may be the same."""
        raise NotImplementedError


@_vjp(
    "dz-averaged",
    formula="dz = mean over the examples, not their sum",
    sentence="your gradient of the gates is averaged over the examples; it is their sum, for the "
    "loss is a mean already",
)
class DzAveraged(_Changed):
    def _change(self, dx: Any, dw: Any, db: Any, dz: Any, n: int, is_shared: bool) -> Any:
        return dx, dw, db, dz / n if is_shared else dz


@_vjp(
    "dbias-averaged",
    formula="db = mean over the examples, not their sum",
    sentence="your gradient of the bias is averaged over the examples; it is their sum",
)
class DBiasAveraged(_Changed):
    def _change(self, dx: Any, dw: Any, db: Any, dz: Any, n: int, is_shared: bool) -> Any:
        return dx, dw, db / n, dz


@_vjp(
    "dz-zero",
    formula="dz = 0",
    sentence="no gradient reaches your gates: they are detached from the layer's output",
)
class DzZero(_Changed):
    def _change(self, dx: Any, dw: Any, db: Any, dz: Any, n: int, is_shared: bool) -> Any:
        return dx, dw, db, np.zeros_like(dz)
