"""The draws are good random numbers, and nothing but (seed, epoch, sample, name, position) decides them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import stats

from tacit.core import draws as draws_room
from tacit.core.draws import Draws, Order, key_of, philox

IDS = torch.arange(20_000)


def draws(epoch: int = 0, seed: int = 7) -> Draws:
    return Draws(seed, epoch, IDS)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1])


def is_uniform(values: torch.Tensor, bins: int) -> bool:
    """Chi-square over whole-number bins; a fair generator fails one seed in a hundred thousand."""
    return stats.chisquare(torch.bincount(values.flatten(), minlength=bins).numpy()).pvalue > 1e-5


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    assert philox(torch.tensor(counter), torch.tensor(key)).tolist() == list(expected)


def test_philox_treats_every_counter_of_an_array_as_it_would_alone():
    counters = torch.randint(0, 2**32, (4, 3, 5), generator=torch.Generator().manual_seed(0))
    keys = torch.randint(0, 2**32, (2, 1, 5), generator=torch.Generator().manual_seed(1))
    together = philox(counters, keys)
    for i, j in itertools.product(range(3), range(5)):
        assert torch.equal(philox(counters[:, i, j], keys[:, 0, j]), together[:, i, j])


def slow_words(seed: int, epoch: int, sample: int, name: str, count: int) -> list[int]:
    """The promise of a stream, with whole numbers of Python: one name, one sample, four words at a time."""
    words = []
    for block in range(-(-count // 4)):
        c, k = [block, sample % 2**32, (sample >> 32) % 2**32, epoch], list(key_of(seed, name))
        for _ in range(10):
            p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [p1 >> 32 ^ c[1] ^ k[0], p1 % 2**32, p0 >> 32 ^ c[3] ^ k[1], p0 % 2**32]
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        words += c
    return words[:count]


FEW = torch.tensor([0, 5, 5 + 2**32, 2**32 - 1, 2**62 + 3, 7])
NAMES = {"a": 1, "crop.area": 10, "four": 4, "inner/a": 5, "none": 0, "many": 77}


@pytest.mark.parametrize("epoch", [0, 3, 2**32 - 1])
@pytest.mark.parametrize("seed", [0, -1, 2**40])
def test_words_are_those_of_philox_by_hand_one_by_one_and_made_ahead(seed, epoch):
    alone = Draws(seed, epoch, FEW).within("view").within("x")
    ahead = alone.ahead(NAMES)
    for name, count in NAMES.items():
        expected = [slow_words(seed, epoch, sample, f"view/x/{name}", count) for sample in FEW.tolist()]
        assert alone.words(name, count).tolist() == ahead.words(name, count).tolist() == expected


@pytest.mark.parametrize(
    "draw",
    [
        lambda d: d.words("many", 3),
        lambda d: d.words("a", 9),
        lambda d: d.words("never made", 5),
        lambda d: d.words("none", 2),
        lambda d: d.within("inner").words("a", 5),
        lambda d: d.within("other").words("a", 1),
        lambda d: d.within("inner").ahead({"b": 2}).words("b", 2),
        lambda d: d.within("inner").ahead({"b": 2}).words("a", 5),
        lambda d: d.ahead({"a": 6}).words("a", 6),
        lambda d: d.uniform("many", 3, 4, low=-1.0, high=3.0),
        lambda d: d.chance("a", 0.4),
        lambda d: d.integers("crop.area", 0, 5, 10),
        lambda d: d.normal("crop.area", 5),
        lambda d: d.permutation("four", 4),
    ],
    ids=[
        "fewer",
        "more",
        "another",
        "all",
        "inner",
        "elsewhere",
        "nested",
        "kept",
        "again",
        "u",
        "chance",
        "int",
        "n",
        "order",
    ],
)
def test_making_numbers_ahead_changes_none(draw):
    alone = Draws(7, 1, FEW).within("view")
    assert torch.equal(draw(alone.ahead(NAMES)), draw(alone))


def test_numbers_made_ahead_are_made_in_one_go_and_not_again(monkeypatch):
    calls = []
    monkeypatch.setattr(draws_room, "philox", lambda counter, key: calls.append(counter.shape) or philox(counter, key))
    ahead = Draws(7, 1, FEW).within("view").ahead(NAMES)
    ahead.words("many", 77)
    ahead.within("inner").uniform("a", 5)
    assert calls == [(4, 6, 1 + 3 + 1 + 2 + 0 + 20)]
    more = ahead.ahead({"b": 2})
    more.words("b", 2)
    more.words("a", 1)
    assert calls[1:] == [(4, 6, 1)]


def test_words_are_uniform_in_every_byte():
    words = draws().words("a", 4)
    assert words.min() >= 0
    assert words.max() < 2**32
    for shift in (0, 8, 16, 24):
        assert is_uniform((words >> shift) & 0xFF, 256)


def test_uniforms_fill_every_bin_alike():
    u = draws().uniform("a", 8)
    assert u.dtype == torch.float32
    assert u.min() >= 0
    assert u.max() < 1
    assert is_uniform((u * 1000).long(), 1000)
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-5


def test_uniforms_lie_on_a_grid_that_float32_holds_exactly():
    u = draws().uniform("a", 8)
    assert torch.equal((u * 2**24).round() * 2.0**-24, u)


def test_uniforms_between_bounds_stay_between_them():
    u = draws().uniform("a", 3, low=-2.0, high=5.0)
    assert u.min() >= -2
    assert u.max() < 5
    assert abs(float(u.mean()) - 1.5) < 0.05


def test_pairs_of_neighbours_fill_the_square():
    """Lattices and serial dependence show in two dimensions first: neighbouring positions, then neighbouring samples."""
    u = (draws().uniform("a", 2) * 30).long()
    assert is_uniform(u[:, 0] * 30 + u[:, 1], 900)
    assert is_uniform(u[:-1:2, 0] * 30 + u[1::2, 0], 900)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: draws().uniform("crop"), lambda: draws().uniform("flip")),
        (lambda: draws().uniform("a"), lambda: draws().within("x").uniform("a")),
        (lambda: draws().within("x").uniform("a"), lambda: draws().within("y").uniform("a")),
        (lambda: draws(epoch=0).uniform("a"), lambda: draws(epoch=1).uniform("a")),
        (lambda: draws(seed=0).uniform("a"), lambda: draws(seed=1).uniform("a")),
        (lambda: draws().uniform("a")[:-1], lambda: draws().uniform("a")[1:]),
        (lambda: draws().uniform("a", 2)[:, 0], lambda: draws().uniform("a", 2)[:, 1]),
        (lambda: draws().uniform("a", 8)[:, 3], lambda: draws().uniform("a", 8)[:, 4]),
    ],
    ids=["names", "scope", "scopes", "epochs", "seeds", "samples", "positions", "blocks"],
)
def test_streams_are_independent(one, other):
    first, second = one(), other()
    assert abs(correlation(first, second)) < 5 / math.sqrt(len(IDS))
    assert is_uniform((first * 10).long() * 10 + (second * 10).long(), 100)


def test_no_two_of_a_million_draws_share_their_block():
    words = torch.cat([draws(epoch).words(name, 8).reshape(-1, 4) for epoch in range(5) for name in "abcde"])
    whole = words[:, 0] << 32 | words[:, 1]
    assert len(words) == 1_000_000
    assert len(whole.unique()) == len(whole)


def test_scopes_cannot_be_confused_with_seeds_or_names():
    assert len({key_of(1, "2a"), key_of(12, "a"), key_of(1, "2/a"), key_of(-1, "2a")}) == 4


def test_a_sample_draws_the_same_whatever_batch_it_is_in():
    whole = draws()
    for rows in (torch.tensor([17]), torch.tensor([5, 17, 3]), torch.arange(10, 30)):
        part = Draws(7, 0, IDS[rows])
        for draw in (
            lambda d: d.uniform("a", 3),
            lambda d: d.normal("a", 3),
            lambda d: d.integers("a", 0, 9, 2),
            lambda d: d.chance("a", 0.3, 2),
            lambda d: d.permutation("a", 6),
            lambda d: d.words("a", 5),
        ):
            assert torch.equal(draw(part), draw(whole)[rows])


def test_asking_for_more_numbers_leaves_the_first_ones_alone():
    assert torch.equal(draws().words("a", 3), draws().words("a", 11)[:, :3])


def test_samples_beyond_32_bits_draw_numbers_of_their_own():
    near, far = Draws(0, 0, torch.tensor([5])), Draws(0, 0, torch.tensor([5 + 2**32]))
    assert not torch.equal(near.words("a", 4), far.words("a", 4))


def test_a_compiled_graph_draws_the_same_numbers_in_every_epoch():
    def shifted(drawn: Draws) -> torch.Tensor:
        return drawn.within("block").uniform("path", 3) + 1

    compiled = torch.compile(shifted, backend="eager", fullgraph=True)
    for epoch in range(3):
        assert torch.equal(compiled(draws(epoch)), shifted(draws(epoch)))


def test_no_global_generator_is_read_or_moved():
    before = torch.get_rng_state()
    first = draws().normal("a", 2)
    torch.manual_seed(123)
    assert torch.equal(first, draws().normal("a", 2))
    torch.set_rng_state(before)
    Order(0, 0, 100)(torch.arange(100))
    assert torch.equal(torch.get_rng_state(), before)


def test_normals_have_the_moments_and_tails_of_normals():
    z = draws().normal("a", 25).double().flatten()  # half a million
    assert z.isfinite().all()
    assert abs(float(z.mean())) < 0.007
    assert abs(float(z.var()) - 1) < 0.01
    assert abs(float((z**3).mean())) < 0.02
    assert abs(float((z**4).mean()) - 3) < 0.06
    assert stats.kstest(z[:100_000].numpy(), "norm").pvalue > 1e-5
    for bound in (1.0, 2.0, 3.0, 4.0):
        expected = 2 * stats.norm.sf(bound)
        share = float((z.abs() > bound).double().mean())
        assert abs(share - expected) < 5 * math.sqrt(expected / len(z))


def test_both_numbers_behind_a_normal_matter_to_no_other_normal():
    z = draws().normal("a", 2)
    assert abs(correlation(z[:, 0], z[:, 1])) < 5 / math.sqrt(len(IDS))
    assert abs(correlation(z[:, 0] ** 2, z[:, 1] ** 2)) < 5 / math.sqrt(len(IDS))


def test_chance_falls_with_its_probability_and_is_exact_at_the_ends():
    for probability in (0.1, 0.5, 0.8):
        share = float(draws().chance("a", probability, 5).double().mean())
        assert abs(share - probability) < 5 * math.sqrt(probability * (1 - probability) / 100_000)
    assert not draws().chance("a", 0.0, 5).any()
    assert draws().chance("a", 1.0, 5).all()


def test_integers_are_uniform_between_their_bounds():
    whole = draws().integers("a", -3, 4, 5)
    assert whole.min() == -3
    assert whole.max() == 3
    assert is_uniform(whole + 3, 7)


def test_shapes_follow_the_batch():
    d = Draws(0, 0, torch.arange(6))
    assert d.uniform("a").shape == (6,)
    assert d.uniform("a", 2, 3).shape == (6, 2, 3)
    assert d.normal("a", 2, 3).shape == (6, 2, 3)
    assert d.chance("a", 0.5).shape == (6,)
    assert d.integers("a", 0, 2, 4).shape == (6, 4)
    assert d.permutation("a", 5).shape == (6, 5)


def test_permutations_are_permutations_and_all_equally_likely():
    orders = draws().permutation("a", 4)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(4).expand(len(IDS), 4))
    code = (orders * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    _, number = code.unique(return_inverse=True)
    assert int(number.max()) == 23
    assert is_uniform(number, 24)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 1000, 4097])
def test_an_order_visits_every_row_once(length):
    rows = Order(3, 2, length)(torch.arange(length))
    assert torch.equal(rows.sort().values, torch.arange(length))


def test_an_order_of_a_billion_rows_is_in_range_and_repeats_none():
    positions = torch.cat([torch.arange(50_000), torch.arange(10**9 - 50_000, 10**9)])
    rows = Order(0, 0, 10**9)(positions)
    assert rows.min() >= 0
    assert rows.max() < 10**9
    assert len(rows.unique()) == 100_000
    assert is_uniform(rows // 10**7, 100)


def test_any_position_of_an_order_can_be_asked_for_alone():
    order = Order(0, 5, 1000)
    whole = order(torch.arange(1000))
    assert all(int(order(torch.tensor([p]))[0]) == int(whole[p]) for p in (0, 1, 500, 999))


def test_orders_of_epochs_seeds_and_names_differ():
    rows = {tuple(Order(s, e, 50, n)(torch.arange(50)).tolist()) for s in (0, 1) for e in (0, 1) for n in ("order", "probe")}
    assert len(rows) == 8


@pytest.mark.parametrize("length", [3, 50])
def test_every_row_comes_first_equally_often(length):
    first = torch.cat([Order(seed, epoch, length)(torch.tensor([0, length - 1])) for seed in range(25) for epoch in range(40)])
    assert is_uniform(first[0::2], length)
    assert is_uniform(first[1::2], length)


def test_neighbours_in_an_order_are_not_neighbours_in_the_index():
    rows = Order(0, 0, 20_000)(torch.arange(20_000))
    assert abs(correlation(rows[:-1], rows[1:])) < 5 / math.sqrt(20_000)
    assert abs(correlation(rows, torch.arange(20_000))) < 5 / math.sqrt(20_000)
