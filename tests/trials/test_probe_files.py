"""Where the probe finds what the streams name."""

from typing import Any

from cotune.api.experiment import ExperimentSpec, Workload
from cotune.measurement.contract import ProbeConfiguration
from cotune.trials.probe_files import ProbeFiles
from cotune.trials.probe_pod import ProbeImage, probe_pod
from cotune.trials.render import TrialIdentity
from support.resources import manifest

CLAIM = {"persistentVolumeClaim": {"claimName": "speech", "path": "clean/en"}}
SAME_CLAIM = {"persistentVolumeClaim": {"claimName": "speech"}}
IMAGE = {"image": {"reference": "registry.example.com/speech:1", "path": "clips"}}
URL = {"url": {"url": "https://example.com/speech.tar", "sha256": "a" * 64}}
QUESTIONS = {"configMap": "quality", "key": "questions.jsonl"}


def heard(corpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"component": "stt", "arrivals": {"ratePerSecond": "1"}, "corpusRef": corpus, **more}


def workload(*corpora: dict[str, Any]) -> Workload:
    return Workload.model_validate({"streams": [heard(it) for it in corpora]})


def test_every_volume_is_mounted_once_to_be_read() -> None:
    files = ProbeFiles.of(workload({"configMap": "b"}, {"configMap": "a"}, CLAIM, SAME_CLAIM, IMAGE, IMAGE, URL))

    assert files.volumes() == [
        {"name": "files-0", "configMap": {"name": "a"}},
        {"name": "files-1", "configMap": {"name": "b"}},
        {"name": "claim-0", "persistentVolumeClaim": {"claimName": "speech", "readOnly": True}},
        {"name": "image-0", "image": {"reference": "registry.example.com/speech:1", "pullPolicy": "IfNotPresent"}},
    ]
    assert [it["name"] for it in files.mounts()] == [it["name"] for it in files.volumes()]
    assert all(it["readOnly"] for it in files.mounts())
    assert len({it["mountPath"] for it in files.mounts()}) == 4


def test_a_corpus_is_the_folder_that_its_source_names_and_one_that_is_fetched_has_none() -> None:
    load = workload({"configMap": "b"}, {"configMap": "a"}, CLAIM, SAME_CLAIM, IMAGE, URL)
    files = ProbeFiles.of(load)

    assert [files.corpus(it.corpus_ref) for it in load.streams] == [
        "/files/1",
        "/files/0",
        "/claims/0/clean/en",
        "/claims/0",
        "/images/0/clips",
        None,
    ]


def test_the_probe_is_told_where_its_speech_and_its_questions_are_and_what_to_mix_in() -> None:
    spec = manifest("GpuAllocationExperiment")["spec"]
    speech, judge = spec["workload"]["streams"]
    noise = {"snrDb": [10], "type": "Pink", "seed": 3, "clean": False}
    spec["workload"]["streams"] = [
        speech | {"corpusRef": URL | {"noise": noise}},
        judge | {"qualityRef": QUESTIONS},
        heard(IMAGE),
    ]
    pod = probe_pod(
        TrialIdentity("voice-lab", "voice-a-0", "uid-1", "voice"),
        ExperimentSpec.model_validate(spec),
        "lab",
        ProbeImage("example/probe:1", "IfNotPresent"),
    )

    text = pod["spec"]["containers"][0]["env"][0]["value"]
    fetched, asked, mounted = ProbeConfiguration.model_validate_json(text).streams
    assert fetched.corpus is None
    assert fetched.corpus_url is not None
    assert fetched.corpus_url.model_dump(by_alias=True) == URL["url"]
    assert fetched.noise is not None
    assert fetched.noise.model_dump(by_alias=True, mode="json") == noise | {"snrDb": [10]}
    assert asked.questions == "/files/0/questions.jsonl"
    assert (mounted.corpus, mounted.noise) == ("/images/0/clips", None)
