"""The mutations of the anatomy, and of the pairs that Alice finds with it."""

from __future__ import annotations

from .mutation import Mutation

TESTS = "unit/test_methods_anatomy.py"

ANATOMY_MUTATIONS = [
    Mutation(
        "anatomy: own cells as those of strangers",
        "methods/anatomy.py",
        "others + (others >= own[:, None])",
        "others + (others > own[:, None])",
        f"{TESTS}::test_a_level_is_its_slow_twin",
    ),
    Mutation(
        "anatomy: anchors in one crop alone",
        "methods/anatomy.py",
        "for mine, other in ((0, 1), (1, 0)):",
        "for mine, other in ((0, 1), (0, 1)):",
        f"{TESTS}::test_a_level_is_its_slow_twin",
    ),
    Mutation(
        "anatomy: crops larger than their volume",
        "views/volume_overlap.py",
        ".clamp(min=1).minimum(sizes[:, None])",
        ".clamp(min=1) + 0 * sizes[:, None]",
        f"{TESTS}::test_crops_overlap_and_lie_within_their_volumes_whatever_they_are_batched_with",
    ),
    Mutation(
        "anatomy: scale forgotten in places",
        "views/volume_overlap.py",
        "cells * places[:, None, 3:]",
        "cells",
        f"{TESTS}::test_cells_of_both_crops_lie_where_they_say",
    ),
    Mutation(
        "anatomy: volumes described with their padding",
        "methods/anatomy.py",
        "data[(slice(None), *map(slice, size))][None]",
        "data[None]",
        f"{TESTS}::test_volumes_are_described_without_their_padding",
    ),
    Mutation(
        "anatomy: maps that were cut short taken for whole",
        "data/maps.py",
        "if whole and shapes.prod(axis=2).sum() * DTYPE.itemsize == size else",
        "if whole and size else",
        f"{TESTS}::test_maps_are_made_once_whole_and_read_by_row",
    ),
    Mutation(
        "alice: the whole set not gone through before the run",
        "train/session.py",
        "    _prepare(method, _every(collection, store, training, fabric), folder, fabric)\n",
        "",
        f"{TESTS}::test_alice_trains_its_anatomy_first_and_finds_pairs_with_it",
    ),
    Mutation(
        "alice: the first tries always good enough",
        "views/volume_match.py",
        "if bool(score > self.threshold):",
        "if bool(score > -2):",
        f"{TESTS}::test_pairs_are_their_slow_twin",
    ),
    Mutation(
        "alice: the query looked for in itself",
        "views/volume_match.py",
        "for row in (here, there))",
        "for row in (here, here))",
        f"{TESTS}::test_pairs_are_their_slow_twin",
    ),
    Mutation(
        "alice: the pairs of another epoch",
        "views/volume_match.py",
        "(draws.seed, draws.epoch, *batch.ids.tolist()",
        "(draws.seed, *batch.ids.tolist()",
        f"{TESTS}::test_matched_views_are_the_same_in_any_batch_and_others_at_another_time",
    ),
    Mutation(
        "alice: an anatomy that is given not used",
        "methods/alice.py",
        'return {"partner": "matched"} if "anatomy" in needs else {}',
        "return {}",
        f"{TESTS}::test_which_runs_need_an_anatomy",
    ),
]
