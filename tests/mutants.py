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
        "dx = dy @ (weight * by_weight).T",
        "dx = dy @ weight.T",
        "test_ops.py::test_dense_and_its_vjp[inputs-False]",
    ),
    Mutant(
        "dense-weight-gradient-without-the-gate",
        "ops/dense.py",
        "return dx, dv * by_weight, dbias",
        "return dx, dv, dbias",
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
        'return gates.test_time(self.params["log_alpha"]), None',
        'return gates.law(self.params["log_alpha"]).median(), None',
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
        "network.py",
        "return [value / n_train for value in lams]",
        "return lams",
        "test_networks.py::test_the_objective_and_its_whole_gradient",
    ),
    Mutant(
        "l2-without-the-layers-that-have-no-gates",
        "network.py",
        "if gates is None:  # always on: P = 1\n"
        "                term += half * float(np.sum(np.square(weight), dtype=np.float64))\n"
        '                grads[f"{i}.weight"] = 2 * half * weight\n',
        "if gates is None:\n",
        "test_networks.py::test_the_objective_and_its_whole_gradient",
    ),
    Mutant(
        "penalty-gradient-instead-of-the-sum",
        "network.py",
        "own[name] = own[name] + g",
        "own[name] = g",
        "test_networks.py::test_the_objective_and_its_whole_gradient",
    ),
    Mutant(
        "nan-gate-reported-as-closed",
        "network.py",
        'gates.test_time(layer.params["log_alpha"]) != 0',
        'gates.test_time(layer.params["log_alpha"]) > 0',
        "test_networks.py::test_open_gates_never_takes_nan_for_closed",
    ),
    # --- convnets ---
    Mutant(
        "he-init-on-the-fan-out",
        "networks.py",
        "weight = self._weight((c_out, c_in, kernel, kernel), c_in * kernel * kernel)",
        "weight = self._weight((c_out, c_in, kernel, kernel), c_out * kernel * kernel)",
        "test_convnets.py::test_lenet5_starts_as_the_paper_has_it",
    ),
    Mutant(
        "conv-bias-gated-at-test-time-only",
        "layers.py",
        "y, residuals = self.apply(x, z)\n        return y, Gated",
        "gates = self.gates\n"
        "        if gates is None or self.spread or u is not None:\n"
        "            y, residuals = self.apply(x, z)\n"
        "        else:\n"
        "            y, residuals = self.apply_op(x, z, gates.on, True)\n"
        "        return y, Gated",
        "test_layers.py::test_conv2d_in_training_is_as_at_test_time_where_the_draw_is_eq_13",
    ),
    Mutant(
        "conv-bias-dropped-in-training",
        "layers.py",
        "y, residuals = self.apply(x, z)\n        return y, Gated",
        "gates = self.gates\n"
        "        if gates is None or self.spread:\n"
        "            y, residuals = self.apply(x, z)\n"
        "        else:\n"
        "            y, residuals = self.apply_op(x, z, gates.on, u is not None)\n"
        "        return y, Gated",
        "test_convnets.py::test_lenet5_in_training_is_as_at_test_time_where_the_draw_is_eq_13",
    ),
    Mutant(
        "conv-bias-always-gated",
        "layers.py",
        "own = gates_bias and bias is not None",
        "own = bias is not None",
        "test_layers.py::test_conv2d_forward_and_backward",
    ),
    Mutant(
        "batch-norm-gradient-without-its-statistics",
        "ops/norm.py",
        "(g - mean_g - normalised * mean_gx)",
        "(g - mean_g)",
        "test_convnets.py::test_the_gradient_of_a_whole_wide_resnet",
    ),
    Mutant(
        "running-variance-biased",
        "ops/norm.py",
        "unbiased = residuals.var * (residuals.n_values / (residuals.n_values - 1))",
        "unbiased = residuals.var",
        "test_layers.py::test_batch_norm_moves_its_running_statistics_only_when_told",
    ),
    Mutant(
        "tie-to-the-last",
        "ops/pool.py",
        "winner = greatest.argmax(axis=2)",
        "winner = greatest.shape[2] - 1 - greatest[:, :, ::-1].argmax(axis=2)",
        "test_layers.py::test_max_pool_as_a_layer_gives_a_tie_to_the_first",
    ),
    Mutant(
        "max-pool-gradient-to-all",
        "ops/pool.py",
        "np.where(winner[:, :, None] == place, dy[:, :, None], 0)",
        "np.where(place >= 0, dy[:, :, None], 0)",
        "test_convnets.py::test_the_gradient_of_a_whole_lenet5",
    ),
    Mutant(
        "flatten-channels-last",
        "ops/flatten.py",
        "return x.reshape(n, c * h * w), x.shape",
        "return x.transpose(0, 2, 3, 1).reshape(n, c * h * w), x.shape",
        "test_layers.py::test_a_layer_without_parameters",
    ),
    Mutant(
        "gate-gradient-averaged-over-places",
        "ops/conv.py",
        "dz = (dy * ungated).sum(axis=(2, 3) if z.ndim == 2 else (0, 2, 3))",
        "dz = (dy * ungated).mean(axis=(2, 3) if z.ndim == 2 else (0, 2, 3))",
        "test_convnets.py::test_the_integral_of_the_path_gradient_is_the_gradient",
    ),
    Mutant(
        "skip-forgotten-on-the-way-back",
        "network.py",
        "            if i in self.skips:\n                arrive(self.skips[i], dy)\n",
        "",
        "test_convnets.py::test_a_residual_graph_is_its_composition_by_hand",
    ),
    Mutant(
        "cotangents-of-two-readers-not-added",
        "network.py",
        "cotangents[at] = cotangents[at] + dy if at in cotangents else dy",
        "cotangents[at] = dy",
        "test_convnets.py::test_a_source_replaces_the_layer_before",
    ),
    Mutant(
        "gates-on-every-convolution-of-a-block",
        "networks.py",
        "layers.append(make.conv(maps, maps, 3, bias=False, padding=1))",
        "layers.append(make.conv(maps, maps, 3, rates[block], bias=False, padding=1))",
        "test_convnets.py::test_wrn_28_10_is_gated_on_each_blocks_first_convolution",
    ),
    # --- optimisers ---
    Mutant(
        "adam-without-bias-correction",
        "optimizers.py",
        "root = float(np.sqrt(1 - self.beta2**self.t))\n"
        "        return root / (1 - self.beta1**self.t), self.eps * root",
        "return 1.0, self.eps",
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
        "weight = self.weight()\n"
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
        "test_noise.py::test_generator_is_philox_of_its_names",
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
    Mutant(
        "losses-of-past-epochs-kept",
        "training.py",
        "self.history.append(row)\n        self._sums = np.zeros_like(self._sums)",
        "self.history.append(row)",
        "test_training.py::test_the_loop[input gates]",
    ),
    # --- pruning and what it saves ---
    Mutant(
        "constants-dropped",
        "pruning.py",
        "folded = folded + _sums(layer, np.where(reads, weight, 0), x)",
        "pass",
        "test_pruning.py::test_a_closed_layer_leaves_a_constant",
    ),
    Mutant(
        "constants-taken-past-the-activation",
        "pruning.py",
        "y = layer.forward(x[None], None)[0][0]\n                if isinstance",
        "y = x\n                if isinstance",
        "test_pruning.py::test_a_network_compacted_by_hand",
    ),
    Mutant(
        "dead-units-kept",
        "pruning.py",
        'source |= layer.params["weight"][:, mine].any(axis=1)',
        "source |= True",
        "test_pruning.py::test_a_network_compacted_by_hand",
    ),
    Mutant(
        "flops-of-multiplications-only",
        "flops.py",
        "return 2 * terms - 1 + bias if terms else 0",
        "return terms",
        "test_flops.py::test_dense_against_a_count",
    ),
    Mutant(
        "flops-without-the-bias",
        "flops.py",
        "return 2 * terms - 1 + bias if terms else 0",
        "return 2 * terms - 1 if terms else 0",
        "test_flops.py::test_dense_against_a_count",
    ),
    Mutant(
        "flops-of-sums-of-nothing",
        "flops.py",
        "return 2 * terms - 1 + bias if terms else 0",
        "return 2 * terms - 1 + bias",
        "test_flops.py::test_what_reads_nothing_costs_nothing",
    ),
    Mutant(
        "flops-groups-ignored",
        "flops.py",
        "k = c_in // groups * kernel[0]",
        "k = c_in * kernel[0]",
        "test_flops.py::test_convolution_by_hand",
    ),
    Mutant(
        "params-groups-ignored",
        "flops.py",
        "return (c_in // groups * kernel[0]",
        "return (c_in * kernel[0]",
        "test_flops.py::test_convolutions_against_a_count",
    ),
    Mutant(
        "flops-of-a-square-kernel",
        "flops.py",
        "* kernel[1]\n    return _sum_flops",
        "* kernel[0]\n    return _sum_flops",
        "test_flops.py::test_convolutions_against_a_count",
    ),
    Mutant(
        "flops-of-a-square-image",
        "flops.py",
        "c_out * output[0] * output[1]",
        "c_out * output[0] * output[0]",
        "test_flops.py::test_convolutions_against_a_count",
    ),
    Mutant(
        "flops-one-sided",
        "flops.py",
        "inputs, outputs, within = carries, read, None",
        "inputs, outputs, within = np.ones_like(carries), np.ones_like(read), None",
        "test_flops.py::test_counted_on_one_side",
    ),
    Mutant(
        "flops-unread-outputs-counted",
        "flops.py",
        "inputs, outputs, within = carries, read, None",
        "inputs, outputs, within = carries, np.ones_like(read), None",
        "test_flops.py::test_lenet_5_by_hand",
    ),
    Mutant(
        "flops-closed-inputs-counted",
        "flops.py",
        "inputs, outputs, within = carries, read, None",
        "inputs, outputs, within = np.ones_like(carries), read, None",
        "test_flops.py::test_lenet_5_by_hand",
    ),
    Mutant(
        "flops-either-is-both",
        "flops.py",
        "1 - (1 - self.on) * (1 - other.on)",
        "self.on * other.on",
        "test_flops.py::test_one_reader_is_enough",
    ),
    Mutant(
        "flops-either-is-the-larger",
        "flops.py",
        "1 - (1 - self.on) * (1 - other.on)",
        "np.maximum(self.on, other.on)",
        "test_flops.py::test_the_expected_cost_where_gates_meet",
    ),
    Mutant(
        "flops-a-map-is-read-by-its-likeliest-unit",
        "flops.py",
        "_any(_split(read.on, x_shape[1]))",
        "_split(read.on, x_shape[1]).max(axis=-1)",
        "test_flops.py::test_a_map_is_off_if_all_that_read_it_are",
    ),
    Mutant(
        "flops-a-map-is-read-by-all-its-units",
        "flops.py",
        "_any(_split(read.on, x_shape[1]))",
        "_split(read.on, x_shape[1]).prod(axis=-1)",
        "test_flops.py::test_lenet_5_by_hand",
    ),
    Mutant(
        "flops-dependent-gates-multiplied",
        "flops.py",
        "if shared:",
        "if False:",
        "test_flops.py::test_gates_that_reach_one_sum_by_two_ways",
    ),
    Mutant(
        "flops-every-sum-counted",
        "flops.py",
        "costs_of_sums[i] = signal.on * skip.on",
        "costs_of_sums[i] = signal.either(skip).on",
        "test_flops.py::test_hard_networks_against_a_count",
    ),
    Mutant(
        "flops-unread-sums-counted",
        "flops.py",
        "(costs_of_sums[i] * read[i].on).sum(axis=-1)",
        "costs_of_sums[i].sum(axis=-1)",
        "test_flops.py::test_the_layers_without_weights",
    ),
    Mutant(
        "flops-flatten-by-places",
        "flops.py",
        "np.repeat(signal.on, int(np.prod(x_shape[2:])), axis=-1)",
        "np.tile(signal.on, int(np.prod(x_shape[2:])))",
        "test_flops.py::test_lenet_5_by_hand",
    ),
    Mutant(
        "flops-batch-norm-one-an-element",
        "flops.py",
        "Cost(2 * elements * places, 2 * elements)",
        "Cost(elements * places, 2 * elements)",
        "test_flops.py::test_the_layers_without_weights",
    ),
    Mutant(
        "flops-batch-norm-with-its-buffers",
        "flops.py",
        "Cost(2 * elements * places, 2 * elements)",
        "Cost(2 * elements * places, 4 * elements)",
        "test_flops.py::test_the_layers_without_weights",
    ),
    Mutant(
        "flops-mean-without-its-division",
        "flops.py",
        "elements * places * window",
        "elements * places * (window - 1)",
        "test_flops.py::test_the_layers_without_weights",
    ),
    Mutant(
        "flops-empty-sums-cost-less-than-nothing",
        "flops.py",
        "(outs * _any(reads)).sum(axis=(-2, -1))",
        "outs.sum(axis=(-2, -1))",
        "test_flops.py::test_gates_on_the_inputs_of_groups",
    ),
    Mutant(
        "flops-an-empty-sum-by-its-likeliest-input",
        "flops.py",
        "(outs * _any(reads))",
        "(outs * reads.max(axis=-1))",
        "test_flops.py::test_the_expected_cost_where_gates_meet",
    ),
    Mutant(
        "flops-weight-gates-transposed",
        "flops.py",
        "within = np.swapaxes(within, -1, -2)[..., None]",
        "within = within[..., None]",
        "test_flops.py::test_hard_networks_against_a_count",
    ),
    Mutant(
        "flops-biases-of-closed-units-counted",
        "flops.py",
        "(outputs.sum(axis=-1) if has_bias else 0.0)",
        "(outputs.shape[-1] if has_bias else 0.0)",
        "test_flops.py::test_selected_maps_keep_their_gates",
    ),
    Mutant(
        "flops-hard-without-gates",
        "flops.py",
        "network_cost(network, network.open_gates())",
        "network_cost(network)",
        "test_flops.py::test_lenet_300_100_by_hand",
    ),
    Mutant(
        "flops-expected-at-the-test-time-gate",
        "flops.py",
        ".prob_active()",
        ".test_time()",
        "test_flops.py::test_a_weight_between_two_gates_costs_a_product",
    ),
    Mutant(
        "flops-expected-at-the-mean-gate",
        "flops.py",
        ".prob_active()",
        ".mean()",
        "test_flops.py::test_a_weight_between_two_gates_costs_a_product",
    ),
    Mutant(
        "flops-nan-is-a-probability",
        "flops.py",
        "if not ((value >= 0) & (value <= 1)).all():",
        "if ((value < 0) | (value > 1)).any():",
        "test_flops.py::test_a_probability_that_is_no_number",
    ),
    Mutant(
        "flops-places-of-the-input",
        "flops.py",
        "places = float(np.prod(y_shape[2:]))",
        "places = float(np.prod(x_shape[2:]))",
        "test_flops.py::test_counted_without_the_floor",
    ),
    Mutant(
        "flops-input-gates-by-group",
        "flops.py",
        "return np.tile(gate, groups)",
        "return np.repeat(gate, groups)",
        "test_flops.py::test_gates_on_the_inputs_of_groups",
    ),
    Mutant(
        "flops-only-the-first-reader",
        "flops.py",
        "read[source] = reads.either(read[source]) if source in read else reads",
        "read[source] = reads",
        "test_flops.py::test_one_reader_is_enough",
    ),
    Mutant(
        "flops-skip-not-read",
        "flops.py",
        "read[skip_at] = read[i].either(read[skip_at]) if skip_at in read else read[i]",
        "read[skip_at] = read.get(skip_at, read[i])",
        "test_flops.py::test_one_reader_is_enough",
    ),
    Mutant(
        "flops-all-groups-read-all",
        "flops.py",
        "terms = (outs.sum(axis=-1) * ins.sum(axis=-1) * taps).sum(axis=-1)",
        "terms = outs.sum(axis=(-2, -1)) * ins.sum(axis=(-2, -1)) * taps",
        "test_flops.py::test_counted_without_the_groups",
    ),
    Mutant(
        "flops-any-shape-of-on",
        "flops.py",
        "if value.shape != own + gates.shape or len(own) > 1:",
        "if len(own) > 1:",
        "test_flops.py::test_gates_that_do_not_fit",
    ),
    Mutant(
        "flops-pattern-an-element-a-parameter",
        "flops.py",
        'float(layer.params["table"].size)',
        "elements * places",
        "test_flops.py::test_patterns_of_a_wide_residual_network_add_to_the_compact_cost",
    ),
    Mutant(
        "flops-select-the-first",
        "flops.py",
        "on[..., layer.index] = read.on",
        "on[..., : len(layer.index)] = read.on",
        "test_flops.py::test_selected_maps_keep_their_gates",
    ),
    Mutant(
        "flops-select-carries-the-first",
        "flops.py",
        "signal.on[..., layer.index]",
        "signal.on[..., : len(layer.index)]",
        "test_flops.py::test_selected_maps_keep_their_gates",
    ),
    Mutant(
        "flops-closed-summand-carried",
        "flops.py",
        "signal = signal.either(skip)",
        "pass",
        "test_flops.py::test_hard_networks_against_a_count",
    ),
    Mutant(
        "flops-networks-counted-as-one",
        "flops.py",
        "np.array([np.count_nonzero(one) for one in many])",
        "np.array([np.count_nonzero(many) for one in many])",
        "test_flops.py::test_many_gates_a_weight",
    ),
    Mutant(
        "flops-weights-counted-whatever-is-around",
        "flops.py",
        "within.dtype == np.bool_ and ins.all() and outs.all()",
        "within.dtype == np.bool_",
        "test_flops.py::test_many_gates_a_weight",
    ),
    Mutant(
        "flops-sums-of-booleans-are-booleans",
        "flops.py",
        "within, ins, outs, dtype=np.float64)",
        "within, ins, outs)",
        "test_flops.py::test_many_gates_a_weight",
    ),
    Mutant(
        "flops-one-network-among-many",
        "flops.py",
        "if values and own != lead:",
        "if False:",
        "test_flops.py::test_as_many_networks_for_every_layer",
    ),
    Mutant(
        "drawn-flops-not-counted-before-a-checkpoint",
        "training.py",
        '"""Write a checkpoint, atomically."""\n        self._count_drawn()',
        '"""Write a checkpoint, atomically."""',
        "test_training.py::test_drawn_flops_in_a_checkpoint",
    ),
    Mutant(
        "drawn-flops-counted-twice",
        "training.py",
        ".sum()  # one for all without gates\n        self._n_drawn = 0",
        ".sum()  # one for all without gates",
        "test_training.py::test_drawn_flops_in_a_checkpoint",
    ),
    Mutant(
        "drawn-flops-of-the-whole-room",
        "training.py",
        "masks = [masks[: self._n_drawn] for",
        "masks = [masks for",
        "test_training.py::test_drawn_flops_in_a_checkpoint",
    ),
    Mutant(
        "drawn-flops-lost-where-there-is-no-room",
        "training.py",
        "for masks in self._drawn.values()):\n            self._count_drawn()",
        "for masks in self._drawn.values()):\n            self._n_drawn = 0",
        "test_training.py::test_it_does_not_matter_when_drawn_flops_are_counted",
    ),
    Mutant(
        "flops-gated-outputs-carry",
        "flops.py",
        "return _Signal(gate[i], frozenset({i}))\n        return _Signal(_all_on(layer",
        "return _Signal(np.ones_like(gate[i]))\n        return _Signal(_all_on(layer",
        "test_flops.py::test_selected_maps_keep_their_gates",
    ),
    # --- speed: the kernels' numbers ---
    Mutant(
        "philox-a-round-short",
        "noise.py",
        "ROUNDS = 10",
        "ROUNDS = 9",
        "test_noise.py::test_philox4x32_gives_the_published_answers",
    ),
    Mutant(
        "step-and-layer-swapped-in-the-counter",
        "noise.py",
        "return self.step % 2**32, self.step >> 32, self.layer + (self.stream << 24)",
        "return self.layer % 2**32, self.layer >> 32, self.step + (self.stream << 24)",
        "test_noise.py::test_uniform_is_philox_of_its_names",
    ),
    Mutant(
        "u-can-be-0",
        "noise.py",
        "(self.words() + 0.5) * 2.0**-32",
        "self.words() * 2.0**-32",
        "test_noise.py::test_uniform_is_philox_of_its_names",
    ),
    Mutant(
        "kernels-philox-with-one-key",
        "jit/noise.py",
        "            k0, k1 = (k0 + _STEP0) & _LOW, (k1 + _STEP1) & _LOW\n",
        "",
        "test_jit_gates.py::test_words_are_the_originals_bit_for_bit[shape3]",
    ),
    Mutant(
        "kernels-philox-with-a-key-of-33-bits",
        "jit/noise.py",
        "k0, k1 = (k0 + _STEP0) & _LOW, (k1 + _STEP1) & _LOW",
        "k0, k1 = k0 + _STEP0, k1 + _STEP1",
        "test_jit_gates.py::test_words_are_the_originals_bit_for_bit[shape3]",
    ),
    Mutant(
        "kernels-words-the-other-way-round",
        "jit/noise.py",
        "pairs[2 * i + 1] = w2 | (w3 << _HALF)",
        "pairs[2 * i + 1] = w3 | (w2 << _HALF)",
        "test_jit_gates.py::test_words_are_the_originals_bit_for_bit[shape4]",
    ),
    Mutant(
        "kernels-u-without-its-half",
        "jit/hard_concrete.py",
        "return number(noise) + half, number(np.uint32(noise ^ _ONES)) + half",
        "return number(noise), number(np.uint32(noise ^ _ONES))",
        "test_jit_gates.py::test_draws_are_the_originals[draw-law0-0.6666666666666666-float64]",
    ),
    Mutant(
        "kernels-u-rounded-to-1",
        "jit/hard_concrete.py",
        "    return number(noise) + half, number(np.uint32(noise ^ _ONES)) + half\n",
        "    u = (number(noise) + half) * number(2.0**-32)\n    return u, number(1) - u\n",
        "test_jit_gates.py::"
        "test_the_tails_of_the_noise_keep_their_digits[0.6666666666666666-float32]",
    ),
    Mutant(
        "kernels-log-of-the-odds-without-its-small-part",
        "jit/elementary.py",
        "return (x + whole * TOP_F) + (TWO_F * f + (TWO_F * f * tail + whole * REST_F))",
        "return (x + whole * TOP_F) + (TWO_F * f + TWO_F * f * tail)",
        "test_jit_elementary.py::test_what_it_is_added_to_may_cancel_it[float32]",
    ),
    Mutant(
        "kernels-r-for-r-sqrt-r",
        "jit/hard_concrete.py",
        "(r if m & 2 else one)",
        "(root if m & 2 else one)",
        "test_jit_gates.py::test_draws_are_the_originals[draw-law0-0.6666666666666666-float64]",
    ),
    Mutant(
        "kernels-slope-where-clipped",
        "jit/hard_concrete.py",
        "zero if below | above else steepness * s * (one - s)",
        "steepness * s * (one - s)",
        "test_jit_gates.py::test_draws_are_the_originals[draw-law0-0.6666666666666666-float64]",
    ),
    Mutant(
        "kernels-nan-is-a-closed-gate",
        "jit/hard_concrete.py",
        "z = zero if below else (one if above else s_bar)",
        "z = one if above else (s_bar if s_bar > zero else zero)",
        "test_jit_gates.py::test_nan_stays_and_infinity_decides[0.6666666666666666-float32]",
    ),
    Mutant(
        "kernels-penalty-without-lam",
        "jit/penalties.py",
        "out[i] = lam * (number(sizes[i]) * out[i])",
        "out[i] = number(sizes[i]) * out[i]",
        "test_jit_gates.py::test_the_kernels_run_as_plain_python",
    ),
    Mutant(
        "kernels-penalty-without-group-size",
        "jit/penalties.py",
        "out[i] = lam * (number(sizes[i]) * out[i])",
        "out[i] = lam * out[i]",
        "test_jit_gates.py::test_the_kernels_run_as_plain_python",
    ),
    Mutant(
        "kernels-penalty-without-the-one-size-of-all",
        "jit/penalties.py",
        "out[i] = lam * (number(common) * out[i])",
        "out[i] = lam * out[i]",
        "test_jit_gates.py::test_one_size_of_all_gates_is_as_many_equal_ones",
    ),
    Mutant(
        "kernels-gate-gradient-of-the-first-example",
        "jit/penalties.py",
        "if dz.shape[0] == 1:",
        "if dz.shape[0] > 0:",
        "test_jit_gates.py::test_the_kernels_run_as_plain_python",
    ),
    Mutant(
        "kernels-average-of-the-step-before",
        "jit/optimizers.py",
        "    for i in range(theta.shape[0]):\n"
        "        theta[i] -= lr * (m[i] / (np.sqrt(v[i]) + eps))\n"
        "    for i in range(theta.shape[0]):\n"
        "        average[i] = old * average[i] + new * theta[i]\n",
        "    for i in range(theta.shape[0]):\n"
        "        average[i] = old * average[i] + new * theta[i]\n"
        "    for i in range(theta.shape[0]):\n"
        "        theta[i] -= lr * (m[i] / (np.sqrt(v[i]) + eps))\n",
        "test_jit_optimizers.py::test_twenty_steps[float64]",
    ),
    Mutant(
        "kernels-rectified-without-its-mask",
        "jit/dense.py",
        "out[o] = pulled[o] * number(above[o] > 0)",
        "out[o] = pulled[o]",
        "test_jit_dense.py::test_the_rectifiers_kink[float64]",
    ),
    Mutant(
        "kernels-product-not-added-to-the-last",
        "jit/dense.py",
        "multiply(part, weight[start:stop, left:right], out, start > 0)",
        "multiply(part, weight[start:stop, left:right], out, False)",
        "test_jit_dense.py::test_products_in_many_pieces[inputs-dense]",
    ),
    Mutant(
        "rectifier-into-a-layer-that-something-else-reads",
        "conditional.py",
        "readers.count(j) == 1 for j in inside",
        "readers.count(j) >= 1 for j in inside",
        "test_conditional.py::test_what_else_reads_a_layer_meets_it_without_its_rectifier",
    ),
    Mutant(
        "kernels-gates-at-the-weights-learning-rate",
        "jit/optimizers.py",
        "lr = optimizer.gate_lr if kind[0] else optimizer.lr",
        "lr = optimizer.lr",
        "test_jit_optimizers.py::test_twenty_steps[float64]",
    ),
    Mutant(
        "kernels-cross-entropy-derivative-by-a-difference",
        "jit/cross_entropy.py",
        "d[label] = -rest",
        "d[label] -= 1.0 / n",
        "test_jit_cross_entropy.py::test_a_label_that_is_all_but_certain_keeps_its_digits",
    ),
    Mutant(
        "kernels-block-feels-0",
        "jit/conv_block.py",
        "place[p] = mine if value > old else other",
        "place[p] = mine if value > old or (value == 0 and other == NONE) else other",
        "test_jit_conv.py::test_without_compiling",
    ),
    Mutant(
        "kernels-block-tie-to-the-last",
        "jit/conv_block.py",
        "place[p] = mine if value > old else other",
        "place[p] = mine if value >= old and value > 0 else other",
        "test_jit_conv.py::test_without_compiling",
    ),
    Mutant(
        "kernels-block-winner-off-by-a-column",
        "jit/conv_block.py",
        "np.arange(w_out), s_h * line, s_w * c_in)",
        "np.arange(w_out), s_h * line, s_w)",
        "test_jit_conv.py::test_without_compiling",
    ),
    Mutant(
        "kernels-block-vectors-overhang-into-the-next-row",
        "jit/conv_block.py",
        "stride = block * windows + lanes",
        "stride = block * windows",
        "test_jit_conv.py::test_without_dx[conv_relu_pool]",
    ),
    Mutant(
        "kernels-block-winners-of-the-example-before",
        "jit/conv_block.py",
        "            counts[own] = 0\n",
        "            pass\n",
        "test_jit_conv.py::test_the_block_to_the_last_digits[float32-True-map]",
    ),
    Mutant(
        "kernels-tile-first-map-for-all",
        "jit/_tiles.py",
        "_read(builder, w, builder.mul(k, INDEX(MAPS)), m)",
        "_read(builder, w, builder.mul(k, INDEX(MAPS)), 0)",
        "test_jit_conv.py::test_tiles_are_the_sums_that_they_say[float32-multiply-6]",
    ),
    Mutant(
        "sparse-without-the-last-weights",
        "jit/sparse.py",
        "            while k < end:\n",
        "            while k + 3 < end:\n",
        "test_sparse.py::test_it_is_the_whole_product[3-5-2-float64-numba]",
    ),
    Mutant(
        "sparse-with-a-weight-of-the-next-unit",
        "jit/sparse.py",
        "while k + 3 < end:",
        "while k + 3 <= end:",
        "test_sparse.py::test_it_is_the_whole_product[257-7-11-float64-numba]",
    ),
    Mutant(
        "product-without-the-panels-before-the-last",
        "jit/matmul.py",
        "sums, at, first == 0)",
        "sums, at, True)",
        "test_jit_matmul.py::test_whole_numbers_are_exact[float64]",
    ),
    Mutant(
        "product-of-columns-side-by-side",
        "jit/matmul.py",
        "wide, together = n + n, _side_by_side(columns)",
        "wide, together = n + n, True",
        "test_jit_matmul.py::test_it_is_the_original[shape7-c-float64]",
    ),
    Mutant(
        "product-whose-panels-are-all-the-first",
        "jit/matmul.py",
        "here = start + columns[0]\n        if together and here",
        "here = start\n        if together and here",
        "test_jit_matmul.py::test_it_is_the_original[shape7-z-float64]",
    ),
    Mutant(
        "product-whose-gates-gradient-is-of-one-panel",
        "jit/matmul.py",
        "    for block in range(1, dots.shape[0]):\n"
        "        for i in range(m):\n"
        "            dots[0, i] += dots[block, i]\n",
        "",
        "test_jit_matmul.py::test_it_is_the_original[shape7-z-float64]",
    ),
    Mutant(
        "unpacked-without-its-zeros",
        "jit/pack.py",
        "            for k in range(there.shape[0]):\n                there[k] = 0\n",
        "            pass\n",
        "test_jit_pack.py::test_zeros_are_written_whatever_memory_held",
    ),
    # --- speed: what closed gates leave out ---
    Mutant(
        "packing-closed-maps-stay-0-in-batch-norm",
        "conditional.py",
        'may be other than 0."""\n        if isinstance(layer, _PASSING):',
        'may be other than 0."""\n        if isinstance(layer, _PASSING) or layer.buffers:',
        "test_conditional.py::test_batch_norm_makes_something_of_a_closed_map",
    ),
    Mutant(
        "closed-after-low-epochs-that-are-not-in-a-row",
        "training.py",
        "np.where(low, self._low.get(i, 0) + 1, 0)",
        "self._low.get(i, 0) + low",
        "test_training.py::test_low_epochs_count_in_a_row_only",
    ),
    Mutant(
        "packing-take-and-place-swapped",
        "conditional.py",
        "return cls(take, place, int",
        "return cls(place, take, int",
        "test_conditional.py::test_a_layer_that_its_own_input_is_added_to",
    ),
    Mutant(
        "packing-gradients-put-side-by-side",
        "conditional.py",
        "spread[..., mask] = values",
        "spread[..., : values.shape[-1]] = values",
        "test_conditional.py::test_a_layer_that_its_own_input_is_added_to",
    ),
    Mutant(
        "packing-a-bias-that-is-on-is-0",
        "conditional.py",
        "if gates.axis == layer.output_axis and (gates.gates_bias or no_bias):",
        "if gates.axis == layer.output_axis:",
        "test_conditional.py::test_logits_behind_closed_gates[False]",
    ),
    Mutant(
        "packing-with-the-first-gates",
        "conditional.py",
        "z[..., mask], gates.on",
        "z[..., : mask.sum()], gates.on",
        "test_conditional.py::test_a_layer_that_its_own_input_is_added_to",
    ),
    Mutant(
        "packing-with-the-first-units-dropout",
        "conditional.py",
        "u = np.asarray(u)[:, self.packing.taken[i]]",
        "u = np.asarray(u)[:, : x.shape[1]]",
        "test_conditional.py::test_whole_architectures[lenet-5, example]",
    ),
    # --- speed: backends, threads, gates that are closed for good ---
    Mutant(
        "errors-of-twins-swallowed",
        "jit/_registry.py",
        "except NotForKernel:",
        "except (NotForKernel, ValueError):",
        "test_jit_dense.py::test_odd_cotangents_get_the_originals_answer_or_error[shape-plain]",
    ),
    Mutant(
        "blas-keeps-one-thread",
        "jit/threads.py",
        '        with _controller().limit(limits=1, user_api="blas"):\n            yield\n',
        '        _controller().limit(limits=1, user_api="blas")\n        yield\n',
        "test_jit_runtime.py::test_blas_has_one_thread_inside_and_its_own_number_after",
    ),
    Mutant(
        "parallel-and-serial-under-one-name",
        "jit/_compile.py",
        "{function.__qualname__}_{purpose}_{_fingerprint()}",
        "{function.__qualname__}_{_fingerprint()}",
        "test_jit_runtime.py::test_the_parallel_and_the_serial_version_are_kept_apart",
    ),
    Mutant(
        "drawn-flops-not-counted-at-the-epochs-end",
        "training.py",
        "network = self.evaluated()\n        self._count_drawn()",
        "network = self.evaluated()",
        "test_training.py::test_it_does_not_matter_when_drawn_flops_are_counted",
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
