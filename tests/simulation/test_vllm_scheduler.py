"""Continuous batching: who runs, who waits, and who has to give way."""

from cotune_simulation.vllm.memory import EngineSizes
from cotune_simulation.vllm.scheduler import Request, Scheduler

SIZES = EngineSizes(
    max_model_len=64,
    max_num_seqs=2,
    max_num_batched_tokens=48,
    block_size=16,
    kv_bytes_per_token=1,
    activation_bytes=0,
)


def request(prompt: int, output: int) -> Request:
    return Request(prompt, output, on_token=lambda _: None)


def run_to_the_end(scheduler: Scheduler) -> list[int]:
    """How many requests each step worked on."""
    sizes: list[int] = []
    while (step := scheduler.next_step()).work:
        sizes.append(len(step.work))
        scheduler.complete(step)
        assert len(sizes) < 1000, "no end"
    return sizes


def test_a_request_takes_a_step_for_its_prompt_and_one_for_each_further_token() -> None:
    scheduler = Scheduler(SIZES, blocks=8)
    only = request(20, 5)
    scheduler.add(only)
    assert run_to_the_end(scheduler) == [1] * 5
    assert only.generated == 5
    assert scheduler.usage == 0


def test_no_more_run_at_once_than_allowed() -> None:
    scheduler = Scheduler(SIZES, blocks=100)
    for _ in range(3):
        scheduler.add(request(4, 3))
    step = scheduler.next_step()
    assert (len(step.work), len(scheduler.waiting)) == (2, 1)
    scheduler.complete(step)
    assert sum(run_to_the_end(scheduler)) == 2 * 2 + 3


def test_a_long_prompt_is_computed_in_pieces() -> None:
    scheduler = Scheduler(SIZES, blocks=100)
    scheduler.add(request(60, 1))
    assert [scheduler.next_step().prompt_tokens] == [48]


def test_a_prompt_waits_until_its_blocks_are_free() -> None:
    scheduler = Scheduler(SIZES, blocks=2)
    scheduler.add(request(16, 1))
    scheduler.add(request(32, 1))
    step = scheduler.next_step()
    assert (len(step.work), len(scheduler.waiting)) == (1, 1)
    scheduler.complete(step)
    assert [taken.prompt_tokens for taken, _ in scheduler.next_step().work] == [32]


def test_the_last_one_gives_way_when_blocks_run_out_and_ends_all_the_same() -> None:
    scheduler = Scheduler(SIZES, blocks=3)
    first, second = request(15, 20), request(15, 20)
    scheduler.add(first)
    scheduler.add(second)
    run_to_the_end(scheduler)
    assert scheduler.preemptions >= 1
    assert (first.generated, second.generated) == (20, 20)
    assert scheduler.usage == 0


def test_a_request_whose_client_is_gone_leaves_no_blocks_behind() -> None:
    scheduler = Scheduler(SIZES, blocks=4)
    gone, waiting = request(40, 10), request(40, 10)
    scheduler.add(gone)
    scheduler.add(waiting)
    step = scheduler.next_step()
    scheduler.remove(gone)
    scheduler.remove(waiting)
    scheduler.complete(step)
    assert scheduler.usage == 0
    assert not scheduler.next_step().work
