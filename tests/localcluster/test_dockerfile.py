"""Which files decide whether an image must be built again."""

from pathlib import Path

import pytest
from localcluster.dockerfile import copied_sources, inputs_key
from localcluster.errors import LocalClusterError


@pytest.mark.parametrize(
    ("dockerfile", "sources"),
    [
        ("FROM x\nCOPY a b /target/", ["a", "b"]),
        ("COPY --chown=1:1 --chmod=755 a /target", ["a"]),
        ("COPY --from=other a /target", []),
        ('COPY ["a b", "/target"]', ["a b"]),
        ("# COPY no /target\nADD a.tar /", ["a.tar"]),
        ("COPY \\\n  a \\\n  b \\\n  /target", ["a", "b"]),
        ("copy a /target", ["a"]),
        ("RUN echo COPY x y", []),
    ],
)
def test_copied_sources(dockerfile: str, sources: list[str]) -> None:
    assert copied_sources(dockerfile) == sources


def test_a_source_that_would_go_unnoticed_is_refused() -> None:
    with pytest.raises(LocalClusterError, match="use COPY instead"):
        copied_sources("RUN --mount=type=bind,source=a,target=/a make")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("1")
    (tmp_path / "unrelated").write_text("1")
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY package /opt/package\n")
    return tmp_path


def key(repository: Path, *more: str) -> str:
    return inputs_key(repository / "Dockerfile", repository, *more)


def test_the_key_follows_what_is_copied(repository: Path) -> None:
    before = key(repository)
    (repository / "package" / "module.py").write_text("2")
    assert key(repository) != before


def test_the_key_follows_the_names_of_copied_files(repository: Path) -> None:
    before = key(repository)
    (repository / "package" / "module.py").rename(repository / "package" / "other.py")
    assert key(repository) != before


def test_the_key_follows_the_base(repository: Path) -> None:
    assert key(repository, "base-1") != key(repository, "base-2")


def test_the_key_ignores_everything_else(repository: Path) -> None:
    before = key(repository)
    (repository / "unrelated").write_text("2")
    (repository / "package" / "__pycache__").mkdir()
    (repository / "package" / "__pycache__" / "module.pyc").write_text("2")
    assert key(repository) == before


def test_a_missing_source_is_named(repository: Path) -> None:
    (repository / "Dockerfile").write_text("FROM x\nCOPY gone /opt\n")
    with pytest.raises(LocalClusterError, match="gone does not exist"):
        key(repository)
