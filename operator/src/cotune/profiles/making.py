"""Makes the profile of a winner: its changes, and where they come from."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from cotune.api.experiment import ExperimentSpec
from cotune.api.profile import Change, Expect, ExpectedStartup, ProfileSpec, Provenance, Rollout
from cotune.api.quantities import canonical
from cotune.api.sharing import Sharing
from cotune.search.space import Candidate


@dataclass(frozen=True)
class NamedProfile:
    """A profile and its name."""

    name: str
    spec: ProfileSpec


def changes(spec: ExperimentSpec, winner: Candidate) -> tuple[Change, ...]:
    """The variables whose winning value differs from the baseline, in the order of the experiment.

    How the card is shared is none of them: a profile changes workloads, and no node.
    """
    values = winner.values
    return tuple(
        Change(component=at[0], env=at[1], from_=it.baseline, to=values[it.name])
        for it in spec.parameters
        if (at := it.bind.variable) is not None and canonical(values[it.name]) != canonical(it.baseline)
    )


def make_profile(
    spec: ExperimentSpec,
    experiment: str,
    namespace: str,
    winner: Candidate,
    trial: str,
    digest: str,
    artifact: str | None = None,
    startup: Mapping[str, float] | None = None,
) -> NamedProfile | None:
    """The profile of a winner, named by the hash of its changes and of how it shares the card.

    None when there is nothing to change in workloads, or to roll out.

    Args:
        spec: the experiment.
        experiment: its name.
        namespace: its namespace.
        winner: the winning candidate.
        trial: the name of its trial.
        digest: what that trial ran, as `sha256:<64 hexadecimal digits>`.
        artifact: the record of that trial, written in the same way; None: it has none.
        startup: component to the seconds that its start took in that trial, as far as they are known.
    """
    changed = changes(spec, winner)
    if not changed or spec.profile_template is None:
        return None
    sharing = spec.sharing(winner.values)
    starts = tuple(
        ExpectedStartup(component=it.name, seconds=math.ceil(seconds))
        for it in spec.stack.components
        if (seconds := (startup or {}).get(it.name, 0.0)) > 0
    )
    profile = ProfileSpec(
        changes=changed,
        expect=Expect(sharing=sharing, startup_seconds=starts) if sharing is not None or starts else None,
        start_order=tuple(it.name for it in spec.stack.components),
        provenance=Provenance(experiment=f"{namespace}/{experiment}", trial=trial, digest=digest, artifact=artifact),
        rollout=Rollout(stages=spec.profile_template.rollout.stages),
    )
    return NamedProfile(f"{experiment[:56].rstrip('-.')}-{_hash(changed, sharing)[:6]}", profile)


def _hash(changed: tuple[Change, ...], sharing: Sharing | None) -> str:
    """Time-slicing, the most usual, is not said: profiles that were made before it was recorded keep their names."""
    said = sorted((it.component, it.env, canonical(it.to)) for it in changed)
    if sharing not in {None, Sharing.TIME_SLICING}:
        said.append(("gpu", "sharing", str(sharing)))
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()
