import pytest
from cotune.api.profile import Expect
from cotune.api.sharing import Sharing
from cotune.rollout.expectation import sharing_mismatch

UNDER_MPS = Expect(sharing=Sharing.MPS)
SHARING = {"sliced": Sharing.TIME_SLICING, "mps": Sharing.MPS, "unlabelled": None}


@pytest.mark.parametrize(
    ("expect", "nodes", "is_mismatch"),
    [
        (UNDER_MPS, {"stt": {"mps"}, "judge": {"mps"}}, False),
        (UNDER_MPS, {"stt": {"mps"}, "judge": {"sliced"}}, True),
        (UNDER_MPS, {"stt": {"unlabelled"}}, False),
        (UNDER_MPS, {"stt": {"gone"}}, False),
        (UNDER_MPS, {}, False),
        (Expect(sharing=Sharing.TIME_SLICING), {"stt": {"sliced"}}, False),
        (Expect(), {"stt": {"sliced"}}, False),
        (None, {"stt": {"sliced"}}, False),
    ],
)
def test_a_stage_whose_cards_are_known_to_be_shared_otherwise_is_a_mismatch(
    expect: Expect | None, nodes: dict[str, set[str]], is_mismatch: bool
) -> None:
    assert (sharing_mismatch(expect, nodes, SHARING) is not None) == is_mismatch


def test_the_message_names_component_node_and_both_ways() -> None:
    found = sharing_mismatch(UNDER_MPS, {"stt": {"mps", "sliced"}}, SHARING)

    assert found == "measured with the card shared as MPS: stt on sliced, which shares its card as TimeSlicing"
