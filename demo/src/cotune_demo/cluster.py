"""The local cluster as the demonstration uses it: kubectl and helm for what a user types, the API for watching."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from localcluster import cluster
from localcluster.binaries import CONTAINERD, HELM, KUBERNETES, ensure_built
from localcluster.images import ImageBuilder, load
from localcluster.locations import Cache, Instance
from localcluster.topology import DEFAULT_CARD, NODE_NAMES, Topology

_COMMAND_SECONDS = 420


class DemoError(Exception):
    """The demonstration cannot go on; the message is one line."""


@dataclass(frozen=True)
class Commands:
    """`kubectl` and `helm` against one cluster."""

    kubectl: Path
    helm: Path
    kubeconfig: Path

    async def run(self, program: Path, *arguments: str, text: str = "") -> tuple[bool, str]:
        """Whether the program succeeded, and what it said."""
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(text.encode()), _COMMAND_SECONDS)
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise DemoError(f"{program.name} {' '.join(arguments)}: no end after {_COMMAND_SECONDS} s") from error
        return process.returncode == 0, said.decode(errors="replace").strip()

    async def do(self, *arguments: str, text: str = "") -> str:
        """`kubectl` with these arguments; what it printed.

        Raises:
            DemoError: it failed.
        """
        return await self._checked(self.kubectl, *arguments, text=text)

    async def release(self, *arguments: str) -> str:
        """`helm` with these arguments.

        Raises:
            DemoError: it failed.
        """
        return await self._checked(self.helm, *arguments)

    async def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply manifests that are made here."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        await self.do("apply", "-f", "-", text=json.dumps(items))

    async def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get` as JSON."""
        return cast("dict[str, Any]", json.loads(await self.do("get", *arguments, "-o", "json")))

    async def _checked(self, program: Path, *arguments: str, text: str = "") -> str:
        succeeded, said = await self.run(program, *arguments, text=text)
        if not succeeded:
            last = said.splitlines()[-1] if said else "it says nothing"
            raise DemoError(f"{program.name} {' '.join(arguments)}: {last}")
        return said


def start(images: list[str], name: str = "dev", nodes: tuple[str, ...] = NODE_NAMES) -> Commands:
    """A running local cluster of this name with the images loaded; what is there already is found.

    Args:
        images: folders below `images/`.
        name: of the cluster.
        nodes: what it has at least; one that runs with more is taken as it is.

    Raises:
        LocalClusterError: it runs without one of them.
    """
    cache, instance = Cache.from_environment(), Instance.named(name)
    topology = Topology(node_names=nodes, card=DEFAULT_CARD)
    running = cluster.running(instance)
    if running is not None and running.includes(topology):
        topology = running
    cluster.up(instance, topology, cache)
    built = ImageBuilder(cache).build(images)
    places = {it.name: instance.node(it.name) for it in topology.nodes}
    load(built, places, ensure_built(CONTAINERD, cache) / "ctr", cache)
    kubectl, helm = ensure_built(KUBERNETES, cache) / "kubectl", ensure_built(HELM, cache) / "helm"
    return Commands(kubectl, helm, instance.kubeconfig)
