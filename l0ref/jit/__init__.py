r"""Numba twins of what is hot: the same functions, the same numbers, faster.

Each file has the name of the NumPy original's, each function its name and signature; `TWINS` maps
every original to its twin. The originals explain; here is only what makes it fast. Importing this
package imports Numba, and nothing of `l0ref` does so before the backend ``"numba"`` is asked for.
"""

from . import (
    conv,
    conv_block,
    cross_entropy,
    dense,
    dense_block,
    examples,
    flatten,
    hard_concrete,
    matmul,
    noise,
    norm,
    optimizers,
    pack,
    penalties,
    pool,
    relu,
    sparse,
)
from ._compile import on_compilation
from ._registry import TWINS
from .threads import get_num_threads, one_blas_thread, set_num_threads

__all__ = ["TWINS", "get_num_threads", "on_compilation", "one_blas_thread", "set_num_threads"]
