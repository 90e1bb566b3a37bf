"""Models that come with a configuration of their own: repositories of the Hub and folders, here and in open_clip."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub_server
import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from evalsets import MODEL, classification_samples, scored, write_checkpoint, write_classification
from pools import sample, write_tar
from safetensors.torch import save_file

from poolbench.errors import UserError
from poolbench.files import digest_file, read_lines
from poolbench.models.clip import load, tokenizer_of
from poolbench.models.conventions import conventions_of
from poolbench.models.names import CONFIG
from poolbench.models.weights import weights_of

from curate import score
from evaluate.config import EvaluateConfig, check
from evaluate.run import run
from tasks.registry import load_tasks

ROOT = Path(__file__).parent.parent
EUROSAT = load_tasks()["vtab/eurosat"]
REPOSITORY = "somebody/model"
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "model.pt", seed=3)


@pytest.fixture
def folder(weights: Path, tmp_path: Path) -> Path:
    """A folder as open_clip's `push_to_hf_hub` writes it, of a model with another activation and normalisation."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {**open_clip.get_model_config(MODEL), "quick_gelu": True}
    (folder / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    save_file(torch.load(weights)["state_dict"], folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_classification(tmp_path / "data", EUROSAT, classification_samples(12, 10))
    return tmp_path / "data"


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
    """A Hub with the folder as a repository. Its address is a constant of huggingface_hub, read when it is imported."""
    hub = hub_server.Hub()
    hub.add(REPOSITORY, folder)
    with hub_server.serving(hub):
        for name, value in (("ENDPOINT", hub.url), ("HF_HUB_CACHE", str(tmp_path / "cache"))):
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield hub


def evaluated(model: str, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    config = EvaluateConfig(model=model, data=str(data), out=str(out), tasks=[EUROSAT.key], **options)
    config.workers, config.device = 0, "cpu"
    assert run(config) == 0
    line: dict[str, Any] = read_lines(out / "eval_results.jsonl")[-1]
    return line


def check_is_open_clips(model: str, folder: Path) -> None:
    """Weights, conventions and tokens are those that open_clip gives for the folder."""
    expected = open_clip.create_model(f"local-dir:{folder}", precision="fp32")
    found = weights_of(model, None)
    loaded = load(found.model, found.checkpoint, folder=found.folder)
    ours, theirs = loaded.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert conventions_of(loaded) == conventions_of(expected)
    assert conventions_of(loaded)._asdict() == {"activation": "quick_gelu", **PREPROCESS} | {
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.1),
    }
    texts = ["a dog", "a cat on a mat"]
    tokens = tokenizer_of(found.model, found.folder)(texts)
    assert tokens.shape == (2, 16) and torch.equal(tokens, open_clip.get_tokenizer(f"local-dir:{folder}")(texts))


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_a_folder_is_evaluated_as_open_clip_would(
    prefix: str, folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_is_open_clips(f"{prefix}{folder}", folder)
    line = evaluated(f"{prefix}{folder}", data, tmp_path / "out")
    assert line["model"] == f"local-dir:{folder}"
    assert line["checkpoint_sha256"] == digest_file(folder / "open_clip_model.safetensors")
    assert line["conventions"] == {"activation": "quick_gelu", **PREPROCESS}
    assert "weights do not tell" not in capsys.readouterr().out
    again = evaluated(f"{prefix}{folder}", data, tmp_path / "out")
    assert "finished before" in capsys.readouterr().out and again == line


def test_another_configuration_is_another_model(folder: Path, data: Path, tmp_path: Path) -> None:
    before = evaluated(str(folder), data, tmp_path / "out")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "preprocess_cfg": {**PREPROCESS, "mean": [0.1, 0.1, 0.1]}}))
    after = evaluated(str(folder), data, tmp_path / "out")
    assert after["checkpoint_sha256"] == before["checkpoint_sha256"]
    assert after["tag"] != before["tag"] and after["conventions"]["mean"] == [0.1, 0.1, 0.1]


def test_a_checkpoint_may_be_named_besides(folder: Path, data: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other.pt", seed=9)
    line = evaluated(str(folder), data, tmp_path / "out", checkpoint=str(other))
    assert line["checkpoint_sha256"] == digest_file(other) and line["conventions"]["activation"] == "quick_gelu"


def test_which_weights_of_a_folder(folder: Path, weights: Path) -> None:
    safe = folder / "open_clip_model.safetensors"
    shutil.copy(weights, folder / "other.pt")
    assert weights_of(str(folder), None).checkpoint == str(safe)
    safe.unlink()
    assert weights_of(str(folder), None).checkpoint == str(folder / "other.pt")
    shutil.copy(weights, folder / "another.pt")
    assert "holds another.pt, other.pt; checkpoint= says which" in refused(str(folder))
    shutil.copy(weights, folder / "open_clip_pytorch_model.bin")
    assert weights_of(str(folder), None).checkpoint == str(folder / "open_clip_pytorch_model.bin")
    for path in folder.glob("*.[pb][ti]*"):
        path.unlink()
    assert "holds no weights" in refused(str(folder))


def refused(model: str, checkpoint: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        found = weights_of(model, checkpoint)
        load(found.model, found.checkpoint, folder=found.folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_folders(folder: Path, tmp_path: Path) -> None:
    assert "is not a folder" in refused(f"local-dir:{tmp_path}/nowhere")
    assert "is not a file; model=" in refused(str(folder), "openai")
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "has no model_cfg"),
        ('{"model_cfg": {"embed_dim": 3}}', "has no model_cfg with embed_dim"),
        ('{"model_cfg": {"embed_dim": 3, "vision_cfg": {"x": 1}, "text_cfg": {}}}', "cannot be built"),
    ):
        (folder / CONFIG).write_text(text)
        assert message in refused(str(folder))
    (folder / CONFIG).unlink()
    assert f"holds no {CONFIG}" in refused(str(folder))


def test_a_repository_is_evaluated_as_open_clip_would(
    hub: hub_server.Hub, folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_is_open_clips(f"hf-hub:{REPOSITORY}", folder)
    line = evaluated(f"hf-hub:{REPOSITORY}", data, tmp_path / "out")
    assert (line["model"], line["tag"]) == (f"hf-hub:{REPOSITORY}", hub_server.COMMIT)
    assert line["checkpoint_sha256"] == digest_file(folder / "open_clip_model.safetensors")
    assert line["conventions"] == {"activation": "quick_gelu", **PREPROCESS}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # all is in the cache by now
    assert weights_of(f"hf-hub:{REPOSITORY}", None).tag == hub_server.COMMIT


def test_a_repository_with_a_pickle_only(hub: hub_server.Hub, weights: Path) -> None:
    files = hub.repositories[REPOSITORY]["main"]
    del files["open_clip_model.safetensors"]
    assert "holds neither open_clip_model.safetensors nor open_clip_pytorch_model.bin" in refused(
        f"hf-hub:{REPOSITORY}"
    )
    files["open_clip_pytorch_model.bin"] = weights.read_bytes()
    assert weights_of(f"hf-hub:{REPOSITORY}", None).sha256 == digest_file(weights)


def test_wrong_repositories(hub: hub_server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("hf-hub:nobody/nothing").startswith("model=hf-hub:nobody/nothing: no such repository")
    del hub.repositories[REPOSITORY]["main"][CONFIG]
    assert f"has no {CONFIG}: it is not a model of open_clip" in refused(f"hf-hub:{REPOSITORY}")
    assert "model=hf-hub:" in refused("hf-hub:") and "model=hf-hub:a b" in refused("hf-hub:a b")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot be reached" in refused("hf-hub:somebody/else")


def test_commands_take_them_without_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    check(EvaluateConfig(model=str(folder), out="out"))
    check(EvaluateConfig(model="hf-hub:a/b", out="out"))
    with pytest.raises(UserError, match="checkpoint= is needed with model="):
        check(EvaluateConfig(model="ViT-B-32", out="out"))


def test_a_pool_is_scored_with_them(
    hub: hub_server.Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "pool" / "0.tar", ((f"{number:08d}", sample(number)) for number in range(5)))
    vectors = []
    hub_model, local = f"model=hf-hub:{REPOSITORY}", f"local-dir:{folder}"
    for number, word in enumerate((hub_model, f"model={folder}", f"model={local}", f"checkpoint={folder}")):
        out = tmp_path / str(number)
        words = [word, f"shards={tmp_path / 'pool'}", f"out={out}", "workers=0", "device=cpu"]
        monkeypatch.setattr(sys, "argv", ["score", *words])
        assert score.main() == 0
        vectors.append(np.load(out / "0.npz")["model_img"])
        record = json.loads(pq.read_schema(out / "0.parquet").metadata[b"poolbench.scores"])["model"]
        assert record["conventions"] == {"activation": "quick_gelu", **PREPROCESS}
        assert record["conditions"]["model"] == (local if number else f"hf-hub:{REPOSITORY}")
    assert all(np.array_equal(vectors[0], other) for other in vectors[1:])
    monkeypatch.setattr(sys, "argv", ["score", f"shards={tmp_path / 'pool'}", "out=x"])
    with pytest.raises(UserError, match="checkpoint= is needed, or model= with weights of its own"):
        score.main()


def test_the_command_line_reaches_the_hub(hub: hub_server.Hub, data: Path, tmp_path: Path) -> None:
    words = [f"model=hf-hub:{REPOSITORY}", f"data={data}", f"out={tmp_path / 'out'}", f"tasks={EUROSAT.key}"]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "evaluate", *words, "device=cpu", "workers=0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = read_lines(tmp_path / "out" / "eval_results.jsonl")
    assert (line["model"], line["tag"]) == (f"hf-hub:{REPOSITORY}", hub_server.COMMIT)


def test_a_recipe_takes_names_only(folder: Path) -> None:
    from poolbench.models.names import check_name

    for model in ("hf-hub:a/b", f"local-dir:{folder}"):
        with pytest.raises(UserError, match=r"only evaluate and curate\.score take others"):
            check_name(model)


def test_scores_are_those_of_the_same_weights_under_a_name(folder: Path, data: Path, tmp_path: Path) -> None:
    """The folder's configuration without its own activation and normalisation is the plain model."""
    (folder / CONFIG).write_text(json.dumps({"model_cfg": open_clip.get_model_config(MODEL)}))
    line = evaluated(str(folder), data, tmp_path / "out")
    weights = write_checkpoint(tmp_path / "plain.pt", seed=3)
    plain = scored(weights, data, tmp_path / "plain", [EUROSAT.key]).line(EUROSAT.key)
    assert line["metrics"] == plain["metrics"] and line["conventions"] == plain["conventions"]
