from datetime import UTC, datetime, timedelta

from cotune.api.experiment import ExperimentPhase, ExperimentStatus, Winner
from cotune.api.profile import ProfileSpec
from cotune.api.trial import Artifact, TrialPhase, TrialSpec, TrialStatus
from cotune.artifacts.retention import LivingExperiment, Reliance, Retention, StoredRecord, relied_on, superfluous
from hypothesis import given
from hypothesis import strategies as st
from support.resources import manifest, voice_experiment

NOW = datetime(2026, 11, 27, tzinfo=UTC)
NOBODY = Reliance()
SPEC = voice_experiment()


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def stored(number: int, days: float = 0, experiment: str = "a", parents: tuple[int, ...] = ()) -> StoredRecord:
    created = NOW - timedelta(days=days)
    return StoredRecord(digest(number), experiment, created, tuple(digest(it) for it in parents))


def test_without_limits_everything_stays() -> None:
    assert superfluous([stored(1, 9999)], NOBODY, Retention(), NOW) == ()


def test_what_is_too_old_goes() -> None:
    records = [stored(1, 29.9), stored(2, 30.1)]

    assert superfluous(records, NOBODY, Retention(days=30), NOW) == (digest(2),)


def test_of_each_experiment_the_newest_stay() -> None:
    records = [stored(1, 3), stored(2, 2), stored(3, 1), stored(4, 9, "b")]

    assert superfluous(records, NOBODY, Retention(count_per_experiment=2), NOW) == (digest(1),)


def test_a_record_goes_by_either_limit() -> None:
    records = [stored(1, 3), stored(2, 2), stored(3, 1)]

    assert superfluous(records, NOBODY, Retention(1, 2), NOW) == (digest(1), digest(2))


def test_what_is_relied_on_stays_and_counts_for_nobody_else() -> None:
    records = [stored(1, 99), stored(2, 98), stored(3, 1)]
    reliance = Reliance(digests=frozenset({digest(1), digest(77)}))

    assert superfluous(records, reliance, Retention(30, 1), NOW) == (digest(2),)


def test_all_of_an_experiment_that_is_not_over_stays() -> None:
    records = [stored(it, 99) for it in range(5)]

    assert superfluous(records, Reliance(experiments=frozenset({"a"})), Retention(1, 1), NOW) == ()


def test_what_a_kept_record_descends_from_stays_however_far_back() -> None:
    records = [stored(1, 90), stored(2, 80, parents=(1,)), stored(3, 70, parents=(2,)), stored(4, 60), stored(5, 50)]

    assert superfluous(records, Reliance(frozenset({digest(3)})), Retention(days=30), NOW) == (digest(4), digest(5))


@st.composite
def any_record(draw: st.DrawFn) -> StoredRecord:
    parents = draw(st.lists(st.integers(1, 12), max_size=2))
    return stored(draw(st.integers(1, 12)), draw(st.integers(0, 50)), draw(st.sampled_from("ab")), tuple(parents))


@given(
    records=st.lists(any_record(), unique_by=lambda it: it.digest),
    named=st.sets(st.integers(1, 12)),
    days=st.none() | st.integers(1, 50),
    count=st.none() | st.integers(1, 5),
)
def test_what_stays_is_never_without_what_it_rests_on(
    records: list[StoredRecord], named: set[int], days: int | None, count: int | None
) -> None:
    reliance = Reliance(frozenset(digest(it) for it in named))
    going = set(superfluous(records, reliance, Retention(days, count), NOW))
    staying = {it.digest: it for it in records if it.digest not in going}

    assert not going & reliance.digests
    assert not {parent for it in staying.values() for parent in it.parents} & going
    left = list(staying.values())
    assert superfluous(left, reliance, Retention(days, count), NOW) == (), "a second look finds nothing"


def trial(model: str, record: int | None, phase: TrialPhase = TrialPhase.SUCCEEDED) -> tuple[TrialSpec, TrialStatus]:
    candidate = [{"name": "judgeMemory", "value": "0.5"}, {"name": "whisperModel", "value": model}]
    artifact = Artifact(digest=digest(record), bytes=1) if record is not None else None
    spec = TrialSpec.model_validate({"experiment": "voice", "candidate": candidate})
    return spec, TrialStatus(phase=phase, artifact=artifact)


TRIALS = {
    "small-0": trial("small", 1),
    "base-0": trial("base", 2),
    "tiny-0": trial("tiny", 3),
    "tiny-1": trial("tiny", 4),
}


def living(phase: ExperimentPhase, winner: str | None = None, readable: bool = True) -> LivingExperiment:
    best = Winner(trial=winner, fitness="0.6", baseline_fitness="0.5") if winner else None
    return LivingExperiment("a", SPEC if readable else None, ExperimentStatus(phase=phase, winner=best), TRIALS)


def test_an_ended_experiment_relies_on_all_runs_of_its_baseline_and_its_winner() -> None:
    found = relied_on([living(ExperimentPhase.SUCCEEDED, "tiny-0")], [])

    assert found == Reliance(frozenset({digest(1), digest(3), digest(4)}))


def test_without_a_winner_the_baseline_is_relied_on() -> None:
    assert relied_on([living(ExperimentPhase.FAILED)], []) == Reliance(frozenset({digest(1)}))


def test_an_experiment_that_is_not_over_or_cannot_be_read_relies_on_everything() -> None:
    for it in (living(ExperimentPhase.RUNNING), living(ExperimentPhase.SUCCEEDED, readable=False)):
        assert relied_on([it], []) == Reliance(experiments=frozenset({"a"}))


def test_a_living_profile_relies_on_its_origin() -> None:
    body = manifest("GpuProfile")["spec"]
    body["provenance"]["artifact"] = digest(9)
    profiles = [ProfileSpec.model_validate(body), ProfileSpec.model_validate({**body, "provenance": None})]

    assert relied_on([], profiles) == Reliance(frozenset({digest(9)}))
