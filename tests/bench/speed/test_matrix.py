"""Which cases a matrix has, and what is refused before anything is timed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rtsr.errors import ArgumentError, ModelError, ProviderError, RtsrError
from rtsr.runtime.models import find_model
from rtsr.runtime.providers import select as providers
from rtsr_bench.speed.external_model import (
    Declaration,
    ExternalStep,
    external_cases,
    parse_declaration,
)
from rtsr_bench.speed.matrix import (
    Axes,
    choose_providers,
    model_cases,
    precision_of,
    reference_case,
)
from rtsr_bench.speed.workloads import make_workload


def test_a_matrix_is_the_product_of_its_axes(stand_in: Path) -> None:
    cases = model_cases(Axes(["cpu"], [str(stand_in)], hops=(1, 4), streams=(1, 2, 8), threads=2))
    assert len(cases) == len(set(cases)) == len({case.label for case in cases}) == 6
    assert {case.period_ms for case in cases} == {10.0, 40.0}
    assert cases[-1].label == "stand-in fp32 on cpu, 40 ms, 8 streams, 2 threads"


def test_octaves_are_timed_beside_what_ends_at_48_khz(stand_in: Path) -> None:
    axes = Axes(["cpu"], ["small-int8", str(stand_in)], hops=(1, 4), streams=(2, 16))
    plain = model_cases(axes)
    cases = model_cases(replace(axes, output_rates=(96000, 192000)))
    assert cases[: len(plain)] == plain
    octaves = cases[len(plain) :]
    # One octave beside a bundled network is the bundled one's.
    names = ("octave to 96", "stand-in to 96", "small to 192", "stand-in to 192")
    assert [(case.name, case.hops, case.streams) for case in octaves] == [
        (f"{name} kHz", hops, 2) for name in names for hops in (1, 4)
    ]
    assert octaves[4].label == "small to 192 kHz int8 on cpu, 10 ms, 2 streams, 1 thread"
    assert len({case.label for case in cases}) == len(cases)


def test_a_step_of_octaves_is_as_long_as_one_at_48_khz() -> None:
    axes = Axes(["cpu"], ["replicate"], hops=(1, 2), streams=(3,), output_rates=(96000, 192000))
    octaves = [case for case in model_cases(axes) if case.kind == "octaves"]
    shapes = [make_workload(case).step().shape for case in octaves]
    assert shapes == [(factor * hops * 480, 3) for factor in (2, 4) for hops in (1, 2)]


def test_no_case_tells_a_path(stand_in: Path) -> None:
    (case,) = model_cases(Axes(["cpu"], [str(stand_in)], hops=(1,), streams=(1,)))
    assert case.source["file"] == str(stand_in)
    assert str(stand_in.parent) not in json.dumps(case.identity())


def test_files_beside_it_are_its_other_precisions(stand_in: Path, tmp_path: Path) -> None:
    for name in ("net.onnx", "net-int8.onnx", "net-fp16.onnx", "network-int8.onnx"):
        shutil.copy(stand_in, tmp_path / name)

    def precisions(name: str, wanted: list[str] | None = None) -> list[tuple[str, str]]:
        axes = Axes(["cpu"], [str(tmp_path / name)], wanted, hops=(1,), streams=(1,))
        return [(case.name, case.precision) for case in model_cases(axes)]

    assert precisions("net.onnx") == [("net", "fp32"), ("net", "fp16"), ("net", "int8")]
    assert precisions("net.onnx", ["int8"]) == [("net", "int8")]
    assert precisions("net-int8.onnx") == [("net", "int8")]
    assert precisions("net-int8.onnx", ["fp32"]) == [("net", "fp32")]
    with pytest.raises(RtsrError, match="not there in precision fp16; there is int8"):
        precisions("network-int8.onnx", ["fp16"])


def test_a_neighbour_is_what_it_says_it_is(write_model: Callable[..., Path]) -> None:
    half = write_model(precision="fp16")
    assert [
        (case.name, case.precision)
        for case in model_cases(Axes(["cpu"], [str(half)], ["fp16"], hops=[1], streams=[1]))
    ] == [(half.stem, "fp16")]
    with pytest.raises(RtsrError, match="not there in precision fp32; there is fp16"):
        model_cases(Axes(["cpu"], [str(half)], ["fp32"], hops=[1], streams=[1]))


def test_bundled_models_that_lack_a_precision_are_left_out() -> None:
    cases = model_cases(Axes(["cpu"], None, ["int8"], hops=[1], streams=[1]))
    assert {case.precision for case in cases if case.kind == "model"} == {"int8"}


def test_a_file_knows_its_precision(write_model: Callable[..., Path]) -> None:
    assert precision_of(find_model(write_model(precision="int8"))) == "int8"
    assert precision_of(find_model(write_model())) == "fp32"


def test_two_files_of_one_name_are_refused(stand_in: Path, tmp_path: Path) -> None:
    twin = tmp_path / stand_in.name
    shutil.copy(stand_in, twin)
    with pytest.raises(RtsrError, match="Two models are called 'stand-in fp32'"):
        model_cases(Axes(["cpu"], [str(stand_in), str(twin)]))


def test_replicate_has_cells_of_its_own(stand_in: Path) -> None:
    cases = model_cases(Axes(["cpu"], ["replicate"], hops=(1, 2), streams=(1,)))
    assert cases == [reference_case("replicate", 1), reference_case("replicate", 2)]


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        (Axes(output_rates=(44100,)), "Octaves lead to 96000 or 192000 Hz, not 44100"),
        (Axes(output_rates=(96000,), streams=(9,)), "timed with 1 to 8 streams; add"),
        (Axes(streams=(0,)), "number of streams must be 1 to 65536, not 0"),
        (Axes(streams=(1, 70_000)), "number of streams must be 1 to 65536, not 70000"),
        (Axes(hops=(3,)), "must be one of 1, 2, 4, 8, 16, not 3"),
        (Axes(threads=0), "threads on this machine, not 0"),
        (Axes(precisions=["fp8"]), "'fp8' is unknown; choose among fp32, fp16, int8"),
    ],
)
def test_wrong_axes(axes: Axes, sentence: str) -> None:
    with pytest.raises(RtsrError, match=sentence):
        model_cases(axes)


def test_an_unknown_provider_is_answered_with_what_is_present() -> None:
    with pytest.raises(ProviderError, match=r"'rocket' is unknown; present here: .*cpu"):
        choose_providers(["rocket"])


def test_an_absent_provider_is_answered_with_what_is_present() -> None:
    absent = set(providers.ONNX_NAMES) - set(providers.available(providers.load_onnxruntime()))
    if not absent:
        pytest.skip("every provider is in this ONNX Runtime")
    with pytest.raises(ProviderError, match="present: "):
        choose_providers([min(absent)])


def test_tensorrt_is_only_timed_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "available", lambda _: ["cpu", "cuda", "tensorrt"])
    assert choose_providers(None) == choose_providers(["auto"]) == ["cpu", "cuda"]


def test_declarations_are_read() -> None:
    declared = parse_declaration(
        ["audio:Nx1x480", "a:b:2", "rate:=16000", "hz:Nx1=4e3"], ["out"], ["state=next"]
    )
    assert declared.inputs == {"audio": [-1, 1, 480], "a:b": [2], "rate": [], "hz": [-1, 1]}
    assert declared.values == {"rate": 16000.0, "hz": 4000.0}
    assert declared.states == {"state": "next"}
    assert declared.takes_streams
    assert not Declaration({"audio": [1, 480]}).takes_streams


@pytest.mark.parametrize("text", ["audio", "audio:", ":1x2=", "a:1xM", "a:1x", "a:1=1e", "a:1=.."])
def test_wrong_declarations(text: str) -> None:
    if text == "audio:":
        assert parse_declaration([text]).inputs == {"audio": []}
        return
    with pytest.raises(ArgumentError, match=r"not declared as|not a number"):
        parse_declaration([text])


def test_a_wrong_state_pair() -> None:
    with pytest.raises(ArgumentError, match="not declared as INPUT=OUTPUT"):
        parse_declaration([], [], ["state"])


def declare(*inputs: str, states: tuple[str, ...] = (), outputs: tuple[str, ...] = ()):
    return parse_declaration(inputs, outputs, states)


WHOLE = ("audio:Nx1x480", "noise:Nx4x1", "f_prior:Nx1x1=4000", "f_target:Nx1x1=22000")


def step_of(file: Path, declared: Declaration, streams: int = 1) -> ExternalStep:
    return ExternalStep(external_cases(file, declared, ["cpu"], [streams], 1, 10.0)[0])


def test_a_foreign_graph_carries_its_state(stand_in: Path) -> None:
    """The stand-in's high band is its input, later: without its state it would begin at zero."""
    with_state = declare(*WHOLE, "state.history:Nx1x120", states=("state.history=next.history",))
    for streams in (1, 3):
        step = step_of(stand_in, with_state, streams)
        (first,) = step.step()
        first = first.copy()
        (second,) = step.step()
        assert first.shape == second.shape == (streams, 1, 480)
        assert not first[..., :120].any()
        assert second[..., :120].all()


def test_outputs_may_be_chosen(stand_in: Path) -> None:
    declared = declare(*WHOLE, "state.history:1x1x120", outputs=("next.history",))
    (history,) = step_of(stand_in, declared).step()
    assert history.shape == (1, 1, 120)


def test_streams_need_room_in_the_shape(stand_in: Path) -> None:
    fixed = declare("audio:1x1x480")
    assert [case.streams for case in external_cases(stand_in, fixed, ["cpu"], [1, 4], 1, 10)] == [1]
    free = declare(*WHOLE)
    cases = external_cases(stand_in, free, ["cpu"], [1, 4], 1, 10)
    assert [case.streams for case in cases] == [1, 4]


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        (declare("sound:1x480"), "no input 'sound'; it has audio:batchx1xsamples"),
        (
            declare(*WHOLE[1:], "audio:1x480", "state.history:1x1x120"),
            "does not run with the declared shapes .*Invalid rank for input: audio Got: 2",
        ),
        (
            declare(*WHOLE[1:], "audio:1x2x480", "state.history:1x1x120"),
            "does not run with the declared shapes .*invalid dimensions for input: audio .*Got: 2",
        ),
        (declare("audio:1x1x480"), "'noise' .* has no fixed shape; declare it"),
        (declare(*WHOLE, outputs=("sound",)), "no output 'sound'; it has high_band:"),
        (declare(*WHOLE, states=("audio=sound",)), "no output 'sound'"),
        (
            declare(*WHOLE[1:], "audio:Nx1x481", "state.history:2x1x120"),
            "does not run with the declared shapes",
        ),
    ],
)
def test_wrong_foreign_declarations(stand_in: Path, declared: Declaration, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        step_of(stand_in, declared).step()


def test_foreign_files_that_are_none(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    with pytest.raises(ModelError, match=r"cannot load 'text\.onnx'"):
        step_of(text, declare())
    with pytest.raises(ModelError, match=r"'none\.onnx' does not exist"):
        step_of(tmp_path / "none.onnx", declare())
    with pytest.raises(ArgumentError, match=r"0\.1 to 60000 ms of sound, not 0"):
        external_cases(text, declare(), ["cpu"], [1], 1, 0.0)
