"""PROGRAM.pt2: programs as torch.export saves them, and archives that would execute something."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgetl import prepare
from edgetl.errors import ModelError
from edgetl.preparation import heads
from edgetl.preparation.sources.resolve import load_source
from edgetl.preparation.split import run_graph


class Tokens(nn.Module):
    """A class token, an attention layer and a head: what fixes a batch in more than one place."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return self.head(x[:, 0])


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    )


@pytest.mark.parametrize("build", [convolutional, Tokens])
@pytest.mark.parametrize("batch", [1, 3, "dynamic"])
def test_any_batch_and_the_names_of_the_parameters(build: type, batch: int | str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build().eval()
    dynamic = ({0: torch.export.Dim("batch", min=1)},) if batch == "dynamic" else None
    example = torch.randn(2 if batch == "dynamic" else int(batch), 3, 12, 12)
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=dynamic), tmp_path / "net.pt2")

    loaded = load_source(str(tmp_path / "net.pt2"), weights=None, model_args={}, overrides={})
    assert (loaded.preprocessing.height, loaded.preprocessing.width) == (12, 12)
    assert set(loaded.parameters) == {name for name, _ in module.named_parameters()}
    pictures = torch.randn(5, 3, 12, 12)
    (found,) = run_graph(loaded.model, [loaded.model.graph.output[0].name], {loaded.inputs[0].name: pictures.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, module(pictures).numpy(), atol=1e-5)
    last = list(module.state_dict())[-2:]
    assert list(heads.replace_head(loaded.model, 3, loaded.parameters).head) == last


def saved(directory: Path) -> Path:
    program = torch.export.export(convolutional().eval(), (torch.randn(1, 3, 12, 12),))
    torch.export.save(program, directory / "net.pt2")
    return directory / "net.pt2"


def altered(file: Path, name: str, change: object) -> Path:
    """Write the archive anew with one of its members put through a function."""
    assert callable(change)
    target = file.with_name("altered.pt2")
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(target, "w") as after:
        for member in before.namelist():
            content = before.read(member)
            after.writestr(member, change(content) if member.endswith(name) else content)
    return target


def test_it_is_prepared(tmp_path: Path) -> None:
    result = prepare(str(saved(tmp_path)), out=tmp_path / "art", classes=2)
    assert result.features[0].shape == (16,)
    with pytest.raises(ModelError, match="12×12 only"):
        prepare(str(saved(tmp_path)), out=tmp_path / "art2", classes=2, preprocessing={"size": 14})
    with pytest.raises(ModelError, match="do not go with"):
        prepare(str(saved(tmp_path)), out=tmp_path / "art2", classes=2, model_args={"width": 14})


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.file,))


def replaced(old: str, new: str) -> object:
    def change(content: bytes) -> bytes:
        text = content.decode()
        assert old in text
        return text.replace(old, new).encode()

    return change


def test_what_an_archive_could_execute_is_not_executed(tmp_path: Path) -> None:
    import io
    import pickle

    file, sprung = saved(tmp_path), tmp_path / "sprung"
    pickled = pickle.dumps(Trap(sprung))
    buffer = io.BytesIO()
    torch.save(Trap(sprung), buffer)
    # pickled example inputs are left out
    load_source(
        str(altered(file, "sample_inputs/model.pt", lambda _: buffer.getvalue())),
        weights=None, model_args={}, overrides={},
    )  # fmt: skip
    evil = f"open({str(sprung)!r}, 'w')"

    def guards(content: bytes) -> bytes:
        return json.dumps({**json.loads(content), "guards_code": [evil]}).encode()

    load_source(str(altered(file, "model.json", guards)), weights=None, model_args={}, overrides={})
    refused = [
        ("model_weights_config.json", replaced('"use_pickle": false', '"use_pickle": true')),
        (
            "model_constants_config.json",
            lambda _: json.dumps({"config": {"x": {"path_name": "custom_obj_0"}}}).encode(),
        ),
        ("model.json", replaced("torch.ops.aten.relu.default", "torch.hub.load")),
        ("model.json", replaced("torch.ops.aten.relu.default", "os.system")),
        ("model.json", replaced('"as_int": 12', '"as_expr": {"expr_str": "eval(chr(49))", "hint": null}')),
        ("model.json", replaced('"input"', json.dumps(f"input={evil}"))),
        ("model.json", replaced("builtins.tuple", "collections.defaultdict")),
    ]
    for name, change in refused:
        with pytest.raises(ModelError, match=r"so it is not read"):
            load_source(str(altered(file, name, change)), weights=None, model_args={}, overrides={})
    (tmp_path / "pickle.pt2").write_bytes(pickled)
    with pytest.raises(ModelError, match=r"no archive of torch\.export"):
        load_source(str(tmp_path / "pickle.pt2"), weights=None, model_args={}, overrides={})
    assert not sprung.exists()


def test_a_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(convolutional().train(), (torch.randn(2, 3, 12, 12),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(ModelError, match="exported in training mode"):
        load_source(str(tmp_path / "net.pt2"), weights=None, model_args={}, overrides={})
