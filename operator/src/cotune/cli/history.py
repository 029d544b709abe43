"""`cotune history PROFILE`: what the namespaces of its stages had before and after each change."""

import argparse
from collections.abc import Mapping, Sequence, Set

from cotune.api.profile import AskedOutcome, ProfilePhase, StageStatus
from cotune.cli.session import DONE, Session, add_cluster_arguments, with_session
from cotune.cluster.kinds import CONTROLLER_REVISION
from cotune.cluster.objects import Object
from cotune.cluster.revisions import ANNOTATION_PROFILE, LABELS, is_genuine, key, stored_revision
from cotune.rollout.to_revision import stood_ready

_HEADER = ("NAMESPACE", "REVISION", "NAME", "CREATED", "FOR", "READY", "VALUES", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("profile", metavar="PROFILE", help="its name")
    add_cluster_arguments(parser)
    parser.set_defaults(run=with_session(_history))


async def _history(session: Session, options: argparse.Namespace) -> int:
    found = await session.profile(options.profile)
    states = {it.name: it for it in found.status.stages}
    rows: list[Sequence[str]] = [_HEADER]
    for stage in found.spec.rollout.stages:
        state = states.get(stage.name)
        marks: Mapping[str | None, str] = {}
        if state is not None:
            is_asked = state.asked is not None and state.asked.outcome is AskedOutcome.TAKEN
            way_back = "what it was taken to, as asked for" if is_asked else "what it goes back to"
            marks = {state.revision: "what it applies", state.last_good_revision: way_back}
        listed = await session.objects.list(CONTROLLER_REVISION, stage.namespace, LABELS)
        revisions = [it for it in listed if is_genuine(it)]
        stored = [stored_revision(it) for it in revisions]
        anywhere = StageStatus(name=stage.name, phase=ProfilePhase.PENDING)
        ready = {it.name for it in stored if stood_ready(it, stored, state or anywhere)}
        rows += [_row(it, ready, marks) for it in sorted(revisions, key=lambda it: int(it["revision"]))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return DONE


def _row(revision: Object, ready: Set[str], marks: Mapping[str | None, str]) -> Sequence[str]:
    metadata = revision["metadata"]
    values = [
        f"{key(it)}:{name}={'(its own)' if value is None else value}"
        for it in revision["data"]["workloads"]
        for name, value in it["values"].items()
    ]
    return (
        str(metadata["namespace"]),
        str(revision["revision"]),
        str(metadata["name"]),
        str(metadata["creationTimestamp"]),
        str(metadata.get("annotations", {}).get(ANNOTATION_PROFILE, "")),
        "yes" if metadata["name"] in ready else "-",
        " ".join(values),
        marks.get(str(metadata["name"]), ""),
    )
