"""However a target behaves, one call fails, the message says why, and the next call is served."""

import contextlib
import copy
import importlib
import json
import math
import os
import random
import select
import shlex
import shutil
import subprocess
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from l0ref.oracle import protocol, watch
from l0ref.oracle.compare import describe
from l0ref.oracle.interface import FUNCTIONS, Target
from l0ref.oracle.reference import Reference, numba, reference
from l0ref.oracle.targets import (
    MOST_LOST,
    NotImplementedByTarget,
    OpenTarget,
    TargetError,
    TargetExited,
    TargetGarbled,
    TargetImportError,
    TargetRaised,
    TargetTimeout,
    functions_of,
    load_object,
    open_target,
)
from tests.oracle_inputs import LAW, as_dtype, assert_close, variants

LOG_ALPHA = np.array([[0.5, -2.0, 7.0], [-0.25, 3.0, -30.0]])
ARGS: dict[str, Any] = {"log_alpha": LOG_ALPHA, **LAW}
PARAMS = {"n_in": 3, "n_out": 4, "bias": True}

HONEST = """
def dense_params(n_in, n_out, *, bias):
    return (n_in + bias) * n_out
"""

Open = Callable[..., OpenTarget]


@pytest.fixture(params=["in process", "worker"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open a target made of the body of `prob_active`, and an honest `dense_params`."""
    targets: list[OpenTarget] = []

    def open_body(body: str, *, before: str = "") -> OpenTarget:
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        path = tmp_path / f"target_{len(targets)}_{abs(hash(body))}.py"
        path.write_text(
            f"import numpy as np\n{before}\n"
            f"def prob_active(log_alpha, *, beta, gamma, zeta):\n{lines}\n{HONEST}"
        )
        isolate = None if request.param == "worker" else False
        targets.append(open_target(str(path), isolate=isolate))
        return targets[-1]

    yield open_body
    for target in targets:
        target.close()


def still_works(target: OpenTarget) -> bool:
    return bool(target.call("dense_params", PARAMS, timeout=60).result == 16)


# --- results, whatever they are ---


def test_an_honest_call(opened: Open) -> None:
    target = opened("return log_alpha * 2")
    assert target.functions == {"prob_active", "dense_params"}
    call = target.call("prob_active", ARGS)
    np.testing.assert_array_equal(call.result, LOG_ALPHA * 2)
    assert call[1:] == ("", (), (), ())
    assert still_works(target)
    assert target.restarts == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_and_layouts_arrive(opened: Open, dtype: Any) -> None:
    target = opened(
        "f = log_alpha.flags\n"
        "return [log_alpha, str(log_alpha.dtype), f.c_contiguous, f.f_contiguous, f.writeable]"
    )
    a = LOG_ALPHA.astype(dtype)
    wide = np.zeros((2, 9), dtype)
    wide[:, ::3] = a
    for given_array, c, f in ((a, True, False), (np.asfortranarray(a), False, True),
                              (wide[:, ::3], False, False)):  # fmt: skip
        result = target.call("prob_active", {"log_alpha": given_array, **LAW}).result
        np.testing.assert_array_equal(result[0], a)
        assert result[1:] == [np.dtype(dtype).name, c, f, True]


def test_results_that_are_no_array_arrive_as_they_are(opened: Open) -> None:
    target = opened(
        "class Tensor:\n    pass\n"
        "return [[0.5, float('nan')], log_alpha[:1], float('inf'), np.float32(0.1), 3, None, "
        "{'flops': log_alpha[0, 0]}, Tensor(), np.array([None])]"
    )
    result = target.call("prob_active", ARGS).result
    assert type(result[0]) is list
    assert result[0][0] == 0.5
    assert math.isnan(result[0][1])
    assert result[1].shape == (1, 3)
    assert result[2] == math.inf
    assert np.asarray(result[3]).dtype == np.float32
    assert result[3] == np.float32(0.1)
    assert result[4:6] == [3, None]
    assert result[6]["flops"] == 0.5
    assert type(result[7]).__name__ == "Tensor"
    assert not (isinstance(result[8], np.ndarray) and result[8].dtype.kind == "f")


def test_a_result_without_an_end_is_one_failed_call(tmp_path: Path) -> None:
    path = tmp_path / "endless.py"
    path.write_text(f"{HONEST}\ndef mean(log_alpha, **law):\n    a = []\n    a.append(a)\n"
                    "    return a\n")  # fmt: skip
    with open_target(str(path)) as target:
        with pytest.raises(TargetError, match="type list cannot be sent"):
            target.call("mean", ARGS)
        assert still_works(target)
        assert target.restarts == 0


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("raise ValueError('log_alpha is odd')", TargetRaised,
         r"prob_active raised ValueError: log_alpha is odd \[target_\w+\.py:4\]"),
        ("return np.linalg.inv(log_alpha)", TargetRaised, "LinAlgError"),
        ("assert False", TargetRaised, r"raised AssertionError \["),
        ("class Odd(Exception):\n    def __str__(self): raise TypeError\nraise Odd", TargetRaised,
         r"Odd: \(its text raises TypeError"),
        ("import sys; sys.exit(3)", TargetExited, "asked to exit .SystemExit: 3"),
        ("raise GeneratorExit", TargetRaised, "GeneratorExit"),
        ("def deep(n): return deep(n + 1)\nreturn deep(0)", TargetRaised, "RecursionError"),
        ("raise NotImplementedError('for a matrix')", NotImplementedByTarget, "for a matrix"),
        ("class Not(NotImplementedError): pass\nraise Not", NotImplementedByTarget, "prob_active"),
        ("return input()", TargetRaised, "EOFError|OSError"),
    ],
)  # fmt: skip
def test_what_is_raised_is_told(
    opened: Open, body: str, kind: type[Exception], message: str
) -> None:
    target = opened(body)
    for _ in range(2):
        with pytest.raises(kind, match=message) as caught:
            target.call("prob_active", ARGS)
        assert type(caught.value) is kind
    assert still_works(target)
    assert target.restarts == 0


def test_arguments_go_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other_names.py"
    path.write_text("def prob_active(logits, **law): return logits")
    with (
        open_target(str(path), isolate=False) as target,
        pytest.raises(TargetError, match=r"unexpected keyword argument 'log_alpha'|missing"),
    ):
        target.call("prob_active", ARGS)


def test_a_hang_is_ended(opened: Open) -> None:
    target = opened("import threading\nprint('waiting')\nthreading.Event().wait(600)")
    with pytest.raises(TargetTimeout, match=r"prob_active did not return within 0\.2 s"):
        target.call("prob_active", ARGS, timeout=0.2)
    assert still_works(target)


def test_a_hang_that_catches_errors_is_ended(opened: Open) -> None:
    target = opened(
        "import threading\n"
        "while True:\n    try: threading.Event().wait(600)\n    except Exception: pass"
    )
    with pytest.raises(TargetTimeout):
        target.call("prob_active", ARGS, timeout=0.2)
    assert still_works(target)


@pytest.mark.parametrize(
    "body",
    [
        "try:\n    time.sleep(60)\nexcept:\n    pass\ntime.sleep(60)",
        "while True:\n    try:\n        time.sleep(0.01)\n    except:\n        pass",
        "while True:\n    try:\n        while True:\n            try: time.sleep(9)\n"
        "            except: pass\n    except: pass",
    ],
)
def test_a_hang_that_catches_the_alarm_is_ended(opened: Open, body: str) -> None:
    target = opened(body, before="import time")
    start = time.monotonic()
    with pytest.raises(TargetTimeout, match="did not return within 1 s"):
        target.call("prob_active", ARGS, timeout=1.0)
    assert time.monotonic() - start < 30
    assert still_works(target)


def test_the_alarm_of_someone_else_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 500.0)
    try:
        with open_target({"dense_params": lambda n_in, n_out, bias: 16}) as target:
            assert still_works(target)
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 400 < left <= 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import os; os._exit(7)", "its process exited with status 7"),
        ("import ctypes; ctypes.string_at(0)", r"was ended by SIG(SEGV|BUS)[\s\S]*prob_active"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("import os, sys; print('so it goes', file=sys.stderr); os._exit(1)", "so it goes"),
        ("import os; os.closerange(3, 64)", "process|closed"),
    ],
)
def test_a_process_that_dies_is_started_again(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "dying.py"
    path.write_text(f"{HONEST}\ndef prob_active(log_alpha, **law):\n    {body}\n")
    with open_target(str(path)) as target:
        for n in (1, 2):
            with pytest.raises(TargetExited, match=message):
                target.call("prob_active", ARGS)
            assert still_works(target)
            assert target.restarts == n


# --- what a call does besides ---


def test_what_is_printed_comes_with_the_call(opened: Open) -> None:
    target = opened("print('drawing', 3)\nreturn log_alpha")
    for _ in range(2):
        assert target.call("prob_active", ARGS).stdout == "drawing 3\n"
    assert target.call("dense_params", PARAMS).stdout == ""


def test_what_is_printed_before_an_error_comes_with_it(opened: Open) -> None:
    target = opened("print('so far')\nraise KeyError('x')")
    with pytest.raises(TargetError, match="KeyError") as caught:
        target.call("prob_active", ARGS)
    assert caught.value.call.stdout == "so far\n"


@pytest.mark.parametrize(
    "body",
    [
        "import os; os.write(1, b'by hand')",
        "import subprocess; subprocess.run(['echo', 'by', 'hand'])",
        "import sys; sys.__stdout__.write('by hand')",
        "import sys; sys.stdout.write('by hand'); sys.stdout.close()",
        "import sys; print('by hand', flush=True); sys.stdin.close(); sys.stdout = None",
        "import os, sys; print('by hand', flush=True); os.close(0)",
    ],
)
def test_no_way_of_printing_reaches_the_protocol(tmp_path: Path, body: str) -> None:
    path = tmp_path / "printing.py"
    path.write_text(f"print('while importing')\n{HONEST}\n"
                    f"def prob_active(log_alpha, **law):\n    {body}\n    return log_alpha\n"
                    )  # fmt: skip
    with open_target(str(path)) as target:
        call = target.call("prob_active", ARGS)
        np.testing.assert_array_equal(call.result, LOG_ALPHA)
        assert call.stdout.replace("\n", " ").strip() == "by hand"
        assert still_works(target)
        assert target.restarts == 0


def test_what_has_none_of_the_arguments_is_another_function(tmp_path: Path) -> None:
    """A user's own `train`, or a `mean` of NumPy's; one argument that is right makes it ours."""
    path = tmp_path / "mine.py"
    path.write_text("from numpy import mean\ndef train(model, epochs=3): ...\n"
                    "def sample(log_alpha, noise): ...\n"
                    "def prob_active(log_alpha, **law): return log_alpha\n")  # fmt: skip
    with open_target(str(path)) as target:
        assert target.functions == {"sample", "prob_active"}
        assert target.misspelt == {"train": "train", "mean": "mean"}
    assert functions_of({"mean": np.mean}) == {"mean": np.mean}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os; os.close(1)", "descriptor 1, standard output, was closed or redirected"),
        ("import os; os.dup2(2, 1)", "descriptor 1, standard output, was closed or redirected"),
        ("import sys; sys.stdout.close()", "sys.stdout was closed or replaced"),
        ("import sys; sys.stdout = None", "sys.stdout was closed or replaced"),
        ("import io, sys; sys.stdout = io.StringIO()", "sys.stdout was closed or replaced"),
    ],
)
def test_closing_standard_output_is_told_of_the_call_that_did_it(
    tmp_path: Path, body: str, told: str
) -> None:
    path = tmp_path / "closing.py"
    path.write_text(
        f"def prob_active(log_alpha, **law):\n    {body}\n    return log_alpha\n"
        "def log_prob_active(log_alpha, **law):\n"
        "    import os\n    print('through', flush=True)\n    os.write(1, b'both')\n"
        "    return log_alpha\n"
    )
    with open_target(str(path)) as target:
        for _ in range(2):
            assert target.call("prob_active", ARGS).state == (told,)
            after = target.call("log_prob_active", ARGS)
            assert after.state == ()
            assert after.stdout == "through\nboth"
        assert target.restarts == 0


def test_a_worker_ends_with_its_checker_though_its_target_hangs(tmp_path: Path) -> None:
    """Whoever is killed cannot end anybody."""
    pipe, hanging = tmp_path / "pipe", tmp_path / "hanging.py"
    os.mkfifo(pipe)
    hanging.write_text(f"import time\nmine = open({str(pipe)!r}, 'w', buffering=1)\n"
                       "print('started', file=mine)\ntime.sleep(600)\n")  # fmt: skip
    check = f"from l0ref.oracle.targets import open_target; open_target({str(hanging)!r})"
    with subprocess.Popen([sys.executable, "-c", check]) as checker, pipe.open() as hung:
        assert hung.readline() == "started\n"
        checker.kill()
        ended, _, _ = select.select([hung], [], [], 60)
        assert ended, "the worker lives on"
        assert hung.read() == ""


def test_inputs_changed_in_place_are_told_and_the_caller_keeps_his_own(opened: Open) -> None:
    target = opened("log_alpha *= 2\nreturn log_alpha")
    mine = LOG_ALPHA.copy()
    call = target.call("prob_active", {"log_alpha": mine, **LAW})
    assert call.changed == ("log_alpha",)
    np.testing.assert_array_equal(mine, LOG_ALPHA)


@pytest.mark.parametrize("isolate", [False, None])
def test_a_network_changed_in_place_is_told(tmp_path: Path, isolate: bool | None) -> None:
    path = tmp_path / "changing.py"
    path.write_text(
        "def hard_cost(network):\n"
        "    network['layers'][1]['bias'][0] = 0\n"
        "    network['layers'][0]['kind'] = 'tanh'\n"
        "    network['layers'][2]['more'] = 1\n"
        "    return {'flops': 1, 'params': float('nan')}\n"
    )
    layers = [{"kind": "relu"}, {"kind": "dense", "bias": np.ones(2)}, {"kind": "flatten"}]
    network = {"input_shape": (3,), "layers": layers, **LAW}
    with open_target(str(path), isolate=isolate) as target:
        call = target.call("hard_cost", {"network": network})
    kind, bias, more = "layers[0].kind", "layers[1].bias", "layers[2]"
    assert call.changed == tuple(f"network.{path}" for path in (kind, bias, more))
    assert math.isnan(call.result["params"])
    assert network["layers"][2] == {"kind": "flatten"}


def test_nan_in_is_no_change(opened: Open) -> None:
    call = opened("return log_alpha").call("prob_active", {"log_alpha": np.array([np.nan]), **LAW})
    assert call.changed == ()


STATE = [
    ("np.random.seed(1)", "the global state of numpy.random changed"),
    ("np.random.uniform(size=3)", "the global state of numpy.random changed"),
    ("np.random.normal()", "the global state of numpy.random changed"),
    ("random.random()", "the global state of random changed"),
    ("np.seterr(over='raise')", "numpy.geterr() changed in over"),
    ("np.set_printoptions(precision=3)", "numpy.get_printoptions() changed in precision"),
    ("warnings.simplefilter('ignore')", "the filters of warnings changed"),
    ("os.chdir('/')", "the working directory changed from "),
    ("os.environ['OMP_NUM_THREADS'] = '7'", "os.environ changed in OMP_NUM_THREADS"),
    ("sys.path.append('/nowhere')", "sys.path changed"),
    ("logging.getLogger().setLevel(7)", "the level of logging's root changed from 30 to 7"),
    ("logging.getLogger().addHandler(logging.NullHandler())", "the handlers of logging's root"),
    ("locale.setlocale(locale.LC_ALL, 'C')", "the locale changed from"),
    ("warnings.simplefilter('ignore', UserWarning)", "the filters of warnings changed"),
    ("del os.environ['PATH']", "os.environ changed in PATH"),
]


IMPORTED = [
    # what is made by a call, whatever class it is of
    ("pack/front.py",
     "import functools\nimport numpy as np\ndef _p(log_alpha, **law): pass\n"
     "sf = functools.partial(_p)\nvar = np.vectorize(_p)", {"sf", "var"}),
    # without __all__: of the same package, but nothing of another or of l0ref
    ("pack/__init__.py", "from .own import cdf, mean\nfrom other import sf", {"cdf", "mean"}),
    ("pack/front.py", "from pack.own import cdf\nfrom l0ref.ops.dense import dense\n"
     "def var(log_alpha, **law): pass", {"cdf", "var"}),
    # a compiled module that names itself, and not its package
    ("pack/__init__.py", "from .own import cdf, mean\ncdf.__module__ = '_own'\n"
     "from other import sf", {"cdf", "mean"}),
    # with it: what it lists, and what is defined here
    ("pack/listed.py", "from .own import cdf, mean\nfrom other import sf\n"
     "__all__ = ['cdf', 'sf']\ndef var(log_alpha, **law): pass", {"cdf", "sf", "var"}),
    # a file around the code of others
    ("mine.py", "from other import sf\nfrom pack.own import cdf\n"
     "from l0ref.ops.dense import dense", {"sf", "cdf"}),
]  # fmt: skip


@pytest.mark.parametrize(("file", "text", "names"), IMPORTED)
def test_what_a_module_only_imports_is_not_its_own(
    file: str, text: str, names: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").touch()
    (tmp_path / "pack/own.py").write_text(
        "def cdf(x, log_alpha, **law): pass\ndef mean(log_alpha, **law): pass"
    )
    (tmp_path / "other.py").write_text("def sf(x, log_alpha, **law): pass")
    (tmp_path / file).write_text(text)
    for name in ("pack", "pack.own", "pack.front", "pack.listed", "other", "mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__")
                                     .replace("/", "."))  # fmt: skip
    assert functions_of(module).keys() == names


def test_a_module_of_ours_has_what_it_defines_alone() -> None:
    assert functions_of(importlib.import_module("l0ref.oracle.reference")) == {}


@pytest.mark.parametrize(("line", "message"), STATE)
def test_global_state_that_is_changed_is_told(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "stateful.py"
    path.write_text(f"import locale, logging, os, random, sys, warnings\n"
                    f"import numpy as np\n{HONEST}\n"
                    f"def prob_active(log_alpha, **law):\n    {line}\n    return log_alpha\n"
                    )  # fmt: skip
    with open_target(str(path)) as target:
        (told,) = target.call("prob_active", ARGS).state
        assert told.startswith(message)
        assert target.call("dense_params", PARAMS).state == ()


def test_to_seed_a_generator_alike_is_a_change_each_time(opened: Open) -> None:
    target = opened("np.random.seed(0)\nrandom.seed(1)\nreturn log_alpha", before="import random")
    for _ in range(3):
        assert target.call("prob_active", ARGS).state == (
            "the global state of numpy.random changed",
            "the global state of random changed",
        )


def test_to_take_a_normal_number_that_waits_is_a_change_each_time(opened: Open) -> None:
    """NumPy makes them in pairs, and keeps the second one beside the words of the generator."""
    np.random.seed(0)  # noqa: NPY002
    np.random.normal()  # noqa: NPY002  # one waits
    target = opened("np.random.normal()\nreturn log_alpha")
    for _ in range(4):
        told = target.call("prob_active", ARGS).state
        assert told == ("the global state of numpy.random changed",)


def test_another_kind_of_generator_in_place_of_numpys_is_watched(opened: Open) -> None:
    before = "np.random.set_bit_generator(np.random.PCG64(1))"
    mt = np.random.get_bit_generator()  # type: ignore[attr-defined]
    try:
        target = opened("np.random.random()\nreturn log_alpha", before=before)
        for _ in range(2):
            told = target.call("prob_active", ARGS).state
            assert told == ("the global state of numpy.random changed",)
        assert target.call("dense_params", PARAMS).state == ()
    finally:
        np.random.set_bit_generator(mt)  # type: ignore[attr-defined]


def test_generators_are_found_and_left_as_they_are() -> None:
    before = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    with open_target({"dense_params": lambda n_in, n_out, bias: 16}) as target:
        assert target.call("dense_params", PARAMS).state == ()
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_global_state_is_watched_in_this_process_too() -> None:
    def prob_active(log_alpha: Any, **law: float) -> Any:
        random.random()
        warnings.simplefilter("ignore")
        return log_alpha

    before = list(warnings.filters)
    with open_target({"prob_active": prob_active}) as target:
        told = target.call("prob_active", ARGS).state
    assert told == ("the global state of random changed", "the filters of warnings changed")
    assert list(warnings.filters) == before


def test_what_was_changed_in_this_process_is_put_back(tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    def prob_active(log_alpha: Any, **law: float) -> Any:
        np.seterr(over="raise")
        np.set_printoptions(precision=3)
        sys.path.append("/nowhere")
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        sys.setrecursionlimit(sys.getrecursionlimit() + 7)
        return log_alpha

    def state() -> Any:
        return (np.geterr(), np.get_printoptions(), sys.path, os.getcwd(), sys.getrecursionlimit())

    before = copy.deepcopy(state())
    with open_target({"prob_active": prob_active}) as target:
        told = target.call("prob_active", ARGS).state
    assert state() == before
    for said in (
        "numpy.geterr() changed in over",
        "numpy.get_printoptions() changed in precision",
        "sys.path changed",
        "the working directory changed",
        "the recursion limit changed",
    ):
        assert any(one.startswith(said) for one in told)


def test_results_that_a_later_call_writes_over_are_told(opened: Open) -> None:
    kept = f"room = np.zeros({LOG_ALPHA.shape})"
    target = opened("room[...] = log_alpha\nreturn room", before=kept)
    other = {**ARGS, "log_alpha": ARGS["log_alpha"] + 1}
    assert target.call("prob_active", ARGS).state == ()
    assert target.call("prob_active", ARGS).state == ()  # with the same
    said = "what an earlier call returned was written over"
    assert target.call("prob_active", other).state == (said,)


@pytest.mark.parametrize("timeout", [1e12, math.inf])
def test_any_time_may_be_given(timeout: float) -> None:
    with open_target({"dense_params": lambda n_in, n_out, bias: 16}) as target:
        assert target.call("dense_params", PARAMS, timeout=timeout).result == 16


def test_masked_arrays_are_told_from_others(opened: Open) -> None:
    target = opened("return np.ma.masked_equal(log_alpha, 0)")
    assert "masked array" in describe(target.call("prob_active", ARGS).result)


def test_the_first_import_is_not_taken_for_the_functions_doing(tmp_path: Path) -> None:
    (tmp_path / "lazy_helper.py").write_text(
        "import os, warnings; os.environ['LAZY_HELPER'] = '1'\n"
        "warnings.warn('old', DeprecationWarning); warnings.warn('odd', RuntimeWarning)"
    )
    path = tmp_path / "lazy.py"
    path.write_text("def prob_active(log_alpha, **law):\n    import lazy_helper\n"
                    "    return log_alpha\n")  # fmt: skip
    with open_target(str(path)) as target:
        call = target.call("prob_active", ARGS)
        assert call.state == ()
        assert call.warnings == ("RuntimeWarning: odd",)


def test_flags_of_torch_and_jax_are_watched_where_they_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = {"dtype": "float32", "grad": True}
    torch: Any = types.ModuleType("torch")
    torch.get_default_dtype = lambda: state["dtype"]
    torch.is_grad_enabled = lambda: state["grad"]
    jax: Any = types.ModuleType("jax")
    jax.config = types.SimpleNamespace(jax_enable_x64=False)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "jax", jax)

    def prob_active(log_alpha: Any, **law: float) -> Any:
        state.update(dtype="float64", grad=False)
        jax.config.jax_enable_x64 = True
        return log_alpha

    with open_target({"prob_active": prob_active}) as target:
        told = target.call("prob_active", ARGS).state
    assert told == (
        "torch.get_default_dtype() changed from 'float32' to 'float64'",
        "torch.is_grad_enabled() changed from True to False",
        "jax.config.jax_enable_x64 changed from False to True",
    )


def test_warnings_come_with_the_call(opened: Open) -> None:
    target = opened("return np.exp(log_alpha * 1e4)")
    for _ in range(2):  # each time, not the first alone
        warned = target.call("prob_active", ARGS).warnings
        assert warned == ("RuntimeWarning: overflow encountered in exp",)


# --- targets that are not there ---


@pytest.mark.parametrize("isolate", [False, None])
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def prob_active(:", r"SyntaxError"),
        ("import numpi", r"broken\.py\", line 1[\s\S]*No module named 'numpi'"),
        ("x = 1\n1 / 0", r"line 2[\s\S]*ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("def prob_activ(): pass", "has none of the 44 functions .* such as prob_active"),
    ],
)
def test_what_cannot_be_imported_says_why(
    tmp_path: Path, source: str, message: str, isolate: bool | None
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(TargetImportError, match=message) as caught:
        open_target(str(path), isolate=isolate)
    assert "importlib" not in str(caught.value)


def test_a_target_that_hangs_when_it_is_imported_is_told(tmp_path: Path) -> None:
    path = tmp_path / "slow_import.py"
    path.write_text(f"import time\nprint('fetching')\ntime.sleep(600)\n{HONEST}")
    with pytest.raises(TargetImportError, match=r"did not start within 5 s; it said:\nfetching"):
        open_target(str(path), startup_timeout=5.0)
    with pytest.raises(ValueError, match="startup_timeout must be positive, got 0"):
        open_target(str(path), startup_timeout=0)


@pytest.mark.parametrize("isolate", [False, None])
def test_a_property_that_raises_is_one_function_that_fails(
    tmp_path: Path, isolate: bool | None
) -> None:
    path = tmp_path / "with_property.py"
    path.write_text(
        "class target:\n    @property\n    def mean(self): raise ValueError('no table')\n"
        "    def dense_params(self, n_in, n_out, bias): return (n_in + bias) * n_out\n"
    )
    with open_target(str(path), isolate=isolate) as mine:
        assert mine.functions == {"mean", "dense_params"}
        with pytest.raises(TargetRaised, match="mean raised ValueError: no table"):
            mine.call("mean", ARGS)
        assert still_works(mine)


@pytest.mark.parametrize("isolate", [False, None])
def test_names_that_are_nearly_those_of_functions_are_told(
    tmp_path: Path, isolate: bool | None
) -> None:
    path = tmp_path / "misspelt.py"
    path.write_text(f"{HONEST}\ndef dense_flop(): pass\ndef dense_param(): pass\ndef other(): pass")
    with open_target(str(path), isolate=isolate) as mine:
        assert mine.misspelt == {"dense_flop": "dense_flops"}


@pytest.mark.parametrize("isolate", [False, None])
@pytest.mark.parametrize("name", ["", ".", "..", "some/folder", "target.js/"])
def test_what_cannot_be_a_target_is_refused_in_words(name: str, isolate: bool | None) -> None:
    with pytest.raises(TargetImportError, match=r"^a target must be package\.module, path/file"):
        open_target(name, isolate=isolate)


@pytest.mark.parametrize("isolate", [False, None])
def test_of_a_file_with_a_target_that_is_taken(tmp_path: Path, isolate: bool | None) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def mean(log_alpha): pass\n\n\nclass target:\n    def var(self, log_alpha): pass\n"
    )
    with open_target(str(path), isolate=isolate) as mine:
        assert mine.functions == {"var"}
    path.write_text("class target:\n    var = max\n\n\nclass other:\n    mean = min\n")
    with open_target(f"{path}:other", isolate=isolate) as mine:
        assert mine.functions == {"mean"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/file.py", "there is no file no/such/file.py"),
        ("no_such_package.at_all", "No module named 'no_such_package'"),
        ("l0ref.oracle.reference:nobody", "has no attribute 'nobody'"),
        ("json", "has none of the 44 functions"),
    ],
)
def test_names_of_nothing_say_so(name: str, message: str) -> None:
    with pytest.raises(TargetImportError, match=message):
        open_target(name, isolate=False)


def test_a_target_that_dies_while_it_is_imported_says_so(tmp_path: Path) -> None:
    path = tmp_path / "stillborn.py"
    path.write_text("import os, sys; print('no GPU', file=sys.stderr); os._exit(4)")
    with pytest.raises(TargetImportError, match=r"exited with status 4; it said:\nno GPU"):
        open_target(str(path))


def test_a_target_that_breaks_between_two_starts_says_so(tmp_path: Path) -> None:
    path = tmp_path / "once.py"
    path.write_text(f"{HONEST}\ndef mean(log_alpha, **law):\n    import os; os._exit(1)\n")
    with open_target(str(path)) as target:
        with pytest.raises(TargetExited):
            target.call("mean", ARGS)
        path.write_text("1 / 0")
        with pytest.raises(TargetImportError, match="ZeroDivisionError"):
            target.call("dense_params", PARAMS)


# --- ways of naming and giving ---


def test_all_ways_of_naming_lead_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gates_beside.py").write_text("factor = 16\n")
    Path("mine.py").write_text(
        "from gates_beside import factor\n"
        "class Gates:\n    def dense_params(self, n_in, n_out, *, bias): return factor\n"
        "def dense_params(n_in, n_out, *, bias): return factor\n"
        "class box:\n    made = Gates()\n"
    )
    for name in ("mine.py", "mine", "mine:Gates", "mine.py:Gates", "mine:box.made"):
        with open_target(name) as target:
            assert target.name == name
            assert still_works(target)


def test_objects_of_all_kinds(tmp_path: Path) -> None:
    class Gates(Target):
        def dense_params(self, n_in: int, n_out: int, *, bias: bool) -> int:
            return (n_in + bias) * n_out

    module = types.ModuleType("mine")
    module.dense_params = Gates().dense_params  # type: ignore[attr-defined]
    for target in (Gates(), Gates, module, {"dense_params": Gates().dense_params, "other": 1}):
        with open_target(target) as opened_target:
            assert opened_target.functions == {"dense_params"}
            assert still_works(opened_target)
            with pytest.raises(NotImplementedByTarget, match="has no sample"):
                opened_target.call("sample", {})
            assert open_target(opened_target) is opened_target


def test_objects_are_not_isolated_and_commands_always_are() -> None:
    with pytest.raises(ValueError, match="isolate must be False for an object"):
        open_target(reference, isolate=True)
    with pytest.raises(ValueError, match="isolate must be True for a command"):
        open_target("command: cat", isolate=False)


def test_targets_outside_the_main_thread() -> None:
    found: list[Any] = []

    def work() -> None:
        with open_target(reference) as target:
            found.append(target.call("dense_params", PARAMS, timeout=5).result)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [16]


def test_the_reference_has_every_function() -> None:
    for target in (reference, numba, Reference()):
        assert functions_of(target).keys() == FUNCTIONS.keys()
    with pytest.raises(ValueError, match="backend must be one of"):
        Reference("cuda")


# --- processes that speak the protocol themselves ---

SPEAKER = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    answer = {"id": request["id"]}
    function, args = request["function"], request["args"]
    if function == "hello":
        answer["result"] = {"name": "speaker", "functions": ["prob_active", "dense_params", "new"]}
    elif function == "dense_params":
        answer["result"] = (args["n_in"] + args["bias"]) * args["n_out"]
    else:
        array = args["log_alpha"]
        BODY
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[Open]:
    targets: list[OpenTarget] = []

    def open_speaker(body: str) -> OpenTarget:
        path = tmp_path / f"speaker_{len(targets)}.py"
        path.write_text(SPEAKER.replace("BODY", body.replace("\n", "\n        ")))
        targets.append(open_target(f"command: {sys.executable} {path}"))
        return targets[-1]

    yield open_speaker
    for target in targets:
        target.close()


def test_a_process_that_speaks(speaker: Open) -> None:
    target = speaker("answer['result'] = [array, args['beta'], 'nan', {'a': None}]")
    assert target.functions == {"prob_active", "dense_params"}  # it has more than is known here
    a = np.array([[0.1, np.nan, -np.inf], [5e-324, -0.0, 1 / 3]])
    for dtype in (np.float64, np.float32):
        result = target.call("prob_active", {"log_alpha": a.astype(dtype), **LAW}).result
        assert result[0].tobytes() == a.astype(dtype).tobytes()
        assert result[0].dtype == dtype
        assert result[1] == LAW["beta"]
        assert math.isnan(result[2])
        assert result[3] == {"a": None}
    assert still_works(target)


def test_what_else_a_process_may_say(speaker: Open) -> None:
    target = speaker(
        "answer.update(result=1, stdout='hm', changed=['log_alpha'], state=['cwd'], "
        "warnings=['slow'])"
    )
    call = target.call("prob_active", ARGS)
    assert call == (1, "hm", ("log_alpha",), ("cwd",), ("slow",))


@pytest.mark.parametrize(
    ("body", "kind", "message", "restarts"),
    [
        ("print('debugging', flush=True); answer['result'] = 1", TargetGarbled,
         r"standard output: 'debugging', which is no answer .not JSON .*standard error", 1),
        ("print(flush=True); answer['result'] = 1", TargetGarbled,
         "standard output: '', which is no answer", 1),
        ("sys.stdout.write(json.dumps(answer | {'result': 1}) + '\\nmore'); sys.stdout.flush(); "
         "continue", TargetGarbled, "wrote to standard output: 'more', behind its answer", 1),
        ("sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.stdout.flush()", TargetGarbled,
         "no answer", 1),
        ("answer['result'] = 1; answer['id'] += 1", TargetGarbled, "its id is not 1", 1),
        ("print('[]', flush=True)", TargetGarbled, "not a JSON object", 1),
        ("print('[' * 100000, flush=True)", TargetGarbled, r"standard output: '\[\[", 1),
        ("pass", TargetGarbled, "not one of .result. and .error.", 1),
        ("answer.update(result=1, error={})", TargetGarbled, "not one of", 1),
        ("sys.stdout.write('{'); sys.stdout.flush(); __import__('threading').Event().wait(600)",
         TargetTimeout, "did not return", 1),
        ("os.close(1); os.close(0); __import__('threading').Event().wait(600)", TargetExited,
         "closed its standard output", 1),
        ("sys.exit('out of luck')", TargetExited, r"exited with status 1; it said:\nout of", 1),
        ("answer['error'] = {'type': 'DomainError', 'message': 'no'}", TargetRaised,
         "raised DomainError: no$", 0),
        ("answer['error'] = 'no'", TargetRaised, "raised Error: no$", 0),
        ("answer['error'] = {'type': 'NotImplementedError'}", NotImplementedByTarget,
         "prob_active: Not", 0),
        ("array['data'][1] = None; answer['result'] = array", TargetError,
         "number 1 of an array is null .a NaN is written", 0),
        ("array['data'][1] = 'NaN'; answer['result'] = array", TargetError, "is \"NaN\"", 0),
        ("array['data'].pop(); answer['result'] = array", TargetError,
         r"an array of shape \[2, 3\] has 5 numbers", 0),
        ("array['shape'] = [-2, -3]; answer['result'] = array", TargetError, "has 6 numbers", 0),
        ("array['dtype'] = 'object'; answer['result'] = array", TargetError, "dtype of an", 0),
        ("array['dtype'] = 'nonsense'; answer['result'] = array", TargetError, "cannot be read", 0),
        ("array['data'] = [array['data']]; answer['result'] = array", TargetError, "is \\[", 0),
        ("del array['data']; answer['result'] = array", TargetError, "neither", 0),
        ("array['base64'] = '!'; answer['result'] = array", TargetError, "cannot be read", 0),
        ("answer['result'] = {'dtype': 'int64', 'shape': [], 'data': [1e30]}", TargetError,
         "an array cannot be read", 0),
        ("answer['result'] = {'dtype': 'int64', 'shape': [2], 'data': [1, 0.5]}", TargetError,
         "number 1 of an array of int64 is 0.5", 0),
        ("answer['result'] = {'dtype': 'int32', 'shape': [1], 'data': ['inf']}", TargetError,
         "number 0 of an array of int32 is inf", 0),
        ("answer['result'] = {'dtype': 'float64', 'shape': [], 'data': [10**400]}", TargetError,
         "an array cannot be read", 0),
    ],
)  # fmt: skip
def test_processes_that_misbehave(
    speaker: Open, body: str, kind: type[Exception], message: str, restarts: int
) -> None:
    target = speaker(body)
    with pytest.raises(kind, match=message) as caught:
        target.call("prob_active", ARGS, timeout=0.5 if kind is TargetTimeout else 30)
    assert type(caught.value) is kind
    assert still_works(target)
    assert target.restarts == restarts


def test_a_process_that_never_answers_is_not_started_for_ever(speaker: Open) -> None:
    target = speaker("print('step 1', flush=True)")
    for n in range(1, MOST_LOST + 1):
        assert target.given_up == ""
        with pytest.raises(TargetGarbled, match="wrote to standard output: 'step 1'"):
            target.call("prob_active", ARGS)
        assert target.restarts == n - 1
    assert "no answer 12 times in a row" in target.given_up
    assert "wrote to standard output: 'step 1'" in target.given_up
    for function, args in (("prob_active", ARGS), ("dense_params", PARAMS)):
        with pytest.raises(TargetExited, match=f"{function} is not called: .*12 times in a row"):
            target.call(function, args)
    assert target.restarts == MOST_LOST - 1


@pytest.mark.parametrize("body", ["answer['result'] = 1", "answer['error'] = 'no'"])
def test_an_answer_of_any_kind_counts_as_one(speaker: Open, body: str) -> None:
    target = speaker(f"if array['shape'] == [1]: sys.exit(1)\n{body}")
    for _ in range(2):
        for _ in range(MOST_LOST - 1):
            with pytest.raises(TargetExited):
                target.call("prob_active", {"log_alpha": np.zeros(1), **LAW})
        with contextlib.suppress(TargetRaised):
            target.call("prob_active", ARGS)
    assert target.given_up == ""
    assert still_works(target)


def test_only_an_error_that_is_told_is_raised_as_one(opened: Open) -> None:
    with pytest.raises(TargetRaised, match="ValueError: no such gate"):
        opened("raise ValueError('no such gate')").call("prob_active", ARGS)
    for body in ("raise SystemExit(1)", "while True: pass"):
        with pytest.raises(TargetError) as caught:
            opened(body).call("prob_active", ARGS, timeout=0.3)
        assert not isinstance(caught.value, TargetRaised)


def test_which_targets_are_in_python(speaker: Open, opened: Open) -> None:
    assert opened("return log_alpha").in_python
    assert not speaker("answer['result'] = array").in_python


def test_a_process_that_closes_its_input_is_started_again(speaker: Open) -> None:
    body = (
        "answer['result'] = 1; os.close(0)\n"
        "print(json.dumps(answer), flush=True); __import__('threading').Event().wait(600)"
    )
    target = speaker(body)
    assert target.call("prob_active", ARGS).result == 1
    with pytest.raises(TargetExited, match="has closed its standard input"):
        target.call("dense_params", PARAMS)
    assert still_works(target)


def test_a_process_that_does_not_read_a_long_request_is_ended(speaker: Open) -> None:
    target = speaker(
        "answer['result'] = 1; print(json.dumps(answer), flush=True)\n"
        "__import__('threading').Event().wait(600)"
    )
    assert target.call("prob_active", ARGS).result == 1
    long = np.zeros(300_000)
    with pytest.raises(TargetTimeout):
        target.call("prob_active", {"log_alpha": long, **LAW}, timeout=0.5)
    assert still_works(target)


def test_long_requests_and_answers_cross(speaker: Open) -> None:
    a = np.random.default_rng(0).normal(size=(300, 1001))
    target = speaker("answer['result'] = array")
    np.testing.assert_array_equal(target.call("prob_active", {"log_alpha": a, **LAW}).result, a)


def answering(line: str) -> str:
    """Return a command that answers the first request with this line."""
    return f"sh -c {shlex.quote(f'read request; echo {shlex.quote(line)}')}"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "names no program"),
        ("no-such-program-here --flag", "cannot be started: .*no-such-program-here"),
        ("true", "did not start: .*(closed|exited)"),
        ("cat", "did not start: it wrote .* not one of"),
        (
            answering("hello"),
            "did not start: it wrote to standard output: 'hello', which is no answer",
        ),
        (answering('{"id":0,"result":["prob_active"]}'), "must answer hello with its functions"),
        (answering('{"id":0,"result":{"functions":["prob"]}}'), "has none of the 44 functions"),
        (answering('{"id":0,"error":{"message":"no interpreter"}}'), "^no interpreter"),
    ],
)
def test_commands_that_are_no_targets_say_why(command: str, message: str) -> None:
    with pytest.raises(TargetImportError, match=message):
        open_target(f"command: {command}")


# --- the protocol's values ---


DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.bool_])


@given(
    a=DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))),
    binary=st.booleans(),
    layout=st.sampled_from(["C", "F", "strided"]),
)
@example(a=np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]), binary=False, layout="C")
@example(a=np.array([0.1, 1e-45, 3e38], np.float32), binary=False, layout="strided")
@example(a=np.array(-0.0), binary=True, layout="F")
@example(a=np.zeros((0, 3)), binary=False, layout="F")
def test_arrays_come_back_to_the_bit(a: Any, binary: bool, layout: str) -> None:
    given_array = protocol.with_layout(a, layout)
    line = protocol.write_message({"value": protocol.encode(given_array, binary=binary)})
    assert line.count(b"\n") == 1
    back = protocol.decode(protocol.read_message(line)["value"])
    assert (back.dtype, back.shape) == (a.dtype, a.shape)
    np.testing.assert_array_equal(back, a)
    if a.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(back[~np.isnan(a)]), np.signbit(a[~np.isnan(a)]))
    if binary:
        assert protocol.layout_of(back) == protocol.layout_of(given_array)
    assert watch.changed_paths(given_array, watch.copied(given_array)) == []


def test_json_is_strict() -> None:
    value = {"a": [math.nan, -math.inf, np.array([np.inf])], "b": (1, 2.5), "c": None, "d": "x"}
    text = protocol.write_message(protocol.encode(value))
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert strict["a"][:2] == ["nan", "-inf"]
    assert strict["b"] == [1, 2.5]
    back = protocol.decode(strict)
    assert math.isnan(back["a"][0])
    assert back["a"][1] == -math.inf


def test_whole_numbers_may_be_written_as_floats() -> None:
    whole = protocol.decode({"dtype": "int64", "shape": [2], "data": [3.0, -4]})
    assert whole.dtype == np.int64
    assert whole.tolist() == [3, -4]
    beyond = protocol.decode({"dtype": "float32", "shape": [1], "data": [1e300]})
    assert beyond.tolist() == [math.inf]


def test_numbers_of_another_process_cannot_be_taken_for_arrays() -> None:
    assert protocol.decode({"shape": [1], "kind": "dense"}) == {"shape": [1], "kind": "dense"}
    assert repr(protocol.decode({"foreign": "Tensor"})) == "<Tensor>"
    with pytest.raises(protocol.ProtocolError, match="layout of an array"):
        protocol.with_layout(np.zeros(2), "D")


# --- the worked example in another language ---

EXAMPLES = Path(protocol.__file__).parent / "examples"


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_the_javascript_example_agrees_with_the_reference() -> None:
    rng = np.random.default_rng(5)
    shape = (3, 4)
    values = {
        "log_alpha": rng.normal(size=shape) * 4,
        "u": rng.uniform(0.01, 0.99, size=shape),
        "dz": rng.normal(size=shape),
        "group_size": rng.integers(1, 9, size=shape),
        **LAW,
        **{"n_in": 5, "n_out": 7, "bias": False},
    }
    with open_target(f"command: node {EXAMPLES / 'javascript.js'}") as target:
        assert {"prob_active", "sample", "sample_vjp", "test_time",
                "expected_l0", "dense_flops"} <= target.functions  # fmt: skip
        for name in sorted(target.functions):
            args = {p: values[p] for p in FUNCTIONS[name].parameters}
            for dtype in (np.float64, np.float32):
                own = {n: v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype.kind == "f"
                       else v for n, v in args.items()}  # fmt: skip
                got = target.call(name, own).result
                expected = np.asarray(getattr(reference, name)(**own))
                # a few roundings of numbers of the size of log_alpha
                np.testing.assert_allclose(got, expected, rtol=64 * np.finfo(dtype).eps,
                                           atol=64 * np.finfo(dtype).eps)  # fmt: skip
                if isinstance(got, np.ndarray):
                    assert got.dtype == dtype
    assert os.path.exists(EXAMPLES)


# --- the reference as a target, and the example that shares nothing with it ---

DTYPES = (np.float64, np.float32)


def agree(function: str, one: Any, other: Any) -> None:
    for drawn in variants(function):
        for dtype in DTYPES[:1] if function in STEEP else DTYPES:
            args = as_dtype(drawn, dtype)
            expected = getattr(other, function)(**as_dtype(drawn, np.float64))
            got = getattr(one, function)(**args)
            assert_close(got, expected, dtype, function)


STEEP = {"train"}
"""Adam divides a gradient by its own size: where it is nearly 0, float32 loses all digits."""

NUMPY_EXAMPLE: Any = load_object(str(EXAMPLES / "numpy_functions.py"))


@pytest.mark.parametrize(
    "function", [n for n in functions_of(NUMPY_EXAMPLE) if not n.startswith("draw")]
)
def test_the_numpy_example_and_the_reference_agree(function: str) -> None:
    agree(function, NUMPY_EXAMPLE, reference)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_twins_and_the_reference_agree(function: str) -> None:
    agree(function, numba, reference)
    agree(function, reference, reference)  # in float32, and in float64


def test_the_numpy_example_has_what_it_claims() -> None:
    missing = FUNCTIONS.keys() - functions_of(NUMPY_EXAMPLE).keys()
    assert missing == {"mean", "var", "expected_cost", "hard_cost", "loss_and_grads", "train",
                       "compact"}  # fmt: skip


@pytest.mark.parametrize("target", [reference, numba, NUMPY_EXAMPLE])
@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_are_those_of_their_seed_and_their_slope_goes_through_them(
    target: Any, dtype: Any
) -> None:
    log_alpha = np.array([[0.5, -1.0, 2.0], [-3.0, 0.25, 6.0]], dtype)
    z = target.draw(log_alpha, n=400, seed=3, **LAW)
    assert z.shape == (400, 2, 3)
    assert z.dtype == dtype
    np.testing.assert_array_equal(target.draw(log_alpha, n=400, seed=3, **LAW), z)
    assert (target.draw(log_alpha, n=400, seed=4, **LAW) != z).any()
    dz = np.random.default_rng(0).normal(size=z.shape).astype(dtype)
    got = target.draw_vjp(log_alpha, n=400, seed=3, dz=dz, **LAW)
    s = (z.astype(np.float64) - LAW["gamma"]) / (LAW["zeta"] - LAW["gamma"])
    slope = (LAW["zeta"] - LAW["gamma"]) * s * (1 - s) / LAW["beta"] * ((z > 0) & (z < 1))
    # a sum of 400 terms below 1.5
    allowed = 3 * 400 * np.finfo(dtype).eps
    np.testing.assert_allclose(got, (slope * dz).sum(axis=0), rtol=0, atol=allowed)
    assert got.dtype == dtype


@pytest.mark.parametrize("target", [reference, numba])
def test_a_compact_network_computes_what_the_whole_one_does(target: Any) -> None:
    args = variants("predict")[0]
    network, x = args["network"], args["x"]
    for layer in network["layers"]:
        if layer.get("on") is not None:
            layer["log_alpha"].flat[::2] = -9.0  # half of the gates are closed
    before = watch.copied(network)
    small = target.compact(network)
    assert watch.changed_paths(before, network) == []
    kinds = [layer["kind"] for layer in small["layers"]]
    assert "select" in kinds
    assert small["layers"][0]["weight"].shape[0] == 2
    assert all(layer.get("on") is None for layer in small["layers"])
    whole = target.predict(network, x)
    np.testing.assert_allclose(target.predict(small, x), whole, rtol=0, atol=1e-12)
    np.testing.assert_allclose(NUMPY_EXAMPLE.predict(small, x), whole, rtol=0, atol=1e-12)


def test_a_network_whose_inputs_are_not_all_read_selects_them() -> None:
    rng = np.random.default_rng(1)
    layer = {
        "kind": "dense",
        "weight": rng.normal(size=(5, 3)),
        "bias": rng.normal(size=3),
        "on": "inputs",
        "log_alpha": np.array([2.0, -9, 0.5, -9, 9]),
        "gates_bias": False,
    }
    network: Any = {"input_shape": (5,), "layers": [layer], **LAW}  # fmt: skip
    small = reference.compact(network)
    assert small["layers"][0] == {"kind": "select", "index": [0, 2, 4]}
    assert small["input_shape"] == (5,)
    x = rng.normal(size=(4, 5))
    np.testing.assert_allclose(
        reference.predict(small, x), reference.predict(network, x), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reference.group_size((3, 4, 2), on="inputs", gates_bias=False), "2 axes"),
        (lambda: reference.group_size((3, 4), on="units", gates_bias=False), "on must be inputs"),
        (lambda: reference.group_size((3, 4, 2, 2), on="inputs", gates_bias=False), "on must be o"),
        (lambda: reference.init_weight(np.zeros(3)), "normal must have 2 axes"),
        (lambda: reference.predict({"input_shape": (2,), "layers": [{"kind": "tanh"}], **LAW},
                                   np.zeros((1, 2))), "kind must be one of"),
        (lambda: reference.loss_and_grads(**{**variants("loss_and_grads")[0], "u": []}),
         r"u must have one array a gated layer \(3\), got 0"),
    ],
)  # fmt: skip
def test_the_reference_refuses_what_is_not_in_the_interface(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "l0ref.oracle.reference:reference",
        "l0ref.oracle.reference:numba",
        str(EXAMPLES / "numpy_functions.py"),
        f"command: node {EXAMPLES / 'javascript.js'}",
    ],
)
def test_honest_targets_pass_the_whole_check(target: str) -> None:
    from l0ref.oracle.check import check

    if target.startswith("command: node") and shutil.which("node") is None:
        pytest.skip("Node is not installed")
    report = check(target, quick=True, timeout=60)
    assert report.ok, [o for o in report.outcomes if o.n_failed]
