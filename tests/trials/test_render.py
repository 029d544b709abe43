from typing import Any

import pytest
from cotune.search.space import Space
from cotune.trials.render import (
    TemplateError,
    TrialIdentity,
    component_pod,
    component_service,
    environment,
)
from support.resources import voice_experiment

SPEC = voice_experiment()
JUDGE = SPEC.stack.components[0]
TRIAL = TrialIdentity("voice-lab", "voice-7f3a0000-0", "uid-1", "voice")


def rendered(template: dict[str, Any] | None = None) -> dict[str, Any]:
    component = JUDGE if template is None else JUDGE.model_copy(update={"template": template})
    variables = environment("judge", SPEC.parameters, Space(SPEC.parameters).baseline)
    return component_pod(TRIAL, component, variables, "lab")


def test_a_candidates_values_become_environment_variables_of_the_bound_component_only() -> None:
    baseline = Space(SPEC.parameters).baseline

    assert environment("judge", SPEC.parameters, baseline) == {"JUDGE_MEMORY": "0.50"}
    assert environment("stt", SPEC.parameters, baseline) == {"ASR_WHISPER_SIZE": "small"}
    assert rendered()["spec"]["containers"][0]["env"] == [{"name": "JUDGE_MEMORY", "value": "0.50"}]


def test_a_value_of_the_template_gives_way_and_later_variables_may_refer_to_it() -> None:
    env = [{"name": "ALL", "value": "$(JUDGE_MEMORY)"}, {"name": "JUDGE_MEMORY", "value": "0.9"}]

    pod = rendered({"spec": {"containers": [{"name": "vllm", "image": "x", "env": env}]}})

    assert pod["spec"]["containers"][0]["env"] == [
        {"name": "JUDGE_MEMORY", "value": "0.50"},
        {"name": "ALL", "value": "$(JUDGE_MEMORY)"},
    ]


def test_a_trial_pod_has_no_token_never_restarts_and_goes_with_its_trial() -> None:
    pod = rendered()

    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["metadata"]["ownerReferences"] == [TRIAL.owner_reference()]


def test_the_node_is_asked_of_the_scheduler_in_every_alternative() -> None:
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term, {}]}}}

    pod = rendered({"spec": {"containers": [{"name": "vllm", "image": "x"}], "affinity": affinity}})

    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    chosen = [{"key": "metadata.name", "operator": "In", "values": ["lab"]}]
    assert required["nodeSelectorTerms"] == [term | {"matchFields": chosen}, {"matchFields": chosen}]
    assert "nodeName" not in pod["spec"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, r"judge: template\.spec must be an object"),
    ({"spec": {"containers": []}}, r"template\.spec\.containers must name at least one"),
    ({"spec": {"containers": [{}], "hostPID": True}}, r"template\.spec\.hostPID must not be set"),
    ({"spec": {"containers": [{}], "nodeName": "x"}}, r"template\.spec\.nodeName must not be set"),
    ({"spec": {"containers": [{}], "serviceAccountName": "x"}}, r"template\.spec\.serviceAccountName must not"),
]


@pytest.mark.parametrize(("template", "message"), REFUSED)
def test_a_template_that_takes_what_is_not_its_own_is_refused(template: dict[str, Any], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        rendered(template)


def test_rendering_changes_neither_its_input_nor_its_output() -> None:
    before = JUDGE.model_dump_json()

    assert rendered() == rendered()
    assert JUDGE.model_dump_json() == before


def test_a_service_finds_its_pod_and_names_stay_within_their_limit() -> None:
    long = TrialIdentity("voice-lab", "v" * 63, "uid-1", "voice")

    service = component_service(long, JUDGE)
    pod = component_pod(long, JUDGE, {}, "lab")

    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert len(service["metadata"]["name"]) <= 63
    assert (
        service["metadata"]["name"]
        != component_service(TrialIdentity("voice-lab", "v" * 62 + "w", "uid-2", "voice"), JUDGE)["metadata"]["name"]
    )
