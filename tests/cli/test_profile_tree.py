"""A profile as a tree."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cotune.api.profile import ProfileSpec, ProfileStatus
from cotune.cli.profile_tree import profile_tree
from support.resources import manifest

NOW = datetime(2026, 7, 3, 12, 0, tzinfo=UTC)


def ago(seconds: int) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def drawn(status: dict[str, Any], **rollout: Any) -> list[str]:
    body = manifest("GpuProfile")["spec"]
    body["rollout"]["stages"][0]["gates"] = [
        {"name": "errors", "promQL": {"query": "x"}, "max": "0"},
        {"name": "latency", "promQL": {"query": "y"}, "min": "1", "dryRun": True},
    ]
    body["rollout"] |= rollout
    spec, found = ProfileSpec.model_validate(body), ProfileStatus.model_validate(status)
    return profile_tree("voice-lab/voice", spec, found, NOW).splitlines()


def test_a_profile_that_has_not_begun() -> None:
    assert drawn({}, paused=True) == [
        "voice-lab/voice  Pending, paused",
        "  stt: ASR_WHISPER_SIZE=tiny (was small)",
        "├─ staging     voice-staging  -  spec.rollout.paused is true",
        "│  ├─ gate errors             -",
        "│  └─ gate latency (dry run)  -",
        "└─ production  voice-prod     -  approval Manual",
    ]


def test_a_stage_that_bakes_with_its_gates_and_the_time_that_is_left() -> None:
    gate = {"name": "errors", "outcome": "Inconclusive", "message": "4 samples", "at": ago(1), "observedGeneration": 1}
    stage = {"name": "staging", "phase": "Baking", "phaseStartedAt": ago(30), "message": "ready", "gates": [gate]}

    assert drawn({"phase": "Baking", "stages": [stage], "retries": 1})[2:5] == [
        "├─ staging     voice-staging  Baking  90 s of bake time left; ready",
        "│  ├─ gate errors             Inconclusive  4 samples",
        "│  └─ gate latency (dry run)  -",
    ]
    assert drawn({"phase": "Baking", "stages": [stage], "retries": 1})[0] == "voice-lab/voice  Baking, retry 1"


def test_stages_that_are_over_on_their_way_and_back() -> None:
    promoted = {"name": "staging", "phase": "Promoted", "startedAt": ago(9000), "finishedAt": ago(1800)}
    progressing = {"name": "production", "phase": "Progressing", "phaseStartedAt": ago(60), "message": "judge to stop"}
    back = progressing | {"phase": "RolledBack", "startedAt": ago(300), "finishedAt": ago(0), "message": "gate errors"}
    on_the_way = drawn({"phase": "Progressing", "stages": [promoted, progressing]})
    taken_back = drawn({"phase": "RolledBack", "stages": [promoted, back]})

    assert on_the_way[2] == "├─ staging     voice-staging  Promoted     took 2 h 0 min"
    assert on_the_way[-1] == (
        "└─ production  voice-prod     Progressing  at most 4 min until it is ready; judge to stop"
    )
    assert taken_back[-1] == "└─ production  voice-prod     RolledBack  took 5 min; gate errors"


def test_a_stage_in_batches_on_its_way_and_back() -> None:
    batches = [{"stacks": ["a"], "startedAt": ago(9)}, {"stacks": ["b", "c"], "startedAt": ago(5)}, {"stacks": ["d"]}]
    stage = {"name": "staging", "phase": "Baking", "phaseStartedAt": ago(30), "batch": 2, "batches": batches}
    forward = drawn({"phase": "Baking", "stages": [stage]})
    back = drawn({"phase": "RollingBack", "stages": [stage | {"phase": "RollingBack", "batch": 1}]})
    waits = drawn({"phase": "RollingBack", "stages": [stage | {"phase": "RollingBack"}]})

    assert forward[2] == "├─ staging     voice-staging  Baking  batch 2 of 3, 3 of 4 stacks; 90 s of bake time left"
    assert [it.split()[2:] for it in forward[3:6]] == [
        ["batch", "1", "Through", "a"],
        ["batch", "2", "Baking", "b,", "c"],
        ["batch", "3", "-", "d"],
    ]
    assert [it.split()[4] for it in back[3:6]] == ["RollingBack", "RolledBack", "-"]
    assert [it.split()[4] for it in waits[3:6]] == ["WaitsForItsTurn", "RollingBack", "-"]


def test_a_stage_whose_bridge_starts_or_waits_for_room() -> None:
    def told(**surge: str) -> str:
        bridge = {"phase": "Starting", "since": ago(30), **surge}
        stage = {"name": "staging", "phase": "Progressing", "phaseStartedAt": ago(600), "surge": bridge}
        return drawn({"phase": "Progressing", "stages": [stage | {"message": "so"}]})[2]

    assert told().endswith("Progressing  at most 4 min until its bridge serves; so")
    assert told(reason="NoRoom").endswith("Progressing  waits for room; so")
    assert told(phase="Serving").endswith("Progressing  at most 0 s until it is ready; so")


def test_what_is_known_of_the_cards_memory_is_said_once() -> None:
    memory = {"reason": "MemoryHeld", "message": "judge on gpu-1: 4,200 MiB"}
    stage = {"name": "staging", "phase": "Progressing", "phaseStartedAt": ago(60), "memory": memory}
    forward = stage | {"message": "waiting for memory: judge on gpu-1: 4,200 MiB"}
    back = stage | {"phase": "RollingBack", "message": "judge: NoCacheBlocks"}

    assert drawn({"phase": "Progressing", "stages": [forward]})[2].endswith(
        "until it is ready; waiting for memory: judge on gpu-1: 4,200 MiB"
    )
    assert drawn({"phase": "RollingBack", "stages": [back]})[2].endswith(
        "until it is back; judge: NoCacheBlocks; MemoryHeld: judge on gpu-1: 4,200 MiB"
    )


def test_what_the_next_stage_will_cost_and_what_the_others_have_cost() -> None:
    def downtime(**fields: Any) -> dict[str, Any]:
        return {"name": "staging", "phase": "Promoted", "downtime": fields}

    expected = {"stage": "staging", "seconds": 91, "message": "91 s: ..."}
    assert drawn({"expectedDowntime": expected})[2].endswith("begins next; expected downtime 91 s")
    assert drawn({"expectedDowntime": {"stage": "staging"}})[2].endswith("expected downtime unknown")
    over = drawn({"stages": [downtime(expectedSeconds=91, measuredSeconds=96)]})
    assert over[2].endswith("Promoted  down for 96 s (91 s expected)")
    assert drawn({"stages": [downtime(since=ago(12))]})[2].endswith("Promoted  down for 12 s")
    assert drawn({"stages": [downtime(expectedSeconds=91)]})[2].endswith("Promoted")


def test_what_stalls_it_is_said_last() -> None:
    stalled = {
        "type": "Stalled",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": ago(1),
        "reason": "NoGrant",
        "message": "no grant",
    }

    assert drawn({"conditions": [stalled]})[-1] == "  Stalled: NoGrant: no grant"
    assert "Stalled" not in "".join(drawn({"conditions": [stalled | {"status": "False"}]}))
