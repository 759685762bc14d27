"""The files of a git repository at one commit, without a work tree and without its history."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from rtsr.errors import RtsrError


def open_repository(
    repository: str, commit: str, clones: Path | None, work: Path
) -> RepositoryFiles:
    """Open what lies in `clones`, or else a new clone in `work` without any file's content.

    Args:
        repository: ``owner/name`` on GitHub, or any URL or folder that git can read.
        commit: a commit's full name, a branch, a tag, or ``HEAD``.
        clones: has ``OWNER/NAME.git`` or ``OWNER/NAME``, bare or with a work tree.

    Raises:
        RtsrError: there is no such repository, or no such commit in it.
    """
    for path in (f"{repository}.git", repository):
        if clones is not None and (clones / path).is_dir():
            git_dir = clones / path / ".git"
            return RepositoryFiles(
                repository, git_dir if git_dir.is_dir() else clones / path, commit
            )
    url = repository
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) and not Path(repository).exists():
        url = f"https://github.com/{repository}.git"
    files = RepositoryFiles(repository, work / "clone.git", "FETCH_HEAD", partial=True)
    files.git("init", "--quiet", "--bare")
    files.git("remote", "add", "origin", url)
    # Else git takes what was left out for damage.
    files.git("config", "remote.origin.promisor", "true")
    files.git("config", "remote.origin.partialclonefilter", "blob:none")
    files.git("fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", commit)
    # The next fetch gives that name to something else.
    files.commit = files.commit_name()
    return files


class RepositoryFiles:
    """Lists and reads files; a partial clone downloads the content of those that are read."""

    def __init__(self, name: str, git_dir: Path, commit: str, *, partial: bool = False) -> None:
        self.name = name
        self.git_dir = git_dir
        self.commit = commit
        self.partial = partial

    def git(self, *arguments: str, text: str = "") -> str:
        # A repository that is gone must not ask the terminal for a password.
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        command = ["git", f"--git-dir={self.git_dir}", *arguments]
        try:
            done = subprocess.run(
                command, input=text.encode(), capture_output=True, env=environment
            )
        except FileNotFoundError as error:
            raise RtsrError("git is not here; install it.") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            fatal = next((line for line in lines if line.startswith("fatal: ")), lines[-1])
            raise RtsrError(
                f"Cannot read the repository {self.name}: {fatal.removeprefix('fatal: ')}"
            )
        return done.stdout.decode(errors="replace")

    def commit_name(self) -> str:
        return self.git("rev-parse", "--verify", f"{self.commit}^{{commit}}").strip()

    def list(self) -> dict[str, str]:
        """Each file's path and the name of its content."""
        listing = self.git("ls-tree", "-r", "-z", self.commit)
        entries = (line.split("\t", 1) for line in listing.split("\0") if line)
        return {path: facts.split()[2] for facts, path in entries if " blob " in facts}

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Contents by their names; what this clone lacks and cannot get is left out."""
        if self.partial:
            self._download(names)
        command = ["git", f"--git-dir={self.git_dir}", "cat-file", "--batch"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            for name in names:
                reader.stdin.write(f"{name}\n".encode())
                reader.stdin.flush()
                facts = reader.stdout.readline().decode().split()
                if len(facts) == 3:
                    yield name, reader.stdout.read(int(facts[2]))
                    reader.stdout.read(1)  # the line's end behind it
            reader.stdin.close()

    def _download(self, names: Sequence[str]) -> None:
        """In one go: git would fetch what it reads one by one."""
        objects = self.git("rev-list", "--objects", "--missing=print", self.commit).splitlines()
        missing = {line[1:].split()[0] for line in objects if line.startswith("?")}
        wanted = "".join(f"{name}\n" for name in names if name in missing)
        if wanted:
            fetch = ("fetch", "--quiet", "--no-tags", "--filter=blob:none", "--stdin", "origin")
            self.git(*fetch, text=wanted)
