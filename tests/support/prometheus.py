"""A real Prometheus that scrapes a real exporter of the test's own five times a second."""

import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode

import yaml
from localcluster.locations import Cache
from localcluster.packages import unpacked
from prometheus_client import CollectorRegistry, Gauge, start_http_server

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class RunningPrometheus:
    """It, and the gauge `figure` with the label `part` that it scrapes."""

    url: str
    figure: Gauge

    def samples(self, query: str) -> int:
        """How many samples a range such as `figure[1h]` has, over all series."""
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{urlencode({'query': query})}", timeout=10) as answer:
            return sum(len(it["values"]) for it in json.loads(answer.read())["data"]["result"])

    def has_seen(self, part: str, seconds: float = 0) -> None:
        """Wait until it has samples of a part, over at least so many seconds."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.samples(f'figure{{part="{part}"}}[10m]') < max(1, seconds * 5):
            assert time.monotonic() < deadline, "nothing is scraped"
            time.sleep(0.1)


@contextmanager
def running_prometheus() -> Generator[RunningPrometheus]:
    """Prometheus and exporter, gone afterwards."""
    registry = CollectorRegistry()
    figure = Gauge("figure", "What the test says.", ["part"], registry=registry)
    exporter, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    job = {"job_name": "test", "static_configs": [{"targets": [f"127.0.0.1:{exporter.server_port}"]}]}
    settings = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": [job]}
    program = unpacked("prometheus", Cache.from_environment())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
                    *("--web.listen-address=127.0.0.1:0", "--log.level=info"),
                ],
                cwd=folder,
                stdout=output,
                stderr=output,
            )
        try:
            yield RunningPrometheus(_ready(process, log), figure)
        finally:
            process.terminate()
            process.wait(_PATIENCE_SECONDS)
            exporter.shutdown()
            exporter.server_close()
            thread.join(_PATIENCE_SECONDS)


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where it listens, once it answers; its log says which port it has been given."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"Prometheus does not start: {log.read_text()}"
        told = [it for it in log.read_text().splitlines() if "Listening on" in it and "address=127.0.0.1:" in it]
        if told:
            url = f"http://127.0.0.1:{told[0].rsplit(':', 1)[1].strip()}"
            try:
                with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
                    if answer.status == 200:
                        return url
            except (URLError, OSError):
                pass
        time.sleep(0.1)
