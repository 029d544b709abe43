"""`cotune export PROFILE`: the patch that belongs into Git, for a stage whose values come through it."""

import argparse

from cotune.api.grant import GrantSpec
from cotune.cli.session import DONE, CommandError, Session, add_cluster_arguments, chosen_stage, with_session
from cotune.cluster.kinds import GRANT
from cotune.gitops.patch import as_component, as_yaml, patches
from cotune.rollout.targets import Refusal, resolve

COMPONENT, PATCH = "kustomize", "patch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("profile", metavar="PROFILE", help="its name")
    parser.add_argument("--stage", metavar="NAME", help="which (default: the one in progress, else the next)")
    parser.add_argument(
        "-o",
        "--output",
        choices=(COMPONENT, PATCH),
        default=COMPONENT,
        help="a component for kustomize's `components`, or strategic merge patches one by one (default: %(default)s)",
    )
    add_cluster_arguments(parser)
    parser.set_defaults(run=with_session(_export))


async def _export(session: Session, options: argparse.Namespace) -> int:
    found = await session.profile(options.profile)
    stage = chosen_stage(found, options.stage)
    grants = [GrantSpec.model_validate(it["spec"]) for it in await session.objects.list(GRANT, stage.namespace)]
    targets = resolve(found.spec, session.namespace, stage.namespace, grants)
    if isinstance(targets, Refusal):
        raise CommandError(f"{targets.reason}: {targets.message}")
    made = patches(found.spec.changes, targets.by_component)
    texts = [as_yaml(as_component(made))] if options.output == COMPONENT else [as_yaml(it) for it in made]
    print(f"# profile {found.key}, stage {stage.name}, namespace {stage.namespace}")
    print("---\n".join(texts), end="")
    return DONE
