"""hf:DIR of text encoders, with tiny models that the test saves: nothing is downloaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgetl.artifacts import TextPreprocessing
from edgetl.data.text import Tokenize
from edgetl.errors import ModelError
from edgetl.graph.execute import run_graph
from edgetl.preparation import heads
from edgetl.preparation.sources.resolve import load_source, modality_of

pytest.importorskip("transformers")
from encoders import MODELS, SENTENCES, save


def load(directory: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"weights": None, "model_args": {}, "overrides": {}, "modality": "text", **options}
    return load_source(f"hf:{directory}", **settings)


def feeds(loaded: Any, text: str) -> dict[str, np.ndarray]:
    tokens = Tokenize(loaded.text, loaded.tokenizer)(text.encode())
    return {f"batch_{name}": ids[None] for name, ids in tokens.items()}


def scores(kind: str, module: Any, loaded: Any, ids: dict[str, np.ndarray]) -> np.ndarray:
    """What the saved model gives, with the graph's own head where it came without one."""
    arguments = {name.removeprefix("batch_"): torch.from_numpy(array) for name, array in ids.items()}
    with torch.no_grad():
        found = module(**arguments)
    if "logits" in found:
        return found.logits.numpy()
    from onnx import numpy_helper

    head = {t.name: numpy_helper.to_array(t) for t in loaded.model.graph.initializer if "classifier" in t.name}
    mask = arguments["attention_mask"][..., None].float()
    pooled = (found.last_hidden_state * mask).sum(1) / mask.sum(1)
    return pooled.numpy() @ head["classifier.weight"].T + head["classifier.bias"]


@pytest.mark.parametrize(
    ("kind", "dynamic"), [*((kind, False) for kind in MODELS), ("minilm", True), ("roberta", True)]
)
def test_each_architecture_under_its_own_names(kind: str, dynamic: bool, tmp_path: Path) -> None:
    module = save(kind, tmp_path)
    assert modality_of(f"hf:{tmp_path}") == "text"
    loaded = load(tmp_path, max_length=16, dynamic_length=dynamic)
    types = kind in ("bert", "minilm")
    pad = 1 if kind == "roberta" else 0
    assert loaded.text == TextPreprocessing(tmp_path.name, 16, "dynamic" if dynamic else "fixed", pad, types)
    assert [spec.shape for spec in loaded.inputs] == [(-1 if dynamic else 16,)] * (3 if types else 2)
    for text in SENTENCES[:2]:
        ids = feeds(loaded, text)
        (found,) = run_graph(loaded.model, [loaded.model.graph.output[0].name], ids)
        np.testing.assert_allclose(found, scores(kind, module, loaded, ids), rtol=1e-3, atol=1e-4)
    names = {name for name, _ in module.named_parameters() if "pooler" not in name} | set(loaded.parameters)
    assert set(loaded.parameters) == names
    new = heads.replace_head(loaded.model, 3, loaded.parameters).head
    assert len(new) == 2
    assert all("classifier" in name for name in new)


def test_pooling_is_that_of_its_record(tmp_path: Path) -> None:
    module = save("minilm", tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    record = tmp_path / "1_Pooling" / "config.json"
    record.write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode_cls_token": True}))
    loaded = load(tmp_path, max_length=16)
    ids = feeds(loaded, SENTENCES[0])
    with torch.no_grad():
        first = module(**{k.removeprefix("batch_"): torch.from_numpy(v) for k, v in ids.items()}).last_hidden_state[
            :, 0
        ]
    network = heads.replace_head(loaded.model, 3, loaded.parameters)
    (gemm,) = (node for node in network.model.graph.node if "classifier.weight" in node.input)
    (found,) = run_graph(network.model, [gemm.input[0]], ids)
    np.testing.assert_allclose(found, first.numpy(), rtol=1e-3, atol=1e-4)
    record.write_text(json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}))
    with pytest.raises(ModelError, match=r"pools its tokens as edgetl cannot .*mean_tokens, pooling_mode_max_tokens"):
        load(tmp_path)


def test_weights_may_be_given(tmp_path: Path) -> None:
    module = save("bert", tmp_path / "model")
    with torch.no_grad():
        module.bert.embeddings.LayerNorm.weight.fill_(0.25)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    loaded = load(tmp_path / "model", weights=tmp_path / "weights.pt")
    from onnx import numpy_helper

    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded.model.graph.initializer}
    assert (tensors["bert.embeddings.LayerNorm.weight"] == 0.25).all()
    deeper = load(tmp_path / "model", model_args={"num_hidden_layers": 3})
    with pytest.raises(ModelError, match=r"does not fit the network .it has no weights for"):
        deeper.fit.check({tensor.name for tensor in deeper.model.graph.initializer}, ())


def test_what_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    save("bert", tmp_path)
    assert load(tmp_path).text.max_length == 40
    with pytest.raises(ModelError, match=r"at most 40 tokens, not of 41: lower --max-length"):
        load(tmp_path, max_length=41)
    with pytest.raises(ModelError, match="no options for pictures"):
        load(tmp_path, overrides={"size": 32})
    with pytest.raises(ModelError, match="give hf:ID_OR_DIR"):
        load_source("timm:resnet18", weights=None, model_args={}, overrides={}, modality="text")
    large = json.loads((tmp_path / "tokenizer.json").read_text())
    large["model"]["vocab"]["far"] = 200
    (tmp_path / "tokenizer.json").write_text(json.dumps(large))
    with pytest.raises(ModelError, match=r"has the id 200, but the network knows 200 tokens"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json: write it with"):
        load(tmp_path)


def test_roberta_counts_its_positions_from_the_filling_on(tmp_path: Path) -> None:
    save("roberta", tmp_path)
    assert load(tmp_path).text.max_length == 38
