"""Resharding with blurred faces: those of the chosen samples, and nothing else of them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pools import sample, uid_of, write_tar
from test_reshard import contents, run

from poolbench.files import read_json, read_lines


def _metadata(folder: Path, boxes: dict[int, list[list[float]]]) -> Path:
    folder.mkdir()
    kind = pa.list_(pa.list_(pa.float64()))
    columns = {"uid": [uid_of(n) for n in boxes], "face_bboxes": pa.array(list(boxes.values()), kind)}
    pq.write_table(pa.table(columns), folder / "0.parquet")
    return folder


def test_faces_are_blurred_and_nothing_else(tmp_path: Path) -> None:
    forms = {0: "PNG", 1: "JPEG", 2: "WEBP", 3: "PNG", 4: "PNG", 5: "PNG"}
    samples = {number: sample(number, form) for number, form in forms.items()}
    samples[4]["png"] = b"no picture"
    write_tar(tmp_path / "pool" / "0.tar", ((str(n), members) for n, members in samples.items()))
    box = [[0.0, 0.0, 0.5, 0.5]]
    metadata = _metadata(tmp_path / "metadata", {0: box, 1: box, 2: box, 3: [], 4: box, 77: box})
    options = {"blur_faces": str(metadata), "quality": 90}
    assert run(tmp_path, [uid_of(n) for n in (0, 0, 1, 2, 3, 4, 5)], tmp_path / "pool", **options) == 1
    found = dict(contents(tmp_path / "out"))
    assert len(found) == 6 and f"{uid_of(4)}-0" not in found
    for number, extension in ((0, "png"), (1, "jpg"), (2, "webp")):
        before = np.asarray(Image.open(io.BytesIO(samples[number][extension])).convert("RGB")).astype(float)
        image = Image.open(io.BytesIO(found[f"{uid_of(number)}-0"][extension]))
        after = np.asarray(image.convert("RGB")).astype(float)
        assert image.format == forms[number] and after.shape == before.shape
        assert (
            after[:15, :15].std((0, 1)).max() < before[:15, :15].std((0, 1)).min() / 1.5
        )  # the noise of the face is gone
        rest = np.abs(after[30:, 30:] - before[30:, 30:]).max()
        assert rest == 0 if extension == "png" else rest < 40
        assert found[f"{uid_of(number)}-0"]["txt"] == samples[number]["txt"]
    assert found[f"{uid_of(0)}-0"] == found[f"{uid_of(0)}-1"]
    assert found[f"{uid_of(3)}-0"] == samples[3] and found[f"{uid_of(5)}-0"] == samples[5]
    meta = read_json(tmp_path / "out" / "meta.json")
    assert {key: meta["counts"][key] for key in ("blurred", "without_metadata", "bad_samples")} == {
        "blurred": 4,
        "without_metadata": 1,
        "bad_samples": 1,
    }
    assert meta["options"]["quality"] == 90 and "Gaussian" in meta["blur"]["method"]
    lines = read_lines(tmp_path / "out" / "bad_samples.jsonl")
    assert [line["key"] for line in lines] == [uid_of(4)] and "cannot be blurred" in lines[0]["reason"]
