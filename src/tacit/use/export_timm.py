"""A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` opens: weights by timm's names, and their network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from tacit.core.errors import TacitError
from tacit.core.files import write_bytes, write_json
from tacit.nn import build
from tacit.nn.blocks import LayerScale
from tacit.nn.encoder import Encoder
from tacit.nn.resnet import BasicBlock, ResNet
from tacit.nn.vit import VisionTransformer
from tacit.use.export import Exported, compared


def to_timm(encoder: Encoder, described: dict[str, Any], samples: Tensor, path: Path) -> Exported:
    """`model.safetensors` and `config.json` in the folder `path`, compared through timm where it is installed, else tacit."""
    if path.exists() and not path.is_dir():
        raise TacitError(f"{path} is a file; timm opens a folder, so name one with --out")
    config = _config(encoder, described)
    content = save({name: value.contiguous() for name, value in _with_register_rows(encoder).items()})
    reopened, got = _reopened(encoder, config, content, samples)
    result = compared(path, "timm", reopened, encoder(samples).pooled, got)
    write_bytes(path / "model.safetensors", content)
    write_json(path / "config.json", config)
    return result


def _with_register_rows(encoder: Encoder) -> dict[str, Tensor]:
    """The encoder's tensors. timm gives registers rows in the table of positions too: here they are zero."""
    weights = {name: value.detach() for name, value in encoder.state_dict().items()}
    if isinstance(encoder, VisionTransformer) and encoder.reg_token is not None:
        table, registers = weights["pos_embed"], encoder.reg_token.shape[1]
        front = encoder.prefix - registers
        weights["pos_embed"] = torch.cat(
            [table[:, :front], table.new_zeros(1, registers, table.shape[2]), table[:, front:]], dim=1
        )
    return weights


def _without_register_rows(encoder: Encoder, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(encoder, VisionTransformer) and encoder.reg_token is not None:
        table, front = weights["pos_embed"], encoder.prefix - encoder.reg_token.shape[1]
        return weights | {"pos_embed": torch.cat([table[:, :front], table[:, encoder.prefix :]], dim=1)}
    return weights


def _config(encoder: Encoder, described: dict[str, Any]) -> dict[str, Any]:
    """The `config.json` that timm reads: architecture, its arguments, and the preprocessing under timm's names."""
    if isinstance(encoder, VisionTransformer):
        architecture, pool, arguments = (
            "vit_base_patch16_224",
            "token" if encoder.pool == "cls" else "avg",
            _transformer(encoder),
        )
    elif isinstance(encoder, ResNet):
        architecture, pool, arguments = _resnet(encoder)
    else:
        raise TacitError("timm export is for tacit's own transformers and residual networks; take --format onnx or torch")
    channels, side = described["channels"], described["size"]
    return {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": encoder.width,
        "global_pool": pool,
        "model_args": {"in_chans": channels, "global_pool": pool, **arguments},
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [channels, side, side],
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": described["mean"],
            "std": described["std"],
        },
        "tacit": {"encoder": encoder.config, "preprocessing": described},
    }


def _transformer(encoder: VisionTransformer) -> dict[str, Any]:
    if encoder.norm.eps != 1e-6:
        raise TacitError(f"timm's layer norms have eps 1e-6, this encoder's {encoder.norm.eps:g}; take --format onnx or torch")
    block = encoder.get_submodule("blocks.0")
    hidden, width = encoder.get_parameter("blocks.0.mlp.fc1.weight").shape
    return {
        "img_size": list(encoder.config["size"]),
        "patch_size": encoder.patch_embed.patch,
        "embed_dim": width,
        "depth": encoder.depth,
        "num_heads": block.get_submodule("attn").heads,
        "mlp_ratio": hidden / width,
        "class_token": encoder.cls_token is not None,
        "reg_tokens": 0 if encoder.reg_token is None else encoder.reg_token.shape[1],
        # Only that there are gains; their values lie in the file.
        "init_values": 1.0 if isinstance(block.get_submodule("ls1"), LayerScale) else None,
        # The mean of normalised tokens, not the norm of their mean.
        "fc_norm": False,
        "final_norm": True,
    }


def _resnet(encoder: ResNet) -> tuple[str, str, dict[str, Any]]:
    if encoder.conv1.stride != (2, 2) or encoder.conv1.out_channels != 64:
        raise TacitError(
            "timm's residual networks begin with 64 channels and halve the image twice, this one does not; take --format onnx "
            "or torch (the names in encoder.safetensors are timm's all the same)"
        )
    basic = isinstance(encoder.get_submodule("layer1.0"), BasicBlock)
    widths = [encoder.get_parameter(f"layer{stage}.0.conv1.weight").shape[0] for stage in range(1, len(encoder.counts) + 1)]
    return "resnet18" if basic else "resnet50", "avg", {"layers": list(encoder.counts.values()), "channels": widths}


def _reopened(encoder: Encoder, config: dict[str, Any], content: bytes, samples: Tensor) -> tuple[str, Tensor]:
    """What the written weights say about the samples, in timm's network, or in tacit's own where timm is not installed."""
    weights = load(content)
    try:
        import timm
    except ImportError:
        own = build.encoder(**encoder.config).eval()
        own.load_state_dict(_without_register_rows(own, weights))
        return "tacit (timm is not installed)", own(samples).pooled
    model = timm.create_model(config["architecture"], num_classes=0, **config["model_args"]).eval()
    model.load_state_dict(weights)
    return f"timm {timm.__version__}", model(samples)
