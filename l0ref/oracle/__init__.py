"""The oracle: what other implementations of L0 hard concrete gates are held against."""
