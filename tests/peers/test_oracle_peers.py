"""Targets made of PyTorch and JAX code: autograd adds what is not written, and does so rightly."""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l0ref.oracle import adapters
from l0ref.oracle.adapters import DERIVATIVES, from_jax, from_torch, from_torch_module
from l0ref.oracle.interface import FUNCTIONS
from l0ref.oracle.reference import reference
from l0ref.oracle.targets import NotImplementedByTarget, OpenTarget, TargetError, open_target
from tests.oracle_inputs import LAW, as_dtype, assert_close, variants

EXAMPLES = Path(adapters.__file__).parent / "examples"
DTYPES = (np.float64, np.float32)
MISSING = {"expected_cost", "hard_cost", "compact", "mean", "var"}
"""What the worked examples leave out."""

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed"
)
BOTH = [pytest.param("torch", marks=needs_torch), pytest.param("jax", marks=needs_jax)]


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    """Open each example once: to import its library takes seconds."""
    with contextlib.ExitStack() as stack:
        known: dict[str, OpenTarget] = {}

        def open_example(name: str) -> OpenTarget:
            if name not in known:
                path = f"{EXAMPLES / name}.py:target"
                known[name] = stack.enter_context(open_target(path))
            return known[name]

        yield open_example


def made(library: str, functions: Any) -> adapters.Adapted:
    return (from_torch if library == "torch" else from_jax)(functions)


# --- the worked examples ---


@pytest.mark.parametrize("library", BOTH)
@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in MISSING])
def test_the_examples_agree_with_the_reference(opened: Any, library: str, function: str) -> None:
    target = opened(f"{library}_functions")
    if function not in target.functions:
        assert library == "jax"
        assert function in {"train"} | {n for n in FUNCTIONS if n.endswith(("flops", "params"))}
        return
    for drawn in [] if function.startswith("draw") else variants(function):
        # Adam divides a gradient by its own size: where it is nearly 0, all digits are lost.
        for dtype in DTYPES[:1] if function == "train" else DTYPES:
            args = as_dtype(drawn, dtype)
            expected = getattr(reference, function)(**as_dtype(drawn, np.float64))
            call = target.call(function, args, timeout=120)
            assert_close(call.result, expected, dtype)
            assert call[1:] == ("", (), (), ())


@pytest.mark.parametrize("library", BOTH)
def test_the_examples_have_what_they_claim(opened: Any, library: str) -> None:
    functions = opened(f"{library}_functions").functions
    assert DERIVATIVES.keys() | {"loss_and_grads", "draw", "predict", "conv2d"} <= functions
    assert not functions & MISSING


@needs_torch
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_module_that_draws_by_itself(opened: Any, dtype: Any) -> None:
    target = opened("torch_module")
    assert target.functions == {
        "draw", "draw_vjp", "test_time", "test_time_grad", "prob_active", "prob_active_grad"
    }  # fmt: skip
    log_alpha = np.array([[0.5, -1.0, 2.0], [-3.0, 0.25, 6.0]], dtype)
    args = {"log_alpha": log_alpha, **LAW}
    for name in ("test_time", "test_time_grad", "prob_active", "prob_active_grad"):
        assert_close(
            target.call(name, args, timeout=60).result,
            getattr(reference, name)(**args),
            dtype,
            name,
        )
    n, drawing = 2500, {"n": 2500, "seed": 3}  # two modules' worth of copies, and some
    z = target.call("draw", {**args, **drawing}).result
    assert z.shape == (n, 2, 3)
    assert z.dtype == dtype
    again = target.call("draw", {**args, **drawing})
    np.testing.assert_array_equal(again.result, z)
    assert again.state == ()
    other = target.call("draw", {**args, "n": n, "seed": 4}).result
    assert (other != z).any()
    assert (z[:1024] != z[1024:2048]).any()
    # five standard deviations of a gate lie below 2.5, and 2500 draws have a fiftieth of them
    np.testing.assert_allclose(z.mean(axis=0), reference.mean(log_alpha, **LAW), atol=0.05)
    # the slope follows from the gate itself: z inside gives s, and s the derivative
    dz = np.random.default_rng(0).normal(size=z.shape).astype(dtype)
    s = (z.astype(np.float64) - LAW["gamma"]) / (LAW["zeta"] - LAW["gamma"])
    slope = (LAW["zeta"] - LAW["gamma"]) * s * (1 - s) / LAW["beta"] * ((z > 0) & (z < 1))
    got = target.call("draw_vjp", {**args, **drawing, "dz": dz}).result
    assert got.dtype == dtype
    # a sum of n terms below 1.5
    allowed = 3 * n * np.finfo(dtype).eps
    np.testing.assert_allclose(got, (slope * dz).sum(axis=0), rtol=0, atol=allowed)


@needs_torch
def test_a_module_with_one_number_for_all_gates_is_drawn_one_by_one() -> None:
    """Many copies side by side would all have the same gates, and hide what is wrong."""
    import torch

    class Shared(torch.nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.log_alpha = torch.nn.Parameter(torch.zeros(n))

        def gates(self) -> torch.Tensor:
            u = torch.rand(1, dtype=self.log_alpha.dtype)
            s = torch.sigmoid((torch.logit(u) + self.log_alpha) / LAW["beta"])
            return (s * (LAW["zeta"] - LAW["gamma"]) + LAW["gamma"]).clamp(0, 1)

    target: Any = from_torch_module(lambda n, **law: Shared(n), "gates")
    z = target.draw(np.zeros(3), 200, 1, **LAW)
    assert (z == z[:, :1]).all()
    assert len(np.unique(z)) > 50
    np.testing.assert_array_equal(target.draw(np.zeros(3), 200, 1, **LAW), z)


@needs_torch
def test_gates_that_are_nearly_always_closed_are_not_taken_for_one_number() -> None:
    """A few copies of them are all 0; those of the next draw are side by side all the same."""
    import torch

    made = []

    class Layer(torch.nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.log_alpha = torch.nn.Parameter(torch.zeros(n))
            made.append(n)

        def gates(self) -> torch.Tensor:
            u = torch.rand_like(self.log_alpha)
            s = torch.sigmoid((torch.logit(u) + self.log_alpha) / LAW["beta"])
            return (s * (LAW["zeta"] - LAW["gamma"]) + LAW["gamma"]).clamp(0, 1)

    target: Any = from_torch_module(lambda n, **law: Layer(n), "gates")
    assert not target.draw(np.full(3, -9.0), 4, 1, **LAW).any()
    target.draw(np.zeros(3), 200, 1, **LAW)
    assert made[-1] == 600


@needs_torch
def test_a_module_with_few_copies_none_and_no_gates(opened: Any) -> None:
    target = opened("torch_module")
    for shape in ((), (3,), (0, 2)):
        for n in (0, 1, 5):
            log_alpha = np.full(shape, 0.5)
            args = {"log_alpha": log_alpha, "n": n, "seed": 1, **LAW}
            assert target.call("draw", args).result.shape == (n, *shape)
            dz = np.ones((n, *shape))
            assert target.call("draw_vjp", {**args, "dz": dz}).result.shape == shape
        assert target.call("prob_active", {"log_alpha": log_alpha, **LAW}).result.shape == shape


def lines_of_code(path: Path, start: str) -> list[str]:
    text = path.read_text().split(start)[1]
    return [line for line in text.splitlines()[1:] if line.strip()]


def test_to_plug_in_a_module_takes_less_than_ten_lines() -> None:
    lines = lines_of_code(EXAMPLES / "torch_module.py", "# --- plugged into the oracle ---")
    assert 0 < len(lines) + 1 < 10  # and the import


# --- what the adapters do ---


@pytest.mark.parametrize("library", BOTH)
def test_derivatives_follow_from_what_is_there_and_nothing_else(library: str) -> None:
    target = made(library, {"sample": len, "expected_l2": len, "dense": len, "other": len})
    names = {n for n in FUNCTIONS if hasattr(target, n)}
    assert names == {"sample", "sample_vjp", "sample_partials", "expected_l2", "expected_l2_grad",
                     "dense", "dense_vjp"}  # fmt: skip


def test_neither_library_is_imported_for_nothing() -> None:
    body = (
        "import sys\n"
        "from l0ref.oracle import adapters\n"
        "adapters.from_torch({'mean': len}), adapters.from_jax({'mean': len})\n"
        "adapters.from_torch_module(len, 'gates')\n"
        "def dense_params(n_in, n_out, *, bias):\n"
        "    return [name for name in ('torch', 'jax') if name in sys.modules]\n"
    )
    import subprocess
    import sys

    script = body + "print(dense_params(1, 2, bias=True))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("library", BOTH)
def test_an_own_derivative_is_taken_as_it_is(library: str) -> None:
    def prob_active(log_alpha: Any, **law: float) -> Any:
        return 2 * log_alpha

    def prob_active_grad(log_alpha: Any, **law: float) -> Any:
        return 0 * log_alpha + 7

    target = made(library, {"prob_active": prob_active, "prob_active_grad": prob_active_grad})
    a = np.array([1.0, 2.0])
    np.testing.assert_array_equal(target.prob_active_grad(a, **LAW), [7, 7])
    assert target.prob_active_grad(a, **LAW).dtype == np.float64
    derived = made(library, {"prob_active": prob_active})
    np.testing.assert_array_equal(derived.prob_active_grad(log_alpha=a, **LAW), [2, 2])


@pytest.mark.parametrize("library", BOTH)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_does_not_enter_has_a_derivative_of_zeros(library: str, dtype: Any) -> None:
    def expected_l2(log_alpha: Any, weight: Any, bias: Any, **rest: Any) -> Any:
        return (weight * weight).sum()

    a, w, b = np.ones(3, dtype), np.full((3, 2), 1.5, dtype), np.ones(2, dtype)
    rest = {"on": "inputs", "gates_bias": False, **LAW}
    grads = made(library, {"expected_l2": expected_l2}).expected_l2_grad(a, w, b, **rest)
    for got, right in zip(grads, (0 * a, 2 * w, 0 * b), strict=True):
        np.testing.assert_array_equal(got, right)
        assert got.dtype == dtype


@pytest.mark.parametrize("library", BOTH)
def test_where_no_gradient_can_follow_it_is_not_there(library: str) -> None:
    functions = {"expected_l0": lambda log_alpha, group_size, **law: 3.0}
    target = made(library, functions)
    args = {"log_alpha": np.ones(2), "group_size": np.ones(2, int), **LAW}
    with (
        open_target(target) as opened_target,
        pytest.raises(NotImplementedByTarget, match="expected_l0 gives a float"),
    ):
        opened_target.call("expected_l0_grad", args, timeout=60)


@pytest.mark.parametrize("library", BOTH)
def test_there_is_no_derivative_in_whole_numbers(library: str) -> None:
    target = made(library, {"test_time": lambda log_alpha, **law: log_alpha * 0.5})
    with pytest.raises((TypeError, RuntimeError), match=r"no derivative|floating point"):
        target.test_time_grad(np.array([1, 2]), **LAW)


@needs_torch
def test_a_forgotten_gradient_is_a_failed_call() -> None:
    target = from_torch({"sample": lambda log_alpha, u, **law: log_alpha.detach() * u})
    args = {"log_alpha": np.ones(2), "u": np.ones(2) / 2, "dz": np.ones(2), **LAW}
    with (
        open_target(target) as opened_target,
        pytest.raises(TargetError, match="does not require grad"),
    ):
        opened_target.call("sample_vjp", args, timeout=60)


@needs_torch
def test_changes_in_place_are_seen_through_the_adapter() -> None:
    target = from_torch({"test_time": lambda log_alpha, **law: log_alpha.clamp_(0, 1)})
    with open_target(target) as opened_target:
        args = {"log_alpha": np.array([-2.0, 0.5]), **LAW}
        call = opened_target.call("test_time", args, timeout=60)
    assert call.changed == ("log_alpha",)
    np.testing.assert_array_equal(args["log_alpha"], [-2.0, 0.5])


@pytest.mark.parametrize("library", BOTH)
def test_arrays_of_any_layout_go_in(library: str) -> None:
    a = np.arange(6.0).reshape(2, 3)
    target = made(library, {"test_time": lambda log_alpha, **law: log_alpha * 2})
    for given in (a, a.T, a[:, ::2], a[::-1], a[:0], a[0, 0]):
        got = target.test_time(given, **LAW)
        np.testing.assert_array_equal(got, given * 2)
        assert got.flags.owndata


@needs_jax
def test_a_loss_that_cannot_be_compiled_is_differentiated_all_the_same() -> None:
    def loss(network: Any, x: Any, labels: Any, u: Any, **rest: Any) -> Any:
        weight = network["layers"][0]["weight"]
        return (weight**2).sum() if weight.sum() > 0 else weight.sum()

    network = {"layers": [{"kind": "dense", "weight": np.array([[1.5, 2.0]]), "bias": None}]}
    nothing = {"x": None, "labels": None, "u": [], "lam": 0.0, "l2": 0.0, "n_train": 1}
    found = from_jax({"loss": loss}).loss_and_grads(network=network, **nothing)
    assert found["loss"] == 6.25
    np.testing.assert_array_equal(found["grads"]["0.weight"], [[3.0, 4.0]])
    assert found["grads"].keys() == {"0.weight"}


@needs_jax
def test_jax_has_64_bits_where_the_arrays_have() -> None:
    import jax
    import jax.numpy as jnp

    def test_time(log_alpha: Any, **law: float) -> Any:
        return log_alpha + jnp.ones(2)  # of the default dtype

    target = from_jax({"test_time": test_time})
    for dtype in DTYPES:
        assert target.test_time(np.ones(2, dtype), **LAW).dtype == dtype
    assert not jax.config.jax_enable_x64


@needs_torch
@pytest.mark.parametrize("name", ["dense", "draw", "expected_l2", "nonsense"])
def test_functions_of_a_module_are_of_log_alpha(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' must be a function of the interface"):
        from_torch_module(len, "gates", **{name: "method"})


@needs_torch
def test_a_module_with_the_wrong_number_of_gates_says_so() -> None:
    import torch

    class Layer(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, n: int) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(n, 1, bias=False)

        def gates(self) -> Any:
            return self.inner.weight.sigmoid()

    args = {"log_alpha": np.ones((2, 3), np.float32), **LAW}
    honest = from_torch_module(lambda n, **law: Layer(n), "gates", parameter="inner.weight")
    assert honest.test_time(**args).shape == (2, 3)  # from a parameter of shape (1, 6)
    assert honest.draw(**args, n=2, seed=1).shape == (2, 2, 3)
    wrong = from_torch_module(lambda n, **law: Layer(n + 1), "gates", parameter="inner.weight")
    with pytest.raises(ValueError, match=r"with 6 gates, its inner.weight has shape \(1, 7\)"):
        wrong.test_time(**args)
    summed = from_torch_module(
        lambda n, **law: Layer(n), lambda m: m.gates().sum(), parameter="inner.weight"
    )
    with pytest.raises(ValueError, match="one number a gate, 6, got shape"):
        summed.test_time(**args)
    with pytest.raises(ValueError, match="copies must be at least 1"):
        from_torch_module(lambda n, **law: Layer(n), "gates", copies=0)


@needs_torch
def test_other_functions_of_a_module_get_their_arguments_in_order() -> None:
    import torch

    class Gate(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, n: int, beta: float) -> None:
            super().__init__()
            self.log_alpha, self.beta = torch.nn.Parameter(torch.zeros(n)), beta

        def count(self, group_size: Any) -> Any:
            return (group_size * self.log_alpha).sum()

        def with_noise(self, u: Any) -> Any:
            return u + self.log_alpha / self.beta

        def evaluated(self) -> Any:
            with torch.no_grad():
                assert not self.training
                return self.log_alpha * 2

    target = from_torch_module(
        lambda n, *, beta, gamma, zeta: Gate(n, beta),
        gates=lambda module: module.log_alpha,
        expected_l0="count",
        sample="with_noise",
        test_time="evaluated",
        name="mine",
    )
    a, u = np.array([[0.5], [2.0]]), np.array([[0.25], [0.75]])
    sizes = np.array([[3], [4]])
    assert target.name == "mine"
    assert target.expected_l0(a, sizes, **LAW) == 9.5
    assert target.expected_l0(a[:1], sizes[:1], **LAW).shape == ()
    np.testing.assert_array_equal(target.expected_l0_grad(a, sizes, **LAW), sizes)
    np.testing.assert_allclose(target.sample(a, u, **LAW), u + a / LAW["beta"], rtol=1e-15)
    np.testing.assert_allclose(target.sample_vjp(a, u, u, **LAW), u / LAW["beta"], rtol=1e-15)
    np.testing.assert_array_equal(target.test_time(a, **LAW), 2 * a)
    assert not hasattr(target, "sample_partials")
    with pytest.raises(NotImplementedError, match="no gradient in evaluation"):
        target.test_time_grad(a, **LAW)


# --- the whole check ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "numpy_functions",
        pytest.param("torch_functions:target", marks=needs_torch),
        pytest.param("torch_module:target", marks=needs_torch),
        pytest.param("jax_functions:target", marks=needs_jax),
    ],
)
def test_the_examples_pass_the_check(name: str) -> None:
    from l0ref.oracle.check import check

    file, _, attribute = name.partition(":")
    path = f"{EXAMPLES / file}.py" + (f":{attribute}" if attribute else "")
    report = check(path, quick=True, timeout=120)
    assert report.ok, [o for o in report.outcomes if o.n_failed]
