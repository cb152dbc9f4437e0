"""CLIP: Learning Transferable Visual Models From Natural Language Supervision.

An image tower and a text tower are trained together: in a batch, every picture has to pick its caption and every caption its
picture. There are no labels, hardly any augmentation, one learned temperature, and as many pairs as fit into a batch.
Nothing is stopped from getting a gradient, and nothing is remembered from one batch to the next.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tacit.core import distributed
from tacit.core.draws import Draws
from tacit.core.errors import TacitError
from tacit.data.spec import Spec
from tacit.data.text.tokenizer import BASE
from tacit.data.text.wording import Wording
from tacit.methods.captions import LAYOUT, SIDES, SMALL, alike, fitting, says
from tacit.methods.method import Chosen, Contrastive, Facts, Options, Paper, Progress, Rows, Terms, option
from tacit.methods.pictures import enlarged, shown, stretched, strip
from tacit.nn.encoder import Encoder
from tacit.nn.text import Reader
from tacit.nn.towers import ClipResNet, patch_dropout, projection
from tacit.objectives import pairs
from tacit.objectives.pairs import Compared, unit
from tacit.views.image import ImageView
from tacit.views.pair import CaptionView
from tacit.views.view import View


class CLIPOptions(Options):
    loss: Literal["clip", "siglip"] = option("clip", "softmax over the batch, both ways, or each pair by itself (SigLIP)")
    init_scale: float = option(0.0, "what cosines are multiplied by at first; 0: 1 / 0.07, for siglip 10", ge=0, le=100)
    bias: float = option(-10.0, "what siglip adds to them at first", auto="-log(batch - 1)")
    duplicates: Literal["keep", "mask"] = option(
        "keep", "pairs with the same caption: negatives, or none", auto="mask where a batch has some in a twentieth of its rows"
    )
    out: int = option(512, "dimensions that pictures and captions share", auto="64 to 128", ge=1)
    text: Literal["text-micro", "text-mini", "text-small", "text-medium", "text-base"] = option(
        "text-base", "text tower", auto="text-micro on a processor, text-mini else"
    )
    vocabulary: int = option(49408, "most ids of the tokenizer, learned from the captions", auto="2,514", ge=BASE + 2, le=10**6)
    context: int = option(
        77, "tokens of a caption, start and end included; longer ones are cut", auto="99 % fit, 32 at most", ge=3, le=4096
    )
    quick_gelu: bool = option(False, "the GELU of OpenAI's weights, in both towers")
    pool: Literal["cls", "mean"] = option("cls", "what the image tower gives: its class token, or the mean of its patches")
    patch_dropout: float = option(0.0, "share of patches that are left out in training (transformers)", ge=0, lt=1)
    lock_image: bool = option(False, "leave the image tower as it starts: train the text to it (LiT)")
    lock_text: bool = option(False, "leave the text tower as it starts")
    area: float = option(
        0.9, "least share of the picture that is shown", auto="0.5 where captions name no place, size or number", gt=0, le=1
    )
    flip: float = option(0.0, "chance of a mirrored picture", auto="0.5 where no caption says left or right", ge=0, le=1)
    normalise: Literal["none", "data", "imagenet", "clip"] = option("clip", "what is subtracted and divided by", auto="data")


class CLIP(Contrastive):
    """Radford et al., ICML 2021."""

    name = "clip"
    paper = Paper(
        "Learning Transferable Visual Models From Natural Language Supervision",
        "Radford, Kim, Hallacy, Ramesh, Goh, Agarwal, Sastry, Askell, Mishkin, Clark, Krueger, Sutskever",
        2021,
        "ICML",
        "mlfoundations/open_clip",
    )
    kinds = ("pair",)
    Options = CLIPOptions
    paper_training = {
        "encoder": "clip-vit-base/32",
        "size": 224,
        "batch": 32768,
        "epochs": 32,
        "warmup": 2000,
        "optimiser": "adamw",
        "lr": 5e-4,
        "beta2": 0.98,
        "weight_decay": 0.2,
    }
    paper_columns = {
        "resnet50-cc": {
            "encoder": "clip-resnet50",
            "out": 1024,
            "batch": 1024,
            "epochs": 30,
            "warmup": 10000,
            "lr": 1e-3,
            "beta2": 0.999,
            "weight_decay": 0.1,
        },
    }

    @classmethod
    def auto(cls, facts: Facts) -> dict[str, Chosen]:
        captions, small = facts.captions, facts.device == "cpu"
        repeated = (facts.batch - 1) * alike(captions)
        rate = 1e-3 if facts.width <= 128 else 5e-4
        layout, sides = says(captions, LAYOUT), says(captions, SIDES)
        mirrored = facts.mirrored if facts.mirrored is not None else not sides
        return {
            "bias": Chosen(-math.log(max(1, facts.batch - 1)), f"the best constant for batches of {facts.batch}"),
            "duplicates": Chosen("mask" if repeated > 0.05 else "keep", f"{repeated:.2g} others in a batch say the same"),
            "out": Chosen(64 if facts.width <= 96 else 128, "small towers"),
            "text": Chosen("text-micro" if small else "text-mini", "a small text tower is enough"),
            "vocabulary": Chosen(SMALL, "small data"),
            "context": Chosen(fitting(captions), "as many tokens as 99 % of the captions have, 32 at most"),
            "area": Chosen(*((0.9, "captions name places, sizes or numbers") if layout else (0.5, "captions name no layout"))),
            "flip": Chosen(0.5 if mirrored else 0.0, "captions say left or right" if sides else "captions name no side"),
            "normalise": Chosen("data", "the data's own mean and deviation"),
            "train.optimiser": Chosen("adamw", "as published"),
            "train.lr": Chosen(rate, f"for towers {facts.width} wide; the published rate belongs to 32,768 pairs"),
            "train.beta2": Chosen(0.98, "as published"),
            "train.weight_decay": Chosen(0.1, "small data"),
            "train.clip": Chosen(1.0, "short runs"),
        }

    @classmethod
    def encoder_options(cls, options: Any, encoder: str) -> dict[str, Any]:
        return {"pool": options.pool, "quick_gelu": options.quick_gelu} if encoder.startswith("clip-vit") else {}

    @classmethod
    def wording(cls, options: Any) -> Wording:
        return Wording(options.vocabulary, options.context)

    @classmethod
    def check(cls, options: Any, encoder: Encoder, spec: Spec, size: int, batch: int) -> None:
        if batch < 4:
            raise TacitError(f"{cls.name} with a batch of {batch} has too few negatives; use at least 4")
        if isinstance(encoder, ClipResNet) and encoder.width != options.out:
            raise TacitError(f"this image tower ends in {encoder.width} dimensions; use --set out={encoder.width}")
        if options.patch_dropout and isinstance(encoder, ClipResNet):
            raise TacitError("a residual network has no patches to drop; use --set patch_dropout=0")

    def __init__(self, options: CLIPOptions, encoder: Encoder, spec: Spec, size: int) -> None:
        super().__init__(options, encoder, spec, size)
        o = options
        # The pool of a residual tower ends in the shared space by itself.
        self.image_head = nn.Identity() if isinstance(encoder, ClipResNet) else projection(encoder.width, o.out)
        self.text = Reader(o.text, o.vocabulary, o.context, o.out, o.quick_gelu)
        scale = o.init_scale or {"clip": 1 / 0.07, "siglip": 10.0}[o.loss]
        self.log_scale = nn.Parameter(torch.tensor([math.log(scale)]))  # t
        self.bias = nn.Parameter(torch.tensor([o.bias])) if o.loss == "siglip" else None
        self.student.requires_grad_(not o.lock_image)
        self.text.trunk.requires_grad_(not o.lock_text)

    @property
    def projector(self) -> nn.Module:
        return self.image_head

    @property
    def reader(self) -> Reader:
        return self.text

    def train(self, mode: bool = True) -> CLIP:
        super().train(mode)
        if self.options.lock_image:
            self.student.eval()  # batch statistics are locked, too
        return self

    def decays(self, name: str, parameter: Tensor) -> bool:
        """What has two or more dimensions, but for positions and the class token."""
        return parameter.ndim > 1 and not name.endswith(("pos_embed", "positional_embedding", "cls_token"))

    def views(self) -> dict[str, View]:
        o = self.options
        return {"image": ImageView(self.size, area=(o.area, 1.0), flip=o.flip, normalise=o.normalise), "text": CaptionView()}

    def embed(self, views: dict[str, Tensor], draws: Draws) -> Rows:
        f, g = self.of_image(views["image"], draws), self.of_text(views["text"])  # [N, D] each, unit rows
        return {"image": f, "text": g, "tokens": views["text"]}

    def compare(self, rows: Rows, progress: Progress) -> Terms:
        compared = self.compared(rows)
        return self.contrasted(compared, self.repeated(rows, compared) if self.options.duplicates == "mask" else None)

    def compared(self, rows: Rows) -> Compared:
        """This rank's pairs beside those of all ranks."""
        f, g = rows["image"], rows["text"]
        everybodys, offset = (distributed.gather(f), distributed.gather(g)), distributed.rank() * len(f)
        return Compared(f, g, *pairs.cosines(f, g, *everybodys), offset)

    def repeated(self, rows: Rows, compared: Compared) -> Tensor:
        """Where another pair, of any rank, has the same caption: bool `[N, M]`."""
        return pairs.repeats(rows["tokens"], distributed.gather(rows["tokens"]), compared.offset)

    def contrasted(self, compared: Compared, same: Tensor | None) -> Terms:
        """The loss of pairs. `same`: pairs that are no negatives of each other."""
        s, many = self.log_scale.exp(), compared.of_image.shape[1]
        if self.bias is None:
            loss = pairs.contrast(compared.of_image, compared.of_text, s, compared.offset, same)
            chance = pairs.contrast_chance(many)
        else:
            loss = pairs.sigmoid_contrast(compared.of_image, s, self.bias, compared.offset, same)
            chance = pairs.sigmoid_chance(many)
        watch = {"scale": self.log_scale.detach().float().exp().mean()} | pairs.watched(compared, same)
        return Terms(loss, {self.options.loss: loss.detach()}, chance, watch)

    def of_image(self, x: Tensor, draws: Draws) -> Tensor:
        """Pictures in the shared space, unit rows `[N, D]`."""
        keep = None
        if self.training and self.options.patch_dropout:
            places = math.prod(self.student.grid(x.shape[2:]))
            keep = patch_dropout(draws.normal("patches", places), self.options.patch_dropout)
        return unit(self.image_head(self.student(x, keep=keep).pooled))

    def of_text(self, tokens: Tensor) -> Tensor:
        """Captions in the shared space, unit rows `[N, D]`."""
        return unit(self.text(tokens))

    def after_step(self, progress: Progress) -> None:
        pairs.clamp_scale(self.log_scale)

    def pictures(self, views: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
        x = views["image"]
        cosine = self.of_image(x, draws) @ self.of_text(views["text"]).T
        found = float((cosine.argmax(1) == pairs.own_columns(cosine)).float().mean())
        best = cosine.T[:8].topk(min(5, len(x)), dim=1).indices  # of the first captions, [8, 5]
        return {
            f"Similarity of pictures (rows) to captions (columns): partners lie on the diagonal; {found:.0%} of the pictures "
            f"find theirs first among {len(x)}": enlarged(stretched(cosine)),
            "Pictures, and below each the ones that its caption finds first: its own should be on top": strip(
                shown(x[:8]), *(shown(x[rows]) for rows in best.T)
            ),
        }
