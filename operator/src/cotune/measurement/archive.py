"""A corpus as one archive behind a URL: fetched within bounds, checked, and read in memory. Nothing is unpacked.

Only plain files are taken. A name that leads out of the archive makes all of it refused; links and devices count as
not there.
"""

import asyncio
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import aiohttp

from cotune.api.corpus import UrlSource
from cotune.measurement.corpus import TRANSCRIPTS, CorpusError

LARGEST_ARCHIVE = 256 * 1024**2
LARGEST_CONTENT = 512 * 1024**2
"""Of all files together, whatever the archive says of their sizes."""
MOST_FILES = 10_000
_CHUNK = 1 << 16
_TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=30, sock_read=60)
_MOST_REDIRECTS = 5
_TRIES, _PAUSE_SECONDS = 3, 2.0


async def fetch(source: UrlSource, largest: int = LARGEST_ARCHIVE) -> bytes:
    """The archive, once its digest was found right. A connection that breaks is tried again twice.

    Raises:
        CorpusError: it cannot be fetched, is larger than allowed, or has another digest.
    """
    content = await _patiently_fetched(source.url, largest)
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise CorpusError(f"{shown(source.url)} has the SHA-256 {found}, not {source.sha256}")
    return content


async def _patiently_fetched(url: str, largest: int) -> bytes:
    tries = 0
    while True:
        tries += 1
        try:
            return await _fetched(url, largest)
        except (aiohttp.ClientError, TimeoutError) as error:
            is_final = isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL)
            if is_final or tries == _TRIES:
                raise CorpusError(f"{shown(url)}: {str(error) or 'no answer in time'}") from error
        await asyncio.sleep(_PAUSE_SECONDS)


async def _fetched(url: str, largest: int) -> bytes:
    content = bytearray()
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False) as session,
        session.get(url, max_redirects=_MOST_REDIRECTS, headers={"Accept-Encoding": "identity"}) as response,
    ):
        if response.status != 200:
            raise CorpusError(f"{shown(url)} answered {response.status}")
        async for chunk in response.content.iter_chunked(_CHUNK):
            content += chunk
            if len(content) > largest:
                raise CorpusError(f"{shown(url)} is larger than {largest / 1024**2:g} MiB")
    return bytes(content)


def unpacked(archive: bytes, where: str, largest: int = LARGEST_CONTENT) -> dict[str, bytes]:
    """The files beside the only `transcripts.json`, by their names from there.

    Args:
        archive: tar, also compressed, or zip.
        where: it begins the messages.
        largest: bytes of all files together.

    Raises:
        CorpusError: it cannot be read, breaks a bound, or has none or several `transcripts.json`.
    """
    found: dict[PurePosixPath, bytes] = {}
    size = 0
    try:
        for name, content in _members(archive, largest):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise CorpusError(f"{where}: the archive holds a file outside of itself: {name}")
            size += len(content)
            if size > largest:
                raise CorpusError(f"{where}: unpacked it is larger than {largest / 1024**2:g} MiB")
            found[path] = content
            if len(found) > MOST_FILES:
                raise CorpusError(f"{where}: more than {MOST_FILES} files")
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, OSError, EOFError) as error:
        raise CorpusError(f"{where} cannot be read as tar or zip: {error}") from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile: an unknown compression, a password.
        raise CorpusError(f"{where} cannot be read: {error}") from error
    roots = [it.parent for it in found if it.name == TRANSCRIPTS]
    if len(roots) != 1:
        raise CorpusError(f"{where}: the archive holds {len(roots)} {TRANSCRIPTS}, not one")
    (root,) = roots
    return {str(it.relative_to(root)): content for it, content in found.items() if it.is_relative_to(root)}


def _members(archive: bytes, largest: int) -> Iterator[tuple[str, bytes]]:
    """Plain files; each is read one byte further than all may be long together: what a header says is not believed."""
    file = io.BytesIO(archive)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    with opened.open(entry) as member:
                        yield entry.filename, member.read(largest + 1)
        return
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:*") as opened:
        for entry in opened:
            if entry.isreg() and (member := opened.extractfile(entry)) is not None:
                with member:
                    yield entry.name, member.read(largest + 1)


def shown(url: str) -> str:
    """The URL without its query, which may be nobody else's business."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
