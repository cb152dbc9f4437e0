"""The parts of relative speed perception against numbers from its published code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden import Case, assert_near, golden
from tacit.nn.ema import follow
from tacit.nn.heads3d import activation_map, map_head
from tacit.nn.queue import Queue
from tacit.objectives.speed import appearance, relative_speed, scores
from tacit.views.clips import EvenClip, Speeds, fast_ones, last_start

RSPNET = golden("rspnet")


def queue_of(case: Case) -> Queue:
    columns, pointer = case.inputs["queue"], case.inputs["pointer"]
    queue = Queue(columns.shape[1], columns.shape[0]).double()
    queue.keys.copy_(columns.T)
    queue.pushed.copy_(pointer)
    return queue


def test_clips_at_two_speeds():
    case = RSPNET["speed_clips"]
    h, q, k = case.hyper, case.inputs["clip_q"], case.inputs["clip_k"]
    fast = fast_ones(case.inputs["permutation"], h["alpha"])
    speeds = Speeds(q.shape[2] // h["speed"], (h["speed"],))
    q, k = q[:, :, list(speeds.shown)], k[:, :, list(speeds.shown)]
    assert torch.equal(speeds.play(q, fast, h["speed"]), case.out["q"])
    assert torch.equal(speeds.play(k, fast, h["speed"]), case.out["k"])
    assert torch.equal(speeds.play(k, ~fast, h["speed"]), case.out["k_other"])


def test_losses_and_their_gradients():
    case = RSPNET["losses"]
    h, x = case.hyper, {name: value.clone() for name, value in case.inputs.items()}
    q_a, q_m, t = x["q_A"].requires_grad_(), x["q_M"].requires_grad_(), h["temperature"]
    same, other = scores(q_m, x["k_M"], t), scores(q_m, x["k_other_M"], t)
    loss_a = appearance(q_a, [x["k_A"], x["k_other_A"]], x["queue"].T, t)
    loss_m = relative_speed(same, other, h["margin"])
    loss = h["weight_A"] * loss_a + h["weight_M"] * loss_m
    loss.backward()
    for name, value in {
        "loss": loss,
        "loss_A": loss_a,
        "loss_M": loss_m,
        "logit_pos_M": same,
        "logit_neg_M": other,
        "grad_q_A": q_a.grad,
        "grad_q_M": q_m.grad,
    }.items():
        assert_near(value, case.out[name], rtol=1e-8)


def test_the_queue_is_a_ring():
    case = RSPNET["queue"]
    queue = queue_of(case)
    for keys, pointer in zip(case.inputs["keys"], case.out["pointers"], strict=True):
        queue.push(keys)
        assert queue.pointer == pointer
    assert torch.equal(queue.keys.T, case.out["queue"])


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads(kind):
    case = RSPNET[f"head_{kind}"]
    feature = case.inputs["feature"].double()
    for prefix, name in (("fc1.", "z_A"), ("fc2.", "z_M")):
        expected = case.out[name]
        head = map_head(kind, feature.shape[1], expected.shape[1]).double()
        head.load_state_dict(case.part(prefix))
        assert_near(F.normalize(head(feature), dim=1), expected, rtol=1e-8)


def test_activation_maps():
    x, out = RSPNET["activation_map"].inputs, RSPNET["activation_map"].out
    for part in "AM":
        q, k = (x["feature_q"], x[f"w_q_{part}"]), (x["feature_k"], x[f"w_k_{part}"])
        assert_near(activation_map(*q, *k), out[f"map_q_{part}"], rtol=1e-8)
        assert_near(activation_map(*k, *q), out[f"map_k_{part}"], rtol=1e-8)


def test_even_clips():
    case = RSPNET["temporal_crop"]
    size, stride, clips = (case.hyper[name] for name in ("size", "stride", "n_crops"))
    columns = (case.inputs["num_frames"].tolist(), *(case.out[n].tolist() for n in ("last_start", "even_crops", "center_crop")))
    for frames, last, even, centre in zip(*columns, strict=True):
        assert last_start(frames, size, stride) == last
        found = [EvenClip(size, stride, clips, place)([frames], [])[0] for place in range(clips)]
        assert np.concatenate(found).tolist() == even
        assert EvenClip(size, stride, 1, 0)([frames], [])[0].tolist() == centre


class Tiny(nn.Module):
    """The file's network: two convolutions and two linear heads."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        inputs, width, out = weights["encoder.conv1.weight"].shape[1], *weights["fc1.2.weight"].T.shape
        self.encoder = nn.Module()
        self.encoder.conv1 = nn.Conv3d(inputs, width, 3, stride=(1, 2, 2), padding=1)
        self.encoder.conv2 = nn.Conv3d(width, width, 3, stride=2, padding=1)
        self.fc1, self.fc2 = map_head("linear", width, out), map_head("linear", width, out)
        self.double().load_state_dict(weights)

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        feature = self.encoder.conv2(self.encoder.conv1(clips).relu()).relu()
        return F.normalize(self.fc1(feature), dim=1), F.normalize(self.fc2(feature), dim=1)


def test_a_whole_step():
    """The momentum copy follows first; keys of the other speed join the queue, and only after the loss."""
    case = RSPNET["step"]
    h, x = case.hyper, case.inputs
    query, key, queue = Tiny(case.part("query.")), Tiny(case.part("key.")).requires_grad_(False), queue_of(case)
    follow(key, query, h["momentum"])
    speeds = Speeds(x["clip_q"].shape[2] // h["speed"], (h["speed"],))
    clip_q, clip_k = (x[name].double()[:, :, list(speeds.shown)] for name in ("clip_q", "clip_k"))
    fast, play = fast_ones(x["permutation"], 0.5), speeds.play
    with torch.no_grad():
        o_a, o_m = key(play(clip_k, ~fast, h["speed"]))
        k_a, k_m = key(play(clip_k, fast, h["speed"]))
    q_a, q_m = query(play(clip_q, fast, h["speed"]))
    loss_a = appearance(q_a, [k_a, o_a], queue.keys.clone(), h["temperature"])
    loss_m = relative_speed(scores(q_m, k_m, h["temperature"]), scores(q_m, o_m, h["temperature"]), h["margin"])
    loss = h["weight_A"] * loss_a + h["weight_M"] * loss_m
    queue.push(o_a)
    loss.backward()
    for name, value in {
        "loss": loss,
        "loss_A": loss_a,
        "loss_M": loss_m,
        "queue": queue.keys.T,
        "pointer": queue.pointer,
        "key_fc1_weight": key.fc1[2].weight,
        "key_conv1_bias": key.encoder.conv1.bias,
        "grad_fc1_weight": query.fc1[2].weight.grad,
        "grad_fc2_bias": query.fc2[2].bias.grad,
        "grad_conv1_bias": query.encoder.conv1.bias.grad,
    }.items():
        assert_near(value, case.out[name], rtol=1e-8)
