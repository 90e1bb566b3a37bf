"""Prompts from files: class embeddings against clip_benchmark's, ensembles, what results say of them, bad files."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier
from evalsets import (
    MODEL,
    classification_samples,
    retrieval_samples,
    scored,
    write_classification,
    write_retrieval,
)

from poolbench.errors import UserError
from poolbench.files import digest_json, read_lines
from poolbench.models.clip import load
from poolbench.models.towers import Towers
from poolbench.models.transforms import Pixels

from evaluate.compare import compare
from evaluate.config import EvaluateConfig, check
from evaluate.embedder import OpenClip
from evaluate.encoder import Encoder
from evaluate.prompts import prompts_of
from tasks.languages import open_task
from tasks.registry import load_tasks
from tasks.results import FILE, predictions_path

EUROSAT, FLICKR = load_tasks()["vtab/eurosat"], load_tasks()["retrieval/flickr_1k_test_image_text_retrieval"]
NAMES = [f"thing {number}" for number in range(10)]
SENTENCES = {name: [f"{name} has {n} legs." for n in range(1, 2 + number % 3)] for number, name in enumerate(NAMES)}
OWN = ("a photo of a {c}.", "a drawing of the {c}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_classification(tmp_path / "data", EUROSAT, classification_samples(20, 10))
    return tmp_path / "data"


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def reference(checkpoint: Path, templates: Any) -> torch.Tensor:
    model, _, _ = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    return zero_shot_classifier(model.eval(), open_clip.get_tokenizer(MODEL), NAMES, templates, "cpu", amp=False)


def test_classes_are_the_references(checkpoint: Path, tmp_path: Path) -> None:
    cupl = write(tmp_path / "cupl.json", SENTENCES)
    lines = write(tmp_path / "lines.json", ["one {c}", "the {c} of {c}"])
    encoder = Encoder(OpenClip(load(MODEL, str(checkpoint)), MODEL, torch.device("cpu"), "fp32", 32))
    sentences, templates, both = (
        encoder.prompted(one.parts).classifier(NAMES, OWN) for one in prompts_of([cupl, lines, f"own+{cupl}"])
    )
    own = encoder.classifier(NAMES, OWN)
    expected = [reference(checkpoint, one) for one in (SENTENCES, ["one {c}", "the {c} of {c}"], list(OWN))]
    for ours, theirs in zip((sentences, templates, own), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    mean = (expected[0].double() + expected[2].double()) / 2
    torch.testing.assert_close(both.double(), mean / mean.norm(dim=0), rtol=0, atol=1e-5)
    assert not torch.allclose(sentences, own, atol=1e-2)


def test_results_say_which_prompts_and_are_found_again(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cupl = write(tmp_path / "cupl.json", SENTENCES)
    same = write(tmp_path / "same.json", list(OWN))
    out = tmp_path / "out"
    plain = scored(checkpoint, data, out, [EUROSAT.key]).line(EUROSAT.key)
    before = (out / FILE).read_bytes()
    scored(checkpoint, data, out, [EUROSAT.key], prompts=[cupl, same, f"{cupl}+own"])
    assert (out / FILE).read_bytes() == before
    folders = {folder.name.rsplit("-", 1)[0]: folder for folder in (out / "prompts").iterdir()}
    assert folders.keys() == {"cupl", "same", "cupl+own"}
    lines = {name: read_lines(folder / FILE)[-1] for name, folder in folders.items()}
    assert lines["cupl"]["prompts"] == digest_json(SENTENCES) and plain["prompts"] is None
    assert lines["cupl+own"]["prompts"] == digest_json([digest_json(SENTENCES), "own"])
    for name, line in lines.items():
        assert line["deviations"][0].startswith(f"prompts={name} (digest {line['prompts'][:16]})")
        assert line["grade"] == "unofficial"
    assert lines["same"]["metrics"] == plain["metrics"]
    comparison = compare(out, folders["same"])
    assert comparison.tasks[0].difference == 0 and any("prompts" in one for one in comparison.warnings)
    capsys.readouterr()
    scored(checkpoint, data, out, [EUROSAT.key], prompts=cupl)
    assert "finished before" in capsys.readouterr().out
    write(tmp_path / "cupl.json", {**SENTENCES, "thing 0": ["another"]})
    scored(checkpoint, data, out, [EUROSAT.key], prompts=cupl)
    assert "finished before" not in capsys.readouterr().out and len(list((out / "prompts").glob("cupl-*"))) == 2


@pytest.mark.parametrize("first_done", [False, True])
def test_sets_share_the_data_the_model_and_the_embeddings(
    first_done: bool, checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [write(tmp_path / "one.json", ["one {c}", "the {c} of {c}"]), write(tmp_path / "two.json", SENTENCES)]
    for one in sets:
        scored(checkpoint, data, tmp_path / "alone", [EUROSAT.key], prompts=one)
    if first_done:
        scored(checkpoint, data, tmp_path / "together", [EUROSAT.key], prompts=sets[0])
    counts: Counter[str] = Counter()
    monkeypatch.setattr("evaluate.run.open_task", counted(counts, "opened", open_task))
    monkeypatch.setattr("evaluate.encoder.load", counted(counts, "loaded", load))
    monkeypatch.setattr(Pixels, "__call__", counted(counts, "decoded", Pixels.__call__))
    monkeypatch.setattr(Towers, "images", counted(counts, "encoded", Towers.images, lambda pictures: len(pictures)))
    scored(checkpoint, data, tmp_path / "together", [EUROSAT.key], prompts=sets)
    assert counts == {"opened": 1, "loaded": 1, "decoded": 20, "encoded": 20}
    folders = sorted((tmp_path / "together" / "prompts").iterdir())
    assert [folder.name.split("-")[0] for folder in folders] == ["one", "two"]
    for folder in folders:
        [ours], [theirs] = (read_lines(one / FILE) for one in (folder, tmp_path / "alone" / "prompts" / folder.name))
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
        tables = [
            pq.read_table(predictions_path(tmp_path / name / "prompts" / folder.name, EUROSAT.key)).to_pydict()
            for name in ("together", "alone")
        ]
        assert tables[0] == tables[1]


def counted(
    counts: Counter[str], name: str, function: Callable[..., Any], size: Callable[[Any], int] = lambda _: 1
) -> Callable[..., Any]:
    """The function, which counts how much it was given: of its last argument `size`."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        counts[name] += size(arguments[-1])
        return function(*arguments, **options)

    return wrapped


def test_a_set_that_fails_leaves_the_others(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Encoder._encode_classes

    def encode(self: Encoder, classes: Any) -> None:
        if any(texts == ("bad {c}",) for _, texts in classes):
            raise RuntimeError("something that nobody foresaw")
        original(self, classes)

    monkeypatch.setattr(Encoder, "_encode_classes", encode)
    sets = [write(tmp_path / "bad.json", ["bad {c}"]), write(tmp_path / "good.json", ["good {c}"])]
    outcome = scored(checkpoint, data, tmp_path / "out", [EUROSAT.key], prompts=sets)
    printed = capsys.readouterr().out
    assert outcome.status == 1 and f"bad: {EUROSAT.key}: failed: " in printed
    assert f"good: {EUROSAT.key}: acc1 " in printed
    lines = {path.parent.name.split("-")[0] for path in (tmp_path / "out" / "prompts").glob(f"*/{FILE}")}
    assert lines == {"good"}


def test_a_cache_keeps_the_classes_of_each_set_apart(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    cupl = write(tmp_path / "cupl.json", SENTENCES)
    turned = write(tmp_path / "turned.json", dict(zip(NAMES, reversed(SENTENCES.values()), strict=True)))
    found = []
    for options in ({}, {"cache": str(tmp_path / "cache")}, {"cache": str(tmp_path / "cache")}):
        out = tmp_path / f"out{len(found)}"
        scored(checkpoint, data, tmp_path / "plain", [EUROSAT.key], **options)
        scored(checkpoint, data, out, [EUROSAT.key], prompts=[cupl, turned], **options)
        found.append([read_lines(folder / FILE)[-1]["metrics"] for folder in sorted((out / "prompts").iterdir())])
    assert found[0] == found[1] == found[2]


def test_several_processes_and_parts_have_the_scores_of_one(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    pets = load_tasks()["vtab/pets"]
    write_classification(data, pets, classification_samples(17, 37))
    sets = [write(tmp_path / "one.json", ["one {c}", "the {c} of {c}"]), write(tmp_path / "two.json", ["two {c}"])]
    keys = [EUROSAT.key, pets.key]
    scored(checkpoint, data, tmp_path / "plain", keys, prompts=sets)
    words = {"model": MODEL, "checkpoint": checkpoint, "data": data, "device": "cpu", "workers": 0}
    words |= {"tasks": f"[{','.join(keys)}]", "prompts": f"[{','.join(sets)}]", "out": tmp_path / "shared"}
    group = forked.world(2, "tests/run_evaluate.py", *(f"{key}={value}" for key, value in words.items()))
    output = [process.communicate() for process in group]
    assert [process.wait() for process in group] == [0, 0], output
    for part in ("1/2", "2/2"):
        scored(checkpoint, data, tmp_path / "parts", keys, prompts=sets, part=part)
    found = []
    for name in ("plain", "shared", "parts"):
        folders = sorted((tmp_path / name / "prompts").iterdir())
        lines = {(one.name, line["key"]): line["metrics"] for one in folders for line in read_lines(one / FILE)}
        assert len(lines) == 4
        found.append(lines)
    assert found[0] == found[1] == found[2]


def test_bad_files(tmp_path: Path) -> None:
    for value, message in (
        ({}, "neither an object"),
        (3, "neither an object"),
        ({"a": []}, "class 'a' is not a list of at least one text"),
        ({"a": "text"}, "class 'a' is not a list"),
        ({"a": ["b", " "]}, "none of them empty"),
        ([], "is not a list of at least one text"),
        (["a photo"], "'a photo' has no {c}"),
    ):
        with pytest.raises(UserError, match=message):
            check(EvaluateConfig(run="r", prompts=write(tmp_path / "p.json", value)))
    good = write(tmp_path / "good.json", SENTENCES)
    (tmp_path / "cut.json").write_text("{")
    (tmp_path / "twice.json").write_text('{"a": ["b"], "a": ["c"]}')
    for words, message in (
        (str(tmp_path / "cut.json"), "is not JSON"),
        (str(tmp_path / "twice.json"), "twice.json: a: the key is there twice"),
        (str(tmp_path / "none.json"), "none.json is not a file"),
        ("own", "without prompts="),
        ([good, good], "the same prompts twice"),
        ([3], "is not a file, or a list of files"),
    ):
        with pytest.raises(UserError, match=message):
            prompts_of(words)
    with pytest.raises(UserError, match="do not go together"):
        check(EvaluateConfig(run="r", prompts=good, probes="linear"))


def test_classes_and_tasks_that_do_not_fit(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    write_retrieval(data, FLICKR, retrieval_samples(3))
    missing = {name: texts for name, texts in SENTENCES.items() if name != "thing 3"}
    for value, keys, message in (
        (missing, [EUROSAT.key], "has no sentences for classes of vtab/eurosat: thing 3"),
        ({**SENTENCES, "thang": ["a"]}, [EUROSAT.key], "classes that no chosen task has: thang"),
        (list(OWN), [EUROSAT.key, FLICKR.key], "leave retrieval/flickr_1k_test_image_text_retrieval out"),
    ):
        with pytest.raises(UserError, match=message):
            scored(checkpoint, data, tmp_path / "out", keys, prompts=write(tmp_path / "p.json", value))
    assert not (tmp_path / "out" / "prompts").exists()
