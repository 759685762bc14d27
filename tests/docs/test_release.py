"""The script that a release asks for its notes and addresses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "release.py"

PYPROJECT = '[project]\nname = "rtsr"\nversion = "0.2.0"\n\n[project.scripts]\nrtsr = "x"\n'
CHANGELOG = """# Changelog

## 0.2.0 (2027-01-31)

- Louder.
- Later.

## 0.1.0 (2026-12-01)

- First.
"""


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def test_notes_are_the_section_of_the_version(release: ModuleType, tree: Path) -> None:
    assert release.notes("v0.2.0", tree) == "- Louder.\n- Later."


def test_notes_end_with_the_file_too(release: ModuleType, tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0 (2027-01-31)\n\n- Only.\n")
    assert release.notes("v0.2.0", tree) == "- Only."


@pytest.mark.parametrize(
    ("tag", "changelog", "reason"),
    [
        pytest.param("v0.3.0", CHANGELOG, "does not fit version '0.2.0'", id="another tag"),
        pytest.param("0.2.0", CHANGELOG, "does not fit version '0.2.0'", id="no v"),
        pytest.param(
            "v0.2.0", CHANGELOG.replace("2027-01-31", "unreleased"), "'unreleased'", id="unreleased"
        ),
        pytest.param("v0.2.0", CHANGELOG.replace("0.2.0", "0.2.01"), "no section", id="absent"),
        pytest.param(
            "v0.2.0", CHANGELOG.replace("- Louder.\n- Later.\n", ""), "says nothing", id="empty"
        ),
    ],
)
def test_what_does_not_agree_is_not_released(
    release: ModuleType, tree: Path, tag: str, changelog: str, reason: str
) -> None:
    (tree / "CHANGELOG.md").write_text(changelog)
    with pytest.raises(release.ReleaseError, match=reason):
        release.notes(tag, tree)


def test_addresses_are_written_once(release: ModuleType, tree: Path) -> None:
    release.write_urls("https://git.example/voices/rtsr", tree)
    text = (tree / "pyproject.toml").read_text()
    assert text.index("[project.urls]") < text.index("[project.scripts]")
    assert 'Issues = "https://git.example/voices/rtsr/issues"' in text
    assert 'Changelog = "https://git.example/voices/rtsr/blob/v0.2.0/CHANGELOG.md"' in text
    with pytest.raises(release.ReleaseError, match="already"):
        release.write_urls("https://git.example/voices/rtsr", tree)


@pytest.mark.parametrize("address", ["rtsr", "https://git.example", 'https://x.example/"\nname'])
def test_only_addresses_of_repositories_are_written(
    release: ModuleType, tree: Path, address: str
) -> None:
    with pytest.raises(release.ReleaseError, match="not the address"):
        release.write_urls(address, tree)
    assert (tree / "pyproject.toml").read_text() == PYPROJECT


def test_the_command_says_in_one_sentence_what_does_not_fit() -> None:
    finished = subprocess.run(
        [sys.executable, SCRIPT, "notes", "v9.9.9"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("release: The tag 'v9.9.9' does not fit version ")
