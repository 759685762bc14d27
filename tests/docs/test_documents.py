"""What the documentation says, where a machine can check it: links, paths, commands, imports.

The command line is asked itself what it takes, so that a renamed command or option is found here.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rtsr.errors import MissingDependencyError

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "bench/*.md",
        "bench/gpu/*.md",
        "bench/results/*.md",
        "examples/*.md",
    )
    for path in ROOT.glob(pattern)
)
SCRIPTS = [
    ROOT / "Makefile",
    ROOT / ".ci" / "run",
    *sorted(ROOT.glob(".github/workflows/*.yml")),
    *sorted(ROOT.glob("examples/*.sh")),
    *sorted(ROOT.glob("bench/gpu/*.sh")),
]
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
# The changelog tells of files and commands that are gone.
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]

_CODE = re.compile(r"```(\w*)\n(.*?)```|`((?:[^`\n]|\n(?!\n))+)`", re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]*))?\)")
_PATH = re.compile(
    r"(?<![\w/.$}~@-])(?:rtsr|kernels|export|bench|tests|docs|examples|\.github|\.ci)/[\w./*-]*"
)
# Programs that start another one with the rest of their arguments.
_STARTERS = ("pw-jack", "nice", "sudo", "time")


@dataclass(frozen=True)
class Command:
    """A command line, and where it stands."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {' '.join(self.words)}"


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _named(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("document", [pytest.param(p, id=_name(p)) for p in paths])


def _commands(text: str, place: str) -> Iterator[Command]:
    """Yield every simple command in shell code, without what redirects it."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(
            line.replace("[", " ").replace("]", " "), posix=True, punctuation_chars="|&;<>()"
        )
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # prose with an apostrophe
            continue
        part: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("|&;<>()"):
                part = _without_starters(part)
                if part:
                    yield Command(place, tuple(part))
                part = []
            elif word != "...":
                part.append(word)


def _without_starters(words: list[str]) -> list[str]:
    words = list(words)
    while words and (re.match(r"^\w+=", words[0]) or words[0] in ("-", "-run:", "run:", "$")):
        del words[0]
    if words and words[0] in _STARTERS:
        while words and Path(words[0]).name not in ("rtsr", "python"):
            del words[0]
    return words


def _shell(path: Path) -> Iterator[Command]:
    """Yield the commands of a document's code, of a script, or of an example's docstring."""
    text, place = path.read_text(encoding="utf-8"), _name(path)
    if path.suffix == ".md":
        for language, block, inline in _CODE.findall(text):
            if language in ("", "sh", "bash", "console"):
                yield from _commands(block or _completed(inline), place)
    elif path.suffix == ".py":
        yield from _commands(ast.get_docstring(ast.parse(text)) or "", place)
    else:
        yield from _commands(text, place)


def _completed(inline: str) -> str:
    """Give an option that prose names by itself a value."""
    inline = inline.replace("\n", " ")
    return f"{inline} VALUE" if re.search(r" --?[\w-]+$", inline) else inline


def _all_commands() -> list[Command]:
    return [command for path in [*PRESENT, *SCRIPTS, *EXAMPLES] for command in _shell(path)]


def _once(commands: list[Command]) -> list[Any]:
    return [pytest.param(command, id=str(command)) for command in dict.fromkeys(commands)]


RTSR = [c for c in _all_commands() if Path(c.words[0]).name == "rtsr" and len(c.words) > 1]
PYTHON = [c for c in _all_commands() if re.fullmatch(r"(?:.*/)?python3?", c.words[0])]
MAKE = [c for c in _all_commands() if c.words[0] == "make"]


@functools.cache
def _program() -> Any:
    import typer

    from rtsr.cli.app import app

    return typer.main.get_command(app)


def _parse(words: tuple[str, ...]) -> None:
    """Let the command of ``words`` take its options, as it would when run, and run nothing."""
    command, rest = _program(), list(words)
    context = command.context_class(command, info_name="rtsr")
    while hasattr(command, "list_commands"):
        if rest and rest[0].isupper():  # any command
            return
        if not rest or rest[0].startswith("-") or not re.fullmatch(r"[a-z][\w-]*", rest[0]):
            break
        name = rest.pop(0)
        inner = command.get_command(context, name)
        assert inner is not None, f"{context.command_path} has no command {name!r}"
        command = inner
        context = command.context_class(command, info_name=name, parent=context)
    # Values are not looked at: files are made up, and capitals stand for anything.
    _, extra, _ = command.make_parser(context).parse_args(rest)
    # A shell's variable may hold options.
    extra = [word for word in extra if word != "VALUE" and not word.startswith("$")]
    assert not extra, f"{context.command_path} takes no {' '.join(extra)}"


@_named(DOCUMENTS)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    text = _CODE.sub("", document.read_text(encoding="utf-8"))
    for link, anchor in _LINK.findall(text):
        target = (document.parent / link).resolve() if link else document
        assert target.exists(), f"{_name(document)} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), f"{_name(document)} links to {link}#{anchor}"


def _anchors(document: Path) -> set[str]:
    """Return the anchors that headings get, on the site as in the repository."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()).strip() for title in titles)
    return {title.replace(" ", "-") for title in plain}


@_named([*PRESENT, *sorted(ROOT.glob(".github/**/*.yml"))])
def test_every_path_that_is_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    if document.suffix == ".md":
        text = "\n".join(block or inline for _, block, inline in _CODE.findall(text))
    named = {match.rstrip("./") for match in _PATH.findall(text)}
    missing = sorted(path for path in named if not any(ROOT.glob(path)))
    assert not missing


def test_recipes_name_constants_that_there_are() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {inline for _, _, inline in _CODE.findall(text) if re.fullmatch(r"[A-Z_]{4,}", inline)}
    assert named
    folders = ("rtsr", "kernels", "export", "bench", "tests")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    defined = {
        name
        for path in sources
        for name in re.findall(r"^([A-Z_]{4,})\b.* = ", path.read_text(encoding="utf-8"), re.M)
    }
    assert not named - defined


def test_commands_are_found_in_documents() -> None:
    assert {command.place for command in RTSR} >= {"README.md", "docs/live.md", "docs/calls.md"}
    assert len(RTSR) > 50
    assert len(PYTHON) > 10
    assert len(MAKE) > 5


@pytest.mark.parametrize("command", _once(RTSR))
def test_the_command_line_takes_what_is_written(command: Command) -> None:
    _parse(command.words[1:])


@pytest.mark.parametrize(
    "words",
    [
        "enhence a b",
        "enhance a b --modle small",
        "warm-up a",
        "call web --to sip:a@b",
        "live --learn",
    ],
)
def test_a_wrong_command_line_would_be_noticed(words: str) -> None:
    with pytest.raises(
        Exception, match=r"(?i)no such option|has no command|requires an|takes no|unexpected extra"
    ):
        _parse(tuple(words.split()))


@pytest.mark.parametrize("command", _once(PYTHON))
def test_python_is_given_what_exists(command: Command) -> None:
    words = [word for word in command.words[1:] if word != "-u"]
    if words and words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
    elif words and words[0].endswith(".py"):
        # Examples and tools are started from the root of the repository.
        source = (ROOT / words[0]).read_text(encoding="utf-8")
        for option in words[1:]:
            if option.startswith("--"):
                name = option.partition("=")[0]
                # argparse is told the option's name, typer a parameter's.
                parameter = name[2:].replace("-", "_")
                assert f'"{name}"' in source or re.search(rf"\b{parameter}: ", source)


@pytest.mark.parametrize("command", _once(MAKE))
def test_make_knows_the_target(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in command.words[1:] if "=" not in word and not word.startswith("-")]
    for target in targets:
        pattern = target.replace(".venv", "$(VENV)")
        assert re.search(rf"^{re.escape(pattern)}:", makefile, re.MULTILINE)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = " ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)).split()
    assert re.findall(r"^## ([\w-]+): \S", makefile, re.MULTILINE) == phony


@_named(PRESENT)
def test_python_code_compiles_and_imports_what_there_is(document: Path) -> None:
    for language, block, _ in _CODE.findall(document.read_text(encoding="utf-8")):
        if language != "python":
            continue
        # Pieces of documentation may await without a function around it.
        tree = compile(
            block,
            _name(document),
            "exec",
            ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rtsr"):
                try:
                    module = importlib.import_module(str(node.module))
                except MissingDependencyError:
                    # The extra "call" needs a newer Python than the rest.
                    continue
                for name in node.names:
                    assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def test_the_reference_names_every_public_name() -> None:
    import rtsr

    pages = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: rtsr\.(\w+)$", pages, re.MULTILINE))
    assert shown == set(rtsr.__all__)


def test_the_site_lists_every_page() -> None:
    configured = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"([\w/-]+\.md)$", configured, re.MULTILINE))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert listed == pages | {"contributing.md", "changelog.md"}
