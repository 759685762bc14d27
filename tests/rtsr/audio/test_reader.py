"""Reading with libsndfile, beside what whole files show."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import soundfile

from rtsr.audio.reader import open_input


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
