"""`make bench-word-errors`: the real speech server's sizes over real speech, clean and in noise, on the local cluster.

The server is images/stt in a pod on the CPU, the speech the clips of `cotune_demo.speech`; what is heard is judged by
`cotune_bench.word_errors`, which runs in the cluster's network.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cotune_demo.cluster import DemoError
from cotune_demo.speech import download, write_corpus
from localcluster import cluster
from localcluster.binaries import CONTAINERD, KUBERNETES, ensure_built
from localcluster.errors import LocalClusterError
from localcluster.images import ImageBuilder, load, reference
from localcluster.locations import Cache, Instance
from localcluster.progress import step
from localcluster.topology import NODE_NAMES, Topology

from cotune_bench.table import print_table, write_result

_SIZES = ("tiny.en", "base")
_IMAGE, _PORT = "stt", 9000
_READY_SECONDS = 300


@dataclass(frozen=True)
class Servers:
    """Speech servers as pods of one cluster, one at a time."""

    instance: Instance
    kubectl: Path

    def heard(self, size: str, corpus: Path, options: Sequence[str]) -> dict[str, Any]:
        """What `cotune_bench.word_errors` says of a server of this size.

        Raises:
            LocalClusterError: it does not become ready, or a clip has no transcription.
        """
        name = f"stt-{size.replace('.', '-')}"
        self._kubectl("apply", "-f", "-", text=json.dumps(_pod(name, size)))
        try:
            self._kubectl("wait", f"pod/{name}", "--for=condition=Ready", f"--timeout={_READY_SECONDS}s")
            address = self._kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}")
            program = (sys.executable, "-m", "cotune_bench.word_errors", str(corpus), f"http://{address}:{_PORT}")
            return json.loads(_run(*cluster.inside_network(self.instance, [*program, *options])))
        finally:
            self._kubectl("delete", "pod", name)

    def _kubectl(self, *arguments: str, text: str = "") -> str:
        return _run(str(self.kubectl), f"--kubeconfig={self.instance.kubeconfig}", *arguments, text=text)


def main() -> int:
    """Exit code 1 with one line when a server or the speech cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m cotune_bench.whisper_sizes", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="how often each ratio is mixed anew")
    parser.add_argument("--snr-db", type=int, nargs="+", default=[10, 5, 0])
    options = parser.parse_args()
    judged = ("--seeds", str(options.seeds), "--snr-db", *map(str, options.snr_db))
    try:
        results = _measured(judged)
    except (DemoError, LocalClusterError) as error:
        print(f"bench-word-errors: error: {error}", file=sys.stderr)
        return 1
    conditions = [it["condition"] for it in results[0]["conditions"]]
    rows = [
        [result["model"], *(f"{it['wordErrorRate']:.1%} of {it['words']}" for it in result["conditions"])]
        for result in results
    ]
    print_table(["word errors", *conditions], rows)
    result = {
        "command": f"make bench-word-errors SEEDS={options.seeds}",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "image": reference(_IMAGE),
        "sizes": results,
    }
    write_result("word-errors", result)
    return 0


def _measured(judged: Sequence[str]) -> list[dict[str, Any]]:
    cache, instance, node = Cache.from_environment(), Instance.named("word-errors"), NODE_NAMES[0]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        write_corpus(corpus, download(), snr_db=None)
        cluster.up(instance, Topology(node_names=(node,)), cache)
        try:
            images = ImageBuilder(cache).build([_IMAGE])
            load(images, {node: instance.node(node)}, ensure_built(CONTAINERD, cache) / "ctr", cache)
            servers = Servers(instance, ensure_built(KUBERNETES, cache) / "kubectl")
            results: list[dict[str, Any]] = []
            for size in _SIZES:
                with step(f"{size} hears {len(list(corpus.glob('*.wav')))} clips, clean and in noise"):
                    results.append(servers.heard(size, corpus, judged))
            return results
        finally:
            cluster.down(instance)


def _pod(name: str, size: str) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "asr",
        "image": reference(_IMAGE),
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "ASR_DEVICE", "value": "cpu"}, {"name": "ASR_WHISPER_SIZE", "value": size}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": _PORT}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise LocalClusterError(f"{Path(command[0]).name} ...: {last}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
