"""The patch that belongs into Git."""

import yaml
from cotune.api.grant import GrantTarget, WorkloadRef
from cotune.api.profile import Change
from cotune.gitops.patch import as_component, as_yaml, patches

CHANGES = [
    Change(component="stt", env="ASR_WHISPER_SIZE", to="tiny"),
    Change(component="stt", env="BEAMS", to="1"),
]


def target(component: str, name: str, container: str) -> GrantTarget:
    reference = WorkloadRef(api_version="apps/v1", kind="Deployment", name=name)
    return GrantTarget(component=component, workload_ref=reference, container=container)


TARGETS = {"judge": target("judge", "judge", "vllm"), "stt": target("stt", "whisper", "asr")}


def test_there_is_a_patch_for_each_workload_that_changes_with_the_variables_and_nothing_else() -> None:
    [made] = patches(CHANGES, TARGETS)

    assert made == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "whisper"},
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "asr",
                            "env": [{"name": "ASR_WHISPER_SIZE", "value": "tiny"}, {"name": "BEAMS", "value": "1"}],
                        }
                    ]
                }
            }
        },
    }


def test_a_value_that_looks_like_a_number_stays_a_text() -> None:
    [made] = patches(CHANGES, TARGETS)

    assert "value: '1'" in as_yaml(made)
    component = yaml.safe_load(as_yaml(as_component([made])))
    assert [yaml.safe_load(it["patch"]) for it in component["patches"]] == [made]


def test_a_component_names_its_targets_and_a_dot_in_a_name_is_a_dot() -> None:
    component = as_component(patches(CHANGES, {"stt": target("stt", "whisper.v1", "asr")}))

    [patch] = component["patches"]
    assert patch["target"] == {"group": "apps", "version": "v1", "kind": "Deployment", "name": r"whisper\.v1"}
