"""The command line: `python -m localcluster COMMAND`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from localcluster import cluster
from localcluster.api import is_ready
from localcluster.binaries import CONTAINERD, MODULES, ensure_built
from localcluster.binaries import ON_REQUEST as PROGRAMS_ON_REQUEST
from localcluster.errors import LocalClusterError
from localcluster.images import ON_REQUEST, ImageBuilder, load
from localcluster.locations import Cache, Instance
from localcluster.oci import Image
from localcluster.topology import ALL_NODE_NAMES, DEFAULT_CARD, NODE_NAMES, Topology


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the result is the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except LocalClusterError as error:
        print(f"local-cluster: error: {error}", file=sys.stderr)
        return 1


def _up(options: argparse.Namespace) -> int:
    topology = Topology(node_names=() if options.control_plane_only else options.nodes, card=options.card)
    cluster.up(_instance(options), topology, Cache.from_environment())
    return 0


def _down(options: argparse.Namespace) -> int:
    cluster.down(_instance(options))
    return 0


def _status(options: argparse.Namespace) -> int:
    status = cluster.status(_instance(options))
    rows = [("PROCESS", "STATE", "PID", "RESTARTS")]
    rows += [(name, str(it.state), str(it.pid or "-"), str(it.restarts)) for name, it in status.processes.items()]
    _print_table(rows)
    rows = [("NODE", "READY", "CARD")]
    rows += [
        (
            node["metadata"]["name"],
            "yes" if is_ready(node) else "no",
            node["metadata"]["labels"].get("simulation.cotune.dev/card", "-"),
        )
        for node in status.nodes
    ]
    _print_table(rows)
    rows = [("POD", "PHASE", "READY", "NODE")]
    rows += [
        (
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
            pod["status"].get("phase", "-"),
            "yes" if is_ready(pod) else "no",
            pod["spec"].get("nodeName", "-"),
        )
        for pod in status.pods
    ]
    _print_table(rows)
    return 0


def _kubeconfig(options: argparse.Namespace) -> int:
    instance = _instance(options)
    cluster.require_running(instance)
    print(instance.kubeconfig)
    return 0


def _exec(options: argparse.Namespace) -> int:
    instance = _instance(options)
    cluster.require_running(instance)
    if options.node is None:
        command = cluster.inside_network(instance, options.command)
    else:
        command = cluster.inside_node(instance, options.node, options.command)
    return subprocess.run(command, check=False).returncode


def _images_build(options: argparse.Namespace) -> int:
    _build_images(options)
    return 0


def _images_load(options: argparse.Namespace) -> int:
    instance = _instance(options)
    running = cluster.require_running(instance).node_names
    wanted = options.nodes or running
    if absent := sorted(set(wanted) - set(running)):
        raise LocalClusterError(f"{instance.name} does not run {', '.join(absent)}: choose from {', '.join(running)}")
    images = _build_images(options)
    cache = Cache.from_environment()
    ctr = ensure_built(CONTAINERD, cache) / "ctr"
    load(images, {node: instance.node(node) for node in wanted}, ctr, cache)
    return 0


def _build_images(options: argparse.Namespace) -> list[Image]:
    builder = ImageBuilder(Cache.from_environment())
    return builder.build(options.images or [it for it in builder.available() if it not in ON_REQUEST])


def _programs(options: argparse.Namespace) -> int:
    cache = Cache.from_environment()
    modules = {module.name: module for module in (*MODULES, *PROGRAMS_ON_REQUEST)}
    if unknown := sorted(set(options.modules) - set(modules)):
        raise LocalClusterError(f"no program {', '.join(unknown)}: choose from {', '.join(modules)}")
    folders = [ensure_built(modules[name], cache) for name in options.modules]
    print(os.pathsep.join(str(folder) for folder in folders))
    return 0


def _instance(options: argparse.Namespace) -> Instance:
    return Instance.named(options.name)


def _node_names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m localcluster", description="A real Kubernetes on this machine, without any image registry."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="dev", help="instance; several may run side by side (default: dev)")

    up = commands.add_parser("up", parents=[named], help="start the cluster, or find it running")
    which_nodes = f"of {','.join(ALL_NODE_NAMES)} (default: {','.join(NODE_NAMES)})"
    up.add_argument("--nodes", type=_node_names, default=NODE_NAMES, help=which_nodes)
    up.add_argument("--control-plane-only", action="store_true", help="no nodes: for tests of the API alone")
    up.add_argument("--card", default=DEFAULT_CARD, help=f"label of the simulated cards (default: {DEFAULT_CARD})")
    up.set_defaults(run=_up)

    commands.add_parser("status", parents=[named], help="processes, nodes and pods").set_defaults(run=_status)
    commands.add_parser("down", parents=[named], help="remove everything but the cache").set_defaults(run=_down)
    commands.add_parser("kubeconfig", parents=[named], help="path of the kubeconfig").set_defaults(run=_kubeconfig)

    execute = commands.add_parser("exec", parents=[named], help="run a command in the cluster's network")
    execute.add_argument("--node", choices=ALL_NODE_NAMES, help="see the files of this node, too")
    execute.add_argument("command", nargs="+", metavar="-- COMMAND")
    execute.set_defaults(run=_exec)

    images = commands.add_parser("images", help="build images and hand them to the nodes").add_subparsers(
        required=True, metavar="COMMAND"
    )
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("images", nargs="*", metavar="NAME", help="folders below images/ (default: all but llm)")
    build = images.add_parser("build", parents=[which], help="build what has changed")
    build.set_defaults(run=_images_build)
    load_parser = images.add_parser("load", parents=[named, which], help="build, then import what a node lacks")
    load_parser.add_argument("--nodes", type=_node_names, help="default: all that run")
    load_parser.set_defaults(run=_images_load)

    names = [module.name for module in MODULES]
    programs = commands.add_parser("programs", help="build programs and print their folders as a search path")
    others = " ".join(module.name for module in PROGRAMS_ON_REQUEST)
    words = f"default: {' '.join(names)}; on request: {others}"
    programs.add_argument("modules", nargs="*", default=names, metavar="NAME", help=words)
    programs.set_defaults(run=_programs)
    return parser
