"""What the chart asks of a cluster: little authority, a confined pod, and values that are checked."""

import re
from typing import Any

import pytest
import yaml
from cotune.api.crds import rendered as rendered_crds
from cotune.handlers.process import LAST_PASSES_SECONDS
from support import helm
from support.helm import Rendered, render

pytestmark = pytest.mark.helm

OPERATOR = {"kind": "ServiceAccount", "name": "cotune", "namespace": "cotune-system"}
READING = {"get", "list", "watch"}
AUTHORS = {"cotune-experiments", "cotune-profiles"}
APPROVALS = {f"{it}-approvals" for it in AUTHORS}
SURGES = {f"{it}-surges" for it in AUTHORS}


@pytest.fixture(scope="module")
def defaults() -> Rendered:
    return render()


def rules(role: dict[str, Any]) -> dict[str, set[str]]:
    """Verbs by `group/resource`."""
    allowed: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                allowed.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return allowed


def pod_template(release: Rendered) -> dict[str, Any]:
    return release.one("Deployment", "cotune")["spec"]["template"]


def container(release: Rendered) -> dict[str, Any]:
    return container_of(release, "cotune")


def container_of(release: Rendered, deployment: str) -> dict[str, Any]:
    (only,) = release.one("Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    return only


def test_helm_finds_no_fault() -> None:
    assert "0 chart(s) failed" in helm.lint()


def test_the_chart_brings_the_crds_of_the_models() -> None:
    assert {it["metadata"]["name"] for it in helm.crds()} == {
        yaml.safe_load(text)["metadata"]["name"] for text in rendered_crds().values()
    }


def test_cluster_wide_the_operator_reads_its_resources_and_nodes_and_writes_only_status(defaults: Rendered) -> None:
    (binding,) = defaults.all("ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "cotune"
    assert binding["subjects"] == [OPERATOR]

    assert rules(defaults.one("ClusterRole", "cotune")) == {
        "cotune.dev/gpuallocationexperiments": READING | {"patch"},
        "cotune.dev/gpuprofiles": READING | {"patch"},
        "cotune.dev/gputrials": READING,
        "cotune.dev/gputuninggrants": READING,
        "cotune.dev/gpuallocationexperiments/status": {"get", "patch"},
        "cotune.dev/gpuprofiles/status": {"get", "patch"},
        "cotune.dev/gputrials/status": {"get", "patch"},
        "/nodes": {"get", "list"},
    }


def test_in_a_lab_it_runs_pods_and_makes_trials(defaults: Rendered) -> None:
    assert rules(defaults.one("ClusterRole", "cotune-trials")) == {
        "/pods": {"get", "list", "watch", "create", "delete"},
        "/services": {"get", "list", "create", "delete"},
        "/pods/log": {"get"},
        "/configmaps": {"get"},
        "cotune.dev/gputrials": {"create"},
        "cotune.dev/gpuprofiles": {"create"},
        "apps/controllerrevisions": {"get", "create"},
        "cotune.dev/gpuallocationexperiments/finalizers": {"update"},
        "cotune.dev/gpuprofiles/finalizers": {"update"},
        "cotune.dev/gputrials/finalizers": {"update"},
        "/events": {"create"},
    }


def test_in_a_tuned_namespace_it_changes_deployments_and_creates_no_pods(defaults: Rendered) -> None:
    assert rules(defaults.one("ClusterRole", "cotune-rollouts")) == {
        "apps/deployments": {"get", "list", "patch"},
        "apps/deployments/scale": {"patch"},
        "autoscaling/horizontalpodautoscalers": {"list"},
        "apps/controllerrevisions": {"get", "list", "create", "delete"},
        "/pods": {"list", "watch"},
        "/pods/log": {"get"},
    }


def test_in_a_quiesced_namespace_it_changes_how_many_pods_run_and_nothing_else(defaults: Rendered) -> None:
    assert rules(defaults.one("ClusterRole", "cotune-quiesces")) == {
        "apps/deployments": {"get"},
        "apps/deployments/scale": {"patch"},
        "autoscaling/horizontalpodautoscalers": {"list"},
        "apps/controllerrevisions": {"get", "list", "create", "delete"},
        "/pods": {"list"},
        "/pods/log": {"get"},
    }


def test_in_a_copied_namespace_it_reads_deployments_that_it_knows_by_name(defaults: Rendered) -> None:
    assert rules(defaults.one("ClusterRole", "cotune-copies")) == {"apps/deployments": {"get"}}


def test_where_it_may_surge_it_makes_and_removes_deployments_too(defaults: Rendered) -> None:
    assert rules(defaults.one("ClusterRole", "cotune-surges")) == {
        "apps/deployments": {"create", "delete"},
        "/persistentvolumeclaims": {"get"},
    }


def test_at_home_it_keeps_leases(defaults: Rendered) -> None:
    (role,) = defaults.all("Role")
    (binding,) = defaults.all("RoleBinding")

    assert rules(role) == {
        "coordination.k8s.io/leases": {"get", "create", "update"},
    }
    assert binding["metadata"]["namespace"] == role["metadata"]["namespace"] == "cotune-system"
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "cotune"}


def test_no_role_has_a_wildcard_reads_secrets_or_enters_pods(defaults: Rendered) -> None:
    for role in defaults.all("ClusterRole") + defaults.all("Role"):
        allowed = rules(role)
        words = {word for name, verbs in allowed.items() for word in (*name.split("/"), *verbs)}
        assert not words & {"*", "secrets", "exec", "attach", "portforward", "impersonate", "escalate"}, role[
            "metadata"
        ]


def test_users_get_their_share_of_the_clusters_own_roles(defaults: Rendered) -> None:
    shares = {
        name: {
            label.rpartition("-")[2]
            for label in defaults.one("ClusterRole", f"cotune-{name}")["metadata"]["labels"]
            if label.startswith("rbac.authorization.k8s.io/aggregate-to-")
        }
        for name in ("view", "edit", "admin")
    }
    assert shares == {"view": {"view", "edit", "admin"}, "edit": {"edit", "admin"}, "admin": {"admin"}}

    view, edit = (rules(defaults.one("ClusterRole", f"cotune-{name}")) for name in ("view", "edit"))
    assert set().union(*view.values()) == READING
    assert set(edit) == {"cotune.dev/gpuallocationexperiments", "cotune.dev/gpuprofiles"}
    assert "cotune.dev/gputuninggrants" not in view | edit


def test_the_pod_keeps_to_pod_security_restricted(defaults: Rendered) -> None:
    spec = pod_template(defaults)["spec"]

    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(defaults)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [set(volume) for volume in spec["volumes"]] == [{"name", "emptyDir"}]


def test_one_leads_and_one_stands_by_and_an_upgrade_is_stood_by_for(defaults: Rendered) -> None:
    spec = defaults.one("Deployment", "cotune")["spec"]

    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > LAST_PASSES_SECONDS


def test_replicas_prefer_different_nodes_and_are_evicted_one_at_a_time(defaults: Rendered) -> None:
    [term] = pod_template(defaults)["spec"]["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    budget = defaults.one("PodDisruptionBudget", "cotune")["spec"]

    selected = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selected == budget["selector"]["matchLabels"]
    assert selected.items() <= pod_template(defaults)["metadata"]["labels"].items()
    assert budget["maxUnavailable"] == 1


@pytest.mark.parametrize(
    "options", [("replicaCount=1",), ("podDisruptionBudget.create=false",), ("artifacts.enabled=true",)]
)
def test_a_budget_that_could_hold_up_a_drain_for_ever_is_not_made(options: tuple[str, ...]) -> None:
    assert render("--set", *options).all("PodDisruptionBudget") == []


def test_a_volume_for_one_node_keeps_all_replicas_on_it_and_one_for_many_does_not() -> None:
    for_one = render("--set", "artifacts.enabled=true")
    for_many = render("--set", "artifacts.enabled=true", "--set", "artifacts.accessMode=ReadWriteMany")

    assert set(pod_template(for_one)["spec"]["affinity"]) == {"podAffinity"}
    [term] = pod_template(for_one)["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"].items() <= pod_template(for_one)["metadata"]["labels"].items()
    assert set(pod_template(for_many)["spec"]["affinity"]) == {"podAntiAffinity"}
    assert for_many.one("PersistentVolumeClaim", "cotune-artifacts")["spec"]["accessModes"] == ["ReadWriteMany"]
    assert for_many.all("PodDisruptionBudget")


def test_an_affinity_of_ones_own_takes_the_place_of_the_charts() -> None:
    release = render("--set-json", 'affinity={"nodeAffinity": {"x": []}}', "--set", "artifacts.enabled=true")

    assert pod_template(release)["spec"]["affinity"] == {"nodeAffinity": {"x": []}}


def test_the_fence_covers_every_kind_that_a_role_lets_the_operator_write(defaults: Rendered) -> None:
    fenced: set[str] = set()
    for policy in ("cotune-fence", "cotune-fence-shared"):
        for rule in defaults.one("ValidatingAdmissionPolicy", policy)["spec"]["matchConstraints"]["resourceRules"]:
            fenced |= {f"{group}/{name}" for group in rule["apiGroups"] for name in rule["resources"]}
    written = {
        resource
        for role in [
            *defaults.all("Role"),
            *(
                defaults.one("ClusterRole", f"cotune{it}")
                for it in ("", "-trials", "-rollouts", "-quiesces", "-surges")
            ),
        ]
        for resource, verbs in rules(role).items()
        if verbs & {"create", "update", "patch", "delete"}
    }

    # Nobody writes these: the right is asked for where a child holds back the deletion of its owner.
    kinds = ("gpuallocationexperiments", "gpuprofiles", "gputrials")
    finalizers = {f"cotune.dev/{it}/finalizers" for it in kinds}
    assert written - fenced == {"/events"} | finalizers
    assert fenced <= written


def test_the_fence_asks_the_lease_that_the_operator_is_told_of() -> None:
    release = render(namespace="elsewhere", release="other")

    [lease] = [it["value"] for it in container_of(release, "other-cotune")["env"] if it["name"] == "COTUNE_LEASE"]
    bindings = [it["spec"] for it in release.all("ValidatingAdmissionPolicyBinding") if "paramRef" in it["spec"]]
    assert len(bindings) == 3
    for binding in bindings:
        assert (binding["paramRef"]["name"], binding["paramRef"]["namespace"]) == (lease, "elsewhere")


def test_the_operator_learns_its_settings_from_its_environment() -> None:
    release = render(
        *("--set", "probe.image.repository=registry.example/probe", "--set", "probe.image.tag=v1"),
        *("--set", "probe.image.pullPolicy=Always", "--set", "trials.startSeconds=86400", "--set", "logLevel=DEBUG"),
    )

    variables = {it["name"]: it.get("value", it.get("valueFrom")) for it in container(release)["env"]}

    assert variables == {
        "COTUNE_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        "COTUNE_POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
        "COTUNE_POD_UID": {"fieldRef": {"fieldPath": "metadata.uid"}},
        "COTUNE_LEASE": "cotune-leader",
        "COTUNE_LEASE_SECONDS": "12",
        "COTUNE_RENEW_DEADLINE_SECONDS": "8",
        "COTUNE_RETRY_SECONDS": "2",
        "COTUNE_PROBE_IMAGE": "registry.example/probe:v1",
        "COTUNE_PROBE_IMAGE_PULL_POLICY": "Always",
        "COTUNE_DRAIN_SECONDS": "60",
        "COTUNE_START_SECONDS": "86400",
        "COTUNE_LOG_LEVEL": "DEBUG",
    }


def test_no_record_is_kept_and_no_claim_made_unless_that_is_asked_for(defaults: Rendered) -> None:
    assert defaults.all("PersistentVolumeClaim") == []
    assert "COTUNE_ARTIFACTS_DIRECTORY" not in {it["name"] for it in container(defaults)["env"]}


def test_records_lie_on_a_claim_that_outlives_the_release_and_that_the_operator_may_write() -> None:
    release = render("--set", "artifacts.enabled=true", "--set", "artifacts.storageClassName=fast")

    claim = release.one("PersistentVolumeClaim", "cotune-artifacts")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "10Gi"}},
    }
    spec = pod_template(release)["spec"]
    assert spec["volumes"][1] == {"name": "artifacts", "persistentVolumeClaim": {"claimName": "cotune-artifacts"}}
    assert spec["securityContext"]["fsGroup"] == 65532
    mounts = {it["name"]: it["mountPath"] for it in container(release)["volumeMounts"]}
    variables = {it["name"]: it.get("value") for it in container(release)["env"]}
    assert variables["COTUNE_ARTIFACTS_DIRECTORY"] == mounts["artifacts"] == "/artifacts"
    assert variables["COTUNE_ARTIFACTS_DAYS"] == "180"
    assert variables["COTUNE_ARTIFACTS_COUNT_PER_EXPERIMENT"] == "500"


def test_the_operator_asks_no_prometheus_unless_it_is_given_one(defaults: Rendered) -> None:
    assert "COTUNE_PROMETHEUS_URL" not in {it["name"] for it in container(defaults)["env"]}

    release = render("--set", "prometheus.url=http://prometheus.monitoring.svc:9090/base")

    variables = {it["name"]: it.get("value") for it in container(release)["env"]}
    assert variables["COTUNE_PROMETHEUS_URL"] == "http://prometheus.monitoring.svc:9090/base"


def test_a_claim_that_is_there_already_is_used_as_it_is() -> None:
    release = render("--set", "artifacts.enabled=true", "--set", "artifacts.existingClaim=mine")

    assert release.all("PersistentVolumeClaim") == []
    volumes = pod_template(release)["spec"]["volumes"]
    assert volumes[1]["persistentVolumeClaim"] == {"claimName": "mine"}


def test_a_limit_of_0_is_no_limit() -> None:
    release = render(
        *("--set", "artifacts.enabled=true", "--set", "artifacts.retention.days=0"),
        *("--set", "artifacts.retention.countPerExperiment=0"),
    )

    named = {it["name"] for it in container(release)["env"]}
    assert {it for it in named if it.startswith("COTUNE_ARTIFACTS")} == {"COTUNE_ARTIFACTS_DIRECTORY"}


def test_an_image_may_be_named_by_its_digest() -> None:
    digest = "sha256:" + "0" * 64

    release = render("--set", "image.repository=registry.example:5000/operator", "--set", f"image.tag={digest}")

    assert container(release)["image"] == f"registry.example:5000/operator@{digest}"


def test_the_probes_and_the_metrics_service_reach_ports_of_the_container(defaults: Rendered) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(defaults)["ports"]}
    assert ports == {"health": 8080, "metrics": 9090}

    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container(defaults)[probe]["httpGet"] == {"path": path, "port": "health"}
    service = defaults.one("Service", "cotune-metrics")["spec"]
    assert service["ports"] == [{"name": "metrics", "port": 9090, "targetPort": "metrics"}]
    assert service["selector"].items() <= pod_template(defaults)["metadata"]["labels"].items()


def test_prometheus_is_told_only_when_asked_for(defaults: Rendered) -> None:
    assert not defaults.all("ServiceMonitor")

    release = render("--set", "serviceMonitor.create=true", "--set", "serviceMonitor.labels.team=ml")

    (monitor,) = release.all("ServiceMonitor")
    assert monitor["metadata"]["labels"]["team"] == "ml"
    labels = release.one("Service", "cotune-metrics")["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("value", "role"),
    [
        ("labNamespaces", "trials"),
        ("tunedNamespaces", "rollouts"),
        ("copiedNamespaces", "copies"),
        ("quiescedNamespaces", "quiesces"),
        ("surgedNamespaces", "surges"),
    ],
)
def test_a_list_of_namespaces_invites_the_operator_into_each(value: str, role: str) -> None:
    release = render("--set", f"{value}={{one,two}}")

    bindings = [it for it in release.all("RoleBinding") if it["roleRef"]["kind"] == "ClusterRole"]

    assert [it["metadata"]["namespace"] for it in bindings] == ["one", "two"]
    for binding in bindings:
        assert binding["roleRef"]["name"] == f"cotune-{role}"
        assert binding["subjects"] == [OPERATOR]


def test_release_and_namespace_may_be_named_otherwise() -> None:
    release = render(namespace="elsewhere", release="other")

    for binding in release.all("ClusterRoleBinding") + release.all("RoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "other-cotune", "namespace": "elsewhere"}]
    namespaces = {it["metadata"].get("namespace", "elsewhere") for it in release.objects}
    assert namespaces == {"elsewhere"}
    text = yaml.safe_dump_all(release.all("ValidatingAdmissionPolicy"))
    assert set(re.findall(r"system:serviceaccount:[-a-z:]+", text)) == {"system:serviceaccount:elsewhere:other-cotune"}


def test_a_long_release_name_leaves_room_for_suffixes() -> None:
    release = render(release="r" * 53)

    assert max(len(it["metadata"]["name"]) for it in release.objects) <= 63


def test_every_policy_is_bound_and_denies(defaults: Rendered) -> None:
    policies = {it["metadata"]["name"] for it in defaults.all("ValidatingAdmissionPolicy")}
    bindings = defaults.all("ValidatingAdmissionPolicyBinding")

    others = {"cotune-trials", "cotune-bridges", "cotune-fence", "cotune-fence-shared"}
    assert policies == {*AUTHORS, *APPROVALS, *SURGES, *others}
    assert {it["spec"]["policyName"] for it in bindings} == policies
    assert all(it["spec"]["validationActions"] == ["Deny"] for it in bindings)


def test_every_stage_that_the_models_allow_is_asked_about(defaults: Rendered) -> None:
    crds = {it["spec"]["names"]["kind"]: it["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for it in helm.crds()}
    experiment = crds["GpuAllocationExperiment"]["properties"]["spec"]["properties"]["profileTemplate"]
    profile = crds["GpuProfile"]["properties"]["spec"]

    for schema, kind in ((experiment, "experiments"), (profile, "profiles")):
        most = schema["properties"]["rollout"]["properties"]["stages"]["maxItems"]
        for policy, words in (
            (f"cotune-{kind}", ".namespace + ', which this stage would do'"),
            (f"cotune-{kind}-approvals", "'approve'"),
            (f"cotune-{kind}-surges", "check('create')"),
        ):
            validations = defaults.one("ValidatingAdmissionPolicy", policy)["spec"]["validations"]
            assert len([it for it in validations if words in it["expression"] + it["messageExpression"]]) == most


@pytest.mark.parametrize(
    ("setting", "gone"),
    [
        ("admission.authors=false", AUTHORS | SURGES),
        ("admission.bridges=false", {"cotune-bridges"}),
        ("admission.approvals=false", APPROVALS),
        ("admission.trials=false", {"cotune-trials"}),
        ("leaderElection.fence=false", {"cotune-fence", "cotune-fence-shared"}),
    ],
)
def test_a_policy_can_be_switched_off(defaults: Rendered, setting: str, gone: set[str]) -> None:
    release = render("--set", setting)

    left = {it["metadata"]["name"] for it in defaults.all("ValidatingAdmissionPolicy")} - gone
    assert {it["metadata"]["name"] for it in release.all("ValidatingAdmissionPolicy")} == left
    assert {it["spec"]["policyName"] for it in release.all("ValidatingAdmissionPolicyBinding")} == left


def test_the_users_roles_can_be_left_out() -> None:
    names = {it["metadata"]["name"] for it in render("--set", "userRoles.create=false").all("ClusterRole")}

    assert names == {"cotune", "cotune-copies", "cotune-quiesces", "cotune-rollouts", "cotune-surges", "cotune-trials"}


@pytest.mark.parametrize(
    ("setting", "where"),
    [
        ("imgae.tag=1", "imgae"),
        ("image.repository=UPPER", "/image/repository"),
        ("image.tag=", "/image/tag"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("probe.image.tag=a b", "/probe/image/tag"),
        ("trials.drainSeconds=0", "/trials/drainSeconds"),
        ("trials.startSeconds=soon", "/trials/startSeconds"),
        ("logLevel=LOUD", "/logLevel"),
        ("prometheus.url=prometheus:9090", "/prometheus/url"),
        ("prometheus.url=http://prometheus:9090/?x=1", "/prometheus/url"),
        ("artifacts.enabled=perhaps", "/artifacts/enabled"),
        ("artifacts.size=much", "/artifacts/size"),
        ("artifacts.existingClaim=Mine", "/artifacts/existingClaim"),
        ("artifacts.retention.days=-1", "/artifacts/retention/days"),
        ("artifacts.retention.countPerExperiment=some", "/artifacts/retention/countPerExperiment"),
        ("labNamespaces=voice-lab", "/labNamespaces"),
        ("labNamespaces={Voice}", "/labNamespaces/0"),
        ("tunedNamespaces={*}", "/tunedNamespaces/0"),
        ("tunedNamespaces={a,a}", "/tunedNamespaces"),
        ("copiedNamespaces={*}", "/copiedNamespaces/0"),
        ("surgedNamespaces={*}", "/surgedNamespaces/0"),
        ("admission.bridges=maybe", "/admission/bridges"),
        ("admission.trials=maybe", "/admission/trials"),
        ("serviceMonitor.interval=0s", "/serviceMonitor/interval"),
        ("replicas=2", "replicas"),
        ("replicaCount=0", "/replicaCount"),
        ("leaderElection.leaseSeconds=1", "/leaderElection/leaseSeconds"),
        ("artifacts.accessMode=ReadWriteOncePod", "/artifacts/accessMode"),
    ],
)
def test_a_nonsensical_value_is_refused_by_name(setting: str, where: str) -> None:
    with pytest.raises(AssertionError) as refusal:
        render("--set", setting)

    # Helm's releases spell the path of a value as /image/tag or as image.tag.
    assert where in str(refusal.value) or where.strip("/").replace("/", ".") in str(refusal.value)
