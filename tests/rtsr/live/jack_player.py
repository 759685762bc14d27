"""Plays an array into a JACK port and records another port, frame against frame.

A program of its own, so that a test's Python cannot delay it. Two clients: with one, JACK would see
a loop and put a period of delay into it.

    python jack_player.py SOURCE.npy RESULT.npz INTO_PORT FROM_PORT
"""

from __future__ import annotations

import sys
import threading
import time

import jack
import numpy as np


def port_of(client: jack.Client, name: str, seconds: float = 10.0) -> jack.Port:
    """The port of that name as soon as it is there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return client.get_port_by_name(name)
        except jack.JackError:
            if time.monotonic() > deadline:
                sys.exit(f"JACK port {name} does not appear")
            time.sleep(0.02)


def main(source_path: str, result_path: str, into: str, out_of: str) -> None:
    source = np.load(source_path).astype(np.float32).ravel()
    recorded = np.zeros_like(source)
    player, recorder = jack.Client("rtsr-player"), jack.Client("rtsr-recorder")
    out, capture = player.outports.register("out"), recorder.inports.register("in")
    start: list[int] = []
    gaps: list[int] = []
    served = {"player": -1, "recorder": -1}
    ended = threading.Event()

    def position(client: jack.Client, side: str, frames: int) -> int:
        now = client.last_frame_time
        if served[side] >= 0 and now != served[side] and start:
            gaps.append(now - start[0])
        served[side] = now + frames
        return now - start[0] if start else -1

    @player.set_process_callback
    def play(frames: int) -> None:
        buffer = out.get_array()
        at = position(player, "player", frames)
        chunk = source[max(0, at) : at + frames] if at >= 0 else source[:0]
        buffer[: len(chunk)] = chunk
        buffer[len(chunk) :] = 0.0

    @recorder.set_process_callback
    def record(frames: int) -> None:
        at = position(recorder, "recorder", frames)
        if at < 0:
            return
        room = recorded[at : at + frames]
        room[:] = capture.get_array()[: len(room)]
        if at + frames >= len(recorded):
            ended.set()

    with player, recorder:
        sink, origin = port_of(player, into), port_of(recorder, out_of)
        for port in player.get_all_connections(sink):
            player.disconnect(port, sink)
        player.connect(out, sink)
        recorder.connect(origin, capture)
        time.sleep(0.2)
        gaps.clear()
        # A little ahead, and the same frame for both.
        start.append(player.last_frame_time + 8 * player.blocksize)
        if not ended.wait(len(source) / player.samplerate + 10.0):
            sys.exit("JACK has stopped")
    np.savez(result_path, recorded=recorded, gaps=np.array(gaps), rate=player.samplerate)


if __name__ == "__main__":
    main(*sys.argv[1:])
