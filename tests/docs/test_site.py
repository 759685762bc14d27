"""What the site's hooks make of docstrings and of links into the repository."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

griffe = pytest.importorskip("griffe")
mkdocs_config = pytest.importorskip("mkdocs.config")
from mkdocs.structure.files import Files, get_files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402

ROOT = Path(__file__).parents[2]


def _hook(name: str) -> ModuleType:
    path = ROOT / "docs" / "hooks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def read_docstring() -> Any:
    """`read_docstring(text)`: the text as the reference shows it."""
    hook = _hook("plain_docstrings").PlainDocstrings()

    def read(text: str) -> str:
        function = griffe.Function("enhance", docstring=griffe.Docstring(text))
        hook.on_object(obj=function)
        return str(function.docstring.value)

    return read


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        pytest.param(
            "See :class:`~rtsr.batch.upsampler.BatchUpsampler`.", "See `BatchUpsampler`.", id="~"
        ),
        pytest.param("Call :meth:`start` first.", "Call `start` first.", id="name"),
        pytest.param("Raise :class:`rtsr.RtsrError`.", "Raise `rtsr.RtsrError`.", id="dotted"),
        pytest.param(
            "So::\n\n    step()\n\nThen.", "So:\n\n    step()\n\nThen.", id="literal block"
        ),
        pytest.param("Rates a, b: in Hz.", "Rates a, b: in Hz.", id="prose"),
    ],
)
def test_marks_of_restructured_text(read_docstring: Any, written: str, shown: str) -> None:
    assert read_docstring(written) == shown


def test_parameters_that_share_an_entry_get_one_each(read_docstring: Any) -> None:
    text = """Enhance.

    Args:
        rate: Hz.
        seed, wet,
        cutoff: as for another,
            and more.

    Raises:
        ModelError, ProviderError: it cannot be run.
    """
    shown = read_docstring(text).splitlines()
    for name in ("seed", "wet", "cutoff"):
        line = shown.index(f"    {name}: as for another,")
        assert shown[line + 1] == "        and more."
    assert "    ModelError, ProviderError: it cannot be run." in shown


@pytest.fixture(scope="module")
def site() -> tuple[ModuleType, Any, Files]:
    """The hook for files, the site's configuration, and all its files."""
    config = mkdocs_config.load_config(str(ROOT / "mkdocs.yml"))
    files = config.plugins.on_files(get_files(config), config=config)
    return config.hooks["docs/hooks/repository_files.py"], config, files


@pytest.mark.parametrize(
    ("page", "link", "target"),
    [
        pytest.param(
            "training.md", "architecture.md#latency", "architecture.md#latency", id="page"
        ),
        pytest.param(
            "results.md",
            "../bench/results/quality/quality.md",
            "repository/bench/results/quality/quality.md",
            id="result",
        ),
        pytest.param(
            "guides/voice-app.md", "../../CONTRIBUTING.md", "../contributing.md", id="contributing"
        ),
        pytest.param(
            "contributing.md", "docs/architecture.md", "architecture.md", id="from the root"
        ),
        pytest.param(
            "guides/benchmarks.md",
            "../../bench/results",
            "../repository/bench/results/README.md",
            id="a folder's README",
        ),
    ],
)
def test_links_lead_to_pages_of_the_site(
    site: tuple[ModuleType, Any, Files], page: str, link: str, target: str
) -> None:
    hook, config, files = site
    file = files.get_file_from_path(page)
    shown = hook.on_page_markdown(f"[it]({link})", Page("", file, config), config, files)
    assert shown == f"[it]({target})"
    assert files.get_file_from_path("repository/bench/results/quality/quality.md") is not None


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        pytest.param("[all](../tests)", "all", id="bare folder"),
        pytest.param("[x](https://example.org/a)", "[x](https://example.org/a)", id="address"),
        pytest.param("`[x](../LICENSE)`", "`[x](../LICENSE)`", id="code"),
        pytest.param("![p](../a.png)", "![p](repository/a.png)", id="picture"),
    ],
)
def test_other_links(site: tuple[ModuleType, Any, Files], written: str, shown: str) -> None:
    hook, config, files = site
    page = Page("", files.get_file_from_path("results.md"), config)
    assert hook.on_page_markdown(written, page, config, files) == shown
