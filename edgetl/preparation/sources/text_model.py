"""hf:ID_OR_DIR: a text encoder of Transformers, with its tokenizer."""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import nn

from edgetl import defaults
from edgetl.artifacts import TOKENIZER, TextPreprocessing
from edgetl.data.text import reason
from edgetl.errors import ModelError
from edgetl.preparation.sources.export import export
from edgetl.preparation.sources.transformers_model import (
    import_transformers,
    loading,
    model_file,
    pretrained,
    source_of,
)
from edgetl.preparation.sources.weights import Fit

if TYPE_CHECKING:
    from collections.abc import Callable

_POOLING = "1_Pooling/config.json"


def is_text_model(name: str) -> bool:
    """Return whether the model's configuration is that of a network that takes token ids and no pictures.

    Raises:
        ModelError: it cannot be had.
    """
    transformers = import_transformers()
    with loading(name):
        config = transformers.AutoConfig.from_pretrained(name, **source_of(name))
    return hasattr(config, "vocab_size") and not any(hasattr(config, key) for key in ("image_size", "vision_config"))


def load(
    name: str,
    weights: str | Path | None,
    model_args: Mapping[str, Any],
    *,
    max_length: int | None = None,
    dynamic_length: bool = False,
    aside: Path | None = None,
) -> tuple[onnx.ModelProto, tuple[str, ...], TextPreprocessing, str, Fit]:
    """Load and export a network of the hub or a directory: safetensors only, and none of the repository's code.

    A classifier is taken as it is. Any other encoder gets a linear layer on its pooled last layer: the
    mean over the tokens, or the first token where the record of sentence-transformers says so.

    Args:
        model_args: fields of the model's configuration.
        max_length: the largest number of tokens; default `defaults.MAX_LENGTH`, or what the network takes.
        dynamic_length: whether texts keep their own length.

    Returns:
        The graph, whose inputs are the preprocessing's, `batch_` before their names; its parameters; the
        content of `tokenizer.json`; and how the weights fit.

    Raises:
        ModelError: Transformers is not installed, or the model or its tokenizer cannot be had or exported.
    """
    transformers = import_transformers()
    with loading(name):
        config = transformers.AutoConfig.from_pretrained(name, **source_of(name), **model_args)
    is_classifier = any("ForSequenceClassification" in kind for kind in getattr(config, "architectures", None) or ())
    if is_classifier:
        automatic = transformers.AutoModelForSequenceClassification
        module, fit = pretrained(automatic, name, config, weights)
        scores: Callable[..., torch.Tensor] = _logits
    else:
        module, fit = pretrained(transformers.AutoModel, name, config, weights)
        module.add_module("classifier", nn.Linear(config.hidden_size, 2))
        scores = _POOLED[_pooling(name)]
    tokenizer = _file(name, TOKENIZER)
    if tokenizer is None:
        raise ModelError(
            f"hf:{name} holds no {TOKENIZER}: write it with "
            "transformers.AutoTokenizer.from_pretrained(NAME).save_pretrained(DIRECTORY)"
        )
    _check_vocabulary(name, config, tokenizer)
    takes = inspect.signature(type(module).forward).parameters
    text = TextPreprocessing(
        tokenizer=Path(name).name if Path(name).is_dir() else name,
        max_length=_length(name, config, max_length),
        padding="dynamic" if dynamic_length else "fixed",
        pad_id=_pad_id(config, tokenizer),
        token_type_ids="token_type_ids" in takes and getattr(config, "type_vocab_size", 0) > 1,
    )
    model, parameters = export(_taking(module, text, scores), text.inputs, aside=aside)
    _rename_inputs(model.graph)
    return model, parameters, text, tokenizer, fit


def _rename_inputs(graph: onnx.GraphProto) -> None:
    """Leave the usual names to the inputs of the deployed model, which has no batch."""
    names = {value.name: f"batch_{value.name}" for value in graph.input}
    for value in graph.input:
        value.name = names[value.name]
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def _logits(module: nn.Module, forward: Callable[..., Any], feeds: Mapping[str, torch.Tensor]) -> Any:
    return forward(module, **feeds, return_dict=True).logits


def _mean(module: nn.Module, forward: Callable[..., Any], feeds: Mapping[str, torch.Tensor]) -> Any:
    tokens = forward(module, **feeds, return_dict=True).last_hidden_state
    mask = feeds["attention_mask"].unsqueeze(-1).to(tokens.dtype)
    return module.get_submodule("classifier")((tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9))


def _first(module: nn.Module, forward: Callable[..., Any], feeds: Mapping[str, torch.Tensor]) -> Any:
    return module.get_submodule("classifier")(forward(module, **feeds, return_dict=True).last_hidden_state[:, 0])


_POOLED = {"mean": _mean, "cls": _first}


def _taking(module: nn.Module, text: TextPreprocessing, scores: Callable[..., Any]) -> nn.Module:
    """Let `module(*inputs)` return scores alone; a wrapper would change its parameters' names."""
    forward = type(module).forward

    def ids_and_mask(self: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return scores(self, forward, {"input_ids": input_ids, "attention_mask": attention_mask})

    def with_types(
        self: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> Any:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return scores(self, forward, feeds)

    bound = types.MethodType(with_types if text.token_type_ids else ids_and_mask, module)
    setattr(module, "forward", bound)  # noqa: B010  # mypy forbids the assignment
    return module


def _file(name: str, file: str) -> str | None:
    found = model_file(name, file)
    return found.read_text(encoding="utf-8") if found is not None else None


def _pooling(name: str) -> str:
    record = _file(name, _POOLING)
    if record is None:
        return "mean"
    modes = [key for key, value in json.loads(record).items() if key.startswith("pooling_mode_") and value]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise ModelError(f"hf:{name} pools its tokens as edgetl cannot ({_POOLING}: {', '.join(modes) or 'nothing'})")
    return _MODES[modes[0]]


_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def _length(name: str, config: Any, asked: int | None) -> int:
    positions = int(getattr(config, "max_position_embeddings", 0) or 0)
    if positions and getattr(config, "model_type", "") in _OFFSET_POSITIONS:
        positions -= int(config.pad_token_id) + 1
    if asked is not None and positions and asked > positions:
        raise ModelError(f"hf:{name} takes texts of at most {positions} tokens, not of {asked}: lower --max-length")
    return asked or min(defaults.MAX_LENGTH, positions or defaults.MAX_LENGTH)


# RoBERTa and its kin count positions from the id of the filling on
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm", "mpnet"}


def _pad_id(config: Any, tokenizer: str) -> int:
    padding = json.loads(tokenizer).get("padding") or {}
    found = getattr(config, "pad_token_id", None)
    return int(found if found is not None else padding.get("pad_id", 0))


def _check_vocabulary(name: str, config: Any, tokenizer: str) -> None:
    """Refuse a tokenizer that would give ids for which the network has no row."""
    try:
        import tokenizers

        largest = max(tokenizers.Tokenizer.from_str(tokenizer).get_vocab(with_added_tokens=True).values())
    except BaseException as error:
        raise ModelError(f"the {TOKENIZER} of hf:{name} cannot be read: {reason(error)}") from None
    if largest >= config.vocab_size:
        raise ModelError(
            f"the {TOKENIZER} of hf:{name} has the id {largest}, but the network knows {config.vocab_size} tokens: "
            "it belongs to another model"
        )
