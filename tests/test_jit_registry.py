"""Every twin is found where its original is: same file, same name, same signature, and in use."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import l0ref
from l0ref import backends, jit, programs
from l0ref.jit import _registry
from l0ref.programs import conv, dense

HELPERS = {"threads", "elementary", "blas"}  # of all twins: they have no original
ROOT = Path(l0ref.__path__[0])
Rooms = dict[str, ModuleType]
PROGRAMS = (programs, conv, dense)  # which use what twins are made of


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}


def modules_of_twins() -> Rooms:
    found = names(ROOT / "jit") - HELPERS
    return {name: importlib.import_module(f"l0ref.jit.{name}") for name in found}


def modules_of_originals() -> Rooms:
    ops, others = names(ROOT / "ops"), names(ROOT)
    assert not ops & others  # so that a name is one file
    wanted = set(modules_of_twins())
    return {name: importlib.import_module(f"l0ref.{'ops.' if name in ops else ''}{name}")
            for name in (ops | others) & wanted}  # fmt: skip


def signature(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in parameters]


def public_functions(module: ModuleType) -> dict[str, Any]:
    """Plain functions, no kernels, that the module defines, without a leading underscore."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and isinstance(value, FunctionType)
        and getattr(getattr(value, "twin", value), "__module__", None) == module.__name__
    }


def last(function: Any) -> str:
    return str(function.__module__).rpartition(".")[2]


def faults(rooms: Rooms, originals: Rooms, twins: dict[Any, Any]) -> list[str]:
    """List every twin that is not what its original is, and every function that is nobody's."""
    found = [f"{name} has no original file" for name in rooms if name not in originals]
    for original, choose in twins.items():
        inner, name = choose.twin, original.__name__
        if inner.__name__ != name:
            found.append(f"{inner.__name__} is registered for {name}")
        if last(inner) != last(original):
            found.append(f"{name} is in {last(inner)}, its original in {last(original)}")
        if signature(inner) != signature(original):
            found.append(f"{name} has another signature")
        if signature(choose) != signature(original):
            found.append(f"{name} shows another signature")
        if getattr(rooms.get(last(inner)), name, None) is not choose:
            found.append(f"{name} is not what its module has under that name")
        pair = name.removesuffix("_vjp") if name.endswith("_vjp") else f"{name}_vjp"
        home = originals.get(last(original))
        other = getattr(home, pair, None) if home and ".ops." in home.__name__ else None
        if other is not None and other not in twins:
            found.append(f"{name} has a twin, {pair} has none")
    for room, module in rooms.items():
        for name, value in public_functions(module).items():
            if any(value is choose for choose in twins.values()):
                continue
            if hasattr(originals.get(room), name):
                found.append(f"{room}.{name} has its original's name, but is no twin")
            others = (vars(m).values() for m in (*rooms.values(), *PROGRAMS) if m is not module)
            shared = any(value is other for names in others for other in names)
            if not shared:
                found.append(f"{room}.{name} is neither a twin nor of use to another file")
    return found


def test_every_twin_is_where_and_what_its_original_is() -> None:
    rooms = modules_of_twins()
    assert {
        "dense",
        "conv",
        "conv_block",
        "pack",
        "norm",
        "optimizers",
        "penalties",
    } <= rooms.keys()
    assert len(jit.TWINS) >= 20
    assert faults(rooms, modules_of_originals(), jit.TWINS) == []


def test_every_module_is_imported_by_the_package() -> None:
    """A file that nobody imports registers nothing."""
    homes = {last(choose.twin) for choose in jit.TWINS.values()}
    assert homes == modules_of_twins().keys()


def test_the_numba_backend_has_every_twin_and_else_the_reference() -> None:
    reference, fast = backends.load("numpy"), backends.load("numba")
    assert reference.functions.keys() == fast.functions.keys()
    rooms, replaced = modules_of_twins(), 0
    for name, original in reference.functions.items():
        assert original.__name__ == name
        assert not hasattr(original, "twin")
        has_twin = hasattr(rooms.get(last(original)), name)
        if has_twin:
            assert fast.functions[name] is getattr(rooms[last(original)], name), name
            assert fast.functions[name] is jit.TWINS[original], name
            replaced += 1
        else:
            assert fast.functions[name] is original, name
    assert replaced >= 18


# --- the walker itself, on a package with one fault ---

FINE = """
def scale(x, *, by=2): ...
def scale_vjp(dy, residuals, *, by=2): ...
"""
FINE_TWINS = """
def shared(): ...
@twin(original.scale)
def scale(x, *, by=2): ...
@twin(original.scale_vjp)
def scale_vjp(dy, residuals, *, by=2): ...
"""


def make(name: str, source: str, **known: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(known)
    exec(source, vars(module))
    return module


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("", "", None),
        ("def scale(x, *, by=2)", "def scale(x, *, by=3)", "scale has another signature"),
        ("def scale(x, *, by=2)", "def scale(x, by=2)", "scale has another signature"),
        ("def scale(x, *, by=2)", "def scale(y, *, by=2)", "scale has another signature"),
        ("def scale(x, *, by=2)", "def scale(x)", "scale has another signature"),
        ("def scale(x", "def enlarge(x", "enlarge is registered for scale"),
        ("@twin(original.scale)", "", "zoom.scale has its original's name, but is no twin"),
        ("@twin(original.scale)", "", "scale_vjp has a twin, scale has none"),
        ("@twin(original.scale_vjp)", "", "scale has a twin, scale_vjp has none"),
        ("def shared", "def lonely(): ...\ndef shared",
         "zoom.lonely is neither a twin nor of use to another file"),
        ("def shared", "scale = 0\ndef shared", None),
        ("residuals, *, by=2): ...", "residuals, *, by=2): ...\nscale = print",
         "scale is not what its module has under that name"),
    ],
)  # fmt: skip
def test_the_walker_sees_each_fault(
    monkeypatch: pytest.MonkeyPatch, before: str, after: str, fault: str | None
) -> None:
    registry: dict[Any, Any] = {}
    monkeypatch.setattr(_registry, "TWINS", registry)
    original = make("fake.ops.zoom", FINE)
    assert before in FINE_TWINS
    source = FINE_TWINS.replace(before, after, 1) if before else FINE_TWINS
    zoom = make("fake.jit.zoom", source, twin=_registry.twin, original=original)
    rooms = {"zoom": zoom, "other": make("fake.jit.other", "", shared=zoom.shared)}
    originals = {"zoom": original, "other": make("fake.ops.other", "")}
    found = faults(rooms, originals, registry)
    assert found == [] if fault is None else fault in found


def test_the_walker_sees_files_that_do_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    registry: dict[Any, Any] = {}
    monkeypatch.setattr(_registry, "TWINS", registry)
    original = make("fake.ops.zoom", FINE)
    room = make("fake.jit.pan", FINE_TWINS, twin=_registry.twin, original=original)
    found = faults({"pan": room}, {"zoom": original}, registry)
    assert "pan has no original file" in found
    assert "scale is in pan, its original in zoom" in found
