"""One trial at a time on a card, held by Leases of a real API server."""

import asyncio
from typing import Any

import pytest
from cotune.cluster.cards import Cards, Holder
from cotune.cluster.kinds import LEASE, POD, TRIAL
from cotune.cluster.objects import ForbiddenError
from cotune.trials.render import LABEL_TRIAL, TrialIdentity
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, within
from support.resources import manifest

pytestmark = pytest.mark.apiserver


async def trial(objects: PlayedObjects, namespace: str, name: str) -> TrialIdentity:
    body: Any = manifest("GpuTrial") | {"metadata": {"name": name, "namespace": namespace}}
    made = await objects.create(TRIAL, namespace, body)
    return TrialIdentity(namespace, name, made["metadata"]["uid"], "voice")


def test_a_free_card_is_held_by_the_trial_that_asks_and_asking_again_is_harmless(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards, mine = Cards(objects, namespace), await trial(objects, namespace, "first")

        assert await cards.holder("lab") is None
        assert [await cards.acquire("lab", mine), await cards.acquire("lab", mine)] == [True, True]
        assert await cards.holder("lab") == Holder.of(mine)
        assert len(await objects.list(LEASE, namespace)) == 1

    within(api_server, scenario)


def test_a_second_trial_is_refused_while_the_first_exists(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards = Cards(objects, namespace)
        first, second = await trial(objects, namespace, "first"), await trial(objects, namespace, "second")
        await cards.acquire("lab", first)

        assert not await cards.acquire("lab", second)
        assert await cards.acquire("another-card", second)
        assert await cards.holder("lab") == Holder.of(first)

    within(api_server, scenario)


def test_a_released_card_goes_to_the_next(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        told: list[str] = []
        cards = Cards(objects, namespace, released=lambda: told.append("released"))
        first, second = await trial(objects, namespace, "first"), await trial(objects, namespace, "second")
        await cards.acquire("lab", first)

        await cards.release("lab", second)
        assert told == [], "a card that somebody else holds is left alone"
        await cards.release("lab", first)

        assert told == ["released"]
        assert await cards.holder("lab") is None
        assert await cards.acquire("lab", second)

    within(api_server, scenario)


def test_somebody_elses_card_is_not_released(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards = Cards(objects, namespace)
        first, second = await trial(objects, namespace, "first"), await trial(objects, namespace, "second")
        await cards.acquire("lab", first)

        await cards.release("lab", second)

        assert await cards.holder("lab") == Holder.of(first)

    within(api_server, scenario)


def test_the_card_of_a_trial_that_has_gone_is_taken_over(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards = Cards(objects, namespace)
        first, second = await trial(objects, namespace, "first"), await trial(objects, namespace, "second")
        await cards.acquire("lab", first)
        await objects.delete(TRIAL, namespace, "first")

        assert await cards.acquire("lab", second)
        assert await cards.holder("lab") == Holder.of(second)

    within(api_server, scenario)


def test_a_trial_made_again_under_its_name_is_not_the_holder(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards = Cards(objects, namespace)
        first = await trial(objects, namespace, "first")
        await cards.acquire("lab", first)
        await objects.delete(TRIAL, namespace, "first")
        again = await trial(objects, namespace, "first")

        assert await cards.acquire("lab", again)
        assert await cards.holder("lab") == Holder.of(again)

    within(api_server, scenario)


def test_a_card_is_not_taken_over_while_a_pod_of_its_holder_is_left(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards = Cards(objects, namespace)
        first, second = await trial(objects, namespace, "first"), await trial(objects, namespace, "second")
        await cards.acquire("lab", first)
        await objects.create(
            POD,
            namespace,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "left", "namespace": namespace, "labels": {LABEL_TRIAL: "first"}},
                "spec": {"containers": [{"name": "server", "image": "example/server:1"}]},
            },
        )
        await objects.delete(TRIAL, namespace, "first")

        while_it_is_left = await cards.acquire("lab", second)
        await objects.delete(POD, namespace, "left", grace=0)

        assert not while_it_is_left
        assert await cards.acquire("lab", second)

    within(api_server, scenario)


@pytest.mark.parametrize(("phase", "is_taken"), [("Measuring", False), ("Invalid", True), ("Succeeded", True)])
def test_a_finished_trial_that_did_not_give_its_card_back_does_not_block_it(
    api_server: ApiServer, phase: str, is_taken: bool
) -> None:
    """A pass may die after it has taken a card and before it has written down which."""

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards = Cards(objects, namespace)
        first, second = await trial(objects, namespace, "first"), await trial(objects, namespace, "second")
        await cards.acquire("lab", first)
        await objects.merge(TRIAL, namespace, "first", {"status": {"phase": phase}}, subresource="status")

        assert await cards.acquire("lab", second) is is_taken

    within(api_server, scenario)


@pytest.mark.parametrize("was_held", [False, True], ids=["new card", "card held before"])
def test_of_two_that_ask_at_once_exactly_one_gets_the_card(api_server: ApiServer, was_held: bool) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards = Cards(objects, namespace)
        rivals = [await trial(objects, namespace, name) for name in ("a", "b", "c")]
        if was_held:
            await cards.acquire("lab", rivals[0])
            await cards.release("lab", rivals[0])

        got = await asyncio.gather(*(cards.acquire("lab", it) for it in rivals))

        assert got.count(True) == 1
        assert await cards.holder("lab") == Holder.of(rivals[got.index(True)])

    within(api_server, scenario)


def test_a_card_is_not_locked_by_a_namespace_that_took_its_invitation_along(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        cards = Cards(objects, namespace)
        second = await trial(objects, namespace, "second")
        await cards.acquire("lab", TrialIdentity("gone", "first", "uid-of-the-first", "voice"))

        async def refuse(*_: object) -> None:
            raise ForbiddenError(403, "Forbidden", "pods is forbidden")

        objects.list = refuse  # pyright: ignore[reportAttributeAccessIssue]
        assert await cards.acquire("lab", second)

    within(api_server, scenario)
