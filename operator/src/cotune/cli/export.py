"""`cotune export PROFILE`: the patch that belongs into Git, for a stage whose values come through it."""

import argparse

from cotune.cli.session import DONE, Session, add_cluster_arguments, chosen_stage, with_session
from cotune.gitops.patch import as_component, as_yaml, patches
from cotune.rollout.stacks import spread

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
    targets = await session.targets(found, stage)
    made = patches(spread(found.spec, targets.stacks).changes, targets.by_component)
    texts = [as_yaml(as_component(made))] if options.output == COMPONENT else [as_yaml(it) for it in made]
    print(f"# profile {found.key}, stage {stage.name}, namespace {stage.namespace}")
    print("---\n".join(texts), end="")
    return DONE
