"""Calls: narrow-band sound from the telephone or a browser in, full-band Opus out.

One call's way::

    RTP packet -> playout (jitter, loss, silence)      rtsr/call/receiver.py, packet_queue.py
               -> decoder or concealment               rtsr/call/decoders.py, concealment.py
               -> the call's place in the batch        rtsr/call/call_stream.py, engine.py
               -> encoder                              rtsr/call/encoders.py
               -> RTP packet, none in silence (DTX)    rtsr/call/sender.py, dtx.py

Everything up to the sockets is plain, synchronous code that takes the time as an argument, so it
runs in tests exactly as it does in a call. :mod:`rtsr.call.web` and :mod:`rtsr.call.sip` put it on
the network.
"""

from __future__ import annotations

from rtsr.errors import MissingDependencyError

try:
    import av as av
except ModuleNotFoundError:
    raise MissingDependencyError("Taking calls", "call") from None
