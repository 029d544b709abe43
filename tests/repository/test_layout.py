"""What must hold for the repository as a whole."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_standard_librarys_operator_module_is_not_shadowed() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.__file__)"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout

    assert not Path(found.strip()).is_relative_to(REPOSITORY)
    for shadow in ("operator/__init__.py", "operator/conftest.py", "tests/operator"):
        assert not (REPOSITORY / shadow).exists(), shadow


def test_no_lock_file_names_where_packages_come_from() -> None:
    locks = list((REPOSITORY / "requirements").glob("*.txt"))

    assert locks
    assert not [path.name for path in locks if "://" in path.read_text()]
