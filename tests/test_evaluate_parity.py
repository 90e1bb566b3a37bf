"""Evaluation against the reference implementation (CLIP_benchmark) and against plain float64 code."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pyarrow as pa
import pytest
import scipy.stats
import torch
from clip_benchmark.datasets.builder import build_wds_dataset, image_captions_collate_fn
from clip_benchmark.metrics import zeroshot_retrieval
from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier
from evalsets import (
    MODEL,
    classification_samples,
    encoded,
    noise,
    picture,
    retrieval_samples,
    scored,
    write_classification,
    write_parquet,
    write_retrieval,
)
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from poolbench.models.clip import load
from poolbench.models.transforms import Pixels, Scale, evaluation_transform

from evaluate.embedder import OpenClip
from evaluate.encoder import Encoder
from evaluate.evaluators.classification import certainty_of, rank_of
from evaluate.evaluators.retrieval import rank
from evaluate.metrics import classification, retrieval
from tasks.registry import load_tasks

CPU = torch.device("cpu")
FLICKR = load_tasks()["retrieval/flickr_1k_test_image_text_retrieval"]


@pytest.fixture
def reference(checkpoint: Path) -> tuple[torch.nn.Module, Any, Any]:
    """Model, transform and tokenizer as a user of open_clip gets them."""
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    return model.eval(), transform, open_clip.get_tokenizer(MODEL)


# 10 classes; 37 classes and mean per class recall; 4 classes, so that there is no top 5.
@pytest.mark.parametrize("key", ["vtab/eurosat", "vtab/pets", "vtab/kitti_closest_vehicle_distance"])
def test_classification_is_the_reference(
    key: str, tmp_path: Path, checkpoint: Path, reference: tuple[torch.nn.Module, Any, Any]
) -> None:
    model, transform, tokenizer = reference
    task = load_tasks()[key]
    assert task.classes is not None
    folder = write_classification(tmp_path, task, classification_samples(90, task.classes))
    ours = scored(checkpoint, tmp_path, tmp_path / "out", [key])

    dataset = build_wds_dataset(key, transform, data_dir=str(folder))
    weights = zero_shot_classifier(model, tokenizer, dataset.classes, dataset.templates, "cpu", amp=False)
    loader = torch.utils.data.DataLoader(dataset.batched(32), batch_size=None)
    scores, labels = run_classification(model, weights, loader, "cpu", amp=False)
    logits, target = scores.double().numpy(), labels.numpy()
    predictions = logits.argmax(axis=1)
    top5 = (np.argsort(-logits, axis=1, kind="stable")[:, :5] == target[:, None]).any(axis=1)

    assert len(set(predictions.tolist())) > 2, "the model has to tell pictures apart for this test to mean anything"
    assert ours.predictions[key]["prediction"] == predictions.tolist()
    assert ours.predictions[key]["label"] == target.tolist()
    assert ours.predictions[key]["top5"] == (top5.tolist() if task.classes >= 5 else [None] * 90)
    scale = float(torch.load(checkpoint)["state_dict"]["logit_scale"].double().exp())
    for name, values in plain_certainty(logits / 100 * scale, predictions).items():
        assert ours.predictions[key][name] == pytest.approx(values, abs=2e-5), name
    metrics = ours.line(key)["metrics"]
    assert metrics["acc1"] == pytest.approx(np.mean(predictions == target), abs=1e-6)
    assert metrics["mean_per_class_recall"] == pytest.approx(balanced_accuracy_score(target, predictions), abs=1e-6)
    if task.classes < 5:
        assert metrics["acc5"] is None
    else:
        assert metrics["acc5"] == pytest.approx(top5.mean(), abs=1e-6)
    assert metrics["main_metric"] == metrics[task.main_metric or ""]


def plain_certainty(logits: npt.NDArray[np.float64], predictions: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The columns by plain float64 code."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    ordered = np.sort(shares, axis=1)[:, ::-1]
    return {
        "confidence": shares[np.arange(len(shares)), predictions],
        "margin": ordered[:, 0] - ordered[:, 1],
        "entropy": scipy.stats.entropy(shares, axis=1),
    }


def test_how_sure_a_model_is_with_ties_one_class_and_no_doubt() -> None:
    rng = np.random.default_rng(0)
    logits = np.float32(rng.normal(size=(50, 7)) * 5)
    logits[0] = 3  # all alike
    logits[1] = [1, 9, 9, 0, 0, 0, 0]  # two alike
    logits[2] = [300, 0, 0, 0, 0, 0, 0]  # nothing is left of the others in float32
    predictions = logits.argmax(axis=1)
    found = certainty_of(torch.from_numpy(logits), torch.from_numpy(predictions)).numpy()
    expected = plain_certainty(logits.astype(np.float64), predictions)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, list(expected.values()), rtol=0, atol=1e-6)
    assert found[1, 0] == found[1, 1] == 0 and found[2, 0] == pytest.approx(np.log(7))
    assert found[:, 2].tolist() == [1, 1, 0]
    one = certainty_of(torch.tensor([[-4.0], [7.0]]), torch.zeros(2, dtype=torch.int64))
    assert one.tolist() == [[1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize("form", ["tars", "parquet"])
def test_retrieval_is_the_reference(
    form: str, tmp_path: Path, checkpoint: Path, reference: tuple[torch.nn.Module, Any, Any]
) -> None:
    model, transform, tokenizer = reference
    samples = retrieval_samples(50)
    folder = write_retrieval(tmp_path / "tars", FLICKR, samples)
    write_parquet(tmp_path / "parquet" / FLICKR.folder / "0.parquet", samples[:21])
    write_parquet(tmp_path / "parquet" / FLICKR.folder / "1.parquet", samples[21:])
    ours = scored(checkpoint, tmp_path / form, tmp_path / "out", [FLICKR.key])

    dataset = build_wds_dataset(FLICKR.key, transform, data_dir=str(folder))
    loader = torch.utils.data.DataLoader(dataset, batch_size=50, collate_fn=image_captions_collate_fn)
    theirs = zeroshot_retrieval.evaluate(model, loader, tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10])
    metrics = dict(ours.line(FLICKR.key)["metrics"])
    assert metrics.pop("main_metric") == metrics["mean_recall@1"]
    mean = (theirs["image_retrieval_recall@1"] + theirs["text_retrieval_recall@1"]) / 2
    assert metrics == pytest.approx({**theirs, "mean_recall@1": mean}, abs=1e-6)
    assert 0 < metrics["image_retrieval_recall@5"] < 1 and 0 < metrics["text_retrieval_recall@10"] < 1
    rows = ours.predictions[FLICKR.key]
    assert rows["captions"] == [members["txt"].decode().split("\n") for _, members in samples]
    for captions, text_rank, top in zip(rows["captions"], rows["text_rank"], rows["top_captions"], strict=True):
        assert len(top) == 3
        first = next((place for place, caption in enumerate(top, start=1) if caption in captions), None)
        assert text_rank == first or (first is None and text_rank > 3)


@pytest.mark.parametrize("seed", range(4))
def test_retrieval_ranks_are_the_plain_float64_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, 700)  # more than one chunk of queries
    images, texts = rng.standard_normal((700, 8)), rng.standard_normal((counts.sum(), 8))
    if seed == 0:
        images[5], texts[3] = images[6], texts[2]  # equal scores: the earlier one ranks first
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
    ranks = rank(torch.from_numpy(images), torch.from_numpy(texts), counts)
    owners = np.repeat(np.arange(700), counts)
    order = np.argsort(-(texts @ images.T), axis=1, kind="stable")
    assert (ranks.image == [list(row).index(owner) for row, owner in zip(order, owners, strict=True)]).all()
    order = np.argsort(-(images @ texts.T), axis=1, kind="stable")
    assert (ranks.text == [np.flatnonzero(owners[row] == image)[0] for image, row in enumerate(order)]).all()
    assert (owners[ranks.best] == np.arange(700)).all()
    assert (np.take_along_axis(order, ranks.text[:, None], 1)[:, 0] == ranks.best).all()
    assert (ranks.top == order[:, :3]).all()
    split = [part.tolist() for part in np.split(ranks.image + 1, np.cumsum(counts)[:-1])]
    for name, value in retrieval.metrics(FLICKR, pa.table({"text_rank": ranks.text + 1, "image_ranks": split})).items():
        direction, k = name.split("_")[0], int(name.split("@")[1])
        expected = {
            "image": np.mean(ranks.image < k),
            "text": np.mean(ranks.text < k),
            "mean": (np.mean(ranks.image < 1) + np.mean(ranks.text < 1)) / 2,
        }[direction]
        assert value == pytest.approx(expected, abs=1e-12)


def test_equal_scores_rank_by_column() -> None:
    scores = torch.tensor([[2.0, 2.0, 1.0, 2.0]] * 4)
    assert rank_of(scores, torch.arange(4)).tolist() == [0, 1, 3, 2]
    assert scores.argmax(dim=1).tolist() == [0] * 4


@pytest.mark.parametrize("seed", range(5))
def test_mean_per_class_recall_is_balanced_accuracy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, 9, (2, 60)) * 2  # classes that never occur, in labels or predictions
    labels[labels == 4] = 6
    present = labels.max() + 2
    predictions = np.minimum(predictions, present)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(labels, predictions)
    table = pa.table({"label": labels, "prediction": predictions})
    assert classification.mean_per_class_recall(table).value() == pytest.approx(expected, abs=1e-12)


def test_pixels_are_those_of_open_clips_transform(
    checkpoint: Path, reference: tuple[torch.nn.Module, Any, Any]
) -> None:
    _, transform, _ = reference
    model = load(MODEL, str(checkpoint))
    pixels, scale = Pixels(evaluation_transform(model)), Scale(evaluation_transform(model))
    for number in range(20):
        _, data = picture(number)
        with Image.open(io.BytesIO(data)) as image:
            expected = transform(image.convert("RGB"))
        assert torch.equal(scale(pixels(data)[None])[0], expected), number


def test_orientation_is_not_applied_and_alpha_is_dropped(checkpoint: Path) -> None:
    pixels = Pixels(evaluation_transform(load(MODEL, str(checkpoint))))
    upright = pixels(encoded(Image.fromarray(noise(15)), "PNG")).float()
    tagged = pixels(picture(15)[1]).float()  # a JPEG whose EXIF data say to turn it
    assert (tagged - upright).abs().mean() < 6  # JPEG's loss only; a turned picture differs by far more
    assert (tagged - upright.transpose(1, 2).flip(2)).abs().mean() > 20
    rgba = noise(11, channels=4)
    with_alpha, without = (encoded(Image.fromarray(pixel), "PNG") for pixel in (rgba, rgba[..., :3].copy()))
    assert torch.equal(pixels(with_alpha), pixels(without))


def test_the_classifier_is_the_normalised_mean_of_normalised_prompts(checkpoint: Path) -> None:
    model: Any = load(MODEL, str(checkpoint))
    encoder = Encoder(OpenClip(model, MODEL, CPU, "fp32", 3))
    names, templates = ["dog", "cat", "dog", "{c}"], ["a {c}", "{c} and {c}", "no class, but {c}"]
    weights = encoder.classifier(names, templates).double().numpy()
    again = encoder.classifier(names[1:], templates).double().numpy()
    tokenizer = open_clip.get_tokenizer(MODEL)
    for column, name in enumerate(names):
        prompts = [f"a {name}", f"{name} and {name}", f"no class, but {name}"]
        with torch.no_grad():
            vectors = model.encode_text(tokenizer(prompts)).double().numpy()
        mean = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).mean(axis=0)
        assert weights[:, column] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert np.array_equal(again, weights[:, 1:])


TEXTS = ["", "a", "dog", "a photo of a dog, on a very long road to nowhere", "word " * 200, "dog", "été, naïve ☃"]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_short_texts_are_encoded_as_if_padded(batch_size: int, checkpoint: Path) -> None:
    model: Any = load(MODEL, str(checkpoint))
    encoder = Encoder(OpenClip(model, MODEL, CPU, "fp32", batch_size))
    lengths: list[int] = []
    encode = model.token_embedding.register_forward_hook(lambda _, args, __: lengths.append(args[0].shape[1]))
    ours = encoder.encode_texts(TEXTS)
    encode.remove()
    assert max(lengths) == model.context_length and (min(lengths) < 20 or batch_size == 100)
    with torch.no_grad():
        theirs = model.encode_text(open_clip.get_tokenizer(MODEL)(TEXTS), normalize=True)
    assert (ours - theirs).abs().max() < 1e-6
    assert torch.equal(ours[2], ours[5])


@pytest.mark.parametrize("change", ["no mask", "other pooling", "other class"])
def test_towers_that_look_at_the_padding_get_it(change: str, checkpoint: Path) -> None:
    model: Any = load(MODEL, str(checkpoint))
    if change == "no mask":
        model.attn_mask = None
    if change == "other pooling":
        model.text_pool_type = "last"
    if change == "other class":
        config = open_clip.get_model_config(MODEL)
        model = open_clip.CustomTextCLIP(**config).eval()
    encoder = Encoder(OpenClip(model, MODEL, CPU, "fp32", 2))
    with torch.no_grad():
        theirs = model.encode_text(open_clip.get_tokenizer(MODEL)(TEXTS), normalize=True)
    assert (encoder.encode_texts(TEXTS) - theirs).abs().max() < 1e-6


def test_prompts_of_all_tasks_are_encoded_once_and_together(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(OpenClip(load(MODEL, str(checkpoint)), MODEL, CPU, "fp32", 64))
    plain = [encoder.classifier(["dog", "cat"], ["a {c}", "the {c}"]), encoder.classifier(["cow", "dog"], ["a {c}"])]
    encoder = Encoder(OpenClip(load(MODEL, str(checkpoint)), MODEL, CPU, "fp32", 64))
    encode, seen = OpenClip.texts, []
    monkeypatch.setattr(OpenClip, "texts", lambda self, texts: (seen.append(list(texts)), encode(self, texts))[1])
    wanted = [(["dog", "cat"], ["a {c}", "the {c}"]), (["cow", "dog"], ["a {c}"]), (["dog"], ["a {c}", "the {c}"])]
    encoder.prepare(wanted)
    assert len(seen) == 1 and sorted(seen[0]) == sorted({"a dog", "a cat", "the dog", "the cat", "a cow"})
    monkeypatch.setattr("evaluate.encoder.PROMPTS_AT_ONCE", 2)
    for (names, templates), expected in zip(wanted, plain, strict=False):
        assert (encoder.classifier(names, templates) - expected).abs().max() < 1e-6
    assert len(seen) == 1
    encoder.prepare([(["x", "y", "z"], ["{c}"])])
    assert [len(texts) for texts in seen[1:]] == [2, 1]
