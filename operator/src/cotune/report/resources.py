"""An experiment with its trials and its profile, as `kubectl get gae,gt,gpp -o yaml` has them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from cotune.api.experiment import ExperimentSpec, ExperimentStatus
from cotune.api.profile import ProfileSpec, ProfileStatus
from cotune.api.trial import TrialSpec, TrialStatus
from cotune.search.space import Candidate, Space

_Model = TypeVar("_Model", bound=BaseModel)

Body = Mapping[str, Any]
"""A Kubernetes object as JSON has it."""


class ResourcesError(ValueError):
    """The objects do not hold what a report needs; the message is one line."""


@dataclass(frozen=True)
class Trial:
    """One trial as it is in the cluster."""

    name: str
    spec: TrialSpec
    status: TrialStatus

    @property
    def artifact(self) -> str | None:
        """The digest under which its record is stored; None: it has none."""
        return self.status.artifact.digest if self.status.artifact is not None else None

    @cached_property
    def candidate(self) -> Candidate:
        """What it ran."""
        return Candidate(tuple((it.name, it.value) for it in self.spec.candidate))

    @cached_property
    def measured(self) -> Mapping[str, float]:
        """Metric to value."""
        return {it.metric: float(it.value) for it in self.status.measurements}

    @property
    def fitness(self) -> float | None:
        """None: it is not feasible, or not judged."""
        return None if self.status.fitness is None else float(self.status.fitness)


@dataclass(frozen=True)
class Profile:
    """The profile that was made of the winner."""

    name: str
    spec: ProfileSpec
    status: ProfileStatus


@dataclass(frozen=True)
class Experiment:
    """All that the cluster says of one experiment."""

    name: str
    namespace: str
    spec: ExperimentSpec
    status: ExperimentStatus
    trials: tuple[Trial, ...] = ()
    profile: Profile | None = None

    @property
    def baseline(self) -> Candidate:
        """What is in use today."""
        return Space(self.spec.parameters).baseline

    @cached_property
    def challenger(self) -> Candidate | None:
        """The candidate that was confirmed against the baseline; None: there was none, or its trial is not known."""
        name = self.status.verdict.trial if self.status.verdict is not None else None
        return next((it.candidate for it in self.trials if it.name == name), None)


def find_experiment(bodies: Iterable[Body], name: str, namespace: str | None = None) -> Experiment:
    """The experiment of that name among the objects, with the trials and the profile that are its own.

    Fields that this release does not know are left out: the cluster may run a later one.

    Raises:
        ResourcesError: there is none or are several, or one of its objects is not what its kind says.
    """
    objects = tuple(bodies)
    found = [it for it in _of_kind(objects, "GpuAllocationExperiment", namespace) if _metadata(it).get("name") == name]
    if len(found) != 1:
        where = f" in namespace {namespace}" if namespace is not None else ""
        spaces = ", ".join(str(_metadata(it).get("namespace", "")) for it in found)
        advice = f": it stands in {spaces}, name one of them" if found else ""
        raise ResourcesError(f"{len(found)} GpuAllocationExperiments of the name {name}{where}{advice}")
    body = found[0]
    namespace = str(_metadata(body).get("namespace", "default"))
    status = _read(ExperimentStatus, body, "status")
    return Experiment(
        name,
        namespace,
        _read(ExperimentSpec, body, "spec"),
        status,
        tuple(_trial(it) for it in _own(_of_kind(objects, "GpuTrial", namespace), body, name)),
        next(
            (
                Profile(str(_metadata(it)["name"]), _read(ProfileSpec, it, "spec"), _read(ProfileStatus, it, "status"))
                for it in _of_kind(objects, "GpuProfile", namespace)
                if _metadata(it).get("name") == status.profile
            ),
            None,
        ),
    )


def _trial(body: Body) -> Trial:
    return Trial(str(_metadata(body)["name"]), _read(TrialSpec, body, "spec"), _read(TrialStatus, body, "status"))


def _of_kind(objects: Sequence[Body], kind: str, namespace: str | None) -> Iterable[Body]:
    return (
        it
        for it in objects
        if it.get("kind") == kind and namespace in {None, str(_metadata(it).get("namespace", "default"))}
    )


def _own(trials: Iterable[Body], experiment: Body, name: str) -> Iterable[Body]:
    """By name, and by identity where both are known: an experiment may have been deleted and made anew."""
    identity = _metadata(experiment).get("uid")
    for it in trials:
        spec = cast("Body", it.get("spec") or {})
        owners = {owner.get("uid") for owner in _metadata(it).get("ownerReferences") or ()}
        if spec.get("experiment") == name and (not owners or identity is None or identity in owners):
            yield it


def _metadata(body: Body) -> Body:
    return cast("Body", body.get("metadata") or {})


def _read(model: type[_Model], body: Body, part: str) -> _Model:
    try:
        return model.model_validate(body.get(part) or {}, extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join((part, *(str(it) for it in first["loc"])))
        raise ResourcesError(f"{body.get('kind')} {_metadata(body).get('name')}: {where}: {first['msg']}") from error
