"""Fitting band replication: it learns levels, respects a recording's end, writes its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal as filters

from rtsr.engine.replicate import ReplicateSource
from rtsr.errors import RtsrError
from rtsr.quality import evaluate
from rtsr.runtime import replicate_file
from rtsr.train import fit_replicate
from rtsr.train.listing import Listed
from rtsr.train.replicate import fit, load_passages, passage_of
from rtsr_bench.quality.baseline import degrade
from rtsr_kernels.highpass import apply_sos, highpass_sos, highpass_state
from rtsr_kernels.replicate_design import BANDS, bands_below

RATE = 48000
CUTOFF = 4000.0


def swelling_noise(seconds: float, seed: int, level: float = 0.1) -> np.ndarray:
    """Noise whose colour and level wander together: the louder, the brighter."""
    random = np.random.default_rng(seed)
    dark = filters.lfilter([0.1], [1, -0.95], random.normal(size=int(seconds * RATE)))
    bright = filters.lfilter([0.4], [1, -0.6], random.normal(size=int(seconds * RATE)))
    steps = np.repeat(random.uniform(0, 1, size=int(seconds * 5) + 1), RATE // 5)[: dark.size]
    share = filters.lfilter(*filters.butter(1, 10, fs=RATE), steps)
    return level * ((1 - share) * dark + share * bright) * 10 ** (share - 1)


@pytest.fixture(scope="module")
def weights() -> replicate_file.ReplicateWeights:
    passages = [passage_of(swelling_noise(6.0, seed), 24000.0) for seed in range(6)]
    return replicate_file.ReplicateWeights(fit(passages), 0.5)


def enhance(weights: replicate_file.ReplicateWeights, narrow: np.ndarray) -> np.ndarray:
    source = ReplicateSource(1, 0, weights=weights)
    cutoff = np.full(1, CUTOFF, np.float32)
    audio = np.pad(narrow, (0, 960)).astype(np.float32)[:, None]
    high = np.concatenate(
        [
            source.generate(audio[start : start + 480], cutoff, 24000.0).copy()
            for start in range(0, len(audio) - 479, 480)
        ]
    )
    apply_sos(highpass_sos(CUTOFF), highpass_state(1), high, high)
    return narrow + high[120 : 120 + narrow.size, 0]


@pytest.mark.parametrize("level", [0.1, 0.003])
def test_it_learns_the_level_of_what_the_input_lacks(
    weights: replicate_file.ReplicateWeights, level: float
) -> None:
    reference = swelling_noise(6.0, 99, level)
    metrics = ["lsd_near", "hf_bias_db", "hf_envelope_db"]
    values = evaluate(reference, enhance(weights, degrade(reference, CUTOFF)), CUTOFF, metrics)
    assert abs(values["hf_bias_db"]) < 1.0
    assert values["hf_envelope_db"] < 2.0
    # the distance of two independent noises of one level is 0.79
    assert values["lsd_near"] < 0.95


def test_a_recording_teaches_nothing_above_its_own_end() -> None:
    limit = filters.butter(20, 9000, "low", fs=RATE, output="sos")
    sounds = [swelling_noise(3.0, 0), filters.sosfilt(limit, swelling_noise(3.0, 1))]
    audible = bands_below(CUTOFF)
    tables = [
        fit([passage_of(sounds[0], 24000.0), passage_of(sounds[1], end)])[audible]
        for end in (24000.0, 9000.0)
    ]
    frames = passage_of(swelling_noise(1.0, 9), 24000.0)
    assert tables[1][0, BANDS - 3] != tables[0][0, BANDS - 3]
    np.testing.assert_allclose(tables[1][:, audible], tables[0][:, audible], rtol=0.3, atol=0.05)
    assert frames.taught == BANDS


def cut_off(sound: np.ndarray, hz: float) -> np.ndarray:
    return filters.sosfilt(filters.butter(20, hz, "low", fs=RATE, output="sos"), sound)


def test_a_recording_that_ends_below_a_table_teaches_nothing_of_it() -> None:
    whole = [passage_of(swelling_noise(3.0, seed), 24000.0) for seed in range(2)]
    low = [passage_of(cut_off(swelling_noise(3.0, seed), 6000.0), 6000.0) for seed in range(5, 15)]
    audible = bands_below(8000.0)
    assert low[0].taught < audible
    alone, beside = fit(whole), fit([*low, *whole])
    np.testing.assert_array_equal(beside[audible], alone[audible])
    below = bands_below(CUTOFF)
    assert np.abs(beside[below] - alone[below]).max() > 0.01
    # Where nobody reaches a table, its first band is taken for as empty as it is.
    heard = np.concatenate([[1.0], np.zeros(5 * audible)])
    assert heard @ fit(low)[audible][: heard.size, audible] < -2.0


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [
        "path,split,domain,source,licence,speaker_or_group,sample_rate,seconds,measured_cutoff_hz"
    ]
    names = ["train/speech/nabucasa-pt_BR-cadu_48k_00.ogg", "train/music/a.flac"]
    for name in names:
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, swelling_noise(3.0, 20), RATE)
        rows.append(f"{name},train,{name.split('/')[1]},s,CC0,g,{RATE},3.0,20000")
    (tmp_path / "corpus" / "manifest.csv").write_text("\n".join(rows))
    return tmp_path / "corpus"


def test_the_command_writes_a_file_that_runs(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "replicate.npz"
    fit_replicate.fit_command(corpus, out, seconds_per_file=2.0, every=1)
    facts = replicate_file.read_facts(out)
    # the demo's own recording is left out
    assert facts.card["training_files"] == {"music": 1}
    assert facts.parameters > 10_000
    assert np.isfinite(enhance(replicate_file.read(out), swelling_noise(0.5, 3))).all()


def test_files_that_cannot_be_used_are_named_and_not_counted(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus / "text.flac").write_text("no sound")
    soundfile.write(corpus / "short.flac", swelling_noise(0.2, 5), RATE)
    with (corpus / "manifest.csv").open("a") as file:
        file.write("\ntext.flac,train,music,s,CC0,g,,,\nshort.flac,train,speech,s,CC0,g,,,")
    out = tmp_path / "replicate.npz"
    fit_replicate.fit_command(corpus, out, seconds_per_file=2.0, every=1)
    assert replicate_file.read_facts(out).card["training_files"] == {"music": 1}
    said = capsys.readouterr().err
    assert "left out text.flac: not decodable" in said
    assert "left out short.flac: 0.20 s long" in said


def test_a_manifest_can_only_lower_where_a_recording_ends(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", cut_off(swelling_noise(3.0, 1), 8000.0), RATE)
    ends = []
    for listed_hz in (20000.0, None, 6000.0):
        one = Listed("a.wav", "music", "g", listed_hz)
        ends.append(load_passages(tmp_path, [one], 2.0).passages[0].taught)
    assert ends[0] == ends[1] <= bands_below(8500.0)
    assert ends[2] < ends[0]


def test_a_folder_that_is_not_there_is_said_before_the_fit(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(RtsrError, match="There is no folder"):
        fit_replicate.fit_command(corpus, tmp_path / "none" / "r.npz", 2.0, 1)


def test_no_recordings_no_fit(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(RtsrError, match=r"None of the recordings can be used .* text\.wav: not"):
        load_passages(tmp_path, [Listed("text.wav", "music", "g", None)], 6.0)
    with pytest.raises(RtsrError, match="no recordings"):
        load_passages(Path(), [], 6.0)
