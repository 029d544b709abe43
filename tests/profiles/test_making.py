from cotune.api.experiment import ExperimentSpec
from cotune.api.sharing import Sharing
from cotune.profiles.making import changes, make_profile
from cotune.search.space import Candidate, Space
from support.resources import manifest, voice_experiment

SPEC = voice_experiment()
DIGEST = f"sha256:{'0' * 64}"


def candidate(memory: str, model: str) -> Candidate:
    return Candidate((("judgeMemory", memory), ("whisperModel", model)))


def test_only_what_differs_from_the_baseline_is_a_change() -> None:
    (change,) = changes(SPEC, candidate("0.5", "tiny"))

    assert (change.component, change.env, change.from_, change.to) == ("stt", "ASR_WHISPER_SIZE", "small", "tiny")


def test_a_profile_is_named_by_its_changes() -> None:
    def made(memory: str, model: str, trial: str = "voice-1") -> str:
        profile = make_profile(SPEC, "voice", "voice-lab", candidate(memory, model), trial, DIGEST)
        assert profile is not None
        return profile.name

    assert made("0.55", "tiny") == made("0.550", "tiny", trial="voice-2")
    assert made("0.55", "tiny") != made("0.60", "tiny")


def test_a_profile_carries_start_order_stages_and_provenance() -> None:
    profile = make_profile(SPEC, "voice", "voice-lab", candidate("0.55", "tiny"), "voice-1", DIGEST)

    assert profile is not None
    assert profile.spec.start_order == ("judge", "stt")
    assert [it.name for it in profile.spec.rollout.stages] == ["staging", "production"]
    assert profile.spec.provenance is not None
    assert profile.spec.provenance.experiment == "voice-lab/voice"


def test_the_baseline_makes_no_profile() -> None:
    assert make_profile(SPEC, "voice", "voice-lab", Space(SPEC.parameters).baseline, "voice-1", DIGEST) is None


def test_an_experiment_without_stages_makes_no_profile() -> None:
    silent = SPEC.model_copy(update={"profile_template": None})

    assert make_profile(silent, "voice", "voice-lab", candidate("0.55", "tiny"), "voice-1", DIGEST) is None


def by_sharing(baseline: str = "TimeSlicing") -> ExperimentSpec:
    made = manifest("GpuAllocationExperiment")["spec"]
    del made["gpu"]["sharing"]
    values = {"values": ["TimeSlicing", "MPS"], "baseline": baseline}
    made["parameters"].append({"name": "sharing", "bind": {"gpu": "sharing"}} | values)
    return ExperimentSpec.model_validate(made)


def made(model: str, sharing: str, baseline: str = "TimeSlicing") -> tuple[str, Sharing | None] | None:
    winner = Candidate((("judgeMemory", "0.50"), ("whisperModel", model), ("sharing", sharing)))
    profile = make_profile(by_sharing(baseline), "voice", "voice-lab", winner, "voice-1", DIGEST)
    if profile is None:
        return None
    assert [it.env for it in profile.spec.changes] == ["ASR_WHISPER_SIZE"]
    assert profile.spec.expect is not None
    return profile.name, profile.spec.expect.sharing


def test_how_the_card_is_shared_is_expected_and_is_no_change_of_a_workload() -> None:
    sliced, under_mps = made("tiny", "TimeSlicing"), made("tiny", "MPS")

    assert sliced is not None
    assert under_mps is not None
    assert (sliced[1], under_mps[1]) == (Sharing.TIME_SLICING, Sharing.MPS)
    assert sliced[0] != under_mps[0], "the same changes under another sharing are another profile"
    assert under_mps == made("tiny", "MPS", baseline="MPS")


def test_a_winner_that_only_shares_the_card_otherwise_makes_no_profile() -> None:
    assert made("small", "MPS") is None


def test_without_a_card_nothing_is_expected_of_it() -> None:
    on_cpu = SPEC.model_copy(update={"gpu": None})

    profile = make_profile(on_cpu, "voice", "voice-lab", candidate("0.55", "tiny"), "voice-1", DIGEST)

    assert profile is not None
    assert profile.spec.expect is None


def test_a_profile_expects_the_starts_that_were_measured_in_whole_seconds() -> None:
    starts = {"judge": 73.2, "stt": 0.0, "probe": 1.0}

    profile = make_profile(SPEC, "voice", "voice-lab", candidate("0.55", "tiny"), "voice-1", DIGEST, startup=starts)

    assert profile is not None
    assert profile.spec.expect is not None
    assert [(it.component, it.seconds) for it in profile.spec.expect.startup_seconds] == [("judge", 74)]
