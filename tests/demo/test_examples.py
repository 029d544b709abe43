"""The examples agree with the models, and with each other."""

from pathlib import Path
from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec
from cotune.api.grant import GrantSpec, Permission
from cotune.api.profile import ProfileSpec
from cotune.experiments.predictions import plan_experiment
from cotune.measurement.quality import Match, due_times, read_questions
from cotune.measurement.requests import read_dataset, read_trace
from cotune.planning.model_config import read_model_config
from cotune.search.space import Space
from cotune.trials.copied_stack import CopiedService, CopiedStack, CopyRefusal, granted, sanitized, with_stack
from support.examples import FILES, documents, one

MODELS = {"GpuAllocationExperiment": ExperimentSpec, "GpuProfile": ProfileSpec, "GpuTuningGrant": GrantSpec}
STACKS = ["voice-stack.yaml", "voice-stack-full.yaml"]
NOTHING_FITS = "nothing-fits.yaml"
REAL = "real-cpu/experiment.yaml"
LOADS = "load-shapes.yaml"
SHARING = "sharing.yaml"
QUALITY = "quality.yaml"
ONE_CARD = "one-card.yaml"
SIMPLER, COPIED = "target/simpler.yaml", "target/copied.yaml"
STAGES = {
    "simulated/voice-staging.yaml": "voice-stack.yaml",
    "simulated/voice-prod.yaml": "voice-stack.yaml",
    "real-cpu/voice-staging.yaml": REAL,
    "real-cpu/voice-prod.yaml": REAL,
    "target/edge-staging.yaml": SIMPLER,
    "target/edge-prod.yaml": SIMPLER,
}
"""A stage's services, and the experiment whose winner travels there."""
BATCHES = "batches.yaml"
BROKEN = ["broken/cannot-start.yaml", "broken/too-much-for-production.yaml"]
_FEWEST_SAMPLES = 200


def experiment(file: str) -> ExperimentSpec:
    return ExperimentSpec.model_validate(one(file, "GpuAllocationExperiment")["spec"])


def test_no_example_is_forgotten_here() -> None:
    assert (
        sorted(
            [*STACKS, NOTHING_FITS, REAL, LOADS, SHARING, QUALITY, SIMPLER, COPIED, BATCHES, ONE_CARD, *STAGES, *BROKEN]
        )
        == FILES
    )


@pytest.mark.parametrize("file", FILES)
def test_every_resource_of_ours_is_valid(file: str) -> None:
    ours = [it for it in documents(file) if it["apiVersion"] == "cotune.dev/v1alpha1"]

    assert ours
    for it in ours:
        MODELS[it["kind"]].model_validate(it["spec"])


def test_the_full_stack_asks_the_same_question_as_the_short_one() -> None:
    short, full = (experiment(file) for file in STACKS)

    assert full.parameters == short.parameters
    assert full.objectives == short.objectives
    assert full.constraints == short.constraints
    assert [(it.name, it.depends_on, it.memory) for it in full.stack.components] == [
        (it.name, it.depends_on, it.memory) for it in short.stack.components
    ]


def test_what_does_not_fit_is_the_storys_model_on_the_storys_card() -> None:
    story, nothing = experiment("voice-stack.yaml"), experiment(NOTHING_FITS)

    assert nothing.gpu == story.gpu
    assert one(NOTHING_FITS, "ConfigMap") == one("voice-stack.yaml", "ConfigMap")
    assert nothing.stack.components[0].memory == story.stack.components[1].memory


def test_the_full_stack_measures_long_enough_for_a_p95() -> None:
    full = experiment("voice-stack-full.yaml")

    assert full.search.repeats >= 2
    for stream in full.workload.streams:
        assert float(stream.arrivals.rate_per_second or 0) * full.workload.duration_seconds >= _FEWEST_SAMPLES


def test_the_files_that_streams_name_are_there_and_the_probe_can_read_them(tmp_path: Path) -> None:
    data = one(LOADS, "ConfigMap")["data"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    streams = experiment(LOADS).workload.streams
    traces = [read_trace(tmp_path / it.arrivals.trace_ref.key) for it in streams if it.arrivals.trace_ref]
    datasets = [read_dataset(tmp_path / it.dataset_ref.key) for it in streams if it.dataset_ref]

    assert {it.component for it in streams} == {"chat"}
    assert [len(it) for it in (*traces, *datasets)] == [6, 2]


def test_the_questions_of_the_example_can_be_read_and_its_window_has_room_for_them(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text(one(QUALITY, "ConfigMap")["data"]["questions.jsonl"])
    workload = experiment(QUALITY).workload

    questions = read_questions(tmp_path / "questions.jsonl")

    assert {it.quality_ref.key for it in workload.streams if it.quality_ref} == {"questions.jsonl"}
    assert len(due_times(len(questions), workload.duration_seconds)) == 6
    assert {it.match for it in questions} == set(Match)


def test_every_condition_of_the_example_has_enough_transcriptions_for_a_p95() -> None:
    (speech,) = (it for it in experiment(QUALITY).workload.streams if it.corpus_ref)

    assert speech.corpus_ref is not None
    assert speech.corpus_ref.noise is not None
    requests = float(speech.arrivals.rate_per_second or 0) * experiment(QUALITY).workload.duration_seconds
    assert requests / len(speech.corpus_ref.noise.conditions) >= _FEWEST_SAMPLES


def test_only_files_that_say_so_use_the_simulation() -> None:
    for file in ("voice-stack-full.yaml", *(it for it in FILES if it.startswith("real-cpu/"))):
        assert "simulat" not in str(documents(file))


def test_the_real_stack_asks_for_no_card() -> None:
    spec = experiment(REAL)

    assert spec.gpu is None
    assert "nvidia.com/gpu" not in str(documents(REAL))


@pytest.mark.parametrize("file", STAGES)
def test_a_grant_names_deployments_containers_and_variables_that_exist(file: str) -> None:
    deployments = {it["metadata"]["name"]: it for it in documents(file) if it["kind"] == "Deployment"}
    grant = GrantSpec.model_validate(one(file, "GpuTuningGrant")["spec"])
    components = {it.name for it in experiment(STAGES[file]).stack.components}

    assert components <= {it.component for it in grant.targets}
    assert components == {it.component for it in grant.targets} or Permission.COPY_SPEC in grant.allow
    for target in grant.targets:
        deployment = deployments[target.workload.name]
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        containers: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
        container = next(it for it in containers if it["name"] == target.container)
        assert {*target.env, *target.copy_env} <= {it["name"] for it in container["env"]}


def test_the_simpler_experiment_and_the_copied_one_ask_the_same_question() -> None:
    simpler, copied = experiment(SIMPLER), experiment(COPIED)

    assert copied.parameters == simpler.parameters
    assert copied.workload == simpler.workload
    assert copied.objectives == simpler.objectives
    assert copied.constraints == simpler.constraints
    assert copied.evaluation == simpler.evaluation
    assert [it.name for it in copied.stack.components] == [it.name for it in simpler.stack.components]
    assert all(it.memory is None for it in simpler.stack.components), "the mistake is made without a planner"


def test_beside_what_runs_in_staging_there_is_no_room_for_most_of_the_card() -> None:
    """As the page on validation has it."""
    file, spec = "target/edge-staging.yaml", experiment(COPIED)
    grant = GrantSpec.model_validate(one(file, "GpuTuningGrant")["spec"])
    own = [it.name for it in spec.stack.components]
    targets = granted([grant], "edge-lab", "edge-staging", own)
    assert not isinstance(targets, CopyRefusal)
    templates = {it["metadata"]["name"]: it["spec"]["template"] for it in documents(file) if it["kind"] == "Deployment"}
    services = [
        CopiedService(
            it.component,
            it.workload.name,
            sanitized(templates[it.workload.name], it.container, {*it.env, *it.copy_env}).template,
            memory_mib=it.memory_mib,
        )
        for it in targets
    ]
    stack = CopiedStack("edge-staging", tuple(services))
    model = read_model_config(str(next(iter(one(COPIED, "ConfigMap")["data"].values()))))

    plan = plan_experiment(with_stack(spec, stack), {"judge": model}, {})

    assert stack.beside(own) == ("embeddings", "chat")
    said = {tuple(it.values.values()): plan.predict(it) for it in Space(spec.parameters)}
    refusals = {values: (it.reason, it.message) for values, it in said.items() if it is not None and not it.fits}
    taken = ("CardTaken", "judge: 9.40 GiB are free when it starts, and 10.20 GiB are asked for")
    assert refusals == {("0.85", "tiny"): taken, ("0.85", "small"): taken}


@pytest.mark.parametrize("file", STAGES)
def test_a_stage_starts_from_the_baseline(file: str) -> None:
    baseline = {it.bind.env: it.baseline for it in experiment(STAGES[file]).parameters}
    pods = [it["spec"]["template"]["spec"] for it in documents(file) if it["kind"] == "Deployment"]
    values = {it["name"]: it["value"] for pod in pods for container in pod["containers"] for it in container["env"]}

    assert {name: values[name] for name in baseline} == baseline


@pytest.mark.parametrize("file", BROKEN)
def test_a_broken_profile_travels_as_the_winners_does(file: str) -> None:
    spec = ProfileSpec.model_validate(one(file, "GpuProfile")["spec"])
    story = experiment("voice-stack.yaml")

    assert story.profile_template is not None
    assert spec.rollout.stages == story.profile_template.rollout.stages
    assert spec.start_order == tuple(it.name for it in story.stack.components)
