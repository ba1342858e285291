"""Text from prepare to predict, and its gradients against torch's."""

import csv
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edgetl
from edgetl.artifacts import TOKENIZER, load_artifacts
from edgetl.data.text import Tokenize
from edgetl.deployment.deployed import METADATA_TOKENIZER, DeployedModel
from edgetl.engines.registry import open_engine
from edgetl.errors import DeployError, EdgetlError, ModelError
from edgetl.events import Event, Note
from edgetl.optimizers.registry import Optimizer
from edgetl.training.features import extract_features

pytest.importorskip("transformers")
from encoders import save

TOPICS = {
    "light": ["turn on the light in the {}", "switch the light off in the {}", "light in the {} please"],
    "music": ["play some music in the {}", "stop the music in the {}", "music in the {} please"],
    "weather": ["what is the weather in the {}", "is it warm in the {} today", "weather in the {} please"],
}
PLACES = ("kitchen", "garden", "cellar", "hall", "attic")
LENGTH = 14
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("topics") / "topics.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("text", "label"))
        writer.writerows(
            (form.format(place), name) for name, forms in TOPICS.items() for form in forms for place in PLACES
        )
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, topics: Path) -> Path:
    """A deployed model, its head trained on texts of their own length."""
    base = tmp_path_factory.mktemp("text")
    save("minilm", base / "encoder")
    edgetl.prepare(f"hf:{base / 'encoder'}", out=base / "art", labels_from=topics, dynamic_length=True)
    run = edgetl.finetune(base / "art", topics, out=base / "run", epochs=20, lr=0.05, cache=base / "cache").run
    edgetl.deploy(run, out=base / "model.onnx")
    return base / "model.onnx"


@pytest.mark.parametrize(("kind", "policy"), [("bert", "all"), ("distilbert", "all"), ("minilm", "last:1")])
def test_steps_are_torchs_on_both_engines(kind: str, policy: str, tmp_path: Path) -> None:
    module = save(kind, tmp_path / "encoder")
    edgetl.prepare(f"hf:{tmp_path / 'encoder'}", out=tmp_path / "art", classes=3, max_length=LENGTH, train=(policy,))
    prepared = load_artifacts(tmp_path / "art")
    manifest = prepared.manifest
    assert {spec.dtype for spec in manifest.features} == ({"int64"} if policy == "all" else {"int64", "float32"})
    assert prepared.has_backbone == (policy != "all")

    texts = ["turn on the light", "what is the weather in the kitchen today", "stop the music please", "unheard of"]
    targets = np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]
    weights = np.full(4, 0.25, np.float32)
    decode = Tokenize(manifest.text, (tmp_path / "art" / TOKENIZER).read_text())
    tokens = [decode(text.encode()) for text in texts]
    batch = {name: torch.from_numpy(np.stack([item[name] for item in tokens])) for name in tokens[0]}
    features = frozen_part(prepared, batch)

    head = nn.Linear(32, 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    module.classifier = head
    named = dict(module.named_parameters())
    trained = [named[spec.name] for spec in manifest.trainable]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    plain = Optimizer("sgd", {"momentum": 0.0}, weight_decay=0.0)
    engines = {name: open_engine(name, prepared, threads=1, optimizer=plain) for name in ("ort-training", "portable")}
    for _ in range(3):  # the first step moves the head alone, which is zero
        logits = module(**batch)
        scores = logits.logits if "logits" in logits else pooled(head, logits.last_hidden_state, batch)
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for engine in engines.values():
            assert engine.train_step(features, targets, weights, 0.5) == pytest.approx(loss.item(), rel=1e-4)
    before = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "art" / "trainable.onnx").graph.initializer
    }
    for engine in engines.values():
        for name, found in engine.parameters().items():
            moved, expected = found - before[name], named[name].detach().numpy() - before[name]
            scale = max(1e-4, float(np.linalg.norm(expected)))
            assert np.linalg.norm(moved - expected) / scale < 5e-3, (engine.name, name)


def frozen_part(prepared: Any, batch: dict[str, torch.Tensor]) -> list[np.ndarray]:
    from edgetl.runtime import sessions

    feeds = {f"batch_{name}": array.numpy() for name, array in batch.items()}
    names = [spec.name for spec in prepared.manifest.features]
    if not prepared.has_backbone:
        return [feeds[name] for name in names]
    return sessions.open_session(prepared.file("backbone.onnx")).run(names, feeds)


def pooled(head: nn.Module, tokens: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    mask = batch["attention_mask"][..., None].float()
    return head((tokens * mask).sum(1) / mask.sum(1))


@pytest.mark.parametrize("engine", ["ort-training", "portable"])
def test_everything_trains_on_the_tokens_themselves(engine: str, topics: Path, tmp_path: Path) -> None:
    save("distilbert", tmp_path / "encoder")
    edgetl.prepare(
        f"hf:{tmp_path / 'encoder'}", out=tmp_path / "art", labels_from=topics, max_length=12, train=("all",)
    )
    settings: dict[str, Any] = {
        "epochs": 20, "batch_size": 6, "lr": 0.005, "init": "zero", "engine": engine, "cache": tmp_path / "cache"
    }  # fmt: skip
    result = edgetl.finetune(tmp_path / "art", topics, out=tmp_path / "run", **settings)
    assert result.best_epoch > 0
    assert result.val_accuracy > 0.9
    again = edgetl.finetune(tmp_path / "art", topics, out=tmp_path / "again", **settings)
    assert (again.features_computed, again.features_reused) == (0, result.features_computed)
    assert edgetl.deploy(result.run, out=tmp_path / "model.onnx").largest_difference < 1e-4
    assert edgetl.evaluate(tmp_path / "model.onnx", topics).accuracy > 0.9


def test_the_deployed_file_needs_nothing_else(model: Path, topics: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(model.read_bytes())
    assert edgetl.evaluate(alone, topics).accuracy > 0.95
    said = edgetl.predict(alone, ["please play some music in the kitchen", "is it warm in the hall today"])
    assert [item.label for item in said] == ["music", "weather"]
    assert said[0].input == "please play some music in the kitchen"
    assert len(edgetl.predict(alone, [topics])) == 45
    (tmp_path / "note.txt").write_text("stop the music in the hall")
    assert edgetl.predict(alone, [tmp_path / "note.txt"])[0].label == "music"
    with pytest.raises(EdgetlError, match=r"gone\.csv does not exist"):
        edgetl.predict(alone, ["gone.csv"])
    with pytest.raises(EdgetlError, match="holds no text"):
        edgetl.predict(alone, ["  "])


def test_its_inputs_are_documented_and_usual(model: Path) -> None:
    found = edgetl.describe(model)
    assert (found["modality"], found["text"]["padding"], found["text"]["max_length"]) == ("text", "dynamic", 40)
    assert [item["name"] for item in found["inputs"]] == ["input_ids", "attention_mask", "token_type_ids"]
    graph = onnx.load(model).graph
    assert [value.name for value in graph.input] == [item["name"] for item in found["inputs"]]
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in graph.input] == ["length"] * 3
    # with the library alone, as anybody would
    import onnxruntime
    import tokenizers

    session = onnxruntime.InferenceSession(model.read_bytes())
    tokenizer = tokenizers.Tokenizer.from_str(session.get_modelmeta().custom_metadata_map["tokenizer.json"])
    tokens = tokenizer.encode("play some music in the attic")
    feeds = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}
    probabilities, _ = session.run(None, {name: np.array(ids, np.int64) for name, ids in feeds.items()})
    deployed = DeployedModel(model)
    answer, _ = deployed(deployed.decode(b"play some music in the attic"))
    np.testing.assert_allclose(answer, probabilities, rtol=1e-5, atol=1e-6)


def test_a_large_tokenizer_lies_beside_the_model(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.deployment.deploy.MAX_EMBEDDED_TOKENIZER", 10)
    edgetl.deploy(model.parent / "run", out=tmp_path / "model.onnx")
    beside = tmp_path / "model.tokenizer.json"
    assert json.loads(beside.read_text())["model"]["type"] == "WordPiece"
    assert METADATA_TOKENIZER not in {item.key for item in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert edgetl.predict(tmp_path / "model.onnx", ["stop the music in the hall"])[0].label == "music"
    beside.write_text("{}")
    with pytest.raises(DeployError, match=r"the tokenizer of .* is missing or another"):
        edgetl.predict(tmp_path / "model.onnx", ["stop the music"])


def test_features_do_not_depend_on_filling(model: Path, topics: Path, tmp_path: Path) -> None:
    """A fixed length fills up, a dynamic one does not; both give the same features."""
    edgetl.prepare(f"hf:{model.parent / 'encoder'}", out=tmp_path / "art", labels_from=topics, max_length=20)
    from edgetl.data.dataset import Samples, open_inputs
    from edgetl.deployment.deployed import DeployedModel

    texts = open_inputs(topics, DeployedModel(model).wanted())
    samples = Samples(texts.__getitem__, range(6))
    filled, own = (
        extract_features(load_artifacts(art), samples, cache=tmp_path / "cache").batch(np.arange(6))[0]
        for art in (tmp_path / "art", model.parent / "art")
    )
    np.testing.assert_allclose(filled, own, rtol=1e-4, atol=1e-5)


def test_what_is_cut_off_is_told(model: Path) -> None:
    events: list[Event] = []
    edgetl.predict(model, ["play " * 60], on_event=events.append)
    (note,) = [event.text for event in events if isinstance(event, Note)]
    assert "tokens, and the network reads 40: the rest was left out" in note
    events.clear()
    edgetl.predict(model, ["play some music"], on_event=events.append)
    assert not [event for event in events if isinstance(event, Note)]


def test_what_depends_on_the_length_needs_a_fixed_one(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="leave out --dynamic-length"):
        edgetl.prepare(
            f"hf:{model.parent / 'encoder'}", out=tmp_path / "art", classes=2, dynamic_length=True, train=("last:1",)
        )
    with pytest.raises(EdgetlError, match="are of texts"):
        edgetl.prepare("timm:resnet18", out=tmp_path / "art", classes=2, max_length=12)


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not in this copy")
def test_the_example_of_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sentences.py", "--out", str(tmp_path)])
    monkeypatch.setenv("EDGETL_CACHE", str(tmp_path / "cache"))
    runpy.run_path(str(EXAMPLES / "sentences.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "'play the next song in the garden' is about music" in printed
    assert (tmp_path / "commands.onnx").is_file()
