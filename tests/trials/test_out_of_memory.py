"""Each out-of-memory event is counted once, whoever tells of it."""

from collections.abc import Mapping, Sequence

import pytest
from cotune.measurement.agent.contract import NodeReport, OutOfMemoryKills
from cotune.trials.out_of_memory import Ends, failed_allocations, kills_of, out_of_memory_events

OOM = "CUDA out of memory. Tried to allocate 102.00 MiB. GPU 0 has a total capacity of 11.63 GiB of which 13 MiB are."
TORCH = f"torch.OutOfMemoryError: {OOM}"
ACCESS = 'INFO:     10.244.1.7:40312 - "POST /v1/audio/transcriptions HTTP/1.1" 500 Internal Server Error'
TRACEBACK = f"""\
Traceback (most recent call last):
  File "/opt/whisper/server.py", line 41, in transcribe
    return model.transcribe(audio)
{TORCH}
"""
VLLM = f"""\
(EngineCore_DP0 pid=270) INFO 11-23 10:02:11 [gpu_model_runner.py:2602] Starting to load model
(EngineCore_DP0 pid=270) ERROR 11-23 10:02:14 [core.py:708] EngineCore failed to start.
(EngineCore_DP0 pid=270) ERROR 11-23 10:02:14 [core.py:708] Traceback (most recent call last):
(EngineCore_DP0 pid=270) ERROR 11-23 10:02:14 [core.py:708]   File "/vllm/v1/engine/core.py", line 699, in run
(EngineCore_DP0 pid=270) ERROR 11-23 10:02:14 [core.py:708] {TORCH}
(EngineCore_DP0 pid=270) Process EngineCore_DP0:
(EngineCore_DP0 pid=270) Traceback (most recent call last):
(EngineCore_DP0 pid=270)   File "/usr/lib/python3.12/multiprocessing/process.py", line 314, in _bootstrap
(EngineCore_DP0 pid=270)     self.run()
(EngineCore_DP0 pid=270) {TORCH}
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", 0),
        ("all is well\n", 0),
        (TRACEBACK, 1),
        (VLLM, 1),
        (TRACEBACK + ACCESS + "\n" + TRACEBACK + ACCESS + "\n", 2),
        (TRACEBACK + TRACEBACK, 1),
        (TRACEBACK + TRACEBACK.replace("102.00", "204.00"), 2),
        ("RuntimeError: CUDA error: out of memory\n", 1),
        ("RuntimeError: CUDA failed with error out of memory\n", 1),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\n", 1),
        ("RuntimeError: CUDA error: an illegal memory access was encountered\n", 0),
        ('vllm:num_preemptions_total{engine="0"} 12.0\nWARNING Sequence group 0 is preempted\n', 0),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory\n", 0),
    ],
    ids=lambda it: it[:30] if isinstance(it, str) else None,
)
def test_a_log_has_as_many_events_as_allocations_have_failed(log: str, expected: int) -> None:
    assert failed_allocations(log) == expected


NOTHING = Ends()
SEEN: Mapping[str, tuple[Sequence[str], Ends, Mapping[str, int], int | None, int]] = {
    "nothing": ((), NOTHING, {}, None, 0),
    "the log": ((TRACEBACK,), NOTHING, {}, None, 1),
    "the log of the run before": ((TRACEBACK, "started again\n"), NOTHING, {}, None, 1),
    "runs that failed alike are two events": ((TRACEBACK, TRACEBACK), NOTHING, {}, None, 2),
    "the message of the end, where the log is gone": (("",), Ends(messages=(TRACEBACK,)), {}, None, 1),
    "the message repeats the log": ((TRACEBACK,), Ends(messages=(TRACEBACK,)), {}, None, 1),
    "the server's own counter": (("",), NOTHING, {}, 3, 3),
    "the server counts what it logs": ((TRACEBACK,), NOTHING, {}, 1, 1),
    "the kubelet": ((), Ends(killed=("a",)), {}, None, 1),
    "the kubelet and the control group": ((), Ends(killed=("a",)), {"a": 1}, None, 1),
    "a worker in a container that lives on": ((), NOTHING, {"a": 2}, None, 2),
    "a worker, and then the container": ((), Ends(killed=("a",)), {"a": 2}, None, 2),
    "a container that was killed, and the one that followed": ((), Ends(killed=("a",)), {"b": 1}, None, 2),
    "the card and the machine": ((TRACEBACK,), Ends(killed=("a",)), {"a": 1}, 1, 2),
}


@pytest.mark.parametrize(("logs", "ends", "kills", "counted", "expected"), SEEN.values(), ids=SEEN.keys())
def test_one_event_is_counted_once(
    logs: Sequence[str], ends: Ends, kills: Mapping[str, int], counted: int | None, expected: int
) -> None:
    assert out_of_memory_events(logs, ends, kills, counted) == expected


def test_kills_are_of_the_pods_own_containers_those_of_earlier_runs_too() -> None:
    kills = (
        OutOfMemoryKills(container="a", pod="mine", kills=1),
        OutOfMemoryKills(container="a", pod="mine", kills=2),
        OutOfMemoryKills(container="before", pod="mine", kills=1),
        OutOfMemoryKills(container="b", pod="another", kills=5),
        OutOfMemoryKills(container="c", kills=7),
    )
    report = NodeReport(node="lab", card="GPU-1", readings=1, kills=kills)

    assert kills_of(report, "mine", frozenset({"a"})) == {"a": 3, "before": 1}
    assert kills_of(report, "", frozenset({"c"})) == {"c": 7}
    assert kills_of(report.model_copy(update={"kills": None}), "mine", frozenset({"a"})) == {}
    assert kills_of(None, "mine", frozenset({"a"})) == {}
