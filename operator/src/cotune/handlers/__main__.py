"""`python -m cotune.handlers`: one process of the operator."""

import asyncio
import logging
import os
import sys

from cotune.handlers.process import serve
from cotune.handlers.settings import Settings, SettingsError


def main() -> int:
    """Run until a signal ends it."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"cotune: error: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # A line for each event of a watch.
    return asyncio.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
