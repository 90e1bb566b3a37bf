"""Every command: help, options that stay what was typed, and places that can be read and written."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import poolbench.usage
from poolbench import HOME
from poolbench import console as command
from poolbench.command import compose, hydra_command, in_quotes, parse, quoted, typed
from poolbench.errors import UserError, status_of
from poolbench.files import cache
from poolbench.options import MISSING, Option, Place, located, option, options_of, output, source

from curate.config import parsed
from curate.select import select
from curate.selectors.registry import build, options_by_filter
from evaluate.config import EvaluateConfig, patterns
from leaderboard.command import COMMANDS as OF_LEADERBOARD
from tasks.command import COMMANDS as OF_TASKS
from train.config import TrainConfig, check
from train.manifest import read_runs

COMPOSED = {"train": TrainConfig, "evaluate": EvaluateConfig}
SCALED = {"train": ["scale=tiny", "data=a", "name=a"], "evaluate": []}  # what has to be given
COMMANDS = [
    *([name] for name, _ in command.commands()),
    *(["tasks", name] for name in OF_TASKS),
    *(["leaderboard", name] for name in OF_LEADERBOARD),
]
# What YAML, OmegaConf or Hydra would read as something else.
_NUMBERS = "2024_05_01 2024-05-01 3.1 3.10 1e3 0x10 1_000 007 1:30 .5 -1 +1 inf nan int(3) on yes true null None ~ ???"
_SIGNS = "[a] {a} {a:1} (a) a,b a:b a=b a@b a#b # % * !x & choice(a,b) $x ${seed} ${oc.env:HOME} x${"
TEXTS = (
    *_NUMBERS.split(),
    *_SIGNS.split(),
    *(" ", "", "a ", " a", "a b", "a\tb", "\u00e4\u2028b"),
    *("\\", "a\\", "\\${seed}", "\\\\", "'", '"', "'a'", "a'b", "\\'", "a\\\\'", "a\"b'c"),
)

Run = Callable[..., tuple[int, str]]


@dataclass
class Options:
    text: str = option("a text", "")
    maybe: str | None = option("a text or none", None)
    count: int | None = option("a number", 1)
    words: Any = option("a text or a list of texts", None)
    read: str | None = source("a file", None)
    out: str | None = output("a folder", None)
    shards: Any = source("tars", None, remote=True, shards=True)
    store: str | None = output("a folder or URL", None, remote=True)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command poolbench in this process: its status, and what it printed."""

    def start(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["poolbench", *words])
        monkeypatch.setenv("PYTHONSAFEPATH", "1")
        with pytest.raises(SystemExit) as ended:
            command.main()
            sys.exit(0)  # as Python does
        return ended.value.code if isinstance(ended.value.code, int) else 0, "".join(capsys.readouterr())

    return start


@pytest.fixture(scope="module")
def schemas() -> Iterator[dict[str, type[Any]]]:
    """The options of every command, as they are seen when it is asked for help."""
    found: dict[str, type[Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for words in COMMANDS:

            def seen(schema: type[Any], name: str = " ".join(words)) -> Iterator[Option]:
                found[name] = schema
                return options_of(schema)

            patch.setattr(poolbench.usage, "options_of", seen)
            patch.setattr(sys, "argv", ["poolbench", *words, "--help"])
            patch.setenv("PYTHONSAFEPATH", "1")
            with pytest.raises(SystemExit):
                command.main()
                sys.exit(0)
    yield found


def commanded(schemas: dict[str, type[Any]], name: str) -> list[Option]:
    return list(options_of({**schemas, **COMPOSED}[name]))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_answers_help_with_each_of_its_options(
    run: Run, schemas: dict[str, type[Any]], words: list[str]
) -> None:
    status, text = run(*words, "--help")
    assert status == 0 and f"python -m {words[0]}" in text, text
    name = " ".join(words)
    for one in commanded(schemas, name) if name in {**schemas, **COMPOSED} else ():
        last = one.name.rpartition(".")[2]
        line = next(line for line in text.splitlines() if line.strip().startswith((f"{last}=", f"{last}:")))
        assert one.explanation or "#" in line or f"# {last}: " in text or "scale= large | medium" in line, line
        assert one.explanation in line
    assert {run(*words, "-h"), run(*words, "help")} == {(status, text)}


def test_commands_and_their_lines_are_listed(run: Run) -> None:
    status, text = run("--help")
    assert status == 0
    for name, line in command.commands():
        assert line and re.search(rf"^  {re.escape(name)} +{re.escape(line)}$", text, re.MULTILINE)
    assert run() == (2, text)
    assert run("curate.rehsard") == (2, "error: unknown command 'curate.rehsard': did you mean 'curate.reshard'?\n")
    for package in ("tasks", "leaderboard"):
        status, text = run(package, "--help")
        assert status == 0 and f"python -m {package} " in text


def test_every_command_was_asked_for_its_options(schemas: dict[str, type[Any]]) -> None:
    """But for those that take none, or those of `train`."""
    without = {"train", "train.folder", "train.manifest", "train.demo_time", "evaluate", "tasks", "leaderboard"}
    assert {" ".join(words) for words in COMMANDS} - without == set(schemas)


def test_an_option_that_names_a_place_is_declared_as_one(schemas: dict[str, type[Any]]) -> None:
    """So that it is refused where it cannot be read or written; also a new one, whose explanation says what it is."""
    for name, schema in {**schemas, **COMPOSED}.items():
        for one in options_of(schema):
            explanation = one.explanation or _comment(name, one.name)
            if (one.text or one.words) and re.search(r"\b(folder|file|tar|URL|path|directory)\b", explanation):
                assert one.place is not None, f"{name}: {one.name}"
    for name, options in options_by_filter().items():
        for one in options:
            assert not (one.text and re.search(r"\b(folder|file)\b|\.npy", one.explanation)) or one.place, (
                name,
                one.name,
            )


def _comment(name: str, key: str) -> str:
    text = (HOME / "conf" / f"{name}.yaml").read_text(encoding="utf-8")
    found = re.search(rf"^ *{key.rpartition('.')[2]}: [^#]*#(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize(
    "place", ["s3://b/x", "s3:/b/x", "gs://b/x", "https://h/x", "host:/x", "user@host:/x", "hdfs://x", "S3://b", "s3:b"]
)
def test_a_place_elsewhere_is_refused_in_every_command(
    schemas: dict[str, type[Any]], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tried = 0
    for name, schema in {**schemas, **COMPOSED}.items():
        for one in options_of(schema):
            if one.place is None or (one.place.remote and "://" in place):
                continue
            if one.place.remote and not (one.place.writes or one.place.shards):
                continue  # the pool's metadata and models, of which the store or open_clip says what is wrong
            with pytest.raises(UserError) as caught:
                parse([f"{one.name}={place}"], schema) if name not in COMPOSED else quoted(
                    f"{one.name}={place}", schema
                )
            assert str(caught.value).startswith(f"{one.name}={place} is not "), name
            assert "\n" not in str(caught.value)
            tried += 1
    assert tried > 30 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e400", ".nan"])
def test_what_is_no_finite_number_is_refused_in_every_command(schemas: dict[str, type[Any]], number: str) -> None:
    tried = 0
    for name, schema in {**schemas, **COMPOSED}.items():
        needed = [f"{one.name}=1" for one in options_of(schema) if one.default is MISSING]
        for one in options_of(schema):
            if one.kind not in (float, float | None):
                continue
            words = [f"{one.name}={number}", *(word for word in needed if word.split("=")[0] != one.name)]
            with pytest.raises(UserError, match=rf"^{one.name}\b.*({float(number.lstrip('.'))}|{number})"):
                compose(name, [words[0], *SCALED[name]], schema) if name in COMPOSED else parse(words, schema)
            tried += 1
    assert tried > 10


@pytest.mark.parametrize("option", ["soft_cap.alpha", "dbp.temperature", "label_model.l2", "label_model.learning_rate"])
def test_what_is_no_finite_number_is_refused_in_a_filter(option: str) -> None:
    name, key = option.split(".")
    given: dict[str, Any] = {
        "soft_cap": {"column": "a", "size": 2, "alpha": 0.1},
        "dbp": {"fraction": 0.5},
        "label_model": {"votes": {"a": [0, 1], "b": [0, 1], "c": [0, 1]}, "fraction": 0.5},
    }[name]
    build({"filter": name, **given})
    for number in (float("nan"), float("inf")):
        with pytest.raises(UserError, match=rf"filter\.{key}\b.*{number}"):
            build({"filter": name, **given, key: number})


@pytest.mark.parametrize("flags", [[], ["-m"]])
@pytest.mark.parametrize("wrong", ["out=s3://b/runs", "hydra.run.dir=s3://b/x", "hydra.sweep.dir='s3://b/x'"])
def test_nothing_is_written_for_a_place_elsewhere(
    wrong: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *flags, "scale=tiny", wrong])
    with pytest.raises(SystemExit) as ended:
        hydra_command("train", TrainConfig, lambda config: pytest.fail("it ran"))
    assert ended.value.code == 2
    assert (
        " is not written: only local files and folders are; copy it there when it is whole" in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_the_cache_is_a_local_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", "s3://bucket/cache")
    with pytest.raises(UserError, match="POOLBENCH_CACHE=s3://bucket/cache is not written"):
        cache()
    monkeypatch.setenv("POOLBENCH_CACHE", "file:///x/y")
    assert cache() == Path("/x/y")


def test_places_are_what_they_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    local, store = Place(writes=True, remote=False), Place(writes=True, remote=True)
    for typed_, path in {
        "file:///x/y": "/x/y",
        "file://localhost/x": "/x",
        "file:/x": "/x",
        "~": "/home/me",
        "~/x": "/home/me/x",
        "~nobody-here/x": "~nobody-here/x",
        "a:b": "a:b",
        "x/s3://y": "x/s3://y",
        "/s3:/x": "/s3:/x",
    }.items():
        assert located("out", typed_, local) == located("out", typed_, store) == path
    assert located("out", "s3://b/x", store) == "s3://b/x"
    for wrong in ("s3:/b/x", "https://h/x", "pipe:cat"):
        with pytest.raises(UserError, match=r"out=.* is not written: only files, folders and URLs such as s3://"):
            located("out", wrong, store)
    (tmp_path / "a:").mkdir()
    (tmp_path / "a:/x").touch()
    monkeypatch.chdir(tmp_path)  # what is there can be read, whatever it is called
    assert located("data", "a:/x", Place(writes=False, remote=False)) == "a:/x"
    with pytest.raises(UserError, match=r"^s3://b/x is not read: only local files and folders are"):
        parse(["s3://b/x"], Options)
    assert parse(["runs/lr=1", "b"], Options)[0] == ["runs/lr=1", "b"]
    (tmp_path / "file").touch()
    assert located("out", "new/y/z", local) == "new/y/z" and located("out", "file", local) == "file"
    with pytest.raises(UserError, match=r"^out=file/y/z cannot be written: file is a file, not a folder$"):
        parse(["out=file/y/z"], Options)
    assert parse(["out=file"], Options)[1].out == "file"


@pytest.mark.parametrize("words", [["pool=.", "out={}/x.npy"], ["pool={}", "out=x.npy"]])
def test_names_too_long_for_a_disk_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    name = "x" * 300
    asked = ["filter=basic", *(word.format(name) for word in words)]
    assert status_of(lambda: select(*parsed(asked))) == 2
    assert re.fullmatch(rf"error: File name too long: .*{name}.*; choose a shorter one\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("typed_", "told"),
    [
        ("a.tar::b.tar", "is no folder, .tar, brace pattern or URL; several are data=[a.tar,b.tar]"),
        ("s3://b/a.tar::s3://b/b.tar", "several are data=[a.tar,b.tar]"),
        ("x.tar,y.tar", "several are data=[a.tar,b.tar]"),
        ("pipe:cat x.tar", "what a command prints is not read; name a folder, a .tar, a pattern or a URL"),
        ("pipe:aws s3 cp s3://b/x.tar -", "what a command prints is not read"),
        ("s3:/bucket/pool", "only files, folders and URLs such as s3://bucket/folder are"),
    ],
)
def test_the_forms_of_other_tools_name_ours(typed_: str, told: str) -> None:
    for ask in (
        lambda: compose("train", ["scale=small", f"data={typed_}"], TrainConfig),
        lambda: compose("train", ["scale=small", f"data=[/a,'{typed_}']"], TrainConfig),
        lambda: parse([f"shards={typed_}"], Options),
    ):
        with pytest.raises(UserError) as caught:
            ask()
        assert told.replace("data=", str(caught.value).partition("=")[0] + "=") in str(caught.value)
    assert located("data", "simplecache::s3://b/x", Place(False, True, True)) == "simplecache::s3://b/x"


def test_a_list_of_shards_is_one_in_every_command() -> None:
    for schema in (TrainConfig, Options):
        (one,) = (one for one in options_of(schema) if one.place is not None and one.place.shards)
        words = [f"{one.name}=[/a/{{0,1}}.tar, 's3://b/c d']"]
        read: Any = (
            compose("train", ["scale=small", *words], TrainConfig)
            if schema is TrainConfig
            else parse(words, Options)[1]
        )
        assert getattr(read, one.name) == ["/a/{0,1}.tar", "s3://b/c d"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_stays_what_was_typed(text: str) -> None:
    written = text
    if len(text) > 1 and text[0] == text[-1] == "'":
        written = in_quotes(text)  # quotes around the whole are Hydra's
    expected = None if text == "null" else text
    found = _read([f"text={written}", f"maybe={written}"])
    assert (found.text, found.maybe) == (text, expected)
    options = parse([f"text={text}", f"maybe={text}"], Options)[1]
    assert (options.text, options.maybe) == (text, expected)


@settings(max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@example("x${").via("what OmegaConf cannot parse")
def test_any_text_passes_hydra(text: str) -> None:
    """Alone, in a list, and as one that is swept; in quotes, and without where they do not make it another."""
    words = [f"text={in_quotes(text)}"]
    if text[:1] not in ("'", '"'):
        words.append(f"text={text}")
    assert {_read([word]).text for word in words} == {text}
    if text and text[-1] != "\\":  # which Hydra's lexer does not keep apart from what follows in a list
        assert _read([f"words=[{in_quotes(text)},b]"]).words == [text, "b"]
        (swept,) = OverridesParser.create().parse_overrides([f"text={in_quotes(text)},{in_quotes('b')}"])
        assert [_read([f"text={value}"]).text for value in swept.sweep_string_iterator()] == [text, "b"]


def _read(words: list[str]) -> Options:
    """What becomes of overrides on their way through Hydra and OmegaConf."""
    parsed_ = OverridesParser.create().parse_overrides([quoted(word, Options) for word in words])
    return typed(OmegaConf.create({override.key_or_group: override.value() for override in parsed_}), Options)


def test_sweeps_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran: list[tuple[str | None, int, str]] = []

    def note(config: TrainConfig) -> None:
        ran.append((config.name, config.seed, config.out))

    monkeypatch.setattr(
        sys, "argv", ["train", "-m", "scale=tiny", "name=3.1,3.10,2024_05_01,'a,b',${seed}", "seed=1,2"]
    )
    with pytest.raises(SystemExit) as ended:
        hydra_command("train", TrainConfig, note)
    assert ended.value.code == 0
    names = ["3.1", "3.10", "2024_05_01", "a,b", "${seed}"]
    assert ran == [(name, seed, "runs") for name in names for seed in (1, 2)]


def test_two_names_are_two_runs() -> None:
    names = ["3.1", "3.10", "2024_05_01", "20240501", "1e3", "1000.0", "yes", "True", "true", "007", "7"]
    folders = {compose("train", ["scale=tiny", f"name={name}"], TrainConfig).folder for name in names}
    assert folders == {Path("runs") / name for name in names}
    assert compose("train", ["scale=tiny", "wandb.project=3.10"], TrainConfig).wandb.project == "3.10"
    with pytest.raises(UserError, match="name='' must be a plain folder name"):
        check(compose("train", ["scale=tiny", "name="], TrainConfig), 1)


def test_null_is_the_default_of_an_option_that_is_null_by_default() -> None:
    assert vars(parse(["text=null", "maybe=null", "count=null", "words=null"], Options)[1]) == {
        **{one.name: None for one in fields(Options)},
        "text": "null",
    }
    found = compose("train", ["scale=tiny", "name=null", "subset=null", "out=null", "data=null"], TrainConfig)
    assert (found.name, found.subset, found.data, found.folder) == (None, None, None, Path("null/tiny-seed0"))
    assert compose("train", ["scale=tiny", "name='null'"], TrainConfig).name == "null"


def test_a_method_and_a_seed_of_a_manifest_are_what_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "runs.yaml"
    path.write_text("methods: {2024_05_01: [], 3.10: [subset=1e3], yes: [], null: [data=007]}\nseeds: [0, 007, -1]\n")
    runs = read_runs(path)
    assert [run.name for run in runs[::3]] == ["2024_05_01-seed0", "3.10-seed0", "yes-seed0", "null-seed0"]
    assert [run.words[-1] for run in runs[:3]] == ["seed=0", "seed=7", "seed=-1"]
    assert runs[3].words[0] == "subset=1e3" and runs[9].words[0] == "data=007"
    path.write_text("methods: {a: []}\nseeds: [1_0]\n")
    with pytest.raises(UserError, match=r"seeds.0: Input should be a valid integer"):
        read_runs(path)


def test_texts_of_a_filter_are_what_was_typed() -> None:
    for text in ("1e3_score", "007", "null", "on", "${x}", "???"):
        words = ["filter=clip_score", f"filter.arch={text}", "filter.fraction=1e-1", "out=x.npy", "pool=y"]
        assert parsed(words)[1] == {"filter": "clip_score", "arch": text, "fraction": 0.1}
    assert build({"filter": "clip_score", "arch": "${x}_score", "fraction": 0.1}).options.arch == "${x}_score"
    with pytest.raises(UserError, match=r"filter.arch=1000.0 is not a text; put it in quotes"):
        build({"filter": "clip_score", "arch": 1e3, "fraction": 0.1})
    with pytest.raises(UserError, match=r"filter.of.0.path=s3://b/x.npy is not read: only local files"):
        build({"filter": "union", "of": ["s3://b/x.npy"]})


@pytest.mark.parametrize("written", ["cifar10,mnist", "[cifar10,mnist]", "cifar10, mnist", "['cifar10,mnist']"])
def test_tasks_are_parted_by_commas_in_every_command(written: str) -> None:
    assert patterns(compose("evaluate", [f"tasks={written}"], EvaluateConfig).tasks) == ["cifar10", "mnist"]
    config = compose("train", ["scale=tiny", f"evaluate.tasks={written}"], TrainConfig)
    assert config.evaluate.words == ("cifar10", "mnist")
