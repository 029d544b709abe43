"""`cotune verify --store DIR`: whether the records of trials, and the resources that name them, still say the same."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from cotune.artifacts.directory import DirectoryStore
from cotune.artifacts.store import StoreError
from cotune.artifacts.verification import Verification, verify

_DONE, _FAILED, _USAGE = 0, 1, 2


class UsageError(ValueError):
    """What was given cannot be looked at; the message is one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--store", type=Path, required=True, help="the directory with the records")
    parser.add_argument(
        "-f", "--filename", type=Path, help="trials and profiles, as of kubectl get gt,gpp -o yaml, or json"
    )
    parser.add_argument(
        "--allow-removed",
        action="store_true",
        help="a record that a resource names may be gone, as after its time",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        if not options.store.is_dir():
            raise UsageError(f"{options.store} is no directory")
        resources = list(_resources(options.filename)) if options.filename is not None else []
        found = verify(DirectoryStore(options.store), resources, options.allow_removed)
    except (UsageError, StoreError) as error:
        print(f"cotune: error: {error}", file=sys.stderr)
        return _USAGE
    print(_as_json(found) if options.output == "json" else _as_table(found))
    if not found.records and not found.faults:
        print(f"cotune: error: there is no record in {options.store}", file=sys.stderr)
        return _FAILED
    return _DONE if found.holds else _FAILED


def _resources(file: Path) -> Iterator[dict[str, Any]]:
    """All objects of a file, those in lists among them."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
    try:
        documents = [json.loads(text)]
    except ValueError:
        try:
            documents = cast("list[object]", list(yaml.safe_load_all(text)))
        except yaml.YAMLError as error:
            raise UsageError(f"{file}: {' '.join(str(error).split())}") from error
    for it in documents:
        if it is None:
            continue
        if not isinstance(it, dict) or "kind" not in it:
            raise UsageError(f"{file} holds something that is no resource")
        body = cast("dict[str, Any]", it)
        for one in cast("list[dict[str, Any]]", body["items"]) if "items" in body else [body]:
            metadata = cast("dict[str, Any]", one.get("metadata") or {})
            if one.get("kind") in {"GpuTrial", "GpuProfile"} and not {"namespace", "name", "uid"} <= metadata.keys():
                raise UsageError(f"{file} holds a {one['kind']} that does not come from a cluster")
            yield one


def _as_table(found: Verification) -> str:
    rows = [("RECORD", "TRIAL", "PHASE", "RECOMPUTED", "HOLDS")]
    rows += [
        (it.digest.partition(":")[2][:12], it.trial, str(it.phase), str(it.recomputed), "no" if it.faults else "yes")
        for it in found.records
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if found.faults:
        lines += ["", *(f"{it.kind}: {it.subject}: {it.message}" for it in found.faults)]
    return "\n".join([*lines, "", _summary(found)])


def _summary(found: Verification) -> str:
    parts = [f"{len(found.records)} records", f"{sum(it.recomputed for it in found.records)} figures computed again"]
    if found.resources:
        parts.append(f"{found.resources} resources compared")
    if found.removed:
        parts.append(f"{found.removed} records gone")
    return f"{', '.join(parts)}: {f'{len(found.faults)} faults' if found.faults else 'all holds'}"


def _as_json(found: Verification) -> str:
    said = {
        "holds": found.holds,
        "records": [
            {
                "digest": it.digest,
                "trial": it.trial,
                "phase": str(it.phase),
                "recomputed": it.recomputed,
                "holds": not it.faults,
            }
            for it in found.records
        ],
        "resources": found.resources,
        "removed": found.removed,
        "faults": [{"kind": str(it.kind), "subject": it.subject, "message": it.message} for it in found.faults],
    }
    return json.dumps(said, indent=2)
