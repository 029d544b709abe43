"""When a started process counts as ready.

Checks are data, so that process specifications stay declarative; `passes` evaluates one. Addresses are those of the
cluster's network namespace: the caller evaluates checks on a thread that has entered it.
"""

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, assert_never
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class Started:
    """Ready as soon as it runs."""


@dataclass(frozen=True)
class Exists:
    """Ready when a file or socket exists; it is removed before the process starts."""

    path: Path


@dataclass(frozen=True)
class Answers:
    """Ready when a GET of `url` answers 200. Without an authority the server's certificate is not verified."""

    url: str
    authority: Path | None = None


Check: TypeAlias = Started | Exists | Answers


def passes(check: Check) -> bool:
    """Whether the check holds now."""
    match check:
        case Started():
            return True
        case Exists(path):
            return path.exists()
        case Answers(url, authority):
            return _answers(url, authority)
        case _:
            assert_never(check)


def _answers(url: str, authority: Path | None) -> bool:
    address = urlsplit(url)
    host, port = address.hostname or "", address.port
    if address.scheme == "https":
        context = ssl.create_default_context(cafile=authority)
        if authority is None:
            # The program serves a certificate that it made for itself, on the loopback of a private namespace.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", address.path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
