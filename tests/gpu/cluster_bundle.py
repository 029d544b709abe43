"""The local cluster for the machine without a network: its programs as built here, and Debian's for networks and pods.

`build/gpu-cluster-1` and `-2`: with them alone the whole job runs, with the speech server as its stack. There,
`gpu.cluster_files` puts what the machine lacks into its own file tree, and the folder with the programs is the local
cluster's cache, so that it finds them built.
"""

import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from cotune_servers.weights.ctranslate2_file import read_variables
from cotune_servers.weights.whisper_checkpoint import dimensions, state
from localcluster.binaries import CONTAINERD, COREDNS, KUBERNETES, PAUSE, Module, ensure_built
from localcluster.locations import Cache

from gpu.bundle import Files, download, pack, thinned, write_manifest
from gpu.stack_bundle import probe_files, sources, speech_files, weight_files, weights

_REPOSITORY = Path(__file__).parents[2]
_PACKAGES = (
    *("containernetworking-plugins", "iproute2", "iptables", "runc"),
    # Libraries of theirs. A newer one that is there already stays: they are compatible by their names.
    *("libbpf1", "libbsd0", "libcap2", "libelf1", "libip4tc2", "libip6tc2", "libmd0", "libmnl0", "libnftnl11"),
    *("libseccomp2", "libtirpc3", "libxtables12", "zlib1g"),
)
_KEPT_PROGRAMS = {
    *("ip", "runc", "xtables-nft-multi", "xtables-legacy-multi"),
    *(f"iptables{it}" for it in ("", "-restore", "-save")),
    *(
        f"{family}-{kind}{it}"
        for family in ("iptables", "ip6tables")
        for kind in ("nft", "legacy")
        for it in ("", "-restore", "-save")
    ),
}
_KEPT_PLUGINS = {"host-local", "loopback", "portmap", "ptp"}
_SHARED_PACKAGES = {
    *("annotated_types", "cffi", "cryptography", "more_itertools", "pycparser"),
    *("pydantic", "pydantic_core", "python_json_logger", "typing_inspection"),
}
"""What of requirements/gpu.txt is needed without vLLM."""
_MODEL = "tiny.en"
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 192 << 20}]
"""The programs of containerd share most of their packages: a dictionary that reaches from one to the next."""


def kept(path: PurePosixPath) -> bool:
    """Whether a file of a Debian package is wanted: programs, plugins, and libraries."""
    folder, name = str(path.parent), path.name
    if folder in {"usr/bin", "usr/sbin"}:
        return name in _KEPT_PROGRAMS
    if folder == "usr/lib/cni":
        return name in _KEPT_PLUGINS
    return folder.endswith("/xtables") or (folder == "usr/lib/x86_64-linux-gnu" and ".so" in name)


def merged(path: PurePosixPath) -> PurePosixPath:
    """Where a file lies on a system whose /bin, /sbin and /lib are links into /usr."""
    return PurePosixPath("usr", path) if path.parts[0] in {"bin", "sbin", "lib"} else path


def debian_files(into: Path) -> None:
    """What is wanted of the packages, below `into`."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "-qq", "-oAPT::Sandbox::User=root", "download", *_PACKAGES], cwd=scratch, check=True)
        for package in sorted(Path(scratch).glob("*.deb")):
            tree = Path(scratch) / "tree" / package.stem
            tree.mkdir(parents=True)
            subprocess.run(["dpkg", "-x", str(package), str(tree)], check=True)
            for path in sorted(it for it in tree.rglob("*") if it.is_symlink() or it.is_file()):
                place = merged(PurePosixPath(path.relative_to(tree)))
                if kept(place):
                    (into / place).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, into / place, follow_symlinks=False)
    # What Debian's alternatives choose.
    for name in ("iptables", "iptables-restore", "iptables-save"):
        link = into / "usr" / "sbin" / name
        link.unlink(missing_ok=True)
        link.symlink_to("xtables-nft-multi")


def pack_tree(folder: Path, names: Iterable[str], target: Path) -> None:
    """Files and links below `folder`, with their modes and without times and owners."""
    with (
        lzma.open(target, "wb", format=lzma.FORMAT_XZ, filters=_FILTERS) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name in names:
            for path in sorted(it for it in (folder / name).rglob("*") if it.is_symlink() or it.is_file()):
                member = archive.gettarinfo(path, str(path.relative_to(folder)))
                member.uid = member.gid = member.mtime = 0
                member.uname = member.gname = ""
                if member.isfile():
                    with path.open("rb") as content:
                        archive.addfile(member, content)
                else:
                    archive.addfile(member)


def build(build_folder: Path, cache: Cache) -> "dict[str, int]":
    """Make both folders; returns the bytes of each."""
    first, second = build_folder / "gpu-cluster-1", build_folder / "gpu-cluster-2"
    for folder in (first, second):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        (tree / "programs").mkdir()
        debian_files(tree / "root")
        pack_tree(tree, [*_linked(tree, cache, CONTAINERD, COREDNS, PAUSE), "root"], first / "cluster-node.tar.xz")
        pack_tree(tree, _linked(tree, cache, KUBERNETES), second / "cluster-kubernetes.tar.xz")
    wheels = download(build_folder / "gpu-wheels", _REPOSITORY / "requirements" / "gpu-cluster.txt")
    pack(_files_of(wheels), first / "operator.tar.xz")
    shared = download(build_folder / "gpu-wheels")
    shared = [it for it in shared if it.name.partition("-")[0] in _SHARED_PACKAGES]
    pack(_files_of(shared), first / "packages.tar.xz")
    found = sources(build_folder / "gpu-sources")
    packages, probe = probe_files(build_folder, found["openai_whisper"])
    pack(packages, first / "probe.tar.xz")
    pack(speech_files(found["pocketsphinx"]), first / "speech.tar.xz")
    variables = read_variables(weights(build_folder / "gpu-weights")[_MODEL])
    pack(weight_files(_MODEL, dimensions(variables), state(variables)), second / "whisper-1.tar.xz")
    versions = [it.name for it in (*wheels, *shared, *probe)]
    return {first.name: write_manifest(first, versions), second.name: write_manifest(second, ())}


def _linked(tree: Path, cache: Cache, *modules: Module) -> "list[str]":
    names: list[str] = []
    for module in modules:
        built = ensure_built(module, cache)
        names.append(f"programs/{built.name}")
        (tree / names[-1]).symlink_to(built)
    return names


def _files_of(wheels: Iterable[Path]) -> Files:
    return {path: content for wheel in wheels for path, content in thinned(wheel).items()}


def main() -> int:
    """Build both and say how large they are."""
    for name, size in build(_REPOSITORY / "build", Cache.from_environment()).items():
        print(f"build/{name}: {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
