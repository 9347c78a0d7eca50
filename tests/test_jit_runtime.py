"""How kernels run: compiled or not, cached or not, in forks, in threads, beside BLAS."""

import errno
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numba
import numpy as np
import pytest
import threadpoolctl

import l0ref
from l0ref import jit, ops
from l0ref.jit import _compile, threads
from l0ref.jit._compile import Kernel, elementwise, in_vectors, inline, kernel, parallel, share_out
from l0ref.jit._loops import ABREAST
from l0ref.jit._vectors import BYTES
from l0ref.jit.dense import dense

ROOT = Path(__file__).parent.parent

TRAIN = """
import sys
import numpy as np
from l0ref.datasets import from_arrays
from l0ref.training import Settings, Trainer

def make(**options):
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(50, *options.pop("shape", (13,))))
    y = np.arange(50) % 3
    settings = dict(model="mlp", hidden=(7, 5), batch_size=12, seed=2, lr=0.01, dtype="float64")
    return Trainer(Settings(**settings | options), from_arrays(x, y))

def params(trainer):
    return {name: a.copy() for name, a in trainer.network.params.items()}
"""


def python(code: str, *arguments: Any, root: Path = ROOT, **variables: str) -> str:
    """Run a program in a process of its own, which must end well; return what it prints."""
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"} | variables
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment,
                          timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- without a compiler ---


@pytest.mark.parametrize("options", [
    {},
    {"gates": "weight", "per_example": True},
    {"model": "lenet-5", "shape": (16, 16), "batch_size": 2, "steps": 1},
    {"model": "wrn", "depth": 10, "width": 1, "shape": (1, 4, 8), "batch_size": 2, "steps": 1},
], ids=["mlp", "mlp, weight", "lenet-5", "wrn"])  # fmt: skip
def test_kernels_are_plain_python_too(options: dict[str, Any], tmp_path: Path) -> None:
    steps = options.get("steps", 10)
    own = {name: value for name, value in options.items() if name != "steps"}
    code = f"""{TRAIN}
import numba
assert numba.config.DISABLE_JIT == (sys.argv[2] == "numba")
trainer = make(backend=sys.argv[2], **{own!r})
for _ in range({steps}):
    trainer.advance()
np.savez(sys.argv[1], **trainer.network.params)
"""
    python(code, tmp_path / "numba.npz", "numba", NUMBA_DISABLE_JIT="1")
    python(code, tmp_path / "numpy.npz", "numpy", NUMBA_DISABLE_JIT="0")
    with np.load(tmp_path / "numba.npz") as got, np.load(tmp_path / "numpy.npz") as wanted:
        assert set(got) == set(wanted)
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=1e-10, err_msg=name)


# --- where compiled code is kept ---


@inline
def _add_row(i, x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(x.shape[1]):
        total += x[i, j]
    y[i] = total


@parallel
def _add_rows(many, x, y):  # type: ignore[no-untyped-def]
    share_out(many, _add_row, x.shape[0], (x, y))


def add_rows(kernel: Kernel, seed: int = 0, n: int = 37) -> None:
    """Run it, and hold it against NumPy; whole numbers, so that sums are exact."""
    x = np.random.default_rng(seed).integers(-99, 99, size=(n, 11)).astype(float)
    y = np.empty(n)
    kernel(x, y)
    np.testing.assert_array_equal(y, x.sum(axis=1))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that Numba keeps code of new kernels in."""
    _compile._let_kernels_find_threads()  # so that it is not found among them
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def kept(cache: Path) -> set[str]:
    return {path.name.split("-")[0] for path in cache.rglob("*.nbi")}


def test_one_compilation_serves_many_threads_and_one(cache: Path) -> None:
    kernel = parallel(_add_rows._function)
    add_rows(kernel)
    (name,) = kept(cache)
    assert name.endswith(_compile._fingerprint())
    with_lock_held(lambda: add_rows(kernel))
    assert kept(cache) == {name}
    assert len(kernel._compiled.signatures) == 1
    # Another process, or kernel, finds it there and adds none.
    again = parallel(_add_rows._function)
    add_rows(again)
    assert kept(cache) == {name}
    assert sum(again._compiled.stats.cache_hits.values()) == 1


def test_the_loop_of_all_kernels_is_kept_too(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hits in (0, 1):  # as two processes would
        monkeypatch.setattr(_compile, "_loops", [])
        _compile._let_kernels_find_threads()
        (loop,) = _compile._loops
        assert loop.cache_hits == hits
        (name,) = kept(cache)
        assert name.startswith("_loops.on_all_threads")
        assert name.endswith(_compile._fingerprint())


def test_code_of_another_version_of_the_package_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_rows(parallel(_add_rows._function))
    monkeypatch.setattr(_compile, "_fingerprint", lambda: "other")
    kernel = parallel(_add_rows._function)
    add_rows(kernel)
    assert sum(kernel._compiled.stats.cache_hits.values()) == 0
    assert len(kept(cache)) == 2


def test_a_change_in_any_file_of_kernels_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "jit"
    copytree(Path(jit.__path__[0]), folder, ignore=ignore_patterns("__pycache__"))
    noise = tmp_path / "noise.py"  # its constants are compiled in
    noise.write_bytes((Path(jit.__path__[0]).parent / "noise.py").read_bytes())
    own = _compile._fingerprint()
    fingerprint = _compile._fingerprint.__wrapped__
    monkeypatch.setattr(_compile, "__file__", str(folder / "_compile.py"))
    assert fingerprint() == own
    for path in (*sorted(folder.glob("*.py")), noise):
        before = path.read_text()
        path.write_text(before + "\n")
        assert fingerprint() != own, path.name
        path.write_text(before)
    assert fingerprint() == own


def test_a_full_disk_is_no_matter(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = []

    def save(*args: Any) -> None:
        failures.append(args)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", save)
    kernel = parallel(_add_rows._function)
    add_rows(kernel)
    assert len(failures) == 1
    add_rows(kernel, seed=1)
    assert len(failures) == 1  # it does not try again
    monkeypatch.setattr(_compile, "_loops", [])
    _compile._let_kernels_find_threads()
    assert len(failures) == 2
    add_rows(parallel(_add_rows._function), seed=2)
    assert kept(cache) == set()


def test_who_waits_is_told_once_that_kernels_are_compiled(cache: Path) -> None:
    told: list[str] = []
    kernel = parallel(_add_rows._function)
    add_rows(kernel)
    _compile.on_compilation(lambda: told.append("compiling"))
    add_rows(kernel)
    add_rows(parallel(_add_rows._function))  # kept on disk
    assert told == []
    kernel(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    assert told == ["compiling"]
    kernel(np.ones((2, 3), np.float32), np.ones(2))
    assert told == ["compiling"]


def test_a_kernels_own_error_is_not_taken_for_a_full_disk() -> None:
    kernel = parallel(_add_rows._function)
    with pytest.raises(numba.TypingError):
        kernel("x", "y")


def test_no_folder_to_write_to_is_no_matter(tmp_path: Path) -> None:
    """Files stand where the folders would be made: that stops the superuser as well."""
    copytree(Path(l0ref.__path__[0]), tmp_path / "l0ref", ignore=ignore_patterns("__pycache__"))
    for folder in (tmp_path / "l0ref").rglob("*/"):
        if folder.is_dir():
            (folder / "__pycache__").write_text("a file")
    (tmp_path / "l0ref" / "__pycache__").write_text("a file")
    (tmp_path / "file").write_text("a file")
    code = """
import numpy as np
from l0ref import jit, ops
from l0ref.jit import dense
x, w, b = (np.arange(n, dtype=float).reshape(s) for n, s in ((6, (3, 2)), (8, (2, 4)), (4, 4)))
np.testing.assert_array_equal(dense.dense(x, w, b)[0], ops.dense(x, w, b)[0])
cache = dense.affine_in_blocks._compiled._cache
assert "Null" in type(cache).__name__, cache
print(jit.__file__)
"""
    nowhere = str(tmp_path / "file" / "cache")
    for chosen in (nowhere, ""):
        printed = python(code, root=tmp_path, NUMBA_CACHE_DIR=chosen, HOME=nowhere,
                         XDG_CACHE_HOME=nowhere, PYTHONDONTWRITEBYTECODE="1")  # fmt: skip
        assert printed.startswith(str(tmp_path))
    assert not list(tmp_path.rglob("*.nb?"))


# --- turns of a loop ---


@inline
def _note_turn(i, more, factors, scale, nothing, turns, threads):  # type: ignore[no-untyped-def]
    value = turns[i] + factors[1] * scale
    turns[i] = value if more and nothing is None else -1.0
    threads[i] = numba.get_thread_id()


@parallel
def _note_turns(many, more, factors, scale, nothing, turns, threads):  # type: ignore[no-untyped-def]
    args = (more, factors, scale, nothing, turns, threads)
    share_out(many, _note_turn, turns.shape[0], args)
    share_out(many, _note_turn, turns.shape[0], args)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 1000])
@pytest.mark.parametrize("many", [True, False])
def test_every_turn_is_taken_once_whatever_it_is_given(n: int, many: bool) -> None:
    turns, threads_used = np.zeros(n), np.full(n, -1)
    args = (True, (1.0, 2.0), 0.5, None, turns, threads_used)
    counts = [sys.getrefcount(a) for a in args[-2:]]
    (_note_turns if many else _note_turns.alone)(*args)
    np.testing.assert_array_equal(turns, 2.0)
    assert counts == [sys.getrefcount(a) for a in args[-2:]]
    available = jit.get_num_threads() if many else 1
    # Equal parts, each in one piece.
    parts = np.unique(threads_used, return_counts=True)[1]
    assert len(parts) == min(n, available)
    assert n == 0 or parts.max() - parts.min() <= 1
    assert np.count_nonzero(np.diff(threads_used)) == max(len(parts) - 1, 0)


@inline
def _ask_for_room(i, sizes, done):  # type: ignore[no-untyped-def]
    room = np.empty(sizes[i])
    done[i] = room.size == sizes[i]


@parallel
def _ask_for_rooms(many, sizes, done):  # type: ignore[no-untyped-def]
    share_out(many, _ask_for_room, sizes.shape[0], (sizes, done))


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("at", [0, 4, 9])
def test_a_turns_error_is_raised(many: bool, at: int) -> None:
    sizes, done = np.full(10, 3), np.zeros(10, bool)
    run = _ask_for_rooms if many else _ask_for_rooms.alone
    run(sizes, done)
    assert done.all()
    for size, error in ((2**59, MemoryError), (-3, ValueError)):
        done[:], sizes[at] = False, size
        with pytest.raises(error):
            run(sizes, done)
        assert done.sum() == 9
    sizes[at] = 3
    run(sizes, done)  # nothing is left of it
    assert done.all()


@inline
def _gives_something(i, x):  # type: ignore[no-untyped-def]
    return x[i]


@kernel
def _take_something(x):  # type: ignore[no-untyped-def]
    share_out(False, _gives_something, x.shape[0], (x,))


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_a_turn_returns_nothing() -> None:
    """An array would stay in memory for ever."""
    with pytest.raises(
        numba.TypingError, match="_gives_something must return nothing, got float64"
    ):
        _take_something(np.ones(3))


def test_the_first_kernels_of_two_threads_at_once() -> None:
    """Also where a loop is there, and not yet its name."""
    code = """
import threading
import time
import numpy as np
from l0ref.jit import _compile, relu
if hasattr(_compile, "binding"):
    class Slow:
        def add_symbol(self, *args, add=_compile.binding.add_symbol):
            time.sleep(0.5)
            add(*args)
    _compile.binding = Slow()
x = np.linspace(-1, 1, 10**5).reshape(1, 1, -1, 100)
barrier, wrong = threading.Barrier(2), []
def work(late):
    while late and not _compile._loops and any(one.is_alive() for one in workers[:2]):
        time.sleep(0.001)
    if not late:
        barrier.wait()
    for _ in range(20):
        y, _ = relu.relu(x)
        if not np.array_equal(y, np.maximum(x, 0)):
            wrong.append(y)
workers = [threading.Thread(target=work, args=(k > 1,)) for k in range(4)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
print(len(wrong), len(_compile._loops) > 0)
"""
    assert python(code) == "0 True\n"


# --- numbers of a loop ---


@elementwise
def _shift(i, x, by, at, y):  # type: ignore[no-untyped-def]
    if at is not None:
        at[i] = i
    y[i] = x[i] + by


@parallel
def _shift_all(many, x, by, at, y):  # type: ignore[no-untyped-def]
    in_vectors(_shift, y.shape[0], (x, by, at, y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [*range(70), 127, 128, 129, 1000])
def test_every_number_of_a_loop_is_computed_and_no_other(n: int, dtype: Any) -> None:
    room = np.full((2, n + 200), -1, dtype)
    at, y = room[:, 100 : n + 100]
    x = np.arange(n, dtype=dtype)
    _shift_all(x, dtype(0.5), at, y)
    np.testing.assert_array_equal(y, x + 0.5)
    np.testing.assert_array_equal(at, x)
    y[:], at[:] = -1, -1
    _shift_all(x, dtype(0.5), None, y)
    np.testing.assert_array_equal(y, x + 0.5)
    y[:] = -1
    assert (room == -1).all()


@elementwise
def _root(i, x, y):  # type: ignore[no-untyped-def]
    y[i] = np.sqrt(x[i] / np.sqrt(x[i] / np.sqrt(x[i])))  # each operation waits for the one before


@kernel
def _roots(x, y):  # type: ignore[no-untyped-def]
    in_vectors(_root, y.shape[0], (x, y))


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_a_loop_does_the_same_wherever_its_arrays_lie() -> None:
    """Else one number after the other, or many at once, as they are near each other or not.

    That it does not look is seen where it should not be used: on a number that it has just written.
    """
    numbers = np.zeros(1001)
    _shift_all(numbers[:-1], 1.0, None, numbers[1:])
    one_after_the_other = np.arange(1001.0)
    assert not np.array_equal(numbers, one_after_the_other)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86's assembler")
def test_vectors_of_a_loop_are_computed_side_by_side() -> None:
    compiled = _roots._compile(cache=False)
    x = np.arange(100, dtype=np.float32)
    compiled(x, np.empty_like(x))
    (code,) = compiled.inspect_asm().values()
    register = "zmm" if BYTES == 64 else "ymm"
    assert len(re.findall(rf"vsqrtps[^\n]*%{register}", code)) >= 3 * ABREAST


# --- threads ---


def with_lock_held(call: Callable[[], Any]) -> Any:
    """Call while another thread is inside a parallel kernel."""
    with _compile._inside:
        return call()


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How kernels have run, in order."""
    found: list[str] = []
    run = Kernel._run

    def spy(kernel: Kernel, args: Any) -> Any:
        found.append("parallel" if args[0] else "serial")
        return run(kernel, args)

    monkeypatch.setattr(Kernel, "_run", spy)
    return found


def test_while_one_thread_is_inside_others_run_on_their_own(ways: list[str]) -> None:
    add_rows(_add_rows)
    with_lock_held(lambda: add_rows(_add_rows))
    add_rows(_add_rows)
    assert ways == ["parallel", "serial", "parallel"]
    with pytest.raises(numba.TypingError):
        _add_rows("x", "y")
    add_rows(_add_rows)
    assert ways[-1] == "parallel"  # an error has given the place back


def test_two_threads_at_once(ways: list[str]) -> None:
    rng = np.random.default_rng(3)
    cases = [tuple(rng.integers(-9, 9, size=s).astype(float) for s in ((301, 67), (67, 131), 131))
             for _ in range(4)]  # fmt: skip
    wanted = [ops.dense(*case)[0] for case in cases]  # whole numbers: exact in any order
    barrier = threading.Barrier(2)

    def work(k: int) -> int:
        barrier.wait(timeout=60)
        for _ in range(25):
            for case, y in zip(cases[k::2], wanted[k::2], strict=True):
                np.testing.assert_array_equal(dense(*case)[0], y)
        return k

    dense(*cases[0])
    with jit.one_blas_thread(), ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [0, 1]
    assert len(ways) == 101
    assert "parallel" in ways


FORK = f"""{TRAIN}
import os
from l0ref.jit import _compile

ways = []
run = _compile.Kernel._run
def spy(kernel, args):
    ways.append("parallel" if args[0] is True else "serial")
    return run(kernel, args)
_compile.Kernel._run = spy

trainer = make(hidden=(61,), shape=(311,), batch_size=40, dtype="float32")
trainer.advance()
trainer.advance()
assert "parallel" in ways
ways.clear()
child = os.fork()
trainer.advance()
if child == 0:
    assert ways and set(ways) == {{"serial"}}
    np.savez(sys.argv[1], **trainer.network.params)
    sys.exit(0)
assert "parallel" in ways
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
with np.load(sys.argv[1]) as got:
    for name, a in trainer.network.params.items():
        np.testing.assert_array_equal(got[name], a, err_msg=name)
trainer.advance()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_in_the_middle_of_a_run_goes_on_alone(tmp_path: Path) -> None:
    """OpenMP would end the child at its first parallel loop."""
    assert python(FORK, tmp_path / "child.npz") == "done\n"


FORK_WHILE_COMPILING = """
import os, signal, threading, time, warnings
import numba
from l0ref.jit import _compile

# Newer Pythons warn of what is done here on purpose.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

def compile_one():
    assert numba.njit(lambda x: x + 1)(1) == 2

def compile_on():
    while not ready:
        compile_one()

compile_one()
ready, children = False, []
thread = threading.Thread(target=compile_on)
thread.start()
for _ in range(10):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        compile_one()
        os._exit(0)
    children.append(child)
ready = True
thread.join()
end, codes = time.monotonic() + 20, {}
while len(codes) < 10 and time.monotonic() < end:
    for child in set(children) - set(codes):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            codes[child] = os.waitstatus_to_exitcode(status)
    time.sleep(0.01)
for child in set(children) - set(codes):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print([codes.get(child, "hangs") for child in children])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_while_another_thread_compiles_can_compile() -> None:
    """The compiler's lock is not held there for ever, by a thread that the fork has not copied."""
    assert python(FORK_WHILE_COMPILING) == f"{[0] * 10}\n"


@pytest.mark.parametrize("n", [0, -1, 10**6, True, 1.5, "2", None, np.float64(1)])
def test_numbers_of_threads_that_make_no_sense(n: Any) -> None:
    before = jit.get_num_threads()
    with pytest.raises(ValueError, match=r"threads must be an integer from 1 to \d+, got "):
        jit.set_num_threads(n)
    assert jit.get_num_threads() == before


def test_number_of_threads() -> None:
    before = jit.get_num_threads()
    try:
        for n in (np.int64(1), numba.config.NUMBA_NUM_THREADS):
            jit.set_num_threads(n)
            assert jit.get_num_threads() == n
            add_rows(_add_rows)
    finally:
        jit.set_num_threads(before)


# --- beside BLAS ---


def blas_threads() -> list[int]:
    threads._controller()  # loads what kernels call
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas"]  # fmt: skip


@pytest.fixture
def two() -> Iterator[list[int]]:
    """BLAS threads as somebody has chosen for good: two."""
    blas_threads()
    before = threadpoolctl.threadpool_limits(2, user_api="blas")
    give_up_control()
    chosen = blas_threads()
    assert chosen
    if max(chosen) < 2:
        pytest.skip("BLAS has one thread")
    yield chosen
    before.restore_original_limits()
    give_up_control()


def give_up_control() -> None:
    """Else no other thread may change the number, as long as this one lives."""
    with threadpoolctl.threadpool_limits(None):
        pass


def test_blas_has_one_thread_inside_and_its_own_number_after(two: list[int]) -> None:
    with jit.one_blas_thread():
        assert set(blas_threads()) == {1}
        with jit.one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == two
    with jit.one_blas_thread():
        assert set(blas_threads()) == {1}
    assert blas_threads() == two


def test_blas_gets_its_threads_back_after_an_error(two: list[int]) -> None:
    with pytest.raises(RuntimeError, match="inside"), jit.one_blas_thread():  # noqa: PT012
        with pytest.raises(KeyError), jit.one_blas_thread():
            raise KeyError
        assert set(blas_threads()) == {1}
        raise RuntimeError("inside")
    assert blas_threads() == two


@pytest.mark.parametrize("first", ["main", "other"])
def test_the_thread_that_took_blas_gives_it_back(two: list[int], first: str) -> None:
    """Whoever was inside meanwhile, and whoever leaves last."""
    inside, leave = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        with jit.one_blas_thread():
            seen.append(set(blas_threads()))
            inside.set()
            assert leave.wait(60)

    thread = threading.Thread(target=other)
    if first == "other":
        thread.start()
        assert inside.wait(60)
    with jit.one_blas_thread():
        assert set(blas_threads()) == {1}
        if first == "main":
            thread.start()
            assert inside.wait(60)
    assert blas_threads() == two or first == "other"
    leave.set()
    thread.join()
    assert seen == [{1}]
    assert blas_threads() == two
    with jit.one_blas_thread():
        assert set(blas_threads()) == {1}
    assert blas_threads() == two


def test_a_training_step_holds_blas_and_gives_it_back(
    two: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from l0ref.datasets import from_arrays
    from l0ref.training import Settings, Trainer

    data = from_arrays(np.random.default_rng(1).uniform(size=(50, 4)), np.arange(50) % 3)
    seen = []
    for backend in ("numba", "numpy"):
        trainer = Trainer(Settings(model="mlp", hidden=(3,), backend=backend), data)
        step = trainer._advance
        monkeypatch.setattr(trainer, "_advance",
                            lambda step=step: (seen.append(blas_threads()), step()))  # fmt: skip
        trainer.advance()
        assert blas_threads() == two
    assert set(seen[0]) == {1}
    assert seen[1] == two
