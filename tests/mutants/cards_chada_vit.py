"""The mutations of ChAda-ViT's card, and of what its data and views rest on."""

from __future__ import annotations

from tests.mutants.mutation import Mutation

TWIN = "twins/test_twin_chada_vit.py"
ENCODER = "unit/test_nn_channel_vit.py"
METHOD = "unit/test_methods_chada_vit.py"
VIEWS = "unit/test_views_channel_image.py"
KIND = "unit/test_kind_channels.py"
GOLDEN = "conformance/test_methods_golden_chada_vit.py"

CHADA_VIT_MUTATIONS = [
    Mutation(
        "chada-vit: the mask inverted",
        "nn/channel_vit.py",
        "F.pad(there, (1, 0), value=True)",
        "F.pad(~there, (1, 0), value=True)",
        f"{ENCODER}::test_padding_is_looked_at_by_nobody",
    ),
    Mutation(
        "chada-vit: the mask shifted by one, the class token forgotten",
        "nn/channel_vit.py",
        "F.pad(there, (1, 0), value=True)",
        "F.pad(there, (0, 1), value=False)",
        f"{TWIN}::test_a_padded_batch_is_its_images_one_by_one",
    ),
    Mutation(
        "chada-vit: presence read from the values",
        "nn/channel_vit.py",
        "return x[:, :-1], x[:, -1, :, 0, 0] > 0",
        "return x[:, :-1], x[:, 0, :, 0, 0] > 0",
        f"{GOLDEN}::test_what_is_kept_is_the_published_encoder",
    ),
    Mutation(
        "chada-vit: tokens patch by patch instead of channel by channel",
        "nn/channel_vit.py",
        "known = known.flatten(1, 2)",
        "known = known.transpose(1, 2).flatten(1, 2)",
        f"{TWIN}::test_a_padded_batch_is_its_images_one_by_one",
    ),
    Mutation(
        "chada-vit: a channel's slot on the class token",
        "nn/channel_vit.py",
        "return torch.cat([(self.cls_token + table[:, :1]).expand",
        "return torch.cat([(self.cls_token + table[:, :1] + known[:, :1] - table[:, 1:2]).expand",
        f"{TWIN}::test_a_padded_batch_is_its_images_one_by_one",
    ),
    Mutation(
        "chada-vit: slots handed out from the end",
        "nn/channel_vit.py",
        "known = known + self.channel_token[:, :channels]",
        "known = known + self.channel_token[:, :channels].flip(1)",
        f"{TWIN}::test_a_padded_batch_is_its_images_one_by_one",
    ),
    Mutation(
        "chada-vit: no norm before attention",
        "nn/blocks.py",
        "return self._finish(x, self.attn(self.norm1(x), seen), draws)",
        "return self._finish(x, self.attn(x, seen), draws)",
        f"{ENCODER}::test_the_official_block_is_its_two_lines",
    ),
    Mutation(
        "chada-vit: a norm of its own after attention",
        "nn/masked_blocks.py",
        "x = self.norm1(x + drop_path(branch",
        "x = self.norm2(x + drop_path(branch",
        f"{ENCODER}::test_the_official_block_is_its_two_lines",
    ),
    Mutation(
        "chada-vit: GELU instead of ReLU",
        "nn/masked_blocks.py",
        "return self.fc2(F.relu(self.fc1(x)))",
        "return self.fc2(F.gelu(self.fc1(x)))",
        f"{ENCODER}::test_the_official_block_is_its_two_lines",
    ),
    Mutation(
        "chada-vit: a pre-norm residual",
        "nn/masked_blocks.py",
        "return self.norm2(x + drop_path(self.mlp(x), self",
        "return (x + drop_path(self.mlp(self.norm2(x)), self",
        f"{ENCODER}::test_the_official_block_is_its_two_lines",
    ),
    Mutation(
        "chada-vit: positions resampled by the ratio of sizes",
        "nn/channel_vit.py",
        "grid, offset=0.1)",
        "grid, offset=0.0)",
        f"{ENCODER}::test_positions_at_another_size_are_read_as_published",
    ),
    Mutation(
        "chada-vit: absent channels in the mean",
        "nn/channel_vit.py",
        "weight = there.to(tokens.dtype)[..., None]",
        "weight = torch.ones_like(there).to(tokens.dtype)[..., None]",
        f"{ENCODER}::test_an_image_alone_is_what_it_is_in_a_batch",
    ),
    Mutation(
        "chada-vit: jitter multiplies before it adds",
        "views/channels.py",
        "(image + shift * offset).mul_(1 + gain * factor)",
        "(image * (1 + gain * factor)).add_(shift * offset)",
        f"{TWIN}::test_jitter_is_its_twin",
    ),
    Mutation(
        "chada-vit: jitter makes padding grey",
        "views/channels.py",
        "return only((image + shift * offset).mul_(1 + gain * factor).clamp_(0, 1), present)",
        "return (image + shift * offset).mul_(1 + gain * factor).clamp_(0, 1)",
        f"{TWIN}::test_jitter_is_its_twin",
    ),
    Mutation(
        "chada-vit: the last channel discarded",
        "views/channels.py",
        " & (counts > 1)",
        "",
        f"{TWIN}::test_discard_is_its_twin",
    ),
    Mutation(
        "chada-vit: half of the samples lose a channel",
        "views/channels.py",
        "3 * uniform[:, 0] >= 1",
        "2 * uniform[:, 0] >= 1",
        f"{TWIN}::test_discard_is_its_twin",
    ),
    Mutation(
        "chada-vit: padding shuffled among the channels",
        "views/channels.py",
        "noise.masked_fill(~present, torch.inf)",
        "noise",
        f"{TWIN}::test_shuffle_is_its_twin",
    ),
    Mutation(
        "chada-vit: one light for all channels",
        "views/channel_image.py",
        'draws.uniform("channels.jitter", channels, 2)',
        'draws.uniform("channels.jitter", 1, 2).expand(-1, channels, -1)',
        f"{VIEWS}::test_channels_share_one_box_and_have_their_own_light",
    ),
    Mutation(
        "chada-vit: another channel discarded in each view",
        "views/channel_image.py",
        'sample.uniform("channels.discard", 2)',
        'draws.uniform("channels.discard", 2)',
        f"{VIEWS}::test_a_discarded_channel_is_missing_in_all_views_of_an_epoch",
    ),
    Mutation(
        "chada-vit: padding of smaller pictures taken for black",
        "views/channel_image.py",
        "low.where(inside, torch.inf)",
        "low",
        f"{VIEWS}::test_padding_of_smaller_pictures_does_not_count_as_black",
    ),
    Mutation(
        "chada-vit: noise blown up to the whole range",
        "views/channel_image.py",
        "clamp(min=least)",
        "clamp(min=1e-6)",
        f"{VIEWS}::test_what_hardly_varies_is_not_blown_up",
    ),
    Mutation(
        "chada-vit: the teacher is kept",
        "methods/chada_vit.py",
        "return self.student\n",
        "return self.teacher\n",
        f"{METHOD}::test_the_student_is_kept",
    ),
    Mutation(
        "chada-vit: biases and norms spared from decay",
        "methods/chada_vit.py",
        '"""As published: biases and norms, too."""\n        return True',
        '"""As published: biases and norms, too."""\n        return parameter.ndim > 1',
        f"{METHOD}::test_everything_is_decayed_as_published",
    ),
    Mutation(
        "chada-vit: both views solarised",
        "methods/chada_vit.py",
        'return {"global1": view(o.blur, 0.0)',
        'return {"global1": view(o.blur, o.solarise)',
        f"{METHOD}::test_the_published_strength_and_chances_of_the_views",
    ),
    Mutation(
        "chada-vit: each view taught by itself",
        "objectives/distil.py",
        "others = log_q.sum(dim=0) - log_q[: len(p)]",
        "others = log_q[: len(p)]",
        f"{METHOD}::test_each_view_is_taught_by_the_other",
    ),
    Mutation(
        "chada-vit: the centre of another number of channels",
        "methods/chada_vit.py",
        "return counts(large) - 1 if self.options.centre_each",
        "return counts(large) - 2 if self.options.centre_each",
        "unit/test_methods_chada_vit.py::test_each_number_of_channels_can_have_a_centre_of_its_own",
    ),
    Mutation(
        "chada-vit: the centre moved by what the student said",
        "methods/dino.py",
        "self.center.hear(teacher, ",
        "self.center.hear(student.detach()[: len(teacher)], ",
        f"{GOLDEN}::test_a_step_of_the_loss",
    ),
    Mutation(
        "chada-vit: the teacher's temperature by the step",
        "methods/dino.py",
        "int(progress.epoch), o.teacher_temperature_start",
        "int(progress.step), o.teacher_temperature_start",
        f"{GOLDEN}::test_a_step_of_the_loss",
    ),
    Mutation(
        "chada-vit: student and teacher changed places in the average",
        "nn/ema.py",
        "torch._foreach_lerp_(own, new, 1.0 - momentum)",
        "torch._foreach_lerp_(own, new, momentum)",
        f"{METHOD}::test_the_teacher_follows_by_the_schedule",
    ),
    Mutation(
        "chada-vit: colours taken for channels",
        "data/kinds/channels.py",
        "if count in COLOURS and not",
        "if count == 1 and not",
        f"{KIND}::test_grey_and_colours_stay_images",
    ),
    Mutation(
        "chada-vit: channels in another order than the others'",
        "data/kinds/channels.py",
        "if wanted.names and found.named and not _is_part(found.names, wanted.names):",
        "if wanted.names and found.named and not set(found.names) <= set(wanted.names):",
        f"{KIND}::test_names_are_kept_where_all_agree_and_checked",
    ),
    Mutation(
        "chada-vit: slots for a typical number of channels",
        "data/kinds/channels.py",
        "(max(counts), sorted(heights)[middle]",
        "(sorted(counts)[middle], sorted(heights)[middle]",
        f"{KIND}::test_the_form_has_the_most_channels_and_the_widest_numbers",
    ),
]
