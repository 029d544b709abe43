"""The search for the largest allocation, against a driver that gives and takes like CUDA's."""

import asyncio
import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest
from cotune.measurement.largest_allocation import (
    CudaAllocator,
    CudaError,
    largest_allocation,
    measure_largest_allocation,
)
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20


class FakeCuda:
    """`libcuda.so.1` in this process: a card with so much free and a limit on one allocation."""

    def __init__(self, free: int, limit: int | None = None, failing: "dict[str, int] | None" = None) -> None:
        self.free, self.limit, self.failing = free, limit if limit is not None else free, failing or {}
        self.held: dict[int, int] = {}
        self.largest_held = 0

    def _answer(self, name: str) -> int:
        return self.failing.get(name, 0)

    def cuInit(self, flags: int) -> int:
        return self._answer("cuInit")

    def cuDeviceGet(self, device: Any, index: int) -> int:
        return self._answer("cuDeviceGet")

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        return self._answer("cuDevicePrimaryCtxRetain")

    def cuCtxSetCurrent(self, context: Any) -> int:
        return self._answer("cuCtxSetCurrent")

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        free._obj.value, total._obj.value = self.free, self.free + 1
        return self._answer("cuMemGetInfo_v2")

    def cuMemAlloc_v2(self, address: Any, size: ctypes.c_size_t) -> int:
        if (failed := self._answer("cuMemAlloc_v2")) != 0:
            return failed
        if size.value > min(self.limit, self.free - sum(self.held.values())):
            return 2
        address._obj.value = 1 + len(self.held)
        self.held[address._obj.value] = size.value
        self.largest_held = max(self.largest_held, size.value)
        return 0

    def cuMemFree_v2(self, address: ctypes.c_uint64) -> int:
        del self.held[address.value]
        return self._answer("cuMemFree_v2")


@given(free=st.integers(0, 1 << 38), limit=st.integers(0, 1 << 38))
def test_the_largest_page_that_is_given_is_found_and_nothing_is_kept(free: int, limit: int) -> None:
    cuda = FakeCuda(free, limit)

    found = largest_allocation(CudaAllocator(cuda))

    assert found == min(free, limit) // (2 * MIB) * (2 * MIB) == cuda.largest_held
    assert cuda.held == {}


@pytest.mark.parametrize("name", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuMemGetInfo_v2"])
def test_a_driver_that_fails_is_an_error_with_the_calls_name(name: str) -> None:
    with pytest.raises(CudaError, match=f"{name} failed with 100"):
        largest_allocation(CudaAllocator(FakeCuda(1 << 30, failing={name: 100})))


def test_an_error_that_is_not_want_of_memory_is_not_taken_for_it() -> None:
    with pytest.raises(CudaError, match="cuMemAlloc failed with 700"):
        largest_allocation(CudaAllocator(FakeCuda(1 << 30, failing={"cuMemAlloc_v2": 700})))


def test_without_a_driver_it_is_not_known_and_the_reason_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "operator" / "src"))

    found = asyncio.run(measure_largest_allocation())

    assert found[0] is None
    assert "no CUDA driver" in found[1]


def test_its_process_says_the_figure() -> None:
    assert asyncio.run(measure_largest_allocation((sys.executable, "-c", "print(1234.0)"))) == (1234.0, "")
    silent = (sys.executable, "-c", "raise SystemExit(3)")
    assert asyncio.run(measure_largest_allocation(silent)) == (None, "exit code 3")
