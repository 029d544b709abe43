"""Linux network namespaces: one for each instance, so that the host gets no interface, route or packet filter rule."""

import ctypes
import os
import subprocess
from ipaddress import IPv4Interface
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.topology import CONTROL_PLANE_ADDRESS, NAME_SERVER_ADDRESS, SERVICE_NETWORK, Topology

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter_network(handle: Path) -> None:
    """Move the calling thread into a network namespace; sockets it makes from now on belong there."""
    descriptor = os.open(handle, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"entering network namespace {handle}: {os.strerror(error)}")
    finally:
        os.close(descriptor)


def create_network(handle: Path, topology: Topology) -> None:
    """Make a namespace, held by a mount on the file `handle`, with the addresses of control plane and nodes.

    They lie on its loopback interface: pods are reached through routed links, so nodes need no interface of their own.
    """
    addresses = [CONTROL_PLANE_ADDRESS, NAME_SERVER_ADDRESS, *(node.address for node in topology.nodes)]
    setup = [
        "link set lo up",
        *(f"address add {IPv4Interface((address, 32))} dev lo" for address in addresses),
        # Programs of the nodes reach Services too: the route makes the kernel try, the proxy's rules redirect.
        f"route add {SERVICE_NETWORK} dev lo src {CONTROL_PLANE_ADDRESS}",
    ]
    handle.touch()
    _run(["unshare", f"--net={handle}", "true"])
    _run(["nsenter", f"--net={handle}", "ip", "-batch", "-"], "\n".join(setup))
    _run(["nsenter", f"--net={handle}", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])


def delete_network(handle: Path) -> None:
    """Remove the handle; the namespace with its interfaces and rules ends with the last process inside."""
    if handle.exists():
        subprocess.run(["umount", "--lazy", handle], capture_output=True, check=False)
        handle.unlink()


def _run(command: list[str], script: str | None = None) -> None:
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
