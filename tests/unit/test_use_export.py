from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.nn import build
from tacit.nn.encoder import Encoded, Encoder
from tacit.use import export_torch
from tacit.use.export import PooledFeatures, compared, export, preprocessing

SPEC = Spec("image", 3, (16, 16), low=0.0, high=255.0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
TOKENS = {"pool": "mean", "class_token": False}


def encoder(name: str, size: int = 16, **options: object) -> Encoder:
    made = build.encoder(name, 3, size, **options)
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return made


@pytest.fixture
def samples() -> Tensor:
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "options"), [("vit-micro/8", {}), ("vit-micro/8", {"registers": 1, **TOKENS}), ("resnet-mini", {})]
)
def test_onnx_says_the_same_for_any_batch_and_describes_its_input(tmp_path, samples, name, options):
    import onnxruntime

    made = encoder(name, **options)
    result = export(made, SPEC, [16, 16], "onnx", tmp_path / "e.onnx", samples)
    session = onnxruntime.InferenceSession(str(tmp_path / "e.onnx"), providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map["tacit.preprocessing"])
    assert described["mean"] == [0.5, 0.4, 0.3]
    with torch.no_grad():
        expected = made.eval()(samples[:3]).pooled.numpy()
    assert np.allclose(session.run(None, {"image": samples[:3].numpy()})[0], expected, atol=1e-4)
    assert 0 <= result.difference < 1e-4
    assert "onnxruntime" in result.text()
    assert "5 samples" in result.text()


@pytest.mark.parametrize(
    ("name", "options"), [("vit-micro/8", {}), ("vit-micro/8", {"registers": 1, **TOKENS}), ("resnet-mini", {})]
)
def test_a_torch_program_runs_alone_for_any_batch(tmp_path, samples, name, options):
    made = encoder(name, **options)
    export(made, SPEC, [16, 16], "torch", tmp_path / "e.pt2", samples)
    extra = {"preprocessing.json": ""}
    module = torch.export.load(tmp_path / "e.pt2", extra_files=extra).module()
    with torch.no_grad():
        assert torch.allclose(module(samples[:4]), made.eval()(samples[:4]).pooled, atol=1e-5)
    assert json.loads(extra["preprocessing.json"])["size"] == 16


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit-micro/8", {}),
        ("vit-micro/8", TOKENS),
        ("vit-micro/8", {"registers": 2, "positions": "learned", "layer_scale": 0.1}),
        ("resnet18", {"stem": "imagenet"}),
    ],
)
def test_timm_export_holds_every_weight_and_how_to_build_their_network(tmp_path, samples, name, options):
    made = encoder(name, **options)
    result = export(made, SPEC, [16, 16], "timm", tmp_path / "timm", samples)
    weights, config = (
        load_file(tmp_path / "timm" / "model.safetensors"),
        json.loads((tmp_path / "timm" / "config.json").read_text()),
    )
    assert set(weights) == set(made.state_dict())
    assert result.difference < 1e-5
    arguments = config["model_args"]
    if name.startswith("vit"):
        assert (arguments["embed_dim"], arguments["depth"], arguments["num_heads"], arguments["patch_size"]) == (96, 4, 4, 8)
        prefix = int(options.get("class_token", True)) + options.get("registers", 0)
        # A row of positions for every token in front, as timm has it.
        assert weights["pos_embed"].shape[1] == prefix + 4
        assert arguments["reg_tokens"] == options.get("registers", 0)
        assert arguments["global_pool"] == ("avg" if options.get("pool") == "mean" else "token")
    else:
        assert (config["architecture"], arguments["layers"], arguments["channels"]) == (
            "resnet18",
            [2, 2, 2, 2],
            [64, 128, 256, 512],
        )


def test_a_network_that_timm_cannot_build_is_refused(tmp_path, samples):
    with pytest.raises(TacitError, match="take --format onnx"):
        export(encoder("resnet-mini"), SPEC, [16, 16], "timm", tmp_path / "timm", samples)
    assert not (tmp_path / "timm").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_named_with_the_command_that_brings_it(tmp_path, samples, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(TacitError, match=rf"needs {missing}.*pip install 'tacit\[export\]'"):
        export(encoder("resnet-mini"), SPEC, [16, 16], "onnx", tmp_path / "e.onnx", samples)
    assert not list(tmp_path.iterdir())


def test_an_export_that_comes_back_different_is_not_written(tmp_path, samples, monkeypatch):
    made, other = encoder("resnet-mini"), encoder("resnet-mini", seed=7)
    monkeypatch.setattr(export_torch, "traced", lambda _, x: torch.export.export(PooledFeatures(other).eval(), (x,)))
    with pytest.raises(TacitError, match="different"):
        export(made, SPEC, [16, 16], "torch", tmp_path / "e.pt2", samples[:1])
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_earlier_file(tmp_path, samples, monkeypatch):
    path, made = tmp_path / "e.pt2", encoder("resnet-mini")
    export(made, SPEC, [16, 16], "torch", path, samples)
    before = path.read_bytes()
    monkeypatch.setattr(export_torch, "compared", lambda *_: (_ for _ in ()).throw(TacitError("different")))
    with pytest.raises(TacitError):
        export(made, SPEC, [16, 16], "torch", path, samples)
    assert path.read_bytes() == before


def test_an_encoder_that_cannot_be_followed_is_one_line(tmp_path, samples):
    class Fickle(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(16, 2)
            self.config, self.width, self.depth = {}, 2, 1

        def forward(self, x: Tensor, *_: object, **__: object) -> Encoded:
            y = self.layer(x.mean((1, 2)))
            return Encoded(y * float(y.sum()) if len(x) == 2 else y, y[:, None])

    with pytest.raises(TacitError, match="cannot follow this encoder"):
        export(Fickle(), SPEC, [16, 16], "torch", tmp_path / "e.pt2", samples)


def test_exporting_leaves_the_encoder_in_the_mode_it_was_in(tmp_path, samples):
    made = encoder("resnet-mini").train()
    export(made, SPEC, [16, 16], "torch", tmp_path / "e.pt2", samples)
    assert made.training


def test_the_preprocessing_says_all_that_another_program_needs():
    described = preprocessing(
        Spec("image", 2, (40, 30), low=100, high=4000, mean=(0.1, 0.2), std=(0.3, 0.0), names=("a", "b")), (2, 32, 32)
    )
    assert described["input"] == "float32 [batch, 2, 32, 32]"
    assert (described["low"], described["high"], described["names"]) == (100, 4000, ["a", "b"])
    # What a constant channel is really divided by.
    assert described["std"] == [0.3, 0.001]
    json.dumps(described, allow_nan=False)


def test_the_largest_difference_is_reported_and_bounded(tmp_path):
    expected = torch.tensor([[10.0, -20.0]])
    assert compared(tmp_path, "onnx", "x", expected, expected + 0.01).difference == pytest.approx(0.01, rel=1e-3)
    for got in (expected + 0.1, expected * float("nan"), expected[:, :1]):
        with pytest.raises(TacitError, match="came back"):
            compared(tmp_path, "onnx", "x", expected, got)


def test_an_unknown_form_names_the_nearest(tmp_path, samples):
    with pytest.raises(TacitError, match="did you mean 'onnx'"):
        export(encoder("resnet-mini"), SPEC, [16, 16], "onx", tmp_path / "e", samples)
