r"""One pool of threads at a time.

BLAS has a pool of threads of its own, Numba another, and the threads of each wait for work by
spinning, on the cores that the other needs: side by side they are many times slower than either
alone. So while a step runs on kernels, BLAS works on one thread, and the kernels share a matrix
product out themselves, as one BLAS call for each block. `one_blas_thread` holds any BLAS to that
(OpenBLAS, MKL, BLIS) and gives back what was set before.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

import numba
import numpy as np
from threadpoolctl import ThreadpoolController

_held = threading.Lock()  # by whoever holds BLAS to one thread


@functools.cache
def _controller() -> ThreadpoolController:
    import scipy.linalg.cython_blas  # noqa: F401  # what np.dot means inside a kernel

    return ThreadpoolController()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS to one thread; inside another use, be it of another thread, do nothing.

    `threadpoolctl` lets none but the thread that took BLAS's threads give them back. Others that
    are inside when it does have them back too early, which costs time and may cost last bits.
    """
    if not _held.acquire(blocking=False):
        yield
        return
    try:
        with _controller().limit(limits=1, user_api="blas"):
            yield
    finally:
        _held.release()


def set_num_threads(n: int) -> None:
    """Run kernels on n threads; the numbers that they give do not depend on it.

    Raises
    ------
    ValueError
        If n is below 1 or above what Numba has: the cores, or NUMBA_NUM_THREADS.
    """
    most = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= most:
        raise ValueError(f"threads must be an integer from 1 to {most}, got {n!r}")
    numba.set_num_threads(int(n))


def get_num_threads() -> int:
    """Return how many threads kernels run on."""
    return int(numba.get_num_threads())
