"""The local cluster for the machine without a network: its programs as built here, and Debian's for networks and containers.

`build/gpu-cluster-1` and `-2`. There, `gpu.cluster_files` puts what the machine lacks into its own file tree, and
COTUNE_CACHE names the folder with the programs, so that the local cluster finds them built.
"""

import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from localcluster.binaries import CONTAINERD, COREDNS, KUBERNETES, PAUSE, Module, ensure_built
from localcluster.locations import Cache

from gpu.bundle import download, pack, thinned, write_manifest

_REPOSITORY = Path(__file__).parents[2]
_PACKAGES = (
    *("containernetworking-plugins", "iproute2", "iptables", "runc"),
    # Libraries of theirs. A newer one that is there already stays: they are compatible by their names.
    *("libbpf1", "libbsd0", "libcap2", "libelf1", "libip4tc2", "libip6tc2", "libmd0", "libmnl0", "libnftnl11"),
    *("libseccomp2", "libtirpc3", "libxtables12", "zlib1g"),
)
_KEPT_PROGRAMS = {
    "ip",
    "iptables",
    "iptables-restore",
    "iptables-save",
    "runc",
    "xtables-nft-multi",
    "xtables-legacy-multi",
}
_KEPT_PROGRAMS |= {
    f"{family}-{kind}{what}"
    for family in ("iptables", "ip6tables")
    for kind in ("nft", "legacy")
    for what in ("", "-restore", "-save")
}
_KEPT_PLUGINS = {"host-local", "loopback", "portmap", "ptp"}
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 192 << 20}]
"""The programs of containerd share most of their packages: a dictionary that reaches from one to the next."""


def kept(path: PurePosixPath) -> bool:
    """Whether a file of a Debian package is wanted: programs, plugins, and libraries."""
    folder, name = str(path.parent), path.name
    if folder in {"usr/bin", "usr/sbin"}:
        return name in _KEPT_PROGRAMS
    if folder == "usr/lib/cni":
        return name in _KEPT_PLUGINS
    return folder.endswith("/xtables") or (folder == "usr/lib/x86_64-linux-gnu" and ".so." in name)


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
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        parts: dict[str, list[Module]] = {"gpu-cluster-1": [KUBERNETES], "gpu-cluster-2": [CONTAINERD, COREDNS, PAUSE]}
        debian_files(tree / "root")
        for name, modules in parts.items():
            folder = build_folder / name
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            names: list[str] = []
            for module in modules:
                built = ensure_built(module, cache)
                names.append(f"programs/{built.name}")
                (tree / "programs").mkdir(exist_ok=True)
                (tree / names[-1]).symlink_to(built)
            pack_tree(
                tree, [*names, *(["root"] if CONTAINERD in modules else [])], folder / f"cluster-{name[-1]}.tar.xz"
            )
        wheels = download(build_folder / "gpu-wheels", _REPOSITORY / "requirements" / "gpu-cluster.txt")
        packages = {path: content for wheel in wheels for path, content in thinned(wheel).items()}
        pack(packages, build_folder / "gpu-cluster-2" / "operator.tar.xz")
        for name in parts:
            sizes[name] = write_manifest(build_folder / name, [it.name for it in wheels] if name[-1] == "2" else [])
    return sizes


def main() -> int:
    """Build both and say how large they are."""
    for name, size in build(_REPOSITORY / "build", Cache.from_environment()).items():
        print(f"build/{name}: {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
