"""Class names in other languages against clip_benchmark's, for ImageNet and its variants; tasks that ask for them."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier
from evalsets import MODEL, classification_samples, scored, write_checkpoint, write_classification

from poolbench.errors import UserError
from poolbench.files import read_lines
from poolbench.models.clip import load

from evaluate.embedder import OpenClip
from evaluate.encoder import Encoder
from evaluate.prompts import prompts_of
from tasks.datasets import RETRIEVAL
from tasks.export import folder_of, task_named
from tasks.languages import open_task, translated
from tasks.names import packaged
from tasks.registry import TaskPrompts, load_tasks
from tasks.results import FILE

TASKS = load_tasks()
LANGUAGES = ("ar", "cn", "it", "jp")
ADVERSARIAL = TASKS["imagenet-a"]


def theirs(language: str, what: str) -> list[str]:
    path = files("clip_benchmark") / "datasets" / f"{language}_{what}.json"
    found: list[str] = json.loads(path.read_text(encoding="utf-8"))["imagenet1k"]
    return found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", ["imagenet1k", "imagenet-a", "imagenet-r", "imagenetv2"])
def test_names_stand_at_the_place_of_the_english_ones(key: str, language: str) -> None:
    english, other = theirs("en", "classnames"), theirs(language, "classnames")
    here = packaged()[key]["classnames"]
    names = translated(language).of(here)
    assert len(names) == len(here) == TASKS[key].classes
    for one, name in zip(here, names, strict=True):
        assert english.count(one) > 1 or name == other[english.index(one)]
    if key == "imagenet1k":
        assert list(names) == other and len({*other}) > 900
    assert list(translated(language).templates) == theirs(language, "zeroshot_classification_templates")


def test_prompts_in_a_language_are_clip_benchmarks(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    write_classification(tmp_path / "data", ADVERSARIAL, classification_samples(12, 200), known=True)
    scored(checkpoint, tmp_path / "data", tmp_path / "out", [ADVERSARIAL.key], prompts=["language:jp"])
    (folder,) = (tmp_path / "out" / "prompts").iterdir()
    (line,) = read_lines(folder / FILE)
    assert folder.name.startswith("jp-") and line["prompts"] == translated("jp").digest
    assert line["deviations"][0].startswith("prompts=jp (digest")
    names, templates = packaged()[ADVERSARIAL.key]["classnames"], ("a {c}",)
    encoder = Encoder(OpenClip(load(MODEL, str(checkpoint)), MODEL, torch.device("cpu"), "fp32", 64))
    (one,) = prompts_of("language:jp")
    ours = encoder.prompted(one.parts).classifier(names, templates)
    model, _, _ = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    tokenizer = open_clip.get_tokenizer(MODEL)
    lists = translated("jp").of(names), list(translated("jp").templates)
    expected = zero_shot_classifier(model.eval(), tokenizer, lists[0][:30], lists[1], "cpu", amp=False)
    torch.testing.assert_close(ours[:, :30], expected, rtol=0, atol=1e-5)


def test_a_task_has_the_names_that_its_file_says(tmp_path: Path) -> None:
    folder = write_classification(tmp_path, ADVERSARIAL, classification_samples(3, 200), shards=1, known=True)
    prompts = TaskPrompts(language="it", sha256=translated("it").digest)
    data = open_task(ADVERSARIAL.model_copy(update={"prompts": prompts}), tmp_path)
    assert data.classnames == translated("it").of(packaged()[ADVERSARIAL.key]["classnames"])
    assert data.templates == translated("it").templates != open_task(ADVERSARIAL, tmp_path).templates
    other = TaskPrompts(language="it", sha256="0" * 64)
    with pytest.raises(UserError, match="imagenet-a is pinned to other class names and templates"):
        open_task(ADVERSARIAL.model_copy(update={"prompts": other}), tmp_path)
    (folder / "classnames.txt").write_text("\n".join(f"thing {n}" for n in range(200)))
    with pytest.raises(
        UserError, match="needs prompts in another language: clip_benchmark has it for the 1000 classes"
    ):
        open_task(ADVERSARIAL.model_copy(update={"prompts": prompts}), tmp_path)


def test_the_tasks_of_the_suite() -> None:
    found = {key: task for key, task in TASKS.items() if "multilingual" in task.groups}
    for language in LANGUAGES:
        task = found.pop(f"multilingual/imagenet1k_{language}")
        assert task.prompts == TaskPrompts(language=language, sha256=translated(language).digest)
        assert task.folder == TASKS["imagenet1k"].folder and task.samples == TASKS["imagenet1k"].samples
    for key, task in found.items():
        dataset, _, language = key.rpartition("-")
        assert (
            dataset in RETRIEVAL
            and task.counted
            and f"dataset={dataset} language={language}" in str(task.source.by_hand)
        )
        assert task_named(dataset, None, None, language) == task
        assert folder_of(dataset, task, language) == folder_of(dataset, None, language)


def test_languages_and_classes_that_are_not_there(tmp_path: Path) -> None:
    for word, message in (("language:xx", "no class names in the language xx"), ("language:en", "no class names in")):
        with pytest.raises(UserError, match=f"prompts={word}: clip_benchmark has {message}"):
            prompts_of(word)
    eurosat: Any = TASKS["vtab/eurosat"]
    write_classification(tmp_path / "data", eurosat, classification_samples(3, 10))
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    with pytest.raises(UserError, match="prompts=language:it and vtab/eurosat: clip_benchmark has it for the 1000"):
        scored(checkpoint, tmp_path / "data", tmp_path / "out", [eurosat.key], prompts="language:it")
