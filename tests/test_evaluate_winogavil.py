"""WinoGAViL against scikit-learn and plain float64 code, each picture encoded once."""

import io
from pathlib import Path

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from evalsets import CUES, MODEL, encoded, noise, puzzles, scored, write_puzzles
from PIL import Image
from sklearn.metrics import jaccard_score

from evaluate.encoder import Encoder
from evaluate.evaluators.winogavil import choose, prompt_of
from evaluate.metrics.winogavil import jaccard
from tasks.registry import load_tasks

TASK = load_tasks()["misc/winogavil"]


def test_every_metric_is_the_plain_one(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = puzzles(60)
    write_puzzles(tmp_path, TASK, rows)
    encode, seen = Encoder.encode_images, []
    monkeypatch.setattr(
        Encoder, "encode_images", lambda self, images: (seen.append(len(images)), encode(self, images))[1]
    )
    ours = scored(checkpoint, tmp_path, tmp_path / "out", [TASK.key])
    assert ours.status == 0
    assert sum(seen) == len({image["path"] for row in rows for image in row["candidate_images"]}), "each once"

    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    model.eval()
    tokenizer = open_clip.get_tokenizer(MODEL)
    scores, chosen = [], []
    for row in rows:
        images = [Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in row["candidate_images"]]
        article = "An" if row["cue"].lower()[0] in "aeiou" else "A"
        with torch.no_grad():
            vectors = model.encode_image(torch.stack([transform(image) for image in images]), normalize=True)
            text = model.encode_text(tokenizer([f"{article} {row['cue'].lower()}"]), normalize=True)
        similarities = (vectors.double() @ text[0].double()).numpy()
        truth = np.isin(row["candidates"], row["associations"])
        picks = np.isin(np.arange(len(truth)), np.argsort(similarities, kind="stable")[-truth.sum() :])
        scores.append(jaccard_score(truth, picks))
        chosen.append(picks.tolist())
    sizes, values = np.array([len(row["candidates"]) for row in rows]), np.array(scores)
    assert ours.predictions[TASK.key]["chosen"] == chosen
    assert ours.predictions[TASK.key]["score"] == pytest.approx(scores, abs=1e-12)
    assert ours.line(TASK.key)["metrics"] == pytest.approx(
        {
            "avg_jaccard_score": values.mean(),
            "jaccard_score_5": values[sizes == 5].mean(),
            "jaccard_score_6": values[sizes == 6].mean(),
            "jaccard_score_10": values[sizes == 10].mean(),
            "jaccard_score_12": values[sizes == 12].mean(),
            "jaccard_score_5-6": values[sizes <= 6].mean(),
            "jaccard_score_10-12": values[sizes >= 10].mean(),
            "main_metric": values[sizes >= 10].mean(),
        },
        abs=1e-6,
    )
    assert 0 < values.mean() < 1 and ours.line(TASK.key)["stderr"] > 0


@pytest.mark.parametrize("seed", range(20))
def test_choice_and_jaccard_index(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 13))
    similarities = rng.integers(0, 4, n).astype(np.float32)  # many ties
    count = int(rng.integers(1, n + 1))
    picks = choose(torch.from_numpy(similarities), count)
    assert picks.tolist() == np.isin(np.arange(n), np.argsort(similarities, kind="stable")[-count:]).tolist()
    right = rng.permutation(np.arange(n) < count)
    assert jaccard(right.tolist(), picks.tolist()) == pytest.approx(jaccard_score(right, picks.numpy()))


def test_prompts() -> None:
    assert [prompt_of(cue) for cue in CUES[:6]] == [
        "A fire",
        "An apple",
        "An umbrella",
        "A x-ray",
        "A hour",
        "A éclair",
    ]


def test_sizes_that_do_not_occur_have_no_score(checkpoint: Path, tmp_path: Path) -> None:
    write_puzzles(tmp_path, TASK, [row for row in puzzles(12) if len(row["candidates"]) in (5, 10)])
    metrics = scored(checkpoint, tmp_path, tmp_path / "out", [TASK.key]).line(TASK.key)["metrics"]
    assert metrics["jaccard_score_6"] is None and metrics["jaccard_score_12"] is None
    assert metrics["jaccard_score_10-12"] == metrics["jaccard_score_10"] == metrics["main_metric"]


def test_what_is_wrong_with_a_puzzle_is_listed(checkpoint: Path, tmp_path: Path) -> None:
    rows = puzzles(8)
    rows[0]["cue"] = ""
    rows[1]["associations"] = ["something else"]
    rows[2]["candidates"] = rows[2]["candidates"][:-1]
    damaged = encoded(Image.fromarray(noise(77)), "PNG")[:60]
    rows[3]["candidate_images"][2] = {"bytes": damaged, "path": "x.jpg"}
    write_puzzles(tmp_path, TASK, rows, files=1)
    outcome = scored(checkpoint, tmp_path, tmp_path / "out", [TASK.key])
    line = outcome.line(TASK.key)
    assert outcome.status == 1 and line["samples"] == 4 and not line["official"]
    assert [bad["key"] for bad in line["bad"][:3]] == ["0000-0", "0000-1", "0000-2"]
    assert (
        line["bad"][3]["key"].startswith(rows[3]["candidates"][2]) and "cannot be decoded" in line["bad"][3]["reason"]
    )
    assert outcome.predictions[TASK.key]["key"] == [f"0000-{row}" for row in range(4, 8)]


def test_limit_counts_puzzles(checkpoint: Path, tmp_path: Path) -> None:
    write_puzzles(tmp_path, TASK, puzzles(9))
    outcome = scored(checkpoint, tmp_path, tmp_path / "out", [TASK.key], limit=4)
    assert outcome.predictions[TASK.key]["key"] == [f"0000-{row}" for row in range(4)]


def test_other_files_are_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_puzzles(tmp_path, TASK, puzzles(4), files=1)
    table = pq.read_table(folder / "0000.parquet")
    pq.write_table(table.drop_columns(["cue"]), folder / "0000.parquet")
    assert scored(checkpoint, tmp_path, tmp_path / "out", [TASK.key]).status == 1
    assert "0000.parquet has no column 'cue'" in capsys.readouterr().out
    (folder / "0000.parquet").unlink()
    assert scored(checkpoint, tmp_path, tmp_path / "out", [TASK.key]).status == 1
    assert "holds no parquet file" in capsys.readouterr().out
