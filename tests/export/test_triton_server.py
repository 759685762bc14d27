"""A model repository in a real Triton server, with real clients.

The server is the one of the PyPI package nvidia-pytriton, which has the Python backend alone. It
lies in an environment of its own, which ``make test-triton`` makes; without it these are skipped.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rtsr import RtsrError, Upsampler
from rtsr.runtime.models import find_model
from rtsr_export.triton import Serving, write_repository

pytestmark = pytest.mark.slow

RUNTIME = Path(__file__).parents[2] / ".triton-runtime"
STREAMS = 8
# Of the server, so that a test need not wait for long; far more than a slow machine's pauses.
IDLE_S = 4
RATE = 8000
LOAD = Path(__file__).parents[2] / "examples" / "triton_load.py"
MakeSound = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def installed() -> Path:
    """The folder of the server."""
    pytest.importorskip("grpc")
    if not (RUNTIME / ".installed").exists():
        pytest.skip("there is no Triton server here; `make test-triton` installs one")
    (found,) = RUNTIME.glob("lib/python3.*/site-packages/pytriton/tritonserver")
    stub = found / "backends" / "python" / "triton_python_backend_stub"
    needed = subprocess.run(["ldd", stub], capture_output=True, text=True).stdout
    missing = [line.split()[0] for line in needed.splitlines() if "not found" in line]
    if any("python" in name for name in missing):
        pytest.skip(f"the Python backend needs {', '.join(missing)}, which is not installed")
    return found


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _die_with_parent() -> None:
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@contextlib.contextmanager
def _running(installed: Path, repository: Path, folder: Path) -> Iterator[str]:
    """Run a server; it is gone afterwards, with its backend's process and memory."""
    prefix = f"rtsr_test_{secrets.token_hex(4)}"
    url = f"127.0.0.1:{_free_port()}"
    log = folder / "server.log"
    environment = {
        **os.environ,
        # The backend's Python is the one that comes first here.
        "PATH": f"{RUNTIME / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(installed.parents[1] / "nvidia_pytriton.libs"),
    }
    with log.open("w") as output:
        server = subprocess.Popen(
            [
                installed / "bin" / "tritonserver",
                f"--model-repository={repository}",
                f"--backend-directory={installed / 'backends'}",
                f"--backend-config=python,shm-region-prefix-name={prefix}",
                "--disable-auto-complete-config",
                "--allow-http=false",
                "--allow-metrics=false",
                "--grpc-address=127.0.0.1",
                f"--grpc-port={url.rpartition(':')[2]}",
            ],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    try:
        _wait_until_ready(url, server, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        for left in Path("/dev/shm").glob(f"{prefix}*"):
            left.unlink()


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    deadline = time.monotonic() + 60
    with triton.InferenceServerClient(url) as client:
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(InferenceServerException):
                if client.is_server_ready():
                    return
            time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def url(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server takes eight streams of the smallest model."""
    folder = tmp_path_factory.mktemp("triton")
    serving = Serving(streams=STREAMS, batch=STREAMS, backend="python", idle_us=IDLE_S * 1_000_000)
    write_repository(find_model("small"), folder / "models", serving)
    with _running(installed, folder / "models", folder) as url:
        yield url


@pytest.fixture
def connect(url: str, client: ModuleType) -> Iterator[Callable[[], Any]]:
    """``connect()``: a connection of its own, for one thread."""
    with contextlib.ExitStack() as opened:

        def connection() -> Any:
            server = client.TritonServer(url, "rtsr_small")
            opened.callback(server.close)
            return server

        yield connection


def _signals(server: Any, seed: int) -> dict[str, np.ndarray]:
    model = server.model
    random = np.random.default_rng(seed)
    return {
        "audio": 0.1 * random.standard_normal((1, 1, 480)).astype(np.float32),
        "noise": random.standard_normal((1, model.noise_channels, 1)).astype(np.float32),
        "f_prior": np.full((1, 1, 1), 4000, np.float32),
        "f_target": np.full((1, 1, 1), model.f_target, np.float32),
    }


def _runs(url: str) -> tuple[int, int]:
    """Steps of streams so far, and runs of the graph that they took."""
    import tritonclient.grpc as triton

    with triton.InferenceServerClient(url) as client:
        (model,) = client.get_inference_statistics("rtsr_small").model_stats
    return model.inference_count, model.execution_count


def test_streams_equal_upsamplers_while_others_begin_and_end(
    url: str, connect: Callable[[], Any], client: ModuleType, make_sound: MakeSound
) -> None:
    # Two in turn for each of eight connections, none as long as another.
    sounds = [
        make_sound(RATE, 0.15 + 0.02 * ((5 * index) % 16), cutoff=3500)[:, 0] * (1 - 0.05 * index)
        for index in range(2 * STREAMS)
    ]
    steps, runs = _runs(url)
    together = threading.Barrier(STREAMS)

    def two_streams(first: int) -> list[np.ndarray]:
        server = connect()
        together.wait(60)
        return [
            client.enhance(server, server.model, sounds[index], RATE, seed=index)
            for index in (first, first + STREAMS)
        ]

    with ThreadPoolExecutor(STREAMS) as pool:
        results = list(pool.map(two_streams, range(STREAMS)))
    steps, runs = (after - before for after, before in zip(_runs(url), (steps, runs), strict=True))
    assert steps >= sum(len(sound) for sound in sounds) // (RATE // 100)
    assert runs < steps
    for index, sound in enumerate(sounds):
        with Upsampler(RATE, model="small", seed=index, provider="cpu") as upsampler:
            out = np.concatenate([upsampler.process(sound), upsampler.flush()])
            expected = out[upsampler.latency.algorithmic_samples :]
        result = results[index % STREAMS][index // STREAMS]
        assert result.shape == expected.shape
        assert np.abs(result - expected).max() <= 1e-5


def test_a_stream_too_many_waits_until_another_ends(connect: Callable[[], Any]) -> None:
    server = connect()
    signals = _signals(server, 1)
    first = [server.infer(signals, 100 + one, start=True, end=False) for one in range(STREAMS)]
    with ThreadPoolExecutor(1) as pool:
        late: Future[np.ndarray] = pool.submit(
            connect().infer, signals, 100 + STREAMS, start=True, end=True
        )
        time.sleep(0.3)
        assert not late.done()
        server.infer(signals, 103, start=False, end=True)
        high_band = late.result(IDLE_S)
    for one in range(STREAMS):
        if one != 3:
            server.infer(signals, 100 + one, start=False, end=True)
    np.testing.assert_allclose(high_band, first[0], atol=1e-5, rtol=0)


def test_an_idle_stream_is_forgotten_and_makes_room(connect: Callable[[], Any]) -> None:
    server = connect()
    signals = _signals(server, 2)
    fresh = [server.infer(signals, 200 + one, start=True, end=False) for one in range(STREAMS)]
    # There is no room before the others have been idle for too long.
    late = connect().infer(signals, 200 + STREAMS, start=True, end=True)
    np.testing.assert_allclose(late, fresh[0], atol=1e-5, rtol=0)
    with pytest.raises(RtsrError, match=r"took no step: .*START flag on the first request"):
        server.infer(signals, 200, start=False, end=False)
    again = server.infer(signals, 200, start=True, end=True)
    np.testing.assert_allclose(again, fresh[0], atol=1e-5, rtol=0)


def test_bad_input_is_refused_and_the_stream_goes_on(connect: Callable[[], Any]) -> None:
    server = connect()
    signals = _signals(server, 3)
    for sequence in (300, 301):
        server.infer(signals, sequence, start=True, end=False)
    bad = {**signals, "noise": np.full_like(signals["noise"], np.inf)}
    with pytest.raises(RtsrError, match="'noise' of sequence 300 has values that are no finite"):
        server.infer(bad, 300, start=False, end=False)
    with pytest.raises(RtsrError, match="unexpected shape for input 'audio'"):
        server.infer({**signals, "audio": signals["audio"][..., :400]}, 300, start=False, end=False)
    ends = [server.infer(signals, sequence, start=False, end=True) for sequence in (300, 301)]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-5, rtol=0)
    with pytest.raises(RtsrError, match="START flag"):
        server.infer(signals, 300, start=False, end=False)


def test_example_of_many_streams_runs(url: str) -> None:
    command = [sys.executable, str(LOAD), "--url", url, "--streams", "3", "--seconds", "0.5"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("3 stream(s), 150 steps: round trip p50 ")
    nobody = [*command[:3], f"127.0.0.1:{_free_port()}"]
    result = subprocess.run(nobody, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.startswith("rtsr: No Triton server answers at 127.0.0.1:")
    assert len(result.stderr.splitlines()) == 1
