"""The generator: streaming equals one long block, causality, level, silence, masks."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from rtsr.model import CONFIGURATIONS, ModelConfig, configuration, parameter_count  # noqa: E402
from rtsr.model.analysis import FrameHistory, RunningLevel, analysis_window  # noqa: E402
from rtsr.model.band_predictor import BandPredictor  # noqa: E402
from rtsr.model.bands import band_interpolation  # noqa: E402
from rtsr.model.crossover import high_pass  # noqa: E402
from rtsr.model.excitation import source_bins  # noqa: E402
from rtsr.model.flow import VelocityNet, euler  # noqa: E402
from rtsr.model.fourier import InverseRealTransform, RealTransform  # noqa: E402
from rtsr.model.generator import seeded  # noqa: E402
from rtsr.model.layers import CausalConv1d, ConvNeXtBlock, WindowedAttention  # noqa: E402
from rtsr.model.level_network import GatedMemory, RunningMinimum  # noqa: E402
from rtsr.model.level_path import LevelPath  # noqa: E402
from rtsr.model.nrae import CarrierGains, point_interpolation  # noqa: E402
from rtsr.model.streaming import flatten, unflatten  # noqa: E402
from rtsr.model.synthesis import OverlapAdd, synthesis_window  # noqa: E402
from rtsr.timing import HOP, OVERLAP  # noqa: E402
from rtsr.train.levels import LevelLoss  # noqa: E402

FRAMES = 24
TINY = replace(
    CONFIGURATIONS["small"],
    encoder_width=24,
    flow_width=16,
    flow_middle=8,
    attention_heads=2,
    attention_window=5,
    decoder_width=24,
    latent=8,
    level_width=16,
    predictor_width=16,
    predictor_other=8,
    level_memory=8,
)


@pytest.fixture(scope="module")
def tiny():
    return seeded(TINY, 3).eval()


def signals(config: ModelConfig, frames: int = FRAMES, batch: int = 1, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, 1, HOP * frames, generator=generator) * 0.1,
        torch.randn(batch, config.noise_channels, frames, generator=generator),
        torch.full((batch, 1, frames), 4000.0),
        torch.full((batch, 1, frames), 20000.0),
    )


def run(generator, inputs, partition, **settings):
    """Step through ``inputs`` in blocks of the given numbers of hops."""
    audio, *others = inputs
    state = generator.initial_state(audio.shape[0], **settings)
    blocks, first = [], 0
    with torch.no_grad():
        for hops in partition:
            cut = [value[:, :, first : first + hops] for value in others]
            samples = audio[:, :, first * HOP : (first + hops) * HOP]
            block, state = generator.step(samples, *cut, state)
            blocks.append(block)
            first += hops
    return torch.cat(blocks, dim=2)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=8))
def test_any_partition_into_hops_equals_one_long_block(tiny, partition):
    partition = [*partition, 3]
    inputs = signals(TINY, sum(partition))
    whole = run(tiny, inputs, [sum(partition)])
    torch.testing.assert_close(run(tiny, inputs, partition), whole, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("changed", [0, 1, 11, FRAMES - 1])
def test_the_future_changes_nothing_in_the_past(tiny, changed):
    inputs = signals(TINY)
    reference = run(tiny, inputs, [FRAMES])
    audio = inputs[0].clone()
    audio[:, :, changed * HOP :] += torch.randn(audio.shape[2] - changed * HOP)
    noise = inputs[1].clone()
    noise[:, :, changed:] = 0.0
    disturbed = run(tiny, (audio, noise, *inputs[2:]), [FRAMES])
    assert torch.equal(disturbed[:, :, : changed * HOP], reference[:, :, : changed * HOP])
    assert not torch.equal(disturbed, reference)


@pytest.mark.parametrize("decibels", [-20.0, 20.0])
def test_output_follows_the_level_of_the_input(tiny, decibels):
    gain = 10.0 ** (decibels / 20.0)
    inputs = signals(TINY)
    reference = run(tiny, inputs, [FRAMES])
    scaled = run(tiny, (inputs[0] * gain, *inputs[1:]), [FRAMES])
    level = 20.0 * torch.log10(scaled.std() / reference.std())
    assert abs(float(level) - decibels) < 0.1


def test_digital_silence_stays_below_minus_80_dbfs(tiny):
    audio, *others = signals(TINY)
    output = run(tiny, (torch.zeros_like(audio), *others), [FRAMES])
    assert output.abs().max() < 1e-4


def test_traces_above_the_cutoff_are_not_seen(tiny):
    inputs = signals(TINY)
    time = torch.arange(inputs[0].shape[2]) / 48_000
    trace = 1e-3 * torch.sin(2 * torch.pi * 9000.0 * time)
    reference = run(tiny, inputs, [FRAMES])
    traced = run(tiny, (inputs[0] + trace, *inputs[1:]), [FRAMES])
    # What is left is the trace's leakage through the analysis window.
    assert (traced - reference).std() < 1e-2 * reference.std()


def test_zero_state_equals_a_fresh_stream_and_batches_do_not_mix(tiny):
    inputs = signals(TINY, batch=3)
    together = run(tiny, inputs, [FRAMES])
    alone = run(tiny, tuple(value[1:2] for value in inputs), [FRAMES])
    torch.testing.assert_close(together[1:2], alone, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(("name", "low", "high"), [("small", 3.0e6, 3.1e6), ("base", 10e6, 12.5e6)])
def test_sizes(name, low, high):
    assert low < parameter_count(seeded(configuration(name), 0)) < high


def test_generated_band_lies_between_cutoff_and_ceiling(tiny):
    inputs = signals(TINY, 100)
    output = run(tiny, inputs, [100])[0, 0, 4800:]
    windows = output.unfold(0, 2048, 512) * torch.hann_window(2048)
    power = torch.fft.rfft(windows).abs().square().mean(0)
    frequency = torch.fft.rfftfreq(2048, 1 / 48_000)
    inside = power[(frequency > 4200) & (frequency < 19_500)].mean()
    assert power[frequency < 2500].mean() < 1e-3 * inside
    assert power[frequency > 21_500].mean() < 1e-3 * inside


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (24, 25), (3, 4)])
def test_transform_is_the_orthonormal_dft_and_inverts(rows, columns):
    x = torch.randn(2, 3, rows * columns)
    parts = RealTransform(rows, columns)(x)
    expected = torch.fft.rfft(x, norm="ortho")
    torch.testing.assert_close(torch.complex(*parts.unbind(2)), expected, atol=1e-5, rtol=1e-4)
    back = InverseRealTransform(rows, columns)(parts)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=1e-4)


def test_synthesis_windows_add_up_to_one():
    window = synthesis_window()
    torch.testing.assert_close(window[:OVERLAP] + window[HOP:], torch.ones(OVERLAP))
    overlap_add = OverlapAdd()
    output, _ = overlap_add.step(torch.ones(1, 6, 600), {"tail": torch.zeros(1, 1, OVERLAP)})
    torch.testing.assert_close(output[..., OVERLAP:], torch.ones(1, 1, 6 * HOP - OVERLAP))


def test_analysis_window_hears_the_newest_samples_and_has_unit_power():
    window = analysis_window()
    assert abs(float(window.square().mean()) - 1.0) < 1e-5
    assert window.argmax() >= 1024 - 130
    assert window[-64] > 0.4 * window.max()


@pytest.mark.parametrize(
    "module",
    [
        CausalConv1d(6, 6, 4),
        ConvNeXtBlock(6, 7, 2),
        WindowedAttention(6, 2, 4),
        GatedMemory(6, 5),
        RunningMinimum(6, 0.01),
    ],
    ids=lambda module: type(module).__name__,
)
def test_every_layer_streams(module):
    x = torch.randn(2, 13, 6)
    whole, last = module.step(x, module.initial_state(2))
    state = module.initial_state(2)
    blocks = []
    for frame in range(13):
        block, state = module.step(x[:, frame : frame + 1], state)
        blocks.append(block)
    torch.testing.assert_close(torch.cat(blocks, 1), whole, atol=1e-5, rtol=1e-4)
    for name, value in flatten(last).items():
        torch.testing.assert_close(flatten(state)[name], value, atol=1e-5, rtol=1e-4)


def test_attention_forgets_what_left_its_window():
    module = WindowedAttention(6, 2, 4)
    x = torch.randn(1, 12, 6)
    reference, _ = module.step(x, module.initial_state(1))
    x[:, 0] += 5.0
    changed, _ = module.step(x, module.initial_state(1))
    assert not torch.equal(changed[:, :4], reference[:, :4])
    torch.testing.assert_close(changed[:, 4:], reference[:, 4:])


def in_a_graph(monkeypatch):
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)


@pytest.mark.parametrize("frames", [1, 2, 13])
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (GatedMemory(6, 5), (6,)),
        (RunningMinimum(6, 0.3), (6,)),
        (CausalConv1d(6, 4, 3), (6,)),
        (CausalConv1d(6, 6, 7, groups=6), (6,)),
        (RunningLevel(8), (1,)),
        (OverlapAdd(), (600,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
@torch.no_grad()
def test_a_layer_in_a_graph_is_the_one_in_training(module, shape, frames, monkeypatch):
    """A graph holds one way for a single frame and one for more, training another."""
    _, state = module.step(torch.rand(2, 9, *shape), module.initial_state(2))
    x = torch.rand(2, frames, *shape) + 0.5
    output, following = module.step(x, state)
    in_a_graph(monkeypatch)
    again, after = module.step(x, state)
    torch.testing.assert_close(again, output, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(flatten(after), flatten(following), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("hops", [1, 2, 5])
def test_frames_in_a_graph_are_those_in_training(hops, monkeypatch):
    history = FrameHistory()
    audio, state = torch.randn(2, 1, 480 * hops), {"audio": torch.randn(2, 960)}
    frames, following = history.step(audio, state)
    assert frames.shape == (2, hops, 1440)
    in_a_graph(monkeypatch)
    again, after = history.step(audio, state)
    assert torch.equal(again, frames)
    assert torch.equal(after["audio"], following["audio"])


def test_gated_memory_is_the_recurrence_frame_by_frame():
    module = GatedMemory(6, 5)
    x = torch.randn(1, 40, 6)
    gate, candidate = module.project(module.norm(x)).chunk(2, dim=2)
    gate = gate.sigmoid()
    memory, expected = torch.zeros(1, 5), []
    for frame in range(40):
        memory = (1 - gate[:, frame]) * memory + gate[:, frame] * candidate[:, frame]
        expected.append(memory)
    output, state = module.step(x, module.initial_state(1))
    torch.testing.assert_close(output, x + module.merge(torch.stack(expected, 1)))
    torch.testing.assert_close(state["memory"][:, 0], memory)


def test_a_second_derivative_through_a_gated_memory_is_refused_as_such():
    module = GatedMemory(6, 5)
    x = torch.randn(1, 8, 6, requires_grad=True)
    output, _ = module.step(x, module.initial_state(1))
    (slope,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()


def test_a_minimum_falls_at_once_and_rises_slowly():
    x = torch.full((1, 12, 1), -3.0)
    x[:, 4] = -10.0
    least, _ = RunningMinimum(1, 0.5).step(x, RunningMinimum(1, 0.5).initial_state(1))
    expected = [-3.0] * 4 + [-10.0 + 0.5 * frame for frame in range(8)]
    assert least.flatten().tolist() == pytest.approx(expected)


def test_levels_follow_the_sound_and_not_its_level(tiny):
    """Ten decibels more of input are ten more of every band: levels are relative to it."""
    power = tiny.band_power(torch.randn(1, FRAMES, 2, 513) * 0.05)
    cutoff = torch.full((1, FRAMES, 1), 4000.0)
    path = tiny.level_path
    assert isinstance(path, LevelPath)
    path = copy.deepcopy(path)
    with torch.no_grad():
        # How loud all of it is, is an input too; without its weight nothing may be left of it.
        path.enter.weight[:, -1] = 0.0
        path.straight.weight[:, -1] = 0.0
        level = power.mean().sqrt().expand(1, FRAMES, 1)
        (soft, _), _ = path.step(power, level, cutoff, path.initial_state(1))
        (loud, _), _ = path.step(10.0 * power, 10**0.5 * level, cutoff, path.initial_state(1))
    torch.testing.assert_close(soft.level, loud.level, atol=1e-3, rtol=1e-3)


def test_bands_above_the_cutoff_tell_nothing(tiny):
    path = tiny.level_path
    power = tiny.band_power(torch.randn(1, FRAMES, 2, 513) * 0.05)
    level, cutoff = torch.full((1, FRAMES, 1), 0.1), torch.full((1, FRAMES, 1), 4000.0)
    other = power.clone()
    other[..., 36:] = 0.0
    with torch.no_grad():
        (one, _), _ = path.step(power, level, cutoff, path.initial_state(1))
        (two, _), _ = path.step(other, level, cutoff, path.initial_state(1))
    torch.testing.assert_close(one.level, two.level)


def test_gains_follow_the_level_path_as_far_as_it_trusts_itself(tiny):
    inputs = signals(TINY)
    audio, _, f_prior, f_target = inputs
    cutoffs = f_prior.transpose(1, 2), f_target.transpose(1, 2)
    with torch.no_grad():
        state = tiny.initial_state(1)
        conditioning, _ = tiny.analyse(audio, cutoffs[0], state)
        conditioning.predicted = None
        wanted = conditioning.levels.level
        own, _ = tiny.gains(conditioning.z, replace(conditioning, levels=None), cutoffs, state)
        for trust in (0.0, 0.25, 1.0):
            levels = conditioning.levels._replace(trust=torch.full_like(wanted, trust))
            trusting = replace(conditioning, levels=levels)
            shape, _ = tiny.gains(conditioning.z, trusting, cutoffs, state)
            expected = own.level() + trust * (wanted - own.level())
            torch.testing.assert_close(shape.level(), expected, atol=1e-3, rtol=1e-3)
            # The carriers keep their shares.
            lift = shape.log_gains - own.log_gains
            torch.testing.assert_close(lift[:, :, 0], lift[:, :, 1])


@pytest.mark.parametrize(
    ("speech", "other", "share"),
    [(99.0, 8, 0.75), (-99.0, 8, 0.5), (99.0, 0, 0.75), (-99.0, 0, 0.0)],
    ids=["speech", "other sound", "speech alone", "other sound, which it does not know"],
)
def test_gains_move_part_of_the_way_to_the_predicted_levels(speech, other, share):
    tiny = seeded(replace(TINY, predictor_other=other), 3).eval()
    assert_gains_move(tiny, speech, share)


@pytest.mark.parametrize("trust", [0.1, 0.3, 1.0])
def test_the_configuration_says_how_far_the_gains_of_speech_move(trust):
    assert_gains_move(seeded(replace(TINY, predictor_trust=trust), 3).eval(), 99.0, trust)


@pytest.mark.parametrize("trust", [0.1, 0.3, 1.0])
def test_the_configuration_says_how_far_the_gains_of_other_sound_move(trust):
    tiny = replace(TINY, predictor_other=8, predictor_other_trust=trust)
    assert_gains_move(seeded(tiny, 3).eval(), -99.0, trust)


def test_models_that_do_not_say_how_far_move_half_way():
    """As all did before it was a setting: restoring one of them must give what it was."""
    before = replace(TINY, predictor_other=8).to_dict()
    del before["predictor_trust"], before["predictor_other_trust"]
    for speech in (99.0, -99.0):
        assert_gains_move(seeded(ModelConfig.from_dict(before), 3).eval(), speech, 0.5)


@pytest.mark.parametrize("trust", [-0.1, 0.0, 1.1, math.nan])
@pytest.mark.parametrize("name", ["predictor_trust", "predictor_other_trust"])
def test_what_is_no_share_of_the_way_is_refused(name, trust):
    with pytest.raises(ValueError, match=f"{name} is"):
        replace(TINY, **{name: trust})


def assert_gains_move(tiny, speech, share):
    audio, _, f_prior, f_target = signals(TINY)
    cutoffs = f_prior.transpose(1, 2), f_target.transpose(1, 2)
    with torch.no_grad():
        tiny.band_predictor.head.bias[-1] = speech
        state = tiny.initial_state(1)
        conditioning, _ = tiny.analyse(audio, cutoffs[0], state)
        without = replace(conditioning, predicted=None)
        own, _ = tiny.gains(conditioning.z, without, cutoffs, state)
        moved, _ = tiny.gains(conditioning.z, conditioning, cutoffs, state)
    expected = own.level() + share * (conditioning.predicted.level - own.level())
    torch.testing.assert_close(moved.level(), expected, atol=1e-3, rtol=1e-3)


def top_of(f_target=22_050.0, speech=99.0, speech_ceiling=23_950.0):
    """Return the levels in dB of 20.5 to 21.5 and 22.6 to 23.5 kHz, relative to 10 to 20 kHz."""
    config = replace(TINY, speech_ceiling=speech_ceiling)
    tiny = seeded(config, 3).eval()
    audio, noise, f_prior, target = signals(config, frames=40)
    with torch.no_grad():
        tiny.band_predictor.head.bias[-1] = speech
        high_band = run(tiny, (audio, noise, f_prior, target.fill_(f_target)), [40])[0, 0, 4800:]
    power = torch.fft.rfft(high_band * torch.hann_window(len(high_band))).abs().square()
    hz = torch.linspace(0.0, 24_000.0, len(power))
    octave, below, above = (
        power[(hz > low) & (hz < high)].mean()
        for low, high in ((10_000, 20_000), (20_500, 21_500), (22_600, 23_500))
    )
    return [float(10.0 * torch.log10((one + 1e-30) / octave)) for one in (below, above)]


@pytest.mark.parametrize(
    ("speech", "f_target", "reaches"),
    [
        (99.0, 22_050.0, True),
        (-99.0, 22_050.0, False),
        (99.0, 22_000.0, False),
        (99.0, 24_000.0, True),
        (-99.0, 24_000.0, True),
    ],
    ids=["speech", "other sound", "a ceiling", "all of the band", "all of it, other sound"],
)
def test_what_is_speech_goes_on_beyond_the_own_ceiling(speech, f_target, reaches):
    below, above = top_of(f_target, speech)
    assert below > -15.0
    assert above > -15.0 if reaches else above < -50.0


def test_models_without_a_ceiling_for_speech_have_one_for_all():
    _, above = top_of(speech_ceiling=0.0)
    assert above < -50.0
    before = TINY.to_dict()
    del before["speech_ceiling"], before["own_ceiling"]
    assert ModelConfig.from_dict(before).speech_ceiling == 0.0


@pytest.mark.parametrize("ceiling", [-1.0, 22_000.0, 24_001.0, math.nan])
def test_a_ceiling_of_speech_below_the_own_or_outside_the_band_is_refused(ceiling):
    with pytest.raises(ValueError, match="speech_ceiling is"):
        replace(TINY, speech_ceiling=ceiling)


def test_predicted_levels_do_not_depend_on_how_loud_the_input_is(tiny):
    """Ten decibels more of input are ten more of every band, but for one feature."""
    predictor = copy.deepcopy(tiny.band_predictor)
    assert isinstance(predictor, BandPredictor)
    power = tiny.band_power(torch.randn(1, FRAMES, 2, 513) * 5.0)
    cutoff = torch.full((1, FRAMES, 1), 4000.0)
    with torch.no_grad():
        predictor.enter.weight[:, -1] = 0.0
        predictor.straight.weight[:, -1] = 0.0
        level = torch.full((1, FRAMES, 1), 0.1)
        predictor.other.enter.weight[:, -1] = 0.0
        predictor.other.straight.weight[:, -1] = 0.0
        path = torch.randn(1, FRAMES, TINY.level_width)
        state = predictor.initial_state(1)
        (soft, _), _ = predictor.step(power, level, cutoff, path, state)
        (loud, _), _ = predictor.step(10.0 * power, level, cutoff, path, state)
    expected = soft.level + math.log(10.0) / 2.0
    torch.testing.assert_close(loud.level, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(loud.trust, soft.trust, atol=1e-3, rtol=1e-3)


def test_the_predictor_knows_nothing_of_bands_above_the_cutoff(tiny):
    predictor = tiny.band_predictor
    power = torch.rand(1, FRAMES, 64)
    cutoff = torch.full((1, FRAMES, 1), 4000.0)
    other = power.clone()
    other[..., 36:] = 7.0
    with torch.no_grad():
        path = torch.randn(1, FRAMES, TINY.level_width)
        one, _ = predictor.predict(power, cutoff, path, predictor.initial_state(1))
        two, _ = predictor.predict(other, cutoff, path, predictor.initial_state(1))
    torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    ("speech", "names"), [(99.0, "speech"), (-99.0, "other")], ids=["speech", "other sound"]
)
def test_the_predictor_gives_the_levels_of_what_it_takes_the_sound_for(tiny, speech, names):
    predictor = copy.deepcopy(tiny.band_predictor)
    power, path = torch.rand(1, FRAMES, 64), torch.randn(1, FRAMES, TINY.level_width)
    cutoff, level = torch.full((1, FRAMES, 1), 4000.0), torch.full((1, FRAMES, 1), 0.1)
    with torch.no_grad():
        predictor.head.bias[-1] = speech
        state = predictor.initial_state(1)
        (given, _), _ = predictor.step(power, level, cutoff, path, state)
        said, _ = predictor.predict(power, cutoff, path, state)
    assert not torch.allclose(said.speech, said.other, atol=0.1)
    torch.testing.assert_close(given.level, getattr(said, names) - math.log(0.1))


def test_powers_of_bands_add_up_to_the_energy_of_the_spectrum(tiny):
    parts = torch.randn(2, FRAMES, 2, 513)
    # What the ends have counts half there.
    parts[..., [0, -1]] = 0.0
    energy = tiny.band_power.energy(tiny.band_power(parts))
    torch.testing.assert_close(energy, tiny.energy(parts))


def test_powers_of_bands_tell_the_predictor_what_the_spectrum_does(tiny):
    """Training has powers alone; the running level and the level path come from them, too."""
    audio, _, f_prior, _ = signals(TINY)
    cutoff = f_prior.transpose(1, 2)
    # Nothing at the ends of the spectrum, whose bins count half.
    audio = audio - torch.nn.functional.avg_pool1d(audio, 9, 1, 4)
    with torch.no_grad():
        conditioning, _ = tiny.analyse(audio, cutoff, tiny.initial_state(1))
        _, level, parts, _ = tiny._measure(audio, cutoff, tiny.initial_state(1))
        said = tiny.predict_from_bands(tiny.band_power(parts), cutoff)
    trust = TINY.predictor_trust * said.logit.sigmoid().square()
    of_other = 0.5 * (-said.logit).sigmoid().square()
    absolute = (trust * said.speech + of_other * said.other) / (trust + of_other)
    expected = conditioning.predicted
    torch.testing.assert_close(absolute - level.log(), expected.level, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(trust + of_other, expected.trust, atol=2e-3, rtol=1e-3)


def test_a_band_is_copied_up_in_whole_patches_from_below_the_cutoff():
    sources = source_bins()
    assert sources.shape == (301, 301)
    # At 4 kHz, bin 50: patches of 40 bins, of which the highest source is bin 47.
    assert sources[50, :48].tolist() == list(range(48))
    assert sources[50, 48:88].tolist() == list(range(8, 48))
    assert sources[50, 88:128].tolist() == list(range(8, 48))
    for cutoff_bin in range(20, 301):
        assert int(sources[cutoff_bin].max()) < max(cutoff_bin - 2, 5) + 1
        assert not ((torch.arange(301) - sources[cutoff_bin]) % 5).any()


@pytest.mark.parametrize("carrier", [0, 1, 2], ids=["noise", "harmonic", "replicated"])
def test_a_gain_says_how_loud_its_band_will_be(tiny, carrier):
    frames = 300
    audio, noise, f_prior, _ = signals(TINY, frames)
    cutoffs = f_prior.transpose(1, 2), torch.full((1, frames, 1), 24_000.0)
    log_gains = torch.full((1, frames, 3, 64), -30.0)
    log_gains[:, :, carrier] = torch.linspace(-2.0, -4.0, 64)
    shape = CarrierGains(log_gains, torch.full((1, frames, 15), 0.7), [])
    with torch.no_grad():
        state = tiny.initial_state(1)
        conditioning, _ = tiny.analyse(audio, cutoffs[0], state)
        carried = noise.transpose(1, 2)[..., TINY.latent :]
        high_band, _ = tiny.synthesise(shape, conditioning, carried, cutoffs, state)
    aligned = functional.pad(high_band[..., 120:], (0, 120))
    measured = 0.5 * (LevelLoss(64).powers(aligned) / conditioning.level.square()).mean(1).log()
    # From the second band above the cutoff on, without the very last.
    difference = (measured - shape.level().mean(1))[0, 37:62]
    assert difference.abs().max() < 0.12


def test_convolutions_are_dense_or_by_channel():
    with pytest.raises(ValueError, match="dense, or one filter per channel"):
        CausalConv1d(6, 6, 4, groups=2)


def test_running_level_is_the_weighted_root_mean_square():
    module = RunningLevel(64)
    level, _ = module.step(torch.full((1, 100, 1), 0.25), module.initial_state(1))
    assert abs(float(level[0, -1, 0]) - 0.5) < 1e-5
    assert torch.all(level.diff(dim=1) >= -1e-6)


def test_interpolations_are_partitions_of_one():
    assert torch.allclose(band_interpolation(64, 301).sum(0), torch.ones(301), atol=1e-5)
    assert torch.allclose(point_interpolation(15, 600).sum(0), torch.ones(600), atol=1e-5)


def test_euler_on_a_constant_field_reaches_the_same_point_in_any_number_of_steps(tiny):
    net = VelocityNet(TINY)
    with torch.no_grad():
        net.leave.weight.zero_()
        net.leave.bias.fill_(0.7)
    z = torch.randn(1, 5, TINY.latent)
    hidden = torch.randn(1, 5, TINY.encoder_width)
    cutoffs = (torch.full((1, 5, 1), 4000.0), torch.full((1, 5, 1), 20000.0))
    for steps in (1, 4):
        end, states = euler(net, z, z, hidden, cutoffs, [net.initial_state(1)] * steps)
        torch.testing.assert_close(end, z + 0.7)
        assert len(states) == steps


def test_crossover_of_training_is_the_run_times_filter():
    import numpy as np

    from rtsr_kernels import apply_sos, highpass_sos, highpass_state

    x = torch.randn(1, 1, 9600) * 0.1
    filtered = high_pass(x, [4000.0])[0, 0].numpy()
    block = np.ascontiguousarray(x[0, 0].numpy()[:, None])
    out = np.empty_like(block)
    apply_sos(highpass_sos(4000.0), highpass_state(1), block, out)
    assert np.abs(filtered - out[:, 0]).max() < 1e-5


def test_state_flattens_and_comes_back(tiny):
    state = tiny.initial_state(2)
    flat = flatten(state)
    assert all(value.shape[0] == 2 for value in flat.values())
    assert unflatten(flat).keys() == state.keys()
    assert list(flatten(unflatten(flat))) == list(flat)


def test_unknown_configurations_are_refused():
    with pytest.raises(ValueError, match="no configuration 'huge'"):
        configuration("huge")
    with pytest.raises(ValueError, match="unknown model settings: width"):
        ModelConfig.from_dict({"name": "x", "width": 3})


SWITCHES = (
    "f_prior_token",
    "f_target_token",
    "decoder_hears_features",
    "decoder_hears_carriers",
)


def switched_off(name: str):
    return seeded(replace(TINY, **{name: False}), 3).eval()


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_what_is_heard_and_no_weight(tiny, name):
    off = switched_off(name)
    weights, others = tiny.state_dict(), off.state_dict()
    assert list(weights) == list(others)
    assert all(torch.equal(value, others[key]) for key, value in weights.items())
    inputs = signals(TINY)
    assert not torch.equal(run(off, inputs, [FRAMES]), run(tiny, inputs, [FRAMES]))
    torch.testing.assert_close(
        run(off, inputs, [5, FRAMES - 5]), run(off, inputs, [FRAMES]), atol=1e-7, rtol=1e-5
    )


def hz(value: float):
    return torch.full((1, 5, 1), value)


@pytest.mark.parametrize(
    ("name", "heeds_prior", "heeds_target"),
    [
        ("decoder_hears_features", True, True),
        ("f_prior_token", False, True),
        ("f_target_token", True, False),
    ],
)
@torch.no_grad()
def test_a_token_that_is_off_reaches_no_network(name, heeds_prior, heeds_target):
    generator = switched_off(name)
    z, hidden = torch.randn(1, 5, TINY.latent), torch.randn(1, 5, TINY.encoder_width)
    carriers = torch.randn(1, 5, 3, 2, 301)
    mask, features = torch.ones(1, 5, 301), torch.randn(1, 5, 1539)

    def analysed(f_prior: float, f_target: float, time: float = 0.0):
        cutoffs = hz(f_prior), hz(f_target)
        net, decoder, encoder = generator.velocity, generator.decoder, generator.encoder
        velocity, _ = net.step(z, z, hidden, (hz(time), *cutoffs), net.initial_state(1))
        shape, _ = decoder.gains(z, hidden, cutoffs, (), decoder.initial_state(1))
        frames = decoder.synthesise(shape, carriers, mask)
        (latent, _), _ = encoder.step(features, hz(f_prior), encoder.initial_state(1))
        return velocity, frames, latent

    reference = analysed(4000.0, 20_000.0)
    other_prior, other_target = analysed(9000.0, 20_000.0), analysed(4000.0, 15_000.0)
    for index in range(3):
        assert torch.equal(reference[index], other_prior[index]) == (not heeds_prior)
    for index in range(2):
        assert torch.equal(reference[index], other_target[index]) == (not heeds_target)
    assert not torch.equal(reference[0], analysed(4000.0, 20_000.0, time=0.5)[0])


@pytest.mark.parametrize(
    ("name", "deaf_to"),
    [
        ("f_prior_token", ()),
        ("decoder_hears_features", ("hidden",)),
        ("decoder_hears_carriers", ("harmonic", "replicated")),
    ],
)
@torch.no_grad()
def test_a_decoder_hears_what_it_may_and_nothing_else(name, deaf_to):
    decoder = switched_off(name).decoder
    given = {
        "z": torch.randn(1, 5, TINY.latent),
        "hidden": torch.randn(1, 5, TINY.encoder_width),
        **{carrier: torch.randn(1, 5, 2, 301) for carrier in ("noise", "harmonic", "replicated")},
    }

    def decoded(values):
        named = [values[name] for name in ("noise", "harmonic", "replicated")]
        carriers = torch.stack(named, dim=2)
        cutoffs = hz(4000.0), hz(20_000.0)
        state = decoder.initial_state(1)
        mask = torch.ones(1, 5, 301)
        shape, _ = decoder.gains(values["z"], values["hidden"], cutoffs, (), state)
        return decoder.synthesise(shape, carriers, mask)

    reference = decoded(given)
    for part, value in given.items():
        changed = decoded({**given, part: value + torch.randn_like(value)})
        assert torch.equal(changed, reference) == (part in deaf_to), part


@torch.no_grad()
def test_without_free_bins_a_decoder_only_shapes_its_carriers():
    free, shaping = (
        seeded(replace(TINY, decoder_free_bins=bins), 3).eval() for bins in (True, False)
    )
    z, hidden = torch.randn(1, 5, TINY.latent), torch.randn(1, 5, TINY.encoder_width)
    silence = torch.zeros(1, 5, 3, 2, 301)

    def decoded(generator):
        decoder = generator.decoder
        cutoffs, mask = (hz(4000.0), hz(20_000.0)), torch.ones(1, 5, 301)
        shape, _ = decoder.gains(z, hidden, cutoffs, (), decoder.initial_state(1))
        return decoder.synthesise(shape, silence, mask)

    assert not decoded(shaping).any()
    assert decoded(free).any()
    freed = free.decoder.head.weight.shape[0] - shaping.decoder.head.weight.shape[0]
    assert freed == 2 * 301
    inputs = signals(TINY)
    torch.testing.assert_close(
        run(shaping, inputs, [5, FRAMES - 5]), run(shaping, inputs, [FRAMES]), atol=1e-7, rtol=1e-5
    )


def test_a_configuration_from_before_the_switches_means_their_defaults():
    switches = (*SWITCHES, "decoder_free_bins")
    old = {key: value for key, value in TINY.to_dict().items() if key not in switches}
    assert ModelConfig.from_dict(old) == replace(TINY, decoder_free_bins=True)


def test_several_euler_steps_stream_and_one_is_the_default(tiny):
    inputs = signals(TINY)
    state = tiny.initial_state(1, euler_steps=4)
    assert list(tiny.initial_state(1)) == [key for key in state if not key[-1].isdigit()]
    four = run(tiny, inputs, [FRAMES], euler_steps=4)
    parts = run(tiny, inputs, [1, 6, FRAMES - 7], euler_steps=4)
    torch.testing.assert_close(parts, four, atol=1e-7, rtol=1e-5)
    one = run(tiny, inputs, [FRAMES])
    assert torch.equal(run(tiny, inputs, [FRAMES], euler_steps=1), one)
    assert not torch.equal(four, one)


def test_a_negative_decoder_noise_is_refused():
    with pytest.raises(ValueError, match=r"decoder_noise is -0\.1"):
        replace(TINY, decoder_noise=-0.1)
