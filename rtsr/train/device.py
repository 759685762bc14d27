"""Where training computes, and in which precision."""

from __future__ import annotations

import torch

from rtsr.errors import RtsrError


def choose_device(name: str) -> torch.device:
    """Return the device ``auto``, ``cpu`` or ``cuda``; raises RtsrError when it is not there."""
    present = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    if name == "auto":
        return torch.device(present[-1])
    if name.split(":")[0] not in present:
        raise RtsrError(f"There is no device {name!r} here; present: {', '.join(present)}.")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast type, or None for plain fp32."""
    if name == "auto":
        fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        name = "bf16" if fast else "fp32"
    return torch.bfloat16 if name == "bf16" else None


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
