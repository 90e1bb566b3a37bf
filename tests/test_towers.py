"""The towers of a finished model against open_clip's own forward pass, and how texts are put into batches."""

import copy
import itertools
from typing import Any

import evalsets
import open_clip
import pytest
import torch

from poolbench.models.texts import full_batches
from poolbench.models.towers import Towers
from poolbench.models.transforms import Scale, evaluation_transform

CPU = torch.device("cpu")


def model_with(**vision: Any) -> torch.nn.Module:
    """The tests' small model with other settings of its picture tower."""
    torch.manual_seed(0)
    config = copy.deepcopy(open_clip.get_model_config(evalsets.MODEL))
    config["vision_cfg"] |= vision
    return open_clip.CLIP(**config).eval()


@pytest.mark.parametrize(
    ("vision", "spared"),
    [
        ({}, True),
        ({"ls_init_value": 0.5}, True),
        ({"final_ln_after_pool": True}, True),
        ({"pool_type": "avg"}, False),
        ({"attentional_pool": True}, False),
        ({"block_type": "custom", "qk_norm": True}, False),
    ],
)
def test_embeddings_are_open_clips_though_the_last_block_makes_one_token(vision: dict[str, Any], spared: bool) -> None:
    model: Any = model_with(**vision)
    pictures = torch.randint(0, 256, (5, 3, *model.visual.image_size), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model.encode_image(Scale(evaluation_transform(model))(pictures), normalize=True)
    towers = Towers(model, CPU, "fp32")
    tokens: list[int] = []
    last = model.visual.transformer.resblocks[-1].mlp.c_fc
    last.register_forward_hook(lambda _, arguments, __: tokens.append(arguments[0].shape[1]))
    ours = towers.images(pictures)
    assert (ours - expected).abs().max() < 1e-6 and expected.std(dim=0).max() > 1e-3
    rows, columns = model.visual.grid_size
    assert tokens == [1 if spared else rows * columns + 1]
    assert torch.equal(Towers(model, CPU, "fp32").images(pictures), ours)  # of a model that others had before


@pytest.mark.parametrize("most", [1, 77, 100, 1000])
def test_batches_of_texts_hold_as_many_tokens_as_they_may(most: int) -> None:
    lengths = torch.randint(2, 78, (300,), generator=torch.Generator().manual_seed(0))
    batches = full_batches(lengths, most)
    assert sorted(torch.cat(batches).tolist()) == list(range(300))
    longest = [int(lengths[rows].max()) for rows in batches]
    assert torch.equal(lengths[torch.cat(batches)], lengths.sort().values)
    assert all(len(rows) == 1 or len(rows) * length <= most for rows, length in zip(batches, longest, strict=True))
    for rows, following in itertools.pairwise(batches):  # none of the next one would have fitted in
        assert (len(rows) + 1) * int(lengths[following].min()) > most
