"""The benchmark's PyTorch models do what they are timed for: the same loss, gradients and step."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from l0ref.bench import LAM, WORKLOADS, Workload, gate_arrays
from l0ref.hard_concrete import sample_and_slope
from l0ref.penalties import gate_gradient

from .comparison import TRAINING, check_learning, check_shares, check_steps

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, whatever its version has to say
    torch = pytest.importorskip("torch")

from . import models_torch as models


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        (name, variant)
        for name in TRAINING
        for variant in models.variants(WORKLOADS[name])
        if "compiled" not in variant  # minutes of C++; it is the same code
    ],
)
def test_a_few_steps(name: str, variant: str) -> None:
    peer = models.make(WORKLOADS[name], 0, variant=variant, dtype=torch.float64)
    check_steps(peer, WORKLOADS[name], torch.from_numpy)


def test_gates_are_as_the_workload_says() -> None:
    peer = models.make(WORKLOADS["LeNet-5, 9-18-65-25 open"], 0, variant="foreach")
    assert [int((a["log_alpha"] > 0).sum()) for a in peer.get_params()] == [9, 18, 65, 25]


@pytest.mark.parametrize("name", TRAINING)
def test_it_learns(name: str) -> None:
    check_learning(models.make(WORKLOADS[name], 0, variant="fused"))


@pytest.mark.parametrize("beta", [2 / 3, 0.5])
def test_draw(beta: float) -> None:
    torch.manual_seed(0)
    one = models.make(Workload("", "draw", size=10**5, beta=beta), variant="eager")
    check_shares(one(), one.log_alpha, beta)


def test_gradient() -> None:
    one = models.make(Workload("", "gradient", size=1000, beta=0.5), variant="eager")
    torch.manual_seed(1)
    got = one()[0].numpy()
    torch.manual_seed(1)
    u = models.noise_like(one.log_alpha.detach()).numpy().astype(float)
    log_alpha, dz = (a.astype(float) for a in gate_arrays(1000))
    _, slope = sample_and_slope(log_alpha, u, beta=0.5)
    wanted, _ = gate_gradient(dz, slope, log_alpha, lam=LAM / 60_000, beta=0.5)
    # In float32; near u = 1, where 1 - u is good to 6e-8 of its 1e-3 or more, most of it is lost.
    np.testing.assert_allclose(got, wanted, atol=1e-4)
