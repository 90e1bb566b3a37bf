"""Kinds of the extra suite against clip_benchmark and plain code: captions to choose among, pairs, several labels."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pyarrow as pa
import pytest
import torch
from clip_benchmark.datasets.builder import build_wds_dataset, image_captions_collate_fn
from clip_benchmark.metrics import image_caption_selection, zeroshot_classification
from evalsets import (
    MODEL,
    Samples,
    multilabel_samples,
    pair_samples,
    picture,
    scored,
    selection_samples,
    write_captioned,
    write_multilabel,
)
from PIL import Image
from sklearn.metrics import average_precision_score

from poolbench.errors import UserError

from evaluate.evaluators.caption_selection import choose
from evaluate.evaluators.winoground import similarities
from evaluate.metrics import metrics
from evaluate.metrics.winoground import SIMILARITIES
from tasks.command import VERBS
from tasks.examples import Example
from tasks.readers import open_data, open_labelled, read_examples
from tasks.registry import load_tasks
from tasks.verify import verify

TASKS = load_tasks()
CREPE, WINOGROUND = TASKS["sugarcrepe/swap_att"], TASKS["winoground"]
VOC = TASKS["voc2007_multilabel"]


@pytest.fixture
def reference(checkpoint: Path) -> tuple[torch.nn.Module, Any, Any]:
    """Model, transform and tokenizer as a user of open_clip gets them."""
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    return model.eval(), transform, open_clip.get_tokenizer(MODEL)


def theirs_of(images: npt.NDArray[Any], texts: npt.NDArray[Any]) -> dict[str, float]:
    """clip_benchmark's metrics for embeddings [n, pictures, d] and [n, captions, d] that are given."""
    model = SimpleNamespace(encode_image=lambda x: x[:, 0, 0], encode_text=lambda rows: rows)
    pictures = torch.from_numpy(images)[:, :, None, None, :]
    flat = torch.from_numpy(texts.reshape(-1, texts.shape[-1]))
    loader = [(pictures if images.shape[1] > 1 else pictures[:, 0], [[0] * texts.shape[1]] * len(texts))]
    found: dict[str, float] = image_caption_selection.evaluate(model, loader, lambda _: flat, "cpu", amp=False)
    return found


# --- captions to choose among ---


@pytest.mark.parametrize("seed", range(6))
def test_choosing_is_clip_benchmarks_ties_and_all(seed: int) -> None:
    """Small whole numbers, so that scores are exact and often equal."""
    rng = np.random.default_rng(seed)
    count, captions = 200, 2 + seed % 3
    axes = np.eye(6, dtype=np.float32)  # of length 1, which normalising leaves as they are
    images, texts = axes[rng.integers(0, 6, count)], axes[rng.integers(0, 6, (count, captions))]
    chosen = choose(torch.from_numpy(images), torch.from_numpy(texts.reshape(-1, 6)), np.full(count, captions))
    table = pa.table(
        {
            "picture": [str(number) for number in range(count)],
            "captions": [["caption"] * captions] * count,
            "right": np.zeros(count, np.int64),
            "prediction": chosen.caption,
            "tied": chosen.tied,
        }
    )
    theirs, found = theirs_of(images[:, None], texts), metrics(CREPE, table)
    assert found["text_acc"] == pytest.approx(theirs["text_acc"]) == pytest.approx(theirs["acc"])
    scores = np.einsum("nd,nkd->nk", images, texts)
    alone = (scores[:, :1] > scores[:, 1:]).all(axis=1)
    assert found["acc"] == found["main_metric"] == pytest.approx(alone.mean())
    assert found["acc"] < found["text_acc"], "there have to be equal scores for this test to mean anything"


def test_caption_selection_is_the_reference(
    tmp_path: Path, checkpoint: Path, reference: tuple[torch.nn.Module, Any, Any]
) -> None:
    model, transform, tokenizer = reference
    samples = selection_samples(60, equal=False)
    folder = write_captioned(tmp_path, CREPE, samples, says="retrieval")  # the word that clip_benchmark knows
    ours = scored(checkpoint, tmp_path, tmp_path / "out", [CREPE.key])
    line, rows = ours.line(CREPE.key), ours.predictions[CREPE.key]
    dataset = build_wds_dataset(CREPE.key, transform, data_dir=str(folder))
    loader = torch.utils.data.DataLoader(dataset, batch_size=1, collate_fn=image_captions_collate_fn)
    theirs = image_caption_selection.evaluate(model, loader, tokenizer, "cpu", amp=False)
    assert line["metrics"]["text_acc"] == pytest.approx(theirs["text_acc"], abs=1e-6)
    right = np.equal(rows["prediction"], 0)
    assert line["metrics"]["acc"] == line["metrics"]["main_metric"] == pytest.approx(right.mean())
    assert not any(rows["tied"]) and 0.2 < right.mean() < 0.8 and rows["key"] == [key for key, _ in samples]
    assert len(set(rows["picture"])) == 12
    clusters = [np.flatnonzero(np.equal(rows["picture"], one)) for one in set(rows["picture"])]
    sums = np.array([(right[rows] - right.mean()).sum() for rows in clusters])
    assert line["stderr"] == pytest.approx(np.sqrt(12 / 11 * (sums @ sums)) / 60)
    assert line["deviations"] == ["60 samples, pinned at 666"]


def as_json(samples: Samples) -> Samples:
    """The same captions in `.json`, the right one at another place."""
    changed: Samples = []
    for number, (key, members) in enumerate(samples):
        first, *others = members["txt"].decode().split("\n")
        right = number % (len(others) + 1)
        record = {"captions": [*others[:right], first, *others[right:]], "right": right}
        rest = {name: data for name, data in members.items() if name != "txt"}
        changed.append((key, {**rest, "json": json.dumps(record).encode()}))
    return changed


def test_the_right_caption_may_stand_anywhere(tmp_path: Path, checkpoint: Path) -> None:
    samples = selection_samples(40)
    write_captioned(tmp_path / "lines", CREPE, samples)
    write_captioned(tmp_path / "json", CREPE, as_json(samples), shards=1)
    lines, records = (
        scored(checkpoint, tmp_path / form, tmp_path / form / "out", [CREPE.key]) for form in ("lines", "json")
    )
    assert lines.line(CREPE.key)["metrics"]["acc"] == records.line(CREPE.key)["metrics"]["acc"]
    chosen = [
        [captions[place] for captions, place in zip(rows["captions"], rows["prediction"], strict=True)]
        for rows in (lines.predictions[CREPE.key], records.predictions[CREPE.key])
    ]
    tied = [len(set(captions)) == 1 for captions in lines.predictions[CREPE.key]["captions"]]
    assert lines.predictions[CREPE.key]["tied"] == tied == records.predictions[CREPE.key]["tied"] and any(tied)
    assert chosen[0] == chosen[1] and set(records.predictions[CREPE.key]["right"]) > {0, 1}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "sample s has no .txt"),
        ({"txt": b"only one\n"}, "s.txt holds 1 captions; to choose among them takes at least 2"),
        ({"txt": b""}, "s.txt holds 0 captions"),
        ({"txt": b"\nwrong\nwrong too"}, "s.txt: caption 1 of 3 is blank"),
        ({"txt": b"caf\xe9\nwrong"}, "s.txt is not UTF-8 text: "),
        ({"json": b"{"}, "s.json is not JSON"),
        ({"json": b"[]"}, "s.json has no list of texts 'captions'"),
        ({"json": b'{"captions": ["a", 2]}'}, "s.json has no list of texts 'captions'"),
        ({"json": b'{"captions": ["a", "b"], "right": 2}'}, "s.json: right is 2, not one of 0 .. 1"),
        ({"json": b'{"captions": ["a", "b"], "right": true}'}, "s.json: right is True, not one of 0 .. 1"),
        ({"json": b'{"captions": ["a", "b"], "right": -1}'}, "s.json: right is -1, not one of 0 .. 1"),
    ],
)
def test_captions_that_cannot_be_chosen_among(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    folder = write_captioned(tmp_path, CREPE, [("s", {"png": picture(0)[1], **members})], shards=1)
    with pytest.raises(UserError) as error:
        list(read_examples(folder / "test" / "0.tar", frozenset({"choices"}), 0))
    assert f"0.tar: {message}" in str(error.value)


def test_the_folder_has_to_be_of_the_kind(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path, CREPE, selection_samples(3), shards=1, says="classification")
    with pytest.raises(UserError, match="has to say 'caption_selection' or 'retrieval' for a caption_selection task"):
        open_data(CREPE, tmp_path)
    (folder / "dataset_type.txt").unlink()
    with pytest.raises(UserError, match="has to say 'caption_selection' or"):
        open_data(CREPE, tmp_path)


@pytest.mark.parametrize(
    ("column", "values"),
    [("right", [0, 2]), ("prediction", [-1, 0]), ("tied", [None, True]), ("tied", [0, 1]), ("prediction", [None, 0])],
)
def test_predictions_that_no_evaluator_writes(column: str, values: list[Any]) -> None:
    table = {"picture": ["a", "b"], "captions": [["x", "y"]] * 2, "right": [0, 1], "prediction": [1, 1]}
    assert metrics(CREPE, pa.table({**table, "tied": [False, True]}))["text_acc"] == 0.5
    with pytest.raises(ValueError, match=column):
        metrics(CREPE, pa.table({**table, "tied": [False, True], column: values}))


def test_verify_and_download_tell_of_the_extra_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = CREPE.model_copy(update={"samples": 14})
    write_captioned(tmp_path, task, selection_samples(14))
    assert verify([task], tmp_path, images=True, jobs=1) == 0
    assert "sugarcrepe/swap_att: ok, 14 samples, not pinned" in capsys.readouterr().out
    with pytest.raises(UserError, match="none of these tasks is downloaded"):
        VERBS.answer(["download", f"data={tmp_path}", "tasks=sugarcrepe"])
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 7 and all("python -m tasks export dataset=sugar_crepe/" in line for line in told)


def test_the_summary_gives_the_extra_suite_no_average(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_captioned(tmp_path, CREPE, selection_samples(14))
    assert scored(checkpoint, tmp_path, tmp_path / "out", [CREPE.key]).status == 0
    told = capsys.readouterr().out
    assert "average" not in told and "sugarcrepe/swap_att  acc" in told


def test_examples_tell_which_caption_is_right(tmp_path: Path) -> None:
    folder = write_captioned(tmp_path, CREPE, as_json(selection_samples(9)), shards=1)
    items = list(read_examples(folder / "test" / "0.tar", frozenset({"choices"}), 0))
    assert all(isinstance(item, Example) and item.captions[item.label].endswith(" 0") for item in items)


# --- two pictures, two captions ---


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_clip_benchmarks_ties_and_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = np.eye(4, dtype=np.float32)[rng.integers(0, 4, (2, 300, 2))]
    scores = similarities(torch.from_numpy(images), torch.from_numpy(texts)).reshape(-1, 4).numpy()
    found = metrics(WINOGROUND, pa.table({name: scores[:, place] for place, name in enumerate(SIMILARITIES)}))
    theirs = theirs_of(images, texts)
    assert {name: found[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)
    assert found["text_score"] < found["text_acc"] and found["group_score"] < found["acc"], "there have to be ties"


def plain_scores(images: npt.NDArray[Any], texts: npt.NDArray[Any]) -> dict[str, float]:
    """Text, image and group score, sample by sample, as the paper defines them."""
    hits = []
    for (i0, i1), (c0, c1) in zip(images, texts, strict=True):
        text = c0 @ i0 > c1 @ i0 and c1 @ i1 > c0 @ i1
        image = c0 @ i0 > c0 @ i1 and c1 @ i1 > c1 @ i0
        hits.append((text, image, text and image))
    return dict(zip(("text_score", "image_score", "group_score"), np.mean(hits, axis=0).tolist(), strict=True))


def test_winoground_is_the_reference(
    tmp_path: Path, checkpoint: Path, reference: tuple[torch.nn.Module, Any, Any]
) -> None:
    model, transform, tokenizer = reference
    samples = pair_samples(50)
    write_captioned(tmp_path, WINOGROUND, samples, shards=3)
    ours = scored(checkpoint, tmp_path, tmp_path / "out", ["winoground"], batch_size=7)
    line, rows = ours.line("winoground"), ours.predictions["winoground"]
    images, texts = [], []
    for _, members in samples:
        pictures = [Image.open(io.BytesIO(members[name])).convert("RGB") for name in sorted(members) if name != "txt"]
        with torch.no_grad():
            images.append(model.encode_image(torch.stack([transform(one) for one in pictures]), normalize=True))
            texts.append(model.encode_text(tokenizer(members["txt"].decode().split("\n")), normalize=True))
    both = torch.stack(images).numpy(), torch.stack(texts).numpy()
    scores = np.stack([rows[name] for name in SIMILARITIES], axis=1)
    assert scores == pytest.approx(np.einsum("nid,ncd->nic", *both).reshape(-1, 4), abs=1e-5)
    told = [number for number in range(50) if number % 9 not in (4, 7)]  # the others have equal captions or pictures
    assert all(row["c0_i0"] == row["c1_i0"] for row in pa.table(rows).to_pylist()[4::9])
    assert all(row["c0_i0"] == row["c0_i1"] for row in pa.table(rows).to_pylist()[7::9])
    plain = {name: value * len(told) / 50 for name, value in plain_scores(both[0][told], both[1][told]).items()}
    found = line["metrics"]
    assert found["group_score"] == found["main_metric"] == pytest.approx(plain["group_score"])
    assert found["text_score"] >= plain["text_score"] - 1e-9 and found["image_score"] >= plain["image_score"] - 1e-9
    assert rows["key"] == [key for key, _ in samples] and line["samples"] == 50
    assert 0 < found["text_score"] < 1 and 0 < found["image_score"] < 1


def test_a_limit_counts_pairs_and_a_bad_picture_takes_its_pair(tmp_path: Path, checkpoint: Path) -> None:
    samples = pair_samples(12)
    samples[1][1]["1.png"] = samples[1][1].pop(next(name for name in samples[1][1] if name.startswith("1.")))[:40]
    del samples[2][1][next(name for name in samples[2][1] if name.startswith("0."))]
    write_captioned(tmp_path, WINOGROUND, samples, shards=1)
    outcome = scored(checkpoint, tmp_path, tmp_path / "out", ["winoground"], limit=6)
    assert outcome.predictions["winoground"]["key"] == [f"s{number:07d}" for number in (0, 3, 4, 5)]
    told = [(bad["key"], bad["reason"].split(" ")[0]) for bad in outcome.line("winoground")["bad"]]
    assert told == [("s0000001/1", "the"), ("s0000002", "no")] and outcome.status == 1


def test_verify_counts_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_captioned(tmp_path, WINOGROUND, pair_samples(8), shards=2)
    assert verify([WINOGROUND.model_copy(update={"samples": 8})], tmp_path, images=True, jobs=1) == 0
    assert "winoground: ok, 8 samples" in capsys.readouterr().out


@pytest.mark.parametrize("text", [b"one", b"one\n\ntwo", b"a\nb\nc", b" \nb"])
def test_pairs_have_two_captions(text: bytes, tmp_path: Path) -> None:
    members = {"0.png": picture(0)[1], "1.png": picture(1)[1], "txt": text}
    folder = write_captioned(tmp_path, WINOGROUND, [("s", members)], shards=1)
    with pytest.raises(UserError, match=r"0\.tar: s\.txt has to hold two captions"):
        list(read_examples(folder / "test" / "0.tar", frozenset({"pairs"}), 0))


def test_pairs_have_captions_in_utf_8(tmp_path: Path) -> None:
    members = {"0.png": picture(0)[1], "1.png": picture(1)[1], "txt": b"caf\xe9\ntea"}
    folder = write_captioned(tmp_path, WINOGROUND, [("s", members)], shards=1)
    with pytest.raises(UserError, match=r"0\.tar: s\.txt is not UTF-8 text"):
        list(read_examples(folder / "test" / "0.tar", frozenset({"pairs"}), 0))


def test_similarities_that_are_no_numbers() -> None:
    table: dict[str, Any] = {name: [0.5, 0.1] for name in SIMILARITIES}
    assert metrics(WINOGROUND, pa.table(table))["text_acc"] == 0
    for wrong in ([None, 0.1], [float("nan"), 0.1]):
        with pytest.raises(ValueError, match="similarity"):
            metrics(WINOGROUND, pa.table({**table, "c1_i0": pa.array(wrong, pa.float64())}))


# --- several labels ---


def of_scores(scores: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Our metric of scores and labels, [n, classes] both."""
    labels = pa.array([np.flatnonzero(row).tolist() for row in truth], pa.list_(pa.int64()))
    found = metrics(VOC, pa.table({"labels": labels, "scores": scores.tolist()}))["main_metric"]
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_clip_benchmarks_and_scikit_learns(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """clip_benchmark leaves the order of equal scores to torch.sort, which keeps theirs where it is told to."""
    sort = torch.sort
    monkeypatch.setattr(torch, "sort", lambda x, dim, descending: sort(x, dim=dim, descending=descending, stable=True))
    rng = np.random.default_rng(seed)
    truth = rng.random((120, 7)) < 0.25
    truth[:, 3] = seed % 2 == 0  # a class that every picture shows, or none
    truth[5] = False
    smooth, coarse = rng.random((120, 7)), rng.integers(0, 6, (120, 7)) / 4
    for scores in (smooth, coarse):  # the second with equal ones
        theirs = zeroshot_classification.average_precision_per_class(torch.tensor(scores), torch.tensor(truth))
        assert of_scores(scores, truth) == pytest.approx(theirs.mean().item(), abs=1e-6)
    there = truth.any(axis=0)
    expected = [average_precision_score(truth[:, one], smooth[:, one]) for one in np.flatnonzero(there)]
    assert of_scores(smooth, truth) == pytest.approx(sum(expected) / 7, abs=1e-12)


def test_several_labels_are_the_reference(
    tmp_path: Path, checkpoint: Path, reference: tuple[torch.nn.Module, Any, Any]
) -> None:
    model, transform, tokenizer = reference
    samples, truth = multilabel_samples(60, 20)
    folder = write_multilabel(tmp_path, VOC, samples)
    ours = scored(checkpoint, tmp_path, tmp_path / "out", [VOC.key])
    line, rows = ours.line(VOC.key), ours.predictions[VOC.key]
    dataset = build_wds_dataset(VOC.key, transform, data_dir=str(folder))
    loader = torch.utils.data.DataLoader(dataset.batched(32), batch_size=None)
    loader.dataset.classes, loader.dataset.templates = dataset.classes, dataset.templates
    theirs = zeroshot_classification.evaluate(
        model, loader, tokenizer, dataset.classes, dataset.templates, "cpu", amp=False
    )
    assert line["metrics"] == pytest.approx({**theirs, "main_metric": theirs["mean_average_precision"]}, abs=1e-5)
    assert rows["labels"] == [np.flatnonzero(row).tolist() for row in truth] and [] in rows["labels"]
    assert np.shape(rows["scores"]) == (60, 20) and line["stderr"] > 0
    assert line["deviations"][0] == "60 samples, pinned at 4952"


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.ones(19), r"s\.npy is of the shape \(19,\), but there are 20 class names"),
        (np.ones((20, 1)), "is of the shape"),
        (np.arange(20), "holds something else than 1 and 0"),
        (np.full(20, np.nan), "holds something else than 1 and 0"),
    ],
)
def test_labels_that_cannot_be_read(vector: npt.NDArray[Any], message: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, vector)
    members = {"png": picture(0)[1], "npy": buffer.getvalue()}
    folder = write_multilabel(tmp_path, VOC, [("s", members)], shards=1)
    with pytest.raises(UserError, match=message):
        list(read_examples(folder / "test" / "0.tar", frozenset({"labels"}), 20))
    with pytest.raises(UserError, match=r"sample s has no \.npy"):
        folder = write_multilabel(tmp_path, VOC, [("s", {"png": picture(0)[1], "cls": b"1"})], shards=1)
        list(read_examples(folder / "test" / "0.tar", frozenset({"labels"}), 20))


def test_several_labels_are_no_single_one(tmp_path: Path) -> None:
    folder = write_multilabel(tmp_path, VOC, multilabel_samples(4, 20)[0], shards=1)
    with pytest.raises(UserError, match="holds pictures with several labels, not with one"):
        open_labelled(folder, "test")
    (folder / "dataset_type.txt").write_text("classification")
    with pytest.raises(UserError, match="has to say 'multilabel' for a multilabel task"):
        open_data(VOC, tmp_path)


def test_verify_tells_which_classes_no_picture_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, truth = multilabel_samples(4, 20)
    write_multilabel(tmp_path, VOC, samples, shards=2)
    verify([VOC.model_copy(update={"samples": 4})], tmp_path, images=True, jobs=1)
    empty = 20 - truth.any(axis=0).sum()
    assert empty and f"4 samples, 20 classes, {empty} classes without a sample" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([[2], []], [[0.1, 0.2]] * 2), ([[0], []], [[0.1, 0.2], [0.3]]), ([[-1], []], [[0.1, 0.2]] * 2)],
)
def test_tables_of_labels_that_no_evaluator_writes(labels: Any, scores: Any) -> None:
    with pytest.raises(ValueError, match=r"labels|scores"):
        metrics(VOC, pa.table({"labels": labels, "scores": scores}))
    with pytest.raises(ValueError, match="no number"):
        metrics(VOC, pa.table({"labels": [[0]], "scores": [[0.1, float("nan")]]}))
