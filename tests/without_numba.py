"""Programs in which the kernels run as plain Python."""

import os
import subprocess
import sys


def run_without_numba(source: str) -> str:
    """Run a program with NUMBA_DISABLE_JIT, with which one debugs; return what it printed."""
    ran = subprocess.run(
        [sys.executable, "-c", source],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()
