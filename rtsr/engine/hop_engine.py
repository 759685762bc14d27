"""The way of a hop at 48 kHz, from the detector to the crossover, for one stream or for many.

A step is ``begin``, then whatever makes the high band, then ``finish``. An
:class:`~rtsr.engine.stream_engine.Engine` has a source between them, the live chain its choice of
sources, a batch one run of a network for all streams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtsr.colour.auto import AutoColour
from rtsr.colour.colour import Colour, equaliser_taps
from rtsr.colour.stream_colour import StreamColour
from rtsr.timing import HOP, SAMPLE_RATE
from rtsr_kernels import crossover, cutoffs, equaliser
from rtsr_kernels.bandwidth import start_bandwidth
from rtsr_kernels.highpass import highpass_sos

Audio = NDArray[np.float32]
Rows = NDArray[np.int64]


class HopEngine:
    """Cutoffs, crossovers and delays of streams that stand in rows.

    A row is taken by :meth:`join`. Steps of one stream take and give blocks ``(480 * hops,
    channels)``: :meth:`begin`, :meth:`finish`. Steps of many take and give arrays
    ``(slots, 480 * hops)``, where each channel of each stream has a slot: :meth:`begin_rows`,
    :meth:`finish_rows`. Both do the same to the same state, to the bit.

    Args:
        streams: rows.
        slots: channels of all streams together.
        hops: of 480 samples that one step takes.
        overlap: samples by which the high band is later than the input, beside the step.
        channels: the most that one stream has.
        ahead: steps of many streams that may be begun before the first of them is finished.
        rate: of all streams in Hz; above 48000 it is a faster clock, on which all else counts.
    """

    def __init__(
        self,
        streams: int,
        slots: int,
        hops: int,
        overlap: int,
        channels: int = 8,
        ahead: int = 1,
        rate: int = SAMPLE_RATE,
    ) -> None:
        self.hops = hops
        self.step_samples = HOP * hops
        self.overlap = overlap
        self._crossover = crossover.crossover_state(streams, slots, hops, overlap)
        first = cutoffs.cutoff_state(streams, hops, channels, rate)
        # Of each step that is begun, what was measured; all else goes on from step to step.
        self._begun = [first] + [
            first._replace(f_prior=np.zeros_like(first.f_prior)) for _ in range(ahead - 1)
        ]
        self._scratch = crossover.crossover_scratch(hops)
        self._cutoff_scratch = cutoffs.cutoff_scratch()
        self._is_new = np.zeros(streams, np.bool_)
        self._first = np.zeros(1, np.int64)
        self._equaliser = equaliser.equaliser_state(streams, slots)
        self._equaliser_scratch = equaliser.equaliser_scratch(hops)
        self._colours: dict[int, StreamColour] = {}
        # Streams whose filter, though not their cutoff, is out of date.
        self._recoloured: set[int] = set()
        self._is_coloured = np.ones(streams, np.bool_)
        # Whether any stream has, or ever had, a colour.
        self._equalises = False
        self._mixing = self._crossover.values
        self._values = first.values
        self._detectors = first.detectors

    @property
    def slots(self) -> NDArray[np.int64]:
        """``(streams, 8)``: the slot of each channel of each row."""
        return self._crossover.slots

    @property
    def adds(self) -> NDArray[np.bool_]:
        """``(streams,)``: whether the last step added anything to the dry signal."""
        adds: NDArray[np.bool_] = self._mixing["adds"]
        return adds

    def join(
        self,
        row: int,
        slots: list[int],
        *,
        native_hz: float,
        f_target: float,
        wet: float = 1.0,
        cutoff: float | None = None,
        expected_cutoff: float | None = None,
        colour: Colour | AutoColour | None = None,
    ) -> None:
        """Let a stream begin in a row.

        Args:
            row: of the stream.
            slots: of its channels.
            native_hz: half of the input's own rate; nothing in it lies above.
            f_target: Hz where the output should end.
            wet: gain of the high band.
            cutoff: Hz where the input's content ends; measured if ``None``.
            expected_cutoff: Hz that the measurement starts from, if something is known.
            colour: of the high band.
        """
        self._crossover.slots[row, : len(slots)] = slots
        self._mixing["channels"][row] = self._values["channels"][row] = len(slots)
        self._values["native_hz"][row] = native_hz
        self._values["is_silent"][row] = False
        self.set_target(row, f_target)
        self.set_wet(row, wet)
        crossover.start_crossover(self._crossover, row)
        self.set_cutoff(row, cutoff, expected_cutoff)
        self._values["cutoff_hz"][row] = native_hz
        self.set_colour(row, colour)
        equaliser.set_filter(self._equaliser, row, None)
        equaliser.start_equaliser(self._equaliser, self._crossover, row)

    def set_cutoff(
        self, row: int, cutoff: float | None, expected_cutoff: float | None = None
    ) -> None:
        """Give a row's cutoff in Hz, or have it measured (``None``); the next hop fades to it."""
        self._values["given_hz"][row] = np.nan if cutoff is None else cutoff
        native = float(self._values["native_hz"][row])
        start = native if expected_cutoff is None else expected_cutoff
        start_bandwidth(self._detectors, row, start, native)

    def native_hz(self, row: int) -> float:
        """Return half of the rate of a row's input in Hz, see :meth:`set_native`."""
        return float(self._values["native_hz"][row])

    def set_native(self, row: int, native_hz: float) -> None:
        """Say that a row's input has another rate from now on, half of which is given in Hz.

        A measurement begins anew, from the new bound.
        """
        self._values["native_hz"][row] = native_hz
        self.set_cutoff(row, self.given_cutoff(row))

    def set_wet(self, row: int, wet: float) -> None:
        """Set the gain of a row's high band; it is faded over the next hop."""
        self._mixing["wet"][row] = wet

    def wet(self, row: int) -> float:
        """Return the gain that is wanted of a row's high band."""
        return float(self._mixing["wet"][row])

    def set_colour(self, row: int, colour: Colour | AutoColour | None) -> None:
        """Give the high band of a row a colour, or none; it is faded over the next hop.

        How much of it is used depends on how much the stream resembles what it was learnt from, see
        :class:`~rtsr.colour.stream_colour.StreamColour`.
        """
        # Not first the one and then the other: a step of another thread would have none between.
        if colour is None:
            self._colours.pop(row, None)
        else:
            self._colours[row] = StreamColour(colour)
        self._recoloured.add(row)

    def renew_colour(self, row: int, colour: Colour) -> None:
        """Give a row more that was learnt of the source of its present colour, or its first one."""
        stream_colour = self._colours.get(row)
        if stream_colour is None:
            self.set_colour(row, colour)
            return
        stream_colour.renew(colour)
        self._recoloured.add(row)

    def set_colour_amount(self, row: int, amount: float) -> None:
        """Set how much of a row's colour is wanted, 0 to 1; it is faded over the next hop."""
        colour = self._colours.get(row)
        if colour is not None and colour.set_amount(amount):
            self._recoloured.add(row)

    def set_coloured(self, row: int | Rows, is_coloured: bool | NDArray[np.bool_]) -> None:
        """Say whether a colour was learnt for what the next high band of its row will be."""
        if self._colours:
            rows = np.atleast_1d(row)
            changed = rows[self._is_coloured[rows] != is_coloured]
            self._recoloured.update(self._colours.keys() & set(changed.tolist()))
        self._is_coloured[row] = is_coloured

    def colour(self, row: int) -> Colour | AutoColour | None:
        """Return the colour of a row's high band, as it was given."""
        colour = self._colours.get(row)
        return None if colour is None else colour.given

    def colour_share(self, row: int) -> float:
        """Return how much of a row's colour is used, 0 to 1."""
        colour = self._colours.get(row)
        return 0.0 if colour is None else colour.share

    def target(self, row: int) -> float:
        """Where a row's output should end, in Hz."""
        return float(self._values["f_target"][row])

    def set_target(self, row: int, f_target: float) -> None:
        """Set where a row's output should end, in Hz, from the next step on."""
        self._values["f_target"][row] = f_target

    def set_silent(self, row: int | Rows, is_silent: bool | NDArray[np.bool_]) -> None:
        """Say whether the next step of a row, or of many, has no high band at all."""
        self._values["is_silent"][row] = is_silent

    def cutoff_hz(self, row: int) -> float:
        """Where the content of the newest hop ends, as given or as measured."""
        return float(self._values["cutoff_hz"][row])

    def is_missing(self, row: int) -> bool:
        """Whether something is missing above the cutoff of the newest hop."""
        return bool(cutoffs.is_band_missing(self.cutoff_hz(row), self.target(row)))

    def given_cutoff(self, row: int) -> float | None:
        """Return the cutoff that was given, in Hz; ``None`` where it is measured."""
        given = float(self._values["given_hz"][row])
        return None if np.isnan(given) else given

    def clear_filter(self, row: int) -> None:
        """Drop what still rings in a row's high-pass, because the high band broke off."""
        crossover.clear_filters(self._crossover, row)

    def resume(self, row: int, before: Audio) -> None:
        """Go on behind a gap: ``before`` ``(overlap, channels)`` is the input just before it."""
        for channel in range(before.shape[1]):
            self._crossover.delayed[self.slots[row, channel]] = before[:, channel]

    def begin(self, audio: Audio) -> NDArray[np.float32]:
        """Measure a step ``(480 * hops, channels)`` of the stream in row 0.

        Returns:
            Hz ``(hops,)`` where the content of each hop ends; the next step overwrites it.
        """
        begun = self._begun[0]
        cutoffs.measure_block(begun, 0, audio, self._cutoff_scratch.detector)
        return begun.f_prior[0]

    def finish(self, audio: Audio, high_band: Audio, out: Audio) -> None:
        """Finish the step of row 0 that was begun: the delayed input and the high band above it.

        All arrays are ``(480 * hops, channels)``; ``high_band`` is coloured in place.
        """
        begun = self._begun[0]
        # Looked up once: another thread may take it away meanwhile.
        colour = self._colours.get(0)
        if colour is not None and not colour.may_skip(self.hops):
            self._update_colour(0, colour, audio, begun.f_prior[0])
        self._plan(self._first, begun)
        if self._equalises:
            self._equalise(self._first, high_band.T)
        crossover.finish_block(self._crossover, 0, audio, high_band, out, self._scratch)

    def begin_rows(self, rows: Rows, audio: Audio, number: int = 0) -> Audio:
        """Measure a step of the streams in ``rows``.

        Args:
            rows: of the streams.
            audio: ``(slots, 480 * hops)``.
            number: of the step among those that are begun before the first is finished.

        Returns:
            Hz ``(streams, hops)``, where the content of each hop ends; the next step of that number
            overwrites it.
        """
        begun = self._begun[number]
        cutoffs.measure_rows(begun, rows, self.slots, audio, self._cutoff_scratch)
        return begun.f_prior

    def finish_rows(
        self, rows: Rows, audio: Audio, high_band: Audio, out: Audio, number: int = 0
    ) -> None:
        """Finish the step of that number; all arrays are ``(slots, 480 * hops)``.

        ``high_band`` is filtered in place.
        """
        begun = self._begun[number]
        if self._colours:
            for row in rows.tolist():
                colour = self._colours.get(row)
                if colour is not None and not colour.may_skip(self.hops):
                    slots = self.slots[row, : self._mixing["channels"][row]]
                    self._update_colour(row, colour, audio[slots].T, begun.f_prior[row])
        self._plan(rows, begun)
        if self._equalises:
            self._equalise(rows, high_band)
        crossover.finish_rows(self._crossover, rows, audio, high_band, out, self._scratch)

    def _equalise(self, rows: Rows, high_band: Audio) -> None:
        """Colour the high band ``(slots, 480 * hops)``, of any layout, in place."""
        equaliser.equalise_rows(
            self._equaliser,
            self._crossover,
            rows,
            self._values["is_silent"],
            high_band,
            self._equaliser_scratch,
        )

    def _plan(self, rows: Rows, begun: cutoffs.CutoffState) -> None:
        """Find the crossover of each hop, and design the high-passes that are new."""
        state = self._crossover
        cutoffs.crossover_hz(begun, rows, state.hz)
        count = crossover.find_new_cutoffs(state, rows, self._is_new)
        if self._recoloured:
            for row in self._recoloured.intersection(rows.tolist()):
                self._design_colour(row)
        if not count:
            return
        for index in np.flatnonzero(self._is_new[: len(rows)]):
            row = rows[index]
            self._design_colour(int(row))
            for hop in range(self.hops):
                hz = state.hz[row, hop]
                if not np.isnan(hz):
                    state.sos[row, 1 + hop] = highpass_sos(float(hz))
            if state.hz[row, 0] == self._mixing["mixed_hz"][row]:
                state.sos[row, 0] = state.sos[row, 1]

    def _update_colour(self, row: int, colour: StreamColour, audio: Audio, f_prior: Audio) -> None:
        """Let a row's colour listen to the input ``(480 * hops, channels)`` of its step."""
        if colour.hear(audio, f_prior):
            self._recoloured.add(row)

    def _design_colour(self, row: int) -> None:
        """Find the filter that a row's colour asks for at the newest crossover of its step."""
        self._recoloured.discard(row)
        stream_colour = self._colours.get(row)
        colour = None if stream_colour is None else stream_colour.present
        if colour is None or not self._is_coloured[row]:
            equaliser.set_filter(self._equaliser, row, None)
            return
        self._equalises = True
        hz = self._crossover.hz[row]
        missing = hz[~np.isnan(hz)]
        # Where nothing is missing, the next cutoff will be a new one.
        if missing.size:
            taps = equaliser_taps(colour, float(missing[-1]))
            equaliser.set_filter(self._equaliser, row, taps)
