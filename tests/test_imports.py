"""Imports flow one way: what explains comes before what uses it, and is blind to its oracle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import l0ref

ROOT = Path(l0ref.__path__[0])
CHAINS = (
    ("hard_concrete", "gates", "penalties"),
    ("ops", "layers", "networks", "training", "pruning", "cli"),
    ("hard_concrete", "gates", "layers"),
    ("penalties", "network", "networks"),
    ("network", "steps", "programs", "training"),
    ("jit", "programs"),
    ("layers", "network", "flops", "pruning", "runs", "cli"),
    ("flops", "training", "runs"),
    ("storage", "cifar", "datasets", "training"),
    ("augment", "training"),
    ("pruning", "oracle", "testing"),
    ("oracle", "cli"),
)
HOLD_AGAINST = {"cli", "testing"}
"""The rooms that hold something of the user's against the oracle; what it judges never sees it."""

Graph = dict[str, set[str]]


def room(module: str) -> str:
    """Return the file, or the folder, of the package that a module lies in: `ops` for ops.dense."""
    return module.split(".")[1] if "." in module else module


def imported(tree: ast.AST, module: str, *, is_package: bool) -> set[str]:
    """Return every module that the code names in an import, wherever in the file it stands."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if node.level else []
            base = parts[: len(parts) - node.level + is_package]
            base += node.module.split(".") if node.module else []
            names.add(".".join(base))
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def read(root: Path) -> Graph:
    """Map each room to the rooms it imports."""
    files = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        files[".".join(parts[:-1] if is_package else parts)] = (path, is_package)
    rooms = {room(module) for module in files} - {root.name}
    graph: Graph = {name: set() for name in rooms}
    for module, (path, is_package) in files.items():
        own = room(module)
        if own != root.name:
            names = imported(ast.parse(path.read_text()), module, is_package=is_package)
            inside = {room(name) for name in names if name.startswith(f"{root.name}.")}
            graph[own] |= inside & rooms - {own}
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    front = set(graph.get(start, ()))
    while front:
        seen |= front
        front = set().union(*(graph[name] for name in front)) - seen
    return seen


def faults(graph: Graph) -> list[str]:
    """List what goes the wrong way, straight or through other rooms."""
    found = [f"{name} imports itself" for name in graph if name in reachable(graph, name)]
    for chain in CHAINS:
        for i, early in enumerate(chain):
            found += [f"{early} imports {late}" for late in chain[i + 1 :]
                      if late in reachable(graph, early)]  # fmt: skip
    found += [f"{name} imports oracle" for name in graph
              if "oracle" in graph[name] and name not in HOLD_AGAINST]  # fmt: skip
    return found


def test_imports_flow_one_way() -> None:
    graph = read(ROOT)
    assert {"hard_concrete", "gates", "ops", "networks"} <= graph.keys()
    assert "concrete" in graph["ops"]  # `from ..concrete import`, two folders deep, is seen
    assert "gates" in graph["networks"]  # `from . import gates` too
    assert faults(graph) == []


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("hard_concrete.py", "from .gates import Gates", "hard_concrete imports gates"),
        ("gates.py", "from . import penalties", "gates imports penalties"),
        ("ops/dense.py", "from ..layers import Dense", "ops imports layers"),
        ("ops/dense.py", "import l0ref.networks as n", "ops imports networks"),
        ("layers.py", "def f():\n    from l0ref.training import train", "layers imports training"),
        ("layers.py", "from . import helper", "layers imports cli"),  # by way of another room
        ("training.py", "from .oracle.check import run", "training imports oracle"),
        ("cli.py", "from .oracle.check import run", None),
        ("oracle/check.py", "from ..cli import main", "oracle imports cli"),
        ("helper.py", "from .layers import Dense\nfrom . import gates", None),
    ],
)
def test_each_wrong_way_is_seen(tmp_path: Path, name: str, line: str, fault: str | None) -> None:
    root = tmp_path / "l0ref"
    for empty in ("__init__", "hard_concrete", "gates", "penalties", "ops/__init__", "ops/dense",
                  "layers", "networks", "training", "cli", "oracle/__init__",
                  "oracle/check"):  # fmt: skip
        path = root / f"{empty}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import math\n")
    (root / "helper.py").write_text("from .cli import main\n")
    (root / name).write_text(line)
    found = faults(read(root))
    assert found == [] if fault is None else fault in found


def test_names_are_imported_when_asked_for() -> None:
    """What is promised is there, what types are checked with is what is run, and no more."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    checked = {
        (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert checked == {(module, name) for name, module in l0ref._HOMES.items()}
    assert set(l0ref.__all__) == set(l0ref._HOMES)
    for name in (*l0ref.__all__, *l0ref._MODULES):
        assert getattr(l0ref, name).__name__.split(".")[-1] == name
        assert name in dir(l0ref)
    with pytest.raises(AttributeError, match="module 'l0ref' has no attribute 'Trainr'"):
        _ = l0ref.Trainr


def test_the_package_alone_imports_no_numpy() -> None:
    code = "import sys, l0ref, l0ref.oracle.pytest_plugin; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)
