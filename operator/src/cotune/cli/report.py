"""`cotune report EXPERIMENT`: what it found, as one HTML page and as Markdown, from the cluster or from a file."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import yaml
from kubernetes.aio.config.config_exception import ConfigException

from cotune.cli.artifact_folder import ArtifactFolder
from cotune.cli.session import add_connection_arguments
from cotune.cluster.kinds import EXPERIMENT, PROFILE, TRIAL
from cotune.cluster.objects import ApiError, NotFoundError, Objects
from cotune.report.html.page import as_html
from cotune.report.markdown import as_markdown
from cotune.report.raw import NoRawResults, RawResultError
from cotune.report.report import report
from cotune.report.resources import Body, ResourcesError, find_experiment

_DONE, _FAILED, _USAGE = 0, 1, 2
_RENDER = {"html": ("html", as_html), "markdown": ("md", as_markdown)}


class InputError(ValueError):
    """The file or the cluster does not give the resources; the message is one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="its name")
    parser.add_argument("-n", "--namespace", help="where it is; from a file, only if several are in it")
    parser.add_argument(
        "-f", "--filename", type=Path, help="what `kubectl get gae,gt,gpp -o yaml` gave; left out: ask the cluster"
    )
    parser.add_argument("-o", "--format", choices=("html", "markdown", "both"), default="both")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR/FILE",
        help="a folder, or a file for one format (default: here)",
    )
    parser.add_argument("--artifacts", type=Path, metavar="DIR", help="the folder of the raw results")
    add_connection_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.filename is None and options.namespace is None:
        print("cotune report: error: give --namespace, or --filename", file=sys.stderr)
        return _USAGE
    formats = list(_RENDER) if options.format == "both" else [options.format]
    if len(formats) > 1 and not options.output.is_dir():
        print(f"cotune report: error: {options.output} is no folder, and two files are written", file=sys.stderr)
        return _USAGE
    try:
        bodies = _read(options.filename) if options.filename is not None else asyncio.run(_ask(options))
        found = find_experiment(bodies, options.experiment, options.namespace)
        raw = ArtifactFolder(options.artifacts) if options.artifacts is not None else NoRawResults()
        made = report(found, raw, datetime.now(UTC))
        for it in formats:
            ending, render = _RENDER[it]
            path = options.output / f"{found.name}-report.{ending}" if options.output.is_dir() else options.output
            path.write_text(render(made), encoding="utf-8")
            print(path)
    except (InputError, ResourcesError, RawResultError, OSError) as error:
        print(f"cotune: error: {error}", file=sys.stderr)
        return _FAILED
    return _DONE


def _read(file: Path) -> tuple[Body, ...]:
    """All objects of a file: YAML or JSON, several documents or a List."""
    try:
        text = file.read_text(encoding="utf-8")
        documents = [json.loads(text)] if text.lstrip().startswith("{") else list(yaml.load_all(text, _LOADER))
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}") from error
    return tuple(_objects(documents))


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A dump of thousands of trials takes the one in Python a minute."""


def _objects(documents: "Iterable[Any]") -> Iterable[Body]:
    for it in documents:
        if not isinstance(it, dict):
            continue
        body = cast("Body", it)
        if str(body.get("kind", "")).endswith("List"):
            yield from _objects(cast("list[Any]", body.get("items") or []))
        else:
            yield body


async def _ask(options: argparse.Namespace) -> tuple[Body, ...]:
    """The experiment, and what of its namespace may belong to it."""
    namespace, name = str(options.namespace), str(options.experiment)
    try:
        objects = await Objects.connect(options.kubeconfig, context=options.context)
    except (ConfigException, OSError) as error:
        raise InputError(f"no cluster to ask: {' '.join(str(error).split())}") from error
    try:
        found = await objects.get(EXPERIMENT, namespace, name)
        return (found, *await objects.list(TRIAL, namespace), *await objects.list(PROFILE, namespace))
    except NotFoundError as error:
        raise InputError(f"there is no GpuAllocationExperiment {name} in namespace {namespace}") from error
    except ApiError as error:
        raise InputError(f"the API server says: {error}") from error
    finally:
        await objects.close()
