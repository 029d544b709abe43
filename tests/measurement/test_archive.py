"""A corpus behind a URL: what is taken, and what is refused."""

import asyncio
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeAlias

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cotune.api.corpus import UrlSource
from cotune.measurement import archive
from cotune.measurement.archive import fetch, unpacked
from cotune.measurement.corpus import CorpusError, corpus_of
from cotune_simulation.speech import TRANSCRIPTS, write_corpus

Mode: TypeAlias = Literal["w:", "w:gz", "w:bz2", "w:xz"]
TEXT = json.dumps({"a.wav": "yes"}).encode()
FILES = {"transcripts.json": TEXT, "a.wav": b"RIFF"}


def tarred(files: Mapping[str, bytes], mode: Mode = "w:gz", *, more: tarfile.TarInfo | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
        if more is not None:
            opened.addfile(more)
    return file.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.mkdir("empty")
        for name, content in files.items():
            opened.writestr(name, content)
    return file.getvalue()


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


@pytest.mark.parametrize(
    "pack",
    [
        zipped,
        partial(tarred, mode="w:"),
        partial(tarred, mode="w:gz"),
        partial(tarred, mode="w:bz2"),
        partial(tarred, mode="w:xz"),
    ],
)
def test_a_corpus_is_read_out_of_every_usual_archive(
    pack: Callable[[Mapping[str, bytes]], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    packed = pack({f"speech-1.0/clips/{it.name}": it.read_bytes() for it in folder.iterdir()} | {"README": b"hello"})

    clips = corpus_of(unpacked(packed, "x").__getitem__, "x")

    assert {it.name: it.transcript for it in clips} == TRANSCRIPTS
    assert clips[0].audio == (folder / clips[0].name).read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>", "cannot be read as tar or zip"),
        (tarred(FILES)[:40], "cannot be read as tar or zip"),
        (zipped(FILES)[:-10], "cannot be read as tar or zip"),
        (tarred({"a.wav": b""}), "holds 0 transcripts.json"),
        (tarred({"one/transcripts.json": TEXT, "two/transcripts.json": TEXT}), "holds 2 transcripts.json"),
        (tarred(FILES | {"../../etc/passwd": b"x"}), r"outside of itself: \.\./\.\./etc/passwd"),
        (tarred(FILES | {"/etc/passwd": b"x"}), "outside of itself: /etc/passwd"),
        (zipped(FILES | {"../up.wav": b"x"}), "outside of itself: "),
        (tarred(FILES | {"zeros.wav": bytes(3000)}), "unpacked it is larger than"),
        (zipped(FILES | {"zeros.wav": bytes(3000)}), "unpacked it is larger than"),
    ],
)
def test_what_is_no_corpus_or_leads_out_of_itself_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(CorpusError, match=f"^x.*{words}"):
        unpacked(content, "x", largest=2000)


def test_more_files_than_a_corpus_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    assert len(unpacked(tarred(FILES | {"b.wav": b""}), "x")) == 3

    with pytest.raises(CorpusError, match="x: more than 3 files"):
        unpacked(tarred(FILES | {"b.wav": b"", "c.wav": b""}), "x")


def test_a_link_is_not_followed() -> None:
    files = unpacked(tarred(FILES, more=link("b.wav", "/etc/passwd")), "x")

    assert set(files) == {"transcripts.json", "a.wav"}


async def served(content: bytes, *paths: str, status: int = 200, largest: int = 1 << 20, sha256: str = "") -> list[str]:
    """What came of fetching each path: a length, or why there is nothing. `/moved` leads to `/file`."""

    async def file(_: web.Request) -> web.Response:
        return web.Response(body=content, status=status)

    async def moved(_: web.Request) -> web.Response:
        raise web.HTTPFound("/file")

    application = web.Application()
    application.add_routes([web.get("/file", file), web.get("/moved", moved)])
    found: list[str] = []
    async with TestServer(application) as server:
        for path in paths:
            digest = sha256 or hashlib.sha256(content).hexdigest()
            source = UrlSource(url=str(server.make_url("/")).rstrip("/") + path, sha256=digest)
            try:
                found.append(str(len(await fetch(source, largest))))
            except CorpusError as error:
                found.append(str(error))
    return found


def test_an_archive_is_fetched_where_it_has_moved_to() -> None:
    assert asyncio.run(served(b"content", "/file", "/moved")) == ["7", "7"]


def test_what_is_too_large_another_file_or_not_there_is_refused_without_its_query() -> None:
    (large,) = asyncio.run(served(bytes(200_000), "/file?token=secret", largest=100_000))
    (other,) = asyncio.run(served(b"content", "/file?token=secret", sha256="0" * 64))
    (missing,) = asyncio.run(served(b"content", "/file?token=secret", status=404))

    assert large.endswith("/file is larger than 0.0953674 MiB")
    assert f"/file has the SHA-256 {hashlib.sha256(b'content').hexdigest()}, not 0000" in other
    assert missing.endswith("/file answered 404")


def test_a_server_that_is_not_there_is_tried_again_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(archive.asyncio, "sleep", pause)
    with pytest.raises(CorpusError, match=r"^http://127\.0\.0\.1:9/none: Cannot connect"):
        asyncio.run(fetch(UrlSource(url="http://127.0.0.1:9/none", sha256="0" * 64)))

    assert len(pauses) == 2
