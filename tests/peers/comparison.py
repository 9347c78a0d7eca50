"""A few steps of the reference and of a benchmark's model, on parameters and noise that are given.

All in float64. Errors are relative to the greatest number of an array. Sums are of 60,000 terms at
most, in another order: some hundred eps, 1e-13. Adam divides a gradient by its own size, plus 1e-8:
where it is nothing but rounding, 1e-17 of it moves a parameter by 1e-3 times 1e-17 / 1e-8 = 1e-12.
"""

from typing import Any

import numpy as np
import pytest

from l0ref.bench import LAM, Workload
from l0ref.hard_concrete import prob_one, prob_zero
from l0ref.network import Network
from l0ref.networks import MLP, LeNet5
from l0ref.noise import Noise, Stream
from l0ref.optimizers import Adam, TemporalAverage

TOLERANCE = 1e-11
STEPS = 3
N_TRAIN = 60
TRAINING = ["LeNet-300-100", "LeNet-300-100, a gate a weight", "LeNet-5"]


def twin_network(workload: Workload) -> Network:
    """The reference, with gates of every kind: closed, between, open."""
    if workload.model == "lenet-5":
        network: Network = LeNet5(dtype=np.float64, beta=workload.beta)
    else:
        network = MLP(workload.widths, gates=workload.gates, dtype=np.float64, beta=workload.beta)
    rng = np.random.default_rng(8)
    for name, array in network.params.items():
        if name.endswith("log_alpha"):
            array += rng.normal(0, 2, size=array.shape)
        if name.endswith("bias"):
            array += rng.normal(0, 0.1, size=array.shape)
    return network


def in_layers(network: Network, arrays: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {name: arrays[f"{i}.{name}"] for name in ("weight", "bias", "log_alpha")}
        for i, _ in network.weighted
    ]


def assert_same(got: list[dict[str, Any]], wanted: list[dict[str, Any]], what: str) -> None:
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.keys() == b.keys()
        for name, array in b.items():
            assert a[name].shape == array.shape, (what, i, name)
            assert a[name].dtype == np.float64
            error = np.abs(a[name] - array).max()
            assert error <= TOLERANCE * np.abs(array).max(), (what, i, name, error)


def check_steps(peer: Any, workload: Workload, to_array: Any) -> None:
    """A few steps of both, on draws and noise that are given."""
    network = twin_network(workload)
    optimizer, average = Adam(), TemporalAverage()
    peer.set_params(in_layers(network, network.params))
    assert_same(peer.get_params(), in_layers(network, network.params), "given")
    peer.n_train = N_TRAIN
    noise, rng = Noise(3), np.random.default_rng(4)
    for step in range(STEPS):
        x = rng.uniform(size=(7, *network.input_shape))
        labels = rng.integers(10, size=7)
        u = {
            i: noise.uniform(Stream.GATES, shape, layer=i, step=step)
            for i, shape in network.noise_shapes(x.shape).items()
        }
        ours = network.evaluate(x, labels, u, lam=[LAM], n_train=N_TRAIN)
        loss = peer.step(to_array(x), to_array(labels), peer.noise(list(u.values())))
        assert float(loss) == pytest.approx(ours.loss.total, rel=TOLERANCE)
        assert_same(peer.get_grads(), in_layers(network, ours.grads), f"gradient {step}")
        optimizer.step(network.params, ours.grads)
        average.update(network.params)
        assert_same(peer.get_params(), in_layers(network, network.params), f"step {step}")
        assert_same(peer.get_average(), in_layers(network, average.params), f"average {step}")


def check_learning(peer: Any) -> None:
    """With its own noise and its own batches: a mistake there would not show above."""
    rng = np.random.default_rng(5)
    labels = rng.integers(10, size=300)
    x = rng.uniform(size=(10, 784))[labels] + rng.uniform(size=(300, 784))
    peer.load(x.astype(np.float32), labels)
    losses = [float(peer()) for _ in range(30)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5


def check_shares(z: Any, log_alpha: Any, beta: float) -> None:
    """Shares of closed and of open gates, against the law, to 5 standard deviations."""
    log_alpha = np.asarray(log_alpha, float)
    for law, value in ((prob_zero, 0), (prob_one, 1)):
        p = law(log_alpha, beta=beta)
        deviation = np.sqrt((p * (1 - p)).sum())
        assert abs(np.sum(np.asarray(z) == value) - p.sum()) < 5 * deviation
