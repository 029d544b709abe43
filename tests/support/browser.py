"""A real Chromium without a window, driven over its own protocol: what it logs, asks for and has laid out."""

import asyncio
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp

_PATIENCE_SECONDS = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",  # It may run as root in a container.
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)

Message = dict[str, Any]


@dataclass
class Page:
    """One page, and what became known of it since it was opened."""

    socket: aiohttp.ClientWebSocketResponse
    said: list[str] = field(default_factory=list[str])
    """Errors and warnings of the console, exceptions, and what a policy has refused."""
    requests: list[str] = field(default_factory=list[str])
    """Addresses that were asked for, the page's own among them."""
    _numbers: Any = field(default_factory=itertools.count)
    _is_loaded: bool = False

    async def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Load a page and lay it out for a window of this size."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Network.setCacheDisabled", cacheDisabled=True)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", media=media, features=features)
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.said.clear()
        self.requests.clear()
        self._is_loaded = False
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not self._is_loaded:
                self._told(await self._next())
        await self.evaluate("document.fonts.ready.then(() => true)")

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, which may be a promise; its policy does not bind it."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def call(self, method: str, **parameters: Any) -> Message:
        """One command of the protocol, and its answer."""
        number = next(self._numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                message = await self._next()
                if message.get("id") == number:
                    assert "error" not in message, message
                    return cast("Message", message["result"])
                self._told(message)

    async def _next(self) -> Message:
        return cast("Message", json.loads(await self.socket.receive_str()))

    def _told(self, message: Message) -> None:
        parameters: Message = message.get("params", {})
        match message.get("method"):
            case "Log.entryAdded":
                self.said.append(parameters["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.said.append(json.dumps(parameters)[:300])
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Page.loadEventFired":
                self._is_loaded = True
            case _:
                pass


@dataclass(frozen=True)
class Browser:
    """A running one."""

    port: int

    @asynccontextmanager
    async def page(self) -> AsyncGenerator[Page]:
        """Its page; one at a time."""
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{self.port}/json/list") as answer:
                targets = cast("list[Message]", await answer.json(content_type=None))
            url = next(it["webSocketDebuggerUrl"] for it in targets if it["type"] == "page")
            async with session.ws_connect(url, max_msg_size=0) as socket:
                yield Page(socket)


@contextmanager
def running_browser() -> Generator[Browser]:
    """Chromium with a profile of its own, ended afterwards."""
    program = shutil.which("chromium")
    assert program is not None, "there is no chromium: `make browser` installs it"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Browser(_port(Path(folder), process))
        finally:
            process.terminate()
            process.wait(_PATIENCE_SECONDS)


def _port(folder: Path, process: "subprocess.Popen[bytes]") -> int:
    """Which port it has chosen; it writes that into its profile."""
    told, deadline = folder / "DevToolsActivePort", time.monotonic() + _PATIENCE_SECONDS
    while not (told.exists() and told.read_text().strip()):
        assert process.poll() is None, "chromium has ended"
        assert time.monotonic() < deadline, "chromium does not start"
        time.sleep(0.05)
    return int(told.read_text().splitlines()[0])
