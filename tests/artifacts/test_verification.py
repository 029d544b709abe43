"""Whatever is changed afterwards is found: a byte, a figure, an ancestor, a word in the cluster."""

import copy
from pathlib import Path
from typing import Any

import pytest
from cotune.api.trial import Measurement, TrialPhase
from cotune.artifacts.directory import DirectoryStore
from cotune.artifacts.making import make_record
from cotune.artifacts.record import Parent, TrialRecord, canonical_bytes, digest_of
from cotune.artifacts.verification import FaultKind, Verification, verify
from cotune.measurement.agent.contract import NodeReport, Tenant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.records import SPEC_DIGEST, as_resource, counted, ended, record, result

RECORD = record()
CONTENT = canonical_bytes(RECORD)
DIGEST = digest_of(CONTENT)


def stored(root: Path, *records: TrialRecord) -> DirectoryStore:
    store = DirectoryStore(root)
    for it in records:
        store.put(canonical_bytes(it))
    return store


def kinds(found: Verification) -> list[FaultKind]:
    return [it.kind for it in found.faults]


def figures(found: Verification) -> list[str]:
    assert set(kinds(found)) <= {FaultKind.WRONG_FIGURE}
    return [it.message for it in found.faults]


def test_what_is_as_it_was_holds(tmp_path: Path) -> None:
    found = verify(stored(tmp_path, RECORD), [as_resource(RECORD)])

    assert (found.holds, found.resources) == (True, 1)
    [only] = found.records
    assert (only.digest, only.trial, only.phase) == (DIGEST, "voice-lab/voice-1", TrialPhase.SUCCEEDED)
    # Three of latency and of the first token, two between tokens, the rate of errors, two of the card.
    assert only.recomputed == 11


@given(seed=st.integers(0, 1 << 32), requests=st.integers(1, 60), cards=st.integers(1, 50))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_probe_measures_is_computed_again_to_the_same_figures(
    tmp_path: Path, seed: int, requests: int, cards: int
) -> None:
    kept = record(said=result(seed, requests, cards))
    store = stored(tmp_path, kept)

    assert verify(store).faults == ()
    store.delete(digest_of(canonical_bytes(kept)))


@given(place=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_found(tmp_path: Path, place: int, bit: int) -> None:
    store = stored(tmp_path, RECORD)
    [file] = tmp_path.rglob("*.gz")
    changed = bytearray(CONTENT)
    changed[place] ^= 1 << bit
    file.write_bytes(changed)

    found = verify(store, [as_resource(RECORD)])

    assert kinds(found) == [FaultKind.DAMAGED]
    assert found.faults[0].subject == DIGEST


def test_a_cut_file_is_found(tmp_path: Path) -> None:
    store = stored(tmp_path, RECORD)
    [file] = tmp_path.rglob("*.gz")
    file.write_bytes(CONTENT[:100])

    assert kinds(verify(store)) == [FaultKind.DAMAGED]


def test_what_was_never_a_record_is_found(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put(b"something else")

    assert kinds(verify(store)) == [FaultKind.UNREADABLE]


def forged(metric: str, value: str | None, counts_too: bool = True) -> TrialRecord:
    """A record whose makers knew how to name it, with one figure that was not measured; None: it is left out."""

    def changed(them: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
        kept = tuple(it for it in them if it.metric != metric)
        return kept if value is None else (*kept, Measurement(metric=metric, value=value, samples=1))

    said = result()
    said = said.model_copy(update={"measurements": changed(said.measurements)})
    made = record(said=said)
    counts = counted(said) if counts_too else counted(result())
    return made.model_copy(update={"measurements": counts})


@pytest.mark.parametrize(
    "metric",
    ["judge.latency.p50", "judge.latency.p95", "judge.ttft.p99", "judge.itl.p95", "judge.errorRate", "gpu.usedMiB"],
)
@pytest.mark.parametrize("value", ["1", None])
def test_a_figure_that_the_raw_values_do_not_give_is_found_though_the_digest_is_right(
    tmp_path: Path, metric: str, value: str | None
) -> None:
    said = "1 of 1 samples" if value else "absent"

    [fault] = figures(verify(stored(tmp_path, forged(metric, value))))

    assert fault.startswith(f"{metric} is {said}, and the raw values give ")


def test_a_percentile_without_a_histogram_is_found(tmp_path: Path) -> None:
    assert figures(verify(stored(tmp_path, forged("stt.latency.p95", "1")))) == [
        "stt.latency.p95 is stated, and the raw values that it rests on are not there"
    ]


@pytest.mark.parametrize(("metric", "value"), [("judge.throughput", "99"), ("judge.wer", "0"), ("gpu.freeMiB", None)])
def test_a_figure_that_counts_otherwise_than_the_probe_said_is_found(
    tmp_path: Path, metric: str, value: str | None
) -> None:
    [fault] = figures(verify(stored(tmp_path, forged(metric, value, counts_too=False))))

    assert fault.startswith(f"{metric} counts as ")


def test_a_stream_whose_summary_is_not_its_histograms_is_found(tmp_path: Path) -> None:
    said = result()
    first, second = said.streams
    swapped = first.model_copy(update={"latency": second.latency})

    made = record(said=said.model_copy(update={"streams": (swapped, second)}))

    assert figures(verify(stored(tmp_path, made))) == ["stream 0: the summary of latency is not that of its histogram"]


def test_a_histogram_that_is_none_is_found(tmp_path: Path) -> None:
    said = result()
    first, second = said.streams
    broken = first.histograms[0].model_copy(update={"encoded": first.histograms[0].encoded[:40]})
    streams = (first.model_copy(update={"histograms": (broken, *first.histograms[1:])}), second)

    found = figures(verify(stored(tmp_path, record(said=said.model_copy(update={"streams": streams})))))

    assert "stream 0: latency: no histogram" in found[0]


def test_measurements_without_a_result_are_found(tmp_path: Path) -> None:
    made = RECORD.model_copy(update={"result": None})

    assert figures(verify(stored(tmp_path, made))) == [
        "it has measurements, and no result of a probe from which they could come"
    ]


def test_of_thinned_samples_the_mean_is_not_asked_for(tmp_path: Path) -> None:
    found = verify(stored(tmp_path, record(said=result(cards=2_500))))

    assert found.holds
    assert found.records[0].recomputed == 10


def family(root: Path) -> tuple[DirectoryStore, str]:
    """A parent and its child; the parent's digest."""
    parent = digest_of(canonical_bytes(RECORD))
    return stored(root, RECORD, record("voice-2", parents=[Parent(trial="voice-1", record=parent)])), parent


def test_lineage_that_can_be_followed_holds(tmp_path: Path) -> None:
    assert verify(family(tmp_path)[0]).holds


def test_a_missing_parent_is_found(tmp_path: Path) -> None:
    store, parent = family(tmp_path)
    store.delete(parent)

    [fault] = verify(store).faults

    assert fault.kind is FaultKind.PARENT_MISSING
    assert fault.message == f"the record {parent} of its parent voice-1 is not there"


def test_a_parent_without_a_record_is_found(tmp_path: Path) -> None:
    found = verify(stored(tmp_path, record("voice-2", parents=[Parent(trial="voice-1")])))

    assert [(it.kind, it.message) for it in found.faults] == [
        (FaultKind.PARENT_MISSING, "its parent voice-1 has no record")
    ]


def test_another_trials_record_is_no_parent(tmp_path: Path) -> None:
    child = record("voice-2", parents=[Parent(trial="voice-0", record=DIGEST)])

    [fault] = verify(stored(tmp_path, RECORD, child)).faults

    assert fault.message == "the record of its parent voice-0 is that of voice-1"


def changed(path: str, value: Any) -> dict[str, Any]:
    """The trial's resource with one field changed."""
    body = copy.deepcopy(as_resource(RECORD))
    *parents, last = path.split(".")
    node: Any = body
    for key in parents:
        node = node[int(key)] if key.isdigit() else node[key]
    node[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("status.measurements.0.value", "1", "gpu.freeMiB is 1 of 30 samples, and 7990.333333 of 30 samples in its"),
        ("status.measurements.0.samples", 1, "gpu.freeMiB is 7990.333333 of 1 samples"),
        ("status.measurements", [], "gpu.freeMiB is absent"),
        ("status.phase", "Invalid", "phase is Invalid, and Succeeded in its record"),
        ("status.reason", "Throttled", "reason is Throttled"),
        ("status.artifact.bytes", 1, "size is 1"),
        ("status.servers", [{"component": "judge", "version": "0.26"}], "servers is "),
        ("spec.candidate.0.value", "0.60", "candidate is "),
        ("spec.repeat", 1, "repeat is 1"),
        ("spec.parents", ["voice-0"], "parents is "),
        ("metadata.uid", "another", "uid is another"),
        ("metadata.annotations", {}, "spec digest is "),
        ("status.measurements.0.value", "much", "cannot be read: measurements.0.value"),
    ],
)
def test_a_trial_that_says_something_else_than_its_record_is_found(
    tmp_path: Path, path: str, value: Any, words: str
) -> None:
    found = verify(stored(tmp_path, RECORD), [changed(path, value)])

    assert found.faults[0].kind is FaultKind.DIFFERS
    assert found.faults[0].subject.startswith("GpuTrial voice-lab/voice-1")
    assert found.faults[0].message.startswith(words)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_trial_whose_record_is_gone_is_found_unless_that_is_allowed(tmp_path: Path, allowed: bool) -> None:
    store = stored(tmp_path, record("voice-2"))

    found = verify(store, [as_resource(RECORD)], allow_removed=allowed)

    assert (found.holds, found.removed, kinds(found)) == (allowed, allowed, [] if allowed else [FaultKind.MISSING])


def test_a_trial_without_a_record_is_found_with_the_operators_reason(tmp_path: Path) -> None:
    body = as_resource(RECORD)
    del body["status"]["artifact"]
    body["status"]["conditions"] = [
        {
            "type": "ArtifactStored",
            "status": "False",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-11-27T12:00:00Z",
            "reason": "StoreUnavailable",
            "message": "No space left on device",
        }
    ]

    [fault] = verify(stored(tmp_path, RECORD), [body]).faults

    assert (fault.kind, fault.message) == (FaultKind.NO_RECORD, "StoreUnavailable: No space left on device")


@pytest.mark.parametrize("phase", ["Measuring", "Skipped"])
def test_a_trial_that_was_not_run_to_its_end_needs_no_record(tmp_path: Path, phase: str) -> None:
    body = as_resource(RECORD) | {"status": {"phase": phase}}

    assert verify(stored(tmp_path, RECORD), [body]).holds


def test_a_failed_trial_with_its_logs_holds(tmp_path: Path) -> None:
    made = make_record(ended(phase=TrialPhase.FAILED, logs={"judge": "CUDA out of memory"}))

    assert verify(stored(tmp_path, made), [as_resource(made)]).holds


def profile(**provenance: str) -> dict[str, Any]:
    origin = {"experiment": "voice-lab/voice", "trial": "voice-1", "digest": SPEC_DIGEST, "artifact": DIGEST}
    return {
        "kind": "GpuProfile",
        "metadata": {"namespace": "voice-lab", "name": "voice-abc"},
        "spec": {
            "changes": [{"component": "stt", "env": "SIZE", "to": "tiny"}],
            "startOrder": ["stt"],
            "provenance": origin | provenance,
            "rollout": {"stages": [{"name": "production", "namespace": "voice-prod"}]},
        },
    }


def test_a_profile_that_comes_from_its_record_holds(tmp_path: Path) -> None:
    assert verify(stored(tmp_path, RECORD), [profile()]).holds


@pytest.mark.parametrize(
    ("field", "value"),
    [("experiment", "voice-lab/other"), ("trial", "voice-9"), ("digest", f"sha256:{'6' * 64}")],
)
def test_a_profile_that_names_another_origin_than_its_record_is_found(tmp_path: Path, field: str, value: str) -> None:
    [fault] = verify(stored(tmp_path, RECORD), [profile(**{field: value})]).faults

    assert (fault.kind, fault.subject) == (FaultKind.DIFFERS, "GpuProfile voice-lab/voice-abc")
    assert fault.message.startswith(f"provenance.{field} is {value}, and ")


def test_a_profile_whose_record_is_gone_is_found(tmp_path: Path) -> None:
    assert kinds(verify(stored(tmp_path, record("voice-2")), [profile()])) == [FaultKind.MISSING]


def test_a_profile_that_names_no_record_and_other_kinds_are_passed_over(tmp_path: Path) -> None:
    without = profile()
    del without["spec"]["provenance"]["artifact"]

    assert verify(stored(tmp_path, RECORD), [without, {"kind": "ConfigMap"}]).holds


def with_memory(value: str, node: NodeReport | None) -> TrialRecord:
    """A record in which speech to text held so much of the card."""
    assert RECORD.result is not None
    held = Measurement(metric="stt.gpuMemoryMiB", value=value, samples=20)
    return RECORD.model_copy(
        update={
            "measurements": (*RECORD.measurements, held),
            "result": RECORD.result.model_copy(update={"node": node}),
        }
    )


SEEN = NodeReport(
    node="lab",
    card="GPU-1",
    readings=20,
    tenants=(Tenant(pod="uid-stt", processes=(), least_mib=1_500, most_mib=1_536.25),),
)


@pytest.mark.parametrize(
    ("value", "node", "is_right"),
    [
        ("1536.25", SEEN, True),
        ("0", SEEN, True),
        ("1536.5", SEEN, False),
        ("1536.25", None, False),
    ],
)
def test_what_a_component_held_is_what_the_nodes_agent_saw(
    tmp_path: Path, value: str, node: NodeReport | None, is_right: bool
) -> None:
    found = verify(stored(tmp_path, with_memory(value, node)))

    assert [it.startswith("stt.gpuMemoryMiB is") for it in figures(found)] == ([] if is_right else [True])
