"""The pod of one run of a stage's probe: in the profile's namespace, on any node, without a share of a card."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cotune.api.grant import GrantService
from cotune.api.stage_probe import StageProbe
from cotune.measurement.contract import ProbeConfiguration
from cotune.trials.lifecycle import measuring_deadline
from cotune.trials.probe_files import ProbeFiles
from cotune.trials.probe_pod import ProbeImage, confined, probe_container, probe_stream, seed_of
from cotune.trials.render import Manifest, with_digest

LABEL_PROFILE = "cotune.dev/profile"
LABEL_STAGE = "cotune.dev/stage"

START_SECONDS = 300
"""Until it runs: a node for it, its image."""

_MOST_OF_NAME = 20


@dataclass(frozen=True)
class StageIdentity:
    """The stage of a profile that a probe belongs to."""

    namespace: str
    """The profile's."""
    profile: str
    uid: str
    stage: str
    stage_namespace: str
    retries: int
    """How many times a stage of the profile has started anew: what a former attempt has left is none of this one's."""

    def owner_reference(self) -> Manifest:
        """Makes the garbage collector remove the pods with the profile."""
        return {
            "apiVersion": "cotune.dev/v1alpha1",
            "kind": "GpuProfile",
            "name": self.profile,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def pod_name(self, number: int) -> str:
        """Of a run, by its number among all of the stage: the same however often it is asked for."""
        told = f"{self.uid}/{self.stage}/{self.retries}/{number}"
        parts = (it[:_MOST_OF_NAME].rstrip("-.") for it in (self.profile, self.stage))
        return f"{'-'.join(parts)}-probe-{number}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def run_deadline_seconds(probe: StageProbe) -> int:
    """How long the pod of a run may take."""
    return START_SECONDS + round(measuring_deadline(probe).total_seconds())


def stage_probe_pod(
    stage: StageIdentity,
    probe: StageProbe,
    services: Mapping[str, GrantService],
    image: ProbeImage,
    number: int,
    seed_number: int,
) -> Manifest:
    """The pod of a run.

    Args:
        stage: whose it is.
        probe: what it sends.
        services: component to where it is sent, in the stage's namespace.
        image: of the probe.
        number: of the run among all of the stage.
        seed_number: of the run in its series: those of the baseline and of the stage meet the same arrivals.
    """
    files = ProbeFiles.of(probe)
    configuration = ProbeConfiguration(
        gpu=False,
        seed=seed_of(f"{stage.profile}/{stage.stage}/{seed_number}"),
        warmup_seconds=probe.warmup_seconds,
        duration_seconds=probe.duration_seconds,
        cooldown_seconds=probe.cooldown_seconds,
        paces_first_requests=True,
        streams=tuple(
            probe_stream(
                it,
                it.protocol,
                f"{services[it.component].name}.{stage.stage_namespace}.svc",
                services[it.component].port,
                files,
            )
            for it in probe.streams
        ),
    )
    return with_digest(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": stage.pod_name(number),
                "namespace": stage.namespace,
                # A label's value has 63 characters at most, a profile's name more.
                "labels": {LABEL_PROFILE: stage.profile[:63].rstrip("-."), LABEL_STAGE: stage.stage},
                "annotations": {},
                "ownerReferences": [stage.owner_reference()],
            },
            "spec": confined(probe_container(image, configuration, files), files)
            | {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                # Nobody may be there to delete it: it loads somebody's production.
                "activeDeadlineSeconds": run_deadline_seconds(probe),
            },
        }
    )
