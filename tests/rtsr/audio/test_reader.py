"""Reading with libsndfile, beside what whole files show."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsr.audio.reader import open_input
from rtsr.errors import AudioFormatError


def test_threads_that_read_mp3_leave_stderr_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "in.mp3"
    soundfile.write(path, np.full(160000, 0.1), 8000)
    before = os.fstat(2)

    def read() -> None:
        for _ in range(5):
            with open_input(path) as file:
                assert sum(map(len, file.blocks())) == 160000

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_opened_by_libsndfile_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "whole.wav", np.full(800, 0.1), 8000)
    whole, pipe = (tmp_path / "whole.wav").read_bytes(), tmp_path / "pipe.wav"
    os.mkfifo(pipe)

    def send() -> None:
        with open(pipe, "wb") as file:
            file.write(whole)

    def refuse(path: Path, *_: object) -> None:
        raise OSError(f"'{path}' is opened once more.")

    threading.Thread(target=send, daemon=True).start()
    monkeypatch.setattr(Path, "open", refuse)
    with open_input(pipe) as file:
        assert sum(map(len, file.blocks())) == 800


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no such sockets")
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The system takes no more than 108 bytes of a name here.
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("in.wav")
        with pytest.raises(AudioFormatError, match="cannot be read: the system does not open it"):
            open_input(Path("in.wav"))


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="this system does not name its pipes")
@pytest.mark.parametrize(
    ("layout", "subtype"),
    [("FLAC", "PCM_16"), ("RF64", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16")],
)
def test_what_needs_a_file_is_not_called_damaged_in_a_pipe(
    layout: str, subtype: str, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    soundfile.write(whole, np.full(800, 0.1), 8000, format=layout, subtype=subtype)
    reading, writing = os.pipe()
    os.write(writing, whole.read_bytes())
    os.close(writing)
    try:
        with pytest.raises(AudioFormatError, match=r"from .* save it as a file first\.$"):
            open_input(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
