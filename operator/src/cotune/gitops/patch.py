"""A stage's change as what belongs into Git: strategic merge patches in a component of kustomize."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cotune.api.grant import GrantTarget
from cotune.api.profile import Change

Manifest = dict[str, Any]


def patches(changes: Sequence[Change], targets: Mapping[str, GrantTarget]) -> Sequence[Manifest]:
    """One patch for each Deployment that has a change, without a namespace: a Kustomization gives it one.

    Args:
        changes: a profile's.
        targets: component to workload, in the order in which the patches shall stand.
    """
    found: list[Manifest] = []
    for component, target in targets.items():
        env = [{"name": it.env, "value": it.to} for it in changes if it.component == component]
        if not env:
            continue
        containers = [{"name": target.container, "env": env}]
        found.append(
            {
                "apiVersion": target.workload.api_version,
                "kind": target.workload.kind,
                "metadata": {"name": target.workload.name},
                "spec": {"template": {"spec": {"containers": containers}}},
            }
        )
    return found


def as_component(patches: Sequence[Manifest]) -> Manifest:
    """A component of kustomize, for `components:` of an overlay.

    Each patch has its target named beside it: by its own metadata it would miss a Deployment that has its namespace in
    its manifest.
    """
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "patches": [{"target": _selector(it), "patch": as_yaml(it)} for it in patches],
    }


def _selector(patch: Manifest) -> Manifest:
    group, _, version = str(patch["apiVersion"]).rpartition("/")
    # The name is a regular expression.
    name = str(patch["metadata"]["name"]).replace(".", r"\.")
    return {"group": group, "version": version, "kind": patch["kind"], "name": name}


def as_yaml(manifest: Manifest) -> str:
    """As a person would write it."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _text)
