"""The benchmark against PyTorch and JAX: `python -m tests.bench --help`.

One process for each contender, all pinned to the same cores; the parent asks them in turn to time a
few repetitions, and the others sleep meanwhile.
"""
