"""One lock for all that must not happen while a CUDA graph is being captured.

ONNX Runtime captures in the mode ``cudaStreamCaptureModeGlobal``: from the begin of a capture to
its end no thread of the process may allocate, copy through unpinned memory or wait for the device.
One such call fails, and takes the capture with it
(https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__STREAM.html). So whoever captures, and
whoever does one of these, holds :data:`GPU_LOCK` meanwhile. A step needs none of them.
"""

from __future__ import annotations

import threading

# A thread that opens a session also binds and captures it.
GPU_LOCK = threading.RLock()
