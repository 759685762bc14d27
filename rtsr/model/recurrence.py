"""First-order recurrences over the frames of a block, without a loop over frames."""

from __future__ import annotations

import torch
from torch import Tensor


def recur_by_doubling(values: Tensor, decay: Tensor) -> Tensor:
    """Add to every frame of ``values``, in place, what is left of the one before it.

    ``decay`` is what is left, of the second frame and all later ones. The span of each partial
    result doubles (Hillis and Steele 1986, "Data parallel algorithms").
    """
    span = 1
    while span < values.shape[1]:
        values[:, span:] = torch.addcmul(values[:, span:], decay, values[:, :-span])
        decay = decay[:, span:] * decay[:, :-span]
        span *= 2
    return values
