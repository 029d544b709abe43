"""Matrices in 8 bits with a scale for every row, for weights that must travel in little room."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127


def rounded(values: "NDArray[Any]") -> "tuple[NDArray[np.int8], NDArray[np.float16]]":
    """The rounded rows, in the shape of `values`, and the scale of each; the first axis counts rows.

    Rows whose values differ in size by more than a hundred lose the small ones: half a scale is lost at most.
    """
    rows = values.astype(np.float32).reshape(len(values), -1)
    scales = np.maximum(np.abs(rows).max(axis=1) / _LARGEST, 1e-7).astype(np.float16)
    # Of the scale as it is kept, so that rounding it costs nothing.
    whole = np.rint(rows / scales.astype(np.float32)[:, None]).clip(-_LARGEST, _LARGEST)
    return whole.astype(np.int8).reshape(values.shape), scales


def restored(whole: "NDArray[np.int8]", scales: "NDArray[np.float16]") -> "NDArray[np.float16]":
    """The inverse of `rounded`, as far as it has one."""
    factors = scales.astype(np.float32).reshape(-1, *(1 for _ in whole.shape[1:]))
    restored: NDArray[np.float16] = (whole.astype(np.float32) * factors).astype(np.float16)
    return restored
