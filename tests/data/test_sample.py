"""Samples and texts that are kept in few bytes behave as if they were kept as objects."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.data.sample import Label, Sample, Samples, Texts, packed

ANY_TEXT = st.text(st.characters())  # half surrogate pairs among them, as file names may have


def made(names: list[str]) -> Samples:
    return Samples(lambda index: Sample(names[index], index, Path(names[index])), range(len(names)))


@given(st.lists(ANY_TEXT), st.slices(20))
def test_texts_come_back(texts: list[str], cut: slice) -> None:
    kept = Texts(iter(texts))
    assert len(kept) == len(texts)
    assert list(kept) == texts
    assert list(kept[cut]) == texts[cut]


@given(st.lists(st.text("abc", max_size=3), min_size=1), st.lists(st.text("abc", max_size=3)), st.slices(20), st.data())
def test_samples_are_a_sequence(first: list[str], second: list[str], cut: slice, data: st.DataObject) -> None:
    both = made(first) + made(second)
    names = first + second
    assert [sample.name for sample in both] == names
    assert [sample.name for sample in both[cut]] == names[cut]
    chosen = data.draw(st.lists(st.integers(0, len(names) - 1)))
    assert [sample.name for sample in both.take(np.array(chosen, np.int64))] == [names[index] for index in chosen]
    with pytest.raises(IndexError):
        both[len(names)]


@pytest.mark.parametrize("labels", [[None, None], [3, 0, 7], [(0.1, -2.0), (1e300, 5e-324)], []])
def test_packed_labels_are_the_same(labels: list[Label]) -> None:
    label = packed(labels)
    assert [label(index) for index in range(len(labels))] == labels
    assert [type(label(index)) for index in range(len(labels))] == [type(each) for each in labels]
