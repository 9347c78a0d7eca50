"""The benchmark's JAX models do what they are timed for: the same loss, gradients and step."""

import warnings
from typing import Any

import numpy as np
import pytest

from l0ref.bench import LAM, WORKLOADS, Workload, gate_arrays
from l0ref.hard_concrete import sample_and_slope
from l0ref.penalties import gate_gradient

from .comparison import TRAINING, check_learning, check_shares, check_steps

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, whatever its version has to say
    jax = pytest.importorskip("jax")

from . import models_jax as models


@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name in TRAINING for variant in models.variants(WORKLOADS[name])],
)
def test_a_few_steps(name: str, variant: str) -> None:
    with jax.enable_x64(True):
        peer = models.make(WORKLOADS[name], 0, variant=variant, dtype=np.float64)
        check_steps(peer, WORKLOADS[name], np.asarray)


def test_gates_are_as_the_workload_says() -> None:
    peer = models.make(WORKLOADS["LeNet-5, 9-18-65-25 open"], 0, variant="NHWC")
    assert [int((a["log_alpha"] > 0).sum()) for a in peer.get_params()] == [9, 18, 65, 25]


@pytest.mark.parametrize("name", TRAINING)
def test_it_learns(name: str) -> None:
    check_learning(models.make(WORKLOADS[name], 0, variant="NHWC halves"))


@pytest.mark.parametrize("beta", [2 / 3, 0.5])
def test_draw(beta: float) -> None:
    one = models.make(Workload("", "draw", size=10**5, beta=beta), variant="threefry")
    check_shares(one(), one.arrays[0], beta)


def test_gradient() -> None:
    one = models.make(Workload("", "gradient", size=1000, beta=0.5), variant="threefry")
    key: Any = jax.random.key(0)
    u = np.asarray(models.uniform(jax.random.split(key)[1], one.arrays[0]), float)
    z, (got,) = one()
    log_alpha, dz = (a.astype(float) for a in gate_arrays(1000))
    wanted_z, slope = sample_and_slope(log_alpha, u, beta=0.5)
    wanted, _ = gate_gradient(dz, slope, log_alpha, lam=LAM / 60_000, beta=0.5)
    # In float32; near u = 1, where 1 - u is good to 6e-8 of its 1e-3 or more, most of it is lost.
    np.testing.assert_allclose(z, wanted_z, atol=1e-4)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
