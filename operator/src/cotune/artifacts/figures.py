"""Whether the figures of a record follow from the raw values in it: they are computed again, as the probe does."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from cotune.api.trial import Measurement
from cotune.artifacts.record import TrialRecord
from cotune.measurement.agent.contract import Tenant
from cotune.measurement.contract import ProbeResult, RawHistogram, Spread, StreamReport
from cotune.measurement.latency import LatencyRecorder
from cotune.measurement.stated import PERCENTILES, measurement, percentiles

_FROM_LOGS = (".kvCache.tokens", ".kvCache.concurrency", ".restarts", ".startup")
"""The operator knows these better than the probe."""
_OF_THE_AGENT = ".gpuMemoryMiB"
"""The operator takes it from what the node's agent has seen, for only it knows whose the pods are."""
_OF_THE_STACK = frozenset({"stability", "gpu.oomEvents"})
_HISTOGRAM_OF = {"latency": "latency", "ttft": "firstToken", "itl": "betweenTokens"}
"""Metric to the histogram that it is computed from."""


class Recomputed:
    """The figures of one record, computed again."""

    def __init__(self, record: TrialRecord) -> None:
        self.faults: list[str] = []
        """What does not follow; each names the metric and both figures."""
        self.metrics = 0
        """How many of the measurements have been computed again."""
        if record.result is None:
            if record.measurements:
                self.faults.append("it has measurements, and no result of a probe from which they could come")
            return
        said = {it.metric: it for it in record.result.measurements}
        expected = {it.metric: it for it in self._all(record.result)}
        for metric, it in expected.items():
            self.metrics += 1
            if said.get(metric) != it:
                self.faults.append(f"{metric} is {_words(said.get(metric))}, and the raw values give {_words(it)}")
        self.faults += [
            f"{it} is stated, and the raw values that it rests on are not there"
            for it in said
            if _rests_on_a_histogram(it) and it not in expected
        ]
        self._judged(record, said)
        self._of_the_agent(record)

    def _all(self, result: ProbeResult) -> Iterator[Measurement]:
        by_component: defaultdict[str, list[StreamReport]] = defaultdict(list)
        for it in result.streams:
            by_component[it.component].append(it)
            self._stream(it)
        for component, streams in by_component.items():
            for metric, histogram in _HISTOGRAM_OF.items():
                yield from self._percentiles(component, metric, histogram, streams)
            if requests := sum(it.requests for it in streams):
                errors = sum(error.count for it in streams for error in it.errors)
                yield measurement(f"{component}.errorRate", errors / requests, requests)
        yield from self._card(result)

    def _percentiles(
        self, component: str, quantity: str, name: str, streams: Sequence[StreamReport]
    ) -> Iterator[Measurement]:
        decoded = [self._decoded(it, raw) for it in streams for raw in it.histograms if raw.name == name]
        found = LatencyRecorder.merged(it for it in decoded if it is not None).percentiles()
        return iter(()) if found is None else percentiles(component, quantity, found)

    def _stream(self, stream: StreamReport) -> None:
        """The summary of one stream beside its own histograms."""
        for name, stated in (("latency", stream.latency), ("scheduleError", stream.schedule_error)):
            decoded = [self._decoded(stream, it) for it in stream.histograms if it.name == name]
            found = decoded[0].percentiles() if decoded and decoded[0] is not None else None
            if _summary(stated) != (None if found is None else (found.p50, found.p95, found.p99, found.samples)):
                self.faults.append(f"stream {stream.stream}: the summary of {name} is not that of its histogram")

    def _card(self, result: ProbeResult) -> Iterator[Measurement]:
        samples, card = result.card_samples, result.conduct.card if result.conduct is not None else None
        if samples is None or card is None or not samples.used_mib:
            return
        yield measurement("gpu.usedMiB", max(samples.used_mib), card.readings)
        if len(samples.utilization) == card.readings:  # Of thinned ones the mean is another.
            yield measurement("gpu.utilization", fmean(samples.utilization), card.readings)

    def _judged(self, record: TrialRecord, said: "dict[str, Measurement]") -> None:
        """What counts is what the probe said, but for what logs and Kubernetes say better."""
        if not record.measurements:
            return
        counted = {it.metric: it for it in record.measurements}
        operators = (*_FROM_LOGS, _OF_THE_AGENT)
        theirs = {it for it in counted.keys() | said.keys() if it.endswith(operators) or it in _OF_THE_STACK}
        self.faults += [
            f"{it} counts as {_words(counted.get(it))}, and the probe said {_words(said.get(it))}"
            for it in sorted((counted.keys() | said.keys()) - theirs)
            if counted.get(it) != said.get(it)
        ]

    def _of_the_agent(self, record: TrialRecord) -> None:
        """What a component held is what the agent saw of one of the pods; one without a process there held nothing."""
        node = record.result.node if record.result is not None else None
        held = {0.0, *_most_by_pod(node.tenants)} if node is not None else set[float]()
        for it in record.measurements:
            if it.metric.endswith(_OF_THE_AGENT):
                self.metrics += 1
                if round(float(it.value), 3) not in held:
                    self.faults.append(f"{it.metric} is {_words(it)}, and the node's agent saw no pod with so much")

    def _decoded(self, stream: StreamReport, raw: RawHistogram) -> LatencyRecorder | None:
        try:
            return LatencyRecorder.decoded(raw.encoded)
        except ValueError as error:
            self.faults.append(f"stream {stream.stream}: {raw.name}: {error}")
            return None


def _most_by_pod(tenants: Sequence[Tenant]) -> Iterator[float]:
    most: defaultdict[str, float] = defaultdict(float)
    for it in tenants:
        most[it.pod or ",".join(it.containers)] += it.most_mib
    return (round(it, 3) for it in most.values())


def _rests_on_a_histogram(metric: str) -> bool:
    name, _, percentile = metric.rpartition(".")
    return percentile in PERCENTILES.get(name.rpartition(".")[2], ())


def _summary(spread: Spread | None) -> "tuple[float, float, float, int] | None":
    return None if spread is None else (spread.p50, spread.p95, spread.p99, spread.samples)


def _words(found: Measurement | None) -> str:
    return "absent" if found is None else f"{found.value} of {found.samples} samples"
