"""Where the local cluster keeps its files: never inside the repository.

Two places exist. The *cache* holds what is expensive and independent of any cluster (binaries, image layers) and is
never removed by a teardown. An *instance* is one cluster's state, all of which a teardown removes.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError

_LONGEST_UNIX_SOCKET_PATH = 107
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


def repository_root() -> Path:
    """The checkout this package lies in: local-cluster/src/localcluster is three levels below it."""
    return Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Cache:
    """What outlives every cluster."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Cache":
        """`$COTUNE_CACHE`, else `$XDG_CACHE_HOME/cotune`, else `~/.cache/cotune`."""
        if chosen := os.environ.get("COTUNE_CACHE"):
            return cls(Path(chosen).resolve())
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return cls(Path(home).resolve() / "cotune")

    @property
    def programs(self) -> Path:
        """One folder per built module and content key."""
        return self.root / "programs"

    @property
    def images(self) -> Path:
        """Blobs and tags of built images, base root file systems, pip's downloads."""
        return self.root / "images"

    @property
    def layers(self) -> Path:
        """The build's storage, which holds every layer unpacked."""
        return self.images / "storage"


@dataclass(frozen=True)
class Instance:
    """The files of one cluster, by its name; several may run side by side."""

    name: str
    root: Path

    @classmethod
    def named(cls, name: str) -> "Instance":
        """The instance `name` below `$COTUNE_STATE`, by default `/var/lib/cotune-local`.

        :raises LocalClusterError: the name cannot name cgroups and network namespaces, or the path is too long.
        """
        if not _NAME.fullmatch(name):
            raise LocalClusterError(
                f"instance name {name!r}: use at most 30 lower-case letters, digits and inner hyphens"
            )
        state = Path(os.environ.get("COTUNE_STATE", "/var/lib/cotune-local")).resolve()
        return cls(name, state / name)

    @property
    def cgroup(self) -> str:
        """The control group that all of the instance lies in, relative to each hierarchy."""
        return f"cotune-{self.name}"

    @property
    def network(self) -> Path:
        """The handle of the instance's network namespace."""
        return self.root / "network"

    @property
    def lock(self) -> Path:
        """Held by the command that is changing the instance."""
        return self.root.parent / f".{self.name}.lock"

    @property
    def topology(self) -> Path:
        """What was asked for, as JSON."""
        return self.root / "topology.json"

    @property
    def processes(self) -> Path:
        """What the supervisor last knew of each process, as JSON."""
        return self.root / "processes.json"

    @property
    def supervisor(self) -> Path:
        """The supervisor's process id and start time, as JSON."""
        return self.root / "supervisor.json"

    @property
    def kubeconfig(self) -> Path:
        """Cluster administrator, through the relay, for programs on the host."""
        return self.root / "kubeconfig"

    @property
    def certificates(self) -> Path:
        """Authority, serving and client certificates of the control plane."""
        return self.root / "certificates"

    @property
    def etcd(self) -> Path:
        """The data of etcd."""
        return self.root / "etcd"

    @property
    def configuration(self) -> Path:
        """Rendered configuration of the control plane's processes."""
        return self.root / "configuration"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.root / "logs"

    def node(self, node: str) -> "NodeFiles":
        """The private file tree of one node."""
        files = NodeFiles(self.root / "nodes" / node)
        if len(str(files.containerd_socket)) > _LONGEST_UNIX_SOCKET_PATH:
            raise LocalClusterError(
                f"state folder {self.root.parent} is too deep for unix sockets: set COTUNE_STATE to a shorter path"
            )
        return files


@dataclass(frozen=True)
class NodeFiles:
    """What one node sees as its own /var/lib, /var/log and /run, from the host's point of view.

    Inside the node's mount namespace every program uses its usual path (`/var/lib/kubelet`,
    `/run/containerd/containerd.sock`), which is what device plugins and log collectors rely on.
    """

    root: Path

    @property
    def var_lib(self) -> Path:
        """Shown to the node as /var/lib."""
        return self.root / "var-lib"

    @property
    def var_log(self) -> Path:
        """Shown to the node as /var/log."""
        return self.root / "var-log"

    @property
    def run(self) -> Path:
        """Shown to the node as /run."""
        return self.root / "run"

    @property
    def configuration(self) -> Path:
        """Shown to the node as /run/cotune."""
        return self.run / "cotune"

    @property
    def view_ready(self) -> Path:
        """Written when the node's mounts are in place."""
        return self.run / "cotune-view-ready"

    @property
    def blobs(self) -> Path:
        """Where the container runtime keeps images' blobs, by hexadecimal digest."""
        return self.var_lib / "containerd" / "io.containerd.content.v1.content" / "blobs" / "sha256"

    @property
    def snapshots(self) -> Path:
        """Where the container runtime keeps unpacked layers, by number."""
        return self.var_lib / "containerd" / "io.containerd.snapshotter.v1.overlayfs" / "snapshots"

    @property
    def layers(self) -> Path:
        """Where the node sees the unpacked layers of the build's storage, as /run/cotune-layers."""
        return self.run / "cotune-layers"

    @property
    def containerd_socket(self) -> Path:
        """The container runtime's socket, reachable from the host."""
        return self.run / "containerd" / "containerd.sock"
