"""The recipes that `l0ref.testing` shows for PyTorch and JAX run, and find a planted error."""

import re
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings

from l0ref import testing

RECIPES = [
    textwrap.dedent(block)
    for block in re.findall(
        r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", testing.__doc__ + "\n"
    )
]
LIBRARIES = ("torch", "jax")
WRONG_BACKWARD = {
    "torch": ("(z, leaf, torch.tensor(dz))", "(z.sum(), leaf)"),
    "jax": ("[1](dy)", "[1](jnp.ones_like(dy))"),
}


@pytest.fixture
def _no_shrinking() -> Iterator[None]:
    before = settings.default
    settings.register_profile("no shrinking", before, phases=[Phase.generate])
    settings.load_profile("no shrinking")
    yield
    settings.register_profile("before", before)
    settings.load_profile("before")


def recipe(library: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import itself, whatever its version has to say
        pytest.importorskip(library)
    (code,) = (block for block in RECIPES if f"import {library}\n" in block)
    return code


def functions_in(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "the recipe", "exec"), names)
    return {name: value for name, value in names.items() if name.startswith("test_")}


@pytest.mark.parametrize("library", LIBRARIES)
def test_recipes_run(library: str) -> None:
    tests = functions_in(recipe(library))
    assert len(tests) >= 2
    for test in tests.values():
        test()


@pytest.mark.usefixtures("_no_shrinking")
@pytest.mark.parametrize("library", LIBRARIES)
def test_recipes_find_a_cotangent_that_is_left_out(library: str) -> None:
    right, wrong = WRONG_BACKWARD[library]
    code = recipe(library)
    assert right in code
    with pytest.raises(AssertionError, match="is wrong"):
        functions_in(code.replace(right, wrong))["test_gradient"]()


@pytest.mark.usefixtures("_no_shrinking")
def test_the_recipe_finds_a_temperature_in_the_wrong_place() -> None:
    code = recipe("torch")
    right, wrong = "torch.log1p(-u) + log_alpha) / beta)", "torch.log1p(-u)) / beta + log_alpha)"
    assert right in code
    changed = code.replace(right, wrong)
    with pytest.raises(AssertionError, match="sample differs from the reference"):
        functions_in(changed)["test_draws"]()
