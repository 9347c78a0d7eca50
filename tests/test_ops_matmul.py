"""The product over open rows and columns: by loops, by masked whole products, by differences."""

from typing import Any

import numpy as np
import pytest

from l0ref import ops
from l0ref.ops.matmul import gated_matmul, gated_matmul_vjp

CASES = [(3, 4, 4, 2), (5, 7, 6, 9), (1, 1, 1, 1), (4, 9, 9, 3)]
every_case = pytest.mark.parametrize("case", CASES)
every_kind = pytest.mark.parametrize("gated", [True, False])


def operands(case: tuple[int, ...], *, gated: bool = True, seed: int = 0) -> Any:
    """x, weight, gates and indices that are in no order; every column of x where none is closed."""
    n, d, d_in, d_out = case
    rng = np.random.default_rng(seed)
    k, m = min(d, d_in) - (min(d, d_in) > 1), d_out - (d_out > 1)
    x = rng.normal(size=(n, d if gated else d_in))
    weight = rng.normal(size=(d_in, d_out))
    if not gated:
        return x, weight, None, {"take": None, "rows": None, "columns": None}
    index = {
        "take": rng.permutation(d)[:k],
        "rows": rng.permutation(d_in)[:k],
        "columns": rng.permutation(d_out)[:m],
    }
    return x, weight, rng.uniform(0.1, 1, k), index


def by_loops(x: Any, weight: Any, z: Any, index: Any) -> list[list[float]]:
    """One number at a time, from the equation."""
    take = range(x.shape[1]) if index["take"] is None else index["take"]
    rows = range(weight.shape[0]) if index["rows"] is None else index["rows"]
    columns = range(weight.shape[1]) if index["columns"] is None else index["columns"]
    gates = [1.0] * len(list(rows)) if z is None else z
    return [
        [
            sum(x[n, t] * g * weight[r, c] for t, g, r in zip(take, gates, rows, strict=True))
            for c in columns
        ]
        for n in range(x.shape[0])
    ]


@every_kind
@every_case
def test_the_product_is_its_equation(case: tuple[int, ...], gated: bool) -> None:
    x, weight, z, index = operands(case, gated=gated)
    y, _ = gated_matmul(x, weight, z, **index)
    # Sums of at most 9 products of numbers of the order of 1.
    np.testing.assert_allclose(y, by_loops(x, weight, z, index), rtol=0, atol=100 * 2.0**-52)


@every_kind
@every_case
def test_derivatives_are_those_of_the_loops(case: tuple[int, ...], gated: bool) -> None:
    """The product is linear in each argument: a central difference of any width is exact."""
    x, weight, z, index = operands(case, gated=gated)
    y, residuals = gated_matmul(x, weight, z, **index)
    dy = np.random.default_rng(9).normal(size=y.shape)
    dx, dweight, dz = gated_matmul_vjp(dy, residuals)
    arguments = [(x, dx), (weight, dweight)] + ([] if z is None else [(z, dz)])
    assert (dz is None) == (z is None)
    for argument, derivative in arguments:
        assert derivative.shape == argument.shape
        for place in np.ndindex(argument.shape):
            before = argument[place]
            argument[place] = before + 0.5
            above = (np.array(by_loops(x, weight, z, index)) * dy).sum()
            argument[place] = before - 0.5
            below = (np.array(by_loops(x, weight, z, index)) * dy).sum()
            argument[place] = before
            assert derivative[place] == pytest.approx(above - below, rel=0, abs=1e-12)


@every_case
def test_it_is_the_whole_product_with_zeros_in_place_of_what_is_closed(
    case: tuple[int, ...],
) -> None:
    n, _, d, d_out = case
    x, weight, z, index = operands((n, d, d, d_out))
    index["take"] = index["rows"]
    gates, is_open = np.zeros(d), np.zeros(d_out, bool)
    gates[index["rows"]], is_open[index["columns"]] = z, True
    whole = ((x * gates) @ weight * is_open)[:, index["columns"]]
    y, residuals = gated_matmul(x, weight, z, **index)
    np.testing.assert_allclose(y, whole, rtol=0, atol=1e-13)
    dy = np.random.default_rng(3).normal(size=y.shape)
    dx, dweight, _ = gated_matmul_vjp(dy, residuals)
    assert dx is not None
    assert (dx[:, gates == 0] == 0).all()
    assert (dweight[gates == 0] == 0).all()
    assert (dweight[:, ~is_open] == 0).all()


def test_what_is_closed_is_not_read() -> None:
    x, weight, z, index = operands((5, 7, 6, 9))
    closed_x = np.setdiff1d(np.arange(7), index["take"])
    closed_rows = np.setdiff1d(np.arange(6), index["rows"])
    closed_columns = np.setdiff1d(np.arange(9), index["columns"])
    y, residuals = gated_matmul(x, weight, z, **index)
    dy = np.random.default_rng(3).normal(size=y.shape)
    expected = gated_matmul_vjp(dy, residuals)
    x[:, closed_x], weight[closed_rows], weight[:, closed_columns] = np.nan, np.nan, np.nan
    got, residuals = gated_matmul(x, weight, z, **index)
    np.testing.assert_array_equal(got, y)
    for one, other in zip(gated_matmul_vjp(dy, residuals), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_dx_where_nobody_wants_it() -> None:
    x, weight, z, index = operands((3, 4, 4, 2))
    y, residuals = gated_matmul(x, weight, z, **index)
    dx, dweight, _ = gated_matmul_vjp(y, residuals, need_dx=False)
    assert dx is None
    np.testing.assert_array_equal(dweight, gated_matmul_vjp(y, residuals)[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays(dtype: Any) -> None:
    x, weight, z, index = operands((3, 4, 4, 2))
    y, residuals = gated_matmul(*(a.astype(dtype) for a in (x, weight, z)), **index)
    assert {a.dtype for a in (y, *gated_matmul_vjp(y, residuals)) if a is not None} == {
        np.dtype(dtype)
    }


I2 = np.array([0, 2])
REFUSED = [
    ((np.ones(3), np.ones((3, 2))), {}, r"x must have shape \(N, D\).* got \(3,\)"),
    ((np.ones((2, 3)), np.ones(3)), {}, r"weight \(D_in, D_out\), got \(2, 3\) and \(3,\)"),
    ((np.ones((2, 3)), np.ones((4, 2))), {}, "as many columns .* got 3 and 4"),
    ((np.ones((2, 3)), np.ones((3, 2))), {"rows": I2}, "as many columns .* got 3 and 2"),
    ((np.ones((2, 3)), np.ones((3, 2))), {"take": I2}, "as many columns .* got 2 and 3"),
    ((np.ones((2, 3)), np.ones((3, 2)), np.ones(2)), {}, r"z must have shape \(3,\), got \(2,\)"),
]


@pytest.mark.parametrize(("arguments", "index", "message"), REFUSED)
def test_shapes_that_do_not_fit(arguments: Any, index: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.gated_matmul(*arguments, **index)


def test_a_cotangent_that_does_not_fit() -> None:
    _, residuals = gated_matmul(np.ones((2, 3)), np.ones((3, 4)), columns=I2)
    with pytest.raises(ValueError, match=r"dy must have shape \(2, 2\), got \(1, 2\)"):
        gated_matmul_vjp(np.ones((1, 2)), residuals)
