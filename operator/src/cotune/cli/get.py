"""`cotune get profile NAME [-w]`: its stages, gates and the time that is left; with `-w` until its way is over."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime

from cotune.api.profile import ProfilePhase
from cotune.cli.profile_tree import profile_tree
from cotune.cli.session import DONE, FAILED, Session, add_cluster_arguments, with_session
from cotune.rollout.progress import current_stage, retried

_PERIOD_SECONDS = 1.0
_CLEAR = "\x1b[H\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("kind", choices=("profile",))
    parser.add_argument("profile", metavar="NAME")
    parser.add_argument(
        "-w",
        "--watch",
        action="store_true",
        help="draw it again until its way is over; 1 is then the exit code of a profile that was taken back",
    )
    add_cluster_arguments(parser)
    parser.set_defaults(run=with_session(_get))


async def _get(session: Session, options: argparse.Namespace) -> int:
    shown = ""
    while True:
        found = await session.profile(options.profile)
        text = profile_tree(found.key, found.spec, found.status, datetime.now(UTC))
        if text != shown:
            is_redrawn = options.watch and sys.stdout.isatty()
            print(f"{_CLEAR}{text}" if is_redrawn else text, flush=True)
            shown = text
        if not options.watch:
            return DONE
        if current_stage(found.spec, found.status) is None and retried(found.spec, found.status) is None:
            return FAILED if found.status.phase is ProfilePhase.ROLLED_BACK else DONE
        await asyncio.sleep(_PERIOD_SECONDS)
