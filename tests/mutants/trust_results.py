"""Protections of what a run comes to, taken out one by one: processes, numbers that are none, verdicts and their advice."""

from __future__ import annotations

from .mutation import Mutation

LOST, TOGETHER, NON_FINITE = (f"reliability/test_{name}.py" for name in ("ranks_lost", "ranks_optimisation", "non_finite"))
WHITENING = "unit/test_evaluate_whitening.py"
VERDICT, ROWS = "unit/test_train_verdict.py", "unit/test_data_rows.py"
ONE_DEVICE = "unit/test_nn_ranks.py::test_statistics_losses_and_gradients_are_those_of_one_device"
STEPS_OF_ONE = f"{TOGETHER}::test_many_ranks_take_the_steps_of_one"
SILENT = f"{LOST}::test_a_silent_process_is_taken_for_lost_and_a_busy_first_one_is_waited_for"

RANK_MUTATIONS = [
    Mutation(
        "trust: a lost process does not say how to go on",
        "train/ranks.py",
        'raise Lost("another process of this run ended or fell silent", mend) from problem',
        "raise",
        f"{LOST}::test_a_killed_process_ends_all_with_one_line_and_the_run_goes_on[1-ddp]",
    ),
    Mutation(
        "trust: a silent process is waited for",
        "train/ranks.py",
        "how = DDPStrategy(timeout=SILENCE)",
        "how = DDPStrategy()",
        SILENT,
    ),
    Mutation(
        "trust: a busy first process is taken for lost",
        "core/distributed.py",
        "dist.barrier(_patient)",
        "dist.barrier()",
        SILENT,
    ),
    Mutation(
        "trust: passes add up instead of standing in for a batch",
        "train/step.py",
        "self._backward(terms.total / len(parts))",
        "self._backward(terms.total)",
        f"{TOGETHER}::test_passes_stand_in_for_ranks_but_for_batch_statistics[dino-vit]",
    ),
    Mutation(
        "trust: ranks do not meet after their last pass",
        "train/step.py",
        "enabled=not last",
        "enabled=last",
        f"{TOGETHER}::test_passes_on_many_ranks_are_those_of_one[2-mae-vit]",
    ),
    Mutation(
        "trust: gathered rows have their own rank's gradient alone",
        "core/distributed.py",
        "        total = grads[0].contiguous()\n        dist.all_reduce(total)\n",
        "        total = grads[0].contiguous()\n",
        ONE_DEVICE,
    ),
    Mutation(
        "trust: negatives of one rank alone",
        "methods/simclr.py",
        "all1, all2, offset = distributed.gather(z1), distributed.gather(z2), distributed.rank() * len(z1)",
        "all1, all2, offset = z1, z2, 0",
        f"{STEPS_OF_ONE}[2-simclr-resnet]",
    ),
    Mutation(
        "trust: a centre for every rank",
        "nn/centre.py",
        "heard = distributed.total(torch.stack(self.heard).sum(dim=0))",
        "heard = torch.stack(self.heard).sum(dim=0)",
        f"{STEPS_OF_ONE}[2-dino-vit]",
    ),
    Mutation(
        "trust: batch statistics of one rank alone",
        "nn/norms.py",
        "        if self.training and distributed.world_size() > 1:\n",
        "        if self.training and distributed.world_size() < 1:\n",
        ONE_DEVICE,
    ),
    Mutation(
        "trust: batch statistics of encoders from elsewhere are one rank's",
        "nn/norms.py",
        "            part.__class__ = _Synchronised",
        "            pass",
        ONE_DEVICE,
    ),
    Mutation(
        "trust: gradients in parts are clipped part by part",
        "core/distributed.py",
        "    dist.all_reduce(squares)  # one message for all of them\n",
        "",
        f"{STEPS_OF_ONE}[2-mae-vit]",
    ),
    Mutation(
        "trust: parts of a batch in another order than ranks",
        "data/loader.py",
        "for part in (self.rank, self.rank + 1))",
        "for part in (self.world - 1 - self.rank, self.world - self.rank))",
        "unit/test_data_loader.py::test_ranks_share_the_batch_of_one_process",
    ),
    Mutation(
        "trust: weights of one process are cut up wrongly for many",
        "train/sharded.py",
        "value = parts[mesh.get_local_rank()] if",
        "value = parts[0] if",
        f"{TOGETHER}::test_a_run_is_handed_over_between_one_and_many_ranks_and_between_strategies[2-dino-vit]",
    ),
]

NUMBER_MUTATIONS = [
    Mutation(
        "trust: gradients of small maps are what the memory held",
        "train/step.py",
        "        steady(method)\n",
        "",
        "unit/test_nn_convolution.py::test_what_is_trained_is_steady",
    ),
    Mutation(
        "trust: zeros around a map on one side of it",
        "nn/convolution.py",
        "for zeros in (padding, padding)]",
        "for zeros in (0, 2 * padding)]",
        "unit/test_nn_convolution.py::test_outputs_stay_what_they_are",
    ),
    Mutation(
        "trust: a loss that is not finite goes on",
        "train/step.py",
        "if not distributed.largest(int(mine)):",
        "if distributed.largest(int(mine)) < 2:",
        f"{NON_FINITE}::test_a_loss_that_is_not_finite_names_term_step_files_and_checkpoint",
    ),
    Mutation(
        "trust: a loss that is not finite is found after the step",
        "train/step.py",
        "                self._refuse_non_finite(terms, part, progress)\n",
        "                _ = self.optimiser.step(), self._refuse_non_finite(terms, part, progress)\n",
        f"{NON_FINITE}::test_no_weight_and_no_moment_is_touched_by_a_loss_that_is_not_finite",
    ),
    Mutation(
        "trust: only the last pass of a step is looked at",
        "train/step.py",
        "                self._refuse_non_finite(terms, part, progress)\n",
        "                _ = last and self._refuse_non_finite(terms, part, progress)\n",
        f"{NON_FINITE}::test_with_accumulation_it_is_the_pass_that_broke",
    ),
    Mutation(
        "trust: the files of another rank are not named",
        "train/step.py",
        "for found in distributed.everybodys(said) if found)",
        'for found in [said, "another process"] if found)',
        f"{NON_FINITE}::test_on_two_ranks_both_stop_and_name_the_files_of_the_one_that_broke",
    ),
    Mutation(
        "trust: the whole batch is named for one bad view",
        "train/step.py",
        "rows = (ids[broken] if broken.any() else ids).tolist()",
        "rows = ids.tolist()",
        f"{NON_FINITE}::test_samples_whose_views_are_not_finite_are_named_alone",
    ),
    Mutation(
        "trust: weights that are not finite are kept",
        "train/loop.py",
        "if not self.step.sound():",
        "if not self.step:",
        f"{NON_FINITE}::test_weights_that_are_not_finite_never_replace_a_checkpoint",
    ),
]

VERDICT_MUTATIONS = [
    Mutation(
        "trust: features on a line pass for learning",
        "train/verdict.py",
        "    if rank < COLLAPSED_RANK:",
        "    if rank < 0 * COLLAPSED_RANK:",
        f"{VERDICT}::test_features_on_a_line_have_collapsed",
    ),
    Mutation(
        "trust: a low rank alone is a collapse",
        "train/verdict.py",
        "if rank < COLLAPSED_SHARE * before and all(",
        "if rank < COLLAPSED_SHARE * before and any(",
        f"{VERDICT}::test_a_low_rank_with_which_samples_are_still_found_is_no_collapse",
    ),
    Mutation(
        "trust: what learns the mean first is stopped",
        "train/verdict.py",
        "if setting.rebuilds and e.step",
        "if False and e.step",
        f"{VERDICT}::test_what_predicts_its_own_input_may_pass_through_few_directions_at_first",
    ),
    Mutation(
        "auto: counted budgets keep large batches",
        "train/auto.py",
        "_worth_halving(now, batch, found[0])",
        "_worth_halving(now, batch, ENOUGH_STEPS)",
        "unit/test_recipe.py::test_batches_are_smaller_where_steps_would_be_few",
    ),
    Mutation(
        "auto: what rebuilds gets no more steps than others",
        "train/auto.py",
        "ENOUGH_TO_REBUILD if now.method.rebuilds",
        "ENOUGH_STEPS if now.method.rebuilds",
        "unit/test_recipe.py::test_batches_are_smaller_where_steps_would_be_few",
    ),
    Mutation(
        "trust: a solved loss passes for learning",
        "train/verdict.py",
        "abs(e.loss) < SOLVED * e.chance",
        "abs(e.loss) < 0 * e.chance",
        f"{VERDICT}::test_a_loss_that_is_solved_without_telling_samples_apart_has_collapsed",
    ),
    Mutation(
        "trust: a rising loss passes for learning",
        "train/verdict.py",
        "if e.step and e.loss > reference",
        "if not e.step and e.loss > reference",
        f"{VERDICT}::test_a_loss_that_rises_or_is_no_number_has_diverged",
    ),
    Mutation(
        "trust: a lead that luck explains is learning",
        "train/verdict.py",
        'if e.now[f"crops_ahead_of_{name}"] < CLEAR:',
        'if e.now[f"crops_ahead_of_{name}"] < 0:',
        f"{VERDICT}::test_a_lead_that_luck_explains_over_either_baseline_is_undecided",
    ),
    Mutation(
        "trust: a handful of samples proves learning",
        "train/verdict.py",
        "    if e.samples < ENOUGH:",
        "    if e.samples < 2:",
        f"{VERDICT}::test_few_held_back_samples_prove_nothing",
    ),
    Mutation(
        "trust: samples that are all alike are learned",
        "train/verdict.py",
        '    if e.raw["effective_rank"] < COLLAPSED_RANK:',
        '    if e.raw["effective_rank"] < 0:',
        f"{VERDICT}::test_samples_that_are_all_alike_are_never_learned",
    ),
    Mutation(
        "trust: settled batch statistics pass for learning",
        "use/evaluate.py",
        "return settled(run.untrained, ",
        "return run.untrained or settled(run.untrained, ",
        "unit/test_use_evaluate.py::test_weights_that_never_moved_are_level_with_the_untrained_baseline",
    ),
    Mutation(
        "trust: a collapse trains on to the end",
        "train/loop.py",
        'self.training.stop_on == "collapse"',
        'self.training.stop_on == "never"',
        "reliability/test_verdict.py::test_a_collapse_ends_the_run_unless_it_is_told_not_to",
    ),
    Mutation(
        "trust: held-back samples are trained on",
        "train/session.py",
        "return held, Rows(samples, held)",
        "return held, Rows(samples)",
        f"{ROWS}::test_what_is_held_back_and_what_is_kept_are_all_rows_and_none_twice",
    ),
    Mutation(
        "trust: test data is trained on",
        "train/plan.py",
        'return collection.select("train") if "train" in collection.index.splits else collection',
        "return collection",
        f"{ROWS}::test_what_is_called_test_is_never_trained_on",
    ),
    Mutation(
        "trust: labels are read",
        "train/session.py",
        "held, kept = divide(len(collection), training)",
        "held, kept = divide(len(collection) - (collection.labels is not None), training)",
        "contract/test_methods.py::test_no_label_is_read[mae]",
    ),
    Mutation(
        "trust: one cause is enough advice",
        "train/advice.py",
        "return list(causes.values())[:2]",
        "return list(causes.values())[:1]",
        f"{VERDICT}::test_every_verdict_but_learned_has_two_causes_each_with_an_option",
    ),
    Mutation(
        "trust: a loss below 0 is not called a wrong sign",
        "train/evidence.py",
        "return self.chance is not None and self.chance > 0 and self.loss < 0",
        "return False",
        f"{VERDICT}::test_a_loss_below_zero_has_the_wrong_sign_where_chance_is_above",
    ),
    Mutation(
        "trust: advice forgets a loss with a wrong sign",
        "train/advice.py",
        'causes = {"loss": WRONG_SIGN} if e.wrong_sign else {}',
        "causes = {}",
        f"{VERDICT}::test_a_loss_below_zero_has_the_wrong_sign_where_chance_is_above",
    ),
    Mutation(
        "trust: advice forgets what the user changed",
        "train/advice.py",
        "for name, values in setting.departures.items()}",
        "for name, values in list(setting.departures.items())[:0]}",
        f"{VERDICT}::test_what_the_user_set_far_from_the_recipe_is_the_first_suspect",
    ),
    Mutation(
        "trust: advice forgets copies among the samples",
        "train/advice.py",
        "if setting.duplicates > 0.5:",
        "if setting.duplicates > 1:",
        f"{VERDICT}::test_copies_of_one_another_are_a_suspect",
    ),
    Mutation(
        "trust: features are whitened all the way",
        "evaluation/whitening.py",
        "(deviations + FLOOR * widest).sqrt())",
        "(deviations + FLOOR * widest))",
        f"{WHITENING}::test_components_end_with_the_square_root_of_their_deviations",
    ),
    Mutation(
        "trust: a run is whitened and raw input is not",
        "use/evaluate.py",
        "whitened(run, raw) if features == WHITENED else raw",
        "raw",
        f"{WHITENING}::test_baselines_are_whitened_too_and_records_say_so",
    ),
    Mutation(
        "trust: what was searched is whitened and the query is not",
        "use/find.py",
        "extract(run.encode(features), loader)",
        "extract(run.encode(), loader)",
        f"{WHITENING}::test_embedding_searching_and_judging_see_the_same_whitened_features",
    ),
]
