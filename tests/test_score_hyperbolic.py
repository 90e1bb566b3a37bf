"""Scoring by a hyperbolic CLIP: the numbers against float64 ones of our own, the references, the published layout of
checkpoints, and wrong commands."""

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from evalsets import MODEL, write_checkpoint
from PIL import Image
from pools import uid_of, write_tar
from scoring import run as run_as_it_is
from scoring import table_of, varied
from test_hyperbolic import published

from poolbench.errors import UserError
from poolbench.models.clip import create, load_hyperbolic
from poolbench.models.towers import Towers
from poolbench.shards.sources import resolve

from curate.models.references import drawn
from curate.scorers.registry import schema

LOGARITHMS = {"curvature": 0.4, "alpha_img": -1.9, "alpha_txt": -2.2}
COLUMNS = [f"hype_b32_{name}" for name in ("distance", "image_specificity", "text_specificity", "cosine")]
WIDTH = 64


def run(pool: Path | str, checkpoint: Path, out: Path, **options: Any) -> int:
    return run_as_it_is(pool, checkpoint, out, **{"objective": "hyperbolic", **options})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))


def write_hyperbolic(path: Path, plain: Path, **changes: float) -> Path:
    """A checkpoint of the weights of another, as training by objective=hyperbolic leaves them."""
    weights = torch.load(plain, weights_only=True)["state_dict"]
    learned = {name: torch.tensor(value) for name, value in {**LOGARITHMS, **changes}.items()}
    torch.save({"step": 1, "name": MODEL, "state_dict": weights, "hyperbolic": learned, "cursors": {}}, path)
    return path


def write_pool(folder: Path, *sizes: int) -> Path:
    first = 0
    for number, size in enumerate(sizes):
        samples = ((f"{one:08d}", varied(one)) for one in range(first, first + size))
        write_tar(folder / f"{number:05d}.tar", samples)
        first += size
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/ of 20 samples, plain.pt, model.pt, reference.npz and, in scores/, what scoring gives."""
    root = tmp_path_factory.mktemp("hyperbolic")
    write_pool(root / "pool", 12, 8)
    write_hyperbolic(root / "model.pt", write_checkpoint(root / "plain.pt"))
    draw = np.random.default_rng(0)
    images, texts = (draw.normal(size=(rows, WIDTH)) * 0.1 for rows in (9, 5))
    np.savez(root / "reference.npz", img=images, txt=texts.astype("f4"))
    assert run(root / "pool", root / "model.pt", root / "scores", reference=root / "reference.npz") == 0
    return root


def features(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of the pool's pictures and captions, float64 [20, d], by open_clip alone, times their scales."""
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(root / "plain.pt"))
    model.eval()
    images, texts = [], []
    for number in range(20):
        members = varied(number)
        picture = next(members[kind] for kind in ("png", "jpg", "webp") if kind in members)
        with torch.no_grad():
            images.append(model.encode_image(transform(Image.open(io.BytesIO(picture)))[None])[0].double().numpy())
            texts.append(
                model.encode_text(open_clip.get_tokenizer(MODEL)([members["txt"].decode()]))[0].double().numpy()
            )
    return np.stack(images) * np.exp(-1.9), np.stack(texts) * np.exp(-2.2)


def published_formulas(v: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance and entailment of each with each, [n, m]."""
    c = np.exp(0.4)

    def lifted(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        length = np.sqrt(c) * np.linalg.norm(u, axis=1, keepdims=True)
        space = np.sinh(length) * u / length
        return space, np.sqrt(1 / c + (space**2).sum(1))

    (x, x_time), (y, y_time) = lifted(v), lifted(w)
    inner, length = c * (x @ y.T - np.outer(x_time, y_time)), np.linalg.norm(x, axis=1)
    angle = np.arccos((y_time[None] + x_time[:, None] * inner) / (length[:, None] * np.sqrt(inner**2 - 1)))
    return np.arccosh(-inner) / np.sqrt(c), angle - np.arcsin(np.minimum(1, 0.2 / (np.sqrt(c) * length)))[:, None]


def scores_of(folder: Path, samples: int = 20) -> np.ndarray:
    """[samples, 4]"""
    rows = table_of(folder)
    return np.array([[rows[uid_of(number)][name] for name in COLUMNS] for number in range(samples)])


def test_scores_are_hypes(root: Path) -> None:
    images, texts = features(root)
    reference = np.load(root / "reference.npz")
    cosine = (images * texts).sum(1) / np.linalg.norm(images, axis=1) / np.linalg.norm(texts, axis=1)
    expected = [
        np.diagonal(published_formulas(images, texts)[0]),
        published_formulas(reference["txt"].astype(np.float64), images)[1].mean(0),
        published_formulas(texts, reference["img"])[1].mean(1),
        cosine,
    ]
    found = scores_of(root / "scores")
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=2e-5, rtol=2e-5)
    assert (np.ptp(found, axis=0) > 0.01).all()  # a test of something


def test_scores_depend_on_the_samples_alone(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"reference": root / "reference.npz"}
    for part in ("1/2", "2/2"):
        assert run(root / "pool", root / "model.pt", tmp_path / "out", batch_size=3, workers=1, part=part, **words) == 0
    np.testing.assert_allclose(scores_of(tmp_path / "out"), scores_of(root / "scores"), atol=2e-6)
    capsys.readouterr()
    assert run(root / "pool", root / "model.pt", tmp_path / "out", **words) == 0
    assert "0 of 2 shards to score" in capsys.readouterr().out
    np.savez(tmp_path / "other.npz", img=np.ones((1, WIDTH)), txt=np.ones((1, WIDTH)))
    with pytest.raises(UserError, match="holds scores of another options; "):
        run(root / "pool", root / "model.pt", tmp_path / "out", reference=tmp_path / "other.npz")


def test_references_of_torch_are_those_of_numpy(root: Path, tmp_path: Path) -> None:
    stored = np.load(root / "reference.npz")
    torch.save({key: torch.from_numpy(stored[key]) for key in ("img", "txt")}, tmp_path / "reference.pt")
    assert run(root / "pool", root / "model.pt", tmp_path / "out", reference=tmp_path / "reference.pt") == 0
    np.testing.assert_array_equal(scores_of(tmp_path / "out"), scores_of(root / "scores"))


def test_references_are_drawn_of_shards_however_they_are_cut(root: Path, tmp_path: Path) -> None:
    """And the pool as its own reference gives what its features as a file do."""
    images, texts = features(root)
    np.savez(tmp_path / "all.npz", img=images, txt=texts)
    whole = write_pool(tmp_path / "whole", 20)
    for name, reference, size in (
        ("file", tmp_path / "all.npz", 5000), ("all", root / "pool", 5000),
        ("cut", root / "pool", 6), ("uncut", whole, 6), ("seed", whole, 6),
    ):  # fmt: skip
        more = {"reference_samples": size, "reference_seed": int(name == "seed")}
        assert run(root / "pool", root / "model.pt", tmp_path / name, reference=reference, **more) == 0
    found = {name: scores_of(tmp_path / name) for name in ("file", "all", "cut", "uncut", "seed")}
    np.testing.assert_allclose(found["all"], found["file"], atol=1e-5)
    np.testing.assert_allclose(found["uncut"], found["cut"], atol=1e-6)
    assert abs(found["cut"] - found["all"])[:, 1:3].max() > 1e-4
    assert abs(found["seed"] - found["cut"])[:, 1:3].max() > 1e-4
    few = drawn(resolve(str(whole)), 6, 0)
    assert few == drawn(resolve(str(root / "pool")), 6, 0) and drawn(resolve(str(whole)), 3, 0) == few[:3]
    assert len(drawn(resolve([str(whole), str(root / "pool")]), 50, 0)) == 20  # a uid that stands twice counts once


def test_references_are_embedded_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(root / "pool", root / "model.pt", tmp_path / "a", reference=root / "pool") == 0
    monkeypatch.setattr("curate.models.references.drawn", lambda *_: pytest.fail("drawn again"))
    assert run(root / "pool", root / "model.pt", tmp_path / "b", reference=root / "pool") == 0
    np.testing.assert_array_equal(scores_of(tmp_path / "a"), scores_of(tmp_path / "b"))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_in_the_published_layout_load(root: Path, tmp_path: Path, prefix: str) -> None:
    """As naver-ai/hype has them: one flat state dict, the three logarithms among the weights."""
    weights = torch.load(root / "plain.pt", weights_only=True)["state_dict"]
    flat = {**weights, **{name: torch.tensor(value) for name, value in LOGARITHMS.items()}}
    torch.save({prefix + name: value for name, value in flat.items()}, tmp_path / "hype.pt")
    model, learned = load_hyperbolic(MODEL, str(tmp_path / "hype.pt"))
    assert [value.log().item() for value in learned] == pytest.approx(list(LOGARITHMS.values()))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert norms and {module.eps for module in norms} == {torch.finfo(torch.float32).eps}
    assert run(root / "pool", tmp_path / "hype.pt", tmp_path / "out", reference=root / "reference.npz") == 0
    np.testing.assert_allclose(scores_of(tmp_path / "out"), scores_of(root / "scores"), atol=1e-3)


def test_features_are_those_of_the_published_model(tmp_path: Path) -> None:
    """Of a small one with random weights, by naver-ai/hype's own model.py."""
    vision = {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8}  # unlike any other model of the tests
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    theirs = published("model").CLIP(WIDTH, vision, text).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    torch.save(theirs.state_dict(), tmp_path / "hype.pt")
    config = {"embed_dim": WIDTH, "vision_cfg": {**vision, "head_width": 64}, "text_cfg": text}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "test-hype.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")
    model, learned = load_hyperbolic("test-hype", str(tmp_path / "hype.pt"))
    towers = Towers(model, torch.device("cpu"), "fp32", unit=False)
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (model.visual.image_mean, model.visual.image_std))
    tokens = open_clip.get_tokenizer("test-hype")(["a dog", "two cats sit on a mat", "x"])
    with torch.no_grad():
        images = theirs.encode_image((pictures / 255 - mean) / std)
        texts = theirs.encode_text(tokens)
    assert images.abs().max() > 0.01
    torch.testing.assert_close(towers.images(pictures) * learned.alpha_img.float(), images, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(towers.captions(tokens) * learned.alpha_txt.float(), texts, atol=1e-6, rtol=1e-4)


def told(root: Path, tmp_path: Path, **options: Any) -> str:
    words = {"pool": root / "pool", "checkpoint": root / "model.pt", "reference": root / "reference.npz", **options}
    with pytest.raises(UserError) as caught:
        run(words.pop("pool"), words.pop("checkpoint"), tmp_path / "out", **words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_wrong_model_is_one_line(root: Path, tmp_path: Path) -> None:
    assert told(root, tmp_path, checkpoint=root / "plain.pt").endswith(
        "plain.pt is of no hyperbolic CLIP: it has no curvature, no alpha_img, no alpha_txt"
    )
    with pytest.raises(UserError, match=r"model.pt is of a hyperbolic CLIP; objective=hyperbolic scores by it$"):
        run_as_it_is(root / "pool", root / "model.pt", tmp_path / "out")
    for name, value in (("curvature", math.nan), ("alpha_txt", math.inf), ("curvature", -1000.0)):
        bad = write_hyperbolic(tmp_path / "bad.pt", root / "plain.pt", **{name: value})
        assert f"bad.pt: its {name} is exp({value:g}); did its training diverge?" in told(
            root, tmp_path, checkpoint=bad
        )
    assert not list((tmp_path / "out").glob("*"))


def test_a_wrong_reference_is_one_line(root: Path, tmp_path: Path) -> None:
    def stored(**arrays: Any) -> Path:
        np.savez(tmp_path / "wrong.npz", **arrays)
        return tmp_path / "wrong.npz"

    good, holed = np.ones((2, WIDTH)), np.ones((2, WIDTH))
    holed[1, 3] = np.nan
    (tmp_path / "cut.npz").write_bytes((root / "reference.npz").read_bytes()[:300])
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"img": torch.ones(2, WIDTH), "txt": [1]}, tmp_path / "odd.pt")
    (tmp_path / "empty").mkdir()
    for reference, says in (
        (None, "reference= is needed: a .pt or .pth or .npz with features img and txt, or shards of samples"),
        (tmp_path / "none.npz", "none.npz is not there"),
        (stored(img=good), "wrong.npz has no txt: it needs img and txt, and holds img"),
        (tmp_path / "cut.npz", "cut.npz cannot be read: "),
        (tmp_path / "cut.pt", "cut.pt cannot be read: "),
        (tmp_path / "list.pt", "list.pt holds a list; it needs img and txt by name"),
        (tmp_path / "odd.pt", "odd.pt: txt is list; it is a matrix of floats, a feature a row"),
        (tmp_path / "empty", "reference=" + str(tmp_path / "empty") + ": no .tar in it"),
    ):
        assert says in told(root, tmp_path, reference=reference)
    for arrays, says in (
        ({"img": good, "txt": np.ones((2, 7))}, "wrong.npz: txt has 7 numbers a row, the model's features 64"),
        ({"img": good, "txt": holed}, "wrong.npz: txt holds features that are no numbers"),
        (
            {"img": good[:0], "txt": good},
            "wrong.npz: img is float64 [0, 64]; it is a matrix of floats, a feature a row",
        ),
        ({"img": good.astype(int), "txt": good}, "wrong.npz: img is int64 [2, 64]"),
    ):
        assert says in told(root, tmp_path, reference=stored(**arrays))


def test_references_in_damaged_shards_are_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = shutil.copytree(root / "pool", tmp_path / "pool")
    data = (pool / "00001.tar").read_bytes()
    (pool / "00001.tar").write_bytes(data[: len(data) * 2 // 3])
    assert "reference=: 00001.tar" in told(root, tmp_path, reference=pool).replace(str(pool) + "/", "")
    (pool / "00001.tar").unlink()
    write_tar(pool / "00000.tar", [("a", {"txt": b"no picture", "json": json.dumps({"uid": uid_of(1)}).encode()})])
    assert "reference= has no sample that can be read; " in told(root, tmp_path, reference=pool)
    undecodable = {**varied(1), "jpg": b"GIF"}
    write_tar(pool / "00000.tar", [("a", undecodable), ("b", varied(3)), ("c", {"txt": b"no uid"})])
    assert run(root / "pool", root / "model.pt", tmp_path / "out", reference=pool) == 0
    said = capsys.readouterr().out
    assert "reference=: 1 samples cannot be read and are none of it; 00000.tar, key c: no .json with a uid" in said
    assert "reference=: 1 of 2 pictures cannot be decoded and are none of it" in said


def test_objective_says_the_scorer(root: Path, tmp_path: Path) -> None:
    assert schema(["objective=hyperbolic"]) is schema(["scorer=hyperbolic"]) is not schema([])
    assert schema(["objective=clip"]) is schema([])
    with pytest.raises(UserError, match=r"^objective=hyperbolc is not known; did you mean 'hyperbolic'"):
        schema(["objective=hyperbolc"])
    for scorer, objective in (("hyperbolic", "clip"), ("clip_similarity", "hyperbolic")):
        with pytest.raises(UserError, match=f"^objective={objective} is not what scorer={scorer} scores by"):
            run(root / "pool", root / "model.pt", tmp_path, scorer=scorer, objective=objective)
    assert "reference_samples=0: at least 1" in told(root, tmp_path, reference_samples=0)
    diverged = create(MODEL)
    with torch.no_grad():
        diverged.visual.proj.fill_(math.nan)  # type: ignore[union-attr,operator]
    torch.save({"state_dict": diverged.state_dict()}, tmp_path / "nan.pt")
    bad = write_hyperbolic(tmp_path / "diverged.pt", tmp_path / "nan.pt")
    assert "the model gives picture embeddings that are not finite numbers" in told(root, tmp_path, checkpoint=bad)
