"""Models of a user's own: the numbers of the same model by name for each kind of task, what results tell, mistakes."""

import os
import textwrap
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from evalsets import (
    EXTRA_KINDS,
    MODEL,
    ONE_OF_EACH_KIND,
    classification_samples,
    scored,
    training_samples,
    write_checkpoint,
    write_classification,
    write_every_kind,
    write_extra_kinds,
    write_train,
)
from test_other_models import rgb

from poolbench.errors import UserError
from poolbench.files import read_lines
from poolbench.models.weights import weights_of

from evaluate.config import EvaluateConfig, check
from evaluate.python_model import load_python
from evaluate.run import run
from tasks.registry import load_tasks
from tasks.results import FILE, predictions_path

EUROSAT = load_tasks()["vtab/eurosat"]
KEYS = [*ONE_OF_EACH_KIND, *EXTRA_KINDS]
WRAPPED = f'''
    import open_clip

    class Mine:
        """What open_clip has of the model, under other names."""

        def __init__(self, path):
            self.network, _, self.transform = open_clip.create_model_and_transforms({MODEL!r}, pretrained=path)
            self.tokenizer = open_clip.get_tokenizer({MODEL!r})
            self.logit_scale = self.network.logit_scale.exp()

        def to(self, device):
            self.network.to(device)

        def eval(self):
            self.network.eval()

        def tokenize(self, texts):
            return {{"tokens": self.tokenizer(texts)}}

        def encode_image(self, pictures):
            return self.network.encode_image(pictures)

        def encode_text(self, tokens):
            return self.network.encode_text(tokens["tokens"])

    def load(path):
        return Mine(path)
'''
# A model of three numbers of a picture and of a text, which a test can compute by itself.
SMALL = """
    import torch

    class Small:
        identity = "small 1"

        def transform(self, image):
            return torch.tensor([sum(band) for band in zip(*image.resize((2, 2)).getdata())], dtype=torch.float32)

        def tokenize(self, texts):
            return [[len(text), text.count("a"), ord(text[-1])] for text in texts]

        def encode_image(self, pictures):
            return pictures / 255 - 2

        def encode_text(self, tokens):
            return torch.tensor(tokens, dtype=torch.float32) - 20

    def load():
        return Small()
"""


def write_module(folder: Path, name: str, source: str, **parts: str) -> str:
    """A module of a name of its own in the folder; of `parts`, text -> what stands there instead."""
    for old, new in parts.items():
        source = source.replace(old, new)
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    return f"python:{name}:load"


def evaluated(name: str, data: Path, out: Path, keys: list[str], **options: Any) -> int:
    settings = {"workers": 0, "device": "cpu", "out": str(out), **options}
    return run(EvaluateConfig(model=name, data=str(data), tasks=keys, **settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt, the module that loads it, and a task of each kind."""
    root = tmp_path_factory.mktemp("own")
    write_checkpoint(root / "model.pt")
    write_module(root, "wrapped_model", WRAPPED)
    write_extra_kinds(write_every_kind(root / "data"))
    write_train(root / "data", EUROSAT, training_samples(60))
    return root


@pytest.fixture(autouse=True)
def on_the_path(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(tmp_path))


def test_every_kind_has_the_numbers_of_the_model_by_name(folder: Path, tmp_path: Path) -> None:
    plain = scored(folder / "model.pt", folder / "data", tmp_path / "plain", KEYS, probes=["linear"])
    out = tmp_path / "out"
    checkpoint = str(folder / "model.pt")
    assert (
        evaluated("python:wrapped_model:load", folder / "data", out, KEYS, checkpoint=checkpoint, probes=["linear"])
        == 0
    )
    lines = {line["key"]: line for line in read_lines(out / FILE)}
    assert lines.keys() == set(KEYS)
    for key, line in lines.items():
        assert line["metrics"] == pytest.approx(plain.line(key)["metrics"], abs=1e-6), key
        rows = pq.read_table(predictions_path(out, key)).to_pydict()
        assert rows["key"] == plain.predictions[key]["key"]
        if "confidence" in rows:
            np.testing.assert_allclose(rows["confidence"], plain.predictions[key]["confidence"], atol=1e-5)
    probes = [read_lines(path / "probe_results.jsonl") for path in (tmp_path / "plain", out)]
    assert [one["key"] for one in probes[0]] == [EUROSAT.key] == [one["key"] for one in probes[1]]
    assert probes[1][0]["metrics"] == pytest.approx(probes[0][0]["metrics"], abs=0.05)
    assert probes[1][0]["own"] == lines[EUROSAT.key]["own"]


def test_what_results_tell_and_when_they_are_found_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(checkpoint: str = str(folder / "model.pt")) -> str:
        capsys.readouterr()
        evaluated("python:wrapped_model:load", folder / "data", tmp_path, [EUROSAT.key], checkpoint=checkpoint)
        return capsys.readouterr().out

    assert "finished before" not in again()
    (line,) = read_lines(tmp_path / FILE)
    assert line["grade"] == "unofficial" and line["model"] == "python:wrapped_model:load"
    assert line["deviations"][0] == "model=python:wrapped_model:load is not one that open_clip builds"
    own = line["own"]
    assert line["conventions"] is None and own["normalised"] is True and own["width"] == 64
    assert "Resize(size=32" in own["transform"] and own["tokenizer"] == "wrapped_model.Mine.tokenize"
    assert own["logit_scale"] == pytest.approx(torch.load(folder / "model.pt")["state_dict"]["logit_scale"].exp())
    assert "finished before" in again()
    assert "finished before" not in again(str(write_checkpoint(tmp_path / "other.pt", seed=1)))


def test_scale_and_length_are_the_models_own(tmp_path: Path) -> None:
    samples = classification_samples(20, 10)
    write_classification(tmp_path / "data", EUROSAT, samples, shards=1)
    write_module(tmp_path, "small_plain", SMALL)
    write_module(tmp_path, "small_raw", SMALL, identity="logit_scale, normalise = 0.001, False\n        identity")
    model = load_python("python:small_plain:load", None).model
    prompts = [[one.format(c=f"thing {n}") for one in ("a photo of a {c}.", "a drawing of the {c}")] for n in range(10)]
    texts = torch.stack([model.encode_text(model.tokenize(both)).double() for both in prompts])
    images = torch.stack([model.encode_image(model.transform(rgb(members))) for _, members in samples]).double()

    def unit(x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    expected = {
        "small_plain": 100 * unit(images) @ unit(unit(texts).mean(dim=1)).T,
        "small_raw": 0.001 * images @ texts.mean(dim=1).T,
    }
    for name, logits in expected.items():
        assert evaluated(f"python:{name}:load", tmp_path / "data", tmp_path / name, [EUROSAT.key]) == 0
        rows = pq.read_table(predictions_path(tmp_path / name, EUROSAT.key))
        shares = logits.softmax(dim=1)
        assert rows["prediction"].to_pylist() == logits.argmax(dim=1).tolist()
        np.testing.assert_allclose(rows["confidence"], shares.max(dim=1).values, atol=1e-4)
        (line,) = read_lines(tmp_path / name / FILE)
        assert line["own"]["normalised"] is (name == "small_plain")
        assert line["own"]["logit_scale"] == (None if name == "small_plain" else 0.001)


def test_several_processes_parts_and_a_cache(folder: Path, tmp_path: Path) -> None:
    words = f"model=python:wrapped_model:load checkpoint={folder}/model.pt data={folder}/data device=cpu workers=1"
    base = [*words.split(), f"tasks=[{','.join(ONE_OF_EACH_KIND)}]", f"cache={tmp_path}/cache"]
    environment = {"PYTHONPATH": f"{folder}:{Path.cwd()}"}
    group = forked.world(2, "tests/run_evaluate.py", *base, f"out={tmp_path}/two", env=os.environ | environment)
    output = [process.communicate() for process in group]
    assert [process.wait() for process in group] == [0, 0], output
    for part in ("1/2", "2/2"):
        options = {"checkpoint": str(folder / "model.pt"), "cache": str(tmp_path / "cache"), "part": part}
        assert (
            evaluated(
                "python:wrapped_model:load", folder / "data", tmp_path / "parts", list(ONE_OF_EACH_KIND), **options
            )
            == 0
        )
    lines = [{one["key"]: one["metrics"] for one in read_lines(tmp_path / out / FILE)} for out in ("two", "parts")]
    assert lines[0].keys() == set(ONE_OF_EACH_KIND) and lines[0] == lines[1]


MISTAKES: list[tuple[str, dict[str, str], str]] = [
    ("imports", {"import torch": "import nonsuch"}, "small_imports cannot be imported: ModuleNotFoundError: No module"),
    ("syntax", {"import torch": "import ("}, "small_syntax cannot be imported: SyntaxError"),
    ("raises", {"return Small()": "raise OSError('no weights')"}, r"load\(\) fails: OSError: no weights"),
    ("leaves", {"return Small()": "raise SystemExit(3)"}, r"load\(\) fails: SystemExit: 3"),
    ("none", {"return Small()": "pass"}, "load returns a NoneType without transform, tokenize, encode_image, encode_"),
    ("partial", {"encode_text": "encode_words"}, "load returns a Small without encode_text"),
    ("nameless", {'identity = "small 1"': "pass"}, "nothing tells its weights from others; give it an `identity`"),
    ("number", {'"small 1"': "7"}, "its identity is 7, not a text"),
    (
        "pixels",
        {
            "return torch.tensor([": "return list([",
            "], dtype=torch.float32)\n\n        def tok": "])\n\n        def tok",
        },
        "transform gives a list, not a tensor",
    ),
    (
        "shapes",
        {"image.resize((2, 2)).getdata())], dtype": "image.resize((2, 2)).getdata())] * image.width, dtype"},
        "for one picture",
    ),
    ("cut", {"pictures / 255 - 2": "pictures[:1]"}, r"encode_image gives float32 \[1, 3\], not 2 rows of d floats"),
    ("flat", {"pictures / 255 - 2": "pictures.sum(1)"}, r"encode_image gives float32 \[2\], not 2 rows of d floats"),
    ("whole", {"pictures / 255 - 2": "pictures.long()"}, r"encode_image gives int64 \[2, 3\], not 2 rows"),
    ("listed", {"pictures / 255 - 2": "pictures.tolist()"}, "encode_image gives a list, not 2 rows"),
    ("infinite", {"pictures / 255 - 2": "pictures / 0"}, "encode_image gives numbers that are not finite"),
    (
        "wider",
        {"tokens, dtype=torch.float32) - 20": "tokens, dtype=torch.float32)[:, :2]"},
        r"encode_text gives float32 \[2, 2\], not 2 rows of 3",
    ),
    ("tokens", {"ord(text[-1])": "text.nothing"}, "tokenize fails: AttributeError: 'str' object has no attribute"),
    ("scale", {"identity": "logit_scale = -4.6\n        identity"}, "its logit_scale is -4.6; it is a factor"),
    ("word", {"identity": "logit_bias = 'none'\n        identity"}, "its logit_bias is none, not a finite number"),
    ("length", {"identity": "normalise = 1\n        identity"}, "its normalise is 1, not a bool"),
]


@pytest.mark.parametrize(("name", "parts", "message"), MISTAKES)
def test_mistakes_are_told_in_a_line(name: str, parts: dict[str, str], message: str, tmp_path: Path) -> None:
    write_classification(tmp_path / "data", EUROSAT, classification_samples(4, 10), shards=1)
    model = write_module(tmp_path, f"small_{name}", SMALL, **parts)
    with pytest.raises(UserError, match=message) as error:
        evaluated(model, tmp_path / "data", tmp_path / "out", [EUROSAT.key])
    assert str(error.value).startswith(f"model={model}: ") and "\n" not in str(error.value)
    assert not (tmp_path / "out" / FILE).exists()


def test_a_batch_that_goes_wrong_ends_its_task_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classification(tmp_path / "data", EUROSAT, classification_samples(4, 10), shards=1)
    parts = {"pictures / 255 - 2": "pictures / (pictures[:, :1] - pictures[:1, :1] + 1e30 * (len(pictures) == 2))"}
    model = write_module(tmp_path, "small_later", SMALL, **parts)
    assert evaluated(model, tmp_path / "data", tmp_path / "out", [EUROSAT.key]) == 1
    assert f"{EUROSAT.key}: failed: model={model}: encode_image gives numbers that are not" in capsys.readouterr().out


def test_names_that_are_none(tmp_path: Path) -> None:
    for name in ("python:", "python:json", "python:json:", "python:a b:c", "python::load"):
        with pytest.raises(UserError, match="is not of the form python:<module>:<function>"):
            check(EvaluateConfig(model=name, out="out"))
    with pytest.raises(UserError, match="no module nonsuch on the path or in "):
        evaluated("python:nonsuch.models:load", tmp_path, tmp_path / "out", [EUROSAT.key])
    with pytest.raises(UserError, match="json has no function loaf"):
        evaluated("python:json:loaf", tmp_path, tmp_path / "out", [EUROSAT.key])
    with pytest.raises(UserError, match="only `python -m evaluate` takes a model of one's own"):
        weights_of("python:json:load", None)
