"""Planted bugs that the suite must kill.

Each mutant is the package with one snippet replaced: a bug that implementations of this method
have had, or are apt to have. One test of the suite, named beside it, has to fail on it; that test
passes on the package as it is. Whoever changes a line that a mutant quotes brings the mutant along.

    python -m tests.mutants             all of them
    python -m tests.mutants NAME ...    some
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
AT_ONCE = 2
TIMEOUT = 300  # seconds for one test: far more than any takes, to stop one that hangs

PASSED, FAILED = 0, 1  # pytest's exit statuses; all others say that it could not run the test


class Mutant(NamedTuple):
    """A bug: `original`, found once in l0ref/`module`, becomes `mutated`, and `test` must fail."""

    name: str
    module: str
    original: str
    mutated: str
    test: str


class Verdict(NamedTuple):
    """What became of a mutant."""

    name: str
    killed: bool
    why: str
    seconds: float


MUTANTS = (
    # --- the law ---
    Mutant(
        "noise-without-its-upper-tail",
        "concrete.py",
        "logistic = self._log_odds(u, np.zeros(()), np.ones(()))",
        "logistic = ext.exact(np.log(u))",
        "test_hard_concrete.py::test_spot_values",
    ),
    Mutant(
        "sample-without-beta",
        "concrete.py",
        "t = ext.divide(numerator, ext.exact(self.beta))",
        "t = numerator",
        "test_hard_concrete.py::test_spot_values",
    ),
    Mutant(
        "P-with-plus",
        "concrete.py",
        "ext.scale(log_odds, self.beta)",
        "ext.scale(log_odds, -self.beta)",
        "test_hard_concrete.py::test_naive_twins_agree",
    ),
    Mutant(
        "P-without-beta",
        "concrete.py",
        "ext.scale(log_odds, self.beta)",
        "log_odds",
        "test_penalties.py::test_expected_l0_is_the_mean_count_of_draws",
    ),
    Mutant(
        "tail-as-1-minus-the-rest",
        "concrete.py",
        "np.where(t >= 0, large, small), np.where(t >= 0, small, large)",
        "np.where(t >= 0, large, small), 1 - np.where(t >= 0, large, small)",
        "test_penalties.py::test_no_gradient_dies_in_a_tail",
    ),
    Mutant(
        "path-derivative-without-1/beta",
        "concrete.py",
        "np.multiply(*sigmoids(t)) / self._p.beta",
        "np.multiply(*sigmoids(t))",
        "test_hard_concrete.py::test_sample_vjp_against_differences[log_alpha]",
    ),
    Mutant(
        "path-derivative-without-the-stretch",
        "concrete.py",
        "return (self._p.zeta - self._p.gamma) * np.multiply(*sigmoids(t)) / self._p.beta",
        "return np.multiply(*sigmoids(t)) / self._p.beta",
        "test_gates.py::test_draw_and_its_vjp",
    ),
    Mutant(
        "path-derivative-in-beta-with-plus",
        "concrete.py",
        "-slope * t)",
        "slope * t)",
        "test_hard_concrete.py::test_sample_vjp_against_differences[beta]",
    ),
    Mutant(
        "path-derivatives-in-gamma-and-zeta-swapped",
        "concrete.py",
        "terms = (slope, in_beta, one_minus_s, s,",
        "terms = (slope, in_beta, s, one_minus_s,",
        "test_hard_concrete.py::test_sample_vjp_against_differences[gamma]",
    ),
    Mutant(
        "broadcast-axes-averaged",
        "concrete.py",
        "summed = a.sum(",
        "summed = a.mean(",
        "test_hard_concrete.py::test_sample_vjp_sums_over_broadcast_axes",
    ),
    Mutant(
        "straight-through-where-clipped",
        "hard_concrete.py",
        "        return _is_clipped(s_bar)",
        "        return np.zeros(s_bar.shape, dtype=bool)",
        "test_gates.py::test_a_clipped_gate_has_slope_exactly_0",
    ),
    Mutant(
        "kink-inside",
        "hard_concrete.py",
        "return (s_bar <= 0) | (s_bar >= 1)",
        "return (s_bar < 0) | (s_bar > 1)",
        "test_hard_concrete.py::test_path_derivative_on_a_kink_is_zero_by_convention",
    ),
    Mutant(
        "nan-clipped-to-a-closed-gate",
        "hard_concrete.py",
        "np.clip(s_bar, 0.0, 1.0)",
        "np.fmin(1.0, np.fmax(0.0, s_bar))",
        "test_gates.py::test_gates_at_the_ends_and_nan",
    ),
    Mutant(
        "atoms-as-densities",
        "hard_concrete.py",
        "return self._between(x, super().pdf(x), self.prob_zero(), self.prob_one(), 0.0)",
        "return self._between(x, super().pdf(x), super().pdf(0.0), super().pdf(1.0), 0.0)",
        "test_hard_concrete.py::test_infinite_log_alpha_at_the_atoms",
    ),
    Mutant(
        "variance-without-the-atom-at-1",
        "hard_concrete.py",
        "at_zero * mean**2 + at_one * rest**2 + interior",
        "at_zero * mean**2 + interior",
        "test_hard_concrete.py::test_moments_to_twelve_digits[(2.9, 2.0, -1.0, 1.7)]",
    ),
    Mutant(
        "test-gate-with-beta",
        "hard_concrete.py",
        "_clip(sigmoids(p.log_alpha)[0] *",
        "_clip(sigmoids(p.log_alpha / p.beta)[0] *",
        "test_gates.py::test_test_time_is_eq_13_with_the_familys_stretch_and_no_beta",
    ),
    Mutant(
        "test-gate-without-the-stretch",
        "hard_concrete.py",
        "_clip(sigmoids(p.log_alpha)[0] * (p.zeta - p.gamma) + p.gamma)",
        "_clip(sigmoids(p.log_alpha)[0])",
        "test_hard_concrete.py::test_test_gate_is_zero_exactly_up_to_its_threshold",
    ),
    # --- gates ---
    Mutant(
        "log_alpha-clamped-inside-the-formula",
        "gates.py",
        "return HardConcrete(log_alpha, **",
        "return HardConcrete(np.clip(log_alpha, *LOG_ALPHA_RANGE), **",
        "test_penalties.py::test_gated_norms_and_their_gradients",
    ),
    Mutant(
        "bias-counted-by-input-gates",
        "gates.py",
        "// max(n, 1) + gates_bias",
        '// max(n, 1) + (gates_bias or on == "inputs")',
        "test_gates.py::test_group_size_of_the_papers_layers",
    ),
    Mutant(
        "bias-not-counted-by-gates-that-own-it",
        "gates.py",
        "// max(n, 1) + gates_bias",
        "// max(n, 1)",
        "test_gates.py::test_group_size_of_the_papers_layers",
    ),
    Mutant(
        "group-size-of-the-gated-axis",
        "gates.py",
        "size = int(np.prod(weight_shape)) // max(n, 1)",
        "size = n",
        "test_gates.py::test_group_size_counts_what_each_gate_owns",
    ),
    Mutant(
        "per-example-draws-not-summed",
        "gates.py",
        "return np.asarray((dz * slope).sum(axis=extra))",
        "return np.asarray((dz * slope)[(0,) * len(extra)])",
        "test_gates.py::test_draw_and_its_vjp",
    ),
    Mutant(
        "drop-rate-for-keep-rate",
        "gates.py",
        "np.log1p(-drop_rate) - np.log(drop_rate)",
        "np.log(drop_rate) - np.log1p(-drop_rate)",
        "test_gates.py::test_init_at_drop_rate_p_keeps_a_share_1_minus_p",
    ),
    # --- penalties ---
    Mutant(
        "l0-without-group-size",
        "penalties.py",
        "np.sum(np.multiply(active, group_size), dtype=np.float64)",
        "np.sum(active, dtype=np.float64)",
        "test_penalties.py::test_expected_l0_is_the_mean_count_of_draws",
    ),
    Mutant(
        "l0-gradient-without-group-size",
        "penalties.py",
        "grad = np.asarray(slope * np.asarray(group_size).astype(slope.dtype))",
        "grad = np.asarray(slope)",
        "test_networks.py::test_the_objective_and_its_whole_gradient",
    ),
    Mutant(
        "slope-of-P-without-1-P",
        "penalties.py",
        "return active * prob_zero(log_alpha, beta=beta, gamma=gamma, zeta=zeta)",
        "return active",
        "test_networks.py::test_the_objective_and_its_whole_gradient",
    ),
    Mutant(
        "l2-without-P",
        "penalties.py",
        "gates.law(log_alpha).prob_active() * sums",
        "sums",
        "test_penalties.py::test_gated_norms_and_their_gradients",
    ),
    Mutant(
        "l2-with-z",
        "penalties.py",
        "gates.law(log_alpha).prob_active() * sums",
        "gates.test_time(log_alpha) ** 2 * sums",
        "test_penalties.py::test_gated_norms_and_their_gradients",
    ),
    Mutant(
        "bic-without-its-half",
        "penalties.py",
        "/ (2 * n_examples)",
        "/ n_examples",
        "test_penalties.py::test_the_criteria_are_the_objective_times_2n",
    ),
    # --- ops ---
    Mutant(
        "relu-derivative-1-everywhere",
        "ops/relu.py",
        "return dy * residuals",
        "return dy",
        "test_ops.py::test_relu_at_its_kink_and_at_nan",
    ),
    Mutant(
        "tanh-derivative-1-minus-y-squared",
        "ops/tanh.py",
        "(4 * e / (1 + e) ** 2)",
        "(1 - ((1 - e) / (1 + e)) ** 2)",
        "test_ops.py::test_tanh_and_its_vjp_relative_to_themselves",
    ),
    Mutant(
        "cross-entropy-gradient-not-averaged",
        "ops/cross_entropy.py",
        "p *= dloss / len(labels)",
        "p *= dloss",
        "test_ops.py::test_cross_entropy_keeps_its_digits_far_out",
    ),
    Mutant(
        "dropout-without-rescaling",
        "ops/dropout.py",
        "((noise >= rate) / (1 - rate))",
        "(noise >= rate)",
        "test_ops.py::test_dropout_drops_below_the_rate_and_keeps_the_mean",
    ),
    Mutant(
        "dense-input-gradient-without-the-gate",
        "ops/dense.py",
        "return dxz * z, (x * z).T @ dy",
        "return dxz, (x * z).T @ dy",
        "test_ops.py::test_dense_and_its_vjp[inputs-False]",
    ),
    Mutant(
        "dense-weight-gradient-without-the-gate",
        "ops/dense.py",
        "return dxz * z, (x * z).T @ dy",
        "return dxz * z, x.T @ dy",
        "test_ops.py::test_dense_and_its_vjp[inputs-False]",
    ),
    Mutant(
        "dense-output-gates-leave-the-bias-on",
        "ops/dense.py",
        "        y = ungated * z",
        "        y = ungated * z + bias * (1 - z)",
        "test_layers.py::test_dense_forward_and_backward",
    ),
    # --- layers and networks ---
    Mutant(
        "median-gate-at-test-time",
        "layers.py",
        'z = gates.test_time(self.params["log_alpha"])\n        else:',
        'z = gates.law(self.params["log_alpha"]).median()\n        else:',
        "test_layers.py::test_at_test_time_the_layer_is_eq_13",
    ),
    Mutant(
        "z_hat-not-folded",
        "layers.py",
        "return weight * gates.expand(z_hat)",
        "return weight * (gates.expand(z_hat) != 0)",
        "test_pruning.py::test_a_network_compacted_by_hand",
    ),
    Mutant(
        "lam-not-divided-by-N",
        "networks.py",
        "scale = layer_lam / n_train",
        "scale = layer_lam",
        "test_networks.py::test_the_objective_and_its_whole_gradient",
    ),
    Mutant(
        "l2-without-the-layers-that-have-no-gates",
        "networks.py",
        "if l2 > 0:  # a layer without gates",
        "if False:  # a layer without gates",
        "test_networks.py::test_the_objective_and_its_whole_gradient",
    ),
    Mutant(
        "penalty-gradient-instead-of-the-sum",
        "networks.py",
        "grads[name] = grads[name] + g",
        "grads[name] = g",
        "test_networks.py::test_the_objective_and_its_whole_gradient",
    ),
    Mutant(
        "nan-gate-reported-as-closed",
        "networks.py",
        'gates.test_time(layer.params["log_alpha"]) != 0',
        'gates.test_time(layer.params["log_alpha"]) > 0',
        "test_networks.py::test_open_gates_never_takes_nan_for_closed",
    ),
    Mutant(
        "he-init-on-the-fan-out",
        "networks.py",
        "he = np.sqrt(2 / shape[0])",
        "he = np.sqrt(2 / shape[1])",
        "test_networks.py::test_mlp_starts_as_the_paper_has_it",
    ),
    # --- optimisers ---
    Mutant(
        "adam-without-bias-correction",
        "optimizers.py",
        "root = float(np.sqrt(1 - self.beta2**self.t))\n"
        "        rescale = root / (1 - self.beta1**self.t)",
        "root = rescale = 1.0",
        "test_optimizers.py::test_adams_first_step_is_the_learning_rate_whatever_the_gradients_size",
    ),
    Mutant(
        "adam-resumed-at-its-first-step",
        "optimizers.py",
        '{"t": np.asarray(self.t)}\n            |',
        '{"t": np.asarray(0)}\n            |',
        "test_optimizers.py::test_a_resumed_run_goes_on_bit_for_bit",
    ),
    Mutant(
        "gates-at-the-weights-learning-rate",
        "optimizers.py",
        'return name.split(".")[-1] == "log_alpha"',
        'return name == "log_alpha"',
        "test_optimizers.py::test_only_log_alpha_has_the_gates_rate",
    ),
    Mutant(
        "average-from-zero-without-debiasing",
        "optimizers.py",
        "weight = (1 - self.decay) / (1 - self.decay**self.t)\n"
        "        for name, theta in params.items():\n"
        "            if name not in self.params:\n"
        "                self.params[name] = theta.copy()",
        "weight = 1 - self.decay\n"
        "        for name, theta in params.items():\n"
        "            if name not in self.params:\n"
        "                self.params[name] = weight * theta",
        "test_optimizers.py::test_the_average_is_the_explicit_weighted_sum_at_every_step",
    ),
    # --- noise ---
    Mutant(
        "noise-of-a-step-overlaps-the-next",
        "noise.py",
        "counter = [0, step, layer, int(stream)]",
        "counter = [step, 0, layer, int(stream)]",
        "test_noise.py::test_uniform_is_philox_of_its_names",
    ),
    Mutant(
        "noise-can-be-0",
        "noise.py",
        "(k + 0.5) * 2.0**-_BITS",
        "k * 2.0**-_BITS",
        "test_noise.py::test_u_and_1_minus_u_are_exact_at_both_ends",
    ),
    Mutant(
        "shuffle-without-the-epoch",
        "noise.py",
        "self.generator(Stream.SHUFFLE, step=epoch)",
        "self.generator(Stream.SHUFFLE)",
        "test_noise.py::test_permutation_orders_each_epoch_anew",
    ),
    # --- training ---
    Mutant(
        "gate-noise-without-the-step",
        "training.py",
        "shape, layer=i, step=self.step)",
        "shape, layer=i)",
        "test_training.py::test_the_loop[input gates]",
    ),
    Mutant(
        "gate-noise-without-the-layer",
        "training.py",
        "shape, layer=i, step=self.step)",
        "shape, step=self.step)",
        "test_training.py::test_the_loop[input gates]",
    ),
    Mutant(
        "penalty-divided-by-the-batch",
        "training.py",
        "n_train=len(self.data.y_train),",
        "n_train=len(rows),",
        "test_training.py::test_the_loop[input gates]",
    ),
    Mutant(
        "last-batch-dropped",
        "training.py",
        "return -(-len(self.data.y_train) // self.settings.batch_size)",
        "return len(self.data.y_train) // self.settings.batch_size",
        "test_training.py::test_every_epoch_visits_every_example_once",
    ),
    Mutant(
        "latest-parameters-evaluated",
        "training.py",
        "network = self.averaged()",
        "network = self.network",
        "test_training.py::test_what_is_evaluated_is_the_average[input gates]",
    ),
    Mutant(
        "losses-of-past-epochs-kept",
        "training.py",
        "self.history.append(row)\n        self._sums = np.zeros(4)",
        "self.history.append(row)",
        "test_training.py::test_the_loop[input gates]",
    ),
    Mutant(
        "checkpoint-forgets-the-average",
        "training.py",
        'trainer.average.load_state(groups["average"])',
        "trainer.average.update(trainer.network.params)",
        "test_training.py::test_stopped_after_every_step",
    ),
    Mutant(
        "checkpoint-forgets-the-sums",
        "training.py",
        'trainer._sums = arrays["sums"]',
        "trainer._sums = np.zeros(4)",
        "test_training.py::test_stopped_after_every_step",
    ),
    Mutant(
        "nan-logits-counted-as-right",
        "training.py",
        " | np.isnan(logits).any(axis=1)",
        "",
        "test_training.py::test_a_nan_logit_is_an_error",
    ),
    # --- pruning and what it saves ---
    Mutant(
        "constants-dropped",
        "pruning.py",
        "biases[i + 1] = biases[i + 1] + f(biases[i][fixed]) @ weights[i + 1][fixed]",
        "pass",
        "test_pruning.py::test_a_closed_layer_leaves_a_constant",
    ),
    Mutant(
        "constants-folded-before-the-activation",
        "pruning.py",
        "f(biases[i][fixed]) @",
        "biases[i][fixed] @",
        "test_pruning.py::test_a_network_compacted_by_hand",
    ),
    Mutant(
        "dead-units-kept",
        "pruning.py",
        "read = weights[i].any(axis=1)",
        "read = np.ones(len(weights[i]), dtype=bool)",
        "test_pruning.py::test_a_network_compacted_by_hand",
    ),
    Mutant(
        "flops-of-multiplications-only",
        "flops.py",
        "return 2 * n_in * n_out",
        "return n_in * n_out",
        "test_flops.py::test_lenet_by_hand",
    ),
    Mutant(
        "flops-without-the-bias",
        "flops.py",
        "return 2 * n_in * n_out",
        "return (2 * n_in - 1) * n_out",
        "test_flops.py::test_lenet_by_hand",
    ),
    # --- data and files ---
    Mutant(
        "scaled-by-the-test-range-too",
        "datasets.py",
        "low, high = x_train.min(axis=0), x_train.max(axis=0)",
        "both = np.concatenate([x_train, x_test])\n"
        "        low, high = both.min(axis=0), both.max(axis=0)",
        "test_datasets.py::test_from_arrays_scale_uses_the_training_range",
    ),
    Mutant(
        "test-set-trained-on",
        "datasets.py",
        "x_train, y_train = np.delete(x_train, chosen, axis=0), np.delete(y_train, chosen)",
        "pass",
        "test_datasets.py::test_from_arrays_holds_out_a_stratified_test_set",
    ),
    Mutant(
        "fingerprint-of-the-bytes-alone",
        "datasets.py",
        'digest.update(f"{array.dtype.name}{array.shape}".encode())',
        "pass",
        "test_datasets.py::test_fingerprint_sees_every_array_its_order_and_its_shape",
    ),
    Mutant(
        "file-written-in-place",
        "storage.py",
        'with temporary.open("wb") as file:\n'
        "            write(file)\n"
        "            file.flush()\n"
        "            os.fsync(file.fileno())\n"
        "        temporary.replace(path)",
        'with path.open("wb") as file:\n            write(file)',
        "test_storage.py::test_a_failing_writer_changes_nothing",
    ),
    Mutant(
        "pickles-opened",
        "storage.py",
        "read_array(member, allow_pickle=False)",
        "read_array(member, allow_pickle=True)",
        "test_storage.py::test_other_files_are_refused_by_name",
    ),
)


def mutate(mutant: Mutant, package: Path = ROOT / "l0ref") -> str:
    """Return the text of the mutant's module with the bug in it.

    Raises
    ------
    ValueError
        If the module does not hold the original exactly once: the mutant is stale.
    """
    source = (package / mutant.module).read_text(encoding="utf-8")
    n = source.count(mutant.original)
    if n != 1:
        raise ValueError(
            f"{mutant.name} is stale: l0ref/{mutant.module} must hold its original exactly once, "
            f"got {n} times:\n{mutant.original}"
        )
    return source.replace(mutant.original, mutant.mutated)


def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> tuple[int, str]:
    """Run tests on a copy of the project, with a bug or without; return exit status and output."""
    with tempfile.TemporaryDirectory(prefix="l0ref-mutant-") as temporary:
        copy = Path(temporary)
        for folder in ("l0ref", "tests"):
            # Compiled files are told from stale ones by the second of their source: none is taken.
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutant is not None:
            (copy / "l0ref" / mutant.module).write_text(mutate(mutant), encoding="utf-8")
        # Started in the copy, whose pyproject.toml puts it first on the path of imports.
        ids = [f"tests/{test}" for test in tests]
        options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", temporary]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("PYTEST_ADDOPTS", None)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *ids],
            cwd=copy,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    return done.returncode, done.stdout


def try_to_kill(mutant: Mutant) -> Verdict:
    """Run the mutant's test on it; only a test that fails kills."""
    start = time.perf_counter()
    finish = partial(Verdict, mutant.name)
    try:
        status, output = run_tests([mutant.test], mutant)
    except subprocess.TimeoutExpired:
        return finish(False, f"{mutant.test} took over {TIMEOUT} s", time.perf_counter() - start)
    except ValueError as error:
        return finish(False, str(error), time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if status == FAILED:
        failed = [line for line in output.splitlines() if line.startswith("FAILED tests/")]
        return finish(True, failed[0].removeprefix("FAILED tests/") if failed else output, seconds)
    if status == PASSED:
        return finish(False, f"survived: {mutant.test} passed", seconds)
    return finish(False, f"pytest ended with status {status}:\n{output[-1000:]}", seconds)


def main(names: Sequence[str]) -> int:
    """Try the named mutants, or all; return 0 if every one is killed."""
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no mutant {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [known[name] for name in names] or list(MUTANTS)

    status, output = run_tests(sorted({mutant.test for mutant in chosen}))
    if status != PASSED:
        print(f"the tests must pass without a mutant, got status {status}:", file=sys.stderr)
        print(output, file=sys.stderr)
        return 2

    table = Table("mutant", "killed", "by, or why not", "s")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        verdicts = list(pool.map(try_to_kill, chosen))
    for name, killed, why, seconds in verdicts:
        style = None if killed else "bold red"
        table.add_row(name, "yes" if killed else "NO", why, f"{seconds:.0f}", style=style)
    console = Console(markup=False)  # test names have brackets
    console.print(table)
    alive = sum(not verdict.killed for verdict in verdicts)
    console.print(f"{len(verdicts) - alive} of {len(verdicts)} mutants killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
