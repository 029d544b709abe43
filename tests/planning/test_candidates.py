"""What of an experiment reaches the planner: every field that its formulas ask for."""

import copy
from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec
from cotune.planning.candidates import Known, SpacePlanner, plan_space, server_version
from cotune.planning.cards import card
from cotune.planning.declared_service import DeclaredService
from cotune.planning.learned import Learned, settings_key
from cotune.planning.model_config import read_model_config
from cotune.planning.server import PlanningError
from cotune.planning.sizes import GIB, MIB
from cotune.planning.stack import StackPlan
from cotune.planning.vllm import Refusal
from cotune.planning.whisper import Backend, Precision
from cotune.planning.whisper_server import WhisperServer
from cotune.search.space import Space
from support.examples import documents

MODELS, EXPERIMENT = documents("voice-stack.yaml")[:2]
CONFIGS = {"judge": read_model_config(next(iter(MODELS["data"].values())))}
CARD = card("NVIDIA-GeForce-RTX-3060")
NEIGHBOUR, JUDGE, STT = 0, 1, 2


def spec(**changes: Any) -> ExperimentSpec:
    """The story's experiment; `judge__memory__serverVersion="0.26"` sets a field of a component, None removes it."""
    body = copy.deepcopy(EXPERIMENT["spec"])
    places = {"neighbour": NEIGHBOUR, "judge": JUDGE, "stt": STT}
    for path, value in changes.items():
        first, *parents, last = path.split("__")
        node: Any = body["stack"]["components"][places[first]] if first in places else body[first]
        for it in parents:
            node = node[it]
        if value is None:
            node.pop(last)
        else:
            node[last] = value
    return ExperimentSpec.model_validate(body)


def baseline(found: ExperimentSpec, known: Known | None = None) -> StackPlan:
    planner = SpacePlanner(found, CARD, CONFIGS, known or Known())
    return planner.plan(Space(found.parameters).baseline)


def server(found: ExperimentSpec, name: str, known: Known | None = None) -> Any:
    planner = SpacePlanner(found, CARD, CONFIGS, known or Known())
    return next(it for it in planner.servers(Space(found.parameters).baseline) if it.component == name)


@pytest.mark.parametrize(("shares", "limit"), [(0, 12_288 // 4), (8, 12_288 // 8)])
def test_under_mps_each_client_has_its_share_of_the_card_and_no_more(shares: int, limit: int) -> None:
    plan = baseline(spec(gpu__sharing="MPS"), Known(shares=shares))

    assert (plan.refusal, plan.refused) == (Refusal.CLIENT_LIMIT, "judge")
    assert f"MPS lets a client have {limit / 1024:.2f} GiB" in plan.message
    assert baseline(spec()).fits


def test_a_mig_slice_is_planned_for_as_the_product_that_its_node_is_labelled_with() -> None:
    found = spec(gpu__product="NVIDIA-A100-SXM4-40GB-MIG-2g.10gb")
    assert found.gpu is not None

    plan = SpacePlanner(found, card(found.gpu.product), CONFIGS).plan(Space(found.parameters).baseline)

    assert plan.total == 40_460 // 4 * MIB
    assert (plan.refusal, plan.refused) == (Refusal.NO_CACHE_BLOCKS, "judge")


def test_components_that_wait_for_nobody_start_beside_each_other() -> None:
    waiting, beside = baseline(spec()), baseline(spec(judge__dependsOn=None, stt__dependsOn=None))

    assert not waiting.is_doubtful
    assert beside.doubts
    lost = waiting.language_models["judge"].kv_cache - beside.language_models["judge"].kv_cache
    assert lost >= 1229 * MIB, "the neighbour's memory may come while vLLM measures itself"


def test_waiting_by_a_detour_is_waiting() -> None:
    assert not baseline(spec(stt__dependsOn=["judge"])).is_doubtful
    assert baseline(spec(stt__dependsOn=["neighbour"])).doubts


def test_an_order_in_which_each_waits_for_the_one_before_is_proposed_where_it_fits_more() -> None:
    together = spec(judge__dependsOn=None, stt__dependsOn=None)
    planner = SpacePlanner(together, CARD, CONFIGS)
    refused = [it.candidate for it in plan_space(together, CARD, CONFIGS) if not it.plan.fits]

    assert planner.better_order(refused) == ("neighbour", "judge", "stt")
    own = [it.candidate for it in plan_space(spec(), CARD, CONFIGS) if not it.plan.fits]
    assert SpacePlanner(spec(), CARD, CONFIGS).better_order(own) is None


@pytest.mark.parametrize(
    ("image", "stated", "version"),
    [
        ("vllm/vllm-openai:v0.11.0", None, (0, 11, 0)),
        ("registry:5000/vllm/vllm-openai:v0.12.1@sha256:1234", None, (0, 12, 1)),
        ("vllm/vllm-openai:latest", None, (0, 26, 0)),
        ("mine:0.3", None, (0, 26, 0)),
        ("vllm/vllm-openai:v0.11.0", "0.26.0", (0, 26, 0)),
    ],
)
def test_the_servers_version_is_what_is_said_else_what_its_tag_says(
    image: str, stated: str | None, version: tuple[int, ...]
) -> None:
    found = spec(judge__memory__serverVersion=stated)
    component = found.stack.components[JUDGE]
    component.template["spec"]["containers"][0]["image"] = image

    assert server_version(component) == version
    assert server(found, "judge").settings.version == version


def test_faster_whisper_its_precision_and_its_beams_are_the_experiments_to_say() -> None:
    memory = {"model": "Whisper", "sizeEnv": "ASR_WHISPER_SIZE", "backend": "FasterWhisper"}
    static = spec(stt__memory={**memory, "precision": "int8", "beams": 2})
    assert server(static, "stt") == WhisperServer("stt", "small", Precision.INT8, Backend.CTRANSLATE2, 2)

    of_a_variable = spec(stt__memory={**memory, "precisionEnv": "ASR_QUANTIZATION"})
    container = of_a_variable.stack.components[STT].template["spec"]["containers"][0]
    container["env"] = [{"name": "ASR_QUANTIZATION", "value": "int8_float16"}]
    assert server(of_a_variable, "stt").precision is Precision.INT8_FLOAT16
    container["env"] = [{"name": "ASR_QUANTIZATION", "value": "int3"}]
    with pytest.raises(PlanningError, match="stt: 'int3' is not a valid Precision"):
        server(of_a_variable, "stt")


def test_openai_whisper_does_not_compute_in_eight_bits() -> None:
    memory = {"model": "Whisper", "sizeEnv": "ASR_WHISPER_SIZE", "precisionEnv": "PRECISION"}
    found = spec(stt__memory=memory)
    found.stack.components[STT].template["spec"]["containers"][0]["env"] = [{"name": "PRECISION", "value": "int8"}]

    with pytest.raises(PlanningError, match="openai-whisper has float16 and float32, not int8"):
        baseline(found)


def test_a_service_of_unknown_size_counts_as_nothing_and_casts_doubt_on_what_fits_only() -> None:
    found = spec(neighbour__memory={"model": "Learned"})
    plans = {it.candidate.values["judgeMemory"]: it.plan for it in plan_space(found, CARD, CONFIGS)}

    assert plans["0.50"].doubts == ("neighbour: what it holds is not known yet, and counts as nothing",)
    assert (plans["0.40"].fits, plans["0.40"].is_doubtful) == (False, False)


def test_a_service_that_a_trial_has_shown_is_planned_with_what_it_held() -> None:
    image = EXPERIMENT["spec"]["stack"]["components"][NEIGHBOUR]["template"]["spec"]["containers"][0]["image"]
    learned = Learned({("neighbour", settings_key(image, {})): 2 * GIB})

    found = server(spec(neighbour__memory={"model": "Learned"}), "neighbour", Known(learned=learned))

    assert found == DeclaredService("neighbour", 2 * GIB)


def test_a_size_of_whisper_that_nobody_knows_names_its_component() -> None:
    body = copy.deepcopy(EXPERIMENT["spec"])
    body["parameters"][1] |= {"values": ["tiny", "gigantic"], "baseline": "gigantic"}

    with pytest.raises(PlanningError, match="stt: no Whisper of size 'gigantic'"):
        baseline(ExperimentSpec.model_validate(body))
