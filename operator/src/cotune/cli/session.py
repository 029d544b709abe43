"""What the commands that ask a cluster share: whose rights, which namespace, and errors in one line."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio.config.config_exception import ConfigException

from cotune.api.profile import ProfileSpec, ProfileStatus, Stage
from cotune.cluster.grants import invitations
from cotune.cluster.kinds import PROFILE
from cotune.cluster.kubeconfig import namespace_of
from cotune.cluster.objects import ApiError, NotFoundError, Object, Objects
from cotune.rollout.progress import current_stage
from cotune.rollout.targets import Refusal, Targets, resolve

DONE, FAILED = 0, 1


class CommandError(ValueError):
    """The command cannot do what it shall; the message is one line."""


@dataclass(frozen=True)
class ReadProfile:
    """A profile as it was just read."""

    body: Object
    spec: ProfileSpec
    status: ProfileStatus

    @property
    def key(self) -> str:
        """Namespace and name."""
        return f"{self.body['metadata']['namespace']}/{self.body['metadata']['name']}"


@dataclass(frozen=True)
class Session:
    """A connection with the user's own rights."""

    objects: Objects
    namespace: str

    async def profile(self, name: str) -> ReadProfile:
        """Read a profile.

        Raises:
            CommandError: there is none of this name.
        """
        try:
            body = await self.objects.get(PROFILE, self.namespace, name)
        except NotFoundError as error:
            raise CommandError(f"there is no GpuProfile {name} in namespace {self.namespace}") from error
        status = ProfileStatus.model_validate(body.get("status") or {})
        return ReadProfile(body, ProfileSpec.model_validate(body["spec"]), status)

    async def targets(self, profile: ReadProfile, stage: Stage) -> Targets:
        """What a stage would change, as its namespace's grants are now.

        Raises:
            CommandError: no grant allows it.
        """
        granted = await invitations(self.objects, stage.namespace, self.namespace)
        found = resolve(profile.spec, self.namespace, stage.namespace, granted.grants, granted.workloads)
        if isinstance(found, Refusal):
            raise CommandError(f"{found.reason}: {found.message}")
        return found


Command = Callable[[Session, argparse.Namespace], Awaitable[int]]
"""What is run with a connection, and the exit code."""


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which cluster and namespace."""
    parser.add_argument("-n", "--namespace", help="of the profile (default: of the context)")
    add_connection_arguments(parser)


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which cluster, as kubectl has it."""
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="(default: $KUBECONFIG, else ~/.kube/config)")
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: its current one)")


def chosen_stage(found: ReadProfile, name: str | None) -> Stage:
    """The stage of this name; without one the stage in progress, else the next.

    Raises:
        CommandError: there is none.
    """
    stages = found.spec.rollout.stages
    stage = (
        current_stage(found.spec, found.status)
        if name is None
        else next((it for it in stages if it.name == name), None)
    )
    if stage is not None:
        return stage
    names = ", ".join(it.name for it in stages)
    raise CommandError(
        f"there is no stage {name}: it has {names}"
        if name is not None
        else f"no stage is left: the profile is {found.status.phase}; name one with --stage ({names})"
    )


def with_session(command: Command) -> Callable[[argparse.Namespace], int]:
    """Connect, run the command, and say in one line what keeps it from being done."""
    return lambda options: _run(options, command)


def _run(options: argparse.Namespace, command: Command) -> int:
    try:
        return asyncio.run(_connected(options, command))
    except (ConfigException, OSError) as error:
        print(f"cotune: error: no cluster to ask: {' '.join(str(error).split())}", file=sys.stderr)
    except ApiError as error:
        print(f"cotune: error: the API server says: {' '.join(str(error).split())}", file=sys.stderr)
    except CommandError as error:
        print(f"cotune: error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    return FAILED


async def _connected(options: argparse.Namespace, command: Command) -> int:
    namespace = options.namespace or namespace_of(options.kubeconfig, options.context)
    objects = await Objects.connect(options.kubeconfig, context=options.context)
    try:
        return await command(Session(objects, namespace), options)
    finally:
        await objects.close()
