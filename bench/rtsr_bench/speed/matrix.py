"""What is timed: cases of provider x model x precision x hops x streams, and what fills them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rtsr.arguments import MAX_CHANNELS, check_arguments
from rtsr.errors import ArgumentError, ProviderError, RtsrError
from rtsr.runtime.models import SUFFIX, Model, bundled, find_model, find_octave_model
from rtsr.runtime.providers import select as providers
from rtsr.timing import HOP_MS, HOPS_PER_STEP, SAMPLE_RATE

PRECISIONS = ("fp32", "fp16", "int8")
#: Single precision with products in TF32, an option of CUDA and no file of its own.
TF32 = "tf32"
MOST_STREAMS = 65536
#: rates in Hz that octaves lead to
OCTAVE_RATES = (96000, 192000)

MODEL = "model"
OCTAVES = "octaves"
REPLICATE = "replicate"
RESAMPLER = "resampler"
SOXR = "soxr"
EXTERNAL = "external"
REFERENCES = (REPLICATE, RESAMPLER, SOXR)


@dataclass(frozen=True)
class Case:
    """One combination to be timed.

    Attributes:
        kind: ``model``, ``octaves``, ``replicate``, ``resampler``, ``soxr`` or ``external``.
        name: what people call it; never a path.
        period_ms: sound that one step takes in, and so the time that it may take.
        whole: whether resampling, detector, crossover and mixing are part of it, as in
            ``BatchUpsampler``, or only the step, as in ``OnnxStep``.
        paced: one step per period, as a live stream takes them, instead of one after another.
        source: what a fresh process needs to make it: a file, a declaration. Not part of its
            identity and not written into results.
    """

    kind: str
    name: str
    provider: str
    precision: str
    hops: int
    streams: int
    threads: int
    period_ms: float
    whole: bool = False
    paced: bool = False
    source: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def label(self) -> str:
        """Everything that tells it from the others; two results are compared by it."""
        return self._named(counted(self.streams, "stream"))

    @property
    def search_label(self) -> str:
        """The same without a number of streams: searches for one are compared by it."""
        return self._named()

    def _named(self, *streams: str) -> str:
        parts = [f"{self.name} {self.precision} on {self.provider}", f"{self.period_ms:g} ms"]
        parts += [*streams, counted(self.threads, "thread")]
        return ", ".join([*parts, *["whole"] * self.whole, *["paced"] * self.paced])

    def with_streams(self, streams: int) -> Case:
        """Return the same with another number of streams."""
        return replace(self, streams=streams)

    def identity(self) -> dict[str, Any]:
        """Return what is written into results."""
        return {name: value for name, value in asdict(self).items() if name != "source"}


def counted(number: int, thing: str) -> str:
    """``1 stream``, ``4 streams``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


#: of an axis that was left open
DEFAULT_HOPS = (1, 2, 4)


@dataclass(frozen=True)
class Axes:
    """The values along each axis of the matrix; ``None`` is everything that is there."""

    providers: Sequence[str] | None = None
    models: Sequence[str] | None = None
    precisions: Sequence[str] | None = None
    hops: Sequence[int] = DEFAULT_HOPS
    streams: Sequence[int] = (1, 4)
    threads: int = 1
    #: Hz that octaves beyond 48 kHz lead to, besides what ends there
    output_rates: Sequence[int] = ()


def model_cases(axes: Axes) -> list[Case]:
    """All cases of rtsr's own models, their octaves and, where named, of ``replicate``.

    Raises:
        RtsrError: a value that is not accepted, or nothing to be timed.
        ModelError, ProviderError, MissingDependencyError: an axis names what is not there.
    """
    check_axes(axes)
    names = list(bundled()) if axes.models is None else list(dict.fromkeys(axes.models))
    found = [find_model(name) for name in names]
    # Of models that nobody named, those that lack a precision are left out.
    must_have = axes.models is not None
    networks = [one for model in found for one in _variants(model, axes.precisions, must_have)]
    if axes.precisions and not must_have and not networks:
        raise ArgumentError(
            f"No bundled model is there in precision {' or '.join(axes.precisions)}; "
            "`rtsr export` writes others."
        )
    if not found:
        raise RtsrError(
            "No model is bundled with this installation; name one with --model FILE.onnx "
            "(`rtsr export` writes it)."
        )
    chosen = choose_providers(axes.providers)
    cases = [
        Case(
            MODEL, name, provider, precision, hops, streams, axes.threads, hops * HOP_MS,
            source={"file": str(model.path)},
        )
        for provider in chosen
        for name, precision, model in _unique(networks)
        for hops in axes.hops
        for streams in axes.streams
        if provider == providers.CPU or not model.metadata.is_for_cpu
    ]  # fmt: skip
    cases += _octave_cases(found, chosen, axes)
    if networks and not cases:
        raise ArgumentError(
            "Nothing is left to be timed: models in int8 run on provider 'cpu' only; add it, or "
            "another precision."
        )
    if any(not model.is_network for model in found):
        cases += [
            reference_case(REPLICATE, hops, streams)
            for hops in axes.hops
            for streams in axes.streams
        ]
    return cases


def _octave_cases(models: Sequence[Model], chosen: Sequence[str], axes: Axes) -> list[Case]:
    """Cases of what makes the octaves beside these models, each once."""
    streams = [count for count in axes.streams if count <= MAX_CHANNELS]
    if axes.output_rates and not streams:
        raise ArgumentError(
            f"Octaves are timed with 1 to {MAX_CHANNELS} streams; add such a number to --streams."
        )
    cases = []
    for output_rate in axes.output_rates:
        factor = output_rate // SAMPLE_RATE
        makers = [find_octave_model(model, factor // 2) for model in models]
        for maker in (one if isinstance(one, Model) else find_model(one) for one in makers):
            precision = precision_of(maker)
            name = f"{maker.path.stem.removesuffix(f'-{precision}')} to {output_rate // 1000} kHz"
            on = chosen if maker.is_network else [providers.CPU]
            model = str(maker.path) if maker.is_network else maker.name
            cases += [
                Case(
                    OCTAVES, name, provider, precision, hops, count, axes.threads, hops * HOP_MS,
                    source={"model": model, "factor": factor},
                )
                for provider in on
                for hops in axes.hops
                for count in streams
                if provider == providers.CPU or not maker.metadata.is_for_cpu
            ]  # fmt: skip
    return list(dict.fromkeys(cases))


def reference_case(kind: str, hops: int = 1, streams: int = 1) -> Case:
    """Return a case of what costs next to nothing: ``replicate``, rtsr's resampler or soxr."""
    return Case(kind, kind, providers.CPU, "fp32", hops, streams, 1, hops * HOP_MS)


def check_axes(axes: Axes) -> None:
    """Raise :class:`ArgumentError` for a count that no session can have."""
    for hops in axes.hops:
        if hops not in HOPS_PER_STEP:
            accepted = ", ".join(map(str, HOPS_PER_STEP))
            raise ArgumentError(
                f"The number of hops per step must be one of {accepted}, not {hops}."
            )
    for streams in axes.streams:
        check_streams(streams)
    # As whatever takes steps does: more threads than there are cores would not be used.
    check_arguments(HOPS_PER_STEP[0], 0, 1.0, None, None, axes.threads)
    for output_rate in axes.output_rates:
        if output_rate not in OCTAVE_RATES:
            raise ArgumentError(
                f"Octaves lead to {' or '.join(map(str, OCTAVE_RATES))} Hz, not {output_rate}; "
                "what ends at 48000 Hz is always timed."
            )
    for precision in axes.precisions or ():
        if precision not in PRECISIONS:
            accepted = ", ".join(PRECISIONS)
            raise ArgumentError(f"Precision {precision!r} is unknown; choose among {accepted}.")


def check_streams(streams: int) -> None:
    """Raise :class:`ArgumentError` for a number of streams that cannot be stepped."""
    if not 1 <= streams <= MOST_STREAMS:
        raise ArgumentError(f"The number of streams must be 1 to {MOST_STREAMS}, not {streams}.")


def choose_providers(names: Sequence[str] | None) -> list[str]:
    """Choose the providers to time; left open, all that are there but TensorRT.

    TensorRT needs an engine that was built before, so nobody gets it unasked.

    Raises:
        ProviderError: one is unknown or not in the installed ONNX Runtime; it lists what is.
    """
    onnxruntime = providers.load_onnxruntime()
    present = providers.available(onnxruntime)
    if names is None or list(names) == [providers.AUTO]:
        return [name for name in present if name != providers.TENSORRT]
    for text in names:
        name = text.partition(":")[0]
        if name not in providers.ONNX_NAMES:
            raise ProviderError(
                f"Provider {name!r} is unknown; present here: {', '.join(present)}."
            )
        providers.parse_provider(text)
        providers.candidates(name, onnxruntime)
    return list(dict.fromkeys(names))


def precision_of(model: Model) -> str:
    """Return what the file says its weights are, else what its name says, else ``fp32``."""
    if model.metadata.precision in PRECISIONS[1:]:
        return model.metadata.precision
    suffix = model.path.stem.rpartition("-")[2]
    return suffix if suffix in PRECISIONS else PRECISIONS[0]


def _variants(
    model: Model, wanted: Sequence[str] | None, must_have: bool
) -> Iterable[tuple[str, str, Model]]:
    """(name, precision, model) of a model and of the same in other precisions beside it."""
    if not model.is_network:
        return
    precision = precision_of(model)
    name = model.path.stem.removesuffix(f"-{precision}")
    present = {precision: model}
    for other in PRECISIONS:
        stem = name if other == PRECISIONS[0] else f"{name}-{other}"
        file = model.path.with_name(stem + SUFFIX)
        # A name or file that was asked for in one precision is not answered with all of them.
        if other not in present and file.is_file() and (wanted or precision == PRECISIONS[0]):
            neighbour = find_model(file)
            if precision_of(neighbour) == other:
                present[other] = neighbour
    for other in wanted or present:
        if other in present:
            yield name, other, present[other]
        elif must_have:
            raise RtsrError(
                f"Model '{name}' is not there in precision {other}; "
                f"there is {', '.join(present)}, and `rtsr export` writes others."
            )


def _unique(networks: list[tuple[str, str, Model]]) -> list[tuple[str, str, Model]]:
    """Each file once; two files of one name could not be told apart in results."""
    by_file = {model.path.resolve(): (name, precision) for name, precision, model in networks}
    for twin in by_file.values():
        if list(by_file.values()).count(twin) > 1:
            raise RtsrError(f"Two models are called '{' '.join(twin)}'; rename one of the files.")
    kept = {model.path.resolve(): model for _, _, model in networks}
    return [(*by_file[path], model) for path, model in kept.items()]
