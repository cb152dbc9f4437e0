"""The mutations: one wrong line each, and the test that it has to turn red. Here those of the methods."""

from __future__ import annotations

from .cards_alice import ALICE_MUTATIONS
from .cards_anatomy import ANATOMY_MUTATIONS
from .cards_chada_vit import CHADA_VIT_MUTATIONS
from .cards_clip import CLIP_MUTATIONS
from .cards_mod_x import MOD_X_MUTATIONS
from .cards_polar_mae import POLAR_MAE_MUTATIONS
from .cards_video import CHILD_VIDEO_MUTATIONS, RSPNET_MUTATIONS
from .mutation import ROOT, Mutation
from .trust_outside import BOMB_MUTATIONS, FOREIGN_MUTATIONS
from .trust_results import NUMBER_MUTATIONS, RANK_MUTATIONS, VERDICT_MUTATIONS
from .trust_runs import FILE_MUTATIONS, RESUME_MUTATIONS
from .trust_told import LEAK_MUTATIONS, WORD_MUTATIONS

__all__ = ["MUTATIONS", "ROOT", "Mutation"]

OBJECTIVES = "twins/test_twin_objectives.py"
WHOLE = "twins/test_methods_whole.py"
SIMCLR, MOCO, MAE, DINO = (f"unit/test_methods_{name}.py" for name in ("simclr", "moco_v3", "mae", "dino"))
GOLDEN = "conformance/test_methods_golden_{}.py".format

SIMCLR_MUTATIONS = [
    Mutation(
        "simclr: the diagonal kept",
        "objectives/contrast.py",
        "scatter_(1, itself[:, None], 1e9)",
        "scatter_(1, itself[:, None], 0.0)",
        f"{OBJECTIVES}::test_nt_xent_is_its_twin",
    ),
    Mutation(
        "simclr: the partner's column masked too",
        "objectives/contrast.py",
        "loss = F.cross_entropy(logits, partner)",
        "loss = (logits.scatter(1, partner[:, None], -1e9).logsumexp(1) - logits.gather(1, partner[:, None])[:, 0]).mean()",
        f"{OBJECTIVES}::test_nt_xent_is_its_twin",
    ),
    Mutation(
        "simclr: positives at i instead of i + N",
        "objectives/contrast.py",
        "torch.cat([place, columns + place]), torch.cat([columns + place, place])",
        "torch.cat([place, columns + place]), torch.cat([place, columns + place])",
        f"{OBJECTIVES}::test_nt_xent_is_its_twin",
    ),
    Mutation(
        "simclr: the mean over 2N instead of the sum of two means",
        "objectives/contrast.py",
        'return 2 * loss if reduction == "official" else loss',
        "return loss",
        f"{WHOLE}::test_simclr",
    ),
    Mutation(
        "simclr: temperature multiplied",
        "objectives/contrast.py",
        "return a @ b.T / temperature",
        "return a @ b.T * temperature",
        f"{WHOLE}::test_simclr",
    ),
    Mutation(
        "simclr: normalised over the batch",
        "objectives/contrast.py",
        "F.normalize(a, dim=-1, eps=floor), F.normalize(b, dim=-1, eps=floor)",
        "F.normalize(a, dim=0, eps=floor), F.normalize(b, dim=0, eps=floor)",
        f"{WHOLE}::test_simclr",
    ),
    Mutation(
        "simclr: the final norm with a shift",
        "nn/heads.py",
        "bn=BatchNorm(widths[index + 1], shift=not last, eps=eps)",
        "bn=BatchNorm(widths[index + 1], eps=eps)",
        "unit/test_nn_heads.py::test_simclr_projector_has_no_bias_and_no_shift_at_its_end",
    ),
    Mutation(
        "simclr: LARS applied to biases",
        "methods/method.py",
        "return parameter.ndim > 1",
        "return True",
        f"{SIMCLR}::test_norms_and_biases_are_spared_by_lars",
    ),
    Mutation(
        "simclr: LARS scales what it should spare",
        "train/optimise.py",
        '            if group["decays"]:\n                updates',
        "            if True:\n                updates",
        "conformance/test_parts_simclr.py::test_lars",
    ),
    Mutation(
        "simclr: each view a pass of its own",
        "methods/simclr.py",
        "z1, z2 = self.head(self.student(x).pooled).chunk(2)",
        "z1, z2 = (self.head(self.student(view).pooled) for view in x.chunk(2))",
        f"{WHOLE}::test_simclr",
    ),
]

MOCO_MUTATIONS = [
    Mutation(
        "moco: the copy moves after it made keys",
        "train/step.py",
        "        self.method.before_step(progress)\n",
        "",
        f"{MOCO}::test_the_copy_moves_before_it_makes_keys",
    ),
    Mutation(
        "moco: the predictor applied to keys",
        "methods/moco_v3.py",
        "return self.teacher_head(self.teacher(x).pooled)",
        "return self.predictor(self.teacher_head(self.teacher(x).pooled))",
        f"{MOCO}::test_queries_pass_the_predictor_and_keys_do_not",
    ),
    Mutation(
        "moco: keys with gradient",
        "objectives/contrast.py",
        "similarities(query, keys.detach(), temperature)",
        "similarities(query, keys, temperature)",
        f"{OBJECTIVES}::test_keys_never_get_a_gradient_and_others_may_come_in_any_order",
    ),
    Mutation(
        "moco: the factor 2T missing",
        "objectives/contrast.py",
        "return 2 * temperature * F.cross_entropy(",
        "return F.cross_entropy(",
        f"{GOLDEN('simclr')}::test_a_step_of_moco",
    ),
    Mutation(
        "moco: LARS applied to biases",
        "methods/moco_v3.py",
        "return isinstance(self.student, VisionTransformer) or parameter.ndim > 1",
        "return True",
        f"{MOCO}::test_everything_decays_in_transformers_and_only_matrices_in_residual_networks",
    ),
    Mutation(
        "moco: the copy moves with every pass of a step",
        "train/step.py",
        "                found.append(self.forward(",
        "                self.method.before_step(progress)\n                found.append(self.forward(",
        f"{MOCO}::test_the_copy_moves_once_a_step_of_however_many_passes",
    ),
    Mutation(
        "moco: targets without the rank's offset",
        "methods/moco_v3.py",
        "offset = distributed.rank() * len(q1)",
        "offset = 0",
        "contract/test_methods.py::test_many_ranks_compute_what_one_does[2-moco-v3-vit-micro/4]",
    ),
    Mutation(
        "moco: patches trained",
        "methods/moco_v3.py",
        "encoder.patch_embed.requires_grad_(False)",
        "encoder.patch_embed.requires_grad_(True)",
        f"{MOCO}::test_patches_keep_their_random_projection",
    ),
]

MAE_MUTATIONS = [
    Mutation(
        "mae: mask inverted",
        "views/masks.py",
        "mask = torch.ones_like(noise).scatter_(1, shuffle[:, :count], 0)",
        "mask = torch.zeros_like(noise).scatter_(1, shuffle[:, :count], 1)",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: positions by rank instead of by place",
        "nn/vit.py",
        "places if keep is None else places[0][keep]",
        "places if keep is None else places[:, : keep.shape[1]]",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: put back with shuffle instead of restore",
        "views/masks.py",
        "return Hidden(shuffle[:, :count], mask, shuffle.argsort(dim=1))",
        "return Hidden(shuffle[:, :count], mask, shuffle)",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: loss over all patches",
        "methods/mae.py",
        'scored = mask if self.options.loss_on == "hidden" else torch.ones_like(mask)',
        "scored = torch.ones_like(mask)",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: biased variance",
        "objectives/reconstruct.py",
        "keepdim=True, correction=1)",
        "keepdim=True, correction=0)",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: the floor outside the root",
        "objectives/reconstruct.py",
        "(variance + floor).sqrt()",
        "(variance.sqrt() + floor)",
        f"{OBJECTIVES}::test_masked_pixel_loss_is_its_twin_with_unequal_counts",
    ),
    Mutation(
        "mae: patches in the order channel, row, column",
        "nn/patches.py",
        "cells.permute(0, 2, 4, 3, 5, 1)",
        "cells.permute(0, 2, 4, 1, 3, 5)",
        f"{WHOLE}::test_mae",
    ),
    Mutation(
        "mae: the count rounded",
        "views/masks.py",
        "count = int(length * (1 - ratio))",
        "count = round(length * (1 - ratio))",
        "twins/test_twin_masks.py::test_the_count_truncates_the_floating_product",
    ),
    Mutation(
        "mae: the count from the ratio itself",
        "views/masks.py",
        "count = int(length * (1 - ratio))",
        "count = int(length * ratio)",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: one mask for the batch",
        "methods/mae.py",
        'random_keep(draws.uniform("mask", places), ratio)',
        'random_keep(draws.uniform("mask", places)[:1].expand(len(draws.samples), -1), ratio)',
        f"{MAE}::test_every_sample_and_epoch_has_a_mask_of_its_own_and_the_batch_does_not_matter",
    ),
    Mutation(
        "mae: no positions in the decoder",
        "nn/image_decoder.py",
        "torch.cat([x[:, :1], places], dim=1) + self.pos_embed",
        "torch.cat([x[:, :1], places], dim=1)",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: the class token among the predictions",
        "nn/image_decoder.py",
        "return self.pred(self.norm(x))[:, 1:]",
        "return self.pred(self.norm(x))[:, :-1]",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: positions row first",
        "nn/positions.py",
        'u, v = (column, row) if first == "column" else (row, column)',
        "u, v = (row, column)",
        f"{GOLDEN('mae')}::test_tables_of_positions_are_the_published_ones",
    ),
    Mutation(
        "mae: GELU by tanh",
        "nn/blocks.py",
        "F.gelu(self.fc1(x))",
        'F.gelu(self.fc1(x), approximate="tanh")',
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
]

DINO_MUTATIONS = [
    Mutation(
        "dino: a crop compared with itself",
        "objectives/distil.py",
        "others = log_q.sum(dim=0) - log_q[: len(p)]",
        "others = log_q.sum(dim=0).expand(len(p), -1, -1)",
        f"{WHOLE}::test_dino",
    ),
    Mutation(
        "dino: divided by 2V",
        "objectives/distil.py",
        ".mean() / (views - 1)",
        ".mean() / views",
        f"{WHOLE}::test_dino",
    ),
    Mutation(
        "dino: the centre updated before it is used",
        "methods/dino.py",
        "target = sharpen(teacher, self.center.of(self.group(large)), temperature)",
        "self.center.hear(teacher); self.center.move(); target = sharpen(teacher, self.center.of(), temperature)",
        f"{DINO}::test_the_loss_is_that_of_the_centre_before_the_step",
    ),
    Mutation(
        "dino: the centre of softmax outputs",
        "methods/dino.py",
        "self.center.hear(teacher, ",
        "self.center.hear(teacher.softmax(-1), ",
        f"{GOLDEN('dino')}::test_a_step",
    ),
    Mutation(
        "dino: the centre without 1 / 2B",
        "nn/centre.py",
        "* sums / many.clamp(min=1)",
        "* sums",
        f"{GOLDEN('dino')}::test_a_step",
    ),
    Mutation(
        "dino: the teacher's temperature on the student",
        "methods/dino.py",
        "cross_view(student, target, o.student_temperature,",
        "cross_view(student, target, temperature,",
        f"{WHOLE}::test_dino",
    ),
    Mutation(
        "dino: the teacher follows before the step",
        "train/step.py",
        "            self.optimiser.step()\n            self.method.after_step(progress)\n",
        "            self.method.after_step(progress)\n            self.optimiser.step()\n",
        f"{DINO}::test_the_teacher_follows_after_the_optimiser",
    ),
    Mutation(
        "dino: gradients clipped together",
        "train/step.py",
        "clip = optimise.clip_each if self.training.clip_per_tensor else optimise.clip",
        "clip = optimise.clip",
        f"{DINO}::test_each_gradient_is_clipped_by_itself",
    ),
    Mutation(
        "dino: clipping by tensor is by all together",
        "train/optimise.py",
        "torch._foreach_mul_(grads, list((limit / (lengths + 1e-6)).clamp(max=1.0)))",
        "torch._foreach_mul_(grads, (limit / (lengths.norm() + 1e-6)).clamp(max=1.0))",
        "conformance/test_parts_dino.py::test_clipping_by_tensor",
    ),
    Mutation(
        "dino: the head applied per resolution",
        "methods/dino.py",
        "return self.head(torch.cat(features))",
        "return torch.cat([self.head(rows) for rows in features])",
        f"{DINO}::test_one_call_of_the_head_normalises_over_all_crops",
    ),
    Mutation(
        "dino: positions resampled to the exact size",
        "nn/vit.py",
        'self.offset = 0.1 if positions == "learned" else 0.0',
        "self.offset = 0.0",
        f"{GOLDEN('dino')}::test_a_step",
    ),
    Mutation(
        "dino: points normalised over the batch",
        "nn/heads.py",
        "F.normalize(self.mlp(features), dim=-1, eps=1e-12)",
        "F.normalize(self.mlp(features), dim=0, eps=1e-12)",
        f"{WHOLE}::test_dino",
    ),
    Mutation(
        "dino: prototypes normalised over one another",
        "nn/heads.py",
        "self.weight_v.norm(dim=1, keepdim=True)",
        "self.weight_v.norm(dim=0, keepdim=True)",
        f"{WHOLE}::test_dino",
    ),
    Mutation(
        "dino: prototypes trained from the start",
        "methods/dino.py",
        "if progress.epoch < self.options.freeze_last:",
        "if progress.epoch < 0:",
        f"{DINO}::test_prototypes_are_frozen_at_first",
    ),
    Mutation(
        "dino: the student is kept",
        "methods/dino.py",
        "return self.teacher\n",
        "return self.student\n",
        f"{DINO}::test_the_teacher_starts_as_the_student_and_is_what_is_kept",
    ),
    Mutation(
        "dino: branches of the teacher dropped",
        "methods/dino.py",
        "teacher = self.teacher_head(self.teacher(large).pooled)",
        "teacher = self.teacher_head(self.teacher(large, draws=draws).pooled)",
        f"{DINO}::test_branches_of_the_student_are_dropped_and_never_the_teachers",
    ),
]

TRUST_MUTATIONS = [
    *FILE_MUTATIONS, *RESUME_MUTATIONS, *RANK_MUTATIONS, *NUMBER_MUTATIONS, *VERDICT_MUTATIONS,
    *BOMB_MUTATIONS, *FOREIGN_MUTATIONS, *WORD_MUTATIONS, *LEAK_MUTATIONS,
]  # fmt: skip

MUTATIONS = [
    *SIMCLR_MUTATIONS, *MOCO_MUTATIONS, *MAE_MUTATIONS, *DINO_MUTATIONS, *CHILD_VIDEO_MUTATIONS, *RSPNET_MUTATIONS,
    *CHADA_VIT_MUTATIONS, *POLAR_MAE_MUTATIONS, *CLIP_MUTATIONS, *MOD_X_MUTATIONS, *ALICE_MUTATIONS,
    *ANATOMY_MUTATIONS, *TRUST_MUTATIONS,
]  # fmt: skip
