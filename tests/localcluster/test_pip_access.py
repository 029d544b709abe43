"""The host's pip settings inside a build."""

from pathlib import Path

from localcluster.pip_access import Mount, parse_settings, translate

LISTING = """\
:env:.timeout='60'
global.index-url='https://index.example/simple'
global.timeout='15'
install.extra-index-url='https://a.example\\nhttps://b.example'
"""


def test_the_environment_beats_files() -> None:
    assert parse_settings(LISTING)["timeout"] == "60"


def test_settings_of_single_commands_become_global() -> None:
    configuration, _ = translate(parse_settings(LISTING))
    assert configuration.startswith("[global]\n")
    assert "index-url = https://index.example/simple\n" in configuration
    assert "extra-index-url = https://a.example\n    https://b.example\n" in configuration


def test_files_of_the_host_are_mounted_and_renamed(tmp_path: Path) -> None:
    certificates = tmp_path / "authorities.pem"
    certificates.touch()
    configuration, mounts = translate({"cert": str(certificates)})
    assert mounts == [Mount(certificates, "/run/host-pip/certificates.crt")]
    assert configuration == "[global]\ncert = /run/host-pip/certificates.crt\n"


def test_missing_files_and_host_only_settings_are_left_out() -> None:
    configuration, mounts = translate({"find-links": "/does/not/exist", "cache-dir": "/tmp/cache"})
    assert (configuration, mounts) == ("[global]\n", [])


def test_a_remote_list_of_links_stays_as_it_is() -> None:
    configuration, mounts = translate({"find-links": "https://links.example/"})
    assert "find-links = https://links.example/" in configuration
    assert mounts == []
