"""A real Kubernetes on the machine with the card, step by step; each step finds what an earlier call has done.

Usage: `run.sh cluster [STEP...]`, after `gpu.install` of all bundles. Steps, in this order:

    up        the local cluster with one node
    images    out of the machine's own file tree
    card      device plugin and labels; the node offers shares of the card
    smoke     two pods compute on the card and read it
    operator  the chart as helm rendered it beforehand
    experiment, staging, production, broken, fallback   see `gpu.main_job`
    layers    only makes what images are made of; down: ends the cluster
    collect   what Kubernetes says now and its logs, into --out; also after a step that fails

Whatever fails says so with the last words of what failed, and the exit code is 1.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import yaml
from localcluster import cluster
from localcluster.binaries import CONTAINERD, KUBERNETES, ensure_built
from localcluster.errors import LocalClusterError
from localcluster.images import load
from localcluster.locations import Cache, Instance
from localcluster.topology import Topology

from gpu.cluster_files import add_missing, choose_iptables
from gpu.machine_images import images, make_layers
from gpu.main_job import JOBS, MainJob, NoTimeError

_NODE = "lab"
_MANIFESTS = Path(__file__).parent / "manifests"
_REPOSITORY = Path(__file__).parents[2]
_SHARES = "6"
_UP_SECONDS = 45.0
_CAN_FAIL = ("smoke", "staging", "broken", "fallback")
"""What follows can be tried all the same."""
_KINDS = (
    *("nodes", "pods", "deployments", "daemonsets", "events", "leases"),
    *("gpuallocationexperiments", "gputrials", "gpuprofiles", "gputuninggrants", "controllerrevisions"),
)


class StepError(Exception):
    """A step did not get where it should."""


class Cluster:
    """The cluster of this machine, and what is done with it."""

    def __init__(self, scratch: Path, out: Path, begin: float, card_index: int | None = None) -> None:
        self.scratch = scratch
        self.out = out
        self.begin = begin
        self.card_index = card_index
        """Of several cards the cluster's; None: there is one."""
        self.cache = Cache(scratch / "cluster")
        self.instance = Instance.named("card")

    def say(self, words: str) -> None:
        """A line with the time."""
        print(f"{time.monotonic() - self.begin:6.1f} s  {words}", flush=True)

    def kubectl(self, *arguments: str, text: str = "", limit: float = 60) -> str:
        """What kubectl printed.

        Raises:
            StepError: it failed.
        """
        done = self.try_kubectl(*arguments, text=text, limit=limit)
        if done.returncode != 0:
            raise StepError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-800:]}")
        return done.stdout

    def try_kubectl(self, *arguments: str, text: str = "", limit: float = 60) -> "subprocess.CompletedProcess[str]":
        """The same, whatever comes of it."""
        program = ensure_built(KUBERNETES, self.cache) / "kubectl"
        environment = os.environ | {"KUBECONFIG": str(self.instance.kubeconfig), "HOME": "/root"}
        try:
            return subprocess.run(
                [str(program), *arguments],
                input=text,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(arguments, 1, "", f"no end after {limit:.0f} s")

    def get(self, *arguments: str) -> "dict[str, Any]":
        """`kubectl get` as JSON."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def wait(self, what: str, seconds: float, is_there: Callable[[], bool]) -> None:
        """Look again and again.

        Raises:
            StepError: not within the limit.
        """
        end = time.monotonic() + seconds
        while not is_there():
            if time.monotonic() > end:
                raise StepError(f"{what}: not after {seconds:.0f} s")
            time.sleep(0.5)
        self.say(f"{what}: yes")

    def up(self) -> None:
        """The machine gets the programs that it lacks; then the local cluster as everywhere."""
        added = add_missing(self.cache.root / "root", Path("/"))
        subprocess.run(["ldconfig"], check=False)
        self.say(
            f"{len(added)} files of Debian added: {', '.join(it for it in added if '/sbin/' in it or '/cni/' in it)}"
        )
        if any(it.endswith("/iptables") for it in added):
            self.say(f"iptables {choose_iptables(Path('/usr/sbin'))}")
        try:
            cluster.up(self.instance, Topology(node_names=(_NODE,)), self.cache, _UP_SECONDS, is_failure_kept=True)
        except LocalClusterError as error:
            # One part that does not work need not keep the others from being tried.
            self.say(f"the cluster is not all ready: {error}")
            self.say(self.try_kubectl("get", "nodes,pods", "-A", "-o", "wide").stdout)
        version = self.kubectl("version", "-o", "json")
        self.say(" ".join(version.split())[:400])

    def layers(self) -> None:
        """What images are made of; the lower one, once made, stays."""
        make_layers(self.cache, self.scratch, _REPOSITORY)

    def down(self) -> None:
        """End the cluster: its processes, its mounts, its pods' shares of the card."""
        cluster.down(self.instance)

    def images(self) -> None:
        """Layers of folders, and images of them."""
        self.layers()
        self.say("layers made")
        ctr = ensure_built(CONTAINERD, self.cache) / "ctr"
        # Not resolved: the link in the virtual environment is what makes Python find it.
        made = images(self.scratch, Path(sys.executable))
        load(made, {_NODE: self.instance.node(_NODE)}, ctr, self.cache)
        self.say(f"images: {', '.join(it.reference for it in made)}")

    def card(self) -> None:
        """The plugin, and the labels that GPU feature discovery would set."""
        pynvml: Any = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(self.card_index or 0)
        product = str(pynvml.nvmlDeviceGetName(handle)).replace(" ", "-") + "-SHARED"
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20
        labels = {"present": "true", "product": product, "count": "1", "replicas": _SHARES, "memory": str(memory)}
        labels["sharing-strategy"] = "time-slicing"
        words = [f"nvidia.com/gpu.{name}={value}" for name, value in labels.items()]
        self.kubectl("label", "node", _NODE, "--overwrite", *words)
        self.kubectl("taint", "node", _NODE, "cotune.dev/dedicated=trials:NoSchedule", "--overwrite")
        arguments = [f"--replicas={_SHARES}", *([] if self.card_index is None else [f"--index={self.card_index}"])]
        text = Template((_MANIFESTS / "card.yaml").read_text()).substitute(ARGUMENTS=json.dumps(arguments))
        self.kubectl("apply", "-f", "-", text=text)
        self.wait(
            f"the node offers {_SHARES} shares of {product}",
            30,
            lambda: self.get("node", _NODE)["status"]["allocatable"].get("nvidia.com/gpu") == _SHARES,
        )
        self.say(self.kubectl("logs", "-n", "card", "daemonset/device-plugin").strip())

    def smoke(self) -> None:
        """Two pods on the card."""
        self.kubectl("delete", "pod", "smoke-holder", "smoke-reader", "--ignore-not-found", "--wait")
        # One document, for the merged parts; kubectl does not know them.
        self.kubectl("apply", "-f", "-", text=json.dumps(yaml.safe_load((_MANIFESTS / "smoke.yaml").read_text())))

        def ended() -> bool:
            return all(self.get("pod", it)["status"].get("phase") in ("Succeeded", "Failed") for it in names)

        names = ("smoke-holder", "smoke-reader")
        try:
            self.wait("both smoke pods have ended", 45, ended)
        finally:
            for it in names:
                said = self.try_kubectl("logs", it)
                self.say(f"{it}: {self.get('pod', it)['status'].get('phase')}\n{said.stdout[-3000:]}{said.stderr}")
        failed = [it for it in names if self.get("pod", it)["status"]["phase"] != "Succeeded"]
        if failed:
            raise StepError(f"{', '.join(failed)} failed")

    def operator(self) -> None:
        """CRDs, namespaces, the chart's objects."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(_REPOSITORY / "crds"))
        for name in ("cotune-system", "voice-lab", "voice-staging", "voice-prod"):
            self.try_kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", "voice-lab", "--overwrite", "pod-security.kubernetes.io/enforce=baseline")
        rendered = _REPOSITORY / "rendered" / "chart.yaml"
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(rendered))
        self.wait(
            "the operator is available",
            60,
            lambda: self.get("deployment", "cotune", "-n", "cotune-system")["status"].get("availableReplicas", 0) >= 1,
        )

    def collect(self) -> None:
        """Everything that a person needs to see what happened."""
        self.out.mkdir(parents=True, exist_ok=True)
        folder = self.scratch / "collected"
        folder.mkdir(exist_ok=True)
        if self.instance.kubeconfig.exists():
            for kind in _KINDS:
                done = self.try_kubectl("get", kind, "-A", "-o", "yaml", "--show-managed-fields=false")
                (folder / f"{kind}.yaml").write_text(done.stdout or done.stderr)
            wide = self.try_kubectl("get", "pods,nodes,gae,gt,gpp", "-A", "-o", "wide")
            (folder / "wide.txt").write_text(wide.stdout + wide.stderr)
            self._pod_logs(folder)
        for name, path in (
            ("logs", self.instance.logs),
            ("failed-start", Path("/tmp") / f"{self.instance.cgroup}-failed-start"),
        ):
            if path.is_dir():
                for it in path.glob("*.log"):
                    (folder / f"{name}-{it.name}").write_bytes(it.read_bytes()[-200_000:])
        with tarfile.open(self.out / "collected.tar.xz", "w:xz", preset=3) as archive:
            archive.add(folder, "collected")

    def _pod_logs(self, folder: Path) -> None:
        listed = self.try_kubectl("get", "pods", "-A", "-o", "json")
        for pod in json.loads(listed.stdout or '{"items": []}')["items"]:
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            for how in ((), ("--previous",)):
                done = self.try_kubectl("logs", "-n", namespace, name, "--all-containers", *how)
                if done.stdout:
                    (folder / f"pod-{namespace}-{name}{''.join(how)}.log").write_text(done.stdout[-100_000:])


def main() -> int:
    """Take the steps."""
    preparing, job = (
        ("up", "images", "card", "smoke", "operator"),
        ("experiment", "staging", "production", "broken", "fallback"),
    )
    parser = argparse.ArgumentParser(prog="gpu.cluster_on_card", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("steps", nargs="*", default=[*preparing, *job])
    parser.add_argument("--scratch", type=Path, default=Path("/opt/cotune"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--job", choices=tuple(JOBS), default="voice")
    parser.add_argument("--card-index", type=int, help="of several cards, as NVML counts them")
    parser.add_argument("--limit-seconds", type=float, default=540, help="stop watching then; the cluster goes on")
    options = parser.parse_args()
    if unknown := set(options.steps) - {*preparing, *job, "collect", "layers", "down"}:
        parser.error(f"no step {', '.join(sorted(unknown))}")
    here = Cluster(options.scratch, options.out, time.monotonic(), options.card_index)
    main_job = MainJob(here, JOBS[options.job], options.limit_seconds)
    code = 0
    for step in options.steps:
        here.say(f"step {step}")
        try:
            getattr(main_job if step in job else here, step)()
        except NoTimeError as error:
            here.say(str(error))
            code = 3
            break
        except Exception as error:  # Whatever it was: the logs are worth more than a clean end.
            here.say(f"FAILED: {step}: {type(error).__name__}: {error}")
            traceback.print_exc()
            code = 1
            if step not in _CAN_FAIL:
                break
    if options.steps[-1] not in ("layers", "down"):
        here.collect()
        here.say("collected")
    return code


if __name__ == "__main__":
    sys.exit(main())
