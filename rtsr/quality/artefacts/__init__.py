"""What a made high band can do wrong, one measure each, against the full-band original.

Every measure takes ``(reference, output, cutoff_hz)``: 48 kHz, float64 in [-1, 1], of one length
and already aligned. :data:`ARTEFACTS` names them all with the limits of what is acceptable.
"""

from __future__ import annotations

from rtsr.quality.artefacts.catalogue import ARTEFACTS, Artefact, find_artefacts

__all__ = ["ARTEFACTS", "Artefact", "find_artefacts"]
