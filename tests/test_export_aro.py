"""ARO's relations and attributes from its authors' files, held against what its authors' code does with them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from evalsets import MODEL, encoded, noise, scored, write_checkpoint
from PIL import Image
from published_sets import pixels

from poolbench.errors import status_of

from tasks.command import VERBS
from tasks.examples import Example
from tasks.readers import open_data, read_examples
from tasks.registry import load_tasks
from tasks.verify import verify

RELATION = load_tasks()["aro/relation"]


def command(*words: str) -> int:
    return status_of(lambda: VERBS.answer(["export", *words]))


def entry(number: int, box: tuple[int, int, int, int], **changes: Any) -> dict[str, Any]:
    captions = {"true_caption": f"dog {number} is on the mat", "false_caption": f"the mat is on dog {number}"}
    places = dict(zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), box, strict=True))
    return {"image_path": f"{number % 5}.jpg", **places, **captions, "relation_name": "on", **changes}


def write_aro(root: Path, samples: list[Any], name: str = "relation") -> Path:
    """Five pictures of 44 x 37 and the list."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number in range(5):
        (root / "images" / f"{number}.jpg").write_bytes(encoded(Image.fromarray(noise(number)), "JPEG"))
    (root / f"visual_genome_{name}.json").write_text(json.dumps(samples))
    return root


def authors(root: Path) -> list[tuple[Image.Image, str, str]]:
    """Picture, true and false caption of each sample, as VG_Relation of ARO's code gives them."""
    found = []
    for case in json.loads((root / "visual_genome_relation.json").read_text()):
        image = Image.open(root / "images" / case["image_path"]).convert("RGB")
        edges = case["bbox_x"] + case["bbox_w"], case["bbox_y"] + case["bbox_h"]
        found.append(
            (image.crop((case["bbox_x"], case["bbox_y"], *edges)), case["true_caption"], case["false_caption"])
        )
    return found


BOXES = [(2, 3, 20, 30), (0, 0, 44, 37), (30, 30, 30, 30), (5, 1, 9, 8)]


def test_it_is_what_the_authors_code_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A box may reach beyond the picture, and may be all of it."""
    root = write_aro(tmp_path / "aro", [entry(number, BOXES[number % 4]) for number in range(24)])
    assert command("dataset=aro/relation", f"root={root}", f"out={tmp_path}/out") == 0
    told = capsys.readouterr().out
    assert (
        f"{tmp_path}/out/wds_aro-relation_test: 24 samples of split=test in 1 shards, 6 pictures as they were, 18"
        in told
    )
    (shard,) = open_data(RELATION, tmp_path / "out").shards
    theirs = authors(root)
    for item, (picture, *captions) in zip(read_examples(shard, frozenset({"choices"}), 0), theirs, strict=True):
        assert isinstance(item, Example) and (list(item.captions), item.label) == (captions, 0)
        assert pixels(item.image) == pixels(picture)
    assert verify([RELATION.model_copy(update={"samples": 24})], tmp_path / "out", images=True, jobs=1) == 0

    checkpoint = write_checkpoint(tmp_path / "model.pt")
    ours = scored(checkpoint, tmp_path / "out", tmp_path / "results", [RELATION.key]).line(RELATION.key)["metrics"]
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    tokenizer, right = open_clip.get_tokenizer(MODEL), []
    with torch.no_grad():
        for picture, *captions in theirs:
            image = model.eval().encode_image(transform(picture)[None], normalize=True)
            scores = image @ model.encode_text(tokenizer(captions), normalize=True).T
            right.append(bool(scores[0, 0] > scores[0, 1]))
    assert ours["acc"] == pytest.approx(np.mean(right)) and 0 < ours["acc"] < 1


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ({"a": 1}, "visual_genome_attribution.json is not a list of samples"),
        ([], "dataset=aro/attribution: the split test holds no sample"),
        ([entry(0, BOXES[0]), [1]], "visual_genome_attribution.json, sample 1: it is no mapping"),
        ([entry(0, BOXES[0], bbox_x="2")], "sample 0: 'bbox_x' is missing, or not a number"),
        ([{"image_path": "0.jpg"}], "sample 0: 'true_caption' is missing, or not a text"),
        ([entry(0, (3, 3, 0, 5))], "sample 0: its box is of 0 x 5 pixels"),
        ([entry(0, BOXES[0], image_path="none.jpg")], "sample 0: none.jpg cannot be read: "),
        ([entry(0, BOXES[0], false_caption=" ")], "sample s0000000 has a blank caption"),
    ],
)
def test_lists_that_are_none(samples: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_aro(tmp_path / "aro", samples, "attribution")
    assert command("dataset=aro/attribution", f"root={root}", f"out={tmp_path}/out") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert told in line and not list((tmp_path / "out").glob("*"))


def test_what_it_has_not_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_aro(tmp_path / "aro", [entry(0, BOXES[0])])
    (root / "visual_genome_relation.json").with_name("other.json").write_text("{")
    for words, told in (
        (["dataset=aro/relation", "split=train"], "dataset=aro/relation has no splits, so split=train would hold"),
        (["dataset=aro/relation", "download=true"], "dataset=aro/relation takes the files as they are"),
        (["dataset=aro/attribution"], "visual_genome_attribution.json is missing; ARO's authors publish it"),
        (["dataset=aro/coco_order"], "is not exported: ARO's own code draws its captions anew"),
        (["dataset=aro/relation", "task=mnist"], "task=mnist is of the kind classification, dataset=aro/relation of"),
    ):
        assert command(*words, f"root={root}", f"out={tmp_path}/out") == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
