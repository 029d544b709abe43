from cotune.profiles.making import changes, make_profile
from cotune.search.space import Candidate, Space
from support.resources import voice_experiment

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
