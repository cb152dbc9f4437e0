"""ChAda-ViT as a whole against numbers from its published code: what is kept, and a step of the loss."""

from __future__ import annotations

import pytest
import torch
from test_parts_chada_vit import encoder_of, input_of

from golden import assert_near, golden
from tacit.core.draws import Draws
from tacit.data.spec import Spec
from tacit.methods.chada_vit import ChAdaViT, ChAdaViTOptions
from tacit.methods.method import Progress
from tacit.nn.channel_vit import of_true_channels
from tacit.views.channels import present

CHADA = golden("chada-vit")


def method() -> ChAdaViT:
    """With the golden encoder, and a head that says as many logits as the golden loss has."""
    encoder, loss = CHADA["encoder"], CHADA["dino_loss"]
    h = encoder.hyper
    options = ChAdaViTOptions(
        channels=h["max_number_channels"],
        prototypes=loss.inputs["student"].shape[1],
        head_width=8,
        bottleneck=4,
        student_temperature=loss.hyper["student_temp"],
        teacher_temperature=loss.hyper["teacher_temp"],
        teacher_temperature_start=loss.hyper["warmup_teacher_temp"],
        temperature_epochs=loss.hyper["warmup_epochs"],
        centre_momentum=loss.hyper["center_momentum"],
    )
    extent = (h["max_number_channels"], h["img_size"], h["img_size"])
    return ChAdaViT(options, encoder_of(encoder), Spec("channels", 1, extent), extent[-1]).double()


@pytest.fixture
def views() -> dict[str, torch.Tensor]:
    case = CHADA["encoder"]
    x, _ = input_of(case, case.out["attention_last"].shape[-1])
    return {"global1": x, "global2": x.flip(-1)}


def test_what_is_kept_is_the_published_encoder(views):
    case, kept = CHADA["encoder"], method().encoder
    x = views["global1"]
    said = kept(x, attention=True)
    assert_near(said.pooled, case.out["cls"])
    assert_near(of_true_channels(said.tokens, present(case.inputs["num_channels"], x.shape[2])), case.out["tokens"])
    assert said.attention is not None
    assert_near(said.attention, case.out["attention_last"])
    (kept(x).pooled * case.inputs["probe"]).sum().backward()
    for name, expected in {
        "channel_token": case.out["grad_channel_token"],
        "patch_embed.proj.weight": case.out["grad_proj_weight"],
        "pos_embed": case.out["grad_pos_embed"].squeeze(0),
        "blocks.0.norm1.weight": case.out["grad_norm1"],
    }.items():
        gradient = kept.get_parameter(name).grad
        assert gradient is not None
        assert_near(gradient, expected)


def test_a_step_of_the_loss(views):
    """Logits as given; loss, its gradient, the centre, which only moves afterwards, and the epoch's temperature."""
    case, made = CHADA["dino_loss"], method()
    h, student = case.hyper, case.inputs["student"].clone().requires_grad_()
    made.head.register_forward_hook(lambda *_: student)
    made.teacher_head.register_forward_hook(lambda *_: case.inputs["teacher"])
    made.center.mean.copy_(case.inputs["center"])
    progress = Progress(h["epoch"] * 5 + 3, h["epochs"] * 5, 5)
    terms = made(views, Draws(0, 0, torch.arange(len(views["global1"]))), progress)
    assert_near(terms.total, case.out["loss"])
    assert_near(terms.watch["teacher_temperature"], case.out["teacher_temp_schedule"][h["epoch"]])
    (gradient,) = torch.autograd.grad(terms.total, student)
    assert_near(gradient, case.out["grad_student"])
    assert_near(made.center.mean, case.inputs["center"], 0, 0)
    made.after_step(progress)
    assert_near(made.center.mean, case.out["center_after"])
