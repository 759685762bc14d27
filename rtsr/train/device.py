"""Where training computes, and in which precision."""

from __future__ import annotations

import numpy as np
import torch

from rtsr.errors import ArgumentError, RtsrError


def choose_device(name: str) -> torch.device:
    """Return the device ``auto``, ``cpu`` or ``cuda``; raises RtsrError when it is not there."""
    present = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    if name == "auto":
        return torch.device(present[-1])
    if name.split(":")[0] not in present:
        raise RtsrError(f"There is no device {name!r} here; present: {', '.join(present)}.")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type, or None for float32, and set how float32 is multiplied on a GPU.

    ``auto`` is bf16 where a CPU computes in it, and TF32 on a GPU: there a model of this size waits
    for launches, and bf16 needs one more for every conversion.
    """
    if device.type == "cuda":
        name = "tf32" if name == "auto" else name
        torch.backends.cuda.matmul.allow_tf32 = name != "fp32"
        torch.backends.cudnn.allow_tf32 = name != "fp32"
        # Shapes never change, so the search for the fastest convolution is made once.
        torch.backends.cudnn.benchmark = True
    elif name == "tf32":
        raise ArgumentError("Precision tf32 is a GPU's; on a CPU choose auto, bf16 or fp32.")
    elif name == "auto":
        name = "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    return torch.bfloat16 if name == "bf16" else None


def placed(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Bring numbers to the device as float32 without waiting for it."""
    return sent(torch.from_numpy(np.ascontiguousarray(values, np.float32)), device)


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a tensor to the device without waiting for it.

    A GPU fetches by itself only from pinned memory: of any other the host waits for all that was
    launched before. What is on the device already stays as it is.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Where torch's generators of chance stand, as a checkpoint can keep it."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Undo :func:`random_state`; a state from another kind of device is left out."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
