"""What methods that compare augmented views of an image have in common: options, their rules, and BYOL's view."""

from __future__ import annotations

import math
from typing import Any, Literal

from tacit.methods.method import Chosen, Facts, Options, option
from tacit.nn.resnet import VARIANTS
from tacit.views.image import Blur, ImageView, Jitter


class AugmentedOptions(Options):
    grey: float = option(0.2, "chance of a grey view", auto="0 where there is no colour", ge=0, le=1)
    flip: float = option(0.5, "chance of a mirrored view", auto="0 where a mirror image means something else", ge=0, le=1)


class BYOLOptions(AugmentedOptions):
    """Those of the view that BYOL introduced, and MoCo v3 and DINO took over."""

    jitter: float = option(1.0, "strength of the colour jitter (0.4, 0.4, 0.2, 0.1)", auto="0.5 up to 64 pixels", ge=0, le=2)
    solarise: float = option(0.2, "chance that the second (large) view is solarised", auto="0 below 48 pixels", ge=0, le=1)
    normalise: Literal["none", "data", "imagenet"] = option("imagenet", "what is subtracted and divided by", auto="data")


def byol_view(
    o: BYOLOptions, size: int, area: tuple[float, float], blur: float, solarise: float = 0.0, of: int | None = None
) -> ImageView:
    """One view: crop, flip, jitter, grey, blur and solarise with these chances; blur in proportion to views of size `of`."""
    s = o.jitter
    return ImageView(
        size,
        area=area,
        flip=o.flip,
        jitter=Jitter(0.4 * s, 0.4 * s, 0.2 * s, 0.1 * s, probability=0.8),
        grey=o.grey,
        blur=blurred(blur, of or size),
        solarise=solarise,
        normalise=o.normalise,
    )


def blurred(chance: float, size: int) -> Blur | None:
    """The published blur, 0.1 to 2 pixels of views of 224, and in proportion less in smaller ones."""
    return Blur(0.1, max(0.1, 2.0 * min(1.0, size / 224)), chance) if chance else None


def contrastive_views(facts: Facts) -> dict[str, Chosen]:
    """View strength by size and by what the data is."""
    small, colour = facts.size <= 64, facts.spec.channels == 3
    area = Chosen(0.2, f"views of {facts.size} pixels") if small else Chosen(0.08, "large views")
    return {
        "area": Chosen(0.5, f"{facts.sparse:.0%} of a picture is empty ground") if facts.sparse > 0.75 else area,
        "jitter": Chosen(1.0, "large views in colour") if colour and not small else Chosen(0.5, "small or grey pictures"),
        "grey": Chosen(0.2, "colour pictures") if colour else Chosen(0.0, "no colour to take away"),
        "blur": Chosen(0.0, "blur below 48 pixels wipes out what there is") if facts.size < 48 else Chosen(0.5, "as published"),
        "flip": Chosen(0.0, "drawings may mean something else in a mirror (--mirror if not)")
        if facts.mirrored is False
        else Chosen(0.5, "mirror images mean the same, as far as is known"),
        "normalise": Chosen("data", "the data's own mean and deviation"),
    }


def rate(facts: Facts) -> Chosen:
    """AdamW's rate: residual networks bear a higher one than transformers, and the shorter the run, the more it pays."""
    base, why = 1e-3, ""
    if facts.residual:
        base, why = (4e-3, ": a short run of a residual network") if facts.steps < 2000 else (2e-3, ": a residual network")
    return Chosen(base * math.sqrt(facts.batch / 256), f"{base:g} x sqrt(batch / 256){why}")


def contrastive_training(facts: Facts) -> dict[str, Chosen]:
    """How methods that contrast the views of a batch are optimised on small data."""
    return {
        "train.optimiser": Chosen("adamw", "LARS pays from batches of 1,024 on"),
        "train.lr": rate(facts),
        "train.beta2": Chosen(0.99, "short runs"),
        "train.weight_decay": Chosen(0.02, "small data"),
    }


def published_resnet(encoder: str, **further: Any) -> dict[str, Any]:
    """How tacit's own residual networks are built, and `further` options of theirs; nothing for other encoders.

    Residual blocks of the published sizes start as their shortcuts; so few blocks as `resnet-mini` has do not need that.
    """
    if encoder not in VARIANTS:
        return {}
    return further if encoder == "resnet-mini" else {"zero_gain": True} | further
