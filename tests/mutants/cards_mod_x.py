"""The mutations of the card of mod-x, and of what a phase takes over from the run before it."""

from __future__ import annotations

from .mutation import Mutation

GOLDEN, PARTS = "conformance/test_methods_golden_mod_x.py", "conformance/test_parts_mod_x.py"
MOD_X, NEEDS, TWIN = "unit/test_methods_mod_x.py", "unit/test_train_needs.py", "twins/test_twin_pairs.py"

MOD_X_MUTATIONS = [
    Mutation(
        "mod-x: screened by the current model",
        "methods/mod_x.py",
        "kept = self.kept(before, same)\n",
        "kept = self.kept(now, same)\n",
        f"{MOD_X}::test_the_previous_model_decides_what_is_kept",
    ),
    Mutation(
        "mod-x: screened by column",
        "methods/mod_x.py",
        "both, o = (before.of_image, before.of_text)",
        "both, o = (before.of_text, before.of_image)",
        f"{MOD_X}::test_pictures_and_captions_are_screened_by_themselves",
    ),
    Mutation(
        "mod-x: one screening for both directions",
        "methods/mod_x.py",
        "now.of_text, kept[1], *how)",
        "now.of_text, kept[0], *how)",
        f"{GOLDEN}::test_loss_and_its_gradients",
    ),
    Mutation(
        "mod-x: the divergence turned round",
        "objectives/pairs.py",
        "(log_p.exp() * (log_p - log_q))",
        "(log_q.exp() * (log_q - log_p))",
        f"{GOLDEN}::test_loss_and_its_gradients",
    ),
    Mutation(
        "mod-x: not times the number of ranks",
        "objectives/pairs.py",
        "return ranks * (divergence * kept).sum()",
        "return (divergence * kept).sum()",
        f"{GOLDEN}::test_ranks_have_the_published_loss_and_gradient_together",
    ),
    Mutation(
        "mod-x: the mean where the sum is meant",
        "methods/mod_x.py",
        'return together if o.align_reduction == "sum" else together / now.of_image.shape[1]',
        "return together / now.of_image.shape[1]",
        f"{GOLDEN}::test_loss_and_its_gradients",
    ),
    Mutation(
        "mod-x: the mean over all of the matrix",
        "objectives/pairs.py",
        "(log_p.exp() * (log_p - log_q)).sum(dim=1)",
        "(log_p.exp() * (log_p - log_q)).mean(dim=1)",
        f"{GOLDEN}::test_loss_and_its_gradients",
    ),
    Mutation(
        "mod-x: aligned at the temperature of the contrast",
        "methods/mod_x.py",
        "how = (o.align_temperature,",
        "how = (float(1 / self.log_scale.exp()),",
        f"{GOLDEN}::test_loss_and_its_gradients",
    ),
    Mutation(
        "mod-x: targets with gradient",
        "objectives/pairs.py",
        "old, new = wide(old.detach()), wide(new)",
        "old, new = wide(old), wide(new)",
        f"{TWIN}::test_targets_carry_no_gradient_and_the_loss_is_not_negative",
    ),
    Mutation(
        "mod-x: the previous model in training",
        "methods/mod_x.py",
        "        self.previous.eval()\n        return self",
        "        return self",
        f"{MOD_X}::test_nothing_of_the_previous_model_ever_moves[resnet-mini]",
    ),
    Mutation(
        "mod-x: the previous model is the one before all phases",
        "train/needs.py",
        "{key: kept[key] for key in method.state_dict()}",
        '{key: kept.get(f"previous.{key}", kept[key]) for key in method.state_dict()}',
        f"{NEEDS}::test_the_next_phase_goes_on_from_the_end_of_this_one",
    ),
    Mutation(
        "mod-x: the warm-up begins with the first step's share",
        "train/step.py",
        "rate(t.schedule, step, t.warmup",
        "rate(t.schedule, step + 1, t.warmup",
        f"{MOD_X}::test_the_first_update_of_a_phase_moves_nothing_but_the_clamp",
    ),
    Mutation(
        "mod-x: bounds of phases rounded",
        "data/phases.py",
        "int(samples / phases * k)",
        "round(samples / phases * k)",
        f"{PARTS}::test_phases",
    ),
    Mutation(
        "mod-x: norms and t do not decay",
        "methods/mod_x.py",
        '"""Everything: norms, positions and t, too."""\n        return True',
        '"""Everything: norms, positions and t, too."""\n        return parameter.ndim > 1',
        f"{GOLDEN}::test_a_step",
    ),
    Mutation(
        "mod-x: t is never put back",
        "methods/mod_x.py",
        "        clamp_scale(self.log_scale, MOD_X_CEILING)",
        "        pass",
        f"{GOLDEN}::test_the_scale_is_put_back",
    ),
    Mutation(
        "mod-x: a phase starts anew",
        "methods/mod_x.py",
        "        self.load_state_dict(previous.state_dict())",
        "        pass",
        f"{MOD_X}::test_it_is_a_copy_and_the_previous_model_is_another",
    ),
    Mutation(
        "mod-x: pictures normalised by each phase's own moments",
        "methods/mod_x.py",
        "return replace(spec, mean=before.mean, std=before.std)",
        "return spec",
        f"{NEEDS}::test_ids_and_pictures_keep_their_meaning",
    ),
    Mutation(
        "mod-x: a tokenizer of each phase's own",
        "train/plan.py",
        "            return Words(need.words.tokenizer, wording)\n",
        "            break\n",
        f"{NEEDS}::test_ids_and_pictures_keep_their_meaning",
    ),
]
