"""`python -m cotune.measurement.record_reference URL FILE`: what a model that is well answers, as a reference.

FILE has JSON lines with `prompt` or (`--chat`) `messages`, and `maxTokens`; what is printed is a file for `qualityRef`.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from cotune.measurement.clients import AnswerError
from cotune.measurement.quality import ChosenToken, Question
from cotune.measurement.quality_client import QualityClient
from cotune.measurement.requests import WorkloadError, read_lines


def main() -> int:
    """Exit code 1 with one line when a question has no answer, 2 for a file that makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m cotune.measurement.record_reference", description=__doc__)
    parser.add_argument("url", help="of the server, such as http://127.0.0.1:8000")
    parser.add_argument("file", type=Path)
    parser.add_argument("--chat", action="store_true", help="ask /v1/chat/completions")
    options = parser.parse_args()
    try:
        questions = read_lines(options.file, Question)
        if any(bool(it.prompt) == bool(it.messages) for it in questions):
            raise WorkloadError(f"{options.file}: every line has either prompt or messages")
        if not options.chat and any(it.messages for it in questions):
            raise WorkloadError(f"{options.file}: messages are for --chat")
    except WorkloadError as error:
        print(f"record: error: {error}", file=sys.stderr)
        return 2
    try:
        lines = asyncio.run(recorded(options.url.rstrip("/"), questions, chat=options.chat))
    except (AnswerError, aiohttp.ClientError, TimeoutError) as error:
        print(f"record: error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


async def recorded(url: str, questions: Sequence[Question], *, chat: bool) -> list[str]:
    """The lines of the reference, each question asked once, one after the other.

    Raises:
        AnswerError, aiohttp.ClientError, TimeoutError: a question has no answer.
    """
    lines: list[str] = []
    async with aiohttp.ClientSession() as session:
        client = QualityClient(session, url, questions, chat)
        for question in questions:
            reply = await client.ask(question, client.body(question, shows_tokens=True))
            tokens = tuple(ChosenToken(token=it.token, logprob=it.logprob) for it in reply.tokens)
            known = Question(prompt=question.prompt, messages=question.messages, logprobs=tokens)
            lines.append(known.model_dump_json(by_alias=True, exclude_defaults=True))
    return lines


if __name__ == "__main__":
    sys.exit(main())
