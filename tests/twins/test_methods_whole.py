"""Whole methods against slow float64 versions written from the cards: one sample, one crop, one patch at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tacit.core.draws import Draws
from tacit.data.spec import Batch, Spec
from tacit.methods.method import Progress
from tacit.methods.registry import method
from tacit.train.config import Training
from tacit.train.session import build_method

SPEC = Spec("image", 3, (16, 16))
COUNT = 4


def whole(name: str, seed: int, **options: Any) -> tuple[Any, dict[str, Tensor], Draws]:
    """A float64 method whose copies, where it has some, are no longer its student; views; draws."""
    training = Training(encoder="vit-micro/4", size=16, batch=32, seed=seed)
    made = build_method(method(name), method(name).Options(normalise="data", **options), training, SPEC).double()
    draws = Draws(seed, 0, torch.arange(COUNT))
    batch = Batch(
        draws.samples, (draws.words("picture", 768) % 256).to(torch.uint8).view(-1, 3, 16, 16), torch.full((COUNT, 2), 16)
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.requires_grad:
                parameter.mul_(0.8)
    return made, {key: view(batch, draws.within(key), SPEC).double() for key, view in made.views().items()}, draws


def alone(encoder: Any, images: Tensor) -> list[Tensor]:
    """Features of images that are encoded one by one."""
    return [encoder(image[None]).pooled[0] for image in images]


def normed(rows: list[Tensor], norm: Any) -> list[Tensor]:
    """Batch-norm by its definition: column by column, biased variance."""
    columns = []
    for j in range(len(rows[0])):
        values = [row[j].item() for row in rows]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        gain = 1.0 if norm.weight is None else norm.weight[j].item()
        shift = 0.0 if norm.bias is None else norm.bias[j].item()
        columns.append([gain * (value - mean) / math.sqrt(variance + norm.eps) + shift for value in values])
    return list(torch.tensor(columns, dtype=torch.float64).T)


def through(layers: Any, rows: list[Tensor]) -> list[Tensor]:
    """A stack of linears, norms and ReLUs, by hand."""
    for layer in layers:
        kind = type(layer).__name__
        if kind == "Linear":
            rows = [layer.weight @ row + (0 if layer.bias is None else layer.bias) for row in rows]
        elif kind == "BatchNorm":
            rows = normed(rows, layer)
        else:
            assert kind == "ReLU"
            rows = [row.clamp(min=0) for row in rows]
    return rows


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def near(loss: Tensor, expected: float) -> None:
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("layers", [1, 3])
def test_simclr(seed, layers):
    """Both views pass as one batch; each of 2N rows finds its partner among the 2N - 1 others."""
    made, views, draws = whole("simclr", seed, head_layers=layers, head_width=12, head_out=8, temperature=0.3)
    rows = alone(made.student, torch.cat([views["view1"], views["view2"]]))
    z = through([part for layer in made.head.layers for part in layer], rows)
    losses = []
    for i in range(2 * COUNT):
        scores = {j: cosine(z[i], z[j]) / 0.3 for j in range(2 * COUNT) if j != i}
        losses.append(math.log(sum(map(math.exp, scores.values()))) - scores[(i + COUNT) % (2 * COUNT)])
    near(made(views, draws, Progress(0, 1, 1)).total, sum(losses) / COUNT)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("head_norm", [True, False])
def test_moco_v3(seed, head_norm):
    """The copy moves, then makes keys; queries of one view look for the keys of the other."""
    options = {"head_width": 12, "head_out": 8, "temperature": 0.3, "momentum": 0.7, "head_norm": head_norm}
    made, views, draws = whole("moco-v3", seed, **options)
    queries, keys = {}, {}
    for name, view in views.items():
        queries[name] = through(made.predictor, through(made.head, alone(made.student, view)))
    progress = Progress(3, 8, 4)
    kept = 1 - 0.5 * (1 + math.cos(math.pi * 3 / 8)) * (1 - 0.7)
    with torch.no_grad():
        moved, _, _ = whole("moco-v3", seed, **options)
        for copy, base in ((moved.teacher, made.student), (moved.teacher_head, made.head)):
            for slow, fast in zip(copy.parameters(), base.parameters(), strict=True):
                slow.copy_(kept * slow + (1 - kept) * fast)
    for name, view in views.items():
        keys[name] = through(moved.teacher_head, alone(moved.teacher, view))
    loss = 0.0
    for mine, other in (("view1", "view2"), ("view2", "view1")):
        for n, query in enumerate(queries[mine]):
            scores = [cosine(query, key) / 0.3 for key in keys[other]]
            loss += 2 * 0.3 * (math.log(sum(map(math.exp, scores))) - scores[n]) / COUNT
    made.before_step(progress)
    near(made(views, draws, progress).total, loss)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("crops", [0, 3])
def test_dino(seed, crops):
    """Every pair of a teacher's large crop and another crop of the same image, one by one."""
    made, views, draws = whole(
        "dino",
        seed,
        prototypes=9,
        head_width=12,
        bottleneck=6,
        local_crops=crops,
        local_size=8,
        drop_path=0.0,
        centre_momentum=0.6,
    )
    made.center.mean[:] = torch.linspace(-0.1, 0.1, 9)

    def logits(head: Any, features: Tensor) -> Tensor:
        hidden = head.mlp(features)
        point = hidden / hidden.norm()
        return torch.stack(
            [g * (point @ v) / v.norm() for g, v in zip(head.last_layer.weight_g[:, 0], head.last_layer.weight_v, strict=True)]
        )

    student = {name: [logits(made.head, row) for row in alone(made.student, view)] for name, view in views.items()}
    teacher = {n: [logits(made.teacher_head, row) for row in alone(made.teacher, views[n])] for n in ("global1", "global2")}
    pairs = [(large, other) for large in teacher for other in student if other != large]
    assert len(pairs) == 2 * (1 + crops)
    loss = 0.0
    for large, other in pairs:
        for t, s in zip(teacher[large], student[other], strict=True):
            p = torch.exp((t - made.center.mean[0]) / 0.04) / torch.exp((t - made.center.mean[0]) / 0.04).sum()
            q = torch.exp(s / 0.1) / torch.exp(s / 0.1).sum()
            loss -= (p * q.log()).sum().item() / COUNT / len(pairs)
    before = made.center.mean.clone()
    progress = Progress(0, 1, 1)
    near(made(views, draws, progress).total, loss)
    made.after_step(progress)
    mean = sum(row for rows in teacher.values() for row in rows) / (2 * COUNT)
    torch.testing.assert_close(made.center.mean[0], (0.6 * before[0] + 0.4 * mean).detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("norm_pix", [True, False])
def test_mae(seed, norm_pix):
    """One image at a time: visible patches cut out and encoded in image order, the others in the decoder only."""
    made, views, draws = whole("mae", seed, decoder_width=16, decoder_depth=2, decoder_heads=2, norm_pix=norm_pix)
    x, noise = views["view"], draws.uniform("mask", 16)
    above, below = 0.0, 0
    for image, u in zip(x, noise.tolist(), strict=True):
        patches = [image[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4] for r in range(4) for c in range(4)]
        visible = sorted(range(16), key=lambda place: u[place])[: int(16 * (1 - 0.75))]
        encoder, decoder = made.student, made.decoder
        weight, bias = encoder.patch_embed.proj.weight, encoder.patch_embed.proj.bias
        rows = [encoder.cls_token[0, 0] + encoder.pos_embed[0, 0]]
        for place in sorted(visible):
            rows.append((weight * patches[place]).sum((1, 2, 3)) + bias + encoder.pos_embed[0, 1 + place])
        tokens = torch.stack(rows)[None]
        for block in encoder.blocks:
            tokens = block(tokens)
        embedded = decoder.embed(encoder.norm(tokens))[0]
        rows = [embedded[0] + decoder.pos_embed[0, 0]]
        for place in range(16):
            content = embedded[1 + sorted(visible).index(place)] if place in visible else decoder.mask_token[0, 0]
            rows.append(content + decoder.pos_embed[0, 1 + place])
        tokens = torch.stack(rows)[None]
        for block in decoder.blocks:
            tokens = block(tokens)
        prediction = decoder.pred(decoder.norm(tokens))[0]
        for place in set(range(16)) - set(visible):
            target = [patches[place][c, i, j].item() for i in range(4) for j in range(4) for c in range(3)]
            if norm_pix:
                mean = sum(target) / 48
                spread = math.sqrt(sum((value - mean) ** 2 for value in target) / 47 + 1e-6)
                target = [(value - mean) / spread for value in target]
            above += sum((p - t) ** 2 for p, t in zip(prediction[1 + place].tolist(), target, strict=True)) / 48
            below += 1
    near(made(views, draws, Progress(0, 1, 1)).total, above / below)
