"""What a text encoder of MiniLM's size costs: features, training and the deployed file, each in a process of its own.

    python benchmarks/text.py [--encoder ID_OR_DIRECTORY] [--device-python PYTHON] [--sentences 200]

Without --encoder the network has MiniLM's size (6 layers, 384 wide, 22.7 million parameters) and random
weights, which changes no cost; its tokenizer knows few words. --device-python is the Python of a device
environment, for everything behind `prepare`.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

_TEXT = """
the a of to in on for with and but turn play stop light music room kitchen garden warm cold please now later
morning evening door window open close song radio heat water time people place work make take find give tell
"""
WORDS = _TEXT.split()
CELLS = {
    "head, own length": ["--dynamic-length"],
    "head, 128 tokens": ["--max-length", "128"],
    "last:1, 64 tokens": ["--max-length", "64", "--train", "last:1"],
    "encoder.*, 64 tokens": ["--max-length", "64", "--train", "encoder.*"],
    "all, 64 tokens": ["--max-length", "64", "--train", "all"],
}


def make_encoder(directory: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    ).save_pretrained(directory)
    known = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(directory / "tokenizer.json"))


def write_table(file: Path, count: int) -> None:
    """Write sentences of 8 to 24 words in four classes."""
    rng = random.Random(0)
    rows = [(" ".join(rng.choices(WORDS, k=rng.randint(8, 24))), f"class {i % 4}") for i in range(count)]
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *rows])


def edgetl(python: str, cache: Path, *arguments: str) -> dict:
    environment = {**os.environ, "EDGETL_CACHE": str(cache)}
    command = [python, "-m", "edgetl", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


TITLES = (
    "",
    "features, ms a sentence",
    "finetune, MB",
    "training, ms a sentence and epoch",
    "predict, ms a sentence",
    "predict, MB",
    "file, MB",
)


def measure(base: Path, encoder: str, table: Path, device: str, epochs: int, chosen: list[str]) -> list[float]:
    art, run, model = (str(base / part) for part in ("art", "run", "model.onnx"))
    named = ("--labels-from", str(table), "--out", art, "--force")
    edgetl(sys.executable, base, "prepare", f"hf:{encoder}", *named, *chosen)
    settings = ("--init", "zero", "--batch-size", "16", "--epochs", str(epochs))
    trained = edgetl(device, base, "finetune", art, str(table), "--out", run, "--force", *settings)
    deployed = edgetl(device, base, "deploy", run, "--out", model)
    measured = edgetl(device, base, "evaluate", model, str(table))
    return [
        trained["feature_ms_per_image"],
        trained["peak_rss_mb"],
        trained["training_seconds"] / epochs / (trained["train_samples"] + trained["val_samples"]) * 1e3,
        measured["ms_per_image"],
        measured["peak_rss_mb"],
        deployed["size_mb"],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder")
    parser.add_argument("--device-python", default=sys.executable)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    print("|", " | ".join(TITLES), "|\n|---|" + "---:|" * (len(TITLES) - 1), flush=True)
    for title, chosen in CELLS.items():
        with tempfile.TemporaryDirectory() as name:
            base = Path(name)
            table = base / "sentences.csv"
            write_table(table, options.sentences)
            encoder = options.encoder or str(base / "encoder")
            if options.encoder is None:
                make_encoder(base / "encoder")
            found = measure(base, encoder, table, options.device_python, options.epochs, chosen)
        figures = (f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in found)
        print("|", title, "|", " | ".join(figures), "|", flush=True)


if __name__ == "__main__":
    main()
