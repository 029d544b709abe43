"""The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 nothing feasible."""

import argparse
import sys
from collections.abc import Sequence

from cotune.cli import plan, report, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="cotune", description="Tunes the services that share a GPU.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plan.add_arguments(commands.add_parser("plan", help="what fits on the card", description=plan.__doc__))
    told = "what an experiment found, as a page"
    report.add_arguments(commands.add_parser("report", help=told, description=report.__doc__))
    verify.add_arguments(
        commands.add_parser("verify", help="whether what was recorded still says the same", description=verify.__doc__)
    )
    options = parser.parse_args(arguments)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
