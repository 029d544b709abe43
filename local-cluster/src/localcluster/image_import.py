"""Handing images to the container runtimes of running nodes."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.locations import NodeFiles
from localcluster.oci import Image, write_archive


class NodeImages:
    """The images of one node."""

    def __init__(self, ctr: Path, node: NodeFiles) -> None:
        self._command = [str(ctr), f"--address={node.containerd_socket}", "--namespace=k8s.io", "images"]
        self._blobs = node.blobs

    def missing(self, images: Iterable[Image]) -> list[Image]:
        """Those that the node does not have with this content under this name."""
        present = self._present()
        return [image for image in images if present.get(image.reference) != image.manifest]

    def load(self, images: Iterable[Image]) -> None:
        """Import and unpack images in one stream; nothing to do without any.

        :raises LocalClusterError: the runtime refused them.
        """
        images = list(images)
        if not images:
            return
        self._link_blobs(images)
        # Client-side import (--local) reads a stream; the runtime's own import would want a file it can see.
        command = [*self._command, "import", "--local", "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            try:
                write_archive(process.stdin, images)
                process.stdin.close()
            except BrokenPipeError:
                pass  # The runtime gave up; its message says why.
            reason = process.stderr.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise LocalClusterError(f"importing images failed: {reason}")

    def _link_blobs(self, images: list[Image]) -> None:
        """Put blobs that are files straight into the runtime's store, so that it does not copy them from the stream.

        It looks there before it writes, and checks nothing else about a blob that it finds under its digest. On another
        file system, where linking is impossible, it writes what the stream brings.
        """
        self._blobs.mkdir(parents=True, exist_ok=True)
        for image in images:
            for digest, blob in image.blobs.items():
                target = self._blobs / digest.removeprefix("sha256:")
                if isinstance(blob, Path) and not target.exists():
                    try:
                        target.hardlink_to(blob)
                    except OSError:
                        return

    def _present(self) -> dict[str, str]:
        """Manifest digests by reference."""
        done = subprocess.run([*self._command, "list"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LocalClusterError(f"the container runtime does not answer: {done.stderr.strip()}")
        # REF TYPE DIGEST SIZE PLATFORMS LABELS
        return {columns[0]: columns[2] for line in done.stdout.splitlines()[1:] if (columns := line.split())}
