from dataclasses import replace

import pytest
from cotune.api.experiment import Gpu, Sharing
from cotune.trials.placement import Node, place

GPU = Gpu(product="NVIDIA-GeForce-RTX-3060")
LAB = Node(
    name="lab",
    labels={
        "nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-3060-SHARED",
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.sharing-strategy": "time-slicing",
    },
    taints=frozenset({("cotune.dev/dedicated", "trials")}),
    is_ready=True,
    gpu_shares=8,
)


def test_a_dedicated_node_with_one_shared_card_of_the_product_runs_trials() -> None:
    placement = place([replace(LAB, name="lab-2"), LAB], GPU, containers=4)

    assert placement.nodes == ("lab", "lab-2")
    assert not placement.refused


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (replace(LAB, taints=frozenset()), "not dedicated"),
        (replace(LAB, taints=frozenset({("cotune.dev/dedicated", "builds")})), "not dedicated"),
        (replace(LAB, is_ready=False), "not ready"),
        (replace(LAB, labels={**LAB.labels, "nvidia.com/gpu.count": "2"}), "has 2 cards"),
        (replace(LAB, labels={"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-3060"}), "unknown number of cards"),
        (replace(LAB, labels={**LAB.labels, "nvidia.com/gpu.sharing-strategy": "mps"}), "by mps, not by time-slicing"),
        (replace(LAB, gpu_shares=3), "offers 3 nvidia.com/gpu, and the stack with its probe needs 4"),
    ],
)
def test_a_node_that_may_not_run_trials_says_why(node: Node, why: str) -> None:
    placement = place([node], GPU, containers=4)

    assert placement.nodes == ()
    assert why in placement.why_none()
    assert placement.why_none().startswith("lab: ")


def test_nodes_with_another_card_are_no_news() -> None:
    other = replace(LAB, labels={**LAB.labels, "nvidia.com/gpu.product": "NVIDIA-H200"})

    assert place([other], GPU, containers=4).why_none() == "no node offers what spec.gpu asks for"


def test_the_sharing_that_was_asked_for_is_the_one_that_counts() -> None:
    exclusive = replace(LAB, labels={**LAB.labels, "nvidia.com/gpu.sharing-strategy": "none"})

    assert place([exclusive], Gpu(product=GPU.product, sharing=Sharing.EXCLUSIVE), containers=1).nodes == ("lab",)


def test_without_a_card_any_dedicated_node_will_do() -> None:
    plain = replace(LAB, labels={}, gpu_shares=0)

    assert place([plain, replace(plain, name="other", taints=frozenset())], None, containers=4).nodes == ("lab",)
