"""The claims of child-video and RSPNet that can be seen on a thousand small films whose motions are SIMULATED: see `moving`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from claim import Claim, Figures, Run, method_of, top1
from moving import COLUMNS
from torch import Tensor

import tacit
from tacit.core.draws import Draws
from tacit.data.open import open_data
from tacit.evaluation.features import extract
from tacit.evaluation.finetune import finetune
from tacit.evaluation.input import raw_input
from tacit.evaluation.protocol import run_protocols
from tacit.evaluation.retrieval import retrieve
from tacit.evaluation.subject import Subject
from tacit.evaluation.task import Task
from tacit.methods.child_video import ChildVideo
from tacit.methods.method import Progress
from tacit.nn.spacetime import tubelets, untubelets
from tacit.objectives.reconstruct import masked_mse
from tacit.use.evaluate import decoded_once, subject, untrained
from tacit.use.run import OpenRun
from tacit.views.masks import random_keep
from tacit.views.masks_time import center_ranks

TITLE = "child-video and RSPNet (but for the signers, all motions are SIMULATED)"
MIDDLE = 0.25
"""The share of a clip that is filled in."""

EPOCHS = 200
"""Of fine-tuning, one step each."""

SMALL: dict[str, Any] = {"size": 32, "precision": "bfloat16", "held_back": 64}
MASKED = SMALL | {"encoder": "video-vit-micro/2x8", "batch": 32}  # `auto` takes 2x4, at four times the time of a step
SPEED = SMALL | {"encoder": "r3d-mini", "batch": 32, "flip": 0.0}  # to the left and to the right are two motions
BUNDLED, SIGNS = {"held_back": 30}, {"held_back": 4, "batch": 16}


def of_films(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """What moves, where to, and both: probes and the nearest film, of features of the middle clip of every film."""
    opened, found = OpenRun(run.path), {}
    tasks = {column: task(opened, part(data, "all"), seed, column) for column in COLUMNS}
    some = tasks[COLUMNS[0]]
    encoders = {name: once(each, some) for name, each in subjects(opened, some, seed).items()}
    for column, asked in tasks.items():
        records = run_protocols(["knn", "linear", "retrieval"], encoders, asked, seed)
        nearest = [replace(record, metric="top1") for record in records if record.metric == "recall@1"]
        for name, value in top1([*records, *nearest]).items():
            protocol, *baseline = name.split()
            found[" ".join([protocol, column, *baseline])] = value
    return found


def task(run: OpenRun, data: str, seed: int, column: str) -> Task:
    films = open_data(data, columns={"label": column})
    return decoded_once(Task.of("films", films, run.spec, seed=seed, side=run.side(films), window=run.window))


def subjects(run: OpenRun, task: Task, seed: int) -> dict[str, Subject]:
    encoders = {"run": run.encoder, "untrained": untrained(run, task)}
    return {name: subject(run, each, seed) for name, each in encoders.items()} | {"input": raw_input(run.spec, seed)}


def part(data: str, name: str) -> str:
    """Another part of the films."""
    return str(Path(data).with_name(f"{name}.csv"))


def once(asked: Subject, task: Task) -> Subject:
    """The same subject, whose features are taken now and not again."""
    features = extract(asked.encode, task.batches(task.split.ids))
    rows = features.values.new_zeros(len(task.collection), features.values.shape[1])
    rows[features.ids] = features.values
    return replace(asked, encode=lambda batch: rows[batch.ids], second=None)


def of_signs(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """Whether the nearest of the other films is of the same signer."""
    opened, found = OpenRun(run.path), {}
    films = task(opened, data, seed, "signer")
    signers = torch.cat([films.split.train_y, films.split.test_y])
    for name, each in subjects(opened, films, seed).items():
        seen = extract(each.encode, films.batches(films.split.ids)).values
        seen = seen - seen.mean(dim=0) if each.centred else seen
        found[f"same signer {name}".removesuffix(" run")] = retrieve(seen, signers, seen, signers, itself=True)["recall@1"]
    return found


def of_clips(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """The same; how well the middle of a clip is filled in; and what ten labels of each motion are worth to fine-tuning."""
    opened = OpenRun(run.path)
    few = task(opened, part(data, "tenth"), seed, "motion")
    found = {}
    for name, encoder in (("", opened.encoder), (" untrained", opened.untrained)):
        tuning = subject(opened, encoder, seed).tuning
        assert tuning is not None
        found[f"fine-tuned motion{name}"] = finetune(tuning, few, seed, EPOCHS).values["top1"]
    return of_films(run, data, seed) | found | filled_in(opened, data, seed)


def filled_in(run: OpenRun, data: str, seed: int) -> dict[str, float]:
    """Squared errors, in the data's variance, of the hidden middle of test films: what is predicted, and cheap guesses."""
    films = task(run, data, seed, "motion")
    clips = torch.cat([run.seen(batch) for batch in films.batches(films.split.test)])
    found = {}
    for name, made in (("predicted", method_of(run)), ("untrained", method_of(run, first=True))):
        assert isinstance(made, ChildVideo)
        hidden = random_keep(center_ranks(made.places).expand(len(clips), -1), MIDDLE)
        rows, shape = tubelets(clips, made.tubelet, made.patch), (made.tubelet, made.patch, made.grid)
        covered = untubelets(hidden.mask[..., None].expand_as(rows).to(rows), *shape)
        with torch.no_grad():
            found[name] = masked_mse(made.predict(clips, hidden), rows, hidden.mask)
        found["nearest frame"] = masked_mse(tubelets(nearest(clips, covered), *shape[:2]), rows, hidden.mask)
    return {f"middle, {name}": float(error) for name, error in found.items()}


def nearest(clips: Tensor, covered: Tensor) -> Tensor:
    """Clips `[B, C, T, H, W]` in which what is covered (1; the same in all clips) shows the nearest frame that is not."""
    times = torch.arange(clips.shape[2])
    apart = (times[:, None] - times).abs()[..., None, None] + len(times) * covered[0, 0]  # [T, T, H, W]
    return clips.gather(2, apart.argmin(dim=1).expand_as(clips))


def of_speeds(run: tacit.Run, data: str, seed: int) -> dict[str, float]:
    """`of_films`, and of how many test films the speed task is solved."""
    opened = OpenRun(run.path)
    made, films = method_of(opened), task(opened, data, seed, "motion")
    (batch,) = films.batches(films.split.test)
    draws = Draws(seed, 0, batch.ids)
    views = {name: view(batch, draws.within(name), made.spec) for name, view in made.views().items()}
    with torch.no_grad():
        right = made(views, draws, Progress(0, 1, 1)).watch["speed_accuracy"]
    return of_films(run, data, seed) | {"speed": float(right), "speed, by chance": 0.5}


def run(options: dict[str, Any], figures: Figures = of_films, films: str = "all") -> Run:
    name, steps = ("rspnet", 800) if options["encoder"] == "r3d-mini" else ("child-video", 6000)
    return Run(name, f"moving_garments/{films}.csv", {"steps": steps}, options, figures)


RUNS = {
    "child-video": run(MASKED, of_clips),
    "child-video, stills": run(MASKED | {"encoder": "stills-vit-micro/8"}),
    "child-video, a tenth of the films": run(MASKED | {"held_back": 8}, films="tenth"),
    "child-video, half hidden": run(MASKED | {"mask_ratio": 0.5}),
    "rspnet": run(SPEED, of_speeds),
    "rspnet, speed alone": run(SPEED | {"appearance_weight": 0.0}, of_speeds),
    "rspnet, films alone": run(SPEED | {"speed_weight": 0.0}),
    "rspnet, absolute speed": run(SPEED | {"speed_task": "absolute"}, of_speeds),
    "child-video, bundled": Run("child-video", "sample:motion_sim", {"steps": 1000}, MASKED | BUNDLED),
    "child-video, signs": Run("child-video", "signs/all.csv", {"steps": 400}, MASKED | SIGNS, of_signs),
    "rspnet, signs": Run("rspnet", "signs/all.csv", {"steps": 400}, SPEED | SIGNS, of_signs),
    "rspnet, bundled": Run("rspnet", "sample:motion_sim", {"steps": 800}, SPEED | BUNDLED),
}

CLIPS, SPEEDS = "child-video", "rspnet"
JUDGED = {
    "motion": ("{}", "linear motion"),
    "the motion of simulated bodies": ("{}, bundled", "linear"),
    "the same signer is nearest (real films)": ("{}, signs", "same signer"),
}
"""What both are judged by beside the untrained encoder and raw input: which run, and which figure."""

CLAIMS = (
    Claim(
        "child-video: video beats stills on motion by 15 points",
        (CLIPS, "linear motion"), ("child-video, stills", "linear motion"), 15,
    ),
    Claim(
        "child-video: on what one frame shows, stills are hardly better",
        (CLIPS, "linear garment"), ("child-video, stills", "linear garment"), -5,
    ),
    Claim(
        "child-video: ten times as many films are better, at equal steps",
        (CLIPS, "linear motion"), ("child-video, a tenth of the films", "linear motion"),
    ),
    Claim(
        "child-video: a tenth of the films is better than none",
        ("child-video, a tenth of the films", "linear motion"), (CLIPS, "linear motion untrained"),
    ),
    Claim(
        "child-video: fills the middle in with less error than the nearest frame",
        (CLIPS, "middle, nearest frame"), (CLIPS, "middle, predicted"),
    ),
    Claim("child-video: and with less than before training", (CLIPS, "middle, untrained"), (CLIPS, "middle, predicted")),
    Claim(
        "child-video: helps fine-tuning on ten labels a motion",
        (CLIPS, "fine-tuned motion"), (CLIPS, "fine-tuned motion untrained"),
    ),
    Claim(
        "child-video: hiding 75 % is at most 3 points worse than 50 %",
        (CLIPS, "linear motion"), ("child-video, half hidden", "linear motion"), -3,
    ),
    Claim("RSPNet: speeds of 80 % of unseen films are told apart", (SPEEDS, "speed"), (SPEEDS, "speed, by chance"), 30),
    Claim(
        "RSPNet: both tasks together beat that on speed, where both motion and garment are asked for",
        (SPEEDS, "linear both"), ("rspnet, speed alone", "linear both"),
    ),
    Claim("RSPNet: and that on films", (SPEEDS, "linear both"), ("rspnet, films alone", "linear both")),
    Claim(
        "RSPNet: the task on speed teaches more motion than that on films",
        ("rspnet, speed alone", "linear motion"), ("rspnet, films alone", "linear motion"),
    ),
    Claim(
        "RSPNet: the task on films teaches more of what moves than that on speed",
        ("rspnet, films alone", "linear garment"), ("rspnet, speed alone", "linear garment"),
    ),
    Claim(
        "RSPNet: the nearest film, 10 points above the untrained encoder",
        (SPEEDS, "retrieval both"), (SPEEDS, "retrieval both untrained"), 10,
    ),
    Claim("RSPNet: and above raw input", (SPEEDS, "retrieval both"), (SPEEDS, "retrieval both input")),
    Claim(
        "RSPNet: relative speed is told where absolute speed is not",
        (SPEEDS, "speed"), ("rspnet, absolute speed", "speed"),
    ),
    *(
        Claim(f"{said}: {what}, above {baseline}", (name.format(method), figure), (name.format(method), f"{figure} {word}"))
        for method, said in ((CLIPS, "child-video"), (SPEEDS, "RSPNet"))
        for what, (name, figure) in JUDGED.items()
        for word, baseline in (("untrained", "the untrained encoder"), ("input", "raw input"))
    ),
)  # fmt: skip
