"""Hold a function of one's own against the reference, with the tolerance that its inputs call for.

What is compared, by which name and with which arguments, is listed in `l0ref.oracle.interface`.
Whether a difference is rounding is decided there too, input by input: the bound grows where the
formula itself magnifies rounding, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from ..oracle.allowed import CASES, as_dtype, tolerance_for
from ..oracle.compare import compare
from ..oracle.differential import compare_compact, expect
from ..oracle.interface import FUNCTIONS
from ..oracle.report import Observation
from ..oracle.strategies import PROBES, STRATEGIES

DEFAULTS = {"beta": 2 / 3, "gamma": -0.1, "zeta": 1.1}


def inputs_of(function: str, dtype: DTypeLike = np.float64) -> st.SearchStrategy[dict[str, Any]]:
    """Draw inputs for one of the functions of `l0ref.oracle.interface`, by their names.

    They keep clear of kinks where derivatives are asked for, and every number is exact in float32.

    Parameters
    ----------
    function : str
        For example "sample_vjp" or "loss_and_grads".
    dtype : dtype, optional
        Of the arrays: float32 or float64.

    Raises
    ------
    ValueError
        If there is no such function, or it draws by itself.

    Examples
    --------
    >>> from hypothesis import given
    >>> from l0ref import HardConcrete
    >>> def prob_active(log_alpha, *, beta, gamma, zeta):
    ...     return 1 / (1 + np.exp(beta * np.log(-gamma / zeta) - log_alpha))
    >>> @given(inputs_of("prob_active"))
    ... def test(inputs):
    ...     assert_matches_reference("prob_active", prob_active, **inputs)
    >>> test()
    """
    _check_name(function)

    def given(drawn: dict[str, Any]) -> dict[str, Any]:
        inputs: dict[str, Any] = as_dtype(drawn, dtype)
        return {name: value for name, value in inputs.items() if name != PROBES}

    return STRATEGIES[function].map(given)


def assert_matches_reference(function: str, got: Any, *args: Any, **inputs: Any) -> None:
    r"""Compare a result with what the reference gives for the same inputs.

    Parameters
    ----------
    function : str
        One of `l0ref.oracle.interface.FUNCTIONS`: "prob_active", "sample_vjp", "dense", ...
    got : callable or result
        A function, which is called with the inputs as they are given here; or what it returned.
        NumPy arrays, or what converts to them, such as tensors of PyTorch and arrays of JAX.
    *args, **inputs
        The function's arguments, by place or by name as in the interface. beta, gamma and zeta may
        be left out where they are 2/3, -0.1 and 1.1.

    Raises
    ------
    AssertionError
        If the result is not within rounding of the right one, which is computed in float64 from
        the very numbers given. Says where, what came, what is right, how much was allowed, for
        which inputs, and the name of the mistake where it is a known one. Where honest conventions
        differ, as on the sign of the noise, each of them is right.
    ValueError
        If there is no such function, or arguments are missing or unknown.

    Examples
    --------
    >>> log_alpha = np.array([-1.0, 0.5])
    >>> assert_matches_reference("test_time", np.array([0.22273, 0.64695]), log_alpha)
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    AssertionError: test_time differs from the reference
      at [1]: got 0.64695, expected 0.64695..., off by 1.2e-06, allowed ...
      log_alpha = array([-1. ,  0.5])
      beta = 0.6666666666666666
      gamma = -0.1
      zeta = 1.1
    """
    _check_name(function)
    names = FUNCTIONS[function].parameters
    if len(args) > len(names):
        raise ValueError(f"{function} takes {len(names)} arguments, got {len(args)}")
    twice = [name for name in names[: len(args)] if name in inputs]
    unknown = [name for name in inputs if name not in names]
    if twice or unknown:
        raise ValueError(
            f"{function} takes {', '.join(names)}; got {', '.join(twice + unknown)} "
            f"{'twice' if twice else 'too'}"
        )
    filled = {**DEFAULTS, **dict(zip(names, args, strict=False)), **inputs}
    missing = [name for name in names if name not in filled]
    if missing:
        raise ValueError(f"{function} needs {', '.join(missing)} too")
    if callable(got):
        got = got(*args, **inputs)

    given = {name: _as_arrays(filled[name]) for name in names}
    dtype = next((array.dtype for array in _float_arrays(given)), np.dtype(np.float64))
    result = _as_arrays(got)
    wide = as_dtype(given, np.float64)
    if function == "compact":
        shape = (5, *given["network"]["input_shape"])
        wide[PROBES] = np.random.default_rng(0).uniform(0, 1, shape)
    right, tolerance = expect(function, wide, dtype)
    if function == "compact":
        wrong = compare_compact(result, wide["network"], wide[PROBES], dtype)
    else:
        wrong = compare(result, right, tolerance, dtype=dtype)
        if wrong and _is_another_convention(function, result, wide, dtype):
            return
    if wrong is None:
        return
    lines = [f"{function} differs from the reference", f"  {wrong.message}"]
    lines += [f"  {name} = {_shown(value)}" for name, value in given.items()]
    seen = Observation(function, given, result, right, tolerance, False, "random")
    lines += [f"  {sentence}" for sentence in _named(seen)]
    raise AssertionError("\n".join(lines))


def _is_another_convention(function: str, result: Any, wide: dict[str, Any], dtype: Any) -> bool:
    """Say whether the result is right by a convention that is as honest as the reference's."""
    for convention in CASES[function].alternatives.values():
        right, like = convention(wide)
        tolerance = tolerance_for(function, like, right, dtype)
        if compare(result, right, tolerance, dtype=dtype) is None:
            return True
    return False


def _named(seen: Observation) -> list[str]:
    """Return what the catalogue of known mistakes says, if it knows this one."""
    from ..oracle.diagnosis import diagnose  # a catalogue that only a failure needs

    return [mistake.sentence for mistake in diagnose([seen])[:1]]


def _check_name(function: str) -> None:
    if function not in FUNCTIONS:
        raise ValueError(f"function must be one of {sorted(FUNCTIONS)}, got {function!r}")
    if function not in STRATEGIES:
        raise ValueError(
            f"{function} draws by itself, and no single result of it is right: use check_unbiased"
        )


def _as_arrays(value: Any) -> Any:
    """Turn other frameworks' arrays into NumPy's, wherever in a structure they are."""
    if isinstance(value, Mapping):
        return {key: _as_arrays(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_as_arrays(part) for part in value)
    detach: Callable[[], Any] | None = getattr(value, "detach", None)  # PyTorch's
    if detach is not None:
        return np.asarray(detach().cpu())
    if hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    return value


def _float_arrays(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _float_arrays(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _float_arrays(part)
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        yield value


def _shown(value: Any) -> str:
    with np.printoptions(threshold=24, edgeitems=2, linewidth=10**6, precision=10):
        text = repr(value).replace("\n", "")
    return text if len(text) <= 300 else f"{text[:297]}..."
