"""Weights from a file to a network, in the forms in which training scripts leave them; nothing in the file is executed.

A checkpoint may hold the weights below other things, under names with a prefix of the training script's own, and
with a head of another size. So the network itself decides: the part and the prefix are taken with which most of
its names have a tensor of the right shape. What then has no weights is told when the head is known, which is
replaced anyway (`Fit.refuse`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgetl.errors import ModelError, first_line
from edgetl.preparation.sources.missing import lacking

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # put in by torch itself, at any depth
_AVERAGED = ("ema", "teacher", "averaged")  # what timm and Ultralytics prefer where a file holds both
_DEEPEST = 5


@dataclass(frozen=True)
class Fit:
    """How weights from elsewhere fit a network.

    Attributes:
        what: names the weights in a message.
        names: the network's parameters and buffers.
        missing: those of floating-point numbers that have no weights.
        resized: those whose weights have another shape: the file's and the network's.
        extra: tensors of the file beside the network's, by the names that they would have there.
        notes: what else the user should know.
    """

    what: str
    names: tuple[str, ...]
    missing: tuple[str, ...] = ()
    resized: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def check(self, used: Collection[str], head: Collection[str]) -> tuple[str, ...]:
        """Return what the user should know of weights that serve.

        Args:
            used: the tensors that the graph computes with.
            head: the parameters that are replaced, which need no weights.

        Raises:
            ModelError: anything else has no weights, or the file is of a larger network.
        """
        missing = [name for name in self.missing if name in used and name not in head]
        resized = [item for item in self.resized if item[0] in used and item[0] not in head]
        foreign, others = self._sorted_extra(head)
        parts = []
        if missing:
            parts.append(f"no weights for {_counted(missing, len(self.names))}")
        if resized:
            first, theirs, ours = resized[0]
            more = f" and {len(resized) - 1} more" if len(resized) > 1 else ""
            parts.append(f"another size of {first} ({list(theirs)}, not {list(ours)}){more}")
        if foreign:
            parts.append(f"{_counted(foreign)} for which the network has no place")
        if parts:
            hint = "give the weights of just this network, or its --model-arg"
            if any(len(ours) == 4 and theirs[1] == 1 != ours[1] for _, theirs, ours in resized):
                hint = "it was trained on grey pictures: give --channels 1"
            raise ModelError(f"{self.what} does not fit the network (it has {'; '.join(parts)}): {hint}")
        if others:
            return (*self.notes, f"{self.what}: left out {_counted(others)}, which no layer of the network takes")
        return self.notes

    def _sorted_extra(self, head: Collection[str]) -> tuple[list[str], list[str]]:
        """Return what contradicts the network, and what only lies beside it (a projector, a decoder, an old head)."""
        kept = [name for name in self.names if name not in head]
        root, heads = _root(kept), _modules_of(head, kept)
        known = {name[len(root) :].partition(".")[0] for name in kept}
        foreign: list[str] = []
        others: list[str] = []
        for name in self.extra:
            if name.startswith(heads):
                continue
            part = name[len(root) :].partition(".")[0] if name.startswith(root) else ""
            (foreign if part in known or part.isdecimal() else others).append(name)
        return foreign, others


def _root(names: Collection[str]) -> str:
    """Return the modules that all names lie in, such as `model.`; "" if there are none."""
    root = ""
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        root += f"{parts[0]}."
    return root


def _modules_of(head: Collection[str], others: Collection[str]) -> tuple[str, ...]:
    """Return the largest module around each parameter of the head that has no other parameters."""
    found = []
    for name in head:
        *modules, _ = name.split(".")
        while len(modules) > 1 and not any(other.startswith(".".join(modules[:-1]) + ".") for other in others):
            modules.pop()
        found.append(".".join([*modules, ""]))
    return tuple(item for item in found if item)


def _counted(names: Collection[str], of: int | None = None) -> str:
    listed = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
    total = f" of {of}" if of is not None else ""
    return f"{len(names)}{total} tensor{'s' if len(names) > 1 or of else ''} ({listed})"


def load_weights(module: nn.Module, file: str | Path) -> Fit:
    """Load a `.safetensors` file, or what `torch.save` wrote, into `module`, as far as it fits.

    Raises:
        ModelError: the file is not readable, or holds no weights.
    """
    return put_weights(module, *read_weights(file, module.state_dict()))


def read_weights(file: str | Path, own: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Return the part of a file that fits a network best, by the network's names.

    Args:
        own: the network's state dict; of its tensors only the shapes count.

    Returns:
        The state dict, its tensors on the CPU; what names it in a message; and what the user should know.

    Raises:
        ModelError: the file is not readable, or holds no weights.
    """
    what = f"--weights {file}"
    content = _read(Path(file))
    candidates = [(name, *_renamed(tensors, own)) for name, tensors in _state_dicts(content, "", set()) if tensors]
    if not candidates:
        raise ModelError(f"{what} holds no weights: give a state dict, by torch.save or as safetensors")
    most = max(count for _, _, count in candidates)
    fitting = [item for item in candidates if item[2] == most]
    name, state, count = min(fitting, key=lambda item: not any(word in item[0].lower() for word in _AVERAGED))
    if not count:
        theirs, ours = (", ".join([*names][:2]) for names in (state, own))
        raise ModelError(
            f"{what} has no weights for this network: none of its {len(state)} names ({theirs}, …) is one of the "
            f"network's ({ours}, …)"
        )
    others = [item[0] for item in fitting if item[0] != name]
    notes = (f"{what}: took {name!r}; {', '.join(map(repr, others))} would fit as well",) if others and name else ()
    return state, what, notes


def put_weights(module: nn.Module, state: Mapping[str, Any], what: str, notes: tuple[str, ...] = ()) -> Fit:
    """Load a state dict into `module` as far as it fits; `what` names it in messages.

    Raises:
        ModelError: the module refuses it.
    """
    own = module.state_dict()
    resized = {
        name: (tuple(value.shape), tuple(own[name].shape))
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    }
    try:
        try:
            report = module.load_state_dict(state, strict=False)  # modules may rename or resize what is theirs
            resized = {}
        except RuntimeError:
            fitting = _with_metadata({k: v for k, v in state.items() if k not in resized}, state)
            report = module.load_state_dict(fitting, strict=False)
    except Exception as error:  # hooks of modules raise whatever they stumble over
        raise ModelError(f"{what} does not fit the network: {first_line(error)}") from None
    return fit_of(
        what,
        own,
        missing=[name for name in report.missing_keys if name not in resized],
        resized=resized,
        extra=[name for name in report.unexpected_keys if state[name].numel() > 1],  # counters of profilers
        notes=notes,
    )


def fit_of(
    what: str,
    own: Mapping[str, torch.Tensor],
    *,
    missing: Collection[str],
    resized: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    extra: Collection[str],
    notes: tuple[str, ...] = (),
) -> Fit:
    """Return the fit; whole numbers, which are counters and indices, need no weights."""
    return Fit(
        what,
        tuple(own),
        tuple(name for name in missing if name not in own or own[name].is_floating_point()),
        tuple((name, *shapes) for name, shapes in resized.items()),
        tuple(extra),
        notes,
    )


def _renamed(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], int]:
    """Return tensors by the network's names, and how many of them have the shape that they have there.

    A prefix of the file's names is taken off, and one of the network's put before them.
    """
    plain = {
        ".".join(part for part in name.split(".") if part not in _WRAPPERS): value for name, value in tensors.items()
    }
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    best, cut, added = 0, "", ""
    for prefix in ("", *dict.fromkeys(name.partition(".")[0] + "." for name in own if "." in name)):
        counts: dict[str, int] = {}
        for name, value in plain.items():
            for start in (0, *(i + 1 for i, letter in enumerate(name) if letter == ".")):
                if shapes.get(prefix + name[start:]) == tuple(value.shape):
                    counts[name[:start]] = counts.get(name[:start], 0) + 1
        for head, count in counts.items():
            if count > best:
                best, cut, added = count, head, prefix
    kept = {added + name[len(cut) :]: value for name, value in plain.items() if name.startswith(cut)}
    return _with_metadata(kept, tensors), best


def _with_metadata(state: dict[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what `nn.Module.state_dict` notes beside the tensors: the versions of layers, which loading asks for."""
    if (metadata := getattr(source, "_metadata", None)) is None:
        return state
    result = OrderedDict(state)
    result._metadata = metadata  # type: ignore[attr-defined]
    return result


def _state_dicts(value: Any, where: str, seen: set[int]) -> Iterator[tuple[str, Mapping[str, torch.Tensor]]]:
    """Yield everything in a file that has names and tensors: itself, what it holds by name, and whole networks."""
    if id(value) in seen or where.count(".") > _DEEPEST:
        return
    seen.add(id(value))
    if isinstance(value, _Unread):
        yield where, dict(_of_module(value, "", set()))
        value = value.state
    if not isinstance(value, dict):
        return
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if len(tensors) == len(value):
        yield where, value
        return
    yield where, tensors
    for name, item in value.items():
        if isinstance(name, str):
            yield from _state_dicts(item, f"{where}.{name}" if where else name, seen)


class _Unread:
    """Stands for an object of any class in a file: nothing of the class is imported, created or called."""

    state: Any = None

    def __new__(cls, *_: Any) -> _Unread:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _empty(*_: Any) -> dict[Any, Any]:
    """Stand for a class of dictionaries."""
    return {}


def _of_module(value: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a network that was saved whole, by the names that its state dict would have."""
    state = getattr(value, "state", None)
    if not isinstance(state, dict) or id(value) in seen:
        return
    seen.add(id(value))
    for group in ("_parameters", "_buffers"):
        held = state.get(group)
        for name, tensor in held.items() if isinstance(held, dict) else ():
            if isinstance(tensor, torch.Tensor):
                yield f"{prefix}{name}", tensor
    held = state.get("_modules")
    for name, child in held.items() if isinstance(held, dict) else ():
        yield from _of_module(child, f"{prefix}{name}.", seen)


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            try:
                from safetensors.torch import load_file
            except ImportError as error:
                raise ModelError(lacking(f"--weights {path}", "safetensors", error)) from None
            return load_file(path)
        with torch.serialization.safe_globals(_stand_ins(path)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # both readers raise errors of their own
        # before and behind that torch advises to read the file nevertheless
        reason = str(error).rpartition("WeightsUnpickler error: ")[2]
        if "was not an allowed" in reason:
            raise ModelError(
                f"--weights {path} cannot be read: {first_line(reason.partition(' was not')[0])}"
            ) from None
        if isinstance(error, OSError) and error.filename:
            raise ModelError(f"--weights {path} cannot be read: {error.strerror}") from None
        raise ModelError(
            f"--weights {path} is not a checkpoint that can be read, or is damaged: give a file that torch.save or "
            "safetensors wrote"
        ) from None


def _stand_ins(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return an inert stand-in for each class and function that a file names beside tensors: settings, optimizers."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of an older format, or no such file: then there are none
        return []
    return [(_empty if name.lower().endswith("dict") else _Unread, name) for name in names]
