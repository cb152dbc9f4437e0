"""Encoders by name, and weights from elsewhere."""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tacit.core.errors import TacitError
from tacit.nn.build import encoder, initialise
from tacit.nn.encoder import Encoder

MINI = {"width": 16, "depth": 2, "heads": 2}
X = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def vit(channels: int = 3, size: int = 16, seed: int = 0, **options) -> Encoder:
    return encoder("vit-micro/4", channels, size, seed, **{**MINI, **options}).eval()


@pytest.mark.parametrize("name", ["vit-mini/8", "resnet-mini"])
def test_a_configuration_is_json_and_rebuilds_the_encoder(name):
    first = encoder(name, 2, (32, 48), drop_path=0.1) if "vit" in name else encoder(name, 2, (32, 48), stem="imagenet")
    again = encoder(**json.loads(json.dumps(first.config)))
    assert again.config == first.config
    assert all(torch.equal(value, first.state_dict()[key]) for key, value in again.state_dict().items())


class Pooled(nn.Module):
    def __init__(self, inner: Encoder) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).pooled


@pytest.mark.parametrize("name", ["vit-micro/8", "resnet-mini"])
def test_an_exported_encoder_takes_any_number_of_samples(name):
    model = Pooled(encoder(name, 3, 16)).eval()
    exported = torch.export.export(model, (X,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}, strict=False)
    more = torch.cat([X, X.flip(0), X])
    torch.testing.assert_close(exported.module()(more), model(more))


def test_weights_are_a_function_of_the_seed_alone():
    before = torch.get_rng_state()
    a, b, c = vit(seed=5).state_dict(), vit(seed=5).state_dict(), vit(seed=6).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["cls_token"], c["cls_token"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit-smal/16", {}, "did you mean 'vit-small/16'"),
        ("resnet19", {}, "did you mean 'resnet18'"),
        ("vit-small", {}, "vit-small/16"),
        ("vit-small/0", {}, "1 to 32"),
        ("vit-small/64", {}, "1 to 32"),
        ("vit-mini/4", {"drop_pth": 0.1}, "did you mean 'drop_path'"),
        ("vit-mini/4", {"init": "may"}, "did you mean 'mae'"),
        ("vit-mini/4", {"positions": "sincos_row"}, "did you mean 'sincos-row'"),
        ("resnet18", {"stem": "tiny"}, "imagenet, small"),
        ("timm:vit_base", {}, r"tacit\[timm\]"),
    ],
)
def test_wrong_names_are_answered_in_one_line(name, options, message):
    with pytest.raises(TacitError, match=message) as caught:
        encoder(name, 3, 32, **options)
    assert "\n" not in str(caught.value)


def test_a_model_of_timm_is_served_behind_the_contract(monkeypatch):
    class Fake(nn.Module):
        num_features, num_prefix_tokens = 6, 1
        feature_info = ({"reduction": 4},)

        def __init__(self, img_size: tuple[int, int], in_chans: int) -> None:
            super().__init__()
            self.patch_embed = nn.Conv2d(in_chans, 6, 4, 4)
            self.blocks = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
            self.norm = nn.LayerNorm(6)

        def forward_features(self, x):
            x = self.patch_embed(x).flatten(2).transpose(1, 2)
            return self.norm(self.blocks(torch.cat([x.mean(1, keepdim=True), x], dim=1)))

    made = types.SimpleNamespace(
        is_model=lambda name: name == "vit_fake",
        list_models=lambda: ["vit_fake"],
        create_model=lambda name, pretrained, in_chans, num_classes, **options: Fake(options["img_size"], in_chans),
    )
    monkeypatch.setitem(sys.modules, "timm", made)
    model = encoder("timm:vit_fake", 3, 16)
    seen = model(X)
    assert seen.pooled.shape == (2, 6)
    assert seen.tokens.shape == (2, 16, 6)
    assert model.grid((16, 16)) == (4, 4)
    assert [model.level(f"model.{name}.weight") for name in ("patch_embed", "blocks.1", "norm")] == [0, 2, 3]
    with pytest.raises(TacitError, match="last features only"):
        model(X, keep=torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(TacitError, match="did you mean 'vit_fake'"):
        encoder("timm:vit_fak", 3, 16)


OWN = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, channels, size, width=5):
        super().__init__()
        self.width = width
        self.proj = nn.Linear(channels, width)

    def forward(self, x):
        return self.proj(x.mean((2, 3)))

class Nameless(nn.Module):
    def __init__(self, channels, size):
        super().__init__()
"""


def test_a_class_of_ones_own_is_an_encoder(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    model = encoder("mine.py:Tiny", 3, 16, width=7)
    seen = model(X)
    assert (seen.pooled.shape, seen.tokens.shape, model.grid((16, 16))) == ((2, 7), (2, 1, 7), (1, 1))
    monkeypatch.chdir("/")
    again = encoder(**model.config)
    assert torch.equal(again(X).pooled, seen.pooled)
    for name, message in (("Tini", "did you mean 'Tiny'"), ("Nameless", "self.width")):
        with pytest.raises(TacitError, match=message):
            encoder(f"{path}:{name}", 3, 16)
    with pytest.raises(TacitError, match="no such file"):
        encoder("nowhere.py:Tiny", 3, 16)


def saved(tmp_path: Path, content: object, name: str = "w.pt") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"model": w, "args": argparse.Namespace(lr=0.1), "epoch": 3},
        lambda w: {"state_dict": {f"module.base_encoder.{k}": v for k, v in w.items()}},
        lambda w: {"teacher": {f"backbone.{k}": v for k, v in w.items()}, "student": {k: 0 * v for k, v in w.items()}},
        lambda w: {"student": {k: 0 * v for k, v in w.items()}, "teacher": {f"module.backbone.{k}": v for k, v in w.items()}},
        lambda w: {"model": {f"encoder.{k}": v for k, v in w.items()} | {"decoder_blocks.0.norm1.weight": torch.ones(8)}},
        lambda w: {k.replace("blocks.", "blocks.0."): v for k, v in w.items()},
    ],
)
def test_weights_are_found_behind_the_usual_prefixes(tmp_path, wrap):
    there, here = vit(seed=1), vit(seed=2)
    path = saved(tmp_path, wrap(there.state_dict()))
    report = initialise(here, path)
    total = len(here.state_dict())
    assert report == f"{total} of {total} tensors"
    assert torch.equal(here(X).pooled, there(X).pooled)


def test_safetensors_and_run_folders_are_read(tmp_path):
    there, here = vit(seed=1), vit(seed=2)
    save_file({k: v.contiguous() for k, v in there.state_dict().items()}, tmp_path / "encoder.safetensors")
    assert initialise(here, tmp_path).startswith("30 of 30")
    assert torch.equal(here(X).pooled, there(X).pooled)


def test_registers_of_dinov2_are_known_by_their_other_name(tmp_path):
    there, here = vit(seed=1, registers=2), vit(seed=2, registers=2)
    weights = there.state_dict()
    weights["register_tokens"] = weights.pop("reg_token")
    assert "31 of 31" in initialise(here, saved(tmp_path, weights))
    assert torch.equal(here.state_dict()["reg_token"], there.state_dict()["reg_token"])


def test_positions_are_resampled_and_channels_fitted(tmp_path):
    there = vit(seed=1, positions="learned")
    path = saved(tmp_path, there.state_dict())
    larger, grey, many = vit(size=32, positions="learned"), vit(channels=1), vit(channels=5)
    for here in (larger, grey, many):
        assert initialise(here, path) == "30 of 30 tensors"
    assert torch.equal(larger.pos_embed[:, 0], there.pos_embed[:, 0])
    assert larger.pos_embed.shape == (1, 65, 16)
    even = torch.ones(1, 1, 16, 16)
    torch.testing.assert_close(grey(even).pooled, there(even.expand(-1, 3, -1, -1)).pooled)
    weight = there.patch_embed.proj.weight
    torch.testing.assert_close(many.patch_embed.proj.weight, weight[:, [0, 1, 2, 0, 1]] * 3 / 5)


def test_positions_without_a_row_for_the_class_token_fit_one_with(tmp_path):
    there = vit(seed=1, pool="mean", class_token=False, positions="learned")
    here = vit(seed=2, positions="learned")
    assert "29 of 30 tensors; not found: cls_token" in initialise(here, saved(tmp_path, there.state_dict()))
    assert torch.equal(here.pos_embed[:, 1:], there.pos_embed)
    assert torch.equal(here.pos_embed[:, 0], torch.zeros(1, 16))


def test_what_does_not_fit_is_told(tmp_path):
    there = vit(seed=1, depth=1)
    here = encoder("vit-micro/8", 3, 16, **MINI)
    report = initialise(here, saved(tmp_path, there.state_dict()))
    assert report.startswith("17 of 30 tensors; not found: blocks.1.")
    assert "and 9 more; another shape: patch_embed.proj.weight ([16, 3, 4, 4] for [16, 3, 8, 8])" in report
    with pytest.raises(TacitError, match=r"no weights for this encoder.*0 of"):
        initialise(encoder("resnet-mini", 3, 32), saved(tmp_path, there.state_dict()))


def test_residual_networks_are_read_too(tmp_path):
    there, here = encoder("resnet-mini", 3, 32, seed=1), encoder("resnet-mini", 4, 32, seed=2)
    weights = there.state_dict() | {"bn1.num_batches_tracked": torch.tensor(3), "fc.weight": torch.ones(10, 256)}
    total = len(here.state_dict())
    assert initialise(here, saved(tmp_path, weights)) == f"{total} of {total} tensors"


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = saved(tmp_path, {"model": Bomb()})
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps({"model": Bomb()}))
    torn = tmp_path / "torn.pt"
    torn.write_bytes(bomb.read_bytes()[:100])
    fake = tmp_path / "fake.safetensors"
    fake.write_bytes(b"\xff" * 64)
    for path in (bomb, plain, torn, fake):
        with pytest.raises(TacitError, match="cannot read"):
            initialise(vit(), path)
    assert not (tmp_path / "exploded").exists()
    with pytest.raises(TacitError, match="no such file"):
        initialise(vit(), tmp_path / "nowhere.pt")
    with pytest.raises(TacitError, match="holds a list"):
        initialise(vit(), saved(tmp_path, [torch.ones(3)], "list.pt"))
