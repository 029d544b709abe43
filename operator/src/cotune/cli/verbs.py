"""`cotune approve | pause | resume | abort | retry | rollback PROFILE`: a person's word in a rollout.

Each is a write to `spec.rollout`, with the rights of who runs it; a commit of the same fields does the same.
"""

import argparse
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from cotune.api.profile import Rollout
from cotune.cli.session import DONE, CommandError, ReadProfile, Session, add_cluster_arguments, with_session
from cotune.cluster.kinds import PROFILE
from cotune.cluster.objects import ConflictError
from cotune.cluster.revisions import Revisions
from cotune.cluster.workloads import Workloads
from cotune.rollout.state import Revision
from cotune.rollout.to_revision import completed, is_present
from cotune.rollout.verbs import (
    Edit,
    NotNowError,
    abort,
    approve,
    begun_stage,
    find_revision,
    pause,
    resume,
    retry,
    to_revision,
)

MANAGER = "kubectl-cotune"

_ATTEMPTS = 5

_Verb = Callable[[ReadProfile, argparse.Namespace], Edit]
_Decision = Callable[[Session, ReadProfile, argparse.Namespace], Awaitable[Edit]]

_VERBS: dict[str, tuple[str, _Verb]] = {
    "approve": (
        "let a stage with approval Manual begin",
        lambda found, options: approve(found.spec, found.status, options.stage),
    ),
    "pause": ("let no further stage begin", lambda found, _: pause(found.spec)),
    "resume": ("let stages begin again, after a pause or an abort", lambda found, _: resume(found.spec)),
    "abort": ("take the stage in progress back", lambda found, _: abort(found.spec, found.status)),
    "retry": ("start the stage that was taken back anew", lambda found, _: retry(found.spec, found.status)),
}


class _Commands(Protocol):
    def add_parser(self, name: str, **kwargs: Any) -> argparse.ArgumentParser: ...


def add_commands(commands: _Commands) -> None:
    """Declare one command for each verb."""
    for name, (told, verb) in _VERBS.items():
        parser = commands.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.")
        parser.add_argument("profile", metavar="PROFILE", help="its name")
        if name == "approve":
            parser.add_argument("--stage", metavar="NAME", help="which (default: the next one)")
        add_cluster_arguments(parser)
        parser.set_defaults(run=with_session(partial(_edit, _at_once(verb))))
    told = "take a stage to a revision with which its namespace was ready before"
    parser = commands.add_parser("rollback", help=told, description=f"{told[0].upper()}{told[1:]}.")
    parser.add_argument("profile", metavar="PROFILE", help="its name")
    parser.add_argument(
        "--to-revision", metavar="REVISION", required=True, help="its name or number, as `history` has them"
    )
    parser.add_argument("--stage", metavar="NAME", help="which (default: the only one that has begun)")
    add_cluster_arguments(parser)
    parser.set_defaults(run=with_session(partial(_edit, _rollback)))


def _at_once(verb: _Verb) -> _Decision:
    async def decide(_: Session, found: ReadProfile, options: argparse.Namespace) -> Edit:
        return verb(found, options)

    return decide


async def _rollback(session: Session, found: ReadProfile, options: argparse.Namespace) -> Edit:
    """As the operator will see it: unknown revisions are refused, and the present one is left alone."""
    stage, state = begun_stage(found.spec, found.status, options.stage)
    stored = await Revisions(session.objects, stage.namespace).stored()
    chosen = find_revision(found.spec, stage, state, stored, options.to_revision)
    variables = {it.component: frozenset(it.values) for it in chosen.revision.workloads}
    workloads = await Workloads(session.objects, stage.namespace).observe(chosen.targets, variables)
    observed = {name: it.observed for name, it in workloads.items()}
    goal = completed(chosen, stored, observed) if observed.keys() == chosen.targets.keys() else None
    is_there = isinstance(goal, Revision) and is_present(goal, observed)
    return to_revision(found.spec, stage, state, chosen, is_there)


async def _edit(decide: _Decision, session: Session, options: argparse.Namespace) -> int:
    """Decide on what was just read, and write only over that; the operator's status may come in between."""
    for _ in range(_ATTEMPTS):
        found = await session.profile(options.profile)
        try:
            edit = await decide(session, found, options)
        except NotNowError as error:
            raise CommandError(f"{found.key}: {error}") from error
        if patch := _patch(found.spec.rollout, edit.rollout):
            metadata = {"resourceVersion": found.body["metadata"]["resourceVersion"]}
            body = {"metadata": metadata, "spec": {"rollout": patch}}
            try:
                await session.objects.merge(PROFILE, session.namespace, options.profile, body, manager=MANAGER)
            except ConflictError:
                continue
        print(f"{found.key}: {edit.said}{'' if patch else ' (nothing to change)'}")
        return DONE
    raise CommandError(f"{options.profile} changes too fast: try again")


def _patch(old: Rollout, new: Rollout) -> dict[str, Any]:
    """The fields that differ. A list is replaced as a whole, so it goes only if it must."""
    was, now = (it.model_dump(mode="json", by_alias=True, exclude_none=True) for it in (old, new))
    return {name: value for name, value in now.items() if was[name] != value}
