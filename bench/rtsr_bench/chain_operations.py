"""What a whole chain computes per second of one channel, part by part.

The network's share is counted in its graph; that of the compiled kernels follows from the designs
that they run with (taps, sections, transform lengths, bands), not from estimates of a document.
"""

from __future__ import annotations

import math

from rtsr.runtime.models import Model
from rtsr.timing import HOP, SAMPLE_RATE
from rtsr_bench.operations import Operations, count_graph, total
from rtsr_kernels import band_limit, bandwidth, highpass, images
from rtsr_kernels import replicate_design as design
from rtsr_kernels.resample_design import phase_table

HOPS_PER_SECOND = SAMPLE_RATE // HOP

# One Philox block of ten rounds (two products, four exclusive ors, two sums each) and two
# Box-Muller pairs (logarithm, root, two circular functions, seven products and sums each) give
# four values.
_OTHER_PER_FOUR_NORMALS = 10 * 8 + 2 * 11
# The names that torch gives to the nodes of rtsr.model.fourier.
_TRANSFORM = "transform"


def chain_operations(model: Model, input_rate: int, cutoff_hz: float) -> dict[str, Operations]:
    """Operations per second of mono audio, by part, in the order in which a hop meets them.

    Args:
        model: a network, taken hop by hop, or ``replicate``.
        input_rate: Hz of the input; at 48000 there is no resampler.
        cutoff_hz: where the content ends: the ``replicate`` rung works on what lies above.

    Raises:
        RtsrError: the graph cannot be counted, see :func:`~rtsr_bench.operations.count_graph`.
    """
    per_hop = {"bandwidth detector": _detector()}
    if model.is_network:
        per_hop.update(_network(model))
    else:
        per_hop["noise"] = _noise(design.ANALYSIS)
        per_hop["band replication"] = replication_operations(
            cutoff_hz, model.metadata.f_target_default
        )
    per_hop["crossover high-pass"] = Operations(
        multiply_accumulates=5 * highpass.SECTIONS * HOP,
        # The three of the test for denormal numbers.
        other=3 * highpass.SECTIONS * HOP,
    )
    # The gate's two extremes, and the sum of dry signal and high band.
    per_hop["gate and mixing"] = Operations(other=3 * HOP)
    return {
        "input resampler": resampler_operations(input_rate, SAMPLE_RATE),
        **{name: operations.times(HOPS_PER_SECOND) for name, operations in per_hop.items()},
    }


def chain_total(parts: dict[str, Operations]) -> Operations:
    """The sum over all parts."""
    return total(parts.values())


def resampler_operations(input_rate: int, output_rate: int) -> Operations:
    """Of the streaming polyphase resampler: its taps, for each sample that comes out."""
    if input_rate == output_rate:
        return Operations()
    return Operations(multiply_accumulates=phase_table(input_rate, output_rate).shape[1]).times(
        output_rate
    )


def fourier_operations(points: int) -> Operations:
    """Of a complex radix-2 transform: ``points / 2 log2 points`` butterflies.

    A butterfly is one complex product (four multiply-accumulates) and four sums.
    """
    butterflies = points // 2 * round(math.log2(points))
    return Operations(multiply_accumulates=4 * butterflies, other=4 * butterflies)


def real_fourier_operations(points: int) -> Operations:
    """Of a real transform: a complex one of half the length, and a butterfly per bin to part it."""
    return fourier_operations(points // 2) + Operations(2 * points, 2 * points)


def replication_operations(cutoff_hz: float, ceiling_hz: float) -> Operations:
    """Of :func:`rtsr_kernels.replicate.replicate_hop`, one hop of one channel."""
    heard = design.bands_below(cutoff_hz)
    unheard = design.BANDS - heard
    features = design.FEATURES_PER_BAND * heard
    high_bins = max(int((ceiling_hz - cutoff_hz) / design.HZ_PER_BIN), 0)
    transforms = fourier_operations(design.ANALYSIS).times(2)
    analysis = Operations(2 * design.BINS, design.ANALYSIS)
    # A maximum, a logarithm and a sum for each frame and band of the context.
    context = Operations(design.CONTEXT * heard, 3 * design.CONTEXT * heard)
    regression = Operations(features * unheard, 2 * unheard)
    gate = Operations(design.SYNTHESIS)
    # Per bin two interpolations of the envelope (two each) and a rotation (four); beside these the
    # slopes, two powers, two roots, the noise and the sums of both.
    bins = Operations(8, 20).times(high_bins)
    windows = Operations(2 * design.SYNTHESIS, design.SYNTHESIS + design.OVERLAP)
    return total([transforms, analysis, context, regression, gate, bins, windows])


def _network(model: Model) -> dict[str, Operations]:
    count = count_graph(model.path, {"batch": 1, "frames": 1, "samples": HOP})
    transforms = total(n.operations for n in count.nodes if _TRANSFORM in n.name)
    layers = total(n.operations for n in count.nodes if _TRANSFORM not in n.name)
    return {
        "noise": _noise(model.metadata.noise_channels),
        "graph: Fourier transforms": transforms,
        "graph: encoder, velocity net, decoder, overlap-add": layers,
    }


def _noise(values: int) -> Operations:
    return Operations(other=math.ceil(values / 4) * _OTHER_PER_FOUR_NORMALS)


def _detector() -> Operations:
    """Of one hop that is active; walls are looked for in both memories every fifth hop."""
    spectrum = real_fourier_operations(band_limit.FRAME) + Operations(HOP, band_limit.FRAME)
    power = Operations(5 * band_limit.BINS, 3 * band_limit.BINS)
    held = bandwidth.BLOCKS + bandwidth.RECENT_BLOCKS
    search = Operations(other=(held + 2) * band_limit.BINS)
    # Two shares, two averages, two products and a division per pair of bins; three logarithms.
    pairs = images.BINS * len(images.NYQUISTS_HZ)
    mirrored = Operations(4 * pairs, 6 * pairs + 3 * len(images.NYQUISTS_HZ))
    return spectrum + power + mirrored + search.times(1 / bandwidth.EVALUATE_EVERY)
