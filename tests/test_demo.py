import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import HAS_TORCH

from edgetl.cli.main import main
from edgetl.demo.digits import drawings, load_digits


def test_the_demo_shows_that_transfer_pays(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["demo", "--json", "--out", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["transfer"] > found["pixels"] + 0.1
    assert (found["scratch"] is None) == (not HAS_TORCH)
    if HAS_TORCH:
        assert found["transfer"] > found["scratch"] + 0.05
    assert sum(map(sum, found["confusion"])) == found["test_pictures"] == 634
    assert (tmp_path / "demo" / "model.onnx").is_file()


def test_it_draws_without_a_terminal() -> None:
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 0, result.output
    assert "transfer learning" in result.stdout
    assert "█" in result.stdout


def test_drawings_are_repeatable() -> None:
    first, second = drawings((6, 9)), drawings((6, 9))
    np.testing.assert_array_equal(first[0], second[0])
    assert set(first[1]) == {0, 1}
    # which digits are asked for does not change how one is drawn
    np.testing.assert_array_equal(drawings((9,))[0], first[0][first[1] == 1])


def test_the_digits_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = load_digits()
    reference = datasets.load_digits()
    np.testing.assert_array_equal(images, reference.images)
    np.testing.assert_array_equal(labels, reference.target)
