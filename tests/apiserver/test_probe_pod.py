"""The probe's pod as the API server takes it, under Pod Security `restricted`."""

import pytest
from cotune.api.experiment import ExperimentSpec
from cotune.trials.probe_pod import ProbeImage, probe_pod
from cotune.trials.render import TrialIdentity
from support.api_server import ApiServer
from support.resources import manifest

pytestmark = pytest.mark.apiserver

SOURCES = [
    {"configMap": "speech"},
    {"persistentVolumeClaim": {"claimName": "speech", "path": "clean/en"}},
    {"image": {"reference": "registry.example.com/speech:1", "path": "clips", "pullPolicy": "Always"}},
    {"url": {"url": "https://example.com/speech.tar", "sha256": "a" * 64}, "noise": {"snrDb": [10, -5]}},
]


def test_a_pod_that_reads_speech_of_every_source_is_accepted(api_server: ApiServer) -> None:
    assert api_server.run("create", "namespace", "restricted").accepted
    labels = ("pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
    assert api_server.run("label", "namespace", "restricted", *labels).accepted
    assert api_server.run("-n", "restricted", "create", "serviceaccount", "default").text
    spec = manifest("GpuAllocationExperiment")["spec"]
    speech, judge = spec["workload"]["streams"]
    spec["workload"]["streams"] = [judge, *(speech | {"corpusRef": source} for source in SOURCES)]
    identity = TrialIdentity("restricted", "voice-a-0", "3c0ffee0-0000-4000-8000-000000000000", "voice")
    pod = probe_pod(identity, ExperimentSpec.model_validate(spec), "lab", ProbeImage("example/probe:1", "IfNotPresent"))

    answer = api_server.apply(pod, "--dry-run=server", "--validate=strict")

    assert answer.accepted, answer.text
    assert "warning" not in answer.text.lower(), answer.text
