"""The benchmark's own arithmetic: what is timed, in which order, and what is made of the times."""

import contextlib
import itertools
import platform

import numba
import numpy as np
import pytest

from l0ref import bench, jit
from l0ref.bench import WORKLOADS, Workload
from l0ref.jit import _rulers
from l0ref.jit._compile import Kernel
from l0ref.jit._vectors import lanes


def test_products_of_a_perceptron() -> None:
    """y and dweight of three layers, dx of two, each 2 N D_in D_out."""
    workload = WORKLOADS["LeNet-300-100"]
    inner = 300 * 100 + 100 * 10
    assert bench.flops(workload) == 2 * 100 * (2 * (784 * 300 + inner) + inner)
    assert [name for name, *_ in bench.products(workload)][:3] == [
        "dense 1: y", "dense 1: dweight", "dense 2: y"
    ]  # fmt: skip


def test_products_of_lenet5() -> None:
    """Multiplications an example, from the paper's table of its layers."""
    first, others = 576 * 20 * 25, 64 * 50 * 500 + 800 * 500 + 500 * 10
    assert bench.flops(WORKLOADS["LeNet-5"]) == 2 * 100 * (2 * first + 3 * others)
    first, others = 576 * 9 * 25, 64 * 18 * 225 + 65 * 25 + 25 * 10
    pruned = WORKLOADS["LeNet-5, 9-18-65-25 open"]
    assert bench.flops(pruned) == 2 * 100 * (2 * first + 3 * others)
    whole = WORKLOADS["LeNet-5, 9-18-65-25 open, all computed"]
    assert bench.flops(whole) == bench.flops(WORKLOADS["LeNet-5"])


def test_products_of_a_product() -> None:
    """y, dweight and dx, of what is open; x has no more columns than that."""
    half = WORKLOADS["product 784-300, half open"]
    assert bench.flops(half) == 3 * 2 * 100 * 392 * 150
    assert bench.flops(WORKLOADS["product 784-300"]) == 3 * 2 * 100 * 784 * 300
    x, weight, dy, index = bench.product_arrays(half)
    assert (x.shape, weight.shape, dy.shape) == ((100, 392), (784, 300), (100, 150))
    assert {name: len(places) for name, places in index.items()} == {"rows": 392, "columns": 150}
    assert bench.product_arrays(WORKLOADS["product 784-300"])[3] == {}


def test_open_inputs_come_from_open_maps() -> None:
    masks = bench.open_masks((20, 50, 800, 500), (9, 18, 65, 25))
    assert [int(mask.sum()) for mask in masks] == [9, 18, 65, 25]
    assert set(np.flatnonzero(masks[2]) // 16) <= set(np.flatnonzero(masks[1]))
    assert all(mask.all() for mask in bench.open_masks((3, 4), None))


def test_floor_multiplies_what_it_says() -> None:
    way = bench._fastest(7, 5, 3)
    assert [a.shape for a in way] == [(7, 5), (5, 3), (7, 3)]
    np.testing.assert_allclose(way[2], way[0] @ way[1], rtol=1e-5)  # float32, five terms


def test_rulers_that_there_are() -> None:
    assert bench.floor(WORKLOADS["draw"]) is None
    assert bench.copy(WORKLOADS["LeNet-5"]) is None
    assert bench.copy(WORKLOADS["draw"]) is not None


def test_interleave_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PAUSE", 0.0)
    seen: list[str] = []
    times = {"a": iter([1.0, 5.0, 2.0]), "b": itertools.repeat(4.0)}

    def one(name: str) -> float:
        seen.append(name)
        return next(times[name])

    result = bench.interleave({"a": lambda: one("a"), "b": lambda: one("b")}, 3)
    assert seen == ["a", "b", "b", "a", "a", "b"]
    assert result["a"]["samples"] == [1.0, 5.0, 2.0]
    assert [result["a"][k] for k in ("median", "q25", "q75", "min")] == [2.0, 1.5, 3.5, 1.0]
    assert len(bench.interleave({"b": lambda: 4.0}, 9, budget=0.0)["b"]["samples"]) == 1


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kind", ["draw", "gradient", "conv", "product", "step"])
def test_every_kind_runs(kind: str, backend: str) -> None:
    workload = Workload("", kind, size=1000, model="mlp", hidden=(5, 4), batch_size=2)
    one = bench.contender(workload, backend=backend)
    assert bench.repeat(one, 2) > 0


def test_steps_do_not_meet_the_end_of_an_epoch() -> None:
    workload = Workload("", "step", model="mlp", hidden=(5,), batch_size=1000)
    steps = bench.contender(workload, backend="numpy")
    assert isinstance(steps, bench.Steps)
    for _ in range(7):
        steps()
    steps.ready(4)  # three are left
    assert steps.trainer.step == 10
    assert len(steps.trainer.history) == 1
    steps.ready(9)
    assert steps.trainer.step == 10


def test_a_profile_adds_up() -> None:
    workload = Workload("", "step", model="mlp", hidden=(20,), batch_size=100)
    found = bench.profile(workload, turns=1, seconds=0.01)
    kernels = found["kernels"]
    inside = sum(own["seconds"] for own in kernels.values())
    assert found["clocked"] == pytest.approx(inside + found["elsewhere"])
    assert found["elsewhere"] > 0
    assert found["step"] > 0
    assert found["floor"] > 0
    assert found["arithmetic"] > 0
    assert found["memory"] > 0
    assert [kernels[name]["calls"] for name in ("affine_in_blocks", "pull_in_blocks")] == [2, 2]
    assert list(kernels.values()) == sorted(kernels.values(), key=lambda own: -own["seconds"])


def test_the_peak_is_of_multiply_adds() -> None:
    width = lanes(np.empty(1, np.float32))
    out = np.empty(3 * width, np.float32)
    _rulers.multiply_and_add(np.full(2 * width, 0.5, np.float32), out)
    assert (out == _rulers.CHAINS).all()  # x/2 + 1/2 tends to 1, and gets there
    _, operations = bench.peak()
    assert operations == 2 * _rulers.CHAINS * _rulers.STEPS * 8 * jit.get_num_threads() * width


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86's assembler")
def test_the_peak_is_of_nothing_else() -> None:
    width = lanes(np.empty(1, np.float32))
    kernel = _rulers.multiply_and_add._compile(cache=False)
    kernel(False, np.full(2 * width, 0.5, np.float32), np.empty(width, np.float32))
    (code,) = kernel.inspect_asm().values()
    assert code.count("vfmadd") >= _rulers.CHAINS


def test_one_pass_reads_every_number_once() -> None:
    rng = np.random.default_rng(0)
    grad, theta, m, v, average = before = rng.normal(size=(5, 2500))
    wanted = grad, theta + m + v + 2 * grad, m + grad, v + grad
    before = before.copy()
    _rulers.stream(grad, theta, m, v, average)
    for got, exact in zip((grad, theta, m, v), wanted, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(average, before[4] + wanted[1], rtol=1e-12, atol=1e-12)


def test_a_kernel_has_its_clock_only_while_it_is_profiled() -> None:
    run = Kernel._run
    with contextlib.suppress(ZeroDivisionError), bench.kernel_times():
        assert Kernel._run is not run
        raise ZeroDivisionError
    assert Kernel._run is run


def test_only_a_step_has_a_profile() -> None:
    with pytest.raises(ValueError, match=r"a step of training \(LeNet-300-100, .*got draw"):
        bench.profile(WORKLOADS["draw"])
