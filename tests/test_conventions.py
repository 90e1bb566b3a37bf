"""What weights do not tell of their model is recorded and, where it is in doubt, said."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from evalsets import MODEL, classification_samples, scored, write_checkpoint, write_classification
from open_clip.model import CLIP
from open_clip.pretrained import _PRETRAINED

from poolbench.models.clip import load
from poolbench.models.conventions import Conventions, conventions_of, doubt, fitting, tag_conventions, twins

from tasks.registry import load_tasks

OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN = Conventions("gelu", *OPENAI, "bicubic", "shortest")
QUICK = "conventions-tiny-quickgelu"  # MODEL with the other activation


@pytest.fixture
def tagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of MODEL, for which open_clip has a tag with QuickGELU and one with another normalisation."""
    (tmp_path / f"{QUICK}.json").write_text(json.dumps({**open_clip.get_model_config(MODEL), "quick_gelu": True}))
    open_clip.add_model_config(tmp_path)
    path = write_checkpoint(tmp_path / "model.pt")
    known = {"file": str(path), "mean": OPENAI[0], "std": OPENAI[1], "interpolation": "bicubic"}
    known |= {"resize_mode": "shortest"}
    half = {**known, "mean": HALF[0], "std": HALF[1], "resize_mode": "squash"}
    monkeypatch.setitem(_PRETRAINED, MODEL, {"quick": {**known, "quick_gelu": True}, "half": half, "same": known})
    return path


def said_of(name: str, path: Path, **options: Any) -> list[str]:
    said: list[str] = []
    load(name, str(path), say=said.append, **options)
    return said


def test_a_file_is_loaded_as_its_name_says_and_the_doubt_is_one_line(tagged: Path) -> None:
    (said,) = said_of(MODEL, tagged)
    assert "\n" not in said and str(tagged) in said
    assert f"assumed for {MODEL}: activation gelu, mean [0.481, 0.458, 0.408]" in said
    assert f"activation quick_gelu ({MODEL}/quick)" in said
    assert f"mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5], resize_mode squash ({MODEL}/half)" in said
    assert f"{MODEL}/same" not in said and said.endswith(f"model={QUICK}")
    (said,) = said_of(QUICK, tagged)
    assert f"activation gelu, mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5], resize_mode squash ({MODEL}/half)" in said


def test_no_doubt_where_the_file_names_its_model(tagged: Path) -> None:
    state = torch.load(tagged)["state_dict"]
    for name in (MODEL, f"2024_01_01-model_{MODEL}-lr_0.001-b_64"):  # as ours say it, and as open_clip's training
        torch.save({"name": name, "state_dict": state, **({"cursors": {}} if name == MODEL else {})}, tagged)
        assert said_of(MODEL, tagged) == []


def test_a_tag_has_its_own_activation_and_normalisation(tagged: Path) -> None:
    """open_clip itself only warns of the activation, and the scores are wrong."""
    assert said_of(MODEL, Path("quick")) == []
    assert conventions_of(load(MODEL, "quick")) == PLAIN._replace(activation="quick_gelu")
    assert conventions_of(load(MODEL, "half")) == Conventions("gelu", *HALF, "bicubic", "squash")
    assert conventions_of(load(QUICK, str(tagged))).activation == "quick_gelu"
    assert conventions_of(load(MODEL, str(tagged))) == PLAIN


def test_results_record_them(tagged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = load_tasks()["vtab/eurosat"]
    write_classification(tmp_path / "data", task, classification_samples(12, 10))
    outcome = scored(tagged, tmp_path / "data", tmp_path / "out", [task.key])
    assert outcome.line(task.key)["conventions"] == json.loads(json.dumps(PLAIN._asdict()))
    assert capsys.readouterr().out.count("weights do not tell") == 1


def test_real_names_that_differ_in_nothing_that_weights_tell() -> None:
    assert twins("ViT-B-32") == ["ViT-B-32", "ViT-B-32-quickgelu"]
    assert twins("RN50") == ["RN50", "RN50-quickgelu"]
    assert tag_conventions("ViT-B-32", "openai") == PLAIN._replace(activation="quick_gelu")
    assert tag_conventions("ViT-B-32", "laion2b_s34b_b79k") == PLAIN
    assert "quick_gelu (ViT-B-32/openai, " in str(doubt("ViT-B-32", PLAIN))
    assert "resize_mode squash (ViT-B-16-SigLIP/webli)" in str(doubt("ViT-B-16-SigLIP", PLAIN))
    assert doubt("ViT-B-32-256", PLAIN) is None and doubt("ViT-Ti-32-64", PLAIN) is None


@pytest.mark.parametrize(
    ("name", "asked", "found"),
    [
        ("ViT-B-32", "ViT-B-32-256", ["ViT-B-32", "ViT-B-32-quickgelu"]),
        ("ViT-B-32-256", "ViT-B-32", ["ViT-B-32-256"]),
        ("ViT-L-14-336-quickgelu", "ViT-L-14-quickgelu", ["ViT-L-14-336-quickgelu", "ViT-L-14-336"]),
        ("ViT-Ti-32-64", "ViT-B-32", ["ViT-Ti-32-64"]),
    ],
)
def test_weights_are_known_by_their_shapes(name: str, asked: str, found: list[str]) -> None:
    with torch.device("meta"):
        model = CLIP(**open_clip.get_model_config(name))
    assert fitting(model.state_dict(), asked) == found
