"""The methods by name. Importing this imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from tacit.core.errors import TacitError, nearest

if TYPE_CHECKING:
    from tacit.methods.method import Method

METHODS = {
    "alice": "tacit.methods.alice:Alice",
    "anatomy": "tacit.methods.anatomy:Anatomy",
    "chada-vit": "tacit.methods.chada_vit:ChAdaViT",
    "child-video": "tacit.methods.child_video:ChildVideo",
    "clip": "tacit.methods.clip:CLIP",
    "dino": "tacit.methods.dino:DINO",
    "mae": "tacit.methods.mae:MAE",
    "moco-v3": "tacit.methods.moco_v3:MoCoV3",
    "mod-x": "tacit.methods.mod_x:ModX",
    "polar-mae": "tacit.methods.polar_mae:PolarMAE",
    "rspnet": "tacit.methods.rspnet:RSPNet",
    "simclr": "tacit.methods.simclr:SimCLR",
}


def method(name: str) -> type[Method]:
    """The class of a method; a `TacitError` with the nearest name when there is none."""
    if name not in METHODS:
        raise TacitError(f"no method '{name}'{nearest(name, METHODS)}; `tacit methods` lists them")
    module, _, attribute = METHODS[name].partition(":")
    return getattr(import_module(module), attribute)
