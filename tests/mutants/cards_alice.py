"""The mutations of Alice's card, those of its parts first, and those of volumes as data."""

from __future__ import annotations

from .mutation import Mutation

ALICE = "twins/test_twin_alice.py"
WINDOWS = "unit/test_nn_swin3d.py"
PARTS, GOLDEN = "conformance/test_parts_alice.py", "conformance/test_methods_golden_alice.py"
METHOD, VIEWS, KIND = "unit/test_methods_alice.py", "unit/test_views_volume.py", "unit/test_kind_volume.py"

PART_MUTATIONS = [
    Mutation(
        "alice: columns rounded down",
        "views/volume_masks.py",
        "count = math.ceil(length * ratio)",
        "count = math.floor(length * ratio)",
        f"{ALICE}::test_the_hidden_count_is_rounded_up",
    ),
    Mutation(
        "alice: columns numbered along the other axis",
        "views/volume_masks.py",
        "return mask.unflatten(1, tuple(grid))",
        "return mask.unflatten(1, (grid[1], grid[0], grid[2])).transpose(1, 2)",
        f"{PARTS}::test_mask_of_columns",
    ),
    Mutation(
        "alice: the coarse map not made unit again",
        "views/volume_crops.py",
        'F.normalize(F.interpolate(coarse, size=fine.shape[2:], mode="trilinear", align_corners=False), dim=1)',
        'F.interpolate(coarse, size=fine.shape[2:], mode="trilinear", align_corners=False)',
        f"{PARTS}::test_matching",
    ),
    Mutation(
        "alice: x and z swapped in matching",
        "views/volume_crops.py",
        "cell = torch.stack([cell // (b * c), cell // c % b, cell % c], dim=-1)",
        "cell = torch.stack([cell % c, cell // c % b, cell // (b * c)], dim=-1)",
        f"{PARTS}::test_matching",
    ),
    Mutation(
        "alice: matches beyond the border",
        "views/volume_crops.py",
        "return voxel.minimum(sizes_key[:, None].long()), score",
        "return voxel, score",
        f"{ALICE}::test_matching_is_its_twin",
    ),
    Mutation(
        "alice: the border repeated around a crop",
        "views/volume_crops.py",
        "torch.where(seen[..., None], crops, 0)",
        "crops",
        f"{PARTS}::test_crops_around_points",
    ),
    Mutation(
        "alice: the sum over tokens instead of their mean",
        "objectives/alignment.py",
        ".log_softmax(dim=-1)).sum(dim=-1).mean()",
        ".log_softmax(dim=-1)).sum(dim=(-1, -2)).mean()",
        f"{PARTS}::test_loss_and_its_gradients",
    ),
    Mutation(
        "alice: the whole mean square instead of its half",
        "objectives/alignment.py",
        "return error.mean() / 2",
        "return error.mean()",
        f"{PARTS}::test_loss_and_its_gradients",
    ),
    Mutation(
        "alice: the student's prototypes of vectors for its tokens",
        "nn/casa.py",
        "last = self.last_layer if self.last_layer2 is None else self.last_layer2",
        "last = self.last_layer",
        f"{PARTS}::test_step_from_its_parts",
    ),
    Mutation(
        "alice: CASA without its queries in the residual",
        "nn/casa.py",
        'self.dropout, draws, "proj") + query)',
        'self.dropout, draws, "proj"))',
        f"{PARTS}::test_step_from_its_parts",
    ),
    Mutation(
        "alice: the teacher starts with the prototypes of vectors",
        "nn/casa.py",
        "made.last_layer, made.last_layer2 = made.last_layer2, None",
        "made.last_layer2 = None",
        f"{ALICE}::test_the_teachers_one_set_of_prototypes_starts_with_the_tokens_and_follows_the_vectors",
    ),
    Mutation(
        "alice: the published index, in which offsets collide",
        "nn/windows3d.py",
        "return (x * (2 * reach - 1) + y) * (2 * reach - 1) + z",
        "return x * (3 * reach - 1) + y * (2 * reach - 1) + z",
        f"{WINDOWS}::test_every_offset_has_a_row_of_its_own",
    ),
    Mutation(
        "alice: shifted windows without their cut",
        "nn/windows3d.py",
        "if moved or padded:",
        "if padded:",
        f"{WINDOWS}::test_attention_in_windows_is_its_twin",
    ),
    Mutation(
        "alice: windows see padding",
        "nn/windows3d.py",
        "if moved or padded:",
        "if moved:",
        f"{WINDOWS}::test_nothing_attends_to_padding",
    ),
    Mutation(
        "alice: negatives that are the same place",
        "objectives/anatomy.py",
        "anatomy_logits(anchors, positives, candidates, allowed, ",
        "anatomy_logits(anchors, positives, candidates, torch.ones_like(allowed), ",
        f"{ALICE}::test_the_contrast_of_places_is_its_twin",
    ),
    Mutation(
        "alice: the easiest negatives",
        "objectives/anatomy.py",
        "np.argpartition(values.numpy(), -count)[..., -count:]",
        "np.argpartition(values.numpy(), count - 1)[..., :count]",
        f"{ALICE}::test_the_contrast_of_places_is_its_twin",
    ),
]

OWN_MUTATIONS = [
    Mutation(
        "alice: tokens compared across views",
        "methods/alice.py",
        "same_view(said_places,",
        "same_view(said_places.roll(len(said_places) // 2, 0),",
        f"{METHOD}::test_vectors_meet_across_views_and_places_within_them",
    ),
    Mutation(
        "alice: the teacher's own places ask in its decoder",
        "methods/alice.py",
        "return own, self.casa(asked, keys,",
        "return own, self.casa(self.teacher_head.of_encoder(teacher.encoder), keys,",
        f"{METHOD}::test_the_students_places_ask_in_both_decoders",
    ),
    Mutation(
        "alice: a centre of probabilities",
        "methods/alice.py",
        "self.center.hear(heard)",
        "self.center.hear(target)",
        f"{GOLDEN}::test_both_centres_follow_after_the_step",
    ),
    Mutation(
        "alice: a centre of one token",
        "methods/alice.py",
        "self.center_patch.hear(heard_places)",
        "self.center_patch.hear(heard_places[:, 0])",
        f"{GOLDEN}::test_both_centres_follow_after_the_step",
    ),
    Mutation(
        "alice: columns that lie",
        "methods/alice.py",
        "o.mask_ratio).movedim(-1, 1)",
        "o.mask_ratio)",
        f"{METHOD}::test_as_many_as_said_are_hidden_and_columns_are_upright",
    ),
    Mutation(
        "alice: one mask for both views",
        "methods/alice.py",
        ".permutation(view, ",
        '.permutation("mask", ',
        f"{METHOD}::test_as_many_as_said_are_hidden_and_columns_are_upright",
    ),
    Mutation(
        "alice: what is hidden reconstructed as dark",
        "methods/alice.py",
        "reconstruction, x, hidden, alive, progress)",
        "reconstruction, x * (1 - hidden), hidden, alive, progress)",
        f"{METHOD}::test_what_is_hidden_changes_nothing_but_teacher_and_target",
    ),
    Mutation(
        "alice: the teacher sees what the student sees",
        "methods/alice.py",
        "self.loss(student, self.teaches(x),",
        "self.loss(student, self.teaches(x * (1 - hidden)),",
        f"{METHOD}::test_what_is_hidden_changes_nothing_but_teacher_and_target",
    ),
    Mutation(
        "alice: momentum the other way round",
        "methods/alice.py",
        "follow(self.teacher, self.student, kept)",
        "follow(self.teacher, self.student, 1 - kept)",
        f"{METHOD}::test_the_teacher_follows_and_its_prototypes_follow_those_of_crops",
    ),
    Mutation(
        "alice: the student's temperature for the teacher",
        "methods/alice.py",
        "target = sharpen(heard, self.center.of(), sharpness)",
        "target = sharpen(heard, self.center.of(), o.student_temperature)",
        f"{GOLDEN}::test_a_step",
    ),
    Mutation(
        "alice: only one set of prototypes waits",
        "nn/heads.py",
        'if name.startswith("last_layer"):',
        'if name.startswith("last_layer."):',
        f"{METHOD}::test_prototypes_wait_and_gradients_are_cut_one_by_one",
    ),
    Mutation(
        "alice: gradients cut all together",
        "methods/alice.py",
        '"train.clip_per_tensor": Chosen(True,',
        '"train.clip_per_tensor": Chosen(False,',
        f"{METHOD}::test_auto_chooses_what_can_be",
    ),
    Mutation(
        "alice: dropped at the end, too",
        "methods/alice.py",
        "alive = draws if self.training else None",
        "alive = draws",
        f"{METHOD}::test_dropout_is_drawn_for_each_call_while_training_alone",
    ),
    Mutation(
        "alice: each view with a point of its own",
        "views/volume_pairs.py",
        'Draws(draws.seed, draws.epoch, draws.samples, "pair/")',
        "draws",
        f"{VIEWS}::test_partners_show_the_same_place_of_the_body",
    ),
    Mutation(
        "alice: padding taken for the body",
        "views/volume_pairs.py",
        "x = x * inside.view(shape)",
        "inside.view(shape)",
        f"{VIEWS}::test_padding_is_no_body_where_zero_is_not_dark",
    ),
    Mutation(
        "alice: partners by their place in the batch",
        "views/volume_pairs.py",
        'draws.words("order", 1)[:, 0].argsort(stable=True)',
        "torch.arange(len(batch), device=batch.ids.device)",
        f"{VIEWS}::test_in_a_batch_everybody_is_somebodys_partner_whatever_the_order",
    ),
    Mutation(
        "volumes: NaN let in",
        "data/kinds/volume.py",
        "if array.dtype == np.float32 and not np.isfinite(array).all():",
        "if False:",
        f"{KIND}::test_what_is_no_volume_is_refused",
    ),
    Mutation(
        "volumes: axes as they lie",
        "data/kinds/volume.py",
        "return array.transpose(2, 1, 0, 3)",
        "return array",
        f"{KIND}::test_every_format_is_the_same_volume_with_depth_first",
    ),
    Mutation(
        "volumes: each in its own spacing",
        "data/kinds/volume.py",
        'shrunk("volume", _spaced(found, wanted.spacing), side)',
        'shrunk("volume", found.extent, side)',
        f"{KIND}::test_spacing_is_that_of_the_median_volume",
    ),
    Mutation(
        "volumes: fewer voxels without antialiasing",
        "data/kinds/volume.py",
        "distance / max(scale, 1.0)",
        "distance",
        f"{KIND}::test_fewer_voxels_are_made_of_all_that_there_were",
    ),
    Mutation(
        "volumes: a sample for every slice",
        "data/sources/folder.py",
        "kept.append(folder not in seen)",
        "kept.append(True)",
        f"{KIND}::test_a_folder_of_slices_is_one_sample",
    ),
]

ALICE_MUTATIONS = PART_MUTATIONS + OWN_MUTATIONS
