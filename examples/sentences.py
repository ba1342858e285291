"""Commands of a voice assistant, told apart by a text encoder: from sentences in a table to one ONNX file.

    python examples/sentences.py [--encoder ID_OR_DIRECTORY] [--out DIRECTORY]

Without --encoder a tiny BERT of random weights is made here, so that nothing is downloaded; it knows
words, but no language. With `--encoder sentence-transformers/all-MiniLM-L6-v2` the same lines adapt a
pretrained one. Needs PyTorch and Transformers, as `prepare` does.
"""

import argparse
import csv
import itertools
import tempfile
from pathlib import Path

import edgetl

PLACES = ("kitchen", "bedroom", "hall", "garden", "garage", "bathroom")
COMMANDS = {
    "light": ["turn the lamp in the {} on", "it is too dark in the {}", "dim the light of the {}", "lights out, {}"],
    "music": ["play something quiet in the {}", "next song in the {}", "louder in the {}", "stop the radio of the {}"],
    "heating": ["it is cold in the {}", "heat the {} to twenty degrees", "warmer in the {}", "two degrees less, {}"],
}


def write_table(file: Path) -> list[str]:
    """Write one line for each sentence, with its label; return the sentences."""
    rows = [
        (form.format(place), name)
        for name, forms in COMMANDS.items()
        for form, place in itertools.product(forms, PLACES)
    ]
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *rows])
    return [text for text, _ in rows]


def make_encoder(directory: Path, sentences: list[str]) -> None:
    """A tiny BERT and its tokenizer, as a directory of the hub."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    BertModel(config).save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))


def main(base: Path, encoder: str | None) -> None:
    base.mkdir(parents=True, exist_ok=True)
    table = base / "commands.csv"
    sentences = write_table(table)
    if encoder is None:
        encoder = str(base / "encoder")
        make_encoder(Path(encoder), sentences)

    edgetl.prepare(f"hf:{encoder}", out=base / "art", labels_from=table, dynamic_length=True, force=True)
    result = edgetl.finetune(base / "art", table, out=base / "run", epochs=20, force=True)
    assert result.val_accuracy is not None
    print(f"validation accuracy {result.val_accuracy:.1%} on {result.val_samples} sentences")

    model = edgetl.deploy(result.run, out=base / "commands.onnx").model
    for said in edgetl.predict(model, ["play the next song in the garden", "warmer in the cold garage"]):
        print(f"{said.input!r} is about {said.label} ({said.probability:.0%})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", help="a text encoder of the hub, or in a directory")
    parser.add_argument("--out", type=Path, help="keep everything there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(arguments.out or Path(temporary), arguments.encoder)
