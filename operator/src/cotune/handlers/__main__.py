"""`python -m cotune.handlers`: the operator's process."""

import logging
import os
import sys
from typing import Any, cast

import kopf

from cotune.handlers.operator import register
from cotune.handlers.settings import Settings, SettingsError


def main() -> int:
    """Run until a signal ends it."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"cotune: error: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("aiohttp.access", "kopf.objects"):  # A line for each probe of the kubelet and each event of a watch.
        logging.getLogger(name).setLevel(logging.WARNING)
    registry = kopf.OperatorRegistry()
    register(registry, settings)
    kopf.run(
        registry=registry,
        clusterwide=True,
        standalone=True,
        # Unused without peering, and what kopf would make up needs a user of the system: the image has none.
        identity=cast("Any", "cotune"),
        liveness_endpoint=f"http://0.0.0.0:{settings.liveness_port}/healthz",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
