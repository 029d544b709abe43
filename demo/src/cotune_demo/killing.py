"""`KILL=1`: the operator's pod is killed at three moments, each while the cluster is in the middle of something."""

import asyncio
from typing import Any

from cotune_demo.cluster import Commands
from cotune_demo.preparation import OPERATOR
from cotune_demo.progress import Progress
from cotune_demo.scenes import LAB

_QUOTA = "no-winner-yet"


class Killer:
    """Kills the operator at most once for each moment; without orders it does nothing."""

    def __init__(self, commands: Commands, progress: Progress, is_ordered: bool, by_hand: int = 0) -> None:
        self._commands = commands
        self._progress = progress
        self._is_ordered = is_ordered
        self._by_hand = by_hand
        self.kills: list[str] = []

    async def hold_the_profile_back(self) -> None:
        """Let nothing follow the last trial at once: a quota of no more profiles than a person applies meanwhile."""
        if self._is_ordered:
            quota: dict[str, Any] = {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": _QUOTA, "namespace": LAB},
                "spec": {"hard": {"count/gpuprofiles.cotune.dev": str(self._by_hand)}},
            }
            await self._commands.apply(quota)

    async def in_a_trial(self, trial: str, phase: str, number: int) -> None:
        """Called with the trial that runs; kills in a measurement, once three trials exist."""
        if number >= 3 and phase == "Measuring":
            await self._kill("trial", f"in the middle of trial {trial}")

    async def after_the_last_trial(self, is_held_back: bool) -> None:
        """Called when all trials have finished and no profile exists; kills, then lets the profile be made."""
        if is_held_back and await self._kill("profile", "between the last trial and the profile"):
            await self._commands.do("delete", "resourcequota", _QUOTA, "--namespace", LAB)

    async def in_a_rollout(self, profile: str, stage: str, message: str) -> None:
        """Called with a rollout in progress; kills while the stack is stopped."""
        if "to stop" in message or "to be ready" in message:
            await self._kill("rollout", f"in the middle of {profile} in {stage}: {message}")

    async def _kill(self, moment: str, words: str) -> bool:
        if not self._is_ordered or any(it.startswith(f"{moment}: ") for it in self.kills):
            return False
        await self._commands.do(
            *("delete", "pod", "--namespace", OPERATOR, "-l", "app.kubernetes.io/name=cotune"),
            *("--grace-period=0", "--force", "--wait=false"),
        )
        self.kills.append(f"{moment}: {words}")
        self._progress.say(f"KILLED the operator {words}")
        await asyncio.sleep(0)
        return True
