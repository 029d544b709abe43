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

    def missing(self, images: Iterable[Image]) -> list[Image]:
        """Those that the node does not have with this content under this name."""
        present = self._present()
        return [image for image in images if present.get(image.reference) != image.manifest]

    def load(self, images: Iterable[Image]) -> None:
        """Import and unpack images in one stream.

        :raises LocalClusterError: the runtime refused them.
        """
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

    def _present(self) -> dict[str, str]:
        """Manifest digests by reference."""
        done = subprocess.run([*self._command, "list"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LocalClusterError(f"the container runtime does not answer: {done.stderr.strip()}")
        # REF TYPE DIGEST SIZE PLATFORMS LABELS
        return {columns[0]: columns[2] for line in done.stdout.splitlines()[1:] if (columns := line.split())}
