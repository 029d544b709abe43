"""Makes the profile of a winner: its changes, and where they come from."""

import hashlib
import json
from dataclasses import dataclass

from cotune.api.experiment import ExperimentSpec
from cotune.api.profile import Change, ProfileSpec, Provenance, Rollout
from cotune.api.quantities import canonical
from cotune.search.space import Candidate


@dataclass(frozen=True)
class NamedProfile:
    """A profile and its name."""

    name: str
    spec: ProfileSpec


def changes(spec: ExperimentSpec, winner: Candidate) -> tuple[Change, ...]:
    """The parameters whose winning value differs from the baseline, in the order of the experiment."""
    values = winner.values
    return tuple(
        Change(component=it.bind.component, env=it.bind.env, from_=it.baseline, to=values[it.name])
        for it in spec.parameters
        if canonical(values[it.name]) != canonical(it.baseline)
    )


def make_profile(
    spec: ExperimentSpec,
    experiment: str,
    namespace: str,
    winner: Candidate,
    trial: str,
    digest: str,
    artifact: str | None = None,
) -> NamedProfile | None:
    """The profile of a winner, named by the hash of its changes; None when there is nothing to change or to roll out.

    Args:
        spec: the experiment.
        experiment: its name.
        namespace: its namespace.
        winner: the winning candidate.
        trial: the name of its trial.
        digest: what that trial ran, as `sha256:<64 hexadecimal digits>`.
        artifact: the record of that trial, written in the same way; None: it has none.
    """
    changed = changes(spec, winner)
    if not changed or spec.profile_template is None:
        return None
    profile = ProfileSpec(
        changes=changed,
        start_order=tuple(it.name for it in spec.stack.components),
        provenance=Provenance(experiment=f"{namespace}/{experiment}", trial=trial, digest=digest, artifact=artifact),
        rollout=Rollout(stages=spec.profile_template.rollout.stages),
    )
    return NamedProfile(f"{experiment[:56].rstrip('-.')}-{_hash(changed)[:6]}", profile)


def _hash(changed: tuple[Change, ...]) -> str:
    text = json.dumps(sorted((it.component, it.env, canonical(it.to)) for it in changed), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
