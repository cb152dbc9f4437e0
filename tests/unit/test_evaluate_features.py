from __future__ import annotations

from collections import Counter

import pytest
import torch

from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Batch
from tacit.evaluation.features import Features, Labelled, extract, held_out, split_labelled


def batch(*rows: int) -> Batch:
    ids = torch.tensor(rows)
    return Batch(ids, ids[:, None, None, None].expand(-1, 1, 2, 2).to(torch.uint8), torch.full((len(rows), 2), 2))


def mean_value(batch: Batch) -> torch.Tensor:
    return batch.data.double().mean(dim=(1, 2, 3))[:, None]


def test_features_come_in_the_order_of_the_batches_as_float32():
    found = extract(mean_value, [batch(5, 2), batch(9)])
    assert found.ids.tolist() == [5, 2, 9]
    assert found.values.dtype == torch.float32
    assert found.values[:, 0].tolist() == [5, 2, 9]


def test_no_samples_are_refused_in_one_line():
    with pytest.raises(TacitError, match="no samples"):
        extract(mean_value, [])


def test_a_split_of_the_collection_is_kept():
    split = split_labelled(["a", "b", "b", "a", "a"], ["Train", "train", "test", "test", "val"])
    assert split.train.tolist() == [0, 1]
    assert split.test.tolist() == [2, 3]
    assert split.test_y.tolist() == [1, 0]
    assert split.said == "given train / test"


def test_validation_stands_in_for_a_missing_test():
    split = split_labelled(["a", "b", "b", "a"], ["train", "train", "valid", "valid"])
    assert (split.test.tolist(), split.said) == ([2, 3], "given train / val")


def test_without_a_split_thirty_percent_of_every_class_are_drawn():
    labels = ["a"] * 100 + ["b"] * 20 + ["c"] * 2
    split = split_labelled(labels)
    assert Counter(split.test_y.tolist()) == {0: 30, 1: 6, 2: 1}
    assert sorted(split.ids.tolist()) == list(range(122))
    again, other = split_labelled(labels), split_labelled(labels, seed=1)
    assert torch.equal(split.test, again.test)
    assert not torch.equal(split.test, other.test)


def test_one_sided_splits_are_no_split():
    assert split_labelled(["a", "b"] * 10, ["train"] * 20).said == "drawn 70% / 30% by class, seed 0"


def test_groups_are_never_divided():
    labels = [f"{patient % 2}" for patient in range(40) for _ in range(5)]
    groups = [f"patient {patient}" for patient in range(40) for _ in range(5)]
    split = split_labelled(labels, groups=groups)
    assert not {groups[row] for row in split.train} & {groups[row] for row in split.test}
    assert 0.25 <= len(split.test) / 200 <= 0.35
    assert 0.4 <= split.test_y.float().mean() <= 0.6
    assert split.train_groups is not None
    assert len(split.train_groups) == len(split.train)


def test_samples_without_a_group_stand_alone():
    split = split_labelled(["a", "b"] * 50, groups=[""] * 100)
    assert 25 <= len(split.test) <= 35


def test_what_is_set_aside_depends_on_names_and_not_on_order():
    y, names, order = torch.arange(60) % 3, torch.arange(60) + 1000, torch.randperm(60)
    aside = held_out(y, 0.2, Draws(0, 0, names))
    assert torch.equal(held_out(y[order], 0.2, Draws(0, 0, names[order])), aside[order])


def test_samples_without_a_label_are_left_out_and_said():
    split = split_labelled(["a", None, "b", "", "a", "b"])
    assert sorted(split.ids.tolist()) == [0, 2, 4, 5]
    assert split.said.endswith("2 of 6 samples have no label")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "needs labels"),
        (["", None], "needs labels"),
        (["cat"] * 9, "of the class 'cat'"),
        ([str(row) for row in range(50)], "no classes"),
    ],
)
def test_labels_that_cannot_serve_are_refused_in_one_line(labels, message):
    with pytest.raises(TacitError, match=message) as problem:
        split_labelled(labels)
    assert "\n" not in str(problem.value)


def test_a_class_of_one_group_each_cannot_be_split():
    with pytest.raises(TacitError, match="every class has one group"):
        split_labelled(["a"] * 5 + ["b"] * 5, groups=["p"] * 5 + ["q"] * 5)


def test_classes_that_are_numbers_are_in_the_order_of_their_value():
    assert split_labelled(["10", "9", "2"] * 4).classes == ("2", "9", "10")


def test_features_find_their_labels_in_any_order():
    split = split_labelled(["a", "b"] * 10)
    ids = torch.randperm(20)
    data = split.labelled(Features(ids, ids[:, None].float()))
    assert torch.equal(data.train_x[:, 0].long(), split.train)
    assert torch.equal(data.test_x[:, 0].long() % 2, data.test_y)


def test_unreadable_samples_are_left_out_and_said():
    split = split_labelled(["a", "b"] * 10)
    gone = split.train[0]
    left = split.available(split.ids[split.ids != gone])
    assert gone not in left.train
    assert len(left.train_y) == len(left.train) == len(split.train) - 1
    assert "1 of 20 samples cannot be read" in left.said
    with pytest.raises(TacitError, match="cannot be read"):
        split.available(split.train)


def test_standardising_ignores_dimensions_that_never_change():
    x = torch.stack([torch.linspace(0, 1, 50), torch.full((50,), 123.4)], dim=1)
    x[:, 1] *= 1 + 1e-7 * torch.arange(50) / 50
    data = Labelled(x, torch.zeros(50).long(), x, torch.zeros(50).long(), ("a",)).standardised
    assert torch.allclose(data.train_x[:, 0].std(correction=0), torch.tensor(1.0))
    assert not data.train_x[:, 1].any()


def test_principal_components_keep_the_distances_that_they_can():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) @ torch.randn(3, 20)
    y = torch.zeros(50).long()
    whole = Labelled(x, y, x, y, ("a",)).standardised
    cut = Labelled(x, y, x, y, ("a",), components=3).standardised
    assert cut.train_x.shape == (50, 3)
    assert torch.allclose(torch.cdist(cut.train_x, cut.test_x), torch.cdist(whole.train_x, whole.test_x), atol=1e-2)
