"""The records of the trials: a volume of this machine for them, and what `cotune verify` says in the end."""

import asyncio
import copy
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from localcluster.locations import repository_root

from cotune_demo.cluster import Commands, DemoError
from cotune_demo.summary import RecordsSummary

CLAIM = "records"
_VOLUME = "cotune-demo-records"
_OPERATORS_USER = 65532


def folder() -> Path:
    """Where the records lie on this machine: the nodes of the local cluster see its files."""
    return repository_root() / "build" / "demo" / "records"


async def make_volume(commands: Commands, namespace: str) -> None:
    """An empty volume for the operator: the local cluster has no provisioner, so it is made by hand."""
    await asyncio.to_thread(_empty, folder())
    size = {"storage": "1Gi"}
    await commands.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": _VOLUME},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": CLAIM},
                "hostPath": {"path": str(folder()), "type": "Directory"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "volumeName": _VOLUME,
                "resources": {"requests": size},
            },
        },
    )


async def verified(commands: Commands, *namespaces: str) -> RecordsSummary:
    """What `cotune verify` says of the records and of the labs' trials, and of trials of which one was edited.

    Raises:
        DemoError: it does not say anything.
    """
    found = [await commands.get("gputrials,gpuprofiles", "--namespace", it) for it in namespaces]
    dump = found[0] | {"items": [body for it in found for body in it["items"]]}
    said = await _verify(dump, "trials.json")
    edited = copy.deepcopy(dump)
    measured = next((it for it in edited["items"] if it.get("status", {}).get("measurements")), None)
    if measured is not None:
        measured["status"]["measurements"][0]["value"] = "0.001"
    told = [it["kind"] for it in (await _verify(edited, "trials-edited.json"))["faults"]]
    return RecordsSummary(
        records=len(said["records"]),
        recomputed=sum(it["recomputed"] for it in said["records"]),
        resources=said["resources"],
        faults=tuple(f"{it['kind']}: {it['subject']}: {it['message']}" for it in said["faults"]),
        faults_when_edited=tuple(told),
    )


async def _verify(dump: dict[str, Any], name: str) -> dict[str, Any]:
    file = folder().parent / name
    file.write_text(json.dumps(dump))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cotune.cli", "verify", "--store", str(folder()), "-f", str(file), "-o", "json"),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(it for it in sys.path if it)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    try:
        return json.loads(said)
    except ValueError as error:
        raise DemoError(f"cotune verify: {complained.decode(errors='replace').strip()[-300:]}") from error


def _empty(place: Path) -> None:
    """The directory itself stays: a pod that is still there has it mounted."""
    place.mkdir(parents=True, exist_ok=True)
    for it in place.iterdir():
        shutil.rmtree(it) if it.is_dir() else it.unlink()
    os.chown(place, _OPERATORS_USER, _OPERATORS_USER)
