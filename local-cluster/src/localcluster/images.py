"""Images without a registry: built from images/<name>/Dockerfile on a base made of Debian packages.

The context of every build is the repository's root, as in `docker build -f images/<name>/Dockerfile .`, and a
Dockerfile starts with `ARG BASE_IMAGE=python:3.11-slim-bookworm` and `FROM ${BASE_IMAGE}`: docker pulls
that image, the local cluster puts its own in its place, with the Debian packages of images/<name>/local-base.txt in it
where there is such a file: it has no apt. What was built lies in the cache under a key of its inputs,
so that unchanged images are neither built nor handed to a node again.
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localcluster import packages
from localcluster.dockerfile import inputs_key
from localcluster.errors import LocalClusterError
from localcluster.image_import import NodeImages
from localcluster.locations import Cache, NodeFiles, repository_root
from localcluster.locks import held
from localcluster.oci import Image, ImageStore
from localcluster.pip_access import host_settings, translate
from localcluster.progress import say, step
from localcluster.shared_layers import SharedLayers

BASE = "base"
ON_REQUEST = frozenset({"llm"})
"""Built only where they are named: larger than all others together, and of no use without a card."""
_BASE_SUITE = "bookworm"
_BASE_PACKAGES = (
    *("ca-certificates", "libnuma1", "libstdc++6", "python-is-python3", "python3", "python3-pip", "python3-venv"),
)
# Debian refuses pip outside virtual environments; the image that docker uses in the base's place does not.
_BASE_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
_BASE_HOOK = 'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'


def reference(name: str) -> str:
    """The name by which pods use an image of this repository."""
    return f"localhost/cotune/{name}:dev"


class ImageBuilder:
    """Builds images of one checkout into the cache."""

    def __init__(self, cache: Cache, repository: Path | None = None) -> None:
        self._cache = cache.images
        self._storage = cache.layers
        self._store = ImageStore(cache.images)
        self._repository = repository or repository_root()

    def available(self) -> list[str]:
        """Names that can be built."""
        folders = (path.parent.name for path in (self._repository / "images").glob("*/Dockerfile"))
        return sorted(name for name in folders if name != BASE)

    def build(self, names: Iterable[str]) -> list[Image]:
        """The images, built now where their inputs have changed.

        :raises LocalClusterError: there is no such Dockerfile, or its build failed.
        """
        packages.ensure(packages.IMAGE_PROGRAMS)
        with held(self._cache / ".lock"):
            return [self._build(name) for name in names]

    def _build(self, name: str) -> Image:
        dockerfile = self._repository / "images" / name / "Dockerfile"
        if not dockerfile.is_file() or name == BASE:
            raise LocalClusterError(f"no image {name}: choose from {', '.join(self.available()) or 'none yet'}")
        debian_packages = (*_BASE_PACKAGES, *self._more_packages(name))
        base_key = self._base_key(debian_packages)
        tag = f"{name}-{inputs_key(dockerfile, self._repository, base_key)}"
        if image := self._store.get(tag, reference(name)):
            return image
        self._ensure_base(base_key, debian_packages)
        with step(f"building image {name}"):
            self._run_build(dockerfile, self._repository, tag, f"BASE_IMAGE={_local_name(f'{BASE}-{base_key}')}")
            self._keep(tag)
        image = self._store.get(tag, reference(name))
        assert image is not None
        return image

    def _more_packages(self, name: str) -> list[str]:
        listed = self._repository / "images" / name / "local-base.txt"
        return listed.read_text().split() if listed.exists() else []

    def _base_key(self, debian_packages: Sequence[str]) -> str:
        dockerfile = (self._repository / "images" / BASE / "Dockerfile").read_text()
        recipe = "\0".join((dockerfile, _BASE_SUITE, *debian_packages, *_BASE_LEFT_OUT, _BASE_HOOK))
        return hashlib.sha256(recipe.encode()).hexdigest()[:16]

    def _ensure_base(self, key: str, debian_packages: Sequence[str]) -> None:
        """Build the base image into the build's storage, from a root file system that is made only once."""
        tag = f"{BASE}-{key}"
        if self._buildah_succeeds("inspect", "--type=image", _local_name(tag)):
            return
        folder = self._cache / tag
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / "rootfs.tar"
        if not archive.exists():
            with step("making the base root file system from Debian packages (once, about a minute)"):
                _make_root_file_system(archive, debian_packages)
        with step("building image base"):
            self._run_build(self._repository / "images" / BASE / "Dockerfile", folder, tag)

    def _run_build(self, dockerfile: Path, context: Path, tag: str, *arguments: str) -> None:
        pip_cache = self._cache / "pip"
        pip_cache.mkdir(parents=True, exist_ok=True)
        configuration, mounts = translate(host_settings())
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as pip_conf:
            pip_conf.write(configuration)
            pip_conf.flush()
            self._buildah(
                *("build", "--isolation=chroot", "--layers", "--pull-never"),
                *(f"--volume={mount.source}:{mount.target}:ro" for mount in mounts),
                f"--volume={pip_conf.name}:/etc/pip.conf:ro",
                f"--volume={pip_cache}:/root/.cache/pip",
                *(f"--build-arg={argument}" for argument in arguments),
                f"--tag={_local_name(tag)}",
                f"--file={dockerfile}",
                str(context),
            )

    def _keep(self, tag: str) -> None:
        """Move what was built from the build's storage to the store."""
        # Unlike an OCI layout, this one takes layers as they are: they never leave this machine, so that compressing
        # them would only cost time.
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            self._buildah("push", "--disable-compression", "--format=oci", _local_name(tag), f"dir:{folder}")
            self._store.adopt(Path(folder), tag)

    def _buildah(self, *arguments: str) -> None:
        done = self._run_buildah(*arguments)
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines()[-25:]
            raise LocalClusterError("buildah failed:\n" + "\n".join(lines))

    def _buildah_succeeds(self, *arguments: str) -> bool:
        return self._run_buildah(*arguments).returncode == 0

    def _run_buildah(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Its storage is a mount that outlives each call: in a mount namespace of its own it ends with the call.
        command = [
            *("unshare", "--mount", "--propagation", "private", "--"),
            *("buildah", f"--root={self._storage}", f"--runroot={self._cache / 'run'}"),
            *("--storage-driver=overlay", *arguments),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def load(images: list[Image], nodes: dict[str, NodeFiles], ctr: Path, cache: Cache) -> None:
    """Give nodes the images that they lack.

    :raises LocalClusterError: a node's runtime refused one.
    """

    def load_node(name: str) -> None:
        node = NodeImages(ctr, nodes[name])
        missing = node.missing(images)
        if missing:
            with step(f"importing {len(missing)} images into {name}"):
                layers = SharedLayers(ctr, nodes[name], cache.layers)
                for image in missing:
                    layers.offer(image)
                node.load(missing)
        else:
            say(f"{name} has all {len(images)} images")

    with ThreadPoolExecutor() as threads:
        list(threads.map(load_node, nodes))


def _local_name(tag: str) -> str:
    return f"localhost/cotune-build:{tag}"


def _make_root_file_system(archive: Path, debian_packages: Sequence[str]) -> None:
    unfinished = archive.with_suffix(".new.tar")
    command = [
        *("mmdebstrap", "--variant=essential", "--quiet"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _BASE_LEFT_OUT),
        f"--include={','.join(debian_packages)}",
        f"--customize-hook={_BASE_HOOK}",
        *(_BASE_SUITE, str(unfinished)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalClusterError("mmdebstrap failed:\n" + "\n".join(done.stderr.splitlines()[-10:]))
    shutil.move(unfinished, archive)
