"""The dense layer without its zeros: by loops, by the whole product, on both backends."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from l0ref import ops
from l0ref.gates import per_weight
from l0ref.jit import TWINS, one_blas_thread, set_num_threads
from l0ref.layers import Dense, ReLU, SparseDense
from l0ref.network import Network
from l0ref.ops import SparseWeights
from l0ref.pruning import SPARSE, compact

SHAPES = [(1, 1, 1), (3, 5, 2), (257, 7, 11), (600, 40, 9)]
both = pytest.mark.parametrize(
    "product", [ops.sparse_dense, TWINS[ops.sparse_dense]], ids=["numpy", "numba"]
)


def sparse(d_in: int, d_out: int, dtype: str, share: float = 0.3) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(d_in + 100 * d_out)
    weight = rng.normal(size=(d_in, d_out)) * (rng.random((d_in, d_out)) < share)
    return weight.astype(dtype)


def test_what_is_kept_and_where() -> None:
    weight = np.array([[0.0, -2.0, 0.0], [4.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 5.0, 0.0]])
    kept = SparseWeights.of(weight)
    assert kept.values.tolist() == [4, 1, -2, 3, 5]
    assert kept.inputs.tolist() == [1, 3, 0, 2, 3]
    assert kept.starts.tolist() == [0, 2, 5, 5]  # the last output reads nothing
    assert kept.n_inputs == 4


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "d_in", "d_out"), SHAPES)
def test_it_is_the_whole_product(
    product: Callable[..., Any], dtype: str, n: int, d_in: int, d_out: int
) -> None:
    rng = np.random.default_rng(n)
    x, bias = rng.normal(size=(n, d_in)).astype(dtype), rng.normal(size=d_out).astype(dtype)
    weight = sparse(d_in, d_out, dtype)
    y = product(x, SparseWeights.of(weight), bias)
    assert y.dtype == dtype
    expected = x.astype(float) @ weight.astype(float) + bias
    # Sums of at most 40 terms of the order of 1, in another order.
    atol = 50 * np.finfo(dtype).eps * (np.abs(x.astype(float)) @ np.abs(weight) + 1).max()
    np.testing.assert_allclose(y, expected, rtol=0, atol=atol)


@both
def test_no_weight_at_all_leaves_the_bias(product: Callable[..., Any]) -> None:
    y = product(np.full((4, 3), 7.0), SparseWeights.of(np.zeros((3, 2))), np.array([0.5, -2.0]))
    np.testing.assert_array_equal(y, np.tile([0.5, -2.0], (4, 1)))


@both
def test_a_nan_reaches_only_what_reads_it(product: Callable[..., Any]) -> None:
    """A weight that is not there does not make a NaN of an infinity, as 0 times it would."""
    x = np.array([[1.0, np.inf, 2.0], [1.0, 3.0, np.nan]])
    weight = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    y = product(x, SparseWeights.of(weight), np.zeros(2))
    np.testing.assert_array_equal(y, [[3.0, np.inf], [np.nan, 4.0]])


@both
def test_shapes_that_do_not_fit(product: Callable[..., Any]) -> None:
    weights = SparseWeights.of(np.eye(3)[:, :2])
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3\), got \(4, 2\)"):
        product(np.ones((4, 2)), weights, np.zeros(2))
    with pytest.raises(ValueError, match=r"bias must have shape \(2,\), got \(3,\)"):
        product(np.ones((4, 3)), weights, np.zeros(3))


@both
def test_any_layout_and_no_example(product: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    wide, weights = rng.normal(size=(6, 14)), SparseWeights.of(sparse(7, 4, "float64"))
    bias = rng.normal(size=4)
    expected = product(wide[:, ::2].copy(), weights, bias)
    np.testing.assert_array_equal(product(wide[:, ::2], weights, bias), expected)
    np.testing.assert_array_equal(product(np.asfortranarray(wide[:, ::2]), weights, bias), expected)
    assert product(np.ones((0, 7)), weights, bias).shape == (0, 4)


def test_the_number_of_threads_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(900, 30)), SparseWeights.of(sparse(30, 8, "float64"))
    results = []
    for threads in (2, 1, 2):
        set_num_threads(threads)
        results.append(TWINS[ops.sparse_dense](x, weights, np.zeros(8)))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def pruned(share: float) -> Network:
    """784-200-10 with a gate a weight, of which a share is open."""
    rng = np.random.default_rng(2)
    layers: list[Any] = []
    for d_in, d_out in ((784, 200), (200, 10)):
        shape = (d_in, d_out)
        log_alpha = np.where(rng.random(shape) < share, 5.0, -9.0)
        layers += [
            Dense(rng.normal(size=shape), rng.normal(size=d_out), per_weight(shape), log_alpha),
            ReLU(),
        ]
    return Network(layers[:-1])


@pytest.mark.parametrize("share", [0.05, 0.9])
def test_a_compact_network_uses_it_where_it_pays(share: float) -> None:
    small = compact(pruned(share))
    fast = small.with_backend("numba")
    x = np.random.default_rng(3).normal(size=(300, 784))
    reference = small.predict(x)
    np.testing.assert_allclose(
        fast.predict(x), reference, rtol=0, atol=1e-12 * np.abs(reference).max()
    )
    assert fast._runner is not None
    used = [isinstance(layer, SparseDense) for layer in fast._runner.layers]
    assert used[0] == (share <= SPARSE)
    assert not used[2]  # these few weights are not worth it
    # What it costs, and what is saved, is the network's own.
    assert (fast.n_params, fast.flops) == (small.n_params, small.flops)


def test_as_a_layer_it_makes_nan_of_what_is_not_finite_as_the_whole_weights_do() -> None:
    weight = sparse(7, 5, "float64")
    layer, whole = SparseDense(SparseWeights.of(weight), np.zeros(5)), Dense(weight, np.zeros(5))
    np.testing.assert_array_equal(layer.weights.whole(), weight)
    for odd in (np.nan, np.inf, -np.inf):
        x = np.random.default_rng(0).normal(size=(3, 7))
        x[1, 4] = odd
        with np.errstate(invalid="ignore"):
            got, expected = layer.forward(x, None)[0], whole.forward(x, None)[0]
        np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
        assert np.isnan(got[1]).any()
        np.testing.assert_allclose(got[::2], expected[::2], rtol=1e-13)


def test_it_is_for_inference() -> None:
    layer = SparseDense(SparseWeights.of(np.eye(2)), np.zeros(2))
    assert layer.output_shape((5, 2)) == (5, 2)
    with pytest.raises(TypeError, match="inference"):
        layer.backward(np.ones((1, 2)), None)


def test_it_runs_under_one_blas_thread_as_well() -> None:
    weights = SparseWeights.of(np.eye(3))
    with one_blas_thread():
        np.testing.assert_array_equal(
            TWINS[ops.sparse_dense](np.ones((2, 3)), weights, np.zeros(3)), np.ones((2, 3))
        )
