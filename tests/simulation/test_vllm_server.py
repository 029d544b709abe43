"""The simulated vLLM server over HTTP, and its failures beside neighbours."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from support.simulated_card import RunningCard, start
from support.simulated_server import RunningServer, ended_server, running_server

MODULE = "cotune_simulation.vllm"
MODEL = "Qwen/Qwen2.5-7B-Instruct-AWQ"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    card = start(tmp_path_factory.mktemp("card") / "card.sock")
    arguments = ("serve", MODEL, "--gpu-memory-utilization=0.5", "--max-model-len=2048", "--served-model-name", "llm")
    try:
        with running_server(card.environment(), MODULE, *arguments, "--host=127.0.0.1", "--port=PORT") as running:
            yield running
    finally:
        card.stop()


def events(body: bytes) -> list[str]:
    return [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]


def test_its_models_say_that_they_are_simulated(server: RunningServer) -> None:
    model = server.get("/v1/models").json()["data"][0]
    assert (model["id"], model["owned_by"], model["max_model_len"]) == ("llm", "simulation", 2048)


def test_a_completion_counts_its_tokens(server: RunningServer) -> None:
    body = server.post("/v1/completions", {"model": "llm", "prompt": "one two three", "max_tokens": 5}).json()
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "total_tokens": 8,
        "prompt_tokens_details": None,
    }
    assert body["choices"][0]["finish_reason"] == "length"
    assert len(body["choices"][0]["text"].split()) == 5


def test_a_prompt_may_be_token_ids(server: RunningServer) -> None:
    body = server.post("/v1/completions", {"prompt": [1] * 40, "max_tokens": 1}).json()
    assert body["usage"]["prompt_tokens"] == 40


def test_a_chat_answers_as_the_assistant(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "hello"}]
    body = server.post("/v1/chat/completions", {"model": "llm", "messages": messages, "max_tokens": 3}).json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"


def test_a_stream_has_one_event_per_token_then_the_usage_then_the_end(server: RunningServer) -> None:
    request = {"prompt": "a", "max_tokens": 4, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, done = events(server.post("/v1/completions", request).body)
    assert done == "[DONE]"
    *tokens, usage = [json.loads(chunk) for chunk in chunks]
    assert [token["choices"][0]["finish_reason"] for token in tokens] == [None, None, None, "length"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4


def test_a_chat_streams_deltas_and_no_usage_unless_asked(server: RunningServer) -> None:
    request = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "stream": True}
    *chunks, done = events(server.post("/v1/chat/completions", request).body)
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert (deltas[0]["role"], len(deltas), done) == ("assistant", 3, "[DONE]")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/completions", {"prompt": "a", "model": "other"}, 404, "The model `other` does not exist."),
        ("/v1/completions", {"prompt": "word " * 2000, "max_tokens": 100}, 400, "maximum context length is 2048"),
        ("/v1/completions", {"max_tokens": 1}, 400, "prompt"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens must be at least 1"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages"),
        ("/v1/completions", [], 400, "valid dictionary"),
    ],
)
def test_what_it_cannot_do_is_refused(
    server: RunningServer, path: str, body: object, status: int, message: str
) -> None:
    answer = server.post(path, body)
    assert answer.status == status
    assert message in answer.json()["error"]["message"]


def test_metrics_have_vllms_names(server: RunningServer) -> None:
    server.post("/v1/completions", {"prompt": "a b", "max_tokens": 2})
    text = server.get("/metrics").body.decode()
    for line in (
        'vllm:num_requests_running{engine="0",model_name="llm"} 0.0',
        'vllm:num_requests_waiting{engine="0",model_name="llm"} 0.0',
        'vllm:kv_cache_usage_perc{engine="0",model_name="llm"} 0.0',
        'vllm:num_preemptions_total{engine="0",model_name="llm"} 0.0',
        'block_size="16",engine="0",gpu_memory_utilization="0.5",num_gpu_blocks="436"} 1.0',
    ):
        assert line in text
    for name in (
        *("prompt_tokens_total", "generation_tokens_total", "request_success_total"),
        *("time_to_first_token_seconds_bucket", "e2e_request_latency_seconds_count", "inter_token_latency_seconds_sum"),
    ):
        assert f"vllm:{name}{{" in text


def start_beside(card: RunningCard, held: int, utilization: str) -> str:
    async def start_it() -> str:
        async with card.client() as neighbour:
            await neighbour.allocate(held)
            arguments = ("serve", MODEL, "--max-model-len=2048", f"--gpu-memory-utilization={utilization}")
            ended = await asyncio.to_thread(ended_server, card.environment(), MODULE, *arguments)
            assert ended.returncode == 1
            return ended.stdout

    return asyncio.run(start_it())


def test_a_card_that_a_neighbour_fills_is_refused_at_once(card: RunningCard) -> None:
    assert "ValueError: Free memory on device cuda:0 (3.55/12.0 GiB) on startup" in start_beside(
        card, 8192 * MIB, "0.5"
    )


def test_graphs_are_not_reckoned_with_and_overflow_a_full_card(card: RunningCard) -> None:
    output = start_beside(card, 4750 * MIB, "0.565")
    assert "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 460.80 MiB. GPU 0 has a total" in output


def test_without_a_card_it_fails_as_without_a_gpu(card: RunningCard) -> None:
    elsewhere = card.environment() | {"COTUNE_SIMULATION_SOCKET": f"{card.socket}.none"}
    ended = ended_server(elsewhere, MODULE, "serve", MODEL)
    assert ended.returncode == 1
    assert "RuntimeError: No CUDA GPUs are available" in ended.stdout


def test_it_ends_at_once_when_told_to(card: RunningCard) -> None:
    arguments = ("serve", MODEL, "--gpu-memory-utilization=0.5", "--max-model-len=2048", "--port=PORT")
    with running_server(card.environment(), MODULE, *arguments) as running:
        running.process.terminate()
        assert running.process.wait(timeout=5) == 0


def test_a_request_whose_client_goes_away_is_forgotten(card: RunningCard) -> None:
    arguments = ("serve", MODEL, "--gpu-memory-utilization=0.5", "--max-model-len=2048", "--port=PORT")
    body = json.dumps({"prompt": "a", "max_tokens": 2000}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"

    def running(server: RunningServer, count: int) -> bool:
        return f'vllm:num_requests_running{{engine="0",model_name="{MODEL}"}} {count}.0' in (
            server.get("/metrics").body.decode()
        )

    with running_server(card.environment(), MODULE, *arguments) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head.encode() + body)
            wait_until(lambda: running(server, 1))
        wait_until(lambda: running(server, 0))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_sum_is_answered_with_the_log_probabilities_that_were_asked_for(server: RunningServer) -> None:
    asked = {"prompt": "What is 17 + 25?", "max_tokens": 16, "logprobs": 5}
    choice = server.post("/v1/completions", asked).json()["choices"][0]
    chat = {"messages": [{"role": "user", "content": "17 + 25"}], "max_tokens": 4, "logprobs": True, "top_logprobs": 5}
    chatted = server.post("/v1/chat/completions", chat).json()["choices"][0]

    assert (choice["text"], choice["finish_reason"]) == (" The answer is 42.", "stop")
    assert choice["logprobs"]["tokens"] == [" The", " answer", " is", " 42", "."]
    assert all(it < 0 for it in choice["logprobs"]["token_logprobs"])
    assert (chatted["message"]["content"], chatted["finish_reason"]) == ("The answer is 42", "length")
    assert [it["token"] for it in chatted["logprobs"]["content"]] == [" The", " answer", " is", " 42"]
    assert len(chatted["logprobs"]["content"][0]["top_logprobs"]) == 2


def test_whoever_ignores_the_end_gets_tokens_and_no_answer(server: RunningServer) -> None:
    body = server.post("/v1/completions", {"prompt": "17 + 25", "max_tokens": 9, "ignore_eos": True}).json()

    assert body["usage"]["completion_tokens"] == 9
    assert "42" not in body["choices"][0]["text"]
