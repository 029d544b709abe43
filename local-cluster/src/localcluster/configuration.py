"""Configuration files of the cluster's programs, rendered from the topology.

Everything here is pure. JSON is used throughout because every one of these programs reads YAML, which contains it.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from localcluster.certificates import KeyPair
from localcluster.topology import (
    API_PORT,
    CLUSTER_DOMAIN,
    CONTROL_PLANE_ADDRESS,
    NAME_SERVER_ADDRESS,
    NAME_SERVER_READY_PORT,
    POD_NETWORK,
    Node,
)

PAUSE_IMAGE = "localhost/cotune/pause:dev"
API_INSIDE = f"https://{CONTROL_PLANE_ADDRESS}:{API_PORT}"

# ResourceHealthStatus: a pod's status names the health of the devices it was given.
FEATURE_GATES: Mapping[str, bool] = {"ResourceHealthStatus": True}

# What a kubelet wants the kernel set to. Each node sees these values in place of the real settings, so that its
# kubelet finds nothing to change and the host keeps its own.
KERNEL_SETTINGS: Mapping[str, int] = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


def kubeconfig(server: str, authority: bytes, client: KeyPair) -> str:
    """A self-contained kubeconfig for one client."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "cotune-local",
                "cluster": {"server": server, "certificate-authority-data": _base64(authority)},
            }
        ],
        "users": [
            {
                "name": "client",
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
        "contexts": [{"name": "cotune-local", "context": {"cluster": "cotune-local", "user": "client"}}],
        "current-context": "cotune-local",
    }
    return _json(document)


def kubelet(node: Node, cgroup_root: str) -> str:
    """KubeletConfiguration of one node; paths are those the node sees."""
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # All kubelets share one network namespace: each keeps to its node's address.
            "address": str(node.address),
            "healthzBindAddress": str(node.address),
            "tlsCertFile": "/run/cotune/kubelet-serving.crt",
            "tlsPrivateKeyFile": "/run/cotune/kubelet-serving.key",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": "/run/cotune/authority.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "resolvConf": "",
            "clusterDomain": CLUSTER_DOMAIN,
            "clusterDNS": [str(NAME_SERVER_ADDRESS)],
            "featureGates": dict(FEATURE_GATES),
            # The machine: version 1 control groups and swap are accepted, and no process may lower its OOM score
            # without CAP_SYS_RESOURCE.
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup_root,
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": False,
            # Imported images cannot be pulled again: nothing may collect them, and the host's disk is not the node's.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "200Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
                "imagefs.inodesFree": "1%",
            },
            # Fast reactions: the defaults are made for hundreds of nodes.
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "4s",
            "nodeStatusReportFrequency": "1m",
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
        }
    )


def kube_proxy(node: Node, kubeconfig_path: str) -> str:
    """KubeProxyConfiguration of the only proxy: every node and pod lies in the namespace whose rules it writes."""
    return _json(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            # The nftables mode translates a pod's connection to itself through a Service only on the proxy's own node;
            # this one does on all, and all nodes are this proxy's.
            "mode": "iptables",
            "hostnameOverride": node.name,
            "bindAddress": str(node.address),
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "clusterCIDR": str(POD_NETWORK),
            "clientConnection": {"kubeconfig": kubeconfig_path},
            "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s", "localhostNodePorts": False},
            # Zero leaves the kernel's table sizes and time-outs, which are the host's, alone.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "oomScoreAdj": 0,
        }
    )


def kube_scheduler(kubeconfig_path: str) -> str:
    """KubeSchedulerConfiguration: the defaults, except that a pod which found no card is tried again soon."""
    return _json(
        {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig_path, "qps": 500, "burst": 1000},
            "leaderElection": {"leaderElect": False},
            "podInitialBackoffSeconds": 1,
            "podMaxBackoffSeconds": 2,
        }
    )


def coredns(kubeconfig_path: str) -> str:
    """Corefile of the name server: Services and pods of the cluster, and a quick refusal for everything else."""
    return f"""\
. {{
    bind {NAME_SERVER_ADDRESS}
    errors
    ready {NAME_SERVER_ADDRESS}:{NAME_SERVER_READY_PORT}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig_path}
        pods insecure
        ttl 5
    }}
}}
"""


def containerd(runc: str) -> str:
    """Configuration of containerd, with the usual paths of the node's own file tree."""
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    return f"""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "/run/containerd/containerd.sock"

[{runtime}]
disable_apparmor = true
netns_mounts_under_state_dir = true
tolerate_missing_hugetlb_controller = true
# Without CAP_SYS_RESOURCE no container may have a lower OOM score than containerd: the start of every pod would fail.
restrict_oom_score_adj = true

[{runtime}.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "/run/cotune/cni"

[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{runtime}.containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE_IMAGE}"
"""


def pod_network(node: Node) -> str:
    """CNI configuration: a routed link per pod, no bridge.

    A bridge would let the answer of a Service's pod bypass address translation when client and server share a node;
    with routed links every packet passes through the node.
    """
    return _json(
        {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": str(node.pods)}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
    )


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
