"""What must have happened at the second site, judged from the summary alone."""

from collections.abc import Iterator

from cotune_demo.scenes import EDGE
from cotune_demo.summary import Check, ProfileSummary, TargetExperimentSummary, TargetSummary, ValidatedSummary

_TINY, _MOST_OF_THE_CARD = "tiny", "0.85"
_BESIDE = f"in {EDGE.staging}, beside embeddings, chat: "


def target_checks(target: TargetSummary | None) -> Iterator[Check]:
    """Every expectation, with what was seen."""
    if target is None:
        yield Check(what="an experiment that is simpler than its target was made", holds=False, seen="not tried")
        return
    simpler, copied = target.simpler, target.copied
    reasons = tuple(simpler.conditions.get(it, "none") for it in ("SimplerThanTarget", "TargetCopied"))
    yield Check(
        what="an experiment that is simpler than staging says beforehand that staging runs more",
        holds=reasons == ("ServicesMissing", "Copied"),
        seen=f"SimplerThanTarget {reasons[0]}, TargetCopied {reasons[1]}",
    )
    tiny, memory = _change(simpler, "whisperModel"), _change(simpler, "judgeMemory")
    yield Check(
        what="of its two changes tiny is kept: it holds beside what runs in staging",
        holds=tiny is not None and (tiny.value, tiny.kept) == (_TINY, True),
        seen=_words(tiny),
    )
    yield Check(
        what=f"{_MOST_OF_THE_CARD} of the card for the judge is left out: it does not start beside embeddings and chat",
        holds=memory is not None
        and (memory.value, memory.kept, memory.reason) == (_MOST_OF_THE_CARD, False, "CardTaken")
        and _BESIDE in memory.message,
        seen=_words(memory),
    )
    profile = target.profile
    yield Check(
        what="what is left of it went through the second site's staging to production",
        holds=profile is not None
        and [it.phase for it in profile.stages] == ["Promoted", "Promoted"]
        and dict(target.values) == dict.fromkeys(EDGE.tuned, _TINY),
        seen=f"{profile.phase if profile else 'no profile'}; {dict(target.values)}",
    )
    hopeless = [it for it in copied.trials if it.parameters["judgeMemory"] == _MOST_OF_THE_CARD]
    yield Check(
        what="on a copy of staging the planner skips what has no room there, and the same changes come out",
        holds=bool(simpler.changes)
        and copied.changes == simpler.changes
        and len(hopeless) == 2
        and all((it.phase, it.reason, it.probe_pods) == ("Skipped", "CardTaken", 0) for it in hopeless),
        seen=f"{dict(simpler.changes)} and {dict(copied.changes)}; "
        + ", ".join(f"{it.phase} {it.reason}" for it in hopeless),
    )
    yield Check(
        what="and that takes fewer GPU-seconds",
        holds=0 < copied.gpu_seconds < simpler.gpu_seconds
        and target.gpu_seconds_saved == round(simpler.gpu_seconds - copied.gpu_seconds, 1),
        seen=f"{copied.gpu_seconds:.0f} s in {len(copied.run)} trials, "
        f"and {simpler.gpu_seconds:.0f} s in {len(simpler.run)}",
    )
    run = [*simpler.run, *copied.run]
    twice = [it.name for it in run if it.probe_pods != 1]
    yield Check(
        what="no trial of the second site ran twice",
        holds=bool(run) and not twice,
        seen=", ".join(twice) or f"{len(run)} trials",
    )


def same_target(reference: TargetSummary | None, killed: TargetSummary | None) -> Check:
    """The second site's story must come to the same whether the operator was killed or not."""
    before, after = _outcome(reference), _outcome(killed)
    differing = sorted(it for it in before.keys() | after.keys() if before.get(it) != after.get(it))
    return Check(
        what="the same of every trial, change and stage of the second site as without kills",
        holds=bool(after) and not differing,
        seen=", ".join(differing) or f"{len(after)} outcomes alike",
    )


def _outcome(target: TargetSummary | None) -> dict[str, tuple[str, ...]]:
    """What does not depend on how fast the machine was."""
    if target is None:
        return {}
    both = (target.simpler, target.copied)
    trials = {it.name: (it.phase, it.reason) for one in both for it in one.trials}
    changes = {
        f"{one.name} {it.parameter}": (it.value, str(it.kept), it.reason) for one in both for it in one.validated
    }
    return trials | changes | _stages(target.profile)


def _stages(profile: ProfileSummary | None) -> dict[str, tuple[str, ...]]:
    return (
        {it.name: (it.phase, str(it.last_good_revision), str(it.revision)) for it in profile.stages} if profile else {}
    )


def _change(experiment: TargetExperimentSummary, parameter: str) -> ValidatedSummary | None:
    return next((it for it in experiment.validated if it.parameter == parameter), None)


def _words(change: ValidatedSummary | None) -> str:
    return f"{change.value}: {change.reason}: {change.message}" if change is not None else "not proposed"
