"""Weights from a file, without executing anything in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgetl.errors import ModelError, first_line


def load_weights(module: nn.Module, file: str | Path) -> None:
    """Load a `.safetensors` file or a `.pt`/`.pth`/`.bin` state dict into `module`.

    Raises:
        ModelError: the file is not readable, would execute code, or does not fit the network.
    """
    put_weights(module, read_weights(file), f"--weights {file}")


def read_weights(file: str | Path) -> dict[str, Any]:
    """Return the state dict that a file holds, its tensors on the CPU.

    Raises:
        ModelError: the file is not readable, or would execute code.
    """
    path = Path(file)
    try:
        if path.suffix == ".safetensors":
            try:
                from safetensors.torch import load_file
            except ImportError:
                raise ModelError("safetensors is not installed: pip install 'edgetl[zoo]'") from None
            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # both readers raise errors of their own
        # before and behind that torch advises to read the file nevertheless
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].partition(" was not an allowed")[0]
        raise ModelError(f"--weights {path} cannot be read: {first_line(reason)}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ModelError(f"--weights {path} holds a {type(state).__name__}, not a state dict")
    return state


def put_weights(module: nn.Module, state: dict[str, Any], what: str) -> None:
    """Load a state dict into `module`; `what` names it in the error.

    Raises:
        ModelError: it does not fit the network.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise ModelError(f"{what} does not fit the network: {' '.join(line.strip() for line in lines[1:4])}") from None
