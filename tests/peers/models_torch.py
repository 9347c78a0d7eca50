"""The benchmark's models in PyTorch, as one would write them there to train fast on a CPU.

What is done for speed, beyond what everybody does:

* the gates of all layers are one parameter: one draw, one penalty, few small ops;
* gates multiply whatever is smaller, a convolution's weights and bias rather than its maps; with
  `fold` the first layer's weights rather than its inputs, which saves the derivative in the inputs;
* pooling comes before ReLU, on a quarter of the elements (the two commute);
* foreach or fused Adam, `_foreach_lerp_` for the average, gradients set to None.

`variants` lists what is left to try on a machine.
"""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np

from l0ref.bench import (
    CLOSED,
    LAM,
    OPEN,
    Workload,
    conv_arrays,
    gate_arrays,
    open_masks,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, whatever its version has to say
    import torch
    from torch import nn
    from torch.nn import functional

GAMMA, ZETA = -0.1, 1.1
DECAY, LR = 0.999, 1e-3
TINY = 1e-6  # noise is uniform on (TINY, 1 - TINY), for logit's sake


def set_threads(n: int) -> None:
    """Once a process, before anything runs."""
    torch.set_num_threads(n)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)


def draw(log_alpha: Any, u: Any, beta: float) -> Any:
    """Eq. 10-11."""
    s = torch.sigmoid((torch.logit(u) + log_alpha) / beta)
    return torch.clamp(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def noise_like(log_alpha: Any) -> Any:
    return torch.empty_like(log_alpha).uniform_(TINY, 1 - TINY)


# --- networks ---


class Net(nn.Module):  # type: ignore[misc]
    """Layers with weights in order, and the gates of them all: the number and |g| of each."""

    def __init__(self, layers: list[Any], shapes: list[tuple[int, ...]], sizes: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.shapes = shapes  # of each layer's gates
        counts = [math.prod(shape) for shape in shapes]
        self.counts = counts
        self.log_alpha = nn.Parameter(torch.zeros(sum(counts)))
        group_size = torch.repeat_interleave(
            torch.tensor(sizes, dtype=torch.float32), torch.tensor(counts)
        )
        self.register_buffer("group_size", group_size)

    def gates(self, u: Any, beta: float) -> list[Any]:
        z = draw(self.log_alpha, u, beta).split(self.counts)
        return [part.view(shape) for part, shape in zip(z, self.shapes, strict=True)]

    def expected_l0(self, beta: float) -> Any:
        return torch.dot(
            torch.sigmoid(self.log_alpha - beta * math.log(-GAMMA / ZETA)), self.group_size
        )


class MLP(Net):
    def __init__(self, widths: tuple[int, ...], gates: str, fold: bool) -> None:
        pairs = list(itertools.pairwise(widths))
        layers = [nn.Linear(d_in, d_out) for d_in, d_out in pairs]
        if gates == "unit":
            super().__init__(layers, [(d_in,) for d_in, _ in pairs], [d_out for _, d_out in pairs])
        else:
            super().__init__(layers, [(d_out, d_in) for d_in, d_out in pairs], [1] * len(pairs))
        self.on_weights = [gates == "weight" or (fold and i == 0) for i in range(len(pairs))]

    def forward(self, x: Any, u: Any, beta: float) -> Any:
        z = self.gates(u, beta)
        for i, layer in enumerate(self.layers):
            if i:
                x = torch.relu(x)
            if self.on_weights[i]:
                x = functional.linear(x, layer.weight * z[i], layer.bias)
            else:
                x = functional.linear(x * z[i], layer.weight, layer.bias)
        return x


class LeNet5(Net):
    def __init__(self) -> None:
        layers = [nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5), nn.Linear(800, 500),
                  nn.Linear(500, 10)]  # fmt: skip
        super().__init__(layers, [(20,), (50,), (800,), (500,)], [26, 501, 500, 10])

    def forward(self, x: Any, u: Any, beta: float) -> Any:
        z = self.gates(u, beta)
        for layer, gate in zip(self.layers[:2], z[:2], strict=True):
            maps = functional.conv2d(x, layer.weight * gate.view(-1, 1, 1, 1), layer.bias * gate)
            x = torch.relu(functional.max_pool2d(maps, 2))
        dense1, dense2 = self.layers[2:]
        x = functional.linear(torch.flatten(x, 1) * z[2], dense1.weight, dense1.bias)
        return functional.linear(torch.relu(x) * z[3], dense2.weight, dense2.bias)


# --- steps of training ---


class Step:
    """A network in training. Arrays go in and out as l0ref has them: one dict a layer, in order."""

    def __init__(self, workload: Workload, seed: int, variant: str, dtype: Any) -> None:
        options = variant.split()
        torch.manual_seed(seed)
        self.beta, self.batch_size = workload.beta, workload.batch_size
        self.images = workload.model == "lenet-5"
        net: Net = (
            LeNet5() if self.images else MLP(workload.widths, workload.gates, "fold" in options)
        )
        net = net.to(dtype)
        if "channels_last" in options:
            net = net.to(memory_format=torch.channels_last)
        with torch.no_grad():
            for layer in net.layers:
                nn.init.kaiming_normal_(layer.weight)
                layer.bias.zero_()
            masks = open_masks(net.counts, workload.open_gates)
            mask = torch.from_numpy(np.concatenate(masks))
            net.log_alpha.copy_(torch.where(mask, OPEN, CLOSED))
        self.net = net
        self.channels_last = "channels_last" in options
        self.params = list(net.parameters())
        how: dict[str, bool] = {"fused": True} if "fused" in options else {"foreach": True}
        self.optimizer = torch.optim.Adam(self.params, lr=LR, **how)
        self.average: list[Any] = []
        self.t = 0
        self.n_train = 1
        self.loss: Any = self._loss
        if "compiled" in options:
            self.loss = torch.compile(self._loss, dynamic=False)

    def _loss(self, x: Any, labels: Any, u: Any = None) -> Any:
        if u is None:
            u = noise_like(self.net.log_alpha)
        data = functional.cross_entropy(self.net(x, u, self.beta), labels)
        return data + LAM / self.n_train * self.net.expected_l0(self.beta)

    def load(self, x: Any, labels: Any) -> None:
        """Take the training set: rows of float32, and labels."""
        self.x, self.labels = torch.tensor(x, dtype=self.params[0].dtype), torch.tensor(labels)
        if self.images:
            self.x = self.x.view(-1, 1, 28, 28)
            if self.channels_last:
                self.x = self.x.to(memory_format=torch.channels_last)
        self.n_train = len(labels)
        self.order: list[Any] = []

    def step(self, x: Any, labels: Any, u: Any = None) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x, labels, u)
        loss.backward()
        self.optimizer.step()
        self.t += 1
        with torch.no_grad():
            if self.average:
                weight = (1 - DECAY) / (1 - DECAY**self.t)
                torch._foreach_lerp_(self.average, self.params, weight)
            else:
                self.average = [p.detach().clone() for p in self.params]
        return loss.detach()

    def __call__(self) -> Any:
        """Take the next batch of the epoch, and a step on it."""
        if not self.order:
            self.order = list(torch.randperm(self.n_train).split(self.batch_size))[::-1]
        rows = self.order.pop()
        return self.step(self.x.index_select(0, rows), self.labels.index_select(0, rows))

    # --- in and out ---

    def set_params(self, layers: list[dict[str, Any]]) -> None:
        with torch.no_grad():
            for layer, given in zip(self.net.layers, layers, strict=True):
                layer.weight.copy_(torch.from_numpy(self._swap(given["weight"])))
                layer.bias.copy_(torch.from_numpy(given["bias"]))
            self.net.log_alpha.copy_(self.noise([given["log_alpha"] for given in layers]))

    def noise(self, per_layer: list[Any]) -> Any:
        """One vector of one array a layer, as `step` takes u."""
        return torch.from_numpy(np.concatenate([self._swap(a).ravel() for a in per_layer]))

    @staticmethod
    def _swap(a: Any) -> Any:
        return np.ascontiguousarray(a.T) if a.ndim == 2 else a

    def _export(self, tensors: list[Any]) -> list[dict[str, Any]]:
        by_id = {id(p): t.detach().cpu().numpy() for p, t in zip(self.params, tensors, strict=True)}
        gates = np.split(by_id[id(self.net.log_alpha)], np.cumsum(self.net.counts)[:-1])
        return [
            {
                "weight": self._swap(by_id[id(layer.weight)]),
                "bias": by_id[id(layer.bias)],
                "log_alpha": self._swap(part.reshape(shape)),
            }
            for layer, part, shape in zip(self.net.layers, gates, self.net.shapes, strict=True)
        ]

    def get_params(self) -> list[dict[str, Any]]:
        return self._export(self.params)

    def get_average(self) -> list[dict[str, Any]]:
        return self._export(self.average)

    def get_grads(self) -> list[dict[str, Any]]:
        """Gradients of the latest step."""
        return self._export([p.grad for p in self.params])


# --- gates and a convolution alone ---


class Draw:
    def __init__(self, workload: Workload, variant: str) -> None:
        self.log_alpha = torch.from_numpy(gate_arrays(workload.size)[0])
        self.beta = workload.beta
        self.run = torch.compile(self._simple) if variant == "compiled" else self._in_place

    def _simple(self) -> Any:
        return draw(self.log_alpha, noise_like(self.log_alpha), self.beta)

    def _in_place(self) -> Any:
        z = noise_like(self.log_alpha).logit_().add_(self.log_alpha).div_(self.beta).sigmoid_()
        return z.mul_(ZETA - GAMMA).add_(GAMMA).clamp_(0, 1)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(self) -> Any:
        return self.run()


class Gradient:
    def __init__(self, workload: Workload, variant: str) -> None:
        log_alpha, dz = gate_arrays(workload.size)
        self.log_alpha = torch.from_numpy(log_alpha).requires_grad_()
        self.dz = torch.from_numpy(dz)
        self.beta = workload.beta
        self.scale = torch.tensor(LAM / 60_000)
        compiled = variant == "compiled"
        self.run = torch.compile(self._forward) if compiled else self._forward

    def _forward(self) -> tuple[Any, Any]:
        z = draw(self.log_alpha, noise_like(self.log_alpha), self.beta)
        active = torch.sigmoid(self.log_alpha - self.beta * math.log(-GAMMA / ZETA))
        return z, active.sum()

    def __call__(self) -> Any:
        z, penalty = self.run()
        return torch.autograd.grad((z, penalty), self.log_alpha, (self.dz, self.scale))


class Convolution:
    def __init__(self, workload: Workload, variant: str) -> None:
        arrays = [torch.from_numpy(a) for a in conv_arrays(workload.batch_size)]
        if "channels_last" in variant:
            arrays = [a.to(memory_format=torch.channels_last) if a.ndim == 4 else a for a in arrays]
        self.inputs = [a.requires_grad_() for a in arrays[:4]]
        self.dy = arrays[4]

    def __call__(self) -> Any:
        x, weight, bias, z = self.inputs
        y = functional.conv2d(x, weight * z.view(-1, 1, 1, 1), bias * z)
        return torch.autograd.grad(y, self.inputs, self.dy)


# --- what a benchmark asks for ---


def variants(workload: Workload) -> list[str]:
    """What to try; the first is the plainest."""
    if workload.kind in ("draw", "gradient"):
        return ["eager", "compiled"]
    if workload.kind == "conv":
        return ["eager", "eager channels_last"]
    if workload.model == "lenet-5":
        return ["foreach", "fused", "fused channels_last", "fused compiled",
                "fused compiled channels_last"]  # fmt: skip
    if workload.gates == "weight":
        return ["foreach", "fused", "fused compiled"]
    return ["foreach", "fused", "fused fold", "fused compiled", "fused compiled fold"]


def make(workload: Workload, seed: int = 0, *, variant: str = "", dtype: Any = None) -> Any:
    """Return what does the workload once a call; for a step of training, a `Step`."""
    kinds = {"draw": Draw, "gradient": Gradient, "conv": Convolution}
    if workload.kind in kinds:
        return kinds[workload.kind](workload, variant)
    return Step(workload, seed, variant, dtype or torch.float32)


def about() -> dict[str, str]:
    return {"torch": torch.__version__}
