"""Two baresips in one network namespace and the bridge in another, with a cable in between."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CALLER, CALLEE, BRIDGE = "10.77.0.2", "10.77.0.3", "10.77.0.1"

_CONFIG = """\
sip_listen {address}:5060
audio_source aufile,{voice}
audio_player aubridge,played
audio_alert aubridge,alert
audio_level no
call_max_calls 4
snd_path {folder}
opus_bitrate 64000
module_path /usr/lib/baresip/modules
module stdio.so
module g711.so
module g722.so
module opus.so
module srtp.so
module aufile.so
module aubridge.so
module sndfile.so
module_tmp uuid.so
module_tmp account.so
module_app menu.so
"""


def why_not() -> str | None:
    """Why no telephone can be tried here, if none can."""
    if shutil.which("baresip") is None:
        return "there is no baresip here"
    if shutil.which("ip") is None or os.geteuid() != 0:
        return "network namespaces need root and iproute2"
    # A name that other programs which try this at the same time do not have.
    probe = f"rtsr-t{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True)
    if made.returncode:
        return "network namespaces are refused here"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


@contextlib.contextmanager
def cable() -> Iterator[tuple[str, str]]:
    """Names of the namespaces of the telephones and of the bridge, connected."""
    phones, bridge = f"rtsr-p{os.getpid()}", f"rtsr-b{os.getpid()}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in (phones, bridge):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", phones, "link", "add", "v0", "type", "veth", "peer", "v1", "netns", bridge)
        for address in (CALLER, CALLEE):
            ip("-n", phones, "addr", "add", f"{address}/24", "dev", "v0")
        ip("-n", bridge, "addr", "add", f"{BRIDGE}/24", "dev", "v1")
        ip("-n", phones, "link", "set", "v0", "up")
        ip("-n", bridge, "link", "set", "v1", "up")
        yield phones, bridge
    finally:
        for name in (phones, bridge):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Phone:
    """One baresip."""

    def __init__(
        self,
        namespace: str,
        folder: Path,
        address: str,
        voice: Path,
        account: str,
        settings: str = "",
    ) -> None:
        folder.mkdir()
        config = _CONFIG.format(address=address, voice=voice, folder=folder) + settings
        (folder / "config").write_text(config)
        (folder / "accounts").write_text(f"<sip:phone@{address}>;regint=0;{account}\n")
        (folder / "contacts").write_text("")
        self.folder = folder
        self._log = (folder / "log").open("w+")
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "baresip", "-f", str(folder)],
            stdin=subprocess.PIPE, stdout=self._log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.wait_for("baresip is ready", 20)

    def type(self, command: str) -> None:
        """A command at its prompt."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text(errors="replace")

    def wait_for(self, words: str, seconds: float = 30.0) -> None:
        """Wait until it says something."""
        end = time.monotonic() + seconds
        while words not in self.log:
            assert time.monotonic() < end, f"{words!r} not in:\n{self.log}"
            assert self._process.poll() is None, self.log
            time.sleep(0.05)

    def recording(self, kind: str) -> Path:
        """What it heard ("dec") or said ("enc"), as a WAV file."""
        return max(self.folder.glob(f"dump-*-{kind}.wav"), key=lambda path: path.stat().st_mtime)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@contextlib.contextmanager
def running_bridge(namespace: str, *options: str, target: str = "") -> Iterator[subprocess.Popen]:
    """`rtsr call sip` in a namespace; its first line has been read, stderr has its log."""
    target = target or f"sip:phone@{CALLEE}:5060"
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "rtsr", "call", "sip",
         "--listen", f"{BRIDGE}:5060", "--to", target, "--deadline-ms", "200", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("rtsr call sip: "), process.communicate()
        yield process
    finally:
        process.terminate()
        try:
            _, errors = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
        process.log = errors
        assert "Traceback" not in errors, errors
