"""Bearing faults from vibration: arrays instead of pictures, all in one file. The first step needs torch.

    python examples/vibration.py

A small network learns four states of a bearing at the speeds and the machine of a test bench. A plant's
machine resonates elsewhere and is noisier: a new head, trained on 40 windows of each state, adapts it.
The signals are synthetic: a ball that passes a crack strikes the housing, which rings for a moment.
"""

import tempfile
from pathlib import Path

import numpy as np

import edgetl

RATE = 12_800  # Hz
WINDOW = 1024
STATES = ("healthy", "inner race", "outer race", "ball")
STRIKES = (0.0, 5.4, 3.6, 2.4)  # per revolution, as the geometry of a bearing has it


def windows(
    count: int, *, speed: tuple[float, float], resonance: float, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` windows `[count, 1, WINDOW]` of each state in turn, and the states `[count]`.

    Args:
        speed: range of revolutions per second.
        resonance: of the housing, in Hz.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(WINDOW) / RATE
    states = np.arange(count) % len(STATES)
    signals = rng.normal(0, noise, (count, WINDOW))
    for signal, state in zip(signals, states, strict=True):
        turns = rng.uniform(*speed)
        signal += 0.5 * np.sin(2 * np.pi * (turns * time + rng.uniform()))
        if strikes := STRIKES[state] * turns:
            for moment in np.arange(rng.uniform(-1, 0), WINDOW / RATE * strikes) / strikes:
                since = time - moment * (1 + 0.01 * rng.normal())
                strength = rng.uniform(0.7, 1.3) * (1 + 0.8 * np.sin(2 * np.pi * turns * moment) * (state == 1))
                ringing = np.exp(-np.clip(since, 0, None) * 900) * np.sin(2 * np.pi * resonance * since)
                signal += np.where(since > 0, strength * ringing, 0)
    return signals[:, None].astype(np.float32), states


def build():
    """Return the network: edgetl calls it by name and puts the pretrained weights into it."""
    from torch import nn

    layers, channels = [], 1
    for width in (16, 32, 64, 64):
        layers += [nn.Conv1d(channels, width, 9, stride=4, padding=4), nn.BatchNorm1d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(128, len(STATES)))


def pretrain(weights: Path, foreign: np.ndarray, truth: np.ndarray) -> float:
    """Train the network on the test bench's data, as one would anyway; return its accuracy on `foreign` windows."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = windows(2400, speed=(25, 40), resonance=3000, noise=0.1, seed=0)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    network = build()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(8):
        for batch in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    torch.save(network.state_dict(), weights)
    with torch.no_grad():
        said = network.eval()(torch.from_numpy(foreign)).argmax(1)
    return float((said.numpy() == truth).mean())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        plant = {"speed": (18, 30), "resonance": 2500, "noise": 0.15}
        few, states = windows(160, seed=1, **plant)
        many, truth = windows(800, seed=2, **plant)
        np.savez(work / "plant.npz", x=few, y=states, labels=STATES)
        np.savez(work / "later.npz", x=many, y=truth, labels=STATES)
        before = pretrain(work / "weights.pt", many, truth)

        edgetl.prepare(
            f"{__file__}:build",
            out=work / "artifacts",
            weights=work / "weights.pt",
            labels_from=work / "plant.npz",
            modality="array",
            input_shape=(1, WINDOW),
        )
        # from here on nothing needs torch: this is what runs on the device
        run = edgetl.finetune(work / "artifacts", work / "plant.npz", out=work / "run", epochs=30)
        edgetl.deploy(run.run, out=work / "model.onnx")
        measured = edgetl.evaluate(work / "model.onnx", work / "later.npz")
        print(f"learned from {run.train_samples} windows in {run.seconds:.1f} s")
        print(f"accuracy on {measured.samples} later ones: {before:.1%} before, {measured.accuracy:.1%} now")
        for state, found in measured.per_label.items():
            print(f"  {state:<10}  recall {found['recall']:6.1%}")

        model = edgetl.DeployedModel(work / "model.onnx")
        probabilities, _ = model(many[0])
        print(f"a {STATES[truth[0]]} bearing is {STATES[probabilities.argmax()]} ({probabilities.max():.1%})")


if __name__ == "__main__":
    main()
