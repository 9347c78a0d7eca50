"""The benchmark's models in JAX: one jitted step, its state donated, noise and batch taken inside.

What is done for speed, beyond what everybody does:

* the gates of all layers are one array: one draw, one penalty;
* gates multiply whatever is smaller, a convolution's weights and bias rather than its maps; with
  `fold` the first layer's weights rather than its inputs, which saves the derivative in the inputs;
* pooling comes before ReLU, on a quarter of the elements (the two commute); with `halves` it is a
  maximum of four strided slices, whose derivative XLA has faster than that of `reduce_window`;
* `rbg` is XLA's own generator instead of Threefry;
* `patches` spells a convolution out as one matrix product over its patches.

`variants` lists what to try on a machine.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from typing import Any

import numpy as np

from l0ref.bench import CLOSED, LAM, OPEN, Workload, conv_arrays, gate_arrays, open_masks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, whatever its version has to say
    import jax
    from jax import lax
    from jax import numpy as jnp

GAMMA, ZETA = -0.1, 1.1
DECAY, LR, BETA1, BETA2, EPS = 0.999, 1e-3, 0.9, 0.999, 1e-8
TINY = 1e-6  # noise is uniform on (TINY, 1 - TINY)

Tree = Any


def draw(log_alpha: Any, u: Any, beta: float) -> Any:
    """Eq. 10-11."""
    s = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + log_alpha) / beta)
    return jnp.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def uniform(key: Any, like: Any) -> Any:
    return jax.random.uniform(key, like.shape, like.dtype, TINY, 1 - TINY)


def prob_active(log_alpha: Any, beta: float) -> Any:
    """Eq. 12."""
    return jax.nn.sigmoid(log_alpha - beta * math.log(-GAMMA / ZETA))


def make_key(seed: int, options: list[str]) -> Any:
    return jax.random.key(seed, impl="rbg" if "rbg" in options else "threefry2x32")


# --- networks: functions of a tree {"weight": [...], "bias": [...], "log_alpha": vector} ---


def convolve(x: Any, weight: Any, bias: Any, options: list[str]) -> Any:
    """`weight` is (kh, kw, C_in, C_out) whatever the layout of x."""
    if "NCHW" in options:
        dims, bias = ("NCHW", "HWIO", "NCHW"), bias[:, None, None]
    else:
        dims = ("NHWC", "HWIO", "NHWC")
    if "patches" in options and "NHWC" in options:
        kh, kw, c_in, c_out = weight.shape
        h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
        columns = [x[:, i : i + h, j : j + w] for i in range(kh) for j in range(kw)]
        patches = jnp.concatenate(columns, axis=3)
        return patches @ weight.reshape(kh * kw * c_in, c_out) + bias
    y = lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=dims)
    return y + bias


def max_pool(x: Any, options: list[str]) -> Any:
    if "halves" in options:
        if "NCHW" in options:
            parts = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        else:
            parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return functools.reduce(jnp.maximum, parts)
    window = (1, 1, 2, 2) if "NCHW" in options else (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def lenet5(params: Tree, z: list[Any], x: Any, options: list[str]) -> Any:
    weight, bias = params["weight"], params["bias"]
    for i in (0, 1):
        x = convolve(x, weight[i] * z[i], bias[i] * z[i], options)
        x = jax.nn.relu(max_pool(x, options))
    if "NHWC" in options:
        x = x.transpose(0, 3, 1, 2)
    x = x.reshape(len(x), 800)
    x = jax.nn.relu((x * z[2]) @ weight[2] + bias[2])
    return (x * z[3]) @ weight[3] + bias[3]


def mlp(params: Tree, z: list[Any], x: Any, options: list[str]) -> Any:
    for i, (weight, bias) in enumerate(zip(params["weight"], params["bias"], strict=True)):
        if i:
            x = jax.nn.relu(x)
        if z[i].ndim == 2:
            x = x @ (weight * z[i]) + bias
        elif i == 0 and "fold" in options:
            x = x @ (weight * z[i][:, None]) + bias
        else:
            x = (x * z[i]) @ weight + bias
    return x


def cross_entropy(logits: Any, labels: Any) -> Any:
    chosen = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)


# --- steps of training ---


class Step:
    """A network in training. Arrays go in and out as l0ref has them: one dict a layer, in order."""

    def __init__(self, workload: Workload, seed: int, variant: str, dtype: Any) -> None:
        self.options = variant.split()
        self.dtype = dtype
        self.beta, self.batch_size = workload.beta, workload.batch_size
        self.images = workload.model == "lenet-5"
        if self.images:
            self.weights: list[tuple[int, ...]] = [(5, 5, 1, 20), (5, 5, 20, 50), (800, 500),
                                                   (500, 10)]  # fmt: skip
            self.shapes: list[tuple[int, ...]] = [(20,), (50,), (800,), (500,)]
            sizes = [26, 501, 500, 10]
        else:
            widths = workload.widths
            self.weights = list(itertools.pairwise(widths))
            if workload.gates == "weight":
                self.shapes, sizes = self.weights, [1] * len(self.weights)
            else:
                self.shapes, sizes = [shape[:1] for shape in self.weights], list(widths[1:])
        self.counts = [math.prod(shape) for shape in self.shapes]
        self.group_size = jnp.asarray(np.repeat(sizes, self.counts), dtype)
        rng = np.random.default_rng(seed)
        he = [np.sqrt(2 / math.prod(shape[:-1])) for shape in self.weights]
        mask = np.concatenate(open_masks(self.counts, workload.open_gates))
        params = {
            "weight": [
                jnp.asarray(scale * rng.normal(size=shape), dtype)
                for scale, shape in zip(he, self.weights, strict=True)
            ],
            "bias": [jnp.zeros(shape[-1], dtype) for shape in self.weights],
            "log_alpha": jnp.asarray(np.where(mask, OPEN, CLOSED), dtype),
        }
        self.key = make_key(seed, self.options)
        self._start(params)
        self._one = jax.jit(self._update)
        self._next = jax.jit(self._advance, donate_argnums=(0,))
        self._permute = jax.jit(lambda key, n: jax.random.permutation(key, n), static_argnums=1)
        self.n_train, self.epoch = 1, 0
        self.grads: Tree = None

    def _start(self, params: Tree) -> None:
        zeros = functools.partial(jax.tree.map, jnp.zeros_like)
        # Three trees of zeros: donated buffers must not be one and the same.
        self.state = {
            "params": params,
            "m": zeros(params),
            "v": zeros(params),
            "average": zeros(params),
            "t": jnp.zeros((), jnp.int32),
        }

    def _loss(self, params: Tree, x: Any, labels: Any, u: Any) -> Any:
        z = jnp.split(draw(params["log_alpha"], u, self.beta), np.cumsum(self.counts)[:-1])
        z = [part.reshape(shape) for part, shape in zip(z, self.shapes, strict=True)]
        logits = (lenet5 if self.images else mlp)(params, z, x, self.options)
        expected_l0 = self.group_size @ prob_active(params["log_alpha"], self.beta)
        return cross_entropy(logits, labels) + LAM / self.n_train * expected_l0

    def _update(self, state: Tree, x: Any, labels: Any, u: Any) -> tuple[Tree, Any, Tree]:
        params = state["params"]
        loss, grads = jax.value_and_grad(self._loss)(params, x, labels, u)
        t = state["t"] + 1
        rescale = LR / (1 - jnp.asarray(BETA1, self.dtype) ** t)
        root = 1 / jnp.sqrt(1 - jnp.asarray(BETA2, self.dtype) ** t)
        weight = (1 - DECAY) / (1 - jnp.asarray(DECAY, self.dtype) ** t)
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, state["m"], grads)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, state["v"], grads)
        params = jax.tree.map(
            lambda p, m, v: p - rescale * m / (jnp.sqrt(v) * root + EPS), params, m, v
        )
        average = jax.tree.map(lambda a, p: a + weight * (p - a), state["average"], params)
        return {"params": params, "m": m, "v": v, "average": average, "t": t}, loss, grads

    def _advance(
        self, carry: tuple[Tree, Any], data: Any, all_labels: Any, order: Any, start: Any
    ) -> tuple[tuple[Tree, Any], Any]:
        state, key = carry
        key, own = jax.random.split(key)
        u = uniform(own, state["params"]["log_alpha"])
        rows = lax.dynamic_slice(order, (start,), (self.batch_size,))
        state, loss, _ = self._update(state, data[rows], all_labels[rows], u)
        return (state, key), loss

    def load(self, x: Any, labels: Any) -> None:
        """Take the training set: rows of float32, and labels."""
        x = np.asarray(x, self.dtype)
        if self.images:
            x = x.reshape((-1, 1, 28, 28) if "NCHW" in self.options else (-1, 28, 28, 1))
        self.x, self.labels = jnp.asarray(x), jnp.asarray(labels, jnp.int32)
        self.n_train = len(labels)
        self.position = self.n_train

    def step(self, x: Any, labels: Any, u: Any) -> Any:
        """Take a step on x as l0ref has it, with noise u as `noise` makes it."""
        x = jnp.asarray(x, self.dtype)
        if self.images:
            x = x if "NCHW" in self.options else x.transpose(0, 2, 3, 1)
        self.state, loss, self.grads = self._one(self.state, x, jnp.asarray(labels), u)
        return loss

    def __call__(self) -> Any:
        """Take the next batch of the epoch, and a step on it."""
        if self.position + self.batch_size > self.n_train:
            self.order = self._permute(jax.random.key(self.epoch), self.n_train)
            self.epoch, self.position = self.epoch + 1, 0
        (self.state, self.key), self.loss = self._next(
            (self.state, self.key), self.x, self.labels, self.order, self.position
        )
        self.position += self.batch_size
        return self.loss

    def wait(self) -> None:
        jax.block_until_ready(self.state)

    # --- in and out ---

    def set_params(self, layers: list[dict[str, Any]]) -> None:
        weights = [
            layer["weight"].transpose(2, 3, 1, 0) if layer["weight"].ndim == 4 else layer["weight"]
            for layer in layers
        ]
        params = {
            "weight": [jnp.asarray(w, self.dtype) for w in weights],
            "bias": [jnp.asarray(layer["bias"], self.dtype) for layer in layers],
            "log_alpha": self.noise([layer["log_alpha"] for layer in layers]),
        }
        self._start(params)

    def noise(self, per_layer: list[Any]) -> Any:
        """One vector of one array a layer, as `step` takes u."""
        return jnp.asarray(np.concatenate([a.ravel() for a in per_layer]), self.dtype)

    def _export(self, tree: Tree) -> list[dict[str, Any]]:
        tree = jax.tree.map(np.asarray, tree)
        gates = np.split(tree["log_alpha"], np.cumsum(self.counts)[:-1])
        return [
            {
                "weight": weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight,
                "bias": bias,
                "log_alpha": part.reshape(shape),
            }
            for weight, bias, part, shape in zip(
                tree["weight"], tree["bias"], gates, self.shapes, strict=True
            )
        ]

    def get_params(self) -> list[dict[str, Any]]:
        return self._export(self.state["params"])

    def get_average(self) -> list[dict[str, Any]]:
        return self._export(self.state["average"])

    def get_grads(self) -> list[dict[str, Any]]:
        """Gradients of the latest `step`."""
        return self._export(self.grads)


# --- gates and a convolution alone ---


class Alone:
    """A jitted function that takes a key and other arrays, and returns the next key and results."""

    def __init__(self, function: Any, key: Any, *arrays: Any) -> None:
        self.function = jax.jit(function, donate_argnums=(0,))
        self.key, self.arrays = key, [jnp.asarray(a) for a in arrays]
        self.out: Any = None

    def __call__(self) -> Any:
        self.key, self.out = self.function(self.key, *self.arrays)
        return self.out

    def wait(self) -> None:
        jax.block_until_ready((self.key, self.out))


def make_draw(workload: Workload, options: list[str]) -> Alone:
    def step(key: Any, log_alpha: Any) -> Any:
        key, own = jax.random.split(key)
        return key, draw(log_alpha, uniform(own, log_alpha), workload.beta)

    return Alone(step, make_key(0, options), gate_arrays(workload.size)[0])


def make_gradient(workload: Workload, options: list[str]) -> Alone:
    beta = workload.beta

    def step(key: Any, log_alpha: Any, dz: Any) -> Any:
        key, own = jax.random.split(key)
        u = uniform(own, log_alpha)

        def forward(log_alpha: Any) -> Any:
            return draw(log_alpha, u, beta), prob_active(log_alpha, beta).sum()

        (z, _), pull = jax.vjp(forward, log_alpha)
        return key, (z, pull((dz, jnp.asarray(LAM / 60_000, dz.dtype))))

    return Alone(step, make_key(0, options), *gate_arrays(workload.size))


def make_convolution(workload: Workload, options: list[str]) -> Alone:
    x, weight, bias, z, dy = conv_arrays(workload.batch_size)
    if "NHWC" in options:
        x, dy = x.transpose(0, 2, 3, 1), dy.transpose(0, 2, 3, 1)

    def forward(x: Any, weight: Any, bias: Any, z: Any) -> Any:
        return convolve(x, weight * z, bias * z, options)

    def step(key: Any, *arrays: Any) -> Any:
        y, pull = jax.vjp(forward, *arrays[:4])
        return key, (y, pull(arrays[4]))

    return Alone(step, make_key(0, []), x, weight.transpose(2, 3, 1, 0), bias, z, dy)


# --- what a benchmark asks for ---


def variants(workload: Workload) -> list[str]:
    """What to try; the first is the plainest."""
    if workload.kind in ("draw", "gradient"):
        return ["threefry", "rbg"]
    if workload.kind == "conv":
        return ["NHWC", "NCHW", "NHWC patches"]
    if workload.model == "lenet-5":
        return ["NHWC", "NCHW", "NHWC halves", "NCHW halves", "NHWC patches halves"]
    if workload.gates == "weight":
        return ["threefry", "rbg"]
    return ["", "fold"]


def make(workload: Workload, seed: int = 0, *, variant: str = "", dtype: Any = None) -> Any:
    """Return what does the workload once a call; for a step of training, a `Step`."""
    kinds = {"draw": make_draw, "gradient": make_gradient, "conv": make_convolution}
    if workload.kind in kinds:
        return kinds[workload.kind](workload, variant.split())
    return Step(workload, seed, variant, dtype or jnp.float32)


def about() -> dict[str, str]:
    return {"jax": jax.__version__}
