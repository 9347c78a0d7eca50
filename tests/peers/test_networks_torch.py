"""Whole networks train as PyTorch twins of them do: ten steps of Adam on the same draws.

The twins are ordinary modules, with the gates written from the equations; PyTorch differentiates
them by itself. The noise u is handed over, and so are the initial parameters.

Everything is float64, and errors are relative to the greatest number of an array. Adam divides a
gradient by its own size, so where a gradient is nothing but rounding, its step might be anything.
Its eps of 1e-8 prevents that: a rounding of 1e-17 moves a parameter by at most lr 1e-17 / 1e-8 =
1e-12 a step. Gradients that are exactly 0, as behind a closed gate, are so on both sides, and move
nothing. What would not do is a true gradient of 0 whose rounding is not small against 1e-8, as a
bias before batch norm may have; there is none here.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from l0ref.network import Network
from l0ref.networks import LeNet5, LeNet300100, WideResNet
from l0ref.noise import Noise, Stream
from l0ref.optimizers import Adam, TemporalAverage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, whatever its version has to say
    torch = pytest.importorskip("torch")
    nn = torch.nn
    functional = torch.nn.functional

TOLERANCE = 1e-10
STEPS, DECAY = 10, 0.9
L0, N_TRAIN = 0.1, 60
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the twins ---


class HardConcrete(nn.Module):  # type: ignore[misc, name-defined]
    """Gates, whose noise `u` is set before each pass."""

    def __init__(self, n_gates: int) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.empty(n_gates))
        self.u: Any = None

    def forward(self) -> Any:
        s = torch.sigmoid((torch.log(self.u) - torch.log1p(-self.u) + self.log_alpha) / BETA)
        return torch.clamp(s * (ZETA - GAMMA) + GAMMA, 0, 1)

    def probability(self) -> Any:
        return torch.sigmoid(self.log_alpha - BETA * math.log(-GAMMA / ZETA))


class GatedLinear(nn.Linear):  # type: ignore[misc, name-defined]
    """Gates on the inputs."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out)
        self.gates = HardConcrete(d_in)

    def forward(self, x: Any) -> Any:
        return super().forward(x * self.gates())

    def count(self) -> Any:
        return self.out_features * self.gates.probability().sum()

    def squares(self) -> Any:
        return (self.weight.square().sum(dim=0) * self.gates.probability()).sum()


class GatedConv2d(nn.Conv2d):  # type: ignore[misc, name-defined]
    """Gates on the output maps, of which each may take its bias along."""

    def __init__(self, *args: Any, gates_bias: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gates = HardConcrete(self.out_channels)
        self.gates_bias = gates_bias

    def forward(self, x: Any) -> Any:
        z = self.gates()[:, None, None]
        if self.bias is None or self.gates_bias:
            return super().forward(x) * z
        return self._conv_forward(x, self.weight, None) * z + self.bias[:, None, None]

    def count(self) -> Any:
        return (self.weight[0].numel() + self.gates_bias) * self.gates.probability().sum()

    def squares(self) -> Any:
        each = self.weight.square().sum(dim=(1, 2, 3))
        if self.gates_bias:
            each = each + self.bias.square()
        return (each * self.gates.probability()).sum()


class TwinMLP(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.first = GatedLinear(784, 300)
        self.second = GatedLinear(300, 100)
        self.third = GatedLinear(100, 10)

    def forward(self, x: Any) -> Any:
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))


class TwinLeNet5(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, gates_bias: bool) -> None:
        super().__init__()
        self.conv1 = GatedConv2d(1, 20, 5, gates_bias=gates_bias)
        self.conv2 = GatedConv2d(20, 50, 5, gates_bias=gates_bias)
        self.dense1 = GatedLinear(800, 500)
        self.dense2 = GatedLinear(500, 10)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.dense2(torch.relu(self.dense1(torch.flatten(x, 1))))


class Block(nn.Module):  # type: ignore[misc, name-defined]
    """norm1 - relu - conv1 (gated) - norm2 - relu - conv2, plus the input or its projection."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.shortcut = None
        if c_in != c_out:
            self.shortcut = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)
        self.conv1 = GatedConv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        activated = torch.relu(self.norm1(x))
        inside = self.conv2(torch.relu(self.norm2(self.conv1(activated))))
        return inside + (x if self.shortcut is None else self.shortcut(activated))


class TwinWideResNet(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.norm = nn.BatchNorm2d(64)
        self.dense = nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm(self.blocks(self.stem(x))))
        return self.dense(x.mean(dim=(2, 3)))


def objective(twin: Any, x: Any, labels: Any, l2: float) -> Any:
    """Cross entropy + (1/N) (lambda sum |g| P + lambda_2 / 2 sum P theta^2); P = 1 if ungated."""
    count = squares = 0.0
    for module in twin.modules():
        if isinstance(module, (GatedLinear, GatedConv2d)):
            count = count + module.count()
            squares = squares + module.squares()
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            squares = squares + module.weight.square().sum()
    data = functional.cross_entropy(twin(x), labels)
    return data + L0 / N_TRAIN * count + l2 / (2 * N_TRAIN) * squares


# --- which array is which ---


def leaves(twin: Any) -> list[Any]:
    """Return the modules that own parameters, in the order in which the twin defines them."""
    own = (nn.Linear, nn.Conv2d, nn.BatchNorm2d)
    return [module for module in twin.modules() if isinstance(module, own)]


def pairs(network: Network, twin: Any) -> dict[str, Any]:
    """Return the twin's tensor for each parameter and buffer of the network."""
    ours = [i for i, layer in enumerate(network.layers) if layer.params]
    found: dict[str, Any] = {}
    for i, module in zip(ours, leaves(twin), strict=True):
        for name in network.layers[i].params | network.layers[i].buffers:
            owner = module.gates if name == "log_alpha" else module
            found[f"{i}.{name}"] = getattr(owner, name)
    assert {id(t) for t in found.values()} >= {id(p) for p in twin.parameters()}
    return found


def as_ours(tensor: Any) -> Any:
    """Return a NumPy array, the weight of a linear layer, (D_out, D_in) there, transposed."""
    array = tensor.detach().numpy()
    return array.T if array.ndim == 2 else array


def assert_same(got: Any, wanted: Any, what: str) -> None:
    assert got.shape == wanted.shape, what
    assert got.dtype == wanted.dtype == np.float64, what
    error = np.abs(got - wanted).max()
    assert error <= TOLERANCE * np.abs(wanted).max(), (what, error / np.abs(wanted).max())


# --- the comparison ---


CASES: dict[str, tuple[Callable[..., Network], Callable[[], Any], tuple[int, ...]]] = {
    "LeNet-300-100": (LeNet300100, TwinMLP, (784,)),
    "LeNet-5": (LeNet5, lambda: TwinLeNet5(gates_bias=True), (1, 28, 28)),
    "LeNet-5, biases stay": (
        lambda **options: LeNet5(gates_bias=False, **options),
        lambda: TwinLeNet5(gates_bias=False),
        (1, 28, 28),
    ),
    "WRN-10-1": (
        lambda **options: WideResNet(10, 1, image_shape=(3, 12, 8), **options),
        TwinWideResNet,
        (3, 12, 8),
    ),
}


@pytest.mark.parametrize("l2", [0.4, 0.0])  # without it, what a closed gate hides has no gradient
@pytest.mark.parametrize("case", CASES)
def test_ten_steps_of_training(case: str, l2: float) -> None:
    """The loss at each, every gradient at the first, and all that there is after the last."""
    make, make_twin, image_shape = CASES[case]
    noise = Noise(7)
    network = make(noise=noise, dtype=np.float64)
    for name, array in network.params.items():
        if name.endswith("log_alpha"):  # some gates nearly always closed, some nearly always open
            array += np.random.default_rng(8).normal(0, 2, size=array.shape)
    twin = make_twin().double()
    tensors = pairs(network, twin)
    with torch.no_grad():
        for name, array in (network.params | network.buffers).items():
            as_ours(tensors[name])[...] = array
    optimizer, average = Adam(), TemporalAverage(decay=DECAY)
    peer = torch.optim.Adam(twin.parameters())
    sums = {name: np.zeros_like(array) for name, array in network.params.items()}
    gates = [module for module in twin.modules() if isinstance(module, HardConcrete)]
    rng = np.random.default_rng(9)
    closed = zeros = 0
    for step in range(STEPS):
        x = rng.uniform(size=(12, *image_shape))
        x[:, ..., :2] = 0.0  # pixels that are always off, as in the digits: gradients of exactly 0
        labels = rng.integers(10, size=12)
        u = {i: noise.uniform(Stream.GATES, shape, layer=i, step=step)
             for i, shape in network.noise_shapes(x.shape).items()}  # fmt: skip
        for module, one in zip(gates, u.values(), strict=True):
            module.u = torch.tensor(one)
        ours = network.evaluate(x, labels, u, lam=[L0], l2=l2, n_train=N_TRAIN)
        loss = objective(twin, torch.tensor(x), torch.tensor(labels), l2)
        peer.zero_grad()
        loss.backward()
        theirs = float(loss.detach())
        assert abs(ours.loss.total - theirs) <= TOLERANCE * abs(theirs), step
        if step == 0:
            for name, grad in ours.grads.items():
                peers = as_ours(tensors[name].grad)
                assert_same(grad, peers, f"gradient in {name}")
                np.testing.assert_array_equal(grad == 0, peers == 0, err_msg=name)
                zeros += int((grad == 0).sum())
        for i, _, _ in network.gated:
            closed += int((ours.gates[i] == 0).sum())
        optimizer.step(network.params, ours.grads)
        network.set_buffers(ours.buffers)
        average.update(network.params)
        peer.step()
        for name, total in sums.items():  # an average from 0, to be divided by what it sums to
            total *= DECAY
            total += (1 - DECAY) * as_ours(tensors[name])
    assert closed > 0
    assert zeros > 100 or l2 > 0
    for name, array in (network.params | network.buffers).items():
        assert_same(array, as_ours(tensors[name]), name)
    for name, array in average.params.items():
        assert_same(array, sums[name] / (1 - DECAY**STEPS), f"average of {name}")


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_has_its_twin(case: str) -> None:
    """In number and in shape, so that no array is left out of the comparison."""
    make, make_twin, _ = CASES[case]
    network, twin = make(dtype=np.float64), make_twin()
    tensors = pairs(network, twin)
    for name, array in (network.params | network.buffers).items():
        assert as_ours(tensors[name]).shape == array.shape
    assert sum(a.size for a in network.params.values()) == sum(p.numel() for p in twin.parameters())
