"""Who is seen to keep a workload as Git has it, and which fields come from there."""

import json
from typing import Any

import pytest
from cotune.gitops.ownership import (
    HELM_RELEASE,
    INSTANCE,
    KUSTOMIZATION,
    LAST_APPLIED,
    TRACKING_ID,
    Tool,
    kept,
)

REPLICAS: dict[str, Any] = {"f:replicas": {}}
SIZE = "ASR_WHISPER_SIZE"
VARIABLE: dict[str, Any] = {
    "f:template": {
        "f:spec": {"f:containers": {'k:{"name":"asr"}': {"f:env": {f'k:{{"name":"{SIZE}"}}': {"f:value": {}}}}}}
    }
}
IMAGE: dict[str, Any] = {"f:template": {"f:spec": {"f:containers": {'k:{"name":"asr"}': {"f:image": {}}}}}}
TRACKED = {TRACKING_ID: "voice:apps/Deployment:voice-prod/whisper"}
KUSTOMIZED = {f"{KUSTOMIZATION}/name": "voice", f"{KUSTOMIZATION}/namespace": "flux-system"}
RELEASED = {f"{HELM_RELEASE}/name": "voice", f"{HELM_RELEASE}/namespace": "voice-prod"}


def owned(manager: str, fields: dict[str, Any], operation: str = "Apply", **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": {"f:spec": fields}, **more}


def workload(*entries: dict[str, Any], **metadata: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "whisper", "managedFields": list(entries), **metadata}, "spec": {}}


def last_applied(spec: dict[str, Any]) -> dict[str, str]:
    return {LAST_APPLIED: json.dumps({"spec": spec})}


def env(*names: str) -> dict[str, Any]:
    containers = [{"name": "asr", "env": [{"name": it, "value": "x"} for it in names]}]
    return {"template": {"spec": {"containers": containers}}}


def fields(deployment: dict[str, Any]) -> tuple[str, ...] | None:
    found = kept(deployment, "asr", {SIZE})
    return None if found is None else found.fields


@pytest.mark.parametrize(
    ("deployment", "tool", "by"),
    [
        (
            workload(annotations=TRACKED),
            Tool.ARGO_CD,
            f"Argo CD (Application voice, annotation {TRACKING_ID})",
        ),
        (
            workload(owned("argocd-controller", IMAGE), labels={INSTANCE: "voice"}),
            Tool.ARGO_CD,
            "Argo CD (Application voice, field manager argocd-controller)",
        ),
        (
            workload(owned("argocd-application-controller", IMAGE, "Update")),
            Tool.ARGO_CD,
            "Argo CD (field manager argocd-application-controller)",
        ),
        (
            workload(labels=KUSTOMIZED),
            Tool.FLUX,
            f"Flux (Kustomization flux-system/voice, label {KUSTOMIZATION}/name)",
        ),
        (workload(labels=RELEASED), Tool.FLUX, f"Flux (HelmRelease voice-prod/voice, label {HELM_RELEASE}/name)"),
        (workload(owned("kustomize-controller", IMAGE)), Tool.FLUX, "Flux (field manager kustomize-controller)"),
        (workload(owned("helm-controller", IMAGE, "Update")), Tool.FLUX, "Flux (field manager helm-controller)"),
    ],
)
def test_a_tool_is_recognised_by_its_marks_or_by_its_writes(deployment: dict[str, Any], tool: Tool, by: str) -> None:
    found = kept(deployment, "asr", {SIZE})

    assert found is not None
    assert (found.tool, found.by) == (tool, by)


@pytest.mark.parametrize(
    "deployment",
    [
        workload(),
        {"metadata": {"name": "whisper"}},
        workload(owned("kubectl", REPLICAS | VARIABLE), annotations=last_applied({"replicas": 1, **env(SIZE)})),
        workload(owned("helm", REPLICAS, "Update"), labels={INSTANCE: "voice"}),
    ],
)
def test_whom_nobody_is_known_to_keep_is_nobodys(deployment: dict[str, Any]) -> None:
    assert kept(deployment, "asr", {SIZE}) is None


@pytest.mark.parametrize("manager", ["argocd-controller", "kustomize-controller", "helm-controller"])
@pytest.mark.parametrize("operation", ["Apply", "Update"])
def test_what_the_tool_has_written_comes_from_git(manager: str, operation: str) -> None:
    where = f"managedFields of {manager}"
    of_size = f"env {SIZE} of container asr ({where})"

    assert fields(workload(owned(manager, REPLICAS | VARIABLE, operation))) == (f"spec.replicas ({where})", of_size)
    assert fields(workload(owned(manager, REPLICAS, operation))) == (f"spec.replicas ({where})",)
    assert fields(workload(owned(manager, VARIABLE, operation))) == (of_size,)
    assert fields(workload(owned(manager, IMAGE, operation))) == ()


def test_what_others_have_written_does_not_come_from_git() -> None:
    theirs = owned("cotune", REPLICAS | VARIABLE, "Update")

    assert fields(workload(owned("argocd-controller", IMAGE), theirs)) == ()
    assert fields(workload(owned("argocd-controller", IMAGE), owned("helm-controller", REPLICAS))) == ()


def test_another_container_or_variable_is_not_the_touched_one() -> None:
    other = json.loads(json.dumps(VARIABLE).replace("asr", "proxy"))

    assert fields(workload(owned("argocd-controller", other))) == ()
    assert kept(workload(owned("argocd-controller", VARIABLE)), "asr", {"OTHER"}) is not None
    found = kept(workload(owned("argocd-controller", VARIABLE)), "asr", {"OTHER"})
    assert found is not None
    assert found.fields == ()


def test_a_field_that_somebody_took_from_a_tool_is_still_in_what_it_applied_last() -> None:
    """As `kubectl scale` does with what was applied at the client's side: the API server forgets the owner."""
    where = "last-applied-configuration"
    both = last_applied({"replicas": 1, **env("OTHER", SIZE)})
    ours = owned("argocd-controller", IMAGE, "Update")

    assert fields(workload(ours, annotations=both)) == (
        f"spec.replicas ({where})",
        f"env {SIZE} of container asr ({where})",
    )
    assert fields(workload(ours, annotations=last_applied(env("OTHER")))) == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"spec": []}', '{"spec": {"template": {"spec": {}}}}'])
def test_what_was_applied_last_and_cannot_be_read_has_no_field(text: str) -> None:
    assert fields(workload(owned("argocd-controller", IMAGE), annotations={LAST_APPLIED: text})) == ()


@pytest.mark.parametrize("metadata", [{"annotations": TRACKED}, {"labels": KUSTOMIZED}])
def test_a_tool_of_whose_writes_nothing_is_known_is_taken_to_have_all_of_it(metadata: dict[str, Any]) -> None:
    where = "nothing tells what is in Git"

    assert fields(workload(owned("somebody", REPLICAS), **metadata)) == (
        f"spec.replicas ({where})",
        f"env {SIZE} of container asr ({where})",
    )


@pytest.mark.parametrize(
    ("annotations", "is_left_alone"),
    [
        ({f"{KUSTOMIZATION}/reconcile": "disabled"}, True),
        ({f"{KUSTOMIZATION}/ssa": "Ignore"}, True),
        ({f"{KUSTOMIZATION}/ssa": "IfNotPresent"}, True),
        ({f"{KUSTOMIZATION}/ssa": "Merge"}, False),
        ({f"{KUSTOMIZATION}/reconcile": "enabled"}, False),
    ],
)
def test_flux_can_be_told_to_leave_a_workload_alone(annotations: dict[str, str], is_left_alone: bool) -> None:
    deployment = workload(owned("kustomize-controller", REPLICAS), labels=KUSTOMIZED, annotations=annotations)

    assert (fields(deployment) == ()) == is_left_alone


def test_a_release_of_helm_is_not_left_alone_for_what_a_kustomization_is_told() -> None:
    annotations = {f"{KUSTOMIZATION}/reconcile": "disabled"}
    deployment = workload(owned("helm-controller", REPLICAS, "Update"), labels=RELEASED, annotations=annotations)

    assert fields(deployment) == ("spec.replicas (managedFields of helm-controller)",)
