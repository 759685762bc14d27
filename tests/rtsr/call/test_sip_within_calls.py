"""Requests within a call: which belong to it, and what they may change."""

from __future__ import annotations

import base64

import pytest

pytest.importorskip("aiosipua", reason='calls need the extra "call", and Python 3.11 or newer')

from sip_ends import OPUS_SDP, answered, between, hang_up


def test_a_call_that_is_encrypted_stays_so(stand_in):
    key = base64.b64encode(bytes(range(30))).decode()
    line = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n"
    secure = OPUS_SDP.replace("RTP/AVP", "RTP/SAVP") + line
    with between(stand_in, secure=True) as (peer, running, called):
        invite, _, to = answered(peer, called, answer=secure)
        (bridged,) = set(running.bridge._calls.values())
        called.request(invite, "INVITE", 1, body=OPUS_SDP)
        assert "SIP/2.0 488 " in called.hear("SIP")
        assert bridged._callee.socket._is_secure
        # The refusal is of that change alone.
        called.request(invite, "INVITE", 2, body=secure)
        assert "RTP/SAVP" in called.hear("SIP/2.0 200")
        hang_up(peer, to)
