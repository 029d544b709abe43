"""What must have happened for the demonstration to succeed, judged from its summary alone."""

from collections.abc import Iterator

from cotune_demo.summary import BrokenSummary, Check, Summary, TrialSummary
from cotune_demo.target_checks import same_target, target_checks

_CANDIDATES = 15
_BASELINE = {"judgeMemory": "0.50", "whisperModel": "small"}
_BELOW_THE_WEIGHTS = ("0.40", "0.45")
_REFUSED_VERBS = ("get", "patch", "create")
_UNUSABLE_WER = 0.5
_AT_ONCE_SECONDS = 10.0
_CACHE_BLOCKS = "No available memory for the cache blocks"


def checks(summary: Summary) -> Iterator[Check]:
    """Every expectation, with what was seen."""
    trials = [it for it in summary.trials if it.purpose == "Search"]
    names = {tuple(sorted(it.parameters.items())) for it in trials}
    small = [it for it in trials if it.parameters["judgeMemory"] in _BELOW_THE_WEIGHTS]
    rest = [it for it in trials if it.parameters["judgeMemory"] not in _BELOW_THE_WEIGHTS]
    yield Check(
        what=f"each of {_CANDIDATES} candidates has one trial, and none ran twice",
        holds=len(trials) == len(names) == _CANDIDATES and all(it.probe_pods == 1 for it in rest),
        seen=f"{len(trials)} trials of {len(names)} candidates, {sum(it.probe_pods for it in trials)} probes",
    )
    skipped = [it for it in small if _is_skipped_with_figures(it)]
    yield Check(
        what=f"candidates with {' and '.join(_BELOW_THE_WEIGHTS)} were skipped with the figures, and took no card",
        holds=len(small) == len(skipped) == 6,
        seen=f"{len(skipped)} of {len(small)}",
    )
    yield Check(
        what="the planner had said of each of them why, and of no other",
        holds=all(it.predicted == ("NoCacheBlocks" if it in small else "fits") for it in trials),
        seen=", ".join(sorted({it.predicted for it in small})),
    )
    plan = summary.plan
    yield Check(
        what="the planner was never wrong about what ran, and says how many GPU-seconds skipping has saved",
        holds=plan is not None
        and plan.wrong_fits == plan.wrong_does_not_fit == 0
        and plan.gpu_seconds_saved is not None
        and plan.gpu_seconds_saved > 0,
        seen=f"{plan.gpu_seconds_saved} GPU-seconds saved, {plan.wrong_fits} + {plan.wrong_does_not_fit} wrong"
        if plan
        else "no plan",
    )
    hopeless = summary.nothing_feasible
    yield Check(
        what=f"an experiment of which nothing fits said so within {_AT_ONCE_SECONDS:.0f} s, without a trial or a pod",
        holds=hopeless is not None
        and (hopeless.phase, hopeless.reason) == ("Failed", "NothingFeasible")
        and hopeless.trials == hopeless.pods == 0
        and hopeless.seconds < _AT_ONCE_SECONDS,
        seen=f"{hopeless.phase}, {hopeless.reason} after {hopeless.seconds} s with {hopeless.trials} trials"
        if hopeless
        else "not tried",
    )
    yield Check(
        what="every other candidate was measured",
        holds=bool(rest) and all(it.phase == "Succeeded" and it.metrics for it in rest),
        seen=", ".join(sorted({it.phase for it in rest})),
    )
    yield _confirmed_by_turns(summary)
    yield _validated_one_by_one(summary)
    winner = summary.winner
    yield Check(
        what="the winner runs Whisper tiny and beats the baseline",
        holds=winner is not None
        and winner.parameters.get("whisperModel") == "tiny"
        and winner.fitness > winner.baseline_fitness,
        seen=f"{dict(winner.parameters)}" if winner else "no winner",
    )
    profile = summary.profile
    yield Check(
        what="its profile went through staging to production",
        holds=profile is not None
        and profile.phase == "Promoted"
        and [it.phase for it in profile.stages] == ["Promoted", "Promoted"],
        seen=f"{profile.name} {profile.phase}" if profile else "no profile",
    )
    first, second = summary.broken
    yield _failed_in(first, "staging")
    words = next((it.message for it in first.profile.stages if it.name == "staging"), "")
    yield Check(
        what="what the planner skips, vLLM refuses there in its own words on cache blocks",
        holds="NoCacheBlocks" in words and _CACHE_BLOCKS in words,
        seen=words,
    )
    yield Check(
        what="production never heard of the profile that staging could not start",
        holds=first.generations_before == first.generations_after and bool(first.generations_before),
        seen=f"generations {dict(first.generations_after)}",
    )
    yield _failed_in(second, "production")
    yield Check(
        what="production is back on what was good there, and ready",
        holds=second.values_before == second.values_after
        and bool(second.values_before)
        and second.generations_before != second.generations_after
        and second.is_production_ready,
        seen=f"{dict(second.values_after)}, {'ready' if second.is_production_ready else 'not ready'}",
    )
    uninvited = summary.uninvited
    yield Check(
        what="a namespace without a grant was not touched, and the API server refuses the operator there",
        holds=uninvited is not None
        and uninvited.generation_before == uninvited.generation_after
        and uninvited.condition == "NoGrant"
        and all("forbidden" in it.answer for it in uninvited.refusals)
        and all(any(f"cannot {verb} " in it.answer for it in uninvited.refusals) for verb in _REFUSED_VERBS),
        seen=f"{len(uninvited.refusals)} attempts, condition {uninvited.condition}" if uninvited else "not tried",
    )
    yield from target_checks(summary.target)
    yield _recorded(summary)


def _recorded(summary: Summary) -> Check:
    """All that was run, and only that an edited figure is told from a true one makes it worth something."""
    both = (summary.target.simpler, summary.target.copied) if summary.target is not None else ()
    run = [it for it in (*summary.trials, *(trial for one in both for trial in one.trials)) if it.phase != "Skipped"]
    found = summary.records
    return Check(
        what="every trial that was run left a record, cotune verify finds nothing wrong, and finds an edited figure",
        holds=found.records >= len(run) > 0
        and found.recomputed > 0
        and not found.faults
        and found.faults_when_edited == ("Differs",),
        seen=f"{found.records} records of {len(run)} trials, {found.recomputed} figures computed again, "
        f"{len(found.faults)} faults, when edited {', '.join(found.faults_when_edited) or 'none'}",
    )


def _confirmed_by_turns(summary: Summary) -> Check:
    fresh = [it for it in summary.trials if it.purpose == "Confirmation"]
    settings = [tuple(sorted(it.parameters.items())) for it in fresh]
    counts = {it: settings.count(it) for it in settings}
    return Check(
        what="the best candidate and the baseline were run again as often as each other, once for each run",
        holds=len(counts) == 2
        and len(set(counts.values())) == 1
        and all(it.phase == "Succeeded" and it.probe_pods == 1 for it in fresh),
        seen=f"{len(fresh)} fresh runs",
    )


def _validated_one_by_one(summary: Summary) -> Check:
    runs = [it for it in summary.trials if it.purpose == "Validation"]
    settings = [tuple(sorted(it.parameters.items())) for it in runs]
    counts = {it: settings.count(it) for it in settings}
    changes = sorted(sum(dict(it)[name] != value for name, value in _BASELINE.items()) for it in counts)
    beside = counts.get(tuple(sorted(_BASELINE.items())), 0)
    alone = {count for it, count in counts.items() if it != tuple(sorted(_BASELINE.items()))}
    return Check(
        what="each of the winner's two changes was run on its own, by turns with the baseline",
        holds=changes == [0, 1, 1]
        # The last of the confirming runs was one of the baseline, and is the first of these.
        and alone == {beside + 1}
        and all(it.phase == "Succeeded" and it.probe_pods == 1 for it in runs),
        seen=f"{len(runs)} runs of {len(counts)} settings",
    )


def real_checks(summary: Summary) -> Iterator[Check]:
    """What must hold of the real servers on the CPU, whatever their speed."""
    trials = [it for it in summary.trials if it.purpose == "Search"]
    yield Check(
        what="every candidate was measured once, without an error",
        holds=bool(trials)
        and all(it.phase == "Succeeded" and it.probe_pods == 1 for it in trials)
        and all(it.metrics.get(name) == 0 for it in trials for name in ("stt.errorRate", "llm.errorRate")),
        seen=", ".join(f"{it.name} {it.phase} {it.reason}" for it in trials),
    )
    yield _recorded(summary)
    heard = {it.parameters["whisperModel"]: it.metrics.get("stt.wer", 1.0) for it in trials}
    yield Check(
        what="both sizes of Whisper understand noisy speech, base better than tiny.en",
        holds=heard.keys() == {"tiny.en", "base"} and heard["base"] < heard["tiny.en"] < _UNUSABLE_WER,
        seen=", ".join(f"{size}: word error rate {rate:.3f}" for size, rate in heard.items()),
    )
    tokens = {it.metrics.get("llm.kvCache.tokens", 0.0) for it in trials}
    yield Check(
        what="vLLM itself says how many tokens its cache holds, and no figure of a card is reported",
        holds=len(tokens) == 1
        and min(tokens) > 0
        and not any(name.startswith("gpu.") for it in trials for name in it.metrics),
        seen=f"{sorted(tokens)} tokens",
    )
    profile = summary.profile
    yield Check(
        what="the winner's profile went through staging to production",
        holds=summary.winner is not None
        and profile is not None
        and profile.phase == "Promoted"
        and [it.phase for it in profile.stages] == ["Promoted", "Promoted"],
        seen=f"{profile.name} {profile.phase}"
        if profile
        else f"{summary.experiment_phase}, {summary.experiment_reason}",
    )


def same_outcome(reference: Summary, killed: Summary) -> Iterator[Check]:
    """A run whose operator was killed must tell the same story as one whose operator was left alone."""
    yield Check(
        what="the operator was killed three times",
        holds=len(killed.kills) == 3,
        seen="; ".join(killed.kills),
    )

    def outcomes(summary: Summary) -> "dict[str, tuple[str, str]]":
        return {it.name: (it.phase, it.reason) for it in summary.trials}

    differing = sorted(
        name
        for name in outcomes(reference).keys() | outcomes(killed).keys()
        if outcomes(reference).get(name) != outcomes(killed).get(name)
    )
    yield Check(
        what="same phase and reason for every candidate as without kills",
        holds=not differing,
        seen=", ".join(differing) or f"{len(killed.trials)} trials alike",
    )
    yield Check(
        what="same winner as without kills",
        holds=(reference.winner and reference.winner.parameters) == (killed.winner and killed.winner.parameters),
        seen=f"{dict(killed.winner.parameters)}" if killed.winner else "no winner",
    )

    def revisions(summary: Summary) -> "list[tuple[str, str | None, str | None]]":
        return [
            (it.name, it.last_good_revision, it.revision) for it in (summary.profile.stages if summary.profile else ())
        ]

    yield Check(
        what="same revisions as without kills",
        holds=bool(revisions(killed)) and revisions(reference) == revisions(killed),
        seen=", ".join(f"{name}: {before} -> {after}" for name, before, after in revisions(killed)),
    )
    yield same_target(reference.target, killed.target)


def _is_skipped_with_figures(trial: TrialSummary) -> bool:
    is_skipped = (trial.phase, trial.reason) == ("Skipped", "NoCacheBlocks")
    return is_skipped and " GiB less than " in trial.message and trial.probe_pods == 0


def _failed_in(broken: BrokenSummary, stage: str) -> Check:
    return Check(
        what=f"{broken.profile.name} failed in {stage} and was taken back by itself",
        holds=broken.profile.phase == "RolledBack"
        and broken.failed_stage == stage
        and broken.condition_at is not None
        and broken.ready_at is not None,
        seen=f"{broken.profile.phase} in {broken.failed_stage}",
    )
