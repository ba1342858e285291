"""preprocess.onnx for recordings: a log-mel spectrogram in standard operators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl.artifacts import AUDIO, AudioPreprocessing
from edgetl.errors import ModelError
from edgetl.graph.build import Nodes, make_model

if TYPE_CHECKING:
    from numpy.typing import NDArray


def audio_preprocessing(overrides: Mapping[str, Any]) -> AudioPreprocessing:
    """Return the default preprocessing with some fields replaced; `f_max` follows `sample_rate`.

    Raises:
        ModelError: a field is not known, or the values make no sense.
    """
    known = {field.name: field.type for field in fields(AudioPreprocessing)}
    if foreign := sorted(set(overrides) - set(known)):
        raise ModelError(f"audio has no field {', '.join(foreign)}: choose from {', '.join(known)}")
    for name, value in overrides.items():
        kinds = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[str(known[name])]
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds == (bool,)):
            raise ModelError(f"audio {name} must be of type {known[name]}, not {value!r}")
    spec = replace(AudioPreprocessing(), **overrides)
    if "f_max" not in overrides:
        spec = replace(spec, f_max=spec.sample_rate / 2)
    problems = {
        "sample_rate must be between 100 and 1000000": 100 <= spec.sample_rate <= 1_000_000,
        "n_fft, hop_length, mels and seconds must be positive": min(spec.n_fft, spec.hop_length, spec.mels) > 0
        and spec.seconds > 0,
        "n_fft must be shorter than twice seconds": not spec.center or spec.n_fft // 2 < spec.samples,
        "n_fft must be no longer than seconds, or center True": spec.center or spec.n_fft <= spec.samples,
        "win_length must be at most n_fft, or 0": 0 <= spec.win_length <= spec.n_fft,
        "scale must be positive": 0 < spec.scale < math.inf,
        "top_db must not be negative, and is for log decibel": spec.top_db >= 0
        and (spec.top_db == 0 or spec.log == "decibel"),
        "f_min must be below f_max, and f_max at most half of sample_rate": 0 <= spec.f_min < spec.f_max
        and 2 * spec.f_max <= spec.sample_rate,
        "power must be 1 or 2": spec.power in (1, 2),
        "log_offset and std must be positive": spec.log_offset > 0 and spec.std > 0,
        "log must be natural or decibel": spec.log in ("natural", "decibel"),
        "mel_scale must be htk or slaney": spec.mel_scale in ("htk", "slaney"),
        "channels must be 1 or 3": spec.channels in (1, 3),
    }
    if wrong := [problem for problem, fine in problems.items() if not fine]:
        raise ModelError(f"audio: {'; '.join(wrong)}")
    empty = np.flatnonzero(mel_filters(spec).max(axis=1) == 0)
    if len(empty):
        raise ModelError(
            f"audio: {len(empty)} of {spec.mels} mel bands lie between two frequencies of the spectrum: take a larger "
            "n_fft, or fewer mels"
        )
    return spec


def build_audio(spec: AudioPreprocessing, output: str, file: Path) -> None:
    """Write the graph `audio` `[samples]` float32 at the sample rate → `output` `[1, *spec.shape]` float32."""
    op = Nodes("preprocess")
    samples = _fixed_length(op, spec)
    reach = spec.n_fft // 2
    padded = op.Pad(samples, np.array([reach, reach]), mode="reflect") if spec.center else samples
    # frames, window and Fourier transform in one: each frequency's cosine and sine slide over the recording
    waves = op.Unsqueeze(padded, np.array([0, 1]))
    parts = op.Conv(waves, _fourier(spec)[:, None], strides=[spec.hop_length])
    both = op.Reshape(parts, np.array([2, reach + 1, -1]))
    spectrum = op.ReduceSumSquare(both, np.array([0]), keepdims=0)
    if spec.power == 1:
        spectrum = op.Sqrt(spectrum)
    mels = op.MatMul(mel_filters(spec).astype(np.float32), spectrum)
    logarithm = op.Log(op.Add(mels, np.array(spec.log_offset, np.float32)))
    scale = 10 / math.log(10) if spec.log == "decibel" else 1.0
    if spec.top_db:
        least = op.Add(op.ReduceMax(logarithm, keepdims=1), float(-spec.top_db / scale))
        logarithm = op.Max(logarithm, least)
    scaled = op.Add(op.Mul(logarithm, float(scale / spec.std)), float(-spec.mean / spec.std))
    if spec.time_first:
        scaled = op.Transpose(scaled, perm=[1, 0])
    axes = np.array([0, 3 if spec.channels_last else 1])
    op.Expand(op.Unsqueeze(scaled, axes), np.array([1, *spec.shape]), out=output)
    model = make_model(
        helper.make_graph(
            op.nodes,
            "preprocess",
            [helper.make_tensor_value_info(AUDIO, TensorProto.FLOAT, ["samples"])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, *spec.shape])],
            initializer=op.initializers,
        )
    )
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


def mel_filters(spec: AudioPreprocessing) -> NDArray[np.float64]:
    """Return the mel bands as weights of the spectrum's frequencies, `[mels, n_fft // 2 + 1]`.

    Triangles between frequencies that are evenly spaced in mels. `htk`: 2595·log₁₀(1 + f/700), height 1.
    `slaney`: linear below 1000 Hz and logarithmic above, area 1 in Hz.
    """
    to_mels, to_hertz = (_htk, _htk_inverse) if spec.mel_scale == "htk" else (_slaney, _slaney_inverse)
    low, high = to_mels(np.array([spec.f_min, spec.f_max]))
    edges = to_hertz(np.linspace(low, high, spec.mels + 2))
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.arange(spec.n_fft // 2 + 1) * spec.sample_rate / spec.n_fft
    triangles = np.minimum((frequencies - left) / (centre - left), (right - frequencies) / (right - centre))
    filters = np.clip(triangles, 0, None)
    return filters * 2 / (right - left) if spec.mel_scale == "slaney" else filters


def _fixed_length(op: Nodes, spec: AudioPreprocessing) -> str:
    """Take the middle of a longer recording; put a shorter one in the middle of silence."""
    zero, two, wanted = np.array([0]), np.array([2]), np.array([spec.samples])
    size = op.Shape(AUDIO)
    start = op.Div(op.Max(op.Sub(size, wanted), zero), two)
    middle = op.Slice(AUDIO, start, op.Add(start, wanted))
    lacking = op.Max(op.Sub(wanted, size), zero)
    before = op.Div(lacking, two)
    padded = op.Pad(middle, op.Concat(before, op.Sub(lacking, before), axis=0))
    return op.Reshape(padded, wanted)  # so that its length is known


def _fourier(spec: AudioPreprocessing) -> NDArray[np.float32]:
    """Cosines, then sines, of every frequency in a periodic Hann window, `[2 · (n_fft // 2 + 1), n_fft]`."""
    size, length = spec.n_fft, spec.win_length or spec.n_fft
    angles = 2 * np.pi * (np.outer(np.arange(size // 2 + 1), np.arange(size)) % size) / size
    before = (size - length) // 2
    window = np.zeros(size)
    window[before : before + length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return (np.concatenate([np.cos(angles), -np.sin(angles)]) * window * spec.scale).astype(np.float32)


def _htk(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2595 * np.log10(1 + hertz / 700)


def _htk_inverse(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return 700 * (10 ** (mels / 2595) - 1)


_LINEAR = 200 / 3  # Hz for each mel below 1000 Hz
_STEP = math.log(6.4) / 27  # logarithm of the ratio of two mels above


def _slaney(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(hertz < 1000, hertz / _LINEAR, 15 + np.log(np.maximum(hertz, 1) / 1000) / _STEP)


def _slaney_inverse(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < 15, mels * _LINEAR, 1000 * np.exp(_STEP * (mels - 15)))
