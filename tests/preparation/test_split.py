import numpy as np
import pytest
import torch
from torch import nn

from edgetl.artifacts import Preprocessing
from edgetl.graph.build import join, make_model
from edgetl.preparation.heads import replace_head
from edgetl.preparation.sources.export import export
from edgetl.preparation.split import split
from edgetl.runtime import sessions

SMALL = Preprocessing(8, 8, resize_size=8)


class Branches(nn.Module):
    """Two branches that join late, and one weight that both use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        left = torch.relu(self.left(x))
        return self.head((left * self.right(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> object:
    torch.manual_seed(0)
    model, parameters = export(Branches(), SMALL.inputs)
    return replace_head(model, 3, parameters)


@pytest.mark.parametrize(
    ("trainable", "boundary"),
    [
        (["head.weight", "head.bias"], [(4,)]),
        (["right.weight"], [(4, 8, 8), (4, 8, 8)]),  # the stem's output and the left branch's
        (["left.weight", "head.bias"], [(4, 8, 8), (4, 8, 8)]),
        (["stem.bias"], [(3, 8, 8)]),
    ],
)
def test_both_parts_give_what_the_whole_gives(network, trainable: list[str], boundary: list[tuple[int, ...]]) -> None:
    parts = split(network, trainable)
    assert sorted(spec.shape for spec in parts.features) == sorted(boundary)
    assert (parts.backbone is None) == (boundary == [(3, 8, 8)])
    assert [spec.name for spec in parts.parameters] == trainable
    kept = {tensor.name for tensor in parts.trainable.graph.initializer}
    assert set(trainable) <= kept
    if parts.backbone is not None:
        assert not kept.intersection(trainable) & {t.name for t in parts.backbone.graph.initializer}
    graphs = [p.graph for p in (parts.backbone, parts.trainable) if p is not None]
    pictures = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)
    found, expected = (
        sessions.open_session(model.SerializeToString()).run(None, {parts.inputs[0].name: pictures})[0]
        for model in (make_model(join(graphs, "joined")), network.model)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_is_frozen_is_counted(network) -> None:
    parts = split(network, ["head.weight", "head.bias"])
    assert sum(spec.elements for spec in parts.frozen) == (3 * 4 * 9 + 4) + (4 * 4 * 9 + 4) + (4 * 4 + 4)
