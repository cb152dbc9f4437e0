"""PoLAr-MAE's mutations: one wrong line each, and the test that it has to turn red."""

from __future__ import annotations

from .mutation import Mutation

PARTS = "conformance/test_parts_polar_mae.py"
WHOLE = "conformance/test_methods_golden_polar_mae.py"
TWIN = "twins/test_twin_points.py"

POLAR_MAE_MUTATIONS = [
    Mutation(
        "polar-mae: a norm of each token in place of the batch's",
        "nn/points/norm.py",
        "over_batch(wide(x), mask, shared=self.training)",
        "torch.nn.functional.layer_norm(wide(x), x.shape[-1:])",
        f"{PARTS}::test_masked_layer_norm",
    ),
    Mutation(
        "polar-mae: padded slots counted in the batch-norm",
        "nn/points/norm.py",
        "return padded(self(x[mask]), mask, self.bias)",
        "return torch.where(mask[..., None], self(x), self.bias)",
        f"{PARTS}::test_masked_batch_norm",
    ),
    Mutation(
        "polar-mae: padded slots zero after the batch-norm",
        "nn/points/pointnet.py",
        "return self.fc2(F.relu(self.norm.bias))",
        "return self.fc2(0 * self.norm.bias)",
        f"{PARTS}::test_ordered_pointnet",
    ),
    Mutation(
        "polar-mae: Chamfer over all predicted points",
        "objectives/chamfer.py",
        "distance.masked_fill(~true[:, :, None], torch.inf).argmin(1)",
        "distance.argmin(1)",
        f"{WHOLE}::test_a_step_and_its_gradients",
    ),
    Mutation(
        "polar-mae: sums in Chamfer instead of means",
        "objectives/chamfer.py",
        "return gap.masked_fill(~true, 0).sum(1) / lengths",
        "return gap.masked_fill(~true, 0).sum(1)",
        f"{WHOLE}::test_a_step_and_its_gradients",
    ),
    Mutation(
        "polar-mae: balls with their surface",
        "nn/points/grouping.py",
        "x * x + y * y + z * z >= radius * radius",
        "x * x + y * y + z * z > radius * radius",
        "unit/test_nn_points.py::test_a_point_at_just_the_radius_is_outside",
    ),
    Mutation(
        "polar-mae: the nearest points of a ball instead of the first",
        "nn/points/grouping.py",
        "np.sort(np.delete(query << bits | point, outside))",
        "np.delete(query << bits | point, outside)[np.lexsort((np.delete(distance, outside), np.delete(query, outside)))]",
        f"{TWIN}::test_tokens_are_their_twin",
    ),
    Mutation(
        "polar-mae: small groups left in the order of the cloud",
        "nn/points/grouping.py",
        "farthest_points(p, size, m) for p, m in",
        "torch.where(m[:, None] > size, farthest_points(p, size, m), torch.arange(size) * (torch.arange(size) < m[:, None])) "
        "for p, m in",
        f"{TWIN}::test_tokens_are_their_twin",
    ),
    Mutation(
        "polar-mae: the loneliest points thin first",
        "nn/points/grouping.py",
        "np.argsort(-np.diff(start)",
        "np.argsort(np.diff(start)",
        f"{PARTS}::test_centres_are_thinned",
    ),
    Mutation(
        "polar-mae: centres thinned within the radius, not twice that",
        "nn/points/grouping.py",
        "balls(points, points, 2 * radius * overlap, most)",
        "balls(points, points, radius * overlap, most)",
        f"{PARTS}::test_centres_are_thinned",
    ),
    Mutation(
        "polar-mae: the decoder sees only what the encoder saw",
        "methods/polar_mae.py",
        "self.decoder(z, where, tokens.valid,",
        "self.decoder(z, where, seen,",
        f"{WHOLE}::test_a_step_and_its_gradients",
    ),
    Mutation(
        "polar-mae: positions added once",
        "nn/points/trunk.py",
        "through(self.blocks, x, draws, taps, attention, recompute, (positions, mask, bias))",
        "through(self.blocks, x + positions, draws, taps, attention, recompute, (0 * positions, mask, bias))",
        "unit/test_nn_points.py::test_positions_are_added_before_every_block",
    ),
    Mutation(
        "polar-mae: features predicted for predicted places",
        "methods/polar_mae.py",
        "self.ordered(tokens.patches[hidden][..., :3],",
        "self.ordered(points[..., :3],",
        f"{WHOLE}::test_a_step_and_its_gradients",
    ),
    Mutation(
        "polar-mae: places not divided by the radius",
        "nn/points/grouping.py",
        "(held[..., :3] - centres[:, :, None]) / (1.0 if radius is None else radius)",
        "held[..., :3] - centres[:, :, None]",
        f"{PARTS}::test_groups",
    ),
    Mutation(
        "polar-mae: the number of hidden tokens rounded",
        "views/points.py",
        "device=lengths.device)).long()",
        "device=lengths.device)).round().long()",
        "unit/test_nn_points.py::test_hidden_and_seen_tokens_are_all_of_them",
    ),
    Mutation(
        "polar-mae: the energy taken from the first channel",
        "methods/polar_mae.py",
        "values = true[..., 3:][there]",
        "values = true[..., : true.shape[-1] - 3][there]",
        f"{WHOLE}::test_a_step_and_its_gradients",
    ),
    Mutation(
        "polar-mae: every rank divides by its own count",
        "core/distributed.py",
        "local.sum() * (world_size() / rows(local))",
        "local.sum() / max(len(local), 1)",
        "unit/test_methods_polar_mae.py::test_the_mean_over_ranks_is_that_over_all_tokens",
    ),
    Mutation(
        "polar-mae: missing tokens are zero",
        "nn/points/encoder.py",
        "out = torch.where(counted, out, mean[:, None])",
        "out = torch.where(counted, out, 0)",
        "unit/test_nn_points.py::test_a_cloud_is_the_mean_of_its_own_tokens_and_their_maximum_where_asked",
    ),
    Mutation(
        "points: coordinates taken for brightness",
        "data/measure.py",
        "bright = bool(sides(collection.kind.name, collection.form.extent))",
        "bright = True",
        "unit/test_kind_points.py::test_values_keep_their_units",
    ),
    Mutation(
        "points: padding taken for points",
        "views/points.py",
        "return x * there[:, None]",
        "return x",
        "unit/test_kind_points.py::test_a_view_is_centred_scaled_and_says_where_points_are",
    ),
]
