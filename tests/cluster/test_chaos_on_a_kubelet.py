"""A small part of `make chaos JOB=kubelet`: rollouts on a real kubelet, with a death, and while it is held."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from chaos import real_kubelet
from chaos.campaign import Campaign, Run
from chaos.faults import Fault

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

HELD_SECONDS = 5


@dataclass(frozen=True)
class Played:
    """What was found."""

    plans: Mapping[str, int]
    """Job to how many faults `make chaos` has for it."""
    runs: tuple[Run, ...]
    phases: Mapping[str, str]
    """Job to the profile's last phase without a fault."""
    times_held: int


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    with real_kubelet.node("chaos-test") as kubelet:
        kubelet.held_seconds = HELD_SECONDS
        campaign = Campaign(kubelet.instance.kubeconfig, real_kubelet.JOBS, kubelet=kubelet.hold, patience_seconds=200)
        plans: dict[str, int] = {}
        runs: list[Run] = []
        for job in real_kubelet.JOBS:
            found = list(real_kubelet.plans(campaign.record(job)))
            plans[job] = len(found)
            deaths = [it for it in found if it.fault is Fault.DIES_AFTER and it.point.call == "apply deployments"]
            held = [it for it in found if it.fault is Fault.KUBELET and it.point.call == "patch deployments/scale"]
            for plan in (deaths[0], held[-1]):
                asyncio.run(real_kubelet.until_idle(kubelet))
                runs.append(campaign.run(job, plan))
        phases = {job: campaign.record(job).end["phase"] for job in real_kubelet.JOBS}
        yield Played(plans, tuple(runs), phases, kubelet.times_held)


def test_a_rollout_ends_as_without_whatever_befalls_operator_or_kubelet(played: Played) -> None:
    assert [f"{it.plan}: {it.outcome}: {it.detail}" for it in played.runs if it.outcome != "same"] == []
    assert len(played.runs) == 4


def test_one_is_promoted_and_the_other_goes_back(played: Played) -> None:
    assert sorted(played.phases.values()) == ["Promoted", "RolledBack"]


def test_the_kubelet_was_held_in_both(played: Played) -> None:
    assert played.times_held == 2


def test_the_campaign_has_more_than_ten_points_on_a_real_kubelet(played: Played) -> None:
    assert all(it >= 10 for it in played.plans.values())
