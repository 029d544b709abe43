from cotune.measurement.agent.contract import NodeReport, Tenant, TenantProcess
from cotune.trials.tenancy import PodIdentity, Share, tenancy, words

CARD = "GPU-1"
PODS = {
    "probe": PodIdentity("uid-probe", frozenset({"p"})),
    "judge": PodIdentity("uid-judge", frozenset({"j1", "j2"})),
    "stt": PodIdentity("uid-stt", frozenset({"s"})),
}


def tenant(pod: str, container: str, least: float, most: float, name: str = "python3") -> Tenant:
    process = TenantProcess(pid=4711, name=name, container=container)
    ids = (container,) if container else ()
    return Tenant(pod=pod, containers=ids, processes=(process,), least_mib=least, most_mib=most)


def report(*tenants: Tenant) -> NodeReport:
    return NodeReport(node="lab", card=CARD, readings=600, tenants=tenants, lost=(99,))


def test_every_pod_of_the_trial_has_its_share_and_the_rest_are_strangers() -> None:
    stranger, desktop = tenant("uid-other", "x", 512, 512), tenant("", "", 60, 80, "Xorg")

    found = tenancy(report(tenant("uid-judge", "j1", 5_900, 6_100), stranger, desktop), CARD, PODS)

    assert found is not None
    assert found.shares == {"probe": Share(0, 0), "judge": Share(5_900, 6_100), "stt": Share(0, 0)}
    assert found.strangers == (stranger, desktop)
    assert (found.readings, found.lost) == (600, (99,))


def test_a_runtime_whose_groups_do_not_name_the_pod_is_known_by_the_containers() -> None:
    found = tenancy(report(tenant("", "j1", 100, 200), tenant("", "j2", 10, 30), tenant("", "z", 1, 1)), CARD, PODS)

    assert found is not None
    assert found.shares["judge"] == Share(110, 230)
    assert [it.containers for it in found.strangers] == [("z",)]


def test_a_container_of_an_earlier_run_is_known_by_its_pod() -> None:
    found = tenancy(report(tenant("uid-stt", "gone", 900, 900)), CARD, PODS)

    assert found is not None
    assert (found.shares["stt"], found.strangers) == (Share(900, 900), ())


def test_a_report_of_another_card_and_no_report_tell_nothing() -> None:
    assert tenancy(report(), "GPU-2", PODS) is None
    assert tenancy(None, CARD, PODS) is None


def test_a_pod_of_which_nothing_is_known_gets_nobodys_share() -> None:
    found = tenancy(report(tenant("", "", 60, 80)), CARD, {"judge": PodIdentity()})

    assert found is not None
    assert found.shares == {"judge": Share(0, 0)}
    assert len(found.strangers) == 1


def test_a_stranger_is_named_as_far_as_it_is_known() -> None:
    assert words(tenant("uid-other", "0123456789abcdef", 512, 512.4)) == (
        "pod uid-other, container 0123456789ab: process 4711 (python3) with 512 MiB"
    )
    assert words(tenant("", "", 60, 80, "Xorg")) == "the node itself: process 4711 (Xorg) with 80 MiB"
