"""The mutations that the cards of child-video and rspnet ask for."""

from __future__ import annotations

from .mutation import Mutation

CHILD, RSPNET = (f"unit/test_methods_{name}.py" for name in ("child_video", "rspnet"))
CLIPS = "conformance/test_methods_golden_child_video.py::test_a_pass_over_clips_and_its_gradients"
TARGETS = "conformance/test_methods_golden_child_video.py::test_targets_and_loss"
STEP = "conformance/test_methods_golden_rspnet.py::test_a_whole_step"

CHILD_VIDEO_MUTATIONS = [
    Mutation(
        "child-video: how many are seen is rounded",
        "views/masks.py",
        "count = int(length * (1 - ratio))",
        "count = round(length * (1 - ratio))",
        f"{CHILD}::test_how_many_are_seen_is_a_floating_product_cut_off",
    ),
    Mutation(
        "child-video: positions gathered in another order than tokens",
        "nn/video_vit.py",
        "(places if keep is None else places[keep])",
        "(places if keep is None else places[keep.flip(1)])",
        CLIPS,
    ),
    Mutation(
        "child-video: loss over all tubelets",
        "methods/child_video.py",
        "self.target(clips), hidden.mask)",
        "self.target(clips), torch.ones_like(hidden.mask))",
        f"{CHILD}::test_only_hidden_tubelets_are_scored_and_each_hidden_one_alike",
    ),
    Mutation(
        "child-video: channels before pixels in a tubelet",
        "nn/spacetime.py",
        "torch.stack(clips.unbind(1), dim=-1).flatten(3)",
        "clips.permute(0, 2, 3, 1, 4).flatten(3)",
        TARGETS,
    ),
    Mutation(
        "child-video: tubelets place by place instead of time by time",
        "nn/spacetime.py",
        "cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)",
        "cells.permute(0, 3, 5, 1, 2, 4, 6).flatten(4)",
        TARGETS,
    ),
    Mutation(
        "child-video: the biased variance of a target",
        "objectives/reconstruct.py",
        "patches.var(dim=-1, keepdim=True, correction=1)",
        "patches.var(dim=-1, keepdim=True, correction=0)",
        TARGETS,
    ),
    Mutation(
        "child-video: what is seen marked as hidden",
        "views/masks.py",
        "mask = torch.ones_like(noise).scatter_(1, shuffle[:, :count], 0)",
        "mask = torch.zeros_like(noise).scatter_(1, shuffle[:, :count], 1)",
        CLIPS,
    ),
    Mutation(
        "child-video: hidden tokens not put where they belong",
        "nn/video_decoder.py",
        "x = x.gather(1, restore[..., None].expand(-1, -1, x.shape[2])) + self.pos_embed(self.grid)",
        "x = x + self.pos_embed(self.grid)",
        CLIPS,
    ),
    Mutation(
        "child-video: a decoder without positions of its own",
        "nn/video_decoder.py",
        "x.shape[2])) + self.pos_embed(self.grid)",
        "x.shape[2]))",
        CLIPS,
    ),
    Mutation(
        "child-video: positions of time repeated over places in the wrong order",
        "nn/spacetime.py",
        "table = table + self.temporal[0, :, None]",
        "table = table + self.temporal[0].repeat(table.shape[1], 1).unflatten(0, (self.slots, -1))",
        CLIPS,
    ),
    Mutation(
        "child-video: a box for every frame",
        "views/video.py",
        "x = self.look.cut(folded, draws).unflatten(1, (spec.channels, self.frames))",
        "x = torch.stack([self.look.cut(Batch(folded.ids, each, folded.sizes), draws.within(str(t))) for t, each in "
        "enumerate(folded.data.unflatten(1, (spec.channels, -1)).unbind(2))], dim=2)",
        "unit/test_views_video.py::test_all_frames_of_a_clip_share_box_mirror_and_light",
    ),
    Mutation(
        "child-video: a stretch of whole strides",
        "data/window.py",
        "places = start + (long - 1) * np.arange(self.frames) / max(self.frames - 1, 1)",
        "places = start + self.stride * np.arange(self.frames)",
        "conformance/test_methods_golden_child_video.py::test_frames_of_a_clip_as_the_loader_cuts_them",
    ),
    Mutation(
        "child-video: stills share a mask",
        "methods/child_video.py",
        'uniform("mask", frames, self.places).flatten(0, 1)',
        'uniform("mask", 1, self.places).expand(-1, frames, -1).flatten(0, 1)',
        f"{CHILD}::test_each_still_hides_places_of_its_own",
    ),
]

RSPNET_MUTATIONS = [
    Mutation(
        "rspnet: keys of the query's own speed join the queue",
        "methods/rspnet.py",
        "self.fresh.append((unit(o_a), draws.samples))",
        "self.fresh.append((unit(k_a), draws.samples))",
        STEP,
    ),
    Mutation(
        "rspnet: keys join the queue as long as they are",
        "methods/rspnet.py",
        "self.fresh.append((unit(o_a), draws.samples))",
        "self.fresh.append((o_a, draws.samples))",
        STEP,
    ),
    Mutation(
        "rspnet: the copy follows after the keys",
        "methods/rspnet.py",
        "    def before_step(self, progress: Progress)",
        "    def after_backward(self, progress: Progress)",
        f"{RSPNET}::test_the_copy_follows_first_by_the_weights_before_the_step",
    ),
    Mutation(
        "rspnet: the mean of the two tasks to recognise a film",
        "objectives/speed.py",
        "for hit in hits]).sum()",
        "for hit in hits]).mean()",
        STEP,
    ),
    Mutation(
        "rspnet: a margin of cosines",
        "methods/rspnet.py",
        "relative_speed(near, far, o.margin)",
        "relative_speed(near, far, o.margin / o.temperature)",
        STEP,
    ),
    Mutation(
        "rspnet: the other speed's key is no positive",
        "methods/rspnet.py",
        "keys = [unit(k_a), unit(o_a)] if",
        "keys = [unit(k_a), unit(k_a)] if",
        f"{RSPNET}::test_both_keys_are_positives_of_losses_of_their_own",
    ),
    Mutation(
        "rspnet: keys of the queue as another speed",
        "methods/rspnet.py",
        "relative_speed(near, far, o.margin)",
        "relative_speed(near, (unit(query) @ self.queue.keys.T).amax(1) / o.temperature, o.margin)",
        f"{RSPNET}::test_speed_is_told_by_a_head_of_its_own_at_a_margin_of_scaled_scores",
    ),
    Mutation(
        "rspnet: fast clips of no more of the film than slow ones",
        "views/clips.py",
        "torch.where(fast, speed, 1)",
        "torch.where(fast, 1, 1)",
        f"{RSPNET}::test_query_and_key_are_at_one_speed_and_the_other_key_is_at_the_other",
    ),
    Mutation(
        "rspnet: of an odd batch the larger half is slow",
        "views/clips.py",
        "permutation[: int(share * len(permutation))]",
        "permutation[: -int(-share * len(permutation) // 1)]",
        f"{RSPNET}::test_a_share_of_the_batch_is_slow_by_draws_of_the_samples_own",
    ),
    Mutation(
        "rspnet: one head for both tasks",
        "methods/rspnet.py",
        '{"appearance": map_head(o.head, encoder.width, o.head_out), "speed": speed}',
        '{"appearance": speed, "speed": speed}',
        STEP,
    ),
    Mutation(
        "rspnet: the queue's end is no beginning",
        "nn/queue.py",
        "torch.arange(len(keys), device=keys.device)) % len(self.keys)",
        "torch.arange(len(keys), device=keys.device)).clamp(max=len(self.keys) - 1)",
        f"{RSPNET}::test_the_other_speeds_keys_join_the_queue_after_the_loss_in_the_order_of_the_index",
    ),
    Mutation(
        "rspnet: own keys are negatives where they were to be left out",
        "methods/rspnet.py",
        "if o.skip_own else None",
        "if False else None",
        f"{RSPNET}::test_keys_of_the_films_own_are_left_out_where_asked_for",
    ),
    Mutation(
        "rspnet: the query's speed goes first",
        "methods/rspnet.py",
        'o_a, o_m = self.key(other, draws.within("other"))\n            k_a, k_m = self.key(k, draws.within("same"))',
        'k_a, k_m = self.key(k, draws.within("same"))\n            o_a, o_m = self.key(other, draws.within("other"))',
        f"{RSPNET}::test_keys_are_made_in_two_passes_the_other_speed_first_and_in_shuffled_parts",
    ),
    Mutation(
        "rspnet: films that are too short are drawn out",
        "data/window.py",
        "if self.loops and there <= self.frames:",
        "if False:",
        "conformance/test_methods_golden_rspnet.py::test_crops_in_time_as_the_loader_cuts_them",
    ),
    Mutation(
        "rspnet: norms and biases do not decay",
        "methods/rspnet.py",
        '"""Everything, norms and biases too."""\n        return True',
        '"""Everything, norms and biases too."""\n        return parameter.ndim > 1',
        f"{RSPNET}::test_everything_decays",
    ),
]
