import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cotune.api.experiment import ExperimentSpec, Memory, MemoryModel
from cotune.cli.__main__ import main
from cotune.planning.candidates import SpacePlanner, expand, plan_space
from cotune.planning.cards import UnknownCardError, card
from cotune.planning.declared_service import DeclaredService
from cotune.planning.model_config import read_model_config
from cotune.planning.server import PlanningError, Server
from cotune.planning.sizes import GIB, MIB
from cotune.planning.stack import plan_stack
from cotune.planning.vllm import CompileCache, Refusal, VllmSettings
from cotune.planning.vllm_server import VllmServer
from cotune.planning.whisper import (
    SIZES,
    Backend,
    Precision,
    UnknownSizeError,
    parameters,
    plan_whisper,
)
from cotune.planning.whisper_server import WhisperServer
from cotune.search.space import Space
from cotune.trials.root_cause import Cause
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = Path(__file__).parents[2] / "examples" / "voice-stack.yaml"
MODELS, EXPERIMENT = yaml.safe_load_all(EXAMPLE.read_text())
CONFIG = read_model_config(next(iter(MODELS["data"].values())))
SPEC = ExperimentSpec.model_validate(EXPERIMENT["spec"])
CARD = card("NVIDIA-GeForce-RTX-3060-SHARED")
JUDGE = VllmServer("judge", CONFIG, VllmSettings(0.5, max_model_len=2048, version=(0, 11, 0)))


def test_the_story_is_planned_as_it_happened() -> None:
    planned = plan_space(SPEC, CARD, {"judge": CONFIG})

    fits = {tuple(it.candidate.values.values()): it.plan.fits for it in planned}
    assert {memory for (memory, _), it in fits.items() if not it} == {"0.40", "0.45"}
    assert len(fits) == 15
    assert sum(fits.values()) == 9


@given(
    servers=st.lists(
        st.one_of(
            st.builds(DeclaredService, st.just("other"), st.integers(0, 8 * GIB)),
            st.builds(WhisperServer, st.just("stt"), st.sampled_from(sorted(SIZES))),
            st.builds(
                VllmServer,
                st.just("judge"),
                st.just(CONFIG),
                st.builds(VllmSettings, st.floats(0.1, 1.0), version=st.just((0, 11, 0))),
            ),
        ),
        max_size=4,
    ),
    taken=st.integers(0, 4 * GIB),
)
def test_no_byte_is_lost_and_a_further_service_never_gives_room(servers: list[Server], taken: int) -> None:
    plan = plan_stack(servers, CARD, taken)

    assert sum(it.size for it in plan.parts) + plan.free == plan.total
    assert plan.free >= 0
    if servers:
        assert plan_stack(servers[:-1], CARD, taken).free >= plan.free


def test_the_order_of_start_decides_who_finds_the_memory_free() -> None:
    big = DeclaredService("neighbour", 6 * GIB + 512 * MIB)

    first, last = plan_stack([big, JUDGE], CARD), plan_stack([JUDGE, big], CARD)

    assert (first.refusal, first.refused) == (Refusal.CARD_TAKEN, "judge")
    assert (last.refusal, last.refused) == (Refusal.CUDA_OUT_OF_MEMORY, "neighbour")


def test_a_predicted_refusal_has_the_name_that_the_failed_trial_would_have() -> None:
    # What MPS refuses, CUDA reports as memory that has run out.
    assert {str(it) for it in Refusal} - {Refusal.CLIENT_LIMIT} <= {str(it) for it in Cause}


@pytest.mark.parametrize(
    ("size", "millions"),
    [("tiny", 37.8), ("base", 72.6), ("small", 241.7), ("medium", 763.9), ("large-v3", 1543.5), ("turbo", 808.9)],
)
def test_whispers_sizes_have_their_published_parameters(size: str, millions: float) -> None:
    assert parameters(size) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(("size", "low", "high"), [("tiny.en", 970, 1082), ("base", 1166, 1292)])
def test_whispers_memory_is_what_was_measured_on_the_h200(size: str, low: int, high: int) -> None:
    assert low <= plan_whisper(size, card("NVIDIA-H200")).held / MIB <= high


@pytest.mark.parametrize(("size", "gigabytes"), [("small", 2), ("medium", 5), ("large-v3", 10), ("turbo", 6)])
def test_whispers_memory_is_about_what_its_authors_say_that_it_needs(size: str, gigabytes: int) -> None:
    """The table of openai/whisper's README ("Required VRAM"), in whole gigabytes; it is no measurement of ours."""
    assert plan_whisper(size, card("NVIDIA-H200")).held / 1e9 == pytest.approx(gigabytes, rel=0.2)


def test_names_that_nobody_knows_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnknownCardError, match="NVIDIA-H200"):
        card("NVIDIA-Unheard-Of")
    with pytest.raises(UnknownSizeError, match="large-v3"):
        parameters("gigantic")


def test_references_are_expanded_as_kubernetes_does_it() -> None:
    assert expand("--x=$(A) $(B) $$(A)", {"A": "1"}) == "--x=1 $(B) $(A)"


def test_a_component_that_cannot_be_planned_is_named() -> None:
    with pytest.raises(PlanningError, match=r"judge: no config\.json"):
        plan_space(SPEC, CARD, {})
    sizeless = tuple(
        it.model_copy(update={"memory": Memory(model=MemoryModel.WHISPER, size_env="NOWHERE")})
        if it.name == "stt"
        else it
        for it in SPEC.stack.components
    )
    changed = SPEC.model_copy(update={"stack": SPEC.stack.model_copy(update={"components": sizeless})})
    with pytest.raises(PlanningError, match="stt: neither the template nor the candidate sets NOWHERE"):
        plan_space(changed, CARD, {"judge": CONFIG})


def test_the_command_answers_in_json_as_a_table_and_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-f", str(EXAMPLE), "-o", "json"]) == 0
    candidates = json.loads(capsys.readouterr().out)["candidates"]
    assert [it["refusal"] for it in candidates if it["parameters"]["judgeMemory"] == "0.45"] == ["NoCacheBlocks"] * 3

    assert main(["plan", "-f", str(EXAMPLE)]) == 0
    table = capsys.readouterr().out
    assert "9 of 15 candidates fit" in table
    assert "NoCacheBlocks: judge: the budget of 4.80 GiB is 0.78 GiB less" in table

    assert main(["plan", "-f", str(EXAMPLE), "-o", "html"]) == 0
    assert capsys.readouterr().out.count('class="bar"') == 15


def test_the_reported_cache_becomes_exactly_the_reported_tokens_blocks_and_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "experiment.yaml"
    given = f"- --kv-cache-memory-bytes={round(0.3726 * GIB)}\n            - --max-model-len=2048"
    file.write_text(EXAMPLE.read_text().replace("- --max-model-len=2048", given))

    assert main(["plan", "-f", str(file), "-o", "json"]) == 0

    found = json.loads(capsys.readouterr().out)["candidates"]
    judge = next(it for it in found if it["parameters"]["judgeMemory"] == "0.50")["languageModels"]["judge"]
    assert (judge["kvCacheGiB"], judge["kvCacheTokens"], judge["kvCacheBlocks"]) == (0.3726, 6976, 436)
    assert round(judge["concurrency"], 2) == 3.41


def test_the_example_of_which_nothing_fits_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-f", str(EXAMPLE.parent / "nothing-fits.yaml")]) == 3
    assert "0 of 4 candidates fit" in capsys.readouterr().out


LASTING = {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}


@pytest.mark.parametrize(
    ("volume", "mounts", "cache"),
    [
        (None, [], CompileCache.COLD),
        ({"name": "cache", "emptyDir": {}}, [{"name": "cache", "mountPath": "/root/.cache"}], CompileCache.COLD),
        (LASTING, [{"name": "cache", "mountPath": "/root/.cache"}], CompileCache.UNKNOWN),
        (LASTING, [], CompileCache.COLD),
    ],
)
def test_only_a_volume_that_outlives_the_pod_may_hold_an_earlier_starts_compilation(
    volume: dict[str, Any] | None, mounts: list[dict[str, str]], cache: CompileCache
) -> None:
    body = copy.deepcopy(EXPERIMENT["spec"])
    pod = body["stack"]["components"][1]["template"]["spec"]
    pod["volumes"] = [volume] if volume else []
    pod["containers"][0]["volumeMounts"] = mounts
    spec = ExperimentSpec.model_validate(body)

    planner = SpacePlanner(spec, CARD, {"judge": CONFIG})
    judge = next(it for it in planner.servers(Space(spec.parameters).baseline) if isinstance(it, VllmServer))

    assert judge.settings.compile_cache is cache


def test_nothing_that_fits_is_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(
        EXAMPLE.read_text().replace('max: "0.60"', 'max: "0.45"').replace('baseline: "0.50"', 'baseline: "0.45"')
    )

    assert main(["plan", "-f", str(file)]) == 3
    assert "0 of 6 candidates fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("NVIDIA-GeForce-RTX-3060,", "NVIDIA-Unheard-Of,", "no data on card NVIDIA-Unheard-Of"),
        ("{configMap: models,", "{configMap: absent,", "has no ConfigMap absent"),
        ("--max-model-len=2048", "--max-model-len=long", "judge: argument --max-model-len: invalid int value"),
        ("kind: GpuAllocationExperiment", "kind: Pod", "holds 0 GpuAllocationExperiments"),
        ("    components:\n", "    fromNamespace: {name: voice-prod}\n    components:\n", "from namespace voice-prod"),
        ("durationSeconds: 2", "durationSeconds: soon", "spec.workload.durationSeconds"),
    ],
)
def test_a_bad_file_is_one_line_that_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, error: str
) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXAMPLE.read_text().replace(old, new))

    assert main(["plan", "-f", str(file)]) == 1
    said = capsys.readouterr().err
    assert error in said
    assert len(said.splitlines()) == 1


TOGETHER = {"judge": frozenset({"other"}), "other": frozenset({"judge"})}


def test_a_component_that_starts_beside_a_vllm_shrinks_its_cache_and_casts_doubt() -> None:
    after = plan_stack([JUDGE, DeclaredService("other", 256 * MIB)], CARD)
    beside = plan_stack([JUDGE, DeclaredService("other", 256 * MIB)], CARD, beside=TOGETHER)

    lost = after.language_models["judge"].kv_cache - beside.language_models["judge"].kv_cache
    assert lost == 256 * MIB
    assert "judge: 0.25 GiB may be taken while it measures itself" in beside.doubts
    assert beside.free == after.free + lost
    assert sum(it.size for it in beside.parts) + beside.free == beside.total


def test_a_component_further_down_that_waits_is_not_beside() -> None:
    waiting = [JUDGE, DeclaredService("waits", MIB), DeclaredService("beside it", GIB)]
    mates = {"waits": frozenset({"beside it"}), "beside it": frozenset({"waits"})}

    assert plan_stack(waiting, CARD, beside=mates).language_models == plan_stack([JUDGE], CARD).language_models


def test_who_starts_beside_a_vllm_does_so_wherever_it_stands_in_the_list() -> None:
    other = DeclaredService("other", 256 * MIB)

    before, after = (plan_stack(it, CARD, beside=TOGETHER) for it in ([other, JUDGE], [JUDGE, other]))

    assert before.language_models == after.language_models
    assert before.doubts == after.doubts
    assert before.free == after.free


def test_a_trial_that_is_cleared_away_while_vllm_profiles_ends_its_start() -> None:
    big = card("NVIDIA-H200")

    much = plan_stack([JUDGE], big, taken=30 * GIB, leaving=30 * GIB)
    little = plan_stack([JUDGE], big, taken=30 * GIB, leaving=GIB)

    assert (much.refusal, much.refused) == (Refusal.PROFILING_DISTURBED, "judge")
    assert little.fits
    assert (
        little.language_models["judge"].kv_cache
        == plan_stack([JUDGE], big, taken=30 * GIB).language_models["judge"].kv_cache + GIB
    )
    assert sum(it.size for it in little.parts) + little.free == little.total


@given(
    servers=st.lists(
        st.one_of(
            st.builds(DeclaredService, st.just("other"), st.integers(0, 2 * GIB)),
            st.builds(
                WhisperServer,
                st.just("stt"),
                st.sampled_from(sorted(SIZES)),
                st.sampled_from(Precision),
                st.just(Backend.CTRANSLATE2),
                st.sampled_from([None, 1, 5]),
            ),
            st.builds(
                VllmServer,
                st.just("judge"),
                st.just(CONFIG),
                st.builds(VllmSettings, st.floats(0.1, 1.0), version=st.just((0, 11, 0))),
            ),
        ),
        max_size=4,
        unique_by=lambda it: it.component,
    ),
    taken=st.integers(0, 4 * GIB),
    leaving=st.integers(0, 4 * GIB),
    are_mates=st.booleans(),
)
def test_no_byte_is_lost_whoever_comes_and_goes_meanwhile(
    servers: list[Server], taken: int, leaving: int, are_mates: bool
) -> None:
    names = {it.component for it in servers}
    mates = {it: frozenset(names - {it}) for it in names} if are_mates else {}

    plan = plan_stack(servers, card("NVIDIA-A30"), taken, min(taken, leaving), beside=mates)

    assert sum(it.size for it in plan.parts) + plan.free == plan.total
    assert plan.free >= 0


def test_more_than_a_clients_share_under_mps_is_refused_as_such() -> None:
    h200 = card("NVIDIA-H200")
    quarter = h200.client_limit(4)

    fits = plan_stack([DeclaredService("other", 30 * GIB)], h200, client_limit=quarter)
    refused = plan_stack([DeclaredService("other", 36 * GIB)], h200, client_limit=quarter)

    assert quarter == 143_156 // 4 * MIB
    assert fits.fits
    assert refused.refusal is Refusal.CLIENT_LIMIT
    assert refused.message == "other: 36.00 GiB are needed, and MPS lets a client have 34.95 GiB"


@pytest.mark.parametrize(("replicas", "measured_mib"), [(1, 516), (2, 274), (4, 144), (8, 78)])
def test_a_context_shrinks_with_the_threads_that_mps_lets_a_client_have(replicas: int, measured_mib: int) -> None:
    """Read on an H200; the last with 12 % of its threads."""
    context = card("NVIDIA-H200").under_mps(replicas).context_bytes / MIB

    assert context == pytest.approx(measured_mib, abs=20)
    assert card("NVIDIA-H200").under_mps(replicas).provenance("context_bytes") == "modelled"


@pytest.mark.parametrize(
    ("label", "mib", "cache"),
    [
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 40_460 // 8, 5),
        ("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", 81_224 // 2, 20),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 81_044 // 8, 6),
        ("NVIDIA-H200-MIG-2g.35gb", 143_156 // 4, 15),
        ("NVIDIA-A30-MIG-1g.6gb", 24_076 // 4, 6),
    ],
)
def test_a_mig_slice_is_a_card_of_its_own_and_modelled(label: str, mib: int, cache: int) -> None:
    found = card(label)

    assert (found.product, found.total_bytes // MIB, found.cache_bytes // MIB) == (label, mib, cache)
    assert found.provenance("total_bytes") == "modelled"
    assert card("NVIDIA-H200").provenance("total_bytes") == "measured"
    assert card("NVIDIA-GeForce-RTX-4090").provenance("total_bytes") == "published"


def test_a_mig_profile_that_a_card_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(UnknownCardError, match=r"no MIG profile 5g\.50gb; known: 1g\.18gb"):
        card("NVIDIA-H200-MIG-5g.50gb")
    with pytest.raises(UnknownCardError, match="no data on card"):
        card("NVIDIA-GeForce-RTX-3060-MIG-1g.5gb")


@pytest.mark.parametrize(
    ("size", "precision", "mib"),
    [
        ("large-v3", Precision.FLOAT16, 4521),
        ("large-v3", Precision.INT8, 2953),
        ("turbo", Precision.FLOAT16, 2537),
        ("turbo", Precision.INT8, 1545),
        ("distil-large-v3", Precision.FLOAT16, 2409),
        ("distil-large-v3", Precision.INT8, 1481),
    ],
)
def test_faster_whisper_holds_about_what_its_users_published(size: str, precision: Precision, mib: int) -> None:
    """An RTX 2080 Ti, beam 5; the context of the RTX 3060 stands in for its own."""
    plan = plan_whisper(size, CARD, precision, Backend.CTRANSLATE2)

    assert plan.held / MIB == pytest.approx(mib, rel=0.14)


def test_whispers_cache_grows_with_hypotheses_and_its_weights_with_precision() -> None:
    greedy, beam = (plan_whisper("large-v3", CARD, beams=it) for it in (1, 5))
    single, double = (plan_whisper("base", CARD, it) for it in (Precision.FLOAT16, Precision.FLOAT32))

    assert greedy.cache == 32 * 2 * (448 + 1500) * 1280 * 2
    assert beam.cache == 5 * greedy.cache
    assert double.weights == 2 * single.weights
    assert plan_whisper("base", CARD, Precision.INT8_FLOAT16, Backend.CTRANSLATE2).weights * 2 == single.weights


def test_openai_whisper_keeps_float32_whatever_it_computes_in_and_the_room_of_the_file_it_was_loaded_from() -> None:
    half, single = (plan_whisper("medium", CARD, it) for it in (Precision.FLOAT16, Precision.FLOAT32))

    assert half.held == single.held >= half.context + 6 * parameters("medium")
    # What shows that a server is on the card is less: one that halves its weights is there as well.
    assert half.weights == 2 * parameters("medium")


@pytest.mark.parametrize(("replicas", "fitting"), [(None, 1), (2, 1), (1, 2)])
def test_the_command_plans_what_mps_lets_a_client_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], replicas: int | None, fitting: int
) -> None:
    models, experiment = copy.deepcopy((MODELS, EXPERIMENT))
    sharing = {"name": "sharing", "bind": {"gpu": "sharing"}, "values": ["TimeSlicing", "MPS"]}
    memory, whisper = experiment["spec"]["parameters"]
    memory = {key: memory[key] for key in ("name", "bind")} | {"values": ["0.50"], "baseline": "0.50"}
    whisper |= {"values": ["tiny"], "baseline": "tiny"}
    experiment["spec"]["parameters"] = [memory, whisper, sharing | {"baseline": "TimeSlicing"}]
    file = tmp_path / "sharing.yaml"
    file.write_text(yaml.safe_dump_all([models, experiment]))
    given = [] if replicas is None else ["--mps-replicas", str(replicas)]

    assert main(["plan", "-f", str(file), "-o", "json", *given]) == 0

    planned = json.loads(capsys.readouterr().out)["candidates"]
    assert sum(it["fits"] for it in planned) == fitting
    refused = [(it["parameters"]["sharing"], it["refusal"]) for it in planned if not it["fits"]]
    assert set(refused) <= {("MPS", "ClientLimit")}
