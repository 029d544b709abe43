"""A small part of `make chaos`, so that it goes on doing what it says: every job, and a few faults in each."""

from collections.abc import Iterator

import pytest
from chaos.campaign import Campaign, Undisturbed, plans, written_sites
from chaos.faults import Fault, Plan
from chaos.jobs import JOBS
from support.api_server import ApiServer

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def campaign(api_server: ApiServer) -> Campaign:
    return Campaign(api_server.kubeconfig)


def sample(undisturbed: Undisturbed) -> Iterator[Plan]:
    """One fault of each kind, each at another call."""
    found = list(plans(undisturbed, with_etcd=False))
    kinds = [it for it in Fault if any(plan.fault is it for plan in found)]
    for number, fault in enumerate(kinds):
        of_kind = [it for it in found if it.fault is fault]
        yield of_kind[number * len(of_kind) // len(kinds)]


@pytest.mark.parametrize("job", JOBS)
def test_a_job_ends_as_without_whatever_befalls_it(campaign: Campaign, job: str) -> None:
    runs = [campaign.run(job, plan) for plan in sample(campaign.record(job))]

    assert len(runs) >= 5
    assert [f"{it.plan}: {it.outcome}: {it.detail}" for it in runs if it.outcome != "same"] == []


def test_every_line_that_writes_belongs_to_a_job(campaign: Campaign) -> None:
    reached = frozenset[object]().union(*(campaign.record(it).sites for it in JOBS))

    assert len(written_sites()) > 10
    assert {str(it) for it in written_sites() - reached} == set[str]()


def test_a_run_whose_end_is_another_is_told_from_one_that_ends_the_same(campaign: Campaign) -> None:
    undisturbed = campaign.record("trial")
    other = Campaign(campaign.kubeconfig)
    other.undisturbed["trial"] = Undisturbed(
        undisturbed.end | {"holder": "somebody"}, undisturbed.passed, undisturbed.sites, undisturbed.seconds
    )
    plan = next(plans(undisturbed, with_etcd=False))

    run = other.run("trial", plan)

    assert (run.outcome, run.detail) == ("differs", "holder: None, not 'somebody'")
