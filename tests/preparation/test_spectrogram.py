from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.artifacts import AudioPreprocessing
from edgetl.errors import ModelError
from edgetl.preparation.audio import audio_preprocessing, build_audio, mel_filters
from edgetl.runtime import sessions

CASES: list[dict[str, Any]] = [
    {},
    {"mel_scale": "slaney", "log": "decibel", "channels": 3, "mean": -40.0, "std": 20.0},
    {"sample_rate": 8000, "n_fft": 256, "hop_length": 100, "mels": 20, "f_min": 60.0, "power": 1.0, "seconds": 0.7},
    {"n_fft": 512, "mels": 40, "time_first": True, "log_offset": 1e-10},
    {"n_fft": 512, "win_length": 401, "center": False, "scale": 32768.0, "log": "decibel", "top_db": 50.0,
     "log_offset": 1e-10, "mel_scale": "slaney", "mels": 32, "time_first": True, "channels_last": True},
    {"n_fft": 512, "center": False, "channels_last": True, "channels": 3},
]  # fmt: skip


def run(spec: AudioPreprocessing, samples: np.ndarray, directory: Path) -> np.ndarray:
    build_audio(spec, "network_input", directory / "preprocess.onnx")
    (found,) = sessions.open_session(directory / "preprocess.onnx").run(None, {"audio": samples.astype(np.float32)})
    assert found.shape == (1, *spec.shape)
    return found[0]


def closed_form(spec: AudioPreprocessing, samples: np.ndarray) -> np.ndarray:
    """Frame by frame with numpy's own Fourier transform, in float64."""
    start = max(len(samples) - spec.samples, 0) // 2
    samples = samples[start : start + spec.samples]
    lacking = spec.samples - len(samples)
    samples = np.pad(samples, (lacking // 2, lacking - lacking // 2))
    samples = samples * spec.scale
    padded = np.pad(samples, spec.n_fft // 2, mode="reflect") if spec.center else samples
    length = spec.win_length or spec.n_fft
    before = (spec.n_fft - length) // 2
    window = np.pad(np.hanning(length + 1)[:-1], (before, spec.n_fft - length - before))
    columns = [
        np.abs(np.fft.rfft(padded[i * spec.hop_length :][: spec.n_fft] * window)) ** spec.power
        for i in range(spec.frames)
    ]
    logarithm = np.log(mel_filters(spec) @ np.stack(columns, 1) + spec.log_offset)
    if spec.log == "decibel":
        logarithm *= 10 / np.log(10)
    if spec.top_db:
        logarithm = np.maximum(logarithm, logarithm.max() - spec.top_db)
    scaled = (logarithm - spec.mean) / spec.std
    scaled = scaled.T if spec.time_first else scaled
    return np.broadcast_to(scaled[..., None] if spec.channels_last else scaled, spec.shape)


@pytest.mark.parametrize("fields", CASES)
@pytest.mark.parametrize("length", [0.3, 1.0, 2.5])
def test_the_graph_is_the_closed_form(fields: dict[str, Any], length: float, tmp_path: Path) -> None:
    spec = audio_preprocessing(fields)
    rng = np.random.default_rng(0)
    count = int(length * spec.samples) + 1
    samples = 0.1 * rng.standard_normal(count) + 0.5 * np.sin(np.arange(count) * 0.3)
    np.testing.assert_allclose(run(spec, samples, tmp_path), closed_form(spec, samples), rtol=1e-3, atol=2e-3)


def test_very_short_and_silent_recordings(tmp_path: Path) -> None:
    spec = AudioPreprocessing()
    for samples in (np.array([0.5]), np.zeros(3), np.zeros(50_000)):
        found = run(spec, samples, tmp_path)
        np.testing.assert_allclose(found, closed_form(spec, samples), atol=2e-3)
    np.testing.assert_allclose(run(spec, np.zeros(9), tmp_path), np.log(1e-6), rtol=1e-5)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_the_filters_are_those_of_transformers(scale: str) -> None:
    utils = pytest.importorskip("transformers.audio_utils")
    spec = audio_preprocessing({"mel_scale": scale, "mels": 40, "n_fft": 1024, "f_min": 50.0})
    expected = utils.mel_filter_bank(
        num_frequency_bins=513,
        num_mel_filters=40,
        min_frequency=50.0,
        max_frequency=8000.0,
        sampling_rate=16000,
        norm="slaney" if scale == "slaney" else None,
        mel_scale=scale,
    )
    np.testing.assert_allclose(mel_filters(spec), expected.T, atol=1e-12)


def test_the_spectrogram_is_that_of_transformers(tmp_path: Path) -> None:
    utils = pytest.importorskip("transformers.audio_utils")
    spec = audio_preprocessing({"mel_scale": "slaney", "log_offset": 1e-10})
    samples = np.random.default_rng(0).standard_normal(spec.samples)
    expected = utils.spectrogram(
        samples,
        window=utils.window_function(400, "hann"),
        frame_length=400,
        hop_length=160,
        power=2.0,
        mel_filters=mel_filters(spec).T,
        mel_floor=0.0,
    )
    np.testing.assert_allclose(run(spec, samples, tmp_path)[0], np.log(expected), atol=2e-3)


@pytest.mark.parametrize("center", [True, False])
def test_a_short_window_lies_where_torch_has_it(center: bool, tmp_path: Path) -> None:
    import torch

    spec = audio_preprocessing({"n_fft": 512, "win_length": 401, "center": center, "log_offset": 1e-10})
    samples = 0.1 * np.random.default_rng(1).standard_normal(16000)
    window = torch.hann_window(401, dtype=torch.float64)
    values = torch.stft(torch.from_numpy(samples), 512, 160, 401, window, center, "reflect", return_complex=True)
    expected = np.log(mel_filters(spec) @ (values.abs() ** 2).numpy() + 1e-10)
    np.testing.assert_allclose(run(spec, samples, tmp_path)[0], expected, atol=2e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": 3}, "no field rate"),
        ({"mels": 2.5}, "mels must be of type int"),
        ({"mels": True}, "mels must be of type int"),
        ({"log": "binary"}, "natural or decibel"),
        ({"f_max": 9000.0}, "at most half"),
        ({"seconds": 0.001}, "shorter than twice"),
        ({"mels": 200}, "larger n_fft"),
        ({"std": 0.0}, "positive"),
        ({"center": False, "seconds": 0.02}, "no longer than seconds"),
        ({"win_length": 500}, "at most n_fft"),
        ({"top_db": 80.0}, "for log decibel"),
        ({"scale": 0.0}, "scale must be positive"),
    ],
)
def test_what_makes_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        audio_preprocessing(fields)
