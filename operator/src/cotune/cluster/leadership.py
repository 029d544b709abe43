"""One leader among the operator's replicas, by a Lease; what its predecessor still writes is refused.

A process cannot know that it was paused, or cut off, between its last look at the clock and the moment at which its
request arrives. So the chart's admission policies compare the pod that every request's token is bound to with the
Lease's holder (docs/adr/0009-the-fence-is-an-admission-policy.md). They hear of a new holder a little later than it
was written: a leader begins nothing before a request of its own has passed them.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime

from cotune.cluster.election import Seen, Term, Timing, claim, look, released
from cotune.cluster.kinds import LEASE
from cotune.cluster.objects import AlreadyExistsError, ConflictError, NotFoundError, Object, Objects

_FIRST_PROOF_SECONDS = 0.05

_logger = logging.getLogger("cotune.leadership")


def monotonic() -> float:
    """Seconds that go on while the machine sleeps, too, where the system can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Leadership:
    """The part of one process in the election.

    Its `objects` are its own: a renewal must not wait for a connection that passes use, nor be held up by `check`.
    """

    def __init__(
        self,
        objects: Objects,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing,
        when_lost: Callable[[str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take part.

        Args:
            objects: the connection for the Lease.
            namespace: of the Lease.
            name: of the Lease.
            identity: as the fence makes it of a request's token: name and UID of the pod.
            timing: of the Lease.
            when_lost: called with the reason as soon as leadership is lost; ends the process.
            clock: monotonic, in seconds.
        """
        self._objects = objects
        self._namespace, self._name = namespace, name
        self._identity = identity
        self._timing = timing
        self._when_lost = when_lost
        self._clock = clock
        self._seen: Seen | None = None
        self._lease: Object | None = None
        self._leads_until: float | None = None
        self._looked_at = clock()
        self._renewals: asyncio.Task[None] | None = None

    @property
    def has_looked(self) -> bool:
        """Whether the Lease could be read at all."""
        return self._seen is not None

    @property
    def leads(self) -> bool:
        """Whether this process leads, as far as it can know."""
        return self._leads_until is not None and self._clock() < self._leads_until

    def idle_seconds(self) -> float:
        """Since the last attempt at the Lease: the loop that makes them stands still when this is long."""
        return self._clock() - self._looked_at

    def check(self) -> None:
        """End what would be done too late: to be called before every write."""
        if self._leads_until is not None and not self.leads:
            self._lose("the Lease was not renewed in time")

    async def acquire(self) -> None:
        """Wait until this process leads; errors of the API server are waited through."""
        while True:
            try:
                if await self.attempt():
                    _logger.info("%s leads", self._identity)
                    return
            except Exception as error:  # A standby outlives whatever the API server does.
                _logger.warning("the Lease %s: %s: %s", self._name, type(error).__name__, error)
            await asyncio.sleep(self._timing.retry)

    @contextlib.asynccontextmanager
    async def renewing(self) -> AsyncGenerator[None]:
        """Renew the Lease as long as the context lasts, or until it is given back."""
        self._renewals = asyncio.create_task(self._renew_for_ever(), name="leadership")
        try:
            yield
        finally:
            await self._stop_renewing()

    async def passes_the_fence(self) -> None:
        """Wait until the API server refuses the predecessor: a write that is only tried has passed as the leader's."""
        body: Object = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {"name": f"{self._name}-proof", "namespace": self._namespace},
            "spec": {"holderIdentity": self._identity},
        }
        delay = _FIRST_PROOF_SECONDS
        while True:
            try:
                await self._objects.create(LEASE, self._namespace, body, dry_run=True)
                return
            except Exception as error:  # The API server has not heard yet who leads, or is away.
                level = logging.DEBUG if delay < self._timing.retry else logging.WARNING
                _logger.log(level, "%s may not write yet: %s: %s", self._identity, type(error).__name__, error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._timing.retry)

    async def release(self) -> None:
        """Give the Lease back, once nothing is in work any more."""
        await self._stop_renewing()
        self._leads_until = None
        try:
            self._lease = await self._objects.get(LEASE, self._namespace, self._name)
            held = Term.parse(self._lease.get("spec") or {})
            if held.holder == self._identity:
                await self._write(released(held, datetime.now(UTC)))
                _logger.info("%s has given the Lease back", self._identity)
        except Exception as error:  # It ends by itself.
            _logger.warning("the Lease was not given back: %s: %s", type(error).__name__, error)

    async def _stop_renewing(self) -> None:
        if self._renewals is not None:
            self._renewals.cancel()
            await asyncio.gather(self._renewals, return_exceptions=True)
            self._renewals = None

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(min(self._timing.retry, self._left()))
            self.check()
            try:
                async with asyncio.timeout(self._left()):
                    if not await self.attempt():
                        self._lose("another one leads")
            except Exception as error:  # The next attempt, or the deadline, decides.
                _logger.warning("the Lease was not renewed: %s: %s", type(error).__name__, error)

    def _left(self) -> float:
        return max(0.0, (self._leads_until or 0.0) - self._clock())

    async def attempt(self) -> bool:
        """Look at the Lease, and write it if that is allowed; whether this process leads."""
        asked = self._looked_at = self._clock()
        self._lease = await self._objects.find(LEASE, self._namespace, self._name)
        term = None if self._lease is None else Term.parse(self._lease.get("spec") or {})
        self._seen = look(self._seen, term, self._clock())
        mine = claim(self._identity, self._timing, self._seen, self._clock(), datetime.now(UTC))
        if mine is None:
            return False
        try:
            await self._write(mine)
        except (AlreadyExistsError, ConflictError, NotFoundError):
            # Somebody else was faster, or an earlier write of this process came through without an answer.
            if self._leads_until is None:
                return False
            raise
        self._leads_until = asked + self._timing.renew_deadline
        return True

    async def _write(self, term: Term) -> None:
        if self._lease is None:
            body: Object = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.name,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": term.spec(),
            }
            self._lease = await self._objects.create(LEASE, self._namespace, body)
        else:
            spec: Object = self._lease.get("spec") or {}
            self._lease = await self._objects.replace(LEASE, self._lease | {"spec": spec | term.spec()})
        self._seen = look(self._seen, Term.parse(self._lease["spec"]), self._clock())

    def _lose(self, why: str) -> None:
        self._leads_until = float("-inf")
        self._when_lost(why)
