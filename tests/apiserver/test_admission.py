"""The chart's authority against a real API server: who may ask for what, and what the operator may do uninvited."""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from support.api_server import Answer, ApiServer, running_api_server
from support.helm import CRDS, render
from support.probed_stages import PROBE, gate
from support.resources import manifest

pytestmark = [pytest.mark.apiserver, pytest.mark.helm]

LAB, STAGING, PRODUCTION, STRANGE = "voice-lab", "voice-staging", "voice-prod", "elsewhere"
MORE = [f"stage-{number}" for number in range(13)]
COPIED = MORE[0]
OPERATOR = "system:serviceaccount:cotune-system:cotune"
AS_OPERATOR = [
    f"--as={OPERATOR}",
    *("--as-user-extra", "authentication.kubernetes.io/pod-name=leader"),
    *("--as-user-extra", "authentication.kubernetes.io/pod-uid=1234"),
]
"""As the pod that leads: the fence is another test's."""
EXPERIMENT, PROFILE, TRIAL, GRANT = "GpuAllocationExperiment", "GpuProfile", "GpuTrial", "GpuTuningGrant"

# The namespaces of each user, with the cluster role that they have there.
USERS: dict[str, dict[str, str]] = {
    "everywhere": dict.fromkeys([LAB, STAGING, PRODUCTION, *MORE], "edit"),
    "not-in-production": dict.fromkeys([LAB, STAGING], "edit"),
    "lab-only": {LAB: "edit"},
    # May write experiments in the lab, and everything in the stages, but run no pods in the lab.
    "without-pods": {LAB: "author", STAGING: "edit", PRODUCTION: "edit"},
    "owner-of-production": {PRODUCTION: "admin"},
    "reader": {LAB: "view"},
    # May do everything by hand, but not let a stage begin.
    "without-approval": dict.fromkeys([LAB, STAGING, PRODUCTION], "edit"),
    "approver-of-staging": dict.fromkeys([LAB, STAGING, PRODUCTION], "edit"),
    # May change Deployments in staging, and make none.
    "patcher-of-staging": {LAB: "edit", STAGING: "patcher"},
}

# Who may let stages begin, and where.
APPROVERS: dict[str, list[str]] = {
    "everywhere": [STAGING, PRODUCTION, *MORE, STRANGE],
    "not-in-production": [STAGING],
    "without-pods": [STAGING],
    "lab-only": [STAGING],
    "approver-of-staging": [STAGING],
    "patcher-of-staging": [STAGING],
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ApiServer]:
    """The chart installed, the operator invited to run trials in the lab and to change the workloads of staging."""
    with running_api_server("admission", CRDS) as server:
        _must(server.run("apply", "-f", "-", text=yaml.safe_dump_all(_surroundings())))
        invitations = {
            "labNamespaces": LAB,
            "tunedNamespaces": STAGING,
            "surgedNamespaces": STAGING,
            "copiedNamespaces": COPIED,
        }
        release = render(*(it for name, at in invitations.items() for it in ("--set", f"{name}={{{at}}}")))
        installed = yaml.safe_dump_all(release.objects)
        _must(server.run("apply", "--server-side", "--force-conflicts", "-f", "-", text=installed))
        # The controller manager fills `edit` and `admin`, the API server learns of policies: both take a moment.
        _eventually(lambda: _can_i(server, "lab-only", "create", "gpuallocationexperiments.cotune.dev", LAB))
        _eventually(lambda: _can_i(server, "owner-of-production", "create", "gputuninggrants.cotune.dev", PRODUCTION))
        for user, kind in (("lab-only", EXPERIMENT), ("lab-only", PROFILE), ("", TRIAL)):
            _eventually(
                lambda user=user, kind=kind: "ValidatingAdmissionPolicy" in _create(server, user, resource(kind)).text
            )
        yield server


def resource(kind: str, name: str | None = None, stages: list[str] | None = None) -> dict[str, Any]:
    """The valid example of a kind in the lab, with one stage for each of the namespaces."""
    made = copy.deepcopy(manifest(kind))
    made["metadata"]["namespace"] = LAB
    if name is not None:
        made["metadata"]["name"] = name
    if stages is not None:
        rollout = {"stages": [{"name": it, "namespace": it} for it in stages]}
        made["spec"] |= {"rollout": rollout} if kind == PROFILE else {"profileTemplate": {"rollout": rollout}}
    return made


PATHS = {EXPERIMENT: "spec.profileTemplate.rollout.stages", PROFILE: "spec.rollout.stages"}


@pytest.mark.parametrize("kind", [EXPERIMENT, PROFILE])
def test_an_author_who_may_do_what_the_operator_will_do_is_let_in(cluster: ApiServer, kind: str) -> None:
    answer = _create(cluster, "everywhere", resource(kind))

    assert answer.accepted, answer.text


@pytest.mark.parametrize("kind", [EXPERIMENT, PROFILE])
@pytest.mark.parametrize(
    ("user", "index", "namespace"), [("lab-only", 0, STAGING), ("not-in-production", 1, PRODUCTION)]
)
def test_an_author_must_be_allowed_to_patch_the_deployments_of_each_stage(
    cluster: ApiServer, kind: str, user: str, index: int, namespace: str
) -> None:
    answer = _create(cluster, user, resource(kind))

    assert not answer.accepted
    expected = (
        f"denied request: {PATHS[kind]}[{index}].namespace: {user} may not patch deployments in namespace {namespace}"
    )
    assert expected in answer.text, answer.text


@pytest.mark.parametrize("kind", [EXPERIMENT, PROFILE])
def test_an_author_who_asks_for_a_surge_must_be_allowed_to_create_deployments_there(
    cluster: ApiServer, kind: str
) -> None:
    def create(user: str, surge: str | None) -> Answer:
        made = resource(kind, stages=[STAGING])
        rollout = (made["spec"] if kind == PROFILE else made["spec"]["profileTemplate"])["rollout"]
        rollout["stages"][0] |= {} if surge is None else {"surge": surge}
        return _create(cluster, user, made)

    refused = f"{PATHS[kind]}[0].surge: patcher-of-staging may not create deployments in namespace {STAGING}"
    for surge in ("IfRoom", "Require"):
        assert refused in create("patcher-of-staging", surge).text
        assert create("everywhere", surge).accepted
    for surge in ("Never", None):
        assert create("patcher-of-staging", surge).accepted


def test_the_operator_creates_and_deletes_no_deployments_but_bridges(cluster: ApiServer) -> None:
    _must(cluster.run("create", "deployment", "whisper", "--image=whisper", "--replicas=0", "-n", STAGING))
    original = yaml.safe_load(cluster.run("get", "deployment", "whisper", "-n", STAGING, "-o", "yaml").text)
    copied = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "whisper-bridge", "namespace": STAGING, "labels": {"cotune.dev/bridge": "x"}},
        "spec": {name: original["spec"][name] for name in ("replicas", "selector", "template")},
    }
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "whisper", "uid": original["metadata"]["uid"]}
    bridge: dict[str, Any] = copy.deepcopy(copied)
    bridge["metadata"]["ownerReferences"] = [owner]
    unmarked: dict[str, Any] = copy.deepcopy(bridge)
    del unmarked["metadata"]["labels"]

    assert "without the label cotune.dev/bridge" in _create(cluster, OPERATOR, unmarked).text
    assert "that are not owned by another one" in _create(cluster, OPERATOR, copied).text
    _must(_create(cluster, OPERATOR, bridge, dry_run=False))
    delete = ("delete", "deployment", "-n", STAGING, *AS_OPERATOR)
    assert "without the label cotune.dev/bridge" in cluster.run(*delete, "whisper").text
    _must(cluster.run(*delete, "whisper-bridge"))
    assert _create(cluster, "everywhere", unmarked).accepted
    _must(cluster.run("delete", "deployment", "whisper", "-n", STAGING))


@pytest.mark.parametrize("kind", [EXPERIMENT, PROFILE])
def test_the_last_of_sixteen_stages_is_asked_about_too(cluster: ApiServer, kind: str) -> None:
    known = [STAGING, PRODUCTION, *MORE]

    allowed = _create(cluster, "everywhere", resource(kind, stages=known))
    refused = _create(cluster, "everywhere", resource(kind, stages=[*known, STRANGE]))
    unlimited = _create(cluster, "", resource(kind, stages=[*known, STRANGE]))

    assert allowed.accepted, allowed.text
    assert f"{PATHS[kind]}[15].namespace: everywhere may not patch deployments in namespace {STRANGE}" in refused.text
    assert unlimited.accepted, unlimited.text


def profile(name: str, *approvals: str) -> dict[str, Any]:
    """A profile with a stage in staging, and one in production."""
    made = resource(PROFILE, name, stages=[STAGING, PRODUCTION])
    for stage, approval in zip(made["spec"]["rollout"]["stages"], approvals, strict=True):
        stage["approval"] = approval
    return made


def refusal(index: int, user: str, namespace: str) -> str:
    return (
        f"denied request: spec.rollout.stages[{index}].approval: {user} may not approve gpuprofiles in namespace "
        f"{namespace}: write Manual, and let somebody approve who may"
    )


@pytest.mark.parametrize("kind", [EXPERIMENT, PROFILE])
def test_who_writes_a_stage_as_approved_must_be_allowed_to_approve_there(cluster: ApiServer, kind: str) -> None:
    answer = _create(cluster, "without-approval", resource(kind, stages=[STAGING]))

    assert f"{PATHS[kind]}[0].approval: without-approval may not approve gpuprofiles in namespace {STAGING}" in (
        answer.text
    )
    assert _create(cluster, "approver-of-staging", resource(kind, stages=[STAGING])).accepted


def test_who_may_not_approve_may_write_a_profile_that_awaits_approval(cluster: ApiServer) -> None:
    answer = _create(cluster, "without-approval", profile("new", "Manual", "Manual"))

    assert answer.accepted, answer.text


def test_approving_is_a_verb_of_its_own_in_the_stages_namespace(cluster: ApiServer) -> None:
    _must(cluster.apply(profile("awaits", "Manual", "Manual")))

    def approve(user: str, *approvals: str) -> Answer:
        stages = profile("awaits", *approvals)["spec"]["rollout"]["stages"]
        return _patch(cluster, user, PROFILE, "awaits", {"spec": {"rollout": {"stages": stages}}})

    assert refusal(0, "without-approval", STAGING) in approve("without-approval", "Auto", "Manual").text
    assert approve("approver-of-staging", "Auto", "Manual").accepted
    assert refusal(1, "approver-of-staging", PRODUCTION) in approve("approver-of-staging", "Auto", "Auto").text
    assert approve("everywhere", "Auto", "Auto").accepted


def test_what_was_approved_is_not_asked_about_again_unless_it_starts_anew(cluster: ApiServer) -> None:
    _must(cluster.apply(profile("approved", "Auto", "Manual")))

    def edited(user: str, **rollout: Any) -> Answer:
        return _patch(cluster, user, PROFILE, "approved", {"spec": {"rollout": rollout}})

    assert edited("without-approval", paused=True).accepted
    assert edited("without-approval", abort=True).accepted
    assert refusal(0, "without-approval", STAGING) in edited("without-approval", retries=1).text
    assert edited("approver-of-staging", retries=1).accepted


def test_who_takes_a_stage_to_a_revision_must_be_allowed_to_approve_there(cluster: ApiServer) -> None:
    """A stage that waits for its approval, too: it has begun once, and a revision is values like any other."""
    _must(cluster.apply(profile("taken", "Manual", "Auto")))
    begun = {"status": {"stages": [{"name": it, "phase": "Promoted"} for it in (STAGING, PRODUCTION)]}}
    status = ("patch", "gpp", "taken", "-n", LAB, "--subresource=status", "--type=merge", "-p", yaml.safe_dump(begun))
    _must(cluster.run(*status, *AS_OPERATOR))

    def edited(user: str, index: int, revision: str, dry_run: bool = True) -> Answer:
        stages = profile("taken", "Manual", "Auto")["spec"]["rollout"]["stages"]
        stages[index]["toRevision"] = revision
        patch = yaml.safe_dump({"spec": {"rollout": {"stages": stages}}})
        dry = ["--dry-run=server"] if dry_run else []
        return cluster.run("patch", PROFILE, "taken", "-n", LAB, "--type=merge", "-p", patch, *dry, *_as(user))

    def refused(user: str, index: int, namespace: str) -> str:
        return (
            f"denied request: spec.rollout.stages[{index}].toRevision: {user} may not approve gpuprofiles in namespace "
            f"{namespace}: let somebody say it who may"
        )

    one, other = "cotune-0123456789", "cotune-abcdef0123"
    assert refused("without-approval", 0, STAGING) in edited("without-approval", 0, one).text
    assert refused("approver-of-staging", 1, PRODUCTION) in edited("approver-of-staging", 1, one).text
    assert edited("everywhere", 1, one).accepted
    answer = edited("approver-of-staging", 0, one, dry_run=False)
    assert answer.accepted, answer.text
    assert edited("without-approval", 0, one).accepted
    assert refused("without-approval", 0, STAGING) in edited("without-approval", 0, other).text


def test_who_lets_a_stage_start_anew_by_taking_its_revision_away_must_be_allowed_to_approve(cluster: ApiServer) -> None:
    _must(cluster.apply(profile("released", "Auto", "Manual")))
    begun = {"status": {"stages": [{"name": STAGING, "phase": "RolledBack"}]}}
    status = ("--subresource=status", "--type=merge", "-p", yaml.safe_dump(begun))
    _must(cluster.run("patch", "gpp", "released", "-n", LAB, *status, *AS_OPERATOR))
    stages = profile("released", "Auto", "Manual")["spec"]["rollout"]["stages"]
    taken = [stages[0] | {"toRevision": "cotune-0123456789"}, stages[1]]
    patch = yaml.safe_dump({"spec": {"rollout": {"stages": taken}}})
    _must(cluster.run("patch", "gpp", "released", "-n", LAB, "--type=merge", "-p", patch))

    def without_it(user: str) -> Answer:
        return _patch(cluster, user, PROFILE, "released", {"spec": {"rollout": {"stages": stages}}})

    assert refusal(0, "without-approval", STAGING) in without_it("without-approval").text
    assert without_it("approver-of-staging").accepted


def test_who_has_cotune_write_what_came_through_git_must_be_allowed_to_approve(cluster: ApiServer) -> None:
    body = profile("through-git", "Auto", "Manual")
    body["spec"]["rollout"]["strategy"] = "Git"
    _must(cluster.apply(body))

    def direct(user: str) -> Answer:
        return _patch(cluster, user, PROFILE, "through-git", {"spec": {"rollout": {"strategy": "Direct"}}})

    assert refusal(0, "without-approval", STAGING) in direct("without-approval").text
    assert direct("approver-of-staging").accepted


def test_an_author_must_be_allowed_to_create_pods_where_the_trials_run(cluster: ApiServer) -> None:
    answer = _create(cluster, "without-pods", resource(EXPERIMENT))

    assert not answer.accepted
    assert f"metadata.namespace: without-pods may not create pods in namespace {LAB}" in answer.text, answer.text


def test_the_author_of_a_profile_with_a_probe_must_be_allowed_to_create_pods_where_it_runs(cluster: ApiServer) -> None:
    without, probed = resource(PROFILE, stages=[STAGING]), resource(PROFILE, stages=[STAGING])
    probed["spec"]["rollout"]["stages"][0] |= {"bakeSeconds": 120, "gates": [gate()], "probe": PROBE}

    refused = _create(cluster, "without-pods", probed)

    assert _create(cluster, "without-pods", without).accepted
    words = f"spec.rollout.stages: without-pods may not create pods in namespace {LAB}, which the probe of stage "
    assert words in refused.text, refused.text
    assert _create(cluster, "everywhere", probed).accepted


@pytest.mark.parametrize("field", ["stack", "validation"])
def test_an_author_must_be_allowed_to_read_the_deployments_that_are_copied(cluster: ApiServer, field: str) -> None:
    made = resource(EXPERIMENT, stages=[STAGING])
    for it in made["spec"]["stack"]["components"] if field == "stack" else ():
        del it["template"]
    made["spec"].setdefault(field, {})["fromNamespace"] = {"name": PRODUCTION}

    allowed, refused = _create(cluster, "everywhere", made), _create(cluster, "not-in-production", made)

    assert allowed.accepted, allowed.text
    expected = f"spec.{field}.fromNamespace.name: not-in-production may not read deployments in namespace {PRODUCTION}"
    assert expected in refused.text, refused.text


def test_an_author_must_be_allowed_to_scale_the_deployments_that_are_stopped(cluster: ApiServer) -> None:
    made = resource(EXPERIMENT, stages=[STAGING])
    made["spec"]["quiesce"] = {
        "namespace": PRODUCTION,
        "window": {"from": "01:00", "to": "05:00"},
        "maximumSeconds": 7200,
        "restorationSeconds": 600,
    }

    allowed, refused = _create(cluster, "everywhere", made), _create(cluster, "not-in-production", made)

    assert allowed.accepted, allowed.text
    expected = f"spec.quiesce.namespace: not-in-production may not scale deployments in namespace {PRODUCTION}"
    assert expected in refused.text, refused.text


def test_an_author_needs_no_pods_for_a_profile(cluster: ApiServer) -> None:
    answer = _create(cluster, "without-pods", resource(PROFILE))

    assert answer.accepted, answer.text


def test_an_experiment_without_a_profile_needs_rights_in_the_lab_only(cluster: ApiServer) -> None:
    made = resource(EXPERIMENT)
    del made["spec"]["profileTemplate"]

    answer = _create(cluster, "lab-only", made)

    assert answer.accepted, answer.text


@pytest.mark.parametrize(
    ("kind", "change", "is_asked"),
    [
        (EXPERIMENT, {"spec": {"search": {"repeats": 5}}}, True),
        (PROFILE, {"spec": {"rollout": {"paused": True}}}, True),
        *((kind, {"metadata": {"annotations": {"cotune.dev/new": "new"}}}, True) for kind in PATHS),
        *((kind, {"metadata": {"labels": {"team": "voice"}}}, False) for kind in PATHS),
        *((kind, {"metadata": {"finalizers": ["example.com/somebody"]}}, False) for kind in PATHS),
    ],
)
def test_an_update_is_asked_about_when_the_operator_could_act_on_it(
    cluster: ApiServer, kind: str, change: dict[str, Any], is_asked: bool
) -> None:
    _must(cluster.apply(resource(kind, "edited")))

    for user, may in (("lab-only", not is_asked), ("everywhere", True)):
        answer = _patch(cluster, user, kind, "edited", change)

        assert answer.accepted == may, answer.text
        assert may or f"{user} may not patch deployments" in answer.text, answer.text


def test_the_operators_profile_is_not_asked_about_again(cluster: ApiServer) -> None:
    answer = _create(cluster, OPERATOR, resource(PROFILE, stages=[PRODUCTION]))

    assert answer.accepted, answer.text


@pytest.mark.parametrize("kind", [EXPERIMENT, PROFILE])
def test_the_operator_says_what_became_of_a_resource(cluster: ApiServer, kind: str) -> None:
    _must(cluster.apply(resource(kind, "told")))
    status = {"status": {"phase": "Pending"}}

    assert _patch(cluster, OPERATOR, kind, "told", status, "--subresource=status").accepted
    answer = _patch(cluster, "everywhere", kind, "told", status, "--subresource=status")

    assert "cannot patch resource" in answer.text, answer.text


def test_the_policies_do_not_ask_about_status(cluster: ApiServer) -> None:
    _must(cluster.apply(resource(EXPERIMENT, "told")))

    of_spec = _patch(cluster, "without-pods", EXPERIMENT, "told", {"spec": {"search": {"repeats": 5}}})
    of_status = _patch(
        cluster, "without-pods", EXPERIMENT, "told", {"status": {"phase": "Failed"}}, "--subresource=status"
    )

    assert "may not create pods" in of_spec.text, of_spec.text
    assert of_status.accepted, of_status.text


def test_only_the_operator_makes_trials_and_results(cluster: ApiServer) -> None:
    succeeded = {"status": {"phase": "Succeeded", "fitness": "1"}}

    by_administrator = cluster.run("create", "-f", "-", text=yaml.safe_dump(resource(TRIAL)))
    by_operator = cluster.run("create", "-f", "-", *AS_OPERATOR, text=yaml.safe_dump(resource(TRIAL)))
    name = resource(TRIAL)["metadata"]["name"]
    forged = _patch(cluster, "", TRIAL, name, succeeded, "--subresource=status")
    true = _patch(cluster, OPERATOR, TRIAL, name, succeeded, "--subresource=status")
    removed = cluster.run("delete", TRIAL, name, "-n", LAB)

    assert "denied request: spec: trials and their results are written by the operator" in by_administrator.text
    assert by_operator.accepted, by_operator.text
    assert "denied request: status: trials and their results are written by the operator" in forged.text
    assert true.accepted, true.text
    assert removed.accepted, removed.text


def test_the_operator_may_make_children_that_hold_back_the_deletion_of_their_owner(cluster: ApiServer) -> None:
    _must(_create(cluster, "", resource(EXPERIMENT, "owner"), dry_run=False))
    _must(_create(cluster, OPERATOR, resource(TRIAL, "owned"), dry_run=False))
    experiment, trial = (_owner(cluster, kind, name) for kind, name in ((EXPERIMENT, "owner"), (TRIAL, "owned")))
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "child", "namespace": LAB, "ownerReferences": [trial]},
        "spec": {"containers": [{"name": "main", "image": "example/server:1"}]},
    }
    child = resource(TRIAL, "child")
    child["metadata"]["ownerReferences"] = [experiment]

    by_operator = [_create(cluster, OPERATOR, it) for it in (child, pod)]
    by_author = _create(cluster, "lab-only", pod)

    for it in by_operator:
        assert it.accepted, it.text
    assert "cannot set blockOwnerDeletion" in by_author.text, by_author.text


def _owner(server: ApiServer, kind: str, name: str) -> dict[str, Any]:
    found = server.run("get", kind, name, "-n", LAB, "-o", "yaml")
    _must(found)
    owner = yaml.safe_load(found.text)
    names = {"apiVersion": owner["apiVersion"], "kind": kind, "name": name, "uid": owner["metadata"]["uid"]}
    return {**names, "controller": True, "blockOwnerDeletion": True}


def test_another_service_account_of_that_name_is_not_the_operator(cluster: ApiServer) -> None:
    impostor = f"system:serviceaccount:{LAB}:cotune"

    answer = cluster.run(
        "create",
        "-f",
        "-",
        f"--as={impostor}",
        "--as-group=system:masters",
        "--dry-run=server",
        text=yaml.safe_dump(resource(TRIAL)),
    )

    assert "denied request: spec: trials and their results" in answer.text, answer.text


@pytest.mark.parametrize(
    ("namespace", "roles"),
    [
        (STRANGE, ["cotune"]),
        (PRODUCTION, ["cotune"]),
        (LAB, ["cotune", "cotune-trials"]),
        (STAGING, ["cotune", "cotune-rollouts", "cotune-surges"]),
        (COPIED, ["cotune", "cotune-copies"]),
    ],
)
def test_the_operator_may_do_what_it_was_invited_to_and_nothing_else(
    cluster: ApiServer, namespace: str, roles: list[str]
) -> None:
    """The roles' content is asserted in tests/helm."""
    release = render()
    expected = {right for role in roles for right in _rights(release.one("ClusterRole", role)["rules"])}

    stranger = f"system:serviceaccount:{STRANGE}:default"
    found = _all_rights(cluster, OPERATOR, namespace) - _all_rights(cluster, stranger, namespace)

    assert found == expected


def test_at_home_the_operator_keeps_leases(cluster: ApiServer) -> None:
    release = render()
    rules = release.one("ClusterRole", "cotune")["rules"] + release.one("Role", "cotune")["rules"]

    found = _all_rights(cluster, OPERATOR, "cotune-system")

    assert found - _all_rights(cluster, f"system:serviceaccount:{STRANGE}:default", "cotune-system") == _rights(rules)


def test_an_uninvited_operator_is_refused_and_an_invited_one_is_not(cluster: ApiServer) -> None:
    for namespace in (STAGING, STRANGE):
        _must(cluster.run("create", "deployment", "judge", "--image=judge", "--replicas=0", "-n", namespace))
    change = ("patch", "deployment", "judge", "--type=merge", "-p", '{"spec": {"paused": true}}', *AS_OPERATOR)
    start = ("run", "trial", "--image=judge", "--restart=Never", "--dry-run=server", *AS_OPERATOR)

    assert cluster.run(*change, "-n", STAGING).accepted
    assert "is forbidden" in cluster.run(*change, "-n", STRANGE).text
    assert cluster.run(*start, "-n", LAB).accepted
    assert 'cannot create resource "pods"' in cluster.run(*start, "-n", STAGING).text


def test_who_administers_a_namespace_may_invite_the_operator_to_it(cluster: ApiServer) -> None:
    invite = ("create", "rolebinding", "tuning", f"--serviceaccount={OPERATOR.split(':', 2)[2]}", "--dry-run=server")
    owner = "--as=owner-of-production"

    for role in ("cotune-copies", "cotune-trials", "cotune-rollouts", "cotune-surges"):
        answer = cluster.run(*invite, f"--clusterrole={role}", "-n", PRODUCTION, owner)
        assert answer.accepted, answer.text
    for role in ("cotune", "cluster-admin"):
        assert "is forbidden" in cluster.run(*invite, f"--clusterrole={role}", "-n", PRODUCTION, owner).text
    assert "is forbidden" in cluster.run(*invite, "--clusterrole=cotune-rollouts", "-n", STAGING, owner).text
    editor = "--as=everywhere"
    assert "is forbidden" in cluster.run(*invite, "--clusterrole=cotune-rollouts", "-n", PRODUCTION, editor).text


@pytest.mark.parametrize(
    ("user", "verb", "plural", "namespace", "may"),
    [
        ("reader", "list", "gputrials", LAB, True),
        ("reader", "create", "gpuallocationexperiments", LAB, False),
        ("lab-only", "create", "gpuprofiles", LAB, True),
        ("lab-only", "create", "gputrials", LAB, False),
        ("lab-only", "create", "gputuninggrants", LAB, False),
        ("owner-of-production", "create", "gputuninggrants", PRODUCTION, True),
        ("owner-of-production", "create", "gputuninggrants", LAB, False),
    ],
)
def test_users_have_their_share_through_the_clusters_own_roles(
    cluster: ApiServer, user: str, verb: str, plural: str, namespace: str, may: bool
) -> None:
    assert _can_i(cluster, user, verb, f"{plural}.cotune.dev", namespace) == may


def test_pod_security_restricted_lets_the_operators_pod_in(cluster: ApiServer) -> None:
    template = render().one("Deployment", "cotune")["spec"]["template"]
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod"} | copy.deepcopy(template)
    pod["metadata"] |= {"name": "operator", "namespace": "cotune-system"}

    accepted = cluster.apply(pod, "--dry-run=server")
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    refused = cluster.apply(pod, "--dry-run=server")

    assert accepted.accepted, accepted.text
    assert 'violates PodSecurity "restricted' in refused.text, refused.text


def _surroundings() -> Iterator[dict[str, Any]]:
    """Namespaces, users with their roles in them, and somebody who leads."""
    for namespace in ("cotune-system", LAB, STAGING, PRODUCTION, STRANGE, *MORE):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"} if namespace == "cotune-system" else {}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
    yield {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "cotune-leader", "namespace": "cotune-system"},
        "spec": {"holderIdentity": "leader_1234"},
    }
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "author"},
        "rules": [
            {
                "apiGroups": ["cotune.dev"],
                "resources": ["gpuallocationexperiments", "gpuallocationexperiments/status", "gpuprofiles"],
                "verbs": ["get", "create", "patch"],
            }
        ],
    }
    yield {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "patcher"},
        "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"]}],
    }
    for user, roles in USERS.items():
        for namespace, role in roles.items():
            yield {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": user, "namespace": namespace},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
            }

    for user, namespaces in APPROVERS.items():
        for namespace in namespaces:
            yield {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": f"{user}-approves", "namespace": namespace},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "cotune-approver",
                },
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
            }


def _as(user: str) -> list[str]:
    if user == OPERATOR:
        return AS_OPERATOR
    return [f"--as={user}"] if user else []


def _create(server: ApiServer, user: str, made: dict[str, Any], dry_run: bool = True) -> Answer:
    options = ["--dry-run=server"] if dry_run else []
    return server.run("create", *options, "-f", "-", *_as(user), text=yaml.safe_dump(made))


def _patch(server: ApiServer, user: str, kind: str, name: str, change: dict[str, Any], *options: str) -> Answer:
    return server.run(
        *("patch", kind, name, "-n", LAB, "--type=merge", "--dry-run=server", "-p", yaml.safe_dump(change)),
        *(*options, *_as(user)),
    )


def _can_i(server: ApiServer, user: str, verb: str, plural: str, namespace: str) -> bool:
    return server.run("auth", "can-i", verb, plural, "-n", namespace, *_as(user)).text.startswith("yes")


def _all_rights(server: ApiServer, user: str, namespace: str) -> set[str]:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    answer = server.run("create", "--validate=false", "-f", "-", "-o", "yaml", *_as(user), text=yaml.safe_dump(review))
    _must(answer)
    status = yaml.safe_load(answer.text)["status"]
    assert not status["incomplete"]
    return _rights(status["resourceRules"])


def _rights(rules: list[dict[str, Any]]) -> set[str]:
    return {
        f"{verb} {group}/{name}"
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
    }


def _must(answer: Answer) -> None:
    assert answer.accepted, answer.text


def _eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "the chart did not become active"
        time.sleep(0.2)
