"""A loss on loudness, whose best guess is louder than that of a loss on logarithms.

The mean of logarithms, which the other losses teach where the input leaves open what follows, is
far too quiet for what is sometimes loud: an s that may be there or not. The mean of loudness is
nearer to the loud one, as is what a listener would miss.
"""

from __future__ import annotations

from torch import Tensor

#: loudness over power (Stevens 1955, "The measurement of loudness")
EXPONENT = 0.3
#: of a band of -67 dBFS; clips that are softer than that count less
LEAST_LOUDNESS = 0.01


def loudness_error(log_powers: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Root mean square error of band loudness relative to the reference's, mean of clips.

    A relative norm as the spectral convergence of Arik et al. 2018 (arXiv 1808.06719, eq. 4).

    Args:
        log_powers: natural logarithms of estimate and reference ``(batch, frames, bands)``.
        mask: one or zero, ``(batch, 1, bands)``.
    """
    estimate, reference = ((EXPONENT * log).exp() * mask for log in log_powers)
    count = mask.sum((1, 2)) * reference.shape[1] + 1e-3
    error = ((estimate - reference).square().sum((1, 2)) / count + 1e-8).sqrt()
    size = (reference.square().sum((1, 2)) / count).sqrt()
    return ((error - 1e-4) / (size + LEAST_LOUDNESS)).mean()
