r"""The paper's architectures: perceptrons, LeNet-300-100, LeNet-5, wide residual networks.

Weights start at He's N(0, 2 / fan-in), biases at 0, and gates at a drop rate
(`l0ref.gates.init_log_alpha`). Gates are of one of three kinds:

``"unit"``
    The paper's main setting: a gate an input unit of a dense layer, a gate an output map of a
    convolution.
``"weight"``
    A gate a weight, in the same layers.
``"none"``
    No gates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .concrete import BETA, GAMMA, ZETA
from .conditional import INPUT
from .gates import Gates, init_log_alpha, per_input, per_output, per_weight
from .layers import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2d,
    Normalize,
    ReLU,
    Tanh,
)
from .network import Loss, Network, check_lam
from .noise import Noise, Stream

__all__ = [
    "INPUT",
    "MLP",
    "LeNet5",
    "LeNet300100",
    "Loss",
    "Network",
    "WideResNet",
    "check_lam",
]

Array = NDArray[Any]
Normalisation = tuple[ArrayLike, ArrayLike]

ACTIVATIONS: dict[str, type[Layer]] = {"relu": ReLU, "tanh": Tanh}
GATES = ("unit", "weight", "none")


class _Maker:
    """Makes layers with weights, each at its initial values from a noise stream of its own."""

    def __init__(
        self,
        gates: str = "unit",
        *,
        noise: Noise | None = None,
        per_example: bool = False,
        beta: float = BETA,
        gamma: float = GAMMA,
        zeta: float = ZETA,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if gates not in GATES:
            raise ValueError(f"gates must be one of {GATES}, got {gates!r}")
        self.gates, self.per_example, self.dtype = gates, per_example, dtype
        self.noise = Noise(0) if noise is None else noise
        self.hyperparameters: dict[str, Any] = {"beta": beta, "gamma": gamma, "zeta": zeta}
        self.made = 0

    def _weight(self, shape: tuple[int, ...], fan_in: int) -> Array:
        he = np.sqrt(2 / fan_in)
        weight = he * self.noise.normal(Stream.WEIGHT_INIT, shape, layer=self.made)
        return np.asarray(weight, self.dtype)

    def _log_alpha(self, family: Gates, drop_rate: float) -> Array:
        normal = self.noise.normal(Stream.GATE_INIT, family.shape, layer=self.made)
        return init_log_alpha(drop_rate, normal, self.dtype)

    def dense(self, d_in: int, d_out: int, drop_rate: float | None = None) -> Dense:
        """Make a dense layer, gated on its inputs or weights; without gates if no drop rate."""
        weight, bias = self._weight((d_in, d_out), d_in), np.zeros(d_out, self.dtype)
        if drop_rate is None or self.gates == "none":
            layer = Dense(weight, bias)
        else:
            make = per_input if self.gates == "unit" else per_weight
            family = make(weight.shape, **self.hyperparameters)
            log_alpha = self._log_alpha(family, drop_rate)
            layer = Dense(weight, bias, family, log_alpha, per_example=self.per_example)
        self.made += 1
        return layer

    def conv(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        drop_rate: float | None = None,
        *,
        bias: bool = True,
        gates_bias: bool = False,
        stride: int = 1,
        padding: int = 0,
    ) -> Conv2d:
        """Make a convolution, gated on its output maps or weights; no drop rate, no gates."""
        weight = self._weight((c_out, c_in, kernel, kernel), c_in * kernel * kernel)
        shift = np.zeros(c_out, self.dtype) if bias else None
        family, log_alpha = None, None
        if drop_rate is not None and self.gates != "none":
            if self.gates == "unit":
                family = per_output(
                    weight.shape, axis=0, gates_bias=gates_bias, **self.hyperparameters
                )
            else:
                family = per_weight(weight.shape, **self.hyperparameters)
            log_alpha = self._log_alpha(family, drop_rate)
        self.made += 1
        return Conv2d(
            weight,
            shift,
            family,
            log_alpha,
            stride=stride,
            padding=padding,
            per_example=self.per_example,
        )

    def batch_norm(self, channels: int) -> BatchNorm:
        """Make a batch norm that starts as the identity at test time."""
        one, zero = np.ones(channels, self.dtype), np.zeros(channels, self.dtype)
        return BatchNorm(one.copy(), zero.copy(), zero.copy(), one.copy())


def _one_rate_each(drop_rates: Sequence[float], n_layers: int) -> list[float]:
    """Return a drop rate for each gated layer from one for all, first and others, or one each."""
    rates = [float(rate) for rate in drop_rates]
    if len(rates) == 1:
        return rates * n_layers
    if len(rates) == 2 and n_layers != 2:
        return rates[:1] + rates[1:] * (n_layers - 1)
    if len(rates) != n_layers:
        raise ValueError(
            f"drop_rates must have 1 value, 2 values or one a layer ({n_layers}), got {rates}"
        )
    return rates


def _activation(name: str) -> Layer:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {tuple(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def _check_classes(n_classes: int) -> None:
    if n_classes < 1:
        raise ValueError(f"n_classes must be at least 1, got {n_classes}")


def _preprocessing(normalisation: Normalisation | None) -> list[Layer]:
    return [] if normalisation is None else [Normalize(*normalisation)]


class MLP(Network):
    r"""Multilayer perceptron with gates on every dense layer.

    Parameters
    ----------
    widths : sequence of int
        D_in, the hidden widths, and the number of classes.
    gates : {"unit", "weight", "none"}, optional
        A gate an input unit of each dense layer, a gate a weight, or none.
    drop_rates : sequence of float, optional
        Initial drop rates of the gates: one for all layers, that of the first layer and of all
        others, or one a layer.
    activation : {"relu", "tanh"}, optional
    dropout : float, optional
        Drop rate of ordinary dropout on the hidden activations.
    noise : Noise, optional
        Where the initial values come from; seed 0 by default.
    per_example : bool, optional
        One draw of the gates an example rather than one a minibatch.
    beta, gamma, zeta : float, optional
        Hyperparameters of the gates.
    dtype : dtype, optional
        Of every parameter; float32 by default.

    Raises
    ------
    ValueError
        If a width is below 1, a rate out of range, or a name unknown.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        gates: str = "unit",
        drop_rates: Sequence[float] = (0.2, 0.5),
        activation: str = "relu",
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths must be two or more positive integers, got {list(widths)}")
        n_layers = len(widths) - 1
        make, rates = _Maker(gates, **options), _one_rate_each(drop_rates, n_layers)
        layers: list[Layer] = []
        names = {}
        for depth, (d_in, d_out) in enumerate(itertools.pairwise(widths)):
            names[len(layers)] = "input" if depth == 0 else f"hidden {depth}"
            layers.append(make.dense(d_in, d_out, rates[depth]))
            if depth < n_layers - 1:
                layers.append(_activation(activation))
                if dropout != 0:
                    layers.append(Dropout(dropout))
        super().__init__(layers, input_shape=(widths[0],), names=names)


class LeNet300100(MLP):
    """LeNet-300-100: dense 784-300-100-10 with ReLU, gates on the 784, 300 and 100 units.

    Takes the options of `MLP`, whose defaults are the paper's: drop rates 0.2 at the input, 0.5
    elsewhere.

    Examples
    --------
    >>> sum(p.size for name, p in LeNet300100().params.items() if "log_alpha" not in name)
    266610
    """

    def __init__(self, **options: Any) -> None:
        super().__init__((784, 300, 100, 10), **options)


class LeNet5(Network):
    """LeNet-5-Caffe: gates on 20 maps, 50 maps, 800 and 500 units.

    Convolution 5x5 to 20 maps, max pool 2, convolution 5x5 to 50 maps, max pool 2, dense
    800-500-classes, an activation after each but the last.

    Parameters
    ----------
    n_classes : int, optional
    image_shape : tuple of int, optional
        (C, H, W). Other sizes than 28x28 change the 800.
    gates : {"unit", "weight", "none"}, optional
        A gate an output map of a convolution and an input unit of a dense layer, a gate a weight,
        or none.
    gates_bias : bool, optional
        Whether a closed map takes its bias with it (and |g| counts the bias). If not, a closed map
        is the constant that its bias makes.
    drop_rates : sequence of float, optional
        Initial drop rates of the gates; see `MLP`.
    activation, dropout
        See `MLP`; dropout is on the hidden units of the dense layers.
    normalisation : pair of array_like, optional
        Mean and standard deviation of each input channel.
    noise, per_example, beta, gamma, zeta, dtype
        See `MLP`.

    Raises
    ------
    ValueError
        If the image is too small, a rate out of range, or a name unknown.

    Examples
    --------
    >>> sum(p.size for name, p in LeNet5().params.items() if "log_alpha" not in name)
    431080
    """

    def __init__(
        self,
        n_classes: int = 10,
        *,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        gates: str = "unit",
        gates_bias: bool = True,
        drop_rates: Sequence[float] = (0.5,),
        activation: str = "relu",
        dropout: float = 0.0,
        normalisation: Normalisation | None = None,
        **options: Any,
    ) -> None:
        if len(image_shape) != 3:
            raise ValueError(f"image_shape must be (C, H, W), got {image_shape}")
        _check_classes(n_classes)
        make, rates = _Maker(gates, **options), _one_rate_each(drop_rates, 4)
        layers = _preprocessing(normalisation)
        names = {}
        channels = image_shape[0]
        for k, maps in enumerate((20, 50)):
            names[len(layers)] = f"conv {k + 1}"
            layers += [
                make.conv(channels, maps, 5, rates[k], gates_bias=gates_bias),
                _activation(activation),
                MaxPool2d(2),
            ]
            channels = maps
        layers.append(Flatten())
        # The feature maps' size follows from the image's, through the layers that are there so far.
        width = Network(layers, input_shape=image_shape).shapes((1, *image_shape))[-1][1]
        names[len(layers)] = "dense 1"
        layers += [make.dense(width, 500, rates[2]), _activation(activation)]
        if dropout != 0:
            layers.append(Dropout(dropout))
        names[len(layers)] = "dense 2"
        layers.append(make.dense(500, n_classes, rates[3]))
        super().__init__(layers, input_shape=image_shape, names=names)


class WideResNet(Network):
    """Wide residual network WRN-depth-width, gated on each block's first convolution.

    A 3x3 convolution to 16 maps; three groups of (depth - 4) / 6 pre-activation blocks, of 16, 32
    and 64 times `width` maps, the second and third at half the resolution of the one before; batch
    norm, ReLU, the mean of each map, and a dense layer. A block is

        batch norm - ReLU - convolution (gated) - batch norm - ReLU - convolution, plus the block's
        input,

    and where the number of maps changes, a 1x1 convolution of the first ReLU's output stands in for
    the input. Convolutions have no bias, for batch norm follows them; a closed map is then not
    nothing but the constant that batch norm makes of 0.

    Parameters
    ----------
    depth : int, optional
        6 n + 4 with n >= 1 blocks a group.
    width : int, optional
        At least 1.
    n_classes : int, optional
    image_shape : tuple of int, optional
        (C, H, W), with H and W divisible by 4.
    gates : {"unit", "weight", "none"}, optional
        Of each block's first convolution: a gate an output map, a gate a weight, or none.
    drop_rates : sequence of float, optional
        Initial drop rates of the gates; see `MLP`.
    dropout : float, optional
        Drop rate of ordinary dropout before each block's second convolution.
    normalisation : pair of array_like, optional
        Mean and standard deviation of each input channel.
    noise, per_example, beta, gamma, zeta, dtype
        See `MLP`.

    Raises
    ------
    ValueError
        If depth, width or image_shape is none that fits, a rate out of range, or a name unknown.

    References
    ----------
    S. Zagoruyko, N. Komodakis, *Wide Residual Networks*, BMVC 2016: WRN-28-10 has 36.5 M
    parameters.

    Examples
    --------
    >>> network = WideResNet(10, 1)
    >>> network.predict(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 10)
    """

    def __init__(
        self,
        depth: int = 28,
        width: int = 10,
        n_classes: int = 10,
        *,
        image_shape: tuple[int, int, int] = (3, 32, 32),
        gates: str = "unit",
        drop_rates: Sequence[float] = (0.3,),
        dropout: float = 0.0,
        normalisation: Normalisation | None = None,
        **options: Any,
    ) -> None:
        n_blocks, rest = divmod(depth - 4, 6)
        if rest or n_blocks < 1:
            raise ValueError(
                f"depth must be 6 n + 4 with n >= 1, such as 10, 16 or 28, got {depth}"
            )
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        _check_classes(n_classes)
        if len(image_shape) != 3 or min(image_shape) < 1 or any(n % 4 for n in image_shape[1:]):
            raise ValueError(
                f"image_shape must be (C, H, W) with H and W divisible by 4, got {image_shape}"
            )
        make, rates = _Maker(gates, **options), _one_rate_each(drop_rates, 3 * n_blocks)
        layers = _preprocessing(normalisation)
        sources: dict[int, int] = {}
        skips: dict[int, int] = {}
        names: dict[int, str] = {}
        layers.append(make.conv(image_shape[0], 16, 3, bias=False, padding=1))
        channels = 16
        for block in range(3 * n_blocks):
            group, within = divmod(block, n_blocks)
            maps = 16 * width * 2**group
            stride = 2 if group > 0 and within == 0 else 1
            carried = len(layers) - 1
            layers += [make.batch_norm(channels), ReLU()]
            activated = len(layers) - 1
            if channels != maps or stride != 1:
                layers.append(make.conv(channels, maps, 1, bias=False, stride=stride))
                carried = len(layers) - 1
            names[len(layers)] = f"block {block + 1}"
            sources[len(layers)] = activated
            layers += [
                make.conv(channels, maps, 3, rates[block], bias=False, stride=stride, padding=1),
                make.batch_norm(maps),
                ReLU(),
            ]
            if dropout != 0:
                layers.append(Dropout(dropout))
            skips[len(layers)] = carried
            layers.append(make.conv(maps, maps, 3, bias=False, padding=1))
            channels = maps
        rows, columns = image_shape[1] // 4, image_shape[2] // 4
        layers += [make.batch_norm(channels), ReLU(), AvgPool2d((rows, columns)), Flatten()]
        layers.append(make.dense(channels, n_classes))
        super().__init__(layers, input_shape=image_shape, sources=sources, skips=skips, names=names)
