"""RSPNet as a whole against one step of its published code; clips and crops as the loader cuts them."""

from __future__ import annotations

import torch
from torch import nn

from golden import assert_near, golden
from tacit.data.spec import Spec
from tacit.data.window import Clip
from tacit.methods.method import Progress
from tacit.methods.rspnet import RSPNet
from tacit.nn.encoder import Encoded, Encoder
from tacit.views.clips import Speeds

RSPNET = golden("rspnet")
STEP = RSPNET["step"]
HEADS = {"encoder": "{}", "fc1": "{}heads.appearance", "fc2": "{}heads.speed"}


class Given:
    """Draws that are the golden file's: numbers whose order is its permutation."""

    def __init__(self, permutation: torch.Tensor) -> None:
        self.samples, self.seed = torch.arange(len(permutation)), 0
        self.fast = torch.zeros(len(permutation))
        self.fast[permutation] = torch.arange(len(permutation)) / len(permutation)

    def within(self, scope: str) -> Given:
        return self

    def uniform(self, name: str) -> torch.Tensor:
        assert name in ("fast", "company")  # keys in one part are encoded as they come
        return self.fast


class Two(Encoder):
    """The file's network: two convolutions."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width, self.depth = width, 2
        self.conv1 = nn.Conv3d(channels, width, 3, stride=(1, 2, 2), padding=1)
        self.conv2 = nn.Conv3d(width, width, 3, stride=2, padding=1)

    def forward(self, x, keep=None, draws=None, taps=(), attention=False):
        tokens = self.conv2(self.conv1(x).relu()).relu().flatten(2).transpose(1, 2)
        return Encoded(tokens.mean(1), tokens)

    def grid(self, extent):
        return (extent[0] + 1) // 2, (extent[1] + 3) // 4, (extent[2] + 3) // 4


def method() -> RSPNet:
    h, clips, queue = STEP.hyper, STEP.inputs["clip_q"], STEP.inputs["queue"]
    options = RSPNet.Options(
        frames=clips.shape[2] // h["speed"],
        speeds=(h["speed"],),
        temperature=h["temperature"],
        margin=h["margin"],
        appearance_weight=h["weight_A"],
        speed_weight=h["weight_M"],
        queue=queue.shape[1],
        momentum=h["momentum"],
        head_out=queue.shape[0],
        splits=1,
    )
    encoder = Two(clips.shape[1], len(STEP.weights["query.encoder.conv1.bias"]))
    made = RSPNet(options, encoder, Spec("video", clips.shape[1], tuple(clips.shape[2:])), clips.shape[3]).double()
    for prefix, (name, encoder_name) in {"query.": ("", "student"), "key.": ("teacher_", "teacher")}.items():
        for part, place in HEADS.items():
            module = encoder_name if part == "encoder" else place.format(name)
            made.get_submodule(module).load_state_dict(STEP.part(f"{prefix}{part}."))
    made.queue.keys.copy_(queue.T)
    made.queue.pushed.copy_(STEP.inputs["pointer"])
    return made


def test_a_whole_step():
    """The copy follows first; keys of the other speed join the queue, and only after the loss."""
    made, progress = method(), Progress(0, 1, 1)
    made.before_step(progress)
    views = {name: STEP.inputs[name].double()[:, :, list(made.speeds.shown)] for name in ("clip_q", "clip_k")}
    terms = made(views, Given(STEP.inputs["permutation"]), progress)
    terms.total.backward()
    made.after_step(progress)
    for name, value in {
        "loss": terms.total,
        "loss_A": terms.parts["appearance"],
        "loss_M": terms.parts["speed"],
        "queue": made.queue.keys.T,
        "pointer": made.queue.pointer,
        "key_fc1_weight": made.teacher_heads["appearance"][2].weight,
        "key_conv1_bias": made.teacher.conv1.bias,
        "grad_fc1_weight": made.heads["appearance"][2].weight.grad,
        "grad_fc2_bias": made.heads["speed"][2].bias.grad,
        "grad_conv1_bias": made.student.conv1.bias.grad,
    }.items():
        assert_near(value, STEP.out[name], rtol=1e-8)


def test_clips_at_two_speeds():
    case = RSPNET["speed_clips"]
    made = method()
    made.options = made.options.model_copy(update={"slow": case.hyper["alpha"]})
    made.speeds = Speeds(case.inputs["clip_q"].shape[2] // case.hyper["speed"], (case.hyper["speed"],))
    fast = made.fast(Given(case.inputs["permutation"]))
    views = {name: case.inputs[name][:, :, list(made.speeds.shown)] for name in ("clip_q", "clip_k")}
    found = made.clips(views, fast, case.hyper["speed"])
    for name, clip in zip(("q", "k", "k_other"), found, strict=True):
        assert torch.equal(clip, case.out[name])


def test_crops_in_time_as_the_loader_cuts_them():
    case = RSPNET["temporal_crop"]
    window = Clip(case.hyper["size"], case.hyper["stride"], loops=True)
    columns = (case.inputs["num_frames"], case.out["uses_fallback"], case.out["fallback"], case.out["last_start"])
    for frames, falls_back, fallback, last in zip(*columns, strict=True):
        (first,), (final,) = window([int(frames)], [0.0]), window([int(frames)], [1 - 2.0**-24])
        if falls_back:
            assert first.tolist() == final.tolist() == fallback.tolist()
        else:
            assert (first[0], final[0]) == (0, int(last))
            assert (final - final[0]).tolist() == list(
                range(0, case.hyper["size"] * case.hyper["stride"], case.hyper["stride"])
            )
