"""Every bug planted in an example target is found by the oracle, and what it knows is named."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from l0ref.oracle.check import Checker, Status
from l0ref.oracle.deviations import DEVIATIONS
from l0ref.oracle.diagnosis import Diagnosis, diagnose
from tests.mutants.targets import (
    JAVASCRIPT,
    JAX,
    MODULE,
    TARGET_MUTANTS,
    TORCH,
    TargetMutant,
    mutate,
    planted,
)

SAMPLE = (
    "numpy-open-is-one-in-dense",
    "numpy-size-one-in-penalty",
    "numpy-prob-one-minus-cdf",
    "numpy-median",
    "numpy-u-clamped",
    "numpy-dense-dz-no-bias",
    "numpy-average-from-parameters",
    "torch-l2-detached",
    "jax-median",
    "javascript-noise-plus",
    "module-noise-gumbel",
)
"""Of all kinds of targets; the others are slow tests."""

NEEDS = {TORCH: "torch", MODULE: "torch", JAX: "jax"}
SHARE_NAMED = 0.95


def sampled(mutant: TargetMutant) -> Any:
    marks = [] if mutant.name in SAMPLE else [pytest.mark.slow]
    return pytest.param(mutant, id=mutant.name, marks=marks)


every_mutant = pytest.mark.parametrize("mutant", [sampled(one) for one in TARGET_MUTANTS])


def need(mutant: TargetMutant) -> None:
    if mutant.file == JAVASCRIPT and shutil.which("node") is None:
        pytest.skip("there is no node")
    if mutant.file in NEEDS:
        pytest.importorskip(NEEDS[mutant.file])


def find(mutant: TargetMutant, folder: Path) -> tuple[bool, list[Diagnosis]]:
    """Check the target with the bug in it: whether it is found, and what it is called."""
    with planted(mutant, folder) as target:
        functions = mutant.functions
        # Of a module that is drawn from one by one, a busy machine makes too few draws in 10 s.
        with Checker(
            target, functions=functions, dtypes=("float64",), quick=True, timeout=40.0
        ) as checker:
            outcomes = [checker.run(*part) for part in checker.parts() if part[0] != "manners"]
            seen = [one for many in checker.calls.observations.values() for one in many]
    return any(one.status is Status.FAILED for one in outcomes), diagnose(seen)


def test_names_are_unique_and_deviations_are_known() -> None:
    names = [mutant.name for mutant in TARGET_MUTANTS]
    assert len(set(names)) == len(names) >= 80
    assert {one.deviation for one in TARGET_MUTANTS} - {None} <= DEVIATIONS.keys()
    assert set(SAMPLE) <= set(names)


def test_all_can_be_planted() -> None:
    sources = [(mutant.file, mutate(mutant)) for mutant in TARGET_MUTANTS]
    assert len(set(sources)) == len(sources)


def test_a_stale_mutant_is_named() -> None:
    stale = TargetMutant("old", JAVASCRIPT, "no such line", "", None, ())
    with pytest.raises(ValueError, match=r"old is stale: 'no such line' must be in javascript\.js"):
        mutate(stale)


@every_mutant
def test_it_is_found_and_named(mutant: TargetMutant, tmp_path: Path) -> None:
    """The right name first; nothing else as certain."""
    need(mutant)
    is_found, diagnoses = find(mutant, tmp_path)
    assert is_found
    assert [one.deviation for one in diagnoses if one.certain] in ([mutant.deviation], [])
    if mutant.deviation is not None:
        assert diagnoses
        assert diagnoses[0].deviation == mutant.deviation
