"""Scores of pictures with their text painted over: what they are, what that does to a ranking, and looking at them."""

import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from drawings import COLOURS, SHAPES, SIDE, drawn, encoded
from evalsets import MODEL, write_checkpoint
from PIL import Image, ImageOps
from pools import uid_of, write_tar
from scoring import run, table_of
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from poolbench.errors import UserError
from poolbench.files import read_lines
from poolbench.models.transforms import WebPixels
from poolbench.uids import write_subset

from curate import inspect
from curate.models import onnx_models
from curate.models.onnx_models import carried
from curate.models.text_detection import DETECTOR, READER, TextDetector, TextReader
from curate.pool.scored import ScoredShard
from curate.scorers.clip_similarity import ClipSimilarity
from curate.scorers.text_masks import TextMask

# --- the scores ---


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/, 2 shards of 4 samples, half of them with text, an empty shard, and model.pt."""
    root = tmp_path_factory.mktemp("masks")
    for shard in range(2):
        numbers = range(4 * shard, 4 * shard + 4)
        write_tar(root / "pool" / f"{shard:05d}.tar", [(f"{n:04d}", members(n)) for n in numbers])
    write_tar(root / "pool" / "00002.tar", [("x", {"txt": b"no picture"})])
    write_checkpoint(root / "model.pt")
    return root


def members(number: int) -> dict[str, bytes]:
    text = f"word {number}" if number % 2 else ""
    image = drawn(SHAPES[number % 4], list(COLOURS)[number % 3], text, height=30)
    caption, about = f"picture {number} of a {SHAPES[number % 4]}", json.dumps({"uid": uid_of(number)})
    return {"png": encoded(image), "txt": caption.encode(), "json": about.encode()}


def masked(root: Path, out: Path, **options: Any) -> int:
    """Score with mask=text, as cheaply as text is found at all; 1 as one shard has no picture."""
    return run(root / "pool", root / "model.pt", out, **{"mask": "text", "detector_side": 224, **options})


def test_the_masked_score_is_open_clips_of_the_masked_picture(root: Path, tmp_path: Path) -> None:
    assert masked(root, tmp_path, flip="true", recognized="true") == 1
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(root / "model.pt"))
    tokenizer, mask = open_clip.get_tokenizer(MODEL), TextMask(None, 224, 0.7, "ring", 8, True)
    model.eval()
    rows = table_of(tmp_path)
    assert len(rows) == 8
    for number in range(8):
        files, row = members(number), rows[uid_of(number)]
        image = Image.open(io.BytesIO(files["png"]))
        made = mask(np.asarray(image), {})
        with torch.no_grad():
            text = model.encode_text(tokenizer([files["txt"].decode()]), normalize=True)[0]
            plain, mirrored, without = (
                float(model.encode_image(transform(one)[None], normalize=True)[0] @ text)
                for one in (image, ImageOps.mirror(image), Image.fromarray(made.pixels))
            )
        assert row["clip_b32_similarity_score"] == pytest.approx(plain, abs=1e-5)
        assert row["clip_b32_flipped_similarity_score"] == pytest.approx((plain + mirrored) / 2, abs=1e-3)
        assert row["clip_b32_masked_similarity_score"] == pytest.approx(without, abs=1e-5)
        assert (row["text_regions"], row["recognized_text"]) == ((1, f"word {number}") if number % 2 else (0, ""))
        assert row["text_share"] == pytest.approx(made.share) and (0.02 < made.share < 0.3) == bool(number % 2)
        assert (abs(plain - without) > 1e-4) == bool(number % 2)
    empty = pq.read_schema(tmp_path / "00002.parquet")
    assert empty.field("recognized_text") == pq.read_schema(tmp_path / "00000.parquet").field("recognized_text")


def test_plain_scores_stay_and_only_what_is_missing_is_made(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    once, later = tmp_path / "once", tmp_path / "later"
    assert masked(root, once, workers=2, batch_size=3) == 1
    capsys.readouterr()
    assert run(root / "pool", root / "model.pt", later) == 1
    before = table_of(later)
    arrays = {path.name: path.read_bytes() for path in later.glob("*.npz")}
    embedded: list[int] = []
    towers = ClipSimilarity._embedded

    def counted(self: ClipSimilarity, views: torch.Tensor, clock: Any) -> np.ndarray:
        embedded.append(len(views))
        return towers(self, views, clock)

    monkeypatch.setattr(ClipSimilarity, "_embedded", counted)
    assert masked(root, later, part="1/2") == masked(root, later) == 1
    told = capsys.readouterr().out
    assert "as b32, b32_masked, text: 2 of 2 shards to score" in told and "1 of 3 shards to score" in told
    assert re.search(r"of the workers' time detecting text \d+%, reading text \d+%", told)
    assert sum(embedded) == 8  # no picture as it is a second time
    whole, after = table_of(once), table_of(later)
    for uid, row in whole.items():
        for name, value in row.items():
            np.testing.assert_allclose(after[uid][name], value, atol=1e-6) if "clip" in name and value else None
        assert all(np.array_equal(after[uid][name], value) for name, value in before[uid].items())
        assert [row[name] for name in ("text_share", "text_regions")] == [
            after[uid][name] for name in ("text_share", "text_regions")
        ]
    assert arrays == {path.name: path.read_bytes() for path in later.glob("*.npz")}
    assert masked(root, later) == run(root / "pool", root / "model.pt", later) == 1
    assert capsys.readouterr().out.count("0 of 3 shards to score") == 2
    with pytest.raises(UserError, match="holds scores of another options; choose another arch"):
        masked(root, later, ring=5)
    assert masked(root, later, ring=5, overwrite="true") == 1
    assert "3 of 3 shards to score" in capsys.readouterr().out


def test_a_crash_between_two_products_costs_the_second(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ScoredShard.write

    def failing(self: ScoredShard, made: Any, *words: Any) -> None:
        if made.name == "b32_masked":
            raise OSError(28, "No space left on device")
        write(self, made, *words)

    monkeypatch.setattr(ScoredShard, "write", failing)
    with pytest.raises(UserError, match="cannot be written"):
        masked(root, tmp_path, part="1/3")
    monkeypatch.undo()
    stored = pq.read_table(tmp_path / "00000.parquet")
    assert "clip_b32_similarity_score" in stored.column_names and "text_share" not in stored.column_names
    assert masked(root, tmp_path, part="1/3") == 0
    assert pq.read_table(tmp_path / "00000.parquet").select(stored.column_names).equals(stored)
    assert "text_share" in pq.read_schema(tmp_path / "00000.parquet").names


def test_a_picture_whose_text_cannot_be_found_has_no_masked_score(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect, times = TextDetector.__call__, []

    def failing(self: TextDetector, pixels: np.ndarray) -> Any:
        times.append(pixels.shape)
        if len(times) == 3:  # behind the first try, the second picture
            raise RuntimeError("the network fails\nhere")
        return detect(self, pixels)

    monkeypatch.setattr(TextDetector, "__call__", failing)
    assert masked(root, tmp_path, part="1/3", flip="true") == 1
    (line,) = read_lines(tmp_path / "bad_samples.1-of-3.jsonl")
    assert (line["key"], line["reason"]) == ("0001", "no masked score: its text cannot be found: the network fails")
    rows = table_of(tmp_path)
    assert len(rows) == 4
    lacking = [uid for uid, row in rows.items() if np.isnan(row["clip_b32_masked_similarity_score"])]
    assert lacking == [uid for uid, row in rows.items() if np.isnan(row["text_share"])] == [uid_of(1)]
    assert np.isfinite([row["clip_b32_flipped_similarity_score"] for row in rows.values()]).all()
    assert run(root / "pool", root / "model.pt", tmp_path, part="1/3") == 0  # whose scores are all there
    assert masked(root, tmp_path, part="1/3") == 1  # which says so again


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "txt"}, "mask=txt is not known: it is text"),
        ({"fill": "rings"}, r"fill=rings is not known; did you mean 'ring'\?"),
        ({"ring": 0}, "ring=0: at least 1"),
        ({"detector_side": 8}, "detector_side=8: at least 32"),
        ({"export_count": 0}, "export_count=0: at least 1"),
        ({"legible": 1.5}, "legible=1.5: a probability"),
        ({"mask": None, "recognized": "true"}, "recognized= needs mask=text"),
        ({"mask": None, "fill": "picture"}, "fill= needs mask=text"),
        ({"mask": None, "detector_side": 320}, "detector_side= needs mask=text"),
        ({"mask": None, "export": "x"}, "export= needs mask=text"),
        ({"detector": "/nowhere.onnx"}, "/nowhere.onnx"),
    ],
)
def test_wrong_options_get_one_line(root: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        masked(root, tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_networks_that_are_missing_or_broken_are_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.onnx").write_bytes(carried(DETECTOR).read_bytes()[:10_000])
    for path, message in (
        (tmp_path / "broken.onnx", "broken.onnx is no ONNX model that can be run: "),
        (carried(READER), r"PP-OCRv6_rec_small.onnx finds no text in pictures: "),
    ):
        with pytest.raises(UserError, match=message) as caught:
            masked(root, tmp_path / "out", detector=path)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(onnx_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"rapidocr is missing, which carries .*pip install 'poolbench\[text\]'"):
        masked(root, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is missing; pip install 'poolbench\[text\]'"):
        masked(root, tmp_path / "out")
    assert not (tmp_path / "out").exists() and capfd.readouterr() == ("", "")


def test_rapidocr_is_not_imported(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which would set up logging, and could load files from the network."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "rapidocr"]:
        monkeypatch.delitem(sys.modules, name)
    assert masked(root, tmp_path, part="1/3", workers=1) == 0
    assert not [name for name in sys.modules if name.partition(".")[0] == "rapidocr"]
    told = capfd.readouterr()
    assert len(told.out.splitlines()) == 3 and told.err == ""  # what scores, where the time went, what came out


# --- the point of it ---


class Toy:
    """A "CLIP" of two senses, planted: the words that PP-OCR reads in a picture, and the colour of what is drawn there.

    A caption is its words; an embedding is their sum. It stands for what T-MARS says of CLIP, that text in a picture
    is rewarded like what the picture shows; that the real CLIP does so is not shown here.
    """

    words = ("red", "green", "blue", "disc", "square", "photo", "a")

    def __init__(self) -> None:
        self.detect, self.read = TextDetector(None, 224), TextReader()

    def captions(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(tokens.float(), dim=1)

    def images(self, pictures: torch.Tensor) -> torch.Tensor:
        every = [self.of(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        return torch.nn.functional.normalize(torch.tensor(np.array(every), dtype=torch.float32), dim=1)

    def of(self, pixels: np.ndarray) -> np.ndarray:
        seen = [line.text for line in (self.read(pixels, one) for one in self.detect(pixels)) if line.legible > 0.7]
        found = 1.5 * self.tokens(" ".join(seen))
        spread = pixels.astype(float) - pixels.mean(2, keepdims=True)
        found[int(np.argmax((spread > 40).sum((0, 1))))] += 1
        found[self.words.index("photo")] += 0.5  # no embedding is zero
        return found

    def tokens(self, caption: str) -> np.ndarray:
        return np.array([caption.lower().split().count(word) for word in self.words], float)


def test_text_that_repeats_the_caption_falls_beside_the_wrong_picture_only(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs of a right and a wrong picture, each without and with the caption written into it."""
    pairs, captions = [], {"red": "a red disc", "green": "a green square", "blue": "a blue disc"}
    wrong = {"red": "green", "green": "blue", "blue": "red"}
    for colour, caption in captions.items():
        for shown in (colour, wrong[colour]):
            pairs += [(colour, shown, written, caption) for written in (False, True)]
    samples = []
    for number, (_, shown, written, caption) in enumerate(pairs):
        image = drawn(captions[shown].split()[-1], shown, caption if written else "", (240, 240), 30)
        about = json.dumps({"uid": uid_of(number)}).encode()
        samples.append((f"{number:02d}", {"png": encoded(image), "txt": caption.encode(), "json": about}))
    pool = write_tar(tmp_path / "pool" / "0.tar", samples).parent

    def load(self: ClipSimilarity, device: torch.device) -> None:
        transform = Compose([Resize(240), CenterCrop(240), ToTensor(), Normalize([0] * 3, [1] * 3)])
        self._towers, self.pixels = Toy(), WebPixels(transform)  # type: ignore[assignment]
        self.tokenizer = lambda texts: torch.tensor(np.array([self._towers.tokens(text) for text in texts]))

    monkeypatch.setattr(ClipSimilarity, "load", load)
    assert run(pool, root / "model.pt", tmp_path / "out", mask="text", detector_side=SIDE) == 0
    rows = table_of(tmp_path / "out")

    def ranks(column: str) -> Mapping[tuple[bool, bool], float]:
        """The mean place, 0 the best, of pairs by (the right picture, with text)."""
        scores = np.array([rows[uid_of(number)][column] for number in range(len(pairs))])
        places = np.argsort(np.argsort(-scores, kind="stable"), kind="stable")
        kinds = [(colour == shown, written) for colour, shown, written, _ in pairs]
        return {kind: float(np.mean([p for p, k in zip(places, kinds, strict=True) if k == kind])) for kind in kinds}

    plain, after = ranks("clip_b32_similarity_score"), ranks("clip_b32_masked_similarity_score")
    assert plain[False, True] < plain[True, False]  # text beside the wrong picture is liked more than the right one
    assert after[False, True] > after[True, False] and after[False, True] > plain[False, True] + 2
    assert after[True, True] < after[False, True] and after[True, True] <= plain[True, True] + 3
    scores = {kind: [] for kind in plain}
    for number, (colour, shown, written, _) in enumerate(pairs):
        scores[colour == shown, written].append(rows[uid_of(number)]["clip_b32_masked_similarity_score"])
    np.testing.assert_allclose(scores[True, True], scores[True, False], atol=1e-6)  # as if nothing were written
    np.testing.assert_allclose(scores[False, True], scores[False, False], atol=1e-6)


# --- looking at them ---


def test_samples_are_exported_and_shown(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "seen", tmp_path / "out"
    for part in ("1/2", "2/2"):
        masked(root, out, export=folder, export_count=12, part=part, recognized="true")
    parts = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "pictures beside their masked ones" in capsys.readouterr().out
    masked(root, out, export=tmp_path / "again", export_count=12, recognized="true")
    assert parts == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in read_lines(path)]
    assert sorted(line["uid"] for line in lines if line["text"]) == sorted(uid_of(n) for n in (1, 3, 5, 7))
    assert all(f"word {line['caption'].split()[1]}" == line["text"] for line in lines if line["text"])
    with Image.open(folder / lines[0]["picture"]) as both:
        assert both.size == (240 + 8 + 240, 200)
    write_subset(tmp_path / "kept.npy", [uid_of(n) for n in range(3)])
    words = [str(tmp_path / "kept.npy"), f"pool={out}", f"masked={folder}", f"out={tmp_path / 'r.html'}", "workers=1"]
    assert inspect.COMMAND.answer(words) == 0
    page = (tmp_path / "r.html").read_text()
    kept, dropped = re.findall(r'<ul class="sheet wide">(.*?)</ul>', page, re.DOTALL)
    assert "<h2>Text painted over</h2>" in page and (kept.count("<img"), dropped.count("<img")) == (3, 5)
    assert (
        "“word 1”" in kept and "“word 7”" in dropped and re.search(r"b32_masked -?0\.\d{3}, text_share 0\.\d{3}", kept)
    )
    with pytest.raises(UserError, match="has no masked samples"):
        inspect.COMMAND.answer([*words[:2], f"masked={tmp_path / 'pool'}", *words[3:]])
    (folder / "00000.jsonl").write_text('{"uid": 3}\n')
    with pytest.raises(UserError, match=r"00000\.jsonl lists no masked samples"):
        inspect.COMMAND.answer(words)
