"""`python -m cotune_simulation.device_plugin`: prepares a node, serves its kubelet, and marks its card unhealthy."""

import argparse
import asyncio
import os
import shutil
from pathlib import Path

import aiohttp

from cotune_simulation import announce
from cotune_simulation.card.identity import CardIdentity, card_uuid, read_identity, write_identity
from cotune_simulation.card.products import card_product
from cotune_simulation.device_plugin.api_server import label_node, node_labels
from cotune_simulation.device_plugin.devices import NVML_LIBRARY, NodeFolder, SharedCard
from cotune_simulation.device_plugin.labels import feature_labels
from cotune_simulation.device_plugin.registration import keep_registered
from cotune_simulation.termination import end_at_sigterm

CARD_LABEL = "simulation.cotune.dev/card"
SHARING_LABEL = "simulation.cotune.dev/sharing"
"""`mps`, where the card is shared so; else by time-slicing."""
_RETRY_SECONDS = 2.0
_LABEL_SECONDS = 60.0


def main() -> None:
    """Carry out one of the commands."""
    parser = argparse.ArgumentParser(prog="cotune_simulation.device_plugin", description="a simulated card's plugin")
    parser.add_argument("--node", default=os.environ.get("NODE_NAME") or "local")
    parser.add_argument("--folder", type=Path, default=Path("/var/lib/cotune-simulation"), help="on the host")
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help=f"take the card from the node's label {CARD_LABEL}")
    prepare.add_argument("--library", type=Path, default=Path("/opt/cotune/lib") / NVML_LIBRARY)
    serve = commands.add_parser("serve", help="register with the kubelet and label the node")
    serve.add_argument("--resource", default="nvidia.com/gpu")
    for command in (prepare, serve):
        command.add_argument("--replicas", type=int, default=int(os.environ.get("REPLICAS") or 8))
    serve.add_argument("--plugins", type=Path, default=Path("/var/lib/kubelet/device-plugins"))
    commands.add_parser("unhealthy", help="let the card fail")
    commands.add_parser("healthy", help="let it recover")
    options = parser.parse_args()
    announce(f"device plugin, {options.command}")
    end_at_sigterm()
    # The nodes of a local cluster may share the host's folder.
    folder = NodeFolder(options.folder / options.node)
    match options.command:
        case "prepare":
            asyncio.run(_prepare(options.node, folder, options.library, options.replicas))
        case "serve":
            asyncio.run(_serve(options.node, folder, options.resource, options.replicas, options.plugins))
        case "unhealthy":
            folder.unhealthy_mark.touch()
        case _:
            folder.unhealthy_mark.unlink(missing_ok=True)


async def _prepare(node: str, folder: NodeFolder, library: Path, replicas: int) -> None:
    labels = await node_labels(node)
    product, mps_replicas = labels[CARD_LABEL], replicas if labels.get(SHARING_LABEL) == "mps" else 0
    card_product(product)
    folder.socket.parent.mkdir(parents=True, exist_ok=True)
    beginning = folder.library.with_name(f".{folder.library.name}")
    # Containers that use the old file keep it.
    shutil.copyfile(library, beginning)
    beginning.chmod(0o755)
    beginning.rename(folder.library)
    write_identity(folder.identity, CardIdentity(product, card_uuid(node), mps_replicas))
    print(f"node {node} has a simulated {product}", flush=True)


async def _serve(node: str, folder: NodeFolder, resource: str, replicas: int, plugins: Path) -> None:
    if replicas < 1:
        raise ValueError(f"replicas must be at least 1, found {replicas}")
    identity = read_identity(folder.identity)
    replicas, mps = identity.mps_replicas or replicas, identity.mps_replicas > 0
    plugin = SharedCard(identity.uuid, replicas, folder, mps)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_keep_labelled(node, feature_labels(card_product(identity.product), replicas, mps)))
        tasks.create_task(keep_registered(plugin, plugins, "cotune-simulation.sock", resource))


async def _keep_labelled(node: str, labels: dict[str, str]) -> None:
    while True:
        try:
            await label_node(node, labels)
            await asyncio.sleep(_LABEL_SECONDS)
        except (aiohttp.ClientError, TimeoutError) as error:
            print(f"labelling the node failed, to be tried again: {error}", flush=True)
            await asyncio.sleep(_RETRY_SECONDS)


if __name__ == "__main__":
    main()
