"""Retrieval between pictures and captions, and classes told by their names, with towers of two lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.data.open import measure, open_data
from tacit.data.spec import Batch
from tacit.evaluation.captions import captions
from tacit.evaluation.protocol import DEFAULT, Record, run_protocols, usual
from tacit.evaluation.recall import Found
from tacit.evaluation.subject import Joint, Subject
from tacit.evaluation.task import Task
from tacit.evaluation.zero_shot import PROMPTS

COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0), "dark": (0.0, 0.0, 0.0)}
WORDS = ["", *COLOURS, "very"]


def pictures(batch: Batch) -> Tensor:
    """The mean colour."""
    return batch.data.float().mean(dim=(2, 3))


def words(texts: Sequence[str]) -> Tensor:
    """Known words by number; others are not heard."""
    rows = [[WORDS.index(word) for word in text.split() if word in WORDS][:4] for text in texts]
    return torch.tensor([row + [0] * (4 - len(row)) for row in rows])


def said(tokens: Tensor) -> Tensor:
    """The sum of the colours that are named, each as often as it is, and a little grey."""
    table = torch.tensor([COLOURS.get(word, (0.0, 0.0, 0.0)) for word in WORDS])
    return table[tokens].sum(dim=1) + 0.1


TOWERS = Joint(pictures, words, said)
DEAF = Joint(pictures, words, lambda tokens: torch.ones(len(tokens), 3))


def collection_of(folder: Path, **columns: list):
    """A picture for each colour in turn, a little brighter from one to the next."""
    count = len(next(iter(columns.values())))
    for number in range(count):
        colour = np.array(list(COLOURS.values()))[number % 3]
        pixels = np.broadcast_to(20 + number + (200 * colour).astype(np.uint8), (8, 8, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    pq.write_table(pa.table({"path": [f"{number}.png" for number in range(count)], **columns}), folder / "pairs.parquet")
    return open_data(folder / "pairs.parquet", kind="pair")


def task_of(folder: Path, **columns: list) -> Task:
    collection = collection_of(folder, **columns)
    return Task.of("pairs", collection, measure(collection), unlabelled=True)


@pytest.fixture
def several(tmp_path: Path) -> Task:
    """Six pictures with one to three captions each, some of which read alike, and one without."""
    each = [
        ["red", "very red"],
        ["green"],
        ["blue", "", "blue blue"],
        ["red", "red"],
        ["green green", "dark green"],
        ["blue"],
        [],
    ]
    return task_of(tmp_path, caption=each)


def by_hand(task: Task) -> dict[str, list[tuple[int, int, int]]]:
    """Of each query the place of its first partner, how many partners it has and among how many, from one cosine at a time."""
    shown = {row: pictures(batch)[0] for row in range(6) for batch in task.batches(torch.tensor([row]))}
    table = task.collection.index.table["caption"]
    each = [(row, text) for row in range(6) for text in table[row].as_py() if text]
    heard = [tuple(words([text])[0].tolist()) for _, text in each]
    owned = {row: {heard[place] for place, (owner, _) in enumerate(each) if owner == row} for row in range(6)}

    def cosine(picture: Tensor, text: str) -> float:
        one, other = picture.tolist(), said(words([text]))[0].tolist()
        return round(sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other), 5)

    def found(scores: list[float], right: list[bool]) -> tuple[int, int, int]:
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
        return next(rank for rank, place in enumerate(order) if right[place]), sum(right), len(right)

    return {
        "to_caption": [
            found([cosine(shown[row], text) for _, text in each], [tokens in owned[row] for tokens in heard])
            for row in range(6)
        ],
        "to_picture": [
            found([cosine(shown[row], text) for row in range(6)], [heard[place] in owned[row] for row in range(6)])
            for place, (_, text) in enumerate(each)
        ],
    }


def test_both_ways_are_what_a_hand_would_count(several: Task):
    outcome = captions(TOWERS, several)
    for way, found in by_hand(several).items():
        for depth in (1, 5, 10):
            hits = [rank < depth for rank, _, _ in found]
            assert outcome.values[f"recall@{depth}_{way}"] == pytest.approx(sum(hits) / len(hits))
            blind = [
                sum(any(place < right for place in drawn) for drawn in combinations(range(among), min(depth, among)))
                / math.comb(among, min(depth, among))
                for _, right, among in found
            ]
            assert outcome.chances[f"recall@{depth}_{way}"] == pytest.approx(sum(blind) / len(blind))
        ranks = sorted(rank for rank, _, _ in found)
        middle = (ranks[(len(ranks) - 1) // 2] + ranks[len(ranks) // 2]) / 2
        assert outcome.values[f"median_rank_{way}"] == math.floor(middle) + 1
    assert outcome.detail == {"pictures": 6, "captions": 10, "different_captions": 7}


def test_chance_is_the_depth_over_the_number_of_pairs_where_each_has_one_partner():
    found = Found(torch.arange(50), torch.ones(50, dtype=torch.int64), 50)
    assert [found.chance(depth) for depth in (1, 5, 10, 50, 99)] == pytest.approx([0.02, 0.1, 0.2, 1, 1])
    assert found.at(5) == pytest.approx(found.chance(5))


def test_towers_that_say_the_same_of_everything_find_as_much_as_chance(tmp_path: Path):
    task = task_of(tmp_path, caption=[" ".join([colour] * (1 + row // 3)) for row, colour in enumerate(list(COLOURS)[:3] * 3)])
    values = captions(DEAF, task).values
    assert values["recall@1_to_picture"] == pytest.approx(1 / 9)
    assert values["recall@5_to_picture"] == pytest.approx(5 / 9)


def test_what_has_captions_and_no_labels_is_all_tested_on_or_its_own_test_split(tmp_path: Path):
    says = [*COLOURS][:3] * 2
    task = task_of(tmp_path, caption=says)
    assert usual(task, captioned=True) == ["figures", "captions"]
    assert (task.split.said, len(task.split.train), task.split.test.tolist()) == ("all samples", 0, [*range(6)])
    (tmp_path / "split").mkdir()
    given = task_of(tmp_path / "split", caption=says, split=["train", "test", "train", "test", "val", "val"])
    assert (given.split.said, given.split.test.tolist()) == ("given test", [1, 3])
    subjects = {"run": Subject(pictures, joint=TOWERS), "untrained": Subject(pictures, joint=DEAF), "input": Subject(pictures)}
    records = run_protocols(usual(task, captioned=True), subjects, task)
    assert {record.encoder for record in records if record.protocol == "captions"} == {"run", "untrained"}
    recalls = {record.metric: record for record in records if record.encoder == "run" and record.protocol == "captions"}
    assert recalls["recall@1_to_caption"].value == 1
    assert recalls["recall@1_to_caption"].detail["chance"] == pytest.approx(1 / 3)
    assert "chance" not in recalls["median_rank_to_caption"].detail
    with pytest.raises(TacitError, match="'knn' needs labels and there are none"):
        run_protocols(["knn"], subjects, task)


def test_labels_and_captions_are_measured_together(tmp_path: Path):
    says = [*COLOURS][:3] * 4
    task = task_of(tmp_path, caption=says, label=says)
    assert usual(task, captioned=True) == [*DEFAULT, "captions"]
    assert usual(task, captioned=False) == list(DEFAULT)


def test_what_cannot_be_is_refused_before_any_features_are_taken(tmp_path: Path):
    def never(batch: Batch) -> Tensor:
        raise AssertionError

    task = task_of(tmp_path, caption=[*COLOURS][:3] * 2, label=["a", "b"] * 3)
    for name in ("captions", "zero-shot"):
        with pytest.raises(TacitError, match=f"protocol '{name}' needs a run that learned from captions"):
            run_protocols([name], {"run": Subject(never)}, task)


def test_pictures_without_captions_are_refused(tmp_path: Path):
    task = task_of(tmp_path, label=["a", "b"] * 6)
    with pytest.raises(TacitError, match="'captions' needs pictures with captions"):
        captions(TOWERS, task)


def test_names_of_classes_tell_them_without_a_label(tmp_path: Path):
    classes = ["very_red", "very_green", "very_blue"] * 4
    task = task_of(tmp_path, label=classes)

    def figures(towers: Joint) -> dict[str, Record]:
        records = run_protocols(["zero-shot"], {"run": Subject(pictures, joint=towers)}, task)
        return {record.metric: record for record in records}

    found = figures(TOWERS)
    assert found["top1"].value == found["balanced"].value == 1
    assert found["top1"].detail["chance"] == pytest.approx(1 / 3)
    assert found["top1"].detail["prompts"] == list(PROMPTS)
    assert figures(DEAF)["top1"].value == pytest.approx(1 / 3)
