"""Heads saved and loaded: the same numbers without a text tower or a fit, and never those of another model."""

import json
import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier
from evalsets import (
    MODEL,
    classification_samples,
    same_predictions,
    scored,
    training_samples,
    write_checkpoint,
    write_classification,
    write_every_kind,
    write_train,
)
from safetensors.torch import load_file

from poolbench.errors import UserError
from poolbench.files import read_lines

from evaluate.embedder import OpenClip
from evaluate.evaluators.classification import CERTAINTY
from tasks.registry import load_tasks

EUROSAT, FACES = load_tasks()["vtab/eurosat"], "fairness/utkface"
KEYS = [EUROSAT.key, "wilds/iwildcam", FACES, "retrieval/flickr_1k_test_image_text_retrieval"]
PROBES = ["linear", "4", "lp++4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    write_checkpoint(root / "model.pt")
    write_every_kind(root / "data")
    write_train(root / "data", EUROSAT, training_samples(60))
    return root


def refused(*_: Any) -> Any:
    raise AssertionError("what was saved is made again")


def test_the_same_numbers_without_texts_and_without_fits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(name: str, keys: list[str], **options: Any) -> Any:
        return scored(
            folder / "model.pt", folder / "data", tmp_path / name, keys, probes=PROBES, probe_draws=2, **options
        )

    heads = tmp_path / "kept"
    plain, first = evaluate("plain", KEYS), evaluate("first", KEYS, heads=str(heads))
    written = {path.name for path in heads.iterdir()}
    own = {f"{key.replace('/', '-')}.safetensors" for key in KEYS[:3]}
    assert written == own | {f"vtab-eurosat.{probe}.safetensors" for probe in PROBES}
    before = {path: path.read_bytes() for path in heads.iterdir()}
    capsys.readouterr()
    monkeypatch.setattr(OpenClip, "texts", refused)
    monkeypatch.setattr("evaluate.probes.fit.search", refused)
    monkeypatch.setattr("evaluate.probes.lp_plus.fit", refused)
    second = evaluate("second", KEYS[:3], heads=str(heads))
    told = re.findall(r"heads: (\d) read from .*; making them took \d+\.\d s", capsys.readouterr().out)
    assert told == ["3", "3"] and before == {path: path.read_bytes() for path in heads.iterdir()}
    assert second.status == 0
    for key in KEYS[:3]:
        assert second.line(key)["metrics"] == first.line(key)["metrics"] == plain.line(key)["metrics"]
    again = {key: rows for key, rows in first.predictions.items() if key in KEYS[:3]}
    assert same_predictions(second.predictions, again) and CERTAINTY[0] in again[EUROSAT.key]
    lines = [read_lines(tmp_path / name / "probe_results.jsonl") for name in ("plain", "first", "second")]
    kept = [[{**line, "seconds": 0} for line in each] for each in lines]
    assert len(kept[0]) == 3 and kept[0] == kept[1] == kept[2]


def test_a_head_is_the_references(folder: Path, tmp_path: Path) -> None:
    scored(folder / "model.pt", folder / "data", tmp_path / "out", [EUROSAT.key], heads=str(tmp_path))
    model, _, _ = open_clip.create_model_and_transforms(MODEL, pretrained=str(folder / "model.pt"))
    names = [f"thing {number}" for number in range(10)]
    templates = ["a photo of a {c}.", "a drawing of the {c}"]
    tokenizer = open_clip.get_tokenizer(MODEL)
    expected = zero_shot_classifier(model.eval(), tokenizer, names, templates, "cpu", amp=False)
    found = load_file(tmp_path / "vtab-eurosat.safetensors")
    assert found.keys() == {"weights.0"} and found["weights.0"].dtype == torch.float32
    torch.testing.assert_close(found["weights.0"], expected, rtol=0, atol=1e-5)


def test_what_was_made_from_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    heads, file = str(tmp_path / "kept"), tmp_path / "kept" / "vtab-eurosat.safetensors"
    write_classification(tmp_path / "data", EUROSAT, classification_samples(9, 10))

    def evaluate(name: str, checkpoint: Path = folder / "model.pt", **options: Any) -> Any:
        return scored(checkpoint, tmp_path / "data", tmp_path / name, [EUROSAT.key], heads=heads, **options)

    evaluate("first")
    before = file.read_bytes()
    other = write_checkpoint(tmp_path / "other.pt", seed=1)
    with pytest.raises(
        UserError, match=r"vtab-eurosat.safetensors is of another checkpoint_sha256: \w{16}\.\.\., and not"
    ):
        evaluate("other", other)
    with pytest.raises(UserError, match="is of another precision: fp32, and not amp_bf16; choose another heads="):
        evaluate("other", precision="amp_bf16")
    cupl = tmp_path / "cupl.json"
    cupl.write_text(json.dumps(["one {c}"]))
    evaluate("prompted", prompts=str(cupl))
    assert [path.name for path in (tmp_path / "kept").glob("prompts/cupl-*/*")] == [file.name]
    names = tmp_path / "data" / EUROSAT.folder / "classnames.txt"
    names.write_text(names.read_text().replace("thing 3", "something"))
    with pytest.raises(UserError, match="is of another prompts: "):
        evaluate("names")
    assert file.read_bytes() == before
    for damage in (before[:-1] + bytes([before[-1] ^ 1]), before[:40], b""):
        file.write_bytes(damage)
        with pytest.raises(UserError, match=r"vtab-eurosat.safetensors is damaged or no head of ours; move it away"):
            evaluate("damaged")
