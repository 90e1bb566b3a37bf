"""Which weights a name stands for."""

from pathlib import Path

import open_clip
import pytest
from evalsets import MODEL, write_checkpoint
from runs import run_json

from poolbench.errors import UserError
from poolbench.files import digest_file, write_json
from poolbench.models.weights import Trained, Weights, trained, weights_of


def test_a_file_has_no_tag_and_a_tag_no_file_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_checkpoint(tmp_path / "model.pt")
    assert weights_of(MODEL, str(file)) == Weights(MODEL, str(file), None, digest_file(file))
    asked = []
    monkeypatch.setattr(open_clip, "download_pretrained", lambda config: asked.append(config) or str(file))
    assert weights_of("ViT-B-32", "openai") == Weights("ViT-B-32", "openai", "openai", digest_file(file))
    assert asked == [open_clip.get_pretrained_cfg("ViT-B-32", "openai")]


def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"neither a file nor a pretrained tag of ViT-B-32; did you mean 'openai'\?"):
        weights_of("ViT-B-32", "openia")

    def fail(config: object) -> str:
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(UserError, match=r"^the weights ViT-B-32/openai cannot be downloaded: no route$"):
        weights_of("ViT-B-32", "openai")


def test_the_newest_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.json does not exist"):
        trained(tmp_path)
    record = {**run_json("run", "tiny"), "recipe": {"model": MODEL}, "checkpoint": None}
    write_json(tmp_path / "run.json", record)
    with pytest.raises(UserError, match="has not written one yet"):
        trained(tmp_path)
    write_json(tmp_path / "run.json", {**record, "checkpoint": {"path": "checkpoints/a.pt", "sha256": "0" * 64}})
    assert trained(tmp_path) == Trained(MODEL, "tiny", tmp_path / "checkpoints" / "a.pt", "0" * 64)
