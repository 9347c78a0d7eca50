"""Sums of kernels: in the order that is written, wherever the compiler puts them."""

import ast
import importlib
import math
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from l0ref import jit
from l0ref.jit import _compile, _sums
from l0ref.jit._compile import Kernel
from l0ref.jit._vectors import F64_LANES

SIZES = [0, 1, F64_LANES - 1, F64_LANES, 4 * F64_LANES, 5 * F64_LANES + 3, 1000]


def plain(function: Any) -> Any:
    """Return it as Python."""
    return getattr(function, "py_func", function)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", SIZES)
def test_a_sum_is_what_it_says_to_the_bit(n: int, dtype: Any) -> None:
    values = np.random.default_rng(n).normal(size=n).astype(dtype)
    total = _sums.add_up(values)
    assert total == plain(_sums.add_up)(values)
    exact = math.fsum(values.tolist())
    assert abs(total - exact) <= 2**-52 * (20 + n / 16) * np.abs(values).sum(dtype=float)


@pytest.mark.parametrize("other", [np.float32, np.int64])
@pytest.mark.parametrize("n", SIZES)
def test_a_sum_of_products_is_what_it_says_to_the_bit(n: int, other: Any) -> None:
    """Of products that float64 holds: then it does not matter whether they are rounded."""
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n).astype(np.float32), (99 * rng.normal(size=n)).astype(other)
    total = _sums.inner(a, b)
    assert total == plain(_sums.inner)(a, b)
    terms = a.astype(float) * b
    assert abs(total - math.fsum(terms)) <= 2**-52 * (20 + n / 16) * np.abs(terms).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", SIZES)
def test_a_sum_in_the_numbers_own_precision_is_what_it_says_to_the_bit(n: int, dtype: Any) -> None:
    """Of numbers of a few bits, whose products are exact: rounded or not before they are added."""
    rng = np.random.default_rng(n)
    a, b = (rng.integers(-2000, 2000, n).astype(dtype) / 1024 for _ in range(2))
    total = _sums.dot(a, b)
    assert total == plain(_sums.dot)(a, b)
    terms = a.astype(float) * b
    assert abs(total - math.fsum(terms)) <= np.finfo(dtype).eps * (20 + n / 16) * abs(terms).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", SIZES)
def test_a_sum_of_squares_is_what_it_says_to_the_bit(n: int, dtype: Any) -> None:
    """Of squares of 52 bits, which float64 holds as well."""
    bits = 23 if dtype == np.float32 else 25
    values = np.random.default_rng(n).integers(-(2**bits), 2**bits, size=n).astype(dtype)
    mean = 1234567.0
    total = _sums.add_up_squares(values, mean)
    assert total == plain(_sums.add_up_squares)(values, mean)
    exact = sum((int(value) - int(mean)) ** 2 for value in values)
    assert abs(total - exact) <= 2**-52 * (20 + n / 16) * exact


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4 * F64_LANES + 1, -1])
def test_what_is_not_finite_stays(value: float, place: int) -> None:
    values = np.ones(5 * F64_LANES + 3)
    values[place] = value
    np.testing.assert_equal(_sums.add_up(values), value)
    np.testing.assert_equal(_sums.inner(values, np.ones_like(values)), value)
    np.testing.assert_equal(_sums.dot(values, np.ones_like(values)), value)
    np.testing.assert_equal(_sums.add_up_squares(values, 0.5), value * value)


# --- no kernel leaves the order to the compiler ---


def test_every_function_is_compiled_with_the_same_flags() -> None:
    """Only one that changes no order, and leaves NaN and infinities alone."""
    assert {"contract"} == _compile.CONTRACT
    seen = 0
    for module in pkgutil.iter_modules(jit.__path__, "l0ref.jit."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Kernel):
                flags = value._compile(cache=False).targetoptions["fastmath"]
            elif isinstance(value, Dispatcher):
                flags = value.targetoptions.get("fastmath")
            else:
                continue
            wanted = set() if name == "rounded" else {"contract"}  # which is there to round
            assert set(flags or ()) == wanted, f"{module.name}.{name}"
            seen += 1
    assert seen > 20


def flags_in(source: str) -> list[str]:
    """Everything that a file gives as ``fastmath``, to a function or in a dictionary."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "fastmath":
            found.append(ast.unparse(node.value))
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "fastmath":
                    found.append(ast.unparse(value))
    return found


def test_no_file_asks_for_other_flags() -> None:
    """Also where nothing shows them when all is loaded: in options of an overload."""
    found = {
        path.name: flags
        for path in sorted(Path(jit.__path__[0]).glob("*.py"))
        if (flags := flags_in(path.read_text()))
    }
    found["_compile.py"].remove("False")  # of what is there to round
    assert {flag for flags in found.values() for flag in flags} == {"set(CONTRACT)"}, found
    assert {"_compile.py", "elementary.py", "hard_concrete.py"} <= found.keys()


@pytest.mark.parametrize("source", [
    "f = njit(fastmath=True)(g)",
    "options = {'fastmath': {'reassoc'}}",
    "@overload(f, jit_options={'fastmath': FAST})\ndef g(): ...",
])  # fmt: skip
def test_the_search_finds_other_flags(source: str) -> None:
    assert set(flags_in(source)) - {"set(CONTRACT)"}


def test_vectors_of_an_intrinsic_have_no_other_flags() -> None:
    """They are written in LLVM's language, where each operation has its own."""
    for name in ("_vectors.py", "_tiles.py"):
        source = (Path(jit.__path__[0]) / name).read_text()
        flags = [
            ast.literal_eval(node.value)
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.keyword) and node.arg == "flags"
        ]
        assert flags
        assert all(list(flag) == ["contract"] for flag in flags), name
