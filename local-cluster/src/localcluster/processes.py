"""The cluster as data: every process, where it runs, when it is ready and what it waits for.

Reading `cluster_processes` from top to bottom is reading how a Kubernetes cluster starts.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from localcluster.configuration import FEATURE_GATES, KERNEL_SETTINGS
from localcluster.locations import Instance
from localcluster.readiness import Answers, Check, Exists, Started
from localcluster.topology import (
    API_PORT,
    CONTROL_PLANE_ADDRESS,
    NAME_SERVER_ADDRESS,
    NAME_SERVER_READY_PORT,
    SERVICE_NETWORK,
    Node,
    Topology,
)

ETCD_URL = "http://127.0.0.1:2379"


@dataclass(frozen=True)
class Place:
    """The namespaces a process runs in."""

    cluster_network: bool = True
    node: str | None = None
    """The node whose file tree the process sees, if any."""


HOST = Place(cluster_network=False)
CLUSTER = Place()


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the cluster; it is started again whenever it ends."""

    name: str
    argv: tuple[str, ...]
    place: Place
    ready: Check = field(default_factory=Started)
    after: tuple[str, ...] = ()
    """Processes that must be ready before this one starts."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    inherited: tuple[int, ...] = ()
    """Open file descriptors handed to it."""


@dataclass(frozen=True)
class Programs:
    """The folders that the processes use: programs by module, and image layers."""

    kubernetes: Path
    api: Path
    """etcd and kube-apiserver: the same folder, or one that the user has chosen."""
    containerd: Path
    coredns: Path
    layers: Path


def cluster_processes(
    instance: Instance, topology: Topology, programs: Programs, api_socket: int
) -> tuple[ProcessSpec, ...]:
    """All processes of an instance; `api_socket` is the listening socket through which the host reaches the API."""
    specs = [_relay(instance, api_socket), *_control_plane(instance, programs)]
    if topology.nodes:
        specs.append(_scheduler(instance, programs))
        specs.append(_service_proxy(instance, programs))
        specs.append(_name_server(instance, programs))
    for node in topology.nodes:
        specs += _node(instance, programs, node)
    return tuple(specs)


def view_name(node: str) -> str:
    """The process that holds a node's mount namespace open; the node's other processes enter it through this one."""
    return f"{node}-view"


def _relay(instance: Instance, api_socket: int) -> ProcessSpec:
    return ProcessSpec(
        name="relay",
        argv=(
            *(sys.executable, "-m", "localcluster.relay"),
            *("--socket", str(api_socket)),
            *("--network", str(instance.network)),
            *("--target", f"{CONTROL_PLANE_ADDRESS}:{API_PORT}"),
        ),
        place=HOST,
        environment={"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        inherited=(api_socket,),
    )


def _control_plane(instance: Instance, programs: Programs) -> Iterator[ProcessSpec]:
    certificates = instance.certificates
    yield ProcessSpec(
        name="etcd",
        argv=(
            str(programs.api / "etcd"),
            f"--data-dir={instance.etcd}",
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            # A local cluster's data is worth nothing after a power failure.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ),
        place=CLUSTER,
        ready=Answers(f"{ETCD_URL}/health"),
    )
    yield ProcessSpec(
        name="kube-apiserver",
        argv=(
            str(programs.api / "kube-apiserver"),
            f"--etcd-servers={ETCD_URL}",
            f"--bind-address={CONTROL_PLANE_ADDRESS}",
            f"--advertise-address={CONTROL_PLANE_ADDRESS}",
            f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            "--allow-privileged=true",
            f"--client-ca-file={certificates / 'authority.crt'}",
            f"--tls-cert-file={certificates / 'kube-apiserver.crt'}",
            f"--tls-private-key-file={certificates / 'kube-apiserver.key'}",
            f"--kubelet-certificate-authority={certificates / 'authority.crt'}",
            f"--kubelet-client-certificate={certificates / 'kubelet-client.crt'}",
            f"--kubelet-client-key={certificates / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={certificates / 'service-accounts.pub'}",
            f"--service-account-signing-key-file={certificates / 'service-accounts.key'}",
            f"--feature-gates={_feature_gates()}",
            "--profiling=false",
        ),
        place=CLUSTER,
        ready=Answers(f"https://{CONTROL_PLANE_ADDRESS}:{API_PORT}/readyz", certificates / "authority.crt"),
        after=("etcd",),
    )
    yield ProcessSpec(
        name="kube-controller-manager",
        argv=(
            str(programs.kubernetes / "kube-controller-manager"),
            f"--kubeconfig={instance.configuration / 'kube-controller-manager.kubeconfig'}",
            "--bind-address=127.0.0.1",
            f"--root-ca-file={certificates / 'authority.crt'}",
            f"--service-account-private-key-file={certificates / 'service-accounts.key'}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            # The default of 20 requests a second delays the first pod by five seconds.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            "--node-monitor-period=2s",
            "--profiling=false",
        ),
        place=CLUSTER,
        ready=Answers("https://127.0.0.1:10257/healthz"),
        after=("kube-apiserver",),
    )


def _scheduler(instance: Instance, programs: Programs) -> ProcessSpec:
    return ProcessSpec(
        name="kube-scheduler",
        argv=(
            str(programs.kubernetes / "kube-scheduler"),
            f"--config={instance.configuration / 'kube-scheduler.json'}",
            "--bind-address=127.0.0.1",
        ),
        place=CLUSTER,
        ready=Answers("https://127.0.0.1:10259/healthz"),
        after=("kube-apiserver",),
    )


def _service_proxy(instance: Instance, programs: Programs) -> ProcessSpec:
    return ProcessSpec(
        name="kube-proxy",
        argv=(
            str(programs.kubernetes / "kube-proxy"),
            f"--config={instance.configuration / 'kube-proxy.json'}",
        ),
        place=CLUSTER,
        ready=Answers("http://127.0.0.1:10256/livez"),
        after=("kube-apiserver",),
    )


def _name_server(instance: Instance, programs: Programs) -> ProcessSpec:
    return ProcessSpec(
        name="coredns",
        argv=(str(programs.coredns / "coredns"), "-conf", str(instance.configuration / "Corefile")),
        place=CLUSTER,
        ready=Answers(f"http://{NAME_SERVER_ADDRESS}:{NAME_SERVER_READY_PORT}/ready"),
        after=("kube-apiserver",),
    )


def _node(instance: Instance, programs: Programs, node: Node) -> Iterator[ProcessSpec]:
    files = instance.node(node.name)
    place = Place(node=node.name)
    yield ProcessSpec(
        name=view_name(node.name),
        argv=(
            *("unshare", "--mount", "--propagation", "private", "--"),
            *("sh", "-euc", "\n".join(_view_commands(instance, programs, node))),
        ),
        place=CLUSTER,
        ready=Exists(files.view_ready),
    )
    yield ProcessSpec(
        name=f"{node.name}-containerd",
        argv=("/run/cotune-programs/containerd/containerd", "--config", "/run/cotune/containerd.toml"),
        place=place,
        ready=Exists(files.containerd_socket),
        after=(view_name(node.name),),
    )
    yield ProcessSpec(
        name=f"{node.name}-kubelet",
        argv=(
            "/run/cotune-programs/kubernetes/kubelet",
            "--config=/run/cotune/kubelet.json",
            "--kubeconfig=/run/cotune/kubelet.kubeconfig",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            f"--node-labels={','.join(f'{key}={value}' for key, value in node.labels.items())}",
        ),
        place=place,
        ready=Answers(f"http://{node.address}:10248/healthz"),
        after=("kube-apiserver", f"{node.name}-containerd"),
    )


def _view_commands(instance: Instance, programs: Programs, node: Node) -> Iterator[str]:
    """Shell commands that turn a copy of the host's mounts into the node's own view and then hold it open.

    /var/lib, /var/log and /run are the node's. All sources may lie below a folder that one of these mounts hides (the
    state folder usually does), so they are put in reach at /mnt first.
    """
    files = instance.node(node.name)
    programs_mount = files.run / "cotune-programs"
    for source, target in (
        (programs.kubernetes, programs_mount / "kubernetes"),
        (programs.containerd, programs_mount / "containerd"),
        (programs.layers, files.layers),
    ):
        yield f"mount --bind --options ro {_quoted(source)} {_quoted(target)}"
    for setting in KERNEL_SETTINGS:
        value = files.configuration / "sys" / setting
        # A kernel that was built without a feature has no setting for it.
        yield f"test ! -e /proc/sys/{setting} || mount --bind {_quoted(value)} /proc/sys/{setting}"
    yield f"mount --rbind {_quoted(files.root)} /mnt"
    yield f"mount --rbind /mnt/{files.var_lib.name} /var/lib"
    yield f"mount --rbind /mnt/{files.var_log.name} /var/log"
    yield f"mount --rbind /mnt/{files.run.name} /run"
    yield "umount --recursive /mnt"
    # Volumes with mount propagation need shared mounts; the copy of the namespace has no peers outside it.
    yield "mount --make-rshared /"
    yield f"touch /run/{files.view_ready.name}"
    yield "exec sleep infinity"


def _feature_gates() -> str:
    return ",".join(f"{name}={str(enabled).lower()}" for name, enabled in FEATURE_GATES.items())


def _quoted(path: Path) -> str:
    return shlex.quote(os.fspath(path))
