"""What a kubeconfig says beside how to connect."""

# The client's configuration code has no types: they stop here.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from pathlib import Path
from typing import Any, cast

from kubernetes.aio import config


def current_namespace(kubeconfig: Path | None = None) -> str:
    """The namespace of the current context, as kubectl takes it without `-n`.

    Raises:
        kubernetes.aio.config.config_exception.ConfigException: there is no kubeconfig, or no current context in it.
    """
    _, active = config.list_kube_config_contexts(str(kubeconfig) if kubeconfig is not None else None)
    return str(cast("dict[str, Any]", active)["context"].get("namespace") or "default")
