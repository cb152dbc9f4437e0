"""The mutations: one wrong line each, and the test that it has to turn red."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutation:
    """A wrong line.

    Attributes:
        name: the method and what is wrong.
        file: where, below `src/tacit`.
        old: the text as it is; it occurs there once.
        new: what it becomes.
        test: the test that has to fail, below `tests`.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


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
        "                terms = self.forward(",
        "                self.method.before_step(progress)\n                terms = self.forward(",
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
        "methods/mae.py",
        "torch.cat([x[:, :1], places], dim=1) + self.pos_embed",
        "torch.cat([x[:, :1], places], dim=1)",
        f"{GOLDEN('mae')}::test_forward_pass_and_its_gradients",
    ),
    Mutation(
        "mae: the class token among the predictions",
        "methods/mae.py",
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
        "target = sharpen(teacher, self.center, temperature)",
        "target = sharpen(teacher, recentre(self.center, teacher, o.centre_momentum), temperature)",
        f"{DINO}::test_the_loss_is_that_of_the_centre_before_the_step",
    ),
    Mutation(
        "dino: the centre of softmax outputs",
        "methods/dino.py",
        "self.heard.append(wide(teacher).mean(",
        "self.heard.append(wide(teacher).softmax(-1).mean(",
        f"{GOLDEN('dino')}::test_a_step",
    ),
    Mutation(
        "dino: the centre without 1 / 2B",
        "methods/dino.py",
        "self.heard.append(wide(teacher).mean(",
        "self.heard.append(wide(teacher).sum(",
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

INTERRUPTION, NON_FINITE, FILES = (
    f"{name}.py" for name in ("reliability/test_interruption", "reliability/test_non_finite", "unit/test_core_files")
)
VERDICT = "unit/test_train_verdict.py"

TRUST_MUTATIONS = [
    Mutation(
        "trust: files written in place",
        "core/files.py",
        "        file, temporary = _beside(path)\n        with file:",
        '        file, temporary = open(path, "w+b"), path\n        with file:',
        f"{FILES}::test_a_block_that_fails_leaves_the_file_as_it_was",
    ),
    Mutation(
        "trust: no lock is taken",
        "core/files.py",
        "            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        except BlockingIOError:",
        "            pass\n        except BlockingIOError:",
        f"{INTERRUPTION}::test_a_second_process_in_the_same_folder_is_refused",
    ),
    Mutation(
        "trust: devices are opened",
        "core/files.py",
        "if not stat.S_ISREG(os.fstat(descriptor).st_mode):",
        "if stat.S_ISSOCK(os.fstat(descriptor).st_mode):",
        f"{FILES}::test_a_pipe_and_a_device_are_not_opened_and_nobody_waits",
    ),
    Mutation(
        "trust: JSON without a bottom is a traceback",
        "core/files.py",
        "except (ValueError, RecursionError) as problem:",
        "except ValueError as problem:",
        "reliability/test_artefacts_hostile.py::test_json_without_a_bottom_is_refused_in_one_line",
    ),
    Mutation(
        "trust: a loss that is not finite goes on",
        "train/step.py",
        "if not distributed.largest(int(mine)):",
        "if distributed.largest(int(mine)) < 2:",
        f"{NON_FINITE}::test_a_loss_that_is_not_finite_names_term_step_files_and_checkpoint",
    ),
    Mutation(
        "trust: weights that are not finite are kept",
        "train/loop.py",
        "if not self.step.sound():",
        "if not self.step:",
        f"{NON_FINITE}::test_weights_that_are_not_finite_never_replace_a_checkpoint",
    ),
    Mutation(
        "trust: tables are not cut back",
        "train/folder.py",
        "file.truncate(length)",
        "file.truncate()",
        f"{INTERRUPTION}::test_a_killed_run_goes_on_without_a_break",
    ),
    Mutation(
        "trust: changed data is gone on with",
        "train/pretrain.py",
        'if collection.fingerprint != config["data"]["fingerprint"]:',
        'if not config["data"]["fingerprint"]:',
        f"{INTERRUPTION}::test_changed_data_is_not_gone_on_with",
    ),
    Mutation(
        "trust: checkpoints are unpickled",
        "train/checkpoint.py",
        "weights_only=True, mmap=True",
        "weights_only=False, mmap=True",
        "reliability/test_artefacts_hostile.py::test_a_pickle_among_weights_is_never_opened",
    ),
    Mutation(
        "trust: a flipped bit passes",
        "train/checkpoint.py",
        "archives.refuse_damaged(path)",
        "archives.archive(path.open('rb')).close()",
        "reliability/test_artefacts_hostile.py::test_a_flipped_bit_in_a_checkpoint_is_noticed",
    ),
    Mutation(
        "trust: signals are not heard",
        "train/loop.py",
        "        self._signal = number",
        "        self._signal = 0 * number",
        f"{INTERRUPTION}::test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on",
    ),
    Mutation(
        "trust: a saved data set may lead out of its folder",
        "data/sources/huggingface.py",
        'posixpath.basename(name) != name or name in ("", ".", "..")',
        'name == ""',
        "reliability/test_data_hostile.py::test_a_saved_data_set_reads_no_file_outside_itself",
    ),
    Mutation(
        "trust: names are not escaped in pages",
        "use/report_page.py",
        "autoescape=True,",
        "autoescape=False,",
        "unit/test_use_report.py::test_no_text_from_outside_becomes_markup",
    ),
    Mutation(
        "trust: any share of bad samples will do",
        "data/skipped.py",
        "if len(bad) <= max_bad * looked_at:",
        "if len(bad) <= looked_at:",
        "unit/test_use_evaluate.py::test_more_bad_samples_are_allowed_where_somebody_says_so",
    ),
    Mutation(
        "trust: a solved loss passes for learning",
        "train/verdict.py",
        "abs(e.loss) < SOLVED * e.chance",
        "abs(e.loss) < 0 * e.chance",
        f"{VERDICT}::test_a_loss_that_is_solved_without_telling_samples_apart_has_collapsed",
    ),
    Mutation(
        "trust: settled batch statistics pass for learning",
        "use/evaluate.py",
        "return settled(run.untrained, ",
        "return run.untrained or settled(run.untrained, ",
        "unit/test_use_evaluate.py::test_weights_that_never_moved_are_level_with_the_untrained_baseline",
    ),
]

MUTATIONS = [*SIMCLR_MUTATIONS, *MOCO_MUTATIONS, *MAE_MUTATIONS, *DINO_MUTATIONS, *TRUST_MUTATIONS]
