"""A colour and its file: gains per band and cutoff, learnt from full-band sound."""

from __future__ import annotations

import functools
import json
import math
import numbers
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsr.colour import spectrum
from rtsr.colour.bands import BANDS, CUTOFFS_HZ, MAX_GAIN_DB, colour_centres, colour_edges
from rtsr.errors import ArgumentError, RtsrError
from rtsr.whole_file import write_whole
from rtsr_kernels.equaliser_design import design_frequencies, minimum_phase_taps

FORMAT = "rtsr-colour"
VERSION = 1

_MOST_BYTES = 1 << 16
_MOST_SECONDS = 1e9
_HASH_LENGTH = 64
_NAME_LENGTH = 200
_LARGEST_LEVEL_DB = 200.0
# A file holds edges to a tenth of a hertz.
_SAME_HZ = 0.11

Gains = NDArray[np.float64]


@dataclass(frozen=True)
class Colour:
    """Gains of the generated band that stay the same throughout a recording.

    It holds band gains and no sound: what was said cannot be had from it.

    Args:
        model: name of the model that it corrects.
        weights_sha256: of that model's weights; it fits no others.
        seconds: of sound that it rests on, pauses left out.
        gains_db: a row for each of the cutoffs 4, 5.5, 8 and 12 kHz, with a gain in dB for each of
            the 24 bands of :func:`~rtsr.colour.bands.colour_edges`, within +-12 dB.
        spectrum_db: long-term spectrum of the low band, ten levels in dB
            (:mod:`rtsr.colour.spectrum`), by which a stream shows whether it is of this source;
            ``None`` is used on every stream as if it were.

    Raises:
        ArgumentError: a value is out of range, not a number, or there are too many or too few.
    """

    model: str
    weights_sha256: str
    seconds: float
    gains_db: tuple[tuple[float, ...], ...]
    spectrum_db: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if problem := _find_problem(self):
            raise ArgumentError(f"A colour {problem}.")
        # What a caller still holds must not change it, and a file has floats of one kind.
        object.__setattr__(self, "seconds", float(self.seconds))
        object.__setattr__(self, "gains_db", tuple(tuple(map(float, one)) for one in self.gains_db))
        if self.spectrum_db is not None:
            object.__setattr__(self, "spectrum_db", tuple(map(float, self.spectrum_db)))

    def gains_at(self, cutoff_hz: float) -> Gains:
        """Return the gain of each band ``(24,)`` in dB for content that ends at ``cutoff_hz``.

        Between two cutoffs that were learnt gains are interpolated in octaves; beyond the lowest
        and the highest one they are those.
        """
        place = np.interp(np.log2(cutoff_hz), np.log2(CUTOFFS_HZ), np.arange(len(CUTOFFS_HZ)))
        lower = min(int(place), len(CUTOFFS_HZ) - 2)
        below, above = np.array(self.gains_db[lower : lower + 2])
        return np.asarray(below + (place - lower) * (above - below))

    def response_db(self, cutoff_hz: float, frequencies: Gains) -> Gains:
        """Return the gain in dB at each of ``frequencies`` in Hz, for a cutoff in Hz.

        Linear in octaves between the centres of bands, constant beyond the outermost.
        """
        octaves = np.log2(np.maximum(frequencies, 1.0))
        return np.interp(octaves, np.log2(colour_centres()), self.gains_at(cutoff_hz))

    def scaled(self, share: float) -> Colour:
        """Return the same with all gains in dB times ``share``, 0 (nothing is changed) to 1.

        Raises:
            ArgumentError: the share is out of range.
        """
        if not _is_number(share) or not 0.0 <= share <= 1.0:
            raise ArgumentError(
                f"The share of a colour must lie between 0 and 1, not at {_shown(share)}."
            )
        return replace(
            self, gains_db=tuple(tuple(share * gain for gain in row) for row in self.gains_db)
        )

    @functools.cached_property
    def _spectrum(self) -> Gains:
        return np.array(self.spectrum_db, np.float64)

    def check_weights(self, model: str, weights_sha256: str) -> None:
        """Raise :class:`ArgumentError` unless it was learnt for these weights."""
        if self.weights_sha256 == weights_sha256:
            return
        version = "another version of" if model == self.model else f"model '{self.model}', not for"
        raise ArgumentError(
            f"This colour was learnt for {version} model '{model}'; learn it again "
            "(`rtsr colour learn`) or take the model that it was learnt for."
        )

    def agreement(self, heard: spectrum.LongTermSpectrum, cutoff_hz: float) -> float:
        """Return how probable it is, 0 to 1, that a stream is of the source it was learnt from.

        Args:
            heard: of the stream.
            cutoff_hz: where the stream's content ends.
        """
        if self.spectrum_db is None:
            return 1.0
        return spectrum.agreement(
            self._spectrum, self.seconds, heard.levels_db, heard.seconds, cutoff_hz
        )

    def to_json(self) -> dict[str, Any]:
        """Return the colour as an object for ``json.dumps``; :func:`from_json` takes it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "seconds": round(self.seconds, 2),
            "bands_hz": [round(float(edge), 1) for edge in colour_edges()],
            "cutoffs": [
                {"cutoff_hz": cutoff_hz, "gains_db": [round(gain, 2) for gain in gains]}
                for cutoff_hz, gains in zip(CUTOFFS_HZ, self.gains_db, strict=True)
            ],
            "spectrum": None
            if self.spectrum_db is None
            else {
                "bands_hz": [round(float(edge), 1) for edge in spectrum.EDGES_HZ],
                "levels_db": [round(level, 2) for level in self.spectrum_db],
            },
        }

    def save(self, path: str | Path) -> None:
        """Write the colour as a JSON file, whole or not at all.

        Raises:
            OSError: the file cannot be written; what was there before is as it was.
        """
        write_whole(Path(path), json.dumps(self.to_json(), indent=1) + "\n")


@functools.lru_cache(maxsize=256)
def equaliser_taps(colour: Colour, cutoff_hz: float) -> NDArray[np.float32]:
    """Return the filter of a colour for a cutoff in Hz; see `minimum_phase_taps`. Read-only."""
    taps = minimum_phase_taps(colour.response_db(cutoff_hz, design_frequencies()))
    taps.setflags(write=False)
    return taps


def read_colour(path: str | Path) -> Colour:
    """Read a colour from a file.

    Raises:
        RtsrError: there is no such file, or it does not hold a colour of this version.
    """
    path = Path(path)
    origin = f"Colour file '{path}'"
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise RtsrError(f"{origin} cannot be read: {error.strerror or error}.") from None
    if len(data) > _MOST_BYTES:
        raise RtsrError(
            f"{origin} is larger than {_MOST_BYTES // 1024} KiB, which no colour is; "
            "give a file that `rtsr colour learn` wrote."
        )
    try:
        found = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise RtsrError(
            f"{origin} is not JSON; give a file that `rtsr colour learn` wrote."
        ) from None
    return from_json(found, origin)


def from_json(found: Any, origin: str = "This object") -> Colour:
    """Make a colour of what :meth:`Colour.to_json` gave.

    Args:
        found: the object.
        origin: what holds it, as the subject of a sentence.

    Raises:
        RtsrError: it is no colour, or one of another version or for other bands.
    """
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise RtsrError(f"{origin} is no colour; give one that `rtsr colour learn` wrote.")
    if found.get("version") != VERSION:
        raise RtsrError(
            f"{origin} has version {_shown(found.get('version'))}, this rtsr reads version "
            f"{VERSION}; learn the colour again with this version."
        )
    edges = found.get("bands_hz")
    if not _are_close(edges, colour_edges().tolist()):
        raise RtsrError(f"{origin} is for other bands; learn the colour again with this version.")
    rows = found.get("cutoffs")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RtsrError(f"{origin} is damaged: it has no list of cutoffs.")
    if not _are_close([row.get("cutoff_hz") for row in rows], list(CUTOFFS_HZ)):
        raise RtsrError(f"{origin} is for other cutoffs; learn the colour again with this version.")
    gains = [row.get("gains_db") for row in rows]
    if not all(isinstance(row, list) for row in gains):
        raise RtsrError(f"{origin} is damaged: it has no list of gains.")
    heard = found.get("spectrum")
    if heard is not None:
        if not isinstance(heard, dict) or not isinstance(heard.get("levels_db"), list):
            raise RtsrError(f"{origin} is damaged: its spectrum has no list of levels.")
        if not _are_close(heard.get("bands_hz"), spectrum.EDGES_HZ.tolist()):
            raise RtsrError(
                f"{origin} has a spectrum of other bands; learn the colour again with this version."
            )
    try:
        return Colour(
            found.get("model"),  # type: ignore[arg-type]
            found.get("weights_sha256"),  # type: ignore[arg-type]
            found.get("seconds"),  # type: ignore[arg-type]
            tuple(tuple(row) for row in gains if row is not None),
            None if heard is None else tuple(heard["levels_db"]),
        )
    except ArgumentError as error:
        reason = str(error).removeprefix("A colour ")
        raise RtsrError(f"{origin} is damaged: a colour {reason}") from None


def _find_problem(colour: Colour) -> str | None:
    """Say what is wrong with a colour, as the end of a sentence."""
    for what, text, most in (
        ("the name of a model", colour.model, _NAME_LENGTH),
        ("the hash of its weights", colour.weights_sha256, _HASH_LENGTH),
    ):
        if not isinstance(text, str) or not 0 < len(text) <= most or not text.isprintable():
            return f"needs {what}, a text of up to {most} characters"
    if not _is_number(colour.seconds) or not 0.0 <= colour.seconds <= _MOST_SECONDS:
        return "needs the seconds of sound that it rests on, a number that is not negative"
    rows = [_length(row) for row in colour.gains_db] if _length(colour.gains_db) else []
    if rows != [BANDS] * len(CUTOFFS_HZ):
        return f"has {BANDS} gains for each of {len(CUTOFFS_HZ)} cutoffs, not others"
    for row in colour.gains_db:
        for gain in row:
            if not _is_number(gain) or not abs(gain) <= MAX_GAIN_DB:
                return (
                    f"has gains between -{MAX_GAIN_DB:g} and {MAX_GAIN_DB:g} dB, not {_shown(gain)}"
                )
    levels = () if colour.spectrum_db is None else colour.spectrum_db
    if colour.spectrum_db is not None and _length(levels) != spectrum.BANDS:
        return f"has a spectrum of {spectrum.BANDS} levels, not of {_length(levels)}"
    for level in levels:
        if not _is_number(level) or not abs(level) <= _LARGEST_LEVEL_DB:
            return (
                f"has a spectrum with levels between -{_LARGEST_LEVEL_DB:g} and "
                f"{_LARGEST_LEVEL_DB:g} dB, not {_shown(level)}"
            )
    return None


def _length(values: Any) -> int:
    """Return how many there are; 0 of what is no row of values."""
    try:
        return len(values)
    except TypeError:
        return 0


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _are_close(found: Any, expected: list[float]) -> bool:
    return (
        isinstance(found, list)
        and len(found) == len(expected)
        and all(
            _is_number(one) and abs(one - other) < _SAME_HZ
            for one, other in zip(found, expected, strict=True)
        )
    )


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer with too many digits to print
        text = "a number that is too large"
    return text if len(text) <= 40 else text[:37] + "..."
