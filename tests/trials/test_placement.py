from dataclasses import replace
from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec
from cotune.api.sharing import Sharing
from cotune.trials.placement import Asked, Node, place, place_stack, placements, sharing_modes
from hypothesis import given
from hypothesis import strategies as st
from support.resources import manifest

PRODUCT = "NVIDIA-GeForce-RTX-3060"
ASKED = Asked(PRODUCT, Sharing.TIME_SLICING, shares=4)
STRATEGY, REPLICAS = "nvidia.com/gpu.sharing-strategy", "nvidia.com/gpu.replicas"
LAB = Node(
    name="lab",
    labels={
        "nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-3060-SHARED",
        "nvidia.com/gpu.count": "1",
        STRATEGY: "time-slicing",
    },
    taints=frozenset({("cotune.dev/dedicated", "trials")}),
    is_ready=True,
    gpu_shares=8,
)
MPS = replace(LAB, name="mps", labels={**LAB.labels, STRATEGY: "mps", REPLICAS: "4"}, gpu_shares=4)
EXCLUSIVE = replace(LAB, name="whole", labels={**LAB.labels, STRATEGY: "none", REPLICAS: "1"}, gpu_shares=1)


def test_a_dedicated_node_with_one_shared_card_of_the_product_runs_trials() -> None:
    placement = place([replace(LAB, name="lab-2"), LAB], ASKED)

    assert placement.nodes == ("lab", "lab-2")
    assert not placement.refused


UNPREPARED = [
    (replace(LAB, taints=frozenset()), "not dedicated"),
    (replace(LAB, taints=frozenset({("cotune.dev/dedicated", "builds")})), "not dedicated"),
    (replace(LAB, labels={**LAB.labels, "nvidia.com/gpu.count": "2"}), "has 2 cards"),
    (replace(LAB, labels={"nvidia.com/gpu.product": PRODUCT}), "unknown number of cards"),
    (replace(LAB, labels={**LAB.labels, STRATEGY: "mps"}), "by mps, not by time-slicing"),
    (replace(LAB, gpu_shares=3), "offers 3 nvidia.com/gpu, and the stack with its probe needs 4"),
]
AWAY = [(replace(LAB, is_ready=False), "not ready"), (replace(LAB, gpu_shares=0), "offers 0 nvidia.com/gpu")]


@pytest.mark.parametrize(("node", "why"), [*UNPREPARED, *AWAY])
def test_a_node_that_may_not_run_trials_says_why(node: Node, why: str) -> None:
    placement = place([node], ASKED)

    assert placement.nodes == ()
    assert why in placement.why_none()
    assert placement.why_none().startswith("lab: ")


@pytest.mark.parametrize(
    ("node", "may_come"), [*((it, False) for it, _ in UNPREPARED), *((it, True) for it, _ in AWAY)]
)
def test_a_node_that_is_only_away_may_be_back(node: Node, may_come: bool) -> None:
    assert place([node], ASKED).may_come == may_come


def test_nodes_with_another_card_are_no_news() -> None:
    other = replace(LAB, labels={**LAB.labels, "nvidia.com/gpu.product": "NVIDIA-H200"})

    assert place([other], ASKED).why_none() == "no node offers what spec.gpu asks for"


def test_the_sharing_that_was_asked_for_is_the_one_that_counts() -> None:
    nodes = [LAB, MPS, EXCLUSIVE]

    assert place(nodes, ASKED).nodes == ("lab",)
    assert place(nodes, replace(ASKED, sharing=Sharing.MPS)).nodes == ("mps",)
    assert place(nodes, replace(ASKED, sharing=Sharing.EXCLUSIVE, shares=1)).nodes == ("whole",)


def test_without_a_card_any_dedicated_node_will_do() -> None:
    plain = replace(LAB, labels={}, gpu_shares=0)

    assert place([plain, replace(plain, name="other", taints=frozenset())], None).nodes == ("lab",)


def stack(*shares: int, sharing: tuple[str, ...] = (), users: tuple[int | None, ...] = ()) -> ExperimentSpec:
    """The story's stack, whose components ask for so many shares, and run as these users."""
    spec = manifest("GpuAllocationExperiment")["spec"]
    components: list[Any] = spec["stack"]["components"]
    for it, count in zip(components, shares, strict=True):
        if count:
            it["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": count}}
    for it, user in zip(components, users or (None,) * len(shares), strict=True):
        it["template"]["spec"]["securityContext"] = {} if user is None else {"runAsUser": user}
    if sharing:
        spec["parameters"].append(
            {"name": "sharing", "bind": {"gpu": "sharing"}, "values": list(sharing), "baseline": sharing[0]}
        )
        del spec["gpu"]["sharing"]
    return ExperimentSpec.model_validate(spec)


@pytest.mark.parametrize(("shares", "needed"), [((1, 1), 3), ((1, 0), 2), ((0, 0), 1)])
def test_so_many_shares_are_needed_as_containers_ask_for_and_one_for_the_probe(
    shares: tuple[int, ...], needed: int
) -> None:
    for offered in (needed - 1, needed):
        placement = place_stack([replace(LAB, gpu_shares=offered)], stack(*shares), Sharing.TIME_SLICING)
        assert (placement.nodes == ("lab",)) == (offered == needed)


def test_a_card_of_its_own_is_only_for_a_stack_with_one_container_on_it() -> None:
    assert place_stack([EXCLUSIVE], stack(1, 0), Sharing.EXCLUSIVE).nodes == ("whole",), "the probe takes no share"

    refused = place_stack([EXCLUSIVE], stack(1, 1), Sharing.EXCLUSIVE)

    assert not refused.may_come
    assert refused.why_none().endswith("a stack shares one: judge 1, stt 1")


def test_mps_serves_one_user() -> None:
    assert place_stack([MPS], stack(1, 1, users=(1000, 1000)), Sharing.MPS).nodes == ("mps",)
    assert place_stack([MPS], stack(1, 1, users=(1000, None)), Sharing.MPS).nodes == ("mps",), "the image may say it"
    assert place_stack([MPS], stack(1, 0, users=(1000, 2000)), Sharing.MPS).nodes == ("mps",), "only one is a client"

    refused = place_stack([MPS], stack(1, 1, users=(1000, 2000)), Sharing.MPS)

    assert refused.why_none() == "MPS serves one user at a time: judge runs as 1000, stt runs as 2000"
    assert place_stack([LAB], stack(1, 1, users=(1000, 2000)), Sharing.TIME_SLICING).nodes == ("lab",)


def test_every_way_of_sharing_has_its_own_nodes_and_those_without_are_named() -> None:
    spec = stack(1, 1, sharing=("TimeSlicing", "MPS", "Exclusive"))

    placed = placements([LAB, MPS, replace(MPS, name="mps-2", labels={**MPS.labels, REPLICAS: "10"})], spec)
    modes = sharing_modes(spec, placed)

    assert {mode: it.nodes for mode, it in placed.items()} == {
        Sharing.TIME_SLICING: ("lab",),
        Sharing.MPS: ("mps", "mps-2"),
        Sharing.EXCLUSIVE: (),
    }
    assert [mode for mode, _ in modes.missing] == [Sharing.EXCLUSIVE]
    assert modes.mps_replicas == 10, "the smallest share is what a client can count on"


@given(
    baseline=st.sampled_from(sorted(Sharing)),
    others=st.sets(st.sampled_from(sorted(Sharing))),
    nodes=st.lists(st.sampled_from([LAB, MPS, EXCLUSIVE, replace(MPS, is_ready=False)]), max_size=4),
)
def test_a_trial_never_runs_on_a_node_that_shares_otherwise_and_the_baselines_way_is_never_missing(
    baseline: Sharing, others: set[Sharing], nodes: list[Node]
) -> None:
    spec = stack(1, 0, sharing=(baseline, *sorted(others - {baseline})))
    named = {f"{it.name}-{number}": replace(it, name=f"{it.name}-{number}") for number, it in enumerate(nodes)}

    placed = placements(list(named.values()), spec)
    modes = sharing_modes(spec, placed)

    assert set(placed) == {baseline, *others}
    for mode, placement in placed.items():
        assert all(named[it].sharing is mode and named[it].is_ready for it in placement.nodes)
        is_missing = mode in {it for it, _ in modes.missing}
        assert is_missing == (mode is not baseline and not placement.may_come)
