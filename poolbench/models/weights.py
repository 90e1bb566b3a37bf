"""Which weights: a file, one of open_clip's pretrained tags, the checkpoint of a training run, a repository of the
Hugging Face Hub, or a folder with a model and its configuration."""

from pathlib import Path
from typing import NamedTuple

from poolbench.errors import UserError, first_line
from poolbench.files import digest_file, digest_json, read_json
from poolbench.models.names import CONFIG, FOLDER, HUB, PYTHON, brings_weights, check_name
from poolbench.run_record import FILE, read_record
from poolbench.text import some

# In this order, as open_clip takes them.
_IN_REPOSITORY = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_IN_FOLDER = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model")


class Weights(NamedTuple):
    """A model's weights, and what tells them from others.

    Attributes:
        model: open_clip's name of the architecture, `hf-hub:<repository>` or `local-dir:<absolute path>`.
        checkpoint: a file, or a pretrained tag.
        tag: what settles the scores beside weights and architecture, namely activation, preprocessing and tokenizer:
            the pretrained tag, the commit of a repository, or `config:` and the digest of a folder's configuration;
            None for a file, which has what open_clip has for its architecture.
        sha256: of the weights' file as it is now.
        folder: where the configuration of a model lies that is not one of open_clip's, else None.
    """

    model: str
    checkpoint: str
    tag: str | None
    sha256: str
    folder: Path | None = None


class Trained(NamedTuple):
    """What run.json says of a training run's newest checkpoint; the file may be another one by now, or gone."""

    model: str
    scale: str
    checkpoint: Path
    sha256: str


def weights_of(model: str, checkpoint: str | None) -> Weights:
    """Find and hash the weights of `model`; what is to be downloaded goes into the caches of open_clip and the Hub.

    Args:
        model: open_clip's name, `hf-hub:<repository>`, or a folder with open_clip_config.json, with or without
            `local-dir:`.
        checkpoint: a file or a pretrained tag; None for the weights that a repository or folder brings.

    Raises:
        UserError: no such model, no such file or tag, or the download fails.
    """
    if model.startswith(PYTHON):
        check_name(model)  # which refuses it
    if brings_weights(model):
        return _of_repository(model, checkpoint) if model.startswith(HUB) else _of_folder(model, checkpoint)
    if checkpoint is None:
        raise UserError(f"checkpoint= is needed with model={model}: a file or one of open_clip's pretrained tags")
    from poolbench.models.clip import check_checkpoint  # with open_clip, which takes seconds to load

    check_checkpoint(model, checkpoint)
    if Path(checkpoint).is_file():
        return Weights(model, checkpoint, None, digest_file(checkpoint))
    return Weights(model, checkpoint, checkpoint, digest_file(_downloaded(model, checkpoint)))


def weights_named(checkpoint: str | None, model: str | None) -> Weights:
    """Find the weights of `checkpoint=`: a file, a pretrained tag, or the folder of a training run or of a model with
    its configuration; without it those that `model=` brings.

    Raises:
        UserError: no such run, model, file or tag, or a model has to be named.
    """
    if checkpoint is None:
        if model is None:
            raise UserError("checkpoint= is needed, or model= with weights of its own: hf-hub:<repository>, a folder")
        return weights_of(model, None)
    path = Path(checkpoint).expanduser()
    if path.is_dir() and (path / CONFIG).is_file() and not (path / "run.json").is_file():
        return weights_of(model or str(path), None)
    if path.is_dir():
        newest = trained(path)
        return weights_of(model or newest.model, str(newest.checkpoint))
    if model is None and path.is_file() and (path.parent.parent / "run.json").is_file():
        model = trained(path.parent.parent).model
    if model is None:
        if not path.is_file():
            raise UserError(f"checkpoint={checkpoint} is no file and no run; a pretrained tag needs model= as well")
        raise UserError(f"model= is needed: open_clip's name of the architecture of {checkpoint}")
    return weights_of(model, str(path) if path.is_file() else checkpoint)


def model_told(checkpoint: str) -> str | None:
    """open_clip's name of the model of a training run's folder, or of a file in its `checkpoints/`; None of others.

    Raises:
        UserError: run.json is not one of a training run.
    """
    path = Path(checkpoint).expanduser()
    run = path if path.is_dir() else path.parent.parent
    return read_record(run).model if (run / FILE).is_file() else None


def trained(run: Path) -> Trained:
    """The newest checkpoint of the training run in a folder, as recorded.

    Raises:
        UserError: there is no run.json, it is not of a training run, or it names no checkpoint yet.
    """
    record = read_record(run)
    if record.checkpoint is None:
        raise UserError(f"{run / FILE} names no checkpoint: the run has not written one yet")
    return Trained(record.model, record.scale, run / record.checkpoint.path, record.checkpoint.sha256)


def _downloaded(model: str, tag: str) -> Path:
    """The file of a pretrained tag, in open_clip's cache."""
    import open_clip

    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, tag)))
    except Exception as error:  # network libraries raise many kinds; all mean the same to the user
        raise UserError(f"the weights {model}/{tag} cannot be downloaded: {first_line(error)}") from None


def _of_folder(model: str, checkpoint: str | None) -> Weights:
    """The weights and configuration in a folder."""
    folder = Path(model.removeprefix(FOLDER)).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"model={model} is not a folder")
    _check_config(folder, model)
    path = Path(checkpoint) if checkpoint is not None else _only_weights(folder)
    _check_file(path, model)
    files = {folder / CONFIG, *(path for pattern in _TOKENIZER for path in folder.glob(pattern) if path.is_file())}
    config = digest_json(sorted([file.name, digest_file(file)] for file in files))
    return Weights(f"{FOLDER}{folder}", str(path), f"config:{config}", digest_file(path), folder)


def _only_weights(folder: Path) -> Path:
    """The weights of a folder: those of the first name that open_clip looks for, or the only ones.

    Raises:
        UserError: there are none, or others that open_clip would choose among by the alphabet.
    """
    found = sorted(path.name for path in folder.iterdir() if path.suffix in _WEIGHTS and path.is_file())
    known = [name for name in _IN_FOLDER if name in found]
    if not known and len(found) != 1:
        what = f"holds {some(found)}; checkpoint= says which" if found else "holds no weights; checkpoint= names a file"
        raise UserError(f"{folder} {what}")
    return folder / (known or found)[0]


def _of_repository(model: str, checkpoint: str | None) -> Weights:
    """The weights and configuration of a repository of the Hugging Face Hub, all of one commit."""
    repository = model.removeprefix(HUB)
    config = _fetched(repository, CONFIG, None)
    if config is None:
        raise UserError(f"model={model} has no {CONFIG}: it is not a model of open_clip")
    folder = config.parent
    commit = folder.name
    _check_config(folder, model)
    if checkpoint is not None:
        path = Path(checkpoint)
    else:
        files = (_fetched(repository, name, commit) for name in _IN_REPOSITORY)
        found = next((file for file in files if file is not None), None)
        if found is None:
            raise UserError(f"model={model} holds neither {' nor '.join(_IN_REPOSITORY)}; checkpoint= names a file")
        path = found
    _check_file(path, model)
    return Weights(model, str(path), commit, digest_file(path), folder)


def _fetched(repository: str, name: str, commit: str | None) -> Path | None:
    """A file of a repository in the Hub's cache, None where the repository has none of that name.

    Raises:
        UserError: there is no such repository, or it cannot be reached.
    """
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(hf_hub_download(repository, name, revision=commit))
    except RepositoryNotFoundError:
        raise UserError(f"model={HUB}{repository}: no such repository, or a private one that needs HF_TOKEN") from None
    except LocalEntryNotFoundError as error:  # the Hub cannot be reached, or HF_HUB_OFFLINE is set
        if try_to_load_from_cache(repository, name, revision=commit) is _CACHED_NO_EXIST:
            return None
        raise UserError(f"model={HUB}{repository} cannot be reached: {first_line(error)}") from None
    except EntryNotFoundError:
        return None
    except Exception as error:  # network libraries raise many kinds; all mean the same to the user
        raise UserError(f"model={HUB}{repository} cannot be downloaded: {first_line(error)}") from None


def _check_config(folder: Path, model: str) -> None:
    if not (folder / CONFIG).is_file():
        raise UserError(f"model={model} holds no {CONFIG}, which says what model it is")
    config = read_json(folder / CONFIG)
    parts = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(parts, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= parts.keys():
        raise UserError(f"model={model}: its {CONFIG} has no model_cfg with embed_dim, vision_cfg and text_cfg")


def _check_file(path: Path, model: str) -> None:
    if not path.is_file():
        raise UserError(f"checkpoint={path} is not a file; model={model} has no pretrained tags")
