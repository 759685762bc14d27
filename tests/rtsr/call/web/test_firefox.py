"""The page in a real Firefox, whose microphone hums: a call, its figures, a knob."""

from __future__ import annotations

import asyncio
import json

import pytest
from firefox import Firefox, firefox
from server import TOKEN, running_server

pytest.importorskip("aiortc", reason='calls need the extra "call", and Python 3.11 or newer')

pytestmark = [
    pytest.mark.clocked,
    pytest.mark.skipif(firefox() is None, reason="there is no Firefox here"),
]

STATE = "document.getElementById('state').textContent"


def test_a_call_from_firefox():
    async def run(server):
        async with Firefox() as browser:
            await browser.open(f"{server.address}/?token={TOKEN}")
            await browser.run("document.getElementById('call').click()")
            await browser.until(f"{STATE} === 'The call is on.'")
            await browser.until("lookedAt && lookedAt.codec_in === 'PCMU'")
            # The hum comes in, and sound comes back.
            await browser.until("Math.max(...lookedAt.before_db) > -60")
            await browser.until("document.getElementById('out').currentTime > 0.5")
            await browser.run(
                "knob = document.getElementById('knob-wet'); knob.value = 0.25;"
                "knob.dispatchEvent(new Event('input')); 0"
            )
            await browser.until("lookedAt.controls.wet === 0.25")
            now = json.loads(await browser.run("JSON.stringify(lookedAt)"))
            await browser.run("document.getElementById('call').click()")
            await browser.until(f"{STATE} === 'The call is over.'")
        return now

    with running_server("--calls", "1") as server:
        now = asyncio.run(run(server))
    assert now["codec_out"] == "opus"
    parts = now["latency_ms"]
    assert sum(v for k, v in parts.items() if k != "total") == pytest.approx(parts["total"])
