"""What a kubeconfig says beside how to connect."""

# The client's configuration code has no types: they stop here.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from pathlib import Path
from typing import Any, cast

from kubernetes.aio import config
from kubernetes.aio.config.config_exception import ConfigException


def namespace_of(kubeconfig: Path | None = None, context: str | None = None) -> str:
    """The namespace of a context, as kubectl takes it without `-n`.

    Args:
        kubeconfig: the file; None: the one of `KUBECONFIG`, else of the home folder.
        context: its name; None: the current one.

    Raises:
        kubernetes.aio.config.config_exception.ConfigException: there is no kubeconfig, or no such context in it.
    """
    contexts, active = config.list_kube_config_contexts(str(kubeconfig) if kubeconfig is not None else None)
    known = cast("list[dict[str, Any]]", contexts)
    found = active if context is None else next((it for it in known if it["name"] == context), None)
    if found is None:
        raise ConfigException(f"there is no context {context} in the kubeconfig")
    return str(cast("dict[str, Any]", found)["context"].get("namespace") or "default")
