"""The text trunk: what it sees, where it is read, its first values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tacit.core.errors import TacitError
from tacit.nn.init import seeded
from tacit.nn.text import VARIANTS, TextTransformer, end_places

END = 19


def trunk(**options) -> TextTransformer:
    with seeded(0, "text"):
        made = TextTransformer(20, 8, width=16, depth=2, heads=2, **options).double()
        for parameter in made.parameters():  # larger than at first, so that what is read shows
            torch.nn.init.normal_(parameter, std=0.5)
    return made


TEXTS = torch.tensor([[1, 5, END, 0, 0, 0, 0, 0], [1, 7, 3, 4, 2, 6, 8, END]])


def test_what_follows_the_end_changes_nothing():
    other = TEXTS.clone()
    other[0, 3:] = torch.tensor([4, END, 3, 2, END])
    torch.testing.assert_close(trunk()(other).pooled, trunk()(TEXTS).pooled, rtol=0, atol=1e-12)


@pytest.mark.parametrize("place", [0, 1, 2, 5, 6])
def test_every_token_before_the_end_counts(place):
    """Mutation: pooling another position."""
    other = TEXTS.clone()
    other[1, place] = 9
    assert (trunk()(other).pooled[1] - trunk()(TEXTS).pooled[1]).norm() > 1e-3


def test_no_token_sees_a_later_one():
    """Mutation: no causal mask."""
    x = TEXTS[1:]
    whole = trunk()(x, attention=True)
    assert whole.attention is not None
    assert (whole.attention.triu(1) == 0).all()
    torch.testing.assert_close(whole.attention.sum(-1), torch.ones(1, 2, 8, dtype=torch.float64))
    for length in (1, 4, 7):
        torch.testing.assert_close(trunk()(x[:, :length]).tokens, whole.tokens[:, :length], rtol=0, atol=1e-12)


def test_attention_on_request_changes_nothing():
    torch.testing.assert_close(trunk()(TEXTS, attention=True).pooled, trunk()(TEXTS).pooled, rtol=0, atol=1e-12)


def test_half_precision_says_nearly_the_same():
    tower = TextTransformer(20, 8, width=16, depth=2, heads=2)
    exact = tower(TEXTS).pooled
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(tower(TEXTS).pooled.float(), exact, rtol=0, atol=0.1)


def test_padding_is_needed_no_further_than_the_longest_text():
    short = TEXTS[:1]
    torch.testing.assert_close(trunk()(short[:, :3]).pooled, trunk()(short).pooled, rtol=0, atol=1e-12)


def test_the_first_of_several_ends_is_read_and_the_last_place_where_there_is_none():
    tokens = torch.tensor([[1, END, 3, END], [1, 2, 3, 4], [END, END, 1, 1], [1, 2, 3, END]])
    assert end_places(tokens, END).tolist() == [1, 3, 0, 3]


def test_the_end_may_be_any_token():
    tower = trunk(end=3)
    x = torch.tensor([[1, 7, 3, 19, 0]])
    seen = tower(x, taps=["blocks.1"])
    assert torch.equal(seen.pooled, seen.tokens[:, 2])
    assert torch.equal(tower.norm(seen.taps["blocks.1"]), seen.tokens)


def test_blocks_are_the_frameworks_own_with_a_causal_mask():
    tower = trunk(quick_gelu=True)
    x = tower.token_embedding(TEXTS) + tower.pos_embed
    for block in tower.blocks:
        y, parts = block.norm1(x), block.attn.state_dict()
        mask = torch.full((8, 8), -torch.inf, dtype=torch.float64).triu(1)
        y = y.transpose(0, 1)
        args = (16, 2, parts["qkv.weight"], parts["qkv.bias"], None, None, False, 0.0, parts["proj.weight"], parts["proj.bias"])
        y = F.multi_head_attention_forward(y, y, y, *args, need_weights=False, attn_mask=mask)[0].transpose(0, 1)
        x = x + y
        h = block.mlp.fc1(block.norm2(x))
        x = x + block.mlp.fc2(h / (1 + torch.exp(-1.702 * h)))
    torch.testing.assert_close(tower(TEXTS).tokens, tower.norm(x), rtol=0, atol=1e-11)


def test_first_values():
    with seeded(0, "text"):
        tower = TextTransformer(500, 64, width=128, depth=4, heads=4)
    spreads = {
        "token_embedding.weight": 0.02,
        "pos_embed": 0.01,
        "blocks.3.attn.qkv.weight": 128**-0.5,
        "blocks.3.attn.proj.weight": 128**-0.5 * 8**-0.5,
        "blocks.3.mlp.fc1.weight": 256**-0.5,
        "blocks.3.mlp.fc2.weight": 128**-0.5 * 8**-0.5,
    }
    for name, spread in spreads.items():
        assert float(tower.state_dict()[name].std()) == pytest.approx(spread, rel=0.03), name
    for name, parameter in tower.named_parameters():
        if name.endswith(("qkv.bias", "proj.bias", "norm1.bias", "norm.bias")):
            assert (parameter == 0).all()
        if name.endswith("fc1.bias"):
            assert float(parameter.detach().abs().max()) == pytest.approx(128**-0.5, rel=0.05)


def test_the_published_size():
    with torch.device("meta"):
        tower = TextTransformer(49408, 77, **VARIANTS["text-base"]._asdict())
    assert sum(parameter.numel() for parameter in tower.parameters()) + 512 * 512 == 63_428_096  # with the projection


def test_levels_and_grid():
    tower = trunk()
    levels = {name: tower.level(name) for name, _ in tower.named_parameters()}
    assert {levels[name] for name in ("token_embedding.weight", "pos_embed")} == {0}
    assert (levels["blocks.0.attn.qkv.weight"], levels["blocks.1.norm1.bias"], levels["norm.weight"]) == (1, 2, 3)
    assert tower.grid([5]) == (5,)


def test_mistakes_are_told():
    with pytest.raises(TacitError, match="9 tokens were given; this trunk reads 8"):
        trunk()(torch.zeros(1, 9, dtype=torch.int64))
    with pytest.raises(TacitError, match="no tokens to hide"):
        trunk()(TEXTS, keep=torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(TacitError, match="none of the 20 ids"):
        trunk(end=20)
    with pytest.raises(TacitError, match="0 blocks"):
        TextTransformer(20, 8, 16, 0, 2)
    with pytest.raises(TacitError, match="tap"):
        trunk()(TEXTS, taps=["blocks.2"])
