"""The process that keeps an instance's processes running.

It starts each one when what it waits for is ready, starts it again when it ends, and writes what it knows to the state
folder. It is stopped like everything else of the instance: by ending its control group.
"""

import argparse
import asyncio
import json
import os
from asyncio.subprocess import DEVNULL, STDOUT, Process, create_subprocess_exec
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from localcluster.cgroups import InstanceGroup
from localcluster.locations import Instance
from localcluster.namespaces import enter_network
from localcluster.processes import Place, ProcessSpec, Programs, cluster_processes, view_name
from localcluster.readiness import Exists, passes
from localcluster.topology import Topology

_CHECK_INTERVAL_SECONDS = 0.05
_RESTART_DELAY_SECONDS = 1.0
_CHECK_THREADS = 4
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessState(StrEnum):
    """Where a supervised process stands."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    ENDED = "ended"


@dataclass
class ProcessRecord:
    """What is known of one process."""

    state: ProcessState = ProcessState.WAITING
    pid: int | None = None
    restarts: int = 0
    exit_code: int | None = None
    """Of the previous run; negative for a signal."""


def read_records(instance: Instance) -> dict[str, ProcessRecord]:
    """What the supervisor last wrote; empty before its first word."""
    try:
        documents = json.loads(instance.processes.read_text())
    except FileNotFoundError:
        return {}
    return {
        name: ProcessRecord(ProcessState(fields["state"]), fields["pid"], fields["restarts"], fields["exit_code"])
        for name, fields in documents.items()
    }


@dataclass(frozen=True)
class Identity:
    """A process that is still the same one: ids are used again, ids with a start time are not."""

    pid: int
    started: int
    """Clock ticks after boot."""

    @classmethod
    def of(cls, pid: int) -> "Identity":
        """The identity of a running process.

        :raises ProcessLookupError: no process has this id, or it has ended and only waits for its parent to notice.
        """
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError as error:
            raise ProcessLookupError(pid) from error
        # The second field, the command's name in parentheses, may contain spaces. The state follows; the start time is
        # the 22nd.
        fields = text.rpartition(")")[2].split()
        if fields[0] == "Z":
            raise ProcessLookupError(pid)
        return cls(pid, int(fields[19]))

    def is_running(self) -> bool:
        """Whether the process still exists."""
        try:
            return Identity.of(self.pid) == self
        except ProcessLookupError:
            return False


def supervisor_is_running(instance: Instance) -> bool:
    """Whether the supervisor that wrote the state folder is alive."""
    try:
        return Identity(**json.loads(instance.supervisor.read_text())).is_running()
    except (FileNotFoundError, json.JSONDecodeError):
        return False


class Supervisor:
    """Runs process specifications and records their states."""

    def __init__(self, instance: Instance, specs: Iterable[ProcessSpec]) -> None:
        self._instance = instance
        self._specs = tuple(specs)
        self._records = {spec.name: ProcessRecord() for spec in self._specs}
        self._ready = {spec.name: asyncio.Event() for spec in self._specs}
        self._checks = ThreadPoolExecutor(_CHECK_THREADS, initializer=enter_network, initargs=(instance.network,))

    async def run(self) -> None:
        """Keep everything running until the process is ended."""
        self._publish()
        async with asyncio.TaskGroup() as tasks:
            for spec in self._specs:
                tasks.create_task(self._keep(spec))

    async def _keep(self, spec: ProcessSpec) -> None:
        for name in spec.after:
            await self._ready[name].wait()
        record = self._records[spec.name]
        while True:
            process = await self._start(spec)
            record.pid, record.state = process.pid, ProcessState.STARTING
            self._publish()
            checking = asyncio.create_task(self._await_ready(spec))
            record.exit_code = await process.wait()
            checking.cancel()
            record.pid, record.state = None, ProcessState.ENDED
            record.restarts += 1
            self._publish()
            await asyncio.sleep(_RESTART_DELAY_SECONDS)

    async def _start(self, spec: ProcessSpec) -> Process:
        if isinstance(spec.ready, Exists):
            spec.ready.path.unlink(missing_ok=True)
        with (self._instance.logs / f"{spec.name}.log").open("ab") as log:
            return await create_subprocess_exec(
                *self._enter(spec.place),
                *spec.argv,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                cwd="/",
                env={"PATH": _PATH, "HOME": "/root", **spec.environment},
                pass_fds=spec.inherited,
                start_new_session=True,
            )

    def _enter(self, place: Place) -> list[str]:
        """The command that executes another one in its namespaces; its process id stays the same."""
        if place.node is not None:
            view = self._records[view_name(place.node)].pid
            return ["nsenter", f"--target={view}", "--mount", "--net", "--"]
        if place.cluster_network:
            return ["nsenter", f"--net={self._instance.network}", "--"]
        return []

    async def _await_ready(self, spec: ProcessSpec) -> None:
        loop = asyncio.get_running_loop()
        while not await loop.run_in_executor(self._checks, passes, spec.ready):
            await asyncio.sleep(_CHECK_INTERVAL_SECONDS)
        self._records[spec.name].state = ProcessState.READY
        self._ready[spec.name].set()
        self._publish()

    def _publish(self) -> None:
        """Write the records in one step, so that readers never see half of them."""
        unfinished = self._instance.processes.with_suffix(".new")
        unfinished.write_text(json.dumps({name: asdict(record) for name, record in self._records.items()}))
        unfinished.replace(self._instance.processes)


def main() -> None:
    """Entry point of the supervisor process."""
    parser = argparse.ArgumentParser(prog="localcluster.supervisor")
    parser.add_argument("--name", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--api-socket", type=int, required=True)
    parser.add_argument("--kubernetes", type=Path, required=True)
    parser.add_argument("--api", type=Path, required=True)
    parser.add_argument("--containerd", type=Path, required=True)
    parser.add_argument("--coredns", type=Path, required=True)
    parser.add_argument("--layers", type=Path, required=True)
    arguments = parser.parse_args()
    instance = Instance(arguments.name, arguments.root)
    InstanceGroup(instance.cgroup).join()
    topology = Topology.from_json(instance.topology.read_text())
    programs = Programs(arguments.kubernetes, arguments.api, arguments.containerd, arguments.coredns, arguments.layers)
    instance.supervisor.write_text(json.dumps(asdict(Identity.of(os.getpid()))))
    asyncio.run(Supervisor(instance, cluster_processes(instance, topology, programs, arguments.api_socket)).run())


if __name__ == "__main__":
    main()
