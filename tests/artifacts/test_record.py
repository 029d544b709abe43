import gzip
import json
import zlib
from dataclasses import replace

import pytest
from cotune.api.trial import TrialPhase
from cotune.artifacts.making import make_record
from cotune.artifacts.record import LARGEST_RECORD, RecordError, canonical_bytes, digest_of, parse_record
from hypothesis import given
from hypothesis import strategies as st
from support.records import CARD, POD, SPEC_DIGEST, ended, record, result


def test_a_record_is_read_back_as_it_was_written() -> None:
    kept = record()

    assert parse_record(canonical_bytes(kept)) == kept


def test_the_same_trial_gives_the_same_bytes() -> None:
    assert canonical_bytes(record()) == canonical_bytes(record())


def test_the_bytes_are_json_in_gzip_without_a_time_or_a_name() -> None:
    content = canonical_bytes(record())

    assert content[3:8] == bytes(5), "flags and time"
    assert json.loads(gzip.decompress(content))["trial"] == "voice-1"


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_whatever_a_server_logs_can_be_kept(said: str) -> None:
    kept = make_record(ended(phase=TrialPhase.FAILED, logs={"judge": said}))

    assert [it.text for it in parse_record(canonical_bytes(kept)).logs] == [said.encode(errors="replace").decode()]


def test_a_record_names_what_was_run_and_on_what() -> None:
    kept = record()
    [pod] = kept.manifest.pods
    [container] = pod.containers

    assert (container.image, container.image_id) == ("example/vllm:1", "example/vllm@sha256:1")
    assert (container.args, container.limits) == (("--model=x",), {"nvidia.com/gpu": "1"})
    assert (pod.digest, pod.cards) == ("sha256:pod", (CARD,))
    assert kept.manifest.node is not None
    assert kept.manifest.node.kubelet_version == "v1.36.1"
    assert kept.manifest.card == result().card_identity
    assert kept.lineage.spec_digest == SPEC_DIGEST


def test_of_a_variable_that_comes_from_elsewhere_only_its_source_is_kept() -> None:
    [container] = record().manifest.pods[0].containers

    assert {it.name: (it.value, it.source) for it in container.env} == {
        "JUDGE_MEMORY": ("0.50", None),
        "EMPTY": ("", None),
        "TOKEN": (None, "secretKeyRef token/key"),
        "NODE": (None, "fieldRef spec.nodeName"),
    }
    assert container.env_from == ("secretRef more", "configMapRef plain as A_*")


def test_a_trial_without_pods_and_without_a_result_has_a_record() -> None:
    kept = make_record(ended(phase=TrialPhase.INVALID))

    assert (kept.result, kept.manifest.card, kept.measurements) == (None, None, ())
    assert parse_record(canonical_bytes(kept)) == kept


def test_a_pod_without_a_status_never_ran() -> None:
    unscheduled = {key: value for key, value in POD.items() if key != "status"}
    made = make_record(ended())
    bare = make_record(replace(ended(), pods=[unscheduled]))

    assert made.manifest.pods[0].containers[0].image_id
    assert bare.manifest.pods[0].containers[0].image_id == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        canonical_bytes(record())[:-9],
        gzip.compress(b"no json"),
        gzip.compress(b'{"format": "cotune.dev/trial-record/v2"}'),
    ],
)
def test_what_is_no_record_is_told(content: bytes) -> None:
    with pytest.raises(RecordError):
        parse_record(content)


def test_a_few_bytes_that_promise_gigabytes_are_not_unpacked() -> None:
    packing = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    bomb = b"".join([*(packing.compress(zeros) for _ in range(LARGEST_RECORD // len(zeros) + 1)), packing.flush()])

    with pytest.raises(RecordError, match="larger than any record"):
        parse_record(bomb)


def test_a_digest_is_the_sha_256_of_the_bytes() -> None:
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
