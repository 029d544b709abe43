"""The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 nothing feasible."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cotune.cli import diff, export, get, history, plan, report, verbs, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    # kubectl runs an executable of this name for `kubectl cotune`.
    is_plugin = Path(sys.argv[0]).name == "kubectl-cotune"
    program = "kubectl cotune" if is_plugin else "cotune"
    parser = argparse.ArgumentParser(prog=program, description="Tunes the services that share a GPU.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plan.add_arguments(commands.add_parser("plan", help="what fits on the card", description=plan.__doc__))
    told = "what an experiment found, as a page"
    report.add_arguments(commands.add_parser("report", help=told, description=report.__doc__))
    verify.add_arguments(
        commands.add_parser("verify", help="whether what was recorded still says the same", description=verify.__doc__)
    )
    told = "a profile's stages, gates and the time that is left"
    get.add_arguments(commands.add_parser("get", help=told, description=get.__doc__))
    told = "what a stage changes in its workloads"
    diff.add_arguments(commands.add_parser("diff", help=told, description=diff.__doc__))
    told = "what a stage changes, as a patch for Git"
    export.add_arguments(commands.add_parser("export", help=told, description=export.__doc__))
    told = "what the namespaces of a profile's stages had before and after each change"
    history.add_arguments(commands.add_parser("history", help=told, description=history.__doc__))
    verbs.add_commands(commands)
    options = parser.parse_args(arguments)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
