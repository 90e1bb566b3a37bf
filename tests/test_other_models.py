"""Architectures that are no plain CLIP, as folders that open_clip loads: SigLIP with its bias, CoCa, text towers of
Hugging Face's transformers."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from evalsets import classification_samples, write_classification
from PIL import Image
from safetensors.torch import save_file

from poolbench.files import read_lines
from poolbench.models.names import CONFIG
from poolbench.shards.pictures import rgb as to_rgb

from evaluate.config import EvaluateConfig
from evaluate.run import run
from tasks.readers import open_data
from tasks.registry import load_tasks
from tasks.results import predictions_path

EUROSAT = load_tasks()["vtab/eurosat"]
TOWER = {"width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2}
TEXT = {"context_length": 16, "vocab_size": 49408, **TOWER}
CONFIGS: dict[str, dict[str, Any]] = {
    "SigLIP": {
        "embed_dim": 32,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last"},
        "custom_text": True,
        "init_logit_bias": -10,
    },
    "CoCa": {
        "embed_dim": 32,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, **TOWER},
        "custom_text": True,
    },
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}


TOKENS = [f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")] + [
    *"0123456789.a",
    "photo",
    "drawing",
    "of",
    "the",
    "thing",
]


def write_tower(folder: Path) -> dict[str, Any]:
    """A small BERT's configuration; what open_clip's has of it. The tokenizer lies with the model, where open_clip
    looks for it, and reads fewer tokens than the tower has places for, as with roberta-ViT-B-32."""
    folder.mkdir()
    model = folder.with_name("model")
    model.mkdir()
    (folder / "vocab.txt").write_text("\n".join(TOKENS))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(model)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    transformers.BertConfig(vocab_size=len(TOKENS), max_position_embeddings=40, **sizes).save_pretrained(folder)
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_proj_type": "mlp"}
    return {
        "embed_dim": 32,
        "vision_cfg": VISION,
        "text_cfg": {**text, "hf_pooler_type": "mean_pooler", "context_length": 12},
        "custom_text": True,
    }


def write_model(folder: Path, config: dict[str, Any]) -> Any:
    """A folder as open_clip's `push_to_hf_hub` writes it, with random weights; the model as open_clip loads it."""
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    torch.manual_seed(0)
    model, _, _ = open_clip.create_model_and_transforms(
        f"local-dir:{folder}", load_weights=False, pretrained_text=False
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.08)
    save_file({name: one.contiguous() for name, one in model.state_dict().items()}, folder / "model.safetensors")
    return open_clip.create_model_and_transforms(f"local-dir:{folder}", pretrained_text=False)


@pytest.mark.parametrize("name", [*CONFIGS, "HF"])
def test_it_is_evaluated_as_open_clip_loads_it(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name] if name in CONFIGS else write_tower(tmp_path / "tower")
    model, _, transform = write_model(tmp_path / "model", config)
    model.eval()
    write_classification(tmp_path / "data", EUROSAT, classification_samples(20, 10), shards=1)
    places = {"model": str(tmp_path / "model"), "data": str(tmp_path / "data"), "out": str(tmp_path / "out")}
    assert run(EvaluateConfig(**places, tasks=[EUROSAT.key], workers=0, device="cpu")) == 0
    (line,) = read_lines(tmp_path / "out" / "eval_results.jsonl")
    assert line["conventions"]["mean"] == [0.5, 0.5, 0.5] and line["conventions"]["resize_mode"] == "squash"

    data = open_data(EUROSAT, tmp_path / "data")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}/model")
    with torch.inference_mode():
        texts = [[one.replace("{c}", name) for one in data.templates] for name in data.classnames]
        classes = torch.stack([model.encode_text(tokenizer(one), normalize=True).mean(dim=0) for one in texts])
        classes = torch.nn.functional.normalize(classes, dim=-1)
        pictures = torch.stack([transform(rgb(members)) for _, members in classification_samples(20, 10)])
        logits = model.encode_image(pictures, normalize=True) @ classes.T * model.logit_scale.exp()
        if name == "SigLIP":
            logits += model.logit_bias  # which changes no column
        expected = logits.double().softmax(dim=1).max(dim=1)
    table = pq.read_table(predictions_path(tmp_path / "out", EUROSAT.key))
    assert table["prediction"].to_pylist() == expected.indices.tolist()
    np.testing.assert_allclose(table["confidence"], expected.values, rtol=0, atol=1e-4)
    assert len(set(table["prediction"].to_pylist())) > 1


def rgb(members: dict[str, bytes]) -> Image.Image:
    return to_rgb(Image.open(io.BytesIO(next(data for kind, data in members.items() if kind != "cls"))))
