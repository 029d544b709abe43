"""Starting, inspecting and removing an instance."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from localcluster import configuration, packages
from localcluster.api import Api, ApiUnavailableError, is_ready
from localcluster.binaries import CONTAINERD, COREDNS, KUBERNETES, PAUSE, api_programs, ensure_built
from localcluster.certificates import Authority, KeyPair, signing_key, write_secret
from localcluster.cgroups import InstanceGroup
from localcluster.errors import LocalClusterError
from localcluster.image_import import NodeImages
from localcluster.locations import Cache, Instance
from localcluster.locks import held
from localcluster.namespaces import create_network, delete_network
from localcluster.oci import single_program_image
from localcluster.processes import Programs, view_name
from localcluster.progress import say, step
from localcluster.supervisor import ProcessRecord, ProcessState, read_records, supervisor_is_running
from localcluster.topology import (
    API_SERVICE_ADDRESS,
    CLUSTER_DOMAIN,
    CONTROL_PLANE_ADDRESS,
    Node,
    Topology,
)

_START_TIMEOUT_SECONDS = 120.0
_API_SERVICE_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
)
_POLL_SECONDS = 0.1
_WAIT_REPORT_SECONDS = 5.0
_TOLERATED_RESTARTS = 3


@dataclass(frozen=True)
class Status:
    """What an instance looks like now."""

    topology: Topology
    processes: dict[str, ProcessRecord]
    nodes: list[dict[str, Any]]
    pods: list[dict[str, Any]]


def up(
    instance: Instance,
    topology: Topology,
    cache: Cache,
    patience_seconds: float = _START_TIMEOUT_SECONDS,
    is_failure_kept: bool = False,
) -> None:
    """Start an instance, or find it running as asked.

    :param patience_seconds: how long each wait in it may last.
    :param is_failure_kept: leave what does not become ready as it is, to be looked at; else only its logs are kept.
    :raises LocalClusterError: it runs with other nodes, or some part does not start.
    """
    with _changing(instance):
        if supervisor_is_running(instance):
            _require_same(instance, topology)
            _load_pause_image(instance, topology, cache, patience_seconds)
            _wait_until_usable(instance, topology, patience_seconds)
            say(f"{instance.name} is running; kubeconfig: {instance.kubeconfig}")
            return
        if instance.root.exists():
            say(f"{instance.name} is left over from an interrupted run: removing it first")
            _remove(instance)
        programs = _prepare(topology, cache)
        with step(f"starting {instance.name}"):
            try:
                _create(instance, topology)
                _start_supervisor(instance, programs)
                _load_pause_image(instance, topology, cache, patience_seconds)
                _wait_until_usable(instance, topology, patience_seconds)
            except BaseException:
                _keep_logs_aside(instance)
                if not is_failure_kept:
                    _remove(instance)
                raise
        say(f"kubeconfig: {instance.kubeconfig}")


def down(instance: Instance) -> None:
    """Remove everything of an instance, in whatever state it is: processes, mounts, namespaces, groups, files."""
    with _changing(instance), step(f"removing {instance.name}"):
        _remove(instance)


def status(instance: Instance) -> Status:
    """The instance as its supervisor and its API server see it.

    :raises LocalClusterError: it does not run.
    """
    require_running(instance)
    api = Api(instance, api_port(instance))
    return Status(
        topology=Topology.from_json(instance.topology.read_text()),
        processes=read_records(instance),
        nodes=api.get("/api/v1/nodes")["items"],
        pods=api.get("/api/v1/pods")["items"],
    )


def running(instance: Instance) -> Topology | None:
    """The topology of an instance; None: it does not run."""
    return Topology.from_json(instance.topology.read_text()) if supervisor_is_running(instance) else None


def require_running(instance: Instance) -> Topology:
    """The topology of a running instance.

    :raises LocalClusterError: it does not run.
    """
    found = running(instance)
    if found is None:
        raise LocalClusterError(f"{instance.name} is not running: start it with `python -m localcluster up`")
    return found


def api_port(instance: Instance) -> int:
    """The host's port of the API server."""
    server: str = json.loads(instance.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    return int(server.rpartition(":")[2])


def inside_node(instance: Instance, node: str, command: list[str]) -> list[str]:
    """A command line that runs `command` with a node's network and file tree.

    :raises LocalClusterError: the node does not run.
    """
    record = read_records(instance).get(view_name(node))
    if record is None or record.pid is None:
        raise LocalClusterError(f"{instance.name} has no running node {node}")
    return ["nsenter", f"--target={record.pid}", "--mount", "--net", "--", *command]


def inside_network(instance: Instance, command: list[str]) -> list[str]:
    """A command line that runs `command` with the cluster's network and the host's files."""
    return ["nsenter", f"--net={instance.network}", "--", *command]


@contextmanager
def _changing(instance: Instance) -> Generator[None]:
    """Keep other commands from changing the instance at the same time."""
    if os.geteuid() != 0:
        raise LocalClusterError("the local cluster needs root for namespaces and control groups: run it with sudo")
    with held(instance.lock):
        yield
    _remove_if_empty(instance.lock.parent)


def _require_same(instance: Instance, topology: Topology) -> None:
    found = Topology.from_json(instance.topology.read_text())
    if found != topology:
        nodes = ",".join(found.node_names) or "none"
        raise LocalClusterError(
            f"{instance.name} already runs with nodes {nodes} and card {found.card}: take it down first, by "
            f"`python -m localcluster down --name {instance.name}`"
        )


def _prepare(topology: Topology, cache: Cache) -> Programs:
    """Everything that is kept from one start to the next: packages and programs."""
    packages.ensure(packages.NODE_PROGRAMS if topology.nodes else packages.CONTROL_PLANE_PROGRAMS)
    ensure_built(PAUSE, cache)
    cache.layers.mkdir(parents=True, exist_ok=True)
    kubernetes = ensure_built(KUBERNETES, cache)
    return Programs(
        kubernetes=kubernetes,
        # A kubelet must not be newer than its API server: with nodes, all of them are of one build.
        api=kubernetes if topology.nodes else api_programs(kubernetes),
        containerd=ensure_built(CONTAINERD, cache),
        coredns=ensure_built(COREDNS, cache),
        layers=cache.layers,
    )


def _create(instance: Instance, topology: Topology) -> None:
    """All files, groups and namespaces that the processes expect."""
    for folder in (instance.configuration, instance.logs, instance.certificates):
        folder.mkdir(parents=True)
    instance.etcd.mkdir(mode=0o700)
    instance.topology.write_text(topology.to_json())
    InstanceGroup(instance.cgroup).create([node.name for node in topology.nodes])
    create_network(instance.network, topology)
    authority = Authority()
    _write_control_plane(instance, topology, authority)
    for node in topology.nodes:
        _write_node(instance, node, authority)


def _write_control_plane(instance: Instance, topology: Topology, authority: Authority) -> None:
    certificates = instance.certificates
    (certificates / "authority.crt").write_bytes(authority.certificate)
    authority.serving(
        "kube-apiserver",
        ["localhost", *_API_SERVICE_NAMES],
        [IPv4Address("127.0.0.1"), CONTROL_PLANE_ADDRESS, API_SERVICE_ADDRESS],
    ).write(certificates, "kube-apiserver")
    authority.client("kube-apiserver-kubelet-client", "system:masters").write(certificates, "kubelet-client")
    authority.client("administrator", "system:masters").write(certificates, "administrator")
    private, public = signing_key()
    write_secret(certificates / "service-accounts.key", private)
    (certificates / "service-accounts.pub").write_bytes(public)
    for program in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        _write_kubeconfig(
            instance.configuration / f"{program}.kubeconfig", authority, authority.client(f"system:{program}")
        )
    # No role of a fresh API server fits a name server, and this one is as trusted as the rest of the control plane.
    names = instance.configuration / "coredns.kubeconfig"
    _write_kubeconfig(names, authority, authority.client("coredns", "system:masters"))
    (instance.configuration / "Corefile").write_text(configuration.coredns(str(names)))
    scheduler = configuration.kube_scheduler(str(instance.configuration / "kube-scheduler.kubeconfig"))
    (instance.configuration / "kube-scheduler.json").write_text(scheduler)
    if topology.nodes:
        proxy = configuration.kube_proxy(topology.nodes[0], str(instance.configuration / "kube-proxy.kubeconfig"))
        (instance.configuration / "kube-proxy.json").write_text(proxy)


def _write_node(instance: Instance, node: Node, authority: Authority) -> None:
    files = instance.node(node.name)
    cni = files.configuration / "cni"
    mounts = [files.run / "cotune-programs" / program for program in ("kubernetes", "containerd")]
    for folder in (files.var_lib, files.var_log, files.layers, files.configuration, cni, *mounts):
        folder.mkdir(parents=True)
    for setting, value in configuration.KERNEL_SETTINGS.items():
        path = files.configuration / "sys" / setting
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    runc = shutil.which("runc")
    if runc is None:
        raise LocalClusterError("runc is not on the path: install Debian's package runc")
    (files.configuration / "containerd.toml").write_text(configuration.containerd(runc))
    (cni / "pods.conflist").write_text(configuration.pod_network(node))
    (files.configuration / "authority.crt").write_bytes(authority.certificate)
    authority.serving(node.name, [node.name], [node.address]).write(files.configuration, "kubelet-serving")
    (files.configuration / "kubelet.json").write_text(configuration.kubelet(node, f"/{instance.cgroup}/{node.name}"))
    client = authority.client(f"system:node:{node.name}", "system:nodes")
    _write_kubeconfig(files.configuration / "kubelet.kubeconfig", authority, client)


def _write_kubeconfig(
    path: Path, authority: Authority, client: KeyPair, server: str = configuration.API_INSIDE
) -> None:
    write_secret(path, configuration.kubeconfig(server, authority.certificate, client).encode())


def _start_supervisor(instance: Instance, programs: Programs) -> None:
    """Start the detached supervisor; it inherits the listening socket of the API, which decides the host's port."""
    certificates = instance.certificates
    administrator = KeyPair(
        (certificates / "administrator.crt").read_bytes(), (certificates / "administrator.key").read_bytes()
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        content = configuration.kubeconfig(
            f"https://127.0.0.1:{port}", (certificates / "authority.crt").read_bytes(), administrator
        )
        write_secret(instance.kubeconfig, content.encode())
        with (instance.logs / "supervisor.log").open("ab") as log:
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "localcluster.supervisor"),
                    *("--name", instance.name, "--root", str(instance.root)),
                    *("--api-socket", str(listening.fileno())),
                    *("--kubernetes", str(programs.kubernetes)),
                    *("--api", str(programs.api)),
                    *("--containerd", str(programs.containerd)),
                    *("--coredns", str(programs.coredns)),
                    *("--layers", str(programs.layers)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**os.environ, "PYTHONPATH": _own_path()},
                pass_fds=(listening.fileno(),),
                start_new_session=True,
            )


def _own_path() -> str:
    """Where this package and, after it, everything that this process was told of is found."""
    own = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, (own, os.environ.get("PYTHONPATH"))))


def _load_pause_image(instance: Instance, topology: Topology, cache: Cache, patience_seconds: float) -> None:
    """Give every node the image of the pods' first container as soon as its runtime listens."""
    image = single_program_image(configuration.PAUSE_IMAGE, ensure_built(PAUSE, cache) / "pause")
    ctr = ensure_built(CONTAINERD, cache) / "ctr"
    for node in topology.nodes:
        name = f"{node.name}-containerd"
        _wait_for(
            instance,
            lambda name=name: [] if _is_ready(read_records(instance).get(name)) else [name],
            patience_seconds,
        )
        images = NodeImages(ctr, instance.node(node.name))
        images.load(images.missing([image]))


def _wait_until_usable(instance: Instance, topology: Topology, patience_seconds: float) -> None:
    """Wait until every process and node is ready and pods can be created."""
    api = Api(instance, api_port(instance))

    def unready() -> list[str]:
        records = read_records(instance)
        processes = [name for name, record in records.items() if not _is_ready(record)]
        if processes or not records:
            return processes or ["supervisor"]
        expected = {node.name for node in topology.nodes}
        try:
            nodes = api.get("/api/v1/nodes")["items"]
        except ApiUnavailableError:
            return ["the API server"]
        ready = {node["metadata"]["name"] for node in nodes if is_ready(node)}
        if missing := sorted(expected - ready):
            return [f"node {name}" for name in missing]
        if not api.exists("/api/v1/namespaces/default/serviceaccounts/default"):
            return ["the service account of namespace default"]
        return []

    _wait_for(instance, unready, patience_seconds)


def _wait_for(instance: Instance, unready: Callable[[], list[str]], patience_seconds: float) -> None:
    """Poll until `unready` names nothing any more, and say what is waited for.

    :raises LocalClusterError: a process keeps ending, the supervisor ended, or time is up.
    """
    started = last_report = time.monotonic()
    restarts_before = {name: record.restarts for name, record in read_records(instance).items()}
    while waiting := unready():
        now = time.monotonic()
        for name, record in read_records(instance).items():
            if record.restarts - restarts_before.get(name, 0) > _TOLERATED_RESTARTS:
                raise LocalClusterError(f"{name} keeps ending: {_last_words(instance, name)}")
        if now - started > _WAIT_REPORT_SECONDS and not supervisor_is_running(instance):
            raise LocalClusterError(f"the supervisor ended: {_last_words(instance, 'supervisor')}")
        if now - started > patience_seconds:
            raise LocalClusterError(f"not ready after {patience_seconds:.0f} s: {', '.join(waiting)}")
        if now - last_report > _WAIT_REPORT_SECONDS:
            say(f"waiting for {', '.join(waiting)}")
            last_report = now
        time.sleep(_POLL_SECONDS)


def _is_ready(record: ProcessRecord | None) -> bool:
    return record is not None and record.state is ProcessState.READY


def _last_words(instance: Instance, process: str) -> str:
    try:
        lines = (instance.logs / f"{process}.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "it never wrote a log"
    return lines[-1] if lines else "its log is empty"


def _keep_logs_aside(instance: Instance) -> None:
    """Keep the logs of a failed start where the teardown does not remove them."""
    if instance.logs.exists():
        kept = Path(os.environ.get("TMPDIR", "/tmp")) / f"{instance.cgroup}-failed-start"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(instance.logs, kept)
        say(f"logs of the failed start: {kept}")


def _remove(instance: Instance) -> None:
    """Take an instance apart.

    Ending the processes of the control group ends supervisor, control plane, kubelets, containers and their shims at
    once, so that nothing is started again meanwhile. The nodes' mounts, the pods' interfaces and all packet filter
    rules live in namespaces that end with the last of these processes.
    """
    group = InstanceGroup(instance.cgroup)
    group.kill()
    group.remove()
    delete_network(instance.network)
    if instance.root.exists():
        shutil.rmtree(instance.root)
    _remove_if_empty(instance.root.parent)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
