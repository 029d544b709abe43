"""Everything that the load is made of, read before it begins."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cotune.api.corpus import Noise
from cotune.api.workload import ArrivalType, Protocol
from cotune.measurement.archive import fetch, shown, unpacked
from cotune.measurement.arrivals import schedule
from cotune.measurement.contract import ProbeConfiguration, ProbeStream
from cotune.measurement.corpus import Clip, corpus_of, read_corpus
from cotune.measurement.quality import Question, due_times, read_questions
from cotune.measurement.requests import Recorded, Sample, read_dataset, read_trace


@dataclass(frozen=True)
class Inputs:
    """The files that the load is made of; all but corpora by where they lie."""

    corpora: Mapping[int, Sequence[Clip]] = field(default_factory=dict[int, Sequence[Clip]])
    """By the stream's place in the configuration: several may have one corpus and different noise."""
    traces: Mapping[str, Sequence[Recorded]] = field(default_factory=dict[str, Sequence[Recorded]])
    datasets: Mapping[str, Sequence[Sample]] = field(default_factory=dict[str, Sequence[Sample]])
    questions: Mapping[str, Sequence[Question]] = field(default_factory=dict[str, Sequence[Question]])


def read_inputs(configuration: ProbeConfiguration) -> Inputs:
    """All that is mounted, so that what is missing is known before anything is waited for.

    Raises:
        ValueError: a stream says too little, or a file is not there (`CorpusError`, `WorkloadError`).
    """
    streams = configuration.streams
    for stream in streams:
        _refuse_incomplete(stream)
    known = {it.component for it in streams}
    for loaded in configuration.interference.rounds if configuration.interference is not None else ():
        if unknown := [it for it in loaded if it not in known]:
            raise ValueError(f"interference: no stream for {', '.join(unknown)}")
    datasets = {it.dataset: read_dataset(Path(it.dataset)) for it in streams if it.dataset is not None}
    questions = {it.questions: read_questions(Path(it.questions)) for it in streams if it.questions is not None}
    for stream in streams:
        if stream.questions is not None:
            due_times(len(questions[stream.questions]), configuration.duration_seconds)
        if stream.protocol is not Protocol.OPENAI_COMPLETIONS:
            continue
        for path, lines in (
            (stream.dataset, datasets.get(stream.dataset or "", ())),
            (stream.questions, questions.get(stream.questions or "", ())),
        ):
            if any(it.messages for it in lines):
                raise ValueError(f"{stream.component}: {path}: messages are for OpenAIChat, not for completions")
    return Inputs(
        {
            number: _heard_under(read_corpus(Path(it.corpus)), it.noise)
            for number, it in enumerate(streams)
            if it.corpus is not None
        },
        {it.trace: read_trace(Path(it.trace)) for it in streams if it.trace is not None},
        datasets,
        questions,
    )


async def with_fetched(inputs: Inputs, configuration: ProbeConfiguration) -> Inputs:
    """The inputs with the corpora that lie elsewhere.

    Raises:
        CorpusError: one cannot be fetched, or is not what was asked for.
    """
    fetched: dict[int, Sequence[Clip]] = {}
    for number, stream in enumerate(configuration.streams):
        if stream.corpus_url is not None:
            archive = await fetch(stream.corpus_url)
            fetched[number] = await asyncio.to_thread(_unpacked, archive, shown(stream.corpus_url.url), stream.noise)
    return replace(inputs, corpora={**inputs.corpora, **fetched})


def _unpacked(archive: bytes, where: str, noise: Noise | None) -> Sequence[Clip]:
    files = unpacked(archive, where)
    return _heard_under(corpus_of(files.__getitem__, where), noise)


def _heard_under(clips: Sequence[Clip], noise: Noise | None) -> Sequence[Clip]:
    if noise is None:
        return clips
    # Not above: numpy is a fifth of a probe's start, and every trial waits for one.
    from cotune.measurement.noise import noisy

    return noisy(clips, noise)


def _refuse_incomplete(stream: ProbeStream) -> None:
    schedule(stream.arrivals, 0.0, 0)
    if stream.arrivals.type is ArrivalType.CLOSED_LOOP and not stream.arrivals.concurrency:
        raise ValueError(f"{stream.component}: arrivals of type ClosedLoop need concurrency")
    if stream.arrivals.type is ArrivalType.TRACE and stream.trace is None:
        raise ValueError(f"{stream.component}: arrivals of type Trace need a trace")
    if stream.protocol.is_language_model and (
        stream.output_tokens is None or (stream.prompt_tokens is None and stream.dataset is None)
    ):
        raise ValueError(f"{stream.component}: {stream.protocol} needs promptTokens and outputTokens")
    if stream.protocol is Protocol.OPENAI_TRANSCRIPTIONS and stream.corpus is None and stream.corpus_url is None:
        raise ValueError(f"{stream.component}: OpenAITranscriptions needs a corpus")
