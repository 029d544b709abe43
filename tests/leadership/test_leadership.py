"""Candidates with clocks of their own around one played Lease: whatever is lost or late, two never lead."""

import asyncio
import copy
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from cotune.cluster.election import Timing
from cotune.cluster.kinds import Kind
from cotune.cluster.leadership import Leadership
from cotune.cluster.objects import AlreadyExistsError, ApiError, ConflictError, NotFoundError, Object, Objects
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

TIMING = Timing(duration=12, renew_deadline=8, retry=2)


@dataclass
class PlayedLease:
    """What the API server does for a Lease: optimistic locking, and now and then no answer."""

    stored: Object | None = None
    version: int = 0
    fault: str = ""
    """`unreachable`: the request is not done; `unanswered`: it is, and nobody learns of it."""
    holders: list[str] = field(default_factory=list[str])

    async def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        self._may_fail("unreachable")
        return copy.deepcopy(self.stored)

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        if (found := await self.find(kind, namespace, name)) is None:
            raise NotFoundError(404, "NotFound", name)
        return found

    async def create(self, kind: Kind, namespace: str, body: Object, dry_run: bool = False) -> Object:
        if self.stored is not None:
            raise AlreadyExistsError(409, "AlreadyExists", "")
        return self._store(body)

    async def replace(self, kind: Kind, body: Object) -> Object:
        if self.stored is None or body["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            raise ConflictError(409, "Conflict", "")
        return self._store(body)

    def _store(self, body: Object) -> Object:
        self._may_fail("unreachable")
        self.version += 1
        self.stored = copy.deepcopy(body | {"metadata": body["metadata"] | {"resourceVersion": str(self.version)}})
        self.holders.append(body["spec"]["holderIdentity"])
        self._may_fail("unanswered")
        return copy.deepcopy(self.stored)

    def _may_fail(self, fault: str) -> None:
        if self.fault == fault:
            raise ApiError(504, "Timeout", fault)


@dataclass
class Machine:
    """A candidate's machine: its clock began at another time and runs a little fast or slow."""

    offset: float
    rate: float
    now: float = 0

    def clock(self) -> float:
        return self.offset + self.rate * self.now


def candidate(lease: PlayedLease, name: str, machine: Machine, lost: list[str]) -> Leadership:
    objects = cast("Objects", lease)
    return Leadership(objects, "home", "leader", name, TIMING, lambda _: lost.append(name), machine.clock)


class Election(RuleBasedStateMachine):
    """Three candidates; each of them looks at the Lease when the schedule says so, with whatever goes wrong."""

    @initialize(
        offsets=st.lists(st.floats(0, 1e6), min_size=3, max_size=3),
        rates=st.lists(st.floats(0.9, 1.1), min_size=3, max_size=3),
    )
    def begin(self, offsets: list[float], rates: list[float]) -> None:
        self.lease = PlayedLease()
        self.lost: list[str] = []
        self.machines = [Machine(*it) for it in zip(offsets, rates, strict=True)]
        self.candidates = [candidate(self.lease, f"pod-{n}", it, self.lost) for n, it in enumerate(self.machines)]

    @rule(seconds=st.floats(0.01, 15))
    def time_passes(self, seconds: float) -> None:
        for machine in self.machines:
            machine.now += seconds

    @rule(number=st.integers(0, 2), fault=st.sampled_from(["", "", "", "unreachable", "unanswered"]))
    def looks(self, number: int, fault: str) -> None:
        self.lease.fault = fault
        had_led = self.candidates[number].leads
        self.candidates[number].check()
        if f"pod-{number}" in self.lost:
            # The process has ended; its container starts again as a standby, under the same name.
            self.lost.remove(f"pod-{number}")
            self.candidates[number] = candidate(self.lease, f"pod-{number}", self.machines[number], self.lost)
        try:
            leads = asyncio.run(self.candidates[number].attempt())
        except ApiError:
            return
        finally:
            self.lease.fault = ""
        assert leads == self.candidates[number].leads or (had_led and not leads)

    @rule(number=st.integers(0, 2))
    def gives_back(self, number: int) -> None:
        if self.candidates[number].leads:
            asyncio.run(self.candidates[number].release())
            assert not self.candidates[number].leads

    @rule(number=st.integers(0, 2))
    def is_deleted_by_somebody_while_its_holder_is_well(self, number: int) -> None:
        if self.candidates[number].leads:
            self.lease.stored = None
            asyncio.run(self.candidates[number].attempt())

    @invariant()
    def two_never_lead(self) -> None:
        leaders = [n for n, it in enumerate(getattr(self, "candidates", ())) if it.leads]
        assert len(leaders) < 2, leaders


def test_two_never_lead() -> None:
    run_state_machine_as_test(  # pyright: ignore[reportUnknownMemberType]
        Election, settings=settings(max_examples=100, stateful_step_count=60)
    )


def attempts(lease: PlayedLease, who: Leadership) -> bool:
    return asyncio.run(who.attempt())


def test_a_standby_takes_over_when_the_leader_has_been_silent_for_the_leases_duration_and_not_before() -> None:
    lease, lost = PlayedLease(), list[str]()
    one, other = Machine(0, 1), Machine(5e5, 1)
    leader, standby = candidate(lease, "one", one, lost), candidate(lease, "other", other, lost)
    assert attempts(lease, leader)

    taken_over_after = None
    for second in range(0, 30, 2):
        one.now = other.now = second
        if attempts(lease, standby):
            taken_over_after = second
            break

    assert taken_over_after == 12
    assert not leader.leads
    assert lease.holders == ["one", "other"]


def test_a_leader_whose_renewals_fail_stops_before_its_lease_ends() -> None:
    lease, lost, machine = PlayedLease(), list[str](), Machine(0, 1)
    leader = candidate(lease, "one", machine, lost)
    assert attempts(lease, leader)
    lease.fault = "unreachable"

    machine.now = 7.9
    with pytest.raises(ApiError):
        attempts(lease, leader)
    leader.check()
    assert (leader.leads, lost) == (True, [])
    machine.now = 8
    leader.check()

    assert (leader.leads, lost) == (False, ["one"])


def test_the_deadline_counts_from_before_the_renewal_was_sent() -> None:
    lease, lost, machine = PlayedLease(), list[str](), Machine(0, 1)
    leader = candidate(lease, "one", machine, lost)
    stored = lease.create

    async def slowly(*arguments: Any, **named: Any) -> Object:
        machine.now += 5
        return await stored(*arguments, **named)

    lease.create = slowly  # type: ignore[method-assign]
    assert attempts(lease, leader)
    machine.now = 8

    assert not leader.leads


def test_a_leader_that_was_paused_ends_at_its_next_write_however_soon_it_is() -> None:
    lease, lost, machine = PlayedLease(), list[str](), Machine(0, 1)
    leader = candidate(lease, "one", machine, lost)
    assert attempts(lease, leader)

    machine.now = 60
    leader.check()

    assert lost == ["one"]


def test_what_is_given_back_is_taken_by_the_next_look() -> None:
    lease, lost = PlayedLease(), list[str]()
    leader, standby = (candidate(lease, name, Machine(0, 1), lost) for name in ("one", "other"))
    assert attempts(lease, leader)
    assert not attempts(lease, standby)

    asyncio.run(leader.release())

    assert attempts(lease, standby)
    assert lost == []


def test_another_ones_lease_is_never_given_back() -> None:
    lease, lost, machine = PlayedLease(), list[str](), Machine(0, 1)
    old, new = candidate(lease, "old", machine, lost), candidate(lease, "new", machine, lost)
    assert attempts(lease, old)
    attempts(lease, new)
    machine.now = 20
    assert attempts(lease, new)

    asyncio.run(old.release())

    assert lease.holders == ["old", "new"]


def test_renewing_ends_the_process_that_finds_another_leader() -> None:
    lease, lost, machine = PlayedLease(), list[str](), Machine(0, 1)
    quick = Timing(duration=0.6, renew_deadline=0.4, retry=0.02)
    leader = Leadership(cast("Objects", lease), "home", "leader", "one", quick, lost.append, machine.clock)

    async def scenario() -> None:
        await leader.acquire()
        async with leader.renewing():
            assert lease.stored is not None
            lease.stored["spec"]["holderIdentity"] = "other"
            async with asyncio.timeout(10):
                while not lost:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())

    assert lost[0] == "another one leads"


def test_what_is_given_back_is_not_taken_again_by_a_renewal() -> None:
    lease, lost = PlayedLease(), list[str]()
    quick = Timing(duration=0.6, renew_deadline=0.4, retry=0.02)
    leader = Leadership(cast("Objects", lease), "home", "leader", "one", quick, lost.append)

    async def scenario() -> None:
        await leader.acquire()
        async with leader.renewing():
            await asyncio.sleep(0.1)
            await leader.release()
            await asyncio.sleep(0.2)

    asyncio.run(scenario())

    assert lease.holders[-1] == ""
    assert set(lease.holders[:-1]) == {"one"}
    assert lost == []
