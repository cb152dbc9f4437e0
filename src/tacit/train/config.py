"""Every value that decides a run, resolved: read from `config.toml`, a run is the same run again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tacit.core.errors import TacitError, nearest
from tacit.data.spec import Spec
from tacit.methods.method import Options


class Training(BaseModel):
    """What every method shares: how long, how fast, with what optimiser."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0, description="names the run's draws and its initial weights")
    steps: int = Field(1000, ge=1, description="optimiser steps of the whole run")
    batch: int = Field(256, ge=2, description="samples per step, over all ranks")
    accumulate: int = Field(1, ge=1, description="forward passes that one step is made of")
    size: int = Field(224, ge=4, description="side of the (largest) view in pixels")
    feature_size: int = Field(0, ge=0, description="side of the view that features are taken of; 0: as size")
    encoder: str = Field("resnet50", description="name of the encoder, `vit-tiny/4`, `resnet18`, `timm:NAME`, `file.py:Class`")
    init: str = Field("", description="file of weights, or run folder, that the encoder starts from")
    optimiser: Literal["adamw", "sgd", "lars", "lars-simclr"] = Field("adamw", description="update rule")
    lr: float = Field(1e-3, ge=0, description="highest learning rate")
    schedule: Literal["cosine", "cosine-inclusive", "linear", "constant", "constant-decay"] = Field(
        "cosine", description="how the rate falls after the warm-up"
    )
    lr_end: float = Field(0.0, ge=0, description="learning rate at the end")
    warmup: int = Field(0, ge=0, description="steps during which the rate rises from 0")
    beta1: float = Field(0.9, ge=0, lt=1, description="first AdamW beta")
    beta2: float = Field(0.999, ge=0, lt=1, description="second AdamW beta")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD and LARS")
    weight_decay: float = Field(0.0, ge=0, description="weight decay at the start")
    weight_decay_end: float | None = Field(None, ge=0, description="weight decay at the end of a cosine; empty: constant")
    clip: float = Field(0.0, ge=0, description="largest gradient norm; 0: no clipping")
    clip_per_tensor: bool = Field(False, description="clip each tensor by itself instead of all together")
    layer_decay: float = Field(1.0, gt=0, le=1, description="factor on the rate from each layer to the one below it")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="arithmetic of forward and backward")
    store: Literal["auto", "always", "never"] = Field("auto", description="decode once into a memory-mapped store")
    store_side: int = Field(0, ge=0, description="shorter side that samples are decoded to; 0: as they are")
    held_back: int = Field(512, ge=0, description="samples kept out of training for the verdict")
    max_bad: float = Field(0.05, ge=0, le=1, description="share of unreadable samples that stops the run before training")
    checkpoint_every: str = Field(
        "5m",
        pattern=r"^\d+[sm]?$",
        coerce_numbers_to_str=True,
        description="steps (`500`), seconds (`30s`) or minutes (`10m`)",
    )
    strategy: Literal["ddp", "fsdp"] = Field("ddp", description="how weights lie on several ranks: a copy or a part on each")
    compile: bool = Field(False, description="compile the encoder with torch.compile")
    recompute: bool = Field(False, description="compute a transformer's activations anew in backward instead of keeping them")
    probe: str = Field("", description="labelled data to run k-NN on at every check, apart from the loss")
    log_to: Literal["", "wandb", "mlflow"] = Field("", description="where else the numbers go")
    needs_share: float = Field(0.4, gt=0, lt=1, description="share of the time in which what the method needs is trained first")
    stop_on: Literal["collapse", "none"] = Field("collapse", description="which verdict ends a run early")

    @property
    def shown_size(self) -> int:
        """Side of the view that features are taken of, in pixels."""
        return self.feature_size or self.size


class Whole(BaseModel):
    """What `config.toml` has in it at the least, so that a run can be opened again. Tables may hold more."""

    class Run(BaseModel):
        """Which method, and where."""

        method: str
        device: str

    class Data(BaseModel):
        """What leads to the data again."""

        path: str
        kind: str
        fingerprint: str
        split: str | None = None
        columns: dict[str, str] | None = None
        duplicates: float = 0.0

    class Needed(BaseModel):
        """Where a run lies that this one needs; its fingerprint, if the user gave it."""

        path: str
        fingerprint: str | None = None

    class Train(BaseModel):
        """What has to be known before the options are looked at."""

        encoder: str

    run: Run
    data: Data
    train: Train
    spec: Spec
    method: dict[str, Any]
    origin: dict[Annotated[str, Field(pattern=r"^(method|train)\.")], str]
    usual: dict[str, Any] = {}
    needs: dict[str, Needed] = {}


def validated(model: type[BaseModel], values: dict[str, Any], where: str) -> Any:
    """`model(**values)`, with a mistake told as one line that names option, value, bounds and the nearest name."""
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise TacitError(f"{where} has no option '{name}'{nearest(name, model.model_fields)}") from None
        if first["type"] == "missing":
            raise TacitError(f"{where} lacks {name}; restore it") from None
        expected = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        if first["type"] == "string_pattern_mismatch" and (field := model.model_fields.get(name)):
            expected = f"should be {field.description}"
        raise TacitError(f"{where}: {name} = {repr(first['input'])[:200]}, but it {expected}") from None


def option_owner(name: str, options: type[Options], method: str) -> str:
    """Whose option `name` is: `method` or `train`."""
    if name in options.model_fields:
        return "method"
    if name in Training.model_fields:
        return "train"
    known = [*options.model_fields, *Training.model_fields]
    raise TacitError(f"{method} has no option '{name}'{nearest(name, known)}; `tacit methods {method}` lists them all")
