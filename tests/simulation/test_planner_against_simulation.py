"""The planner's word beside what the simulated servers do, which know nothing of the planner.

The simulation has the figures of the public report and vLLM's own messages; the planner has the model's config.json.
"""

import pytest
from cotune.api.experiment import ExperimentSpec
from cotune.planning import cards
from cotune.planning.model_config import ModelConfig, read_model_config
from cotune.planning.sizes import GIB, MIB
from cotune.planning.vllm import VllmPlan, VllmSettings, plan_vllm
from cotune.search.space import Space
from cotune.trials.root_cause import root_cause
from support.examples import one
from support.simulated_card import RunningCard
from support.simulated_server import ended_server, running_server

_KEY = "qwen2.5-7b-instruct-awq.json"
_SERVER = ("cotune_simulation.vllm", "serve", "Qwen/Qwen2.5-7B-Instruct-AWQ", "--host=127.0.0.1")
_SIMULATED_VERSION = (0, 11, 0)
_DOUBT = 0.15 * GIB


def shares(file: str) -> list[str]:
    """The values that an example's space has for the card's share."""
    spec = ExperimentSpec.model_validate(one(file, "GpuAllocationExperiment")["spec"])
    return sorted({it.values["judgeMemory"] for it in Space(spec.parameters)})


def model() -> ModelConfig:
    return read_model_config(one("voice-stack.yaml", "ConfigMap")["data"][_KEY])


def planned(share: str, longest: int) -> VllmPlan:
    settings = VllmSettings(
        float(share), longest, max_num_batched_tokens=2048, max_num_seqs=256, version=_SIMULATED_VERSION
    )
    return plan_vllm(model(), settings, cards.card("NVIDIA-GeForce-RTX-3060"), taken=1229 * MIB)


def arguments(share: str, longest: int) -> list[str]:
    return [
        *_SERVER[1:],
        *(f"--gpu-memory-utilization={share}", f"--max-model-len={longest}"),
        *("--max-num-batched-tokens=2048", "--max-num-seqs=256"),
    ]


@pytest.mark.parametrize(
    ("share", "longest", "reason"),
    [
        *((it, 2048, "NoCacheBlocks") for it in shares("nothing-fits.yaml")),
        *((it, 2048, "NoCacheBlocks") for it in shares("voice-stack.yaml") if it < "0.50"),
        ("0.50", 16384, "ContextTooLong"),
        ("0.95", 2048, "CardTaken"),
    ],
)
def test_what_is_refused_on_paper_is_refused_for_the_same_reason(
    card: RunningCard, share: str, longest: int, reason: str
) -> None:
    plan = planned(share, longest)
    with running_server(card.environment(), "cotune_simulation.neighbour", HOLD_MIB="1229"):
        ended = ended_server(card.environment(), _SERVER[0], *arguments(share, longest))

    assert plan.refusal == reason
    assert not plan.is_doubtful, plan.doubts
    assert ended.returncode == 1
    assert root_cause(ended.stdout).cause == reason


@pytest.mark.parametrize("share", [it for it in shares("voice-stack.yaml") if it >= "0.50"])
def test_what_fits_on_paper_starts_with_about_as_many_tokens(card: RunningCard, share: str) -> None:
    plan = planned(share, 2048)
    with (
        running_server(card.environment(), "cotune_simulation.neighbour", HOLD_MIB="1229"),
        running_server(card.environment(), _SERVER[0], *arguments(share, 2048), "--port=PORT") as server,
    ):
        metrics = server.get("/metrics").body.decode()

    assert plan.refusal is None
    blocks = int(metrics.split('num_gpu_blocks="')[1].split('"')[0])
    assert blocks * 16 * 57_344 == pytest.approx(plan.kv_cache, abs=_DOUBT)
