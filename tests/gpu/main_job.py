"""The main job on the real card, as a user does it: an experiment, its profile through two stages, a broken one, a lie.

Every step looks first at what is there, so that a second call goes on where the first one ended. The card is one for
all: while trials run nothing else is on it, and a stage's services are cleared away before the next stage's start.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import yaml

from gpu.sharing import cuda_card

if TYPE_CHECKING:
    from gpu.cluster_on_card import Cluster

_MANIFESTS = Path(__file__).parent / "manifests"
_LAB, _STAGING, _PRODUCTION = "voice-lab", "voice-staging", "voice-prod"
_FALLBACK = "fallback"
_OVER = ("Succeeded", "Failed")
_TRIAL_OVER = ("Succeeded", "Failed", "Skipped", "Invalid")
_ROLLOUT_OVER = ("Promoted", "RolledBack", "Degraded")
_HELD_GIB, _HELD_SECONDS = 4, 12
_POLL_SECONDS = 1.0

Json = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One stack; its files lie in the folder of its name."""

    name: str
    """The experiment's, and the broken profile's with `-cannot-start`."""
    deployments: tuple[str, ...]
    """Of staging and production, in the order in which they start."""


JOBS = {it.name: it for it in (Job("voice", ("llm", "whisper")), Job("speech", ("whisper",)))}
"""`speech` is the speech server alone: the whole way in a few minutes, without vLLM."""


class NoTimeError(Exception):
    """The call's time is up; what was begun goes on in the cluster."""


class MainJob:
    """The steps."""

    def __init__(self, cluster: "Cluster", job: Job, limit_seconds: float) -> None:
        self._cluster = cluster
        self._job = job
        self._limit = limit_seconds
        self._told: dict[str, str] = {}

    def experiment(self) -> None:
        """Apply it while somebody else's process is still on the card, and watch it to its end."""
        holder = None
        if self._get("gae", self._job.name) is None:
            self._inputs()
            holder = self._holder()
            self._apply(f"{self._job.name}/experiment.yaml", PRODUCT=self._product())
        begin = time.monotonic()
        try:
            while True:
                if holder and time.monotonic() - begin > _HELD_SECONDS:
                    self._cluster.say(f"the neighbour of {_HELD_GIB} GiB ends after {_HELD_SECONDS} s")
                    _end(holder)
                    holder = None
                self._tell_trials()
                body = self._get("gae", self._job.name)
                status: Json = (body or {}).get("status") or {}
                # A trial that was made already goes on when its experiment is over, and holds the card.
                if status.get("phase") in _OVER and self._are_trials_over():
                    self._cluster.say(f"experiment {status['phase']}: {json.dumps(status.get('verdict'))[:1500]}")
                    self._cluster.say(f"winner {json.dumps(status.get('winner'))}, profile {status.get('profile')}")
                    return
                self._pause()
        finally:
            if holder:
                _end(holder)

    def staging(self) -> None:
        """The profile's first stage."""
        self._stage(0, _STAGING)

    def production(self) -> None:
        """The second one, on the same card: staging's services are scaled away before."""
        self._stop(_STAGING)
        self._stage(1, _PRODUCTION)

    def broken(self) -> None:
        """A profile that cannot start in production is taken back there."""
        before = self._values(_PRODUCTION)
        self._apply(f"{self._job.name}/broken.yaml")
        self._rollout(f"{self._job.name}-cannot-start", lambda it: it.get("phase") in _ROLLOUT_OVER)
        self._ready(_PRODUCTION)
        self._cluster.say(f"values before {before} and after {self._values(_PRODUCTION)}")

    def fallback(self) -> None:
        """A speech server that computes on the CPU: the first trial of it is enough to see that none may count."""
        for it in (_STAGING, _PRODUCTION):
            self._stop(it)
        if self._get("gae", _FALLBACK) is None:
            self._inputs()
            self._apply("speech/fallback.yaml", PRODUCT=self._product())
        while True:
            self._tell_trials()
            status: Json = (self._get("gae", _FALLBACK) or {}).get("status") or {}
            if status.get("phase") in _OVER or any(
                name.startswith(_FALLBACK) and ": Invalid" in words for name, words in self._told.items()
            ):
                return
            self._pause()

    def _inputs(self) -> None:
        scratch = self._cluster.scratch
        self._config_map("speech", *(f"--from-file={it}" for it in sorted((scratch / "speech").iterdir())))
        config = scratch / "models" / "llm-1b4" / "config.json"
        if config.exists():
            self._config_map("models", f"--from-file=llm-1b4.json={config}")

    def _config_map(self, name: str, *files: str) -> None:
        made = self._cluster.kubectl("create", "configmap", name, "-n", _LAB, *files, "--dry-run=client", "-o", "json")
        self._cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=made)

    def _stage(self, number: int, namespace: str) -> None:
        profile = self._profile()
        if self._stage_phase(profile, number) == "Promoted":
            self._cluster.say(f"{namespace} is promoted already")
            return
        if self._cluster.try_kubectl("get", "deployment", "whisper", "-n", namespace).returncode != 0:
            self._apply(f"{self._job.name}/services.yaml", NAMESPACE=namespace)
        self._ready(namespace)
        patch = [{"op": "add", "path": f"/spec/rollout/stages/{number}/approval", "value": "Auto"}]
        self._cluster.kubectl("patch", "gpp", profile, "-n", _LAB, "--type=json", "-p", json.dumps(patch))
        self._cluster.say(f"stage {number} of {profile} is approved")
        self._rollout(
            profile,
            lambda it: self._phase_of(it, number) in _ROLLOUT_OVER,
        )
        self._cluster.say(f"{namespace}: {self._values(namespace)}")

    def _rollout(self, profile: str, is_over: Callable[[Json], bool]) -> None:
        while True:
            status: Json = (self._get("gpp", profile) or {}).get("status") or {}
            stages = [f"{it.get('name')} {it.get('phase')} {it.get('message', '')}" for it in status.get("stages", ())]
            self._tell(profile, f"{status.get('phase')}: {'; '.join(stages)}")
            if is_over(status):
                return
            self._pause()

    def _profile(self) -> str:
        status: Json = (self._get("gae", self._job.name) or {}).get("status") or {}
        if name := status.get("profile"):
            return str(name)
        # The stages can be shown all the same, and nobody may take it for what the experiment has found.
        name = f"{self._job.name}-by-hand"
        if self._get("gpp", name) is None:
            self._cluster.say("the experiment has made no profile: one written by hand goes through the stages")
            self._apply(f"{self._job.name}/by-hand.yaml")
        return name

    def _stage_phase(self, profile: str, number: int) -> str | None:
        return self._phase_of((self._get("gpp", profile) or {}).get("status") or {}, number)

    def _phase_of(self, status: Json, number: int) -> str | None:
        stages: list[Json] = status.get("stages") or []
        return stages[number].get("phase") if number < len(stages) else None

    def _ready(self, namespace: str) -> None:
        """Both services run, the speech server after vLLM."""
        for name in self._job.deployments:
            begin = time.monotonic()
            while True:
                body = json.loads(self._cluster.kubectl("get", "deployment", name, "-n", namespace, "-o", "json"))
                if body.get("status", {}).get("readyReplicas") == body["spec"]["replicas"] != 0:
                    self._cluster.say(f"{namespace}/{name} ready after {time.monotonic() - begin:.0f} s")
                    break
                self._pause()

    def _stop(self, namespace: str) -> None:
        self._cluster.try_kubectl("scale", "deployment", "--all", "--replicas=0", "-n", namespace)
        while json.loads(self._cluster.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]:
            self._pause()
        self._cluster.say(f"{namespace} is stopped")

    def _values(self, namespace: str) -> "dict[str, str]":
        listed = json.loads(self._cluster.kubectl("get", "deployments", "-n", namespace, "-o", "json"))["items"]
        containers = [it for body in listed for it in body["spec"]["template"]["spec"]["containers"]]
        return {it["name"]: it.get("value", "") for container in containers for it in container.get("env", ())}

    def _product(self) -> str:
        node = json.loads(self._cluster.kubectl("get", "node", "lab", "-o", "json"))
        return str(node["metadata"]["labels"]["nvidia.com/gpu.product"]).removesuffix("-SHARED")

    def _apply(self, file: str, **values: str) -> None:
        """Only `$NAME` of a word in capitals is replaced: `$(NAME)` is Kubernetes' own."""
        text = Template((_MANIFESTS / file).read_text()).safe_substitute(values)
        items = list(yaml.safe_load_all(text))
        self._cluster.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        self._cluster.say(f"applied {file}")

    def _get(self, kind: str, name: str) -> "Json | None":
        done = self._cluster.try_kubectl("get", kind, name, "-n", _LAB, "-o", "json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def _tell_trials(self) -> None:
        done = self._cluster.try_kubectl("get", "gputrials", "-n", _LAB, "-o", "json")
        if done.returncode != 0:
            return
        for body in json.loads(done.stdout)["items"]:
            status: Json = body.get("status") or {}
            spec: Json = body["spec"]
            values = ", ".join(f"{it['name']} {it['value']}" for it in spec["candidate"])
            words = f"{values}, {spec.get('purpose')} {spec.get('repeat')}: {status.get('phase')}"
            if status.get("message"):
                words += f", {status.get('reason')}: {status['message'][:300]}"
            if status.get("fitness"):
                figures = {it["metric"]: it["value"] for it in status.get("measurements", ())}
                words += f", fitness {status['fitness']} {json.dumps(figures)[:700]}"
            self._tell(body["metadata"]["name"], words)

    def _are_trials_over(self) -> bool:
        listed = json.loads(self._cluster.kubectl("get", "gputrials", "-n", _LAB, "-o", "json"))["items"]
        statuses: list[Json] = [it.get("status") or {} for it in listed]
        return all(it.get("phase") in _TRIAL_OVER for it in statuses)

    def _tell(self, subject: str, words: str) -> None:
        if self._told.get(subject) != words:
            self._told[subject] = words
            self._cluster.say(f"{subject}: {words}")

    def _pause(self) -> None:
        if time.monotonic() - self._cluster.begin > self._limit:
            raise NoTimeError(f"{self._limit:.0f} s are used up; the next call goes on")
        time.sleep(_POLL_SECONDS)

    def _holder(self) -> "subprocess.Popen[bytes]":
        """Somebody else's process, which NVML shows and Kubernetes does not know."""
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu.holder", str(_HELD_GIB)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | cuda_card(self._cluster.card_index),
        )
        assert process.stdout
        process.stdout.readline()
        self._cluster.say(f"a neighbour outside Kubernetes holds {_HELD_GIB} GiB of the card")
        return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for it in (process.stdin, process.stdout):
        if it:
            it.close()
