"""Compiled code on disk: found again, never in the way when nothing can be written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from numba import config, float64, njit
from numba.core.runtime import rtsys

import rtsr_kernels
from rtsr_kernels import crossfade, disk_cache, highpass, noise, overlap_add, resample, ring

REPORT = """
import time
import numba
start = time.process_time()
import rtsr_kernels
seconds = time.process_time() - start
import rtsr_kernels.ring
hits = sum(rtsr_kernels.ring.ring_write.stats.cache_hits.values())
place = rtsr_kernels.ring.ring_write.stats.cache_path
print(rtsr_kernels.__file__, seconds, hits, place, sep="|")
"""


@pytest.fixture
def read_only_install(tmp_path: Path) -> Path:
    """A copy whose `__pycache__` cannot be made, not even by root, who ignores permissions."""
    package = tmp_path / "site" / "rtsr_kernels"
    source = Path(rtsr_kernels.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    # One module is enough to see where its code goes, and compiles in a second.
    (package / "__init__.py").write_text("from . import ring\n")
    (package / "__pycache__").write_text("")
    for path in [*package.iterdir(), package]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return package.parent


def import_in_subprocess(
    site: Path, *, under: tuple[str, ...] = (), **environment: str
) -> tuple[str, float, int, str]:
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG"))}
    variables |= {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    command = [*under, sys.executable, "-c", REPORT]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    print(result.stderr, file=sys.stderr, end="")
    file, seconds, hits, place = result.stdout.strip().split("|")
    assert Path(file).is_relative_to(site)
    return file, float(seconds), int(hits), place


@pytest.mark.slow
def test_read_only_install_caches_for_the_user(read_only_install: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    _, cold, hits, place = import_in_subprocess(read_only_install, HOME=str(home))
    assert hits == 0
    _, warm, hits, again = import_in_subprocess(read_only_install, HOME=str(home))
    assert hits == 1
    assert place == again
    assert warm < cold
    if sys.platform == "linux":
        assert Path(place).is_relative_to(home)


@pytest.mark.slow
def test_read_only_install_obeys_the_cache_variable(
    read_only_install: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    places = {import_in_subprocess(read_only_install, NUMBA_CACHE_DIR=str(cache))[2:] for _ in "12"}
    assert {hits for hits, _ in places} == {0, 1}
    assert all(Path(place).is_relative_to(cache) for _, place in places)


@pytest.mark.slow
def test_without_a_home_code_goes_to_a_temporary_folder_of_the_user(
    read_only_install: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    places = [
        import_in_subprocess(read_only_install, HOME=str(blocked), TMPDIR=str(temporary))[2:]
        for _ in range(2)
    ]
    assert [hits for hits, _ in places] == [0, 1]
    (folder,) = temporary.iterdir()
    assert Path(places[0][1]).is_relative_to(folder)
    assert folder.stat().st_mode & 0o077 == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2, "one sentence per start"
    assert f"Compiled code goes to '{folder}'" in told[0]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owner here")
def test_code_is_not_read_from_a_folder_that_others_can_write(
    read_only_install: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    folder = tmp_path / f"rtsr-cache-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    hits = import_in_subprocess(read_only_install, HOME=str(blocked), TMPDIR=str(tmp_path))[2]
    assert hits == 0
    assert not list(folder.iterdir())
    assert "belongs to another user" in capsys.readouterr().err


def obeying_permissions() -> tuple[str, ...]:
    """What a program is started by so that it cannot write what is read-only, not even as root."""
    if not hasattr(os, "getuid"):
        pytest.skip("folders have no permissions here")
    if os.getuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root ignores permissions, and there is no setpriv")
    return "setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"


def seal(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.mark.parametrize("place", ["variable", "package", "home"])
def test_code_that_lies_where_nothing_can_be_written_is_used(tmp_path: Path, place: str) -> None:
    under = obeying_permissions()
    package = tmp_path / "site" / "rtsr_kernels"
    source = Path(rtsr_kernels.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text("from . import ring\n")
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    environment = {"HOME": str(home), "TMPDIR": str(temporary)}
    if place == "variable":
        environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
        (tmp_path / "cache").mkdir()
    if place == "home":
        (package / "__pycache__").write_text("")
    # As an image is built, and run.
    import_in_subprocess(package.parent, **environment)
    sealed = [package.parent, home, *tmp_path.glob("cache")]
    for folder in sealed:
        seal(folder)
    try:
        _, _, hits, where = import_in_subprocess(package.parent, under=under, **environment)
        assert hits == 1
        expected = {"variable": tmp_path / "cache", "package": package, "home": home}[place]
        assert Path(where).is_relative_to(expected)
        assert not list(temporary.iterdir())
        # What lies there for other sources is not taken, and compiled where there is room.
        (package / "ring.py").chmod(0o644)
        with (package / "ring.py").open("a") as file:
            file.write("# changed\n")
        hits = import_in_subprocess(package.parent, under=under, **environment)[2]
        assert hits == 0
    finally:
        for folder in sealed:
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], tuple[float, int]]]:
    """What a small function of the package `one` says, and how often it came from the disk."""
    package = tmp_path / "one"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "adds.py").write_text("def adds(x):\n    return x + 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    adds = import_module("one.adds").adds

    def tell() -> tuple[float, int]:
        compiled = disk_cache.cached(adds, float64(float64), {})
        return compiled(0.0), sum(compiled.stats.cache_hits.values())

    yield tell
    del sys.modules["one"], sys.modules["one.adds"]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["empty", "half", "changed"])
def test_a_damaged_file_is_compiled_anew(
    told: Callable[[], tuple[float, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    damage: str,
) -> None:
    assert told() == (1.0, 0)
    assert told() == (1.0, 1)
    (file,) = (tmp_path / "one" / "__pycache__").glob(f"adds.adds-*.{suffix}")
    content = file.read_bytes()
    middle = len(content) // 2
    damages = {"empty": b"", "half": content[:middle], "changed": b"\xff" * 64 + content[64:]}
    file.write_bytes(damages[damage])
    assert told() == (1.0, 0)
    assert told() == (1.0, 1)
    # Where it cannot be replaced, code goes to the next place.
    file.write_bytes(damages[damage])

    def refused(locator: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    in_package = next(place for place in disk_cache._PLACES if "InTree" in place.__name__)
    monkeypatch.setattr(in_package, "ensure_cache_path", refused)
    assert told() == (1.0, 0)
    assert told() == (1.0, 1)
    assert file.read_bytes() == damages[damage]


def test_code_of_a_function_that_is_called_is_compiled_anew_where_it_has_changed(
    tmp_path: Path,
) -> None:
    package = tmp_path / "pair"
    package.mkdir()
    (package / "__init__.py").write_text("")
    head = "from numba import float64\nfrom rtsr_kernels.compiled import kernel\n"
    (package / "called.py").write_text(
        head + "@kernel(float64(float64))\ndef called(x):\n    return x + 1.0\n"
    )
    (package / "calls.py").write_text(
        head + "from pair.called import called\n"
        "@kernel(float64(float64))\ndef calls(x):\n    return called(x)\n"
    )
    script = "from pair.calls import calls; print(calls(0.0), sum(calls.stats.cache_hits.values()))"

    def told() -> str:
        path = os.pathsep.join([str(tmp_path), str(Path(rtsr_kernels.__file__).parents[1])])
        environment = os.environ | {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", script]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=300
        ).stdout.strip()

    # noise and the like come with the package, and are compiled for this folder as well.
    assert told() == "1.0 0"
    assert told() == "1.0 1"
    text = (package / "called.py").read_text()
    (package / "called.py").write_text(text.replace("1.0", "2.0"))
    assert told() == "2.0 0"


def test_a_second_import_compiles_nothing() -> None:
    site = Path(rtsr_kernels.__file__).parent.parent
    import_in_subprocess(site)
    assert import_in_subprocess(site)[2] == 1


@njit
def _rounds(count, header, data, audio, other, out, tail, frame, values, sos, state, resampler):  # type: ignore[no-untyped-def]
    history, table = resampler
    position = 0
    for i in range(count):
        ring.ring_write(header, data, audio)
        ring.ring_read(header, data, out)
        ring.ring_skip(header, 3)
        crossfade.crossfade_linear(audio, other, out)
        crossfade.crossfade_equal_power(audio, other, out)
        overlap_add(frame, tail, out)
        highpass.apply_sos(sos, state, audio, out)
        noise.fill_noise(1, i, 0, values)
        position = resample.resample_block(audio, out, history, table, position, 160)


def test_no_block_allocates() -> None:
    queue = ring.Ring(1024, 2)
    resampler = resample.StreamingResampler(48000, 44100, 2)
    arguments = [
        queue.header,
        queue.data,
        np.ones((480, 2), dtype=np.float32),
        np.zeros((480, 2), dtype=np.float32),
        np.empty((480, 2), dtype=np.float32),
        np.zeros((120, 2), dtype=np.float32),
        np.ones((600, 2), dtype=np.float32),
        np.empty(64, dtype=np.float32),
        highpass.highpass_sos(4000.0),
        highpass.highpass_state(2),
        (resampler._history, resampler._table),
    ]

    def allocations(rounds: int) -> int:
        before = rtsys.get_allocation_stats().alloc
        _rounds(rounds, *arguments)
        return rtsys.get_allocation_stats().alloc - before

    import_module("numba.core.runtime._nrt_python").memsys_enable_stats()
    allocations(1)
    # numba makes one small handle for each array that enters from Python, and nothing more.
    assert allocations(50) == allocations(1)
