"""The probe's pod: the first of a trial. It sees the card drained, holds its share of it, and loads the stack."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.api.experiment import Component, ExperimentSpec
from cotune.api.workload import Protocol, Stream
from cotune.measurement.agent.contract import NODE_VARIABLE
from cotune.measurement.contract import (
    CONFIGURATION_VARIABLE,
    DRAINED_PATH,
    HEALTH_PORT,
    LARGEST_ALLOCATION,
    ProbeConfiguration,
    ProbeInterference,
    ProbeStream,
)
from cotune.trials.interference import rounds
from cotune.trials.placement import GPU_RESOURCE
from cotune.trials.probe_files import ProbeFiles
from cotune.trials.render import Manifest, TrialIdentity, child_metadata, on_node, with_digest

PROBE = "probe"
"""The probe's place in the label of components; no component may have this name."""


@dataclass(frozen=True)
class ProbeImage:
    """The image of the probe, as the operator's installation names it."""

    name: str
    pull_policy: str


def probe_pod(
    trial: TrialIdentity,
    spec: ExperimentSpec,
    node: str,
    image: ProbeImage,
    node_agent: str | None = None,
    *,
    is_exclusive: bool = False,
    interference: bool = False,
) -> Manifest:
    """The probe of one trial on the trial's node.

    Args:
        trial: whose it is.
        spec: the experiment.
        node: the trial's.
        image: of the probe.
        node_agent: host name and port behind which the agents of all nodes are found; None: there are none.
        is_exclusive: the card has no shares: the service has it as a whole, and the probe only watches it.
        interference: whether it measures interference after the window.
    """
    files = ProbeFiles.of(spec.workload)
    share = {GPU_RESOURCE: "1"} if spec.gpu is not None and not is_exclusive else {}
    # Without a share the runtime is asked for the card by name; the trial holds the Lease of it all the same.
    card = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}] if spec.gpu is not None and is_exclusive else []
    # NVML is in what the runtime mounts by default, CUDA's own library is not everywhere.
    capabilities = "compute,utility" if _asks_for_largest(spec) else "utility" if card else ""
    driver = [{"name": "NVIDIA_DRIVER_CAPABILITIES", "value": capabilities}] if capabilities else []
    node_name = {"name": NODE_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    variables = [*card, *([node_name] if node_agent else []), *driver]
    container = probe_container(image, configuration(trial, spec, node_agent, interference), files, variables, share)
    return with_digest(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": child_metadata(trial, PROBE) | {"annotations": {}},
            "spec": on_node(confined(container, files), node),
        }
    )


def probe_container(
    image: ProbeImage,
    asked: ProbeConfiguration,
    files: ProbeFiles,
    variables: Sequence[Manifest] = (),
    share: Mapping[str, str] | None = None,
) -> Manifest:
    """The probe's only container.

    Args:
        image: of the probe.
        asked: what it does.
        files: what it reads.
        variables: further ones of its environment.
        share: of a card, as a container asks for it; None: it has none.
    """
    share = share or {}
    return {
        "name": PROBE,
        "image": image.name,
        "imagePullPolicy": image.pull_policy,
        "env": [
            {"name": CONFIGURATION_VARIABLE, "value": asked.model_dump_json(by_alias=True, exclude_none=True)},
            *variables,
        ],
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        "readinessProbe": {"httpGet": {"path": DRAINED_PATH, "port": HEALTH_PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi", **share}, "limits": dict(share)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": files.mounts(),
    }


def confined(container: Manifest, files: ProbeFiles) -> Manifest:
    """The specification of a probe's pod, wherever it runs: Pod Security `restricted`."""
    return {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": files.volumes(),
        "terminationGracePeriodSeconds": 5,
    }


def seed_of(experiment: str) -> int:
    """The seed of the load: the experiment's, so that all of its candidates meet the same arrivals."""
    return zlib.crc32(experiment.encode())


def configuration(
    trial: TrialIdentity, spec: ExperimentSpec, node_agent: str | None = None, interference: bool = False
) -> ProbeConfiguration:
    """What the probe of a trial does; with `interference` also after the window."""
    asked = spec.workload.interference if interference else None
    files = ProbeFiles.of(spec.workload)
    components = {it.name: it for it in spec.stack.components}
    return ProbeConfiguration(
        gpu=spec.gpu is not None,
        largest_allocation=True if _asks_for_largest(spec) else None,
        node_agent=node_agent if spec.gpu is not None else None,
        seed=seed_of(trial.experiment),
        warmup_seconds=spec.workload.warmup_seconds,
        duration_seconds=spec.workload.duration_seconds,
        cooldown_seconds=spec.workload.cooldown_seconds,
        streams=tuple(_stream(trial, it, components[it.component], files) for it in spec.workload.streams),
        interference=ProbeInterference(
            duration_seconds=asked.duration_seconds, warmup_seconds=asked.warmup_seconds, rounds=rounds(spec)
        )
        if asked is not None
        else None,
    )


def _asks_for_largest(spec: ExperimentSpec) -> bool:
    """Whether an objective or a constraint names it: it disturbs, so it is not tried for nothing."""
    return LARGEST_ALLOCATION in {it.metric for it in (*spec.objectives, *spec.constraints)}


def _stream(trial: TrialIdentity, stream: Stream, component: Component, files: ProbeFiles) -> ProbeStream:
    host = child_metadata(trial, component.name)["name"]
    return probe_stream(stream, component.protocol, host, component.port, files)


def probe_stream(stream: Stream, protocol: Protocol, host: str, port: int, files: ProbeFiles) -> ProbeStream:
    """A stream as the probe is told of it, with the address of the service."""
    is_language_model = protocol.is_language_model
    corpus = stream.corpus_ref if protocol is Protocol.OPENAI_TRANSCRIPTIONS else None
    return ProbeStream(
        component=stream.component,
        protocol=protocol,
        host=host,
        port=port,
        arrivals=stream.arrivals,
        prompt_tokens=stream.prompt_tokens,
        output_tokens=stream.output_tokens,
        length_spread=float(stream.length_spread or 0),
        shared_prefix_tokens=stream.shared_prefix_tokens,
        trace=files.file(stream.arrivals.trace_ref),
        dataset=files.file(stream.dataset_ref) if is_language_model else None,
        questions=files.file(stream.quality_ref) if is_language_model else None,
        timeout_seconds=stream.timeout_seconds,
        warmup_seconds=stream.warmup_seconds,
        corpus=files.corpus(corpus),
        corpus_url=corpus.url if corpus is not None else None,
        noise=corpus.noise if corpus is not None else None,
        path=stream.path or "/",
    )
