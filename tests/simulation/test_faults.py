"""Servers that lie on purpose: each fault is in every other answer, and the kubelet never sees it."""

import json
import urllib.request

import pytest
from cotune_simulation.clips import write_clip
from cotune_simulation.faults import NOBODY_SAID, Stall
from support.simulated_card import RunningCard
from support.simulated_server import RunningServer, ended_server, running_server

NEIGHBOUR, WHISPER, VLLM = (f"cotune_simulation.{it}" for it in ("neighbour", "whisper", "vllm"))
SERVE = ("serve", "Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpu-memory-utilization=0.5", "--max-model-len=2048", "--port=PORT")
SAID = "please turn on the lights"


def as_the_kubelet(server: RunningServer) -> bytes:
    request = urllib.request.Request(f"{server.url}/health", headers={"User-Agent": "kube-probe/1.36"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.read()


def test_every_other_answer_is_an_error_with_status_200(card: RunningCard) -> None:
    with running_server(card.environment(), NEIGHBOUR, COTUNE_SIMULATION_FAULT="error-body") as server:
        said: list[bool] = []
        for _ in range(4):
            answer = server.get("/health")
            assert answer.status == 200
            said.append("error" in answer.json())
            assert json.loads(as_the_kubelet(server)) == {"status": "ok"}

    assert said == [False, True, False, True]


def test_every_other_stream_ends_half_way_as_if_it_were_whole(card: RunningCard) -> None:
    body = {"prompt": "one two", "max_tokens": 8, "stream": True}
    with running_server(card.environment(), VLLM, *SERVE, COTUNE_SIMULATION_FAULT="truncated") as server:
        whole, cut = (server.post("/v1/completions", body).body for _ in range(2))

    assert (whole.count(b"data: "), whole.endswith(b"data: [DONE]\n\n")) == (9, True)
    assert (cut.count(b"data: "), b"[DONE]" in cut, b'"finish_reason": "length"' in cut) == (4, False, False)


def test_every_other_clip_gets_a_text_that_nobody_has_said(card: RunningCard) -> None:
    clip = write_clip(bytes([128]) * 8000, 8000, SAID)
    environment = card.environment() | {"ASR_WHISPER_SIZE": "tiny", "COTUNE_SIMULATION_FAULT": "wrong-transcript"}
    with running_server(environment, WHISPER) as server:
        texts = [server.post_form("/v1/audio/transcriptions", file=clip).json()["text"] for _ in range(4)]

    assert texts == [SAID, NOBODY_SAID, SAID, NOBODY_SAID]


def test_a_server_ends_at_the_request_after_so_many(card: RunningCard) -> None:
    with running_server(card.environment(), NEIGHBOUR, COTUNE_SIMULATION_CRASH_AFTER="2") as server:
        for _ in range(2):
            as_the_kubelet(server)
            assert server.get("/health").status == 200
        with pytest.raises(OSError, match=r"."):
            server.get("/health")

        assert server.process.wait(timeout=20) == 1


@pytest.mark.parametrize(("now", "rest"), [(0.0, 0.0), (7.9, 0.0), (8.0, 2.0), (9.5, 0.5), (10.0, 0.0), (18.5, 1.5)])
def test_a_stall_lasts_to_the_end_of_its_period(now: float, rest: float) -> None:
    stall = Stall.parse("2/10")

    assert stall is not None
    assert stall.rest(now) == rest


def test_a_fault_that_is_not_known_ends_the_server(card: RunningCard) -> None:
    for variable, value in (("FAULT", "lies"), ("STALL", "2"), ("STALL", "10/2"), ("CRASH_AFTER", "soon")):
        ended = ended_server(card.environment(), NEIGHBOUR, PORT="0", **{f"COTUNE_SIMULATION_{variable}": value})
        assert ended.returncode == 1
        assert "ValueError" in ended.stdout
