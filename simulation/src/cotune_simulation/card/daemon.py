"""Serves one card on a Unix socket; the protocol is described in `cotune_simulation.card`."""

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TypeVar, cast

from cotune_simulation.card.ledger import MemoryLedger, OutOfMemoryError
from cotune_simulation.card.mps import ConcurrentProcessor
from cotune_simulation.card.products import CardProduct
from cotune_simulation.card.timeslicing import Job, TimeSlicedProcessor
from cotune_simulation.card.utilisation import UtilisationSampler
from cotune_simulation.figures import MIB, Entry

Number = TypeVar("Number", int, float)

SETTLING_SECONDS = 0.5
"""After its start the daemon answers no allocation for so long: processes of its predecessor's time come back first."""


class CardDaemon:
    """One card, its clients and its clock."""

    def __init__(
        self, product: CardProduct, uuid: str, settling_seconds: float = SETTLING_SECONDS, mps_replicas: int = 0
    ) -> None:
        now = time.monotonic()
        self._mps_replicas = mps_replicas
        # As NVIDIA's device plugin sets it: whole MiB of what NVML counts.
        limit = product.memory_bytes // mps_replicas // MIB * MIB if mps_replicas else None
        self._product = product
        self._uuid = uuid
        self._ledger = MemoryLedger(product.memory_bytes, product.idle_used_bytes, limit)
        self._sampler = UtilisationSampler()
        self._processor = (
            ConcurrentProcessor(now, self._record_busy)
            if mps_replicas
            else TimeSlicedProcessor(product.time_slice_seconds, now, self._record_busy)
        )
        self._settled_at = now + settling_seconds
        self._epoch_offset = time.time() - now
        self._numbers = count(1)
        self._throttle_reasons = 0
        self._xids: list[int] = []
        self._uncorrected_errors = 0
        self._pids: dict[int, int] = {}
        self._waiting: dict[Job, asyncio.Future[None]] = {}
        self._wake_up: asyncio.TimerHandle | None = None

    async def serve(self, path: Path, ready: Callable[[], None] = lambda: None) -> None:
        """Listen on `path`, in place of whatever listened there, until cancelled; `ready` is called once it does."""
        beginning = path.with_name(f".{path.name}.{os.getpid()}")
        beginning.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._connected, beginning)
        beginning.chmod(0o666)
        beginning.rename(path)
        ready()
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = next(self._numbers)
        self._pids[client] = _peer_pid(writer)
        self._ledger.open(client, self._pids[client])
        runs: set[asyncio.Task[None]] = set()
        try:
            while line := await reader.readline():
                request, reply = await self._answer(client, line)
                if isinstance(reply, Job):
                    run = asyncio.create_task(self._answer_at_end(writer, request, reply))
                    runs.add(run)
                    run.add_done_callback(runs.discard)
                else:
                    _send(writer, request, reply)
                    await writer.drain()
        except (ConnectionError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self._advance()
            self._processor.remove(client)
            self._ledger.close(client)
            for run in runs:
                run.cancel()
            writer.close()
            self._schedule()

    async def _answer(self, client: int, line: bytes) -> tuple[object, dict[str, object] | Job]:
        identity: object = None
        try:
            values: object = json.loads(line)
            request = Entry(values)
            identity = cast("dict[str, object]", values).get("id")
            if request.text("op") == "allocate":
                await asyncio.sleep(max(0.0, self._settled_at - time.monotonic()))
            return identity, self._carry_out(client, request)
        except OutOfMemoryError as error:
            return identity, {"error": "out_of_memory", "free": error.free_bytes, "total": error.total_bytes}
        except (KeyError, TypeError, ValueError) as error:
            return identity, {"error": "bad_request", "reason": repr(error)}

    def _carry_out(self, client: int, request: Entry) -> dict[str, object] | Job:
        match request.text("op"):
            case "describe":
                return self._description()
            case "read":
                return self._reading()
            case "memory":
                return {"free": self._ledger.free_for(client), "held": self._ledger.held_bytes(client)}
            case "allocate":
                return {"allocation": self._ledger.allocate(client, _not_negative(request.integer("bytes")))}
            case "restore":
                return {"allocation": self._ledger.restore(client, _not_negative(request.integer("bytes")))}
            case "free":
                self._ledger.free(client, request.integer("allocation"))
                return {}
            case "throttle":
                self._throttle_reasons = _not_negative(request.integer("reasons"))
                return {}
            case "fail":
                self._fail(_not_negative(request.integer("xid")), _not_negative(request.integer("uncorrected")))
                return {}
            case "run":
                return self._start(client, request)
            case operation:
                raise ValueError(f"no operation {operation}")

    def _fail(self, xid: int, uncorrected: int) -> None:
        if uncorrected and not self._product.has_ecc:
            raise ValueError(f"{self._product.product} has no error-correcting memory")
        self._uncorrected_errors += uncorrected
        if xid:
            self._xids.append(xid)

    def _start(self, client: int, request: Entry) -> Job:
        self._advance()
        job = self._processor.submit(
            time.monotonic(),
            client,
            kernel_seconds=_not_negative(request.number("kernel_ms")) / 1000,
            launches=max(1, request.integer("launches")),
            gap_seconds=_not_negative(request.number("gap_ms")) / 1000,
        )
        self._waiting[job] = asyncio.get_running_loop().create_future()
        self._schedule()
        return job

    async def _answer_at_end(self, writer: asyncio.StreamWriter, request: object, job: Job) -> None:
        try:
            await self._waiting[job]
            _send(writer, request, {})
        finally:
            del self._waiting[job]

    def _advance(self) -> None:
        for job in self._processor.advance(time.monotonic()):
            self._waiting[job].set_result(None)

    def _schedule(self) -> None:
        if self._wake_up:
            self._wake_up.cancel()
            self._wake_up = None
        if (end := self._processor.next_end()) is not None:
            self._wake_up = asyncio.get_running_loop().call_at(end, self._woken)

    def _woken(self) -> None:
        self._advance()
        self._schedule()

    def _record_busy(self, client: int, start: float, end: float) -> None:
        self._sampler.add(self._pids[client], start, end)

    def _description(self) -> dict[str, object]:
        product = self._product
        return {
            "simulation": True,
            "product": product.product,
            "uuid": self._uuid,
            "torch_total": product.torch_total_bytes,
            "context": product.context_bytes,
        }

    def _reading(self) -> dict[str, object]:
        self._advance()
        now = time.monotonic()
        product = self._product
        percent = self._sampler.percent(now)
        samples = self._sampler.process_samples(now)
        held = self._ledger.by_pid()
        load = percent / 100
        return {
            "name": product.name,
            "uuid": self._uuid,
            "driver_version": product.driver_version,
            "cuda_version": product.cuda_version[0] * 1000 + product.cuda_version[1] * 10,
            "compute_major": product.compute_capability[0],
            "compute_minor": product.compute_capability[1],
            "memory_total": product.memory_bytes,
            "memory_reserved": product.idle_used_bytes,
            "memory_allocated": self._ledger.allocated_bytes,
            "memory_free": self._ledger.free_bytes,
            "utilization_gpu": percent,
            # Modelled: kernels read or write memory in half of their time.
            "utilization_memory": percent // 2,
            "clock_graphics": product.graphics_clock_mhz,
            # Modelled: a throttled card runs at half of its clock; kernels take as long as ever.
            "clock_sm": product.sm_clock_mhz // 2 if self._throttle_reasons else product.sm_clock_mhz,
            # NVML's bit 0: it has nothing to do.
            "clock_event_reasons": self._throttle_reasons | (0 if percent else 1),
            "clock_memory": product.memory_clock_mhz,
            "clock_video": product.video_clock_mhz,
            "power": round(product.idle_milliwatts + load * (product.busy_milliwatts - product.idle_milliwatts)),
            "power_limit": product.limit_milliwatts,
            "temperature": round(product.idle_celsius + load * (product.busy_celsius - product.idle_celsius)),
            "has_ecc": int(self._product.has_ecc),
            "ecc_uncorrected": self._uncorrected_errors,
            "xids": self._xids,
            "process_pids": list(held),
            "process_bytes": list(held.values()),
            # The server of MPS, which NVML shows as a process of its own, is not simulated.
            "mps_pids": list(held) if self._mps_replicas else [],
            "mps_bytes": list(held.values()) if self._mps_replicas else [],
            "sample_microseconds": [int((sample.ended_at + self._epoch_offset) * 1e6) for sample in samples],
            "sample_pids": [sample.pid for sample in samples],
            "sample_percents": [sample.percent for sample in samples],
        }


def _peer_pid(writer: asyncio.StreamWriter) -> int:
    connection = cast("socket.socket", writer.get_extra_info("socket"))
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[0]


def _send(writer: asyncio.StreamWriter, request: object, reply: dict[str, object]) -> None:
    writer.write(json.dumps({"id": request, **reply}).encode() + b"\n")


def _not_negative(value: Number) -> Number:
    if value < 0:
        raise ValueError(f"negative: {value}")
    return value
