"""Whether a stage is what a profile was measured under. Nothing is changed to make it so: no node is reconfigured."""

from collections.abc import Mapping, Set

from cotune.api.profile import Expect
from cotune.api.sharing import Sharing


def sharing_mismatch(
    expect: Expect | None, nodes: Mapping[str, Set[str]], sharing: Mapping[str, Sharing | None]
) -> str | None:
    """Why the figures of a profile do not hold on the cards that a stage runs on; None: nothing speaks against it.

    A node whose labels say nothing of it is not judged.

    Args:
        expect: the profile's.
        nodes: component to the nodes on which its pods have a share of a card.
        sharing: node to how its card is shared.
    """
    if expect is None or expect.sharing is None:
        return None
    found = [
        f"{component} on {node}, which shares its card as {mode}"
        for component, names in nodes.items()
        for node in sorted(names)
        if (mode := sharing.get(node)) is not None and mode is not expect.sharing
    ]
    return f"measured with the card shared as {expect.sharing}: {'; '.join(found)}" if found else None
