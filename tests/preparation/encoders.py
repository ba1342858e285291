"""Tiny text encoders of Transformers with a tokenizer of their own, saved as the hub would hold them."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = (
    "turn on the light in the kitchen",
    "play some music",
    "what is the weather today",
    "switch the light off",
    "stop the music please",
    "is it warm in the garden",
)
SIZES = {
    "vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "max_position_embeddings": 40,
}  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "minilm": ("BertConfig", "BertModel", SIZES),
    "bert": ("BertConfig", "BertForSequenceClassification", SIZES),
    "distilbert": ("DistilBertConfig", "DistilBertForSequenceClassification",
                   {"vocab_size": 200, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48,
                    "max_position_embeddings": 40}),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification",
                {**SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
    "deberta": ("DebertaV2Config", "DebertaV2Model",
                {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}),
}  # fmt: skip


def save_tokenizer(directory: Path, special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=150, special_tokens=list(special), show_progress=False)
    )
    first, last = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", first), ("[SEP]", last)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))


def save(kind: str, directory: Path) -> Any:
    """Write the model and its tokenizer; return the model."""
    config, model, sizes = MODELS[kind]
    torch.manual_seed(0)
    module = getattr(transformers, model)(getattr(transformers, config)(**sizes)).eval()
    with torch.no_grad():  # away from the values at which gradients vanish
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    module.save_pretrained(directory)
    save_tokenizer(
        directory, ("[CLS]", "[PAD]", "[SEP]", "[UNK]") if kind == "roberta" else ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    )
    return module
