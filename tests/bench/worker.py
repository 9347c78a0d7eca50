"""One contender in a process of its own: does what the parent asks for, a line of JSON at a time.

`python -m tests.bench.worker CONTENDER THREADS`. Nothing is imported before the process is pinned:
most libraries count the cores they may use once, on import.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTENDERS = ("l0ref", "numpy", "floor", "torch", "jax")


def memory(field: str) -> float:
    """VmRSS or VmHWM (its peak) of this process, in MB; elsewhere than on Linux ru_maxrss."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Let the peak begin anew, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


LR = 1e-3  # Adam's own, and everybody's unless a run asks for another


def change_torch(step: Any, lam: list[float], lr: float, gate_lr: float) -> None:
    """Give a step of PyTorch a lambda for each layer, and learning rates."""
    import torch

    from l0ref.bench import LAM

    net, (group,) = step.net, step.optimizer.param_groups
    net.group_size *= torch.repeat_interleave(torch.tensor(lam) / LAM, torch.tensor(net.counts))
    group["params"] = [p for p in group["params"] if p is not net.log_alpha]
    group["lr"] = lr
    step.optimizer.add_param_group({"params": [net.log_alpha], "lr": gate_lr})


class Worker:
    def __init__(self, name: str, threads: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            if threads > len(cores):
                raise ValueError(f"threads must be at most the {len(cores)} cores, got {threads}")
            os.sched_setaffinity(0, cores[:threads])
        from threadpoolctl import threadpool_limits

        from l0ref import bench

        self.bench, self.name = bench, name
        self.peer: Any = None
        if name == "torch":
            from tests.peers import models_torch

            self.peer = models_torch
            models_torch.set_threads(threads)
        elif name == "jax":
            from tests.peers import models_jax

            self.peer = models_jax
        elif name == "l0ref":
            from l0ref import jit

            jit.set_num_threads(threads)
        if name != "torch":  # has set its own
            self.limits = threadpool_limits(threads)
        self.data = bench.bench_data()
        self.ready: dict[str, Any] = {}

    def workload(self, fields: dict[str, Any]) -> Any:
        tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return self.bench.Workload(**tuples)

    def make(self, workload: Any, variant: str) -> Any:
        if self.peer is not None:
            peer = self.peer.make(workload, 0, variant=variant)
            if workload.kind == "step":
                peer.load(self.data.x_train, self.data.y_train)
            return peer
        if self.name == "floor":
            return (self.bench.copy if variant == "copy" else self.bench.floor)(workload)
        backend = "numpy" if self.name == "numpy" else "numba"
        return self.bench.contender(workload, backend=backend, data=self.data)

    # --- what can be asked for ---

    def about(self) -> dict[str, Any]:
        return self.peer.about() if self.peer is not None else {}

    def variants(self, workload: dict[str, Any]) -> list[str]:
        """What this contender has for a workload; none, and it does not take part."""
        asked = self.workload(workload)
        if self.peer is not None:
            return self.peer.variants(asked) if asked.kind != "product" else []
        if self.name == "floor":
            ways = {"floor": self.bench.floor(asked), "copy": self.bench.copy(asked)}
            return [name for name, way in ways.items() if way is not None]
        return [""]

    def prepare(self, key: str, workload: dict[str, Any], variant: str, seconds: float) -> int:
        """Make a contender, warm it up, and return how many repetitions take about `seconds`."""
        self.ready[key] = self.make(self.workload(workload), variant)
        return self.bench.calibrate(self.ready[key], seconds)

    def time(self, key: str, count: int) -> float:
        return self.bench.repeat(self.ready[key], count)

    def clear(self) -> None:
        self.ready.clear()
        gc.collect()

    def memory(self, workload: dict[str, Any], variant: str, steps: int) -> dict[str, float]:
        """MB above what there is after the imports: at worst, and at worst once all is warm."""
        gc.collect()
        forget_peak()
        before = memory("VmRSS")
        contender = self.make(self.workload(workload), variant)
        for _ in range(3):
            contender()
        peak = memory("VmHWM")
        forget_peak()
        for _ in range(steps):
            contender()
        warm = memory("VmHWM")
        return {"before": before, "growth": max(peak, warm) - before, "warm": warm - before}

    # --- a whole run ---

    def begin(
        self,
        workload: dict[str, Any],
        variant: str,
        lam: list[float],
        lr: float,
        gate_lr: float,
    ) -> None:
        """All contenders start from the same weights and gates, and train alike."""
        asked = self.workload(workload)
        backend = "numpy" if self.name == "numpy" else "numba"
        settings = dataclasses.replace(
            self.bench.settings_of(asked, backend=backend), lam=tuple(lam), lr=lr, gate_lr=gate_lr
        )
        trainer = self.bench.Trainer(settings, self.data)
        self.network = dataclasses.replace(settings, backend="numpy").network(self.data)
        self.steps = trainer.steps_per_epoch
        if self.peer is None:
            self.run = self.bench.Steps(trainer)
            return
        self.run = self.make(asked, variant)
        self.run.set_params([layer.params for _, layer in self.network.weighted])
        every_lam = list(lam) * (len(self.network.gated) if len(lam) == 1 else 1)
        if self.name == "torch":
            change_torch(self.run, every_lam, lr, gate_lr)
        elif (set(every_lam), lr, gate_lr) != ({self.bench.LAM}, LR, LR):
            raise ValueError(
                f"{self.name} takes part only in a run of lambda 0.1 and Adam's own lr"
            )

    def epoch(self) -> float:
        """Seconds of one epoch; a few digits are tested at the end of ours, as it always does."""
        with getattr(self.run, "within", contextlib.nullcontext)():
            start = self.bench.time.perf_counter()
            for _ in range(self.steps):
                self.run()
            if hasattr(self.run, "wait"):
                self.run.wait()
            return self.bench.time.perf_counter() - start

    def evaluate(self) -> dict[str, Any]:
        """Test error and open gates of the averaged parameters, by the reference, for everybody."""
        from l0ref.datasets import load_mnist_sample
        from l0ref.training import error_percent

        if self.peer is not None:
            for (_, layer), own in zip(self.network.weighted, self.run.get_average(), strict=True):
                for name, value in own.items():
                    layer.params[name][...] = value
        else:
            for name, value in self.run.trainer.averaged().params.items():
                self.network.params[name][...] = value
        data = load_mnist_sample()
        x = data.x_test.reshape(-1, *self.network.input_shape)
        return {
            "test_error": error_percent(self.network.predict(x), data.y_test),
            "open": [int(mask.sum()) for mask in self.network.open_gates()],
        }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    name, threads = sys.argv[1], int(sys.argv[2])
    worker: Worker | None = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if worker is None:
                worker = Worker(name, threads)
            ask: Callable[..., Any] = getattr(worker, question.pop("ask"))
            answer = {"answer": ask(**question)}
        except Exception:  # the parent decides what a failure of a contender means
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
