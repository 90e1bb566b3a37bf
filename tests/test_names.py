"""Class names and templates are held against those known for a task, and the digests of those against the packages."""

import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT

import tasks.names
from tasks.names import KNOWN, Names, packaged, speaks_of_names, unlike_known, write
from tasks.registry import load_tasks

PETS = "vtab/pets"


def names_of(key: str) -> tuple[Names, Names]:
    lists = packaged()[key]
    return lists["classnames"], lists["templates"]


def test_the_digests_are_those_of_the_packages_lists(tmp_path: Path) -> None:
    write(tmp_path / "known.json")
    assert (tmp_path / "known.json").read_bytes() == KNOWN.read_bytes(), "python -m tasks names writes it anew"


def test_lists_are_of_tasks_and_as_long_as_their_classes() -> None:
    known = load_tasks()
    for key, lists in packaged().items():
        assert len(lists.get("classnames", ())) in (0, known[key].classes)
        assert lists["templates"] and all("{c}" in line for line in lists["templates"])
    assert len(packaged()) == 31 and sum("classnames" in lists for lists in packaged().values()) == 19


def test_open_clip_and_clip_benchmark_agree_on_imagenet() -> None:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    assert names_of("imagenet1k")[0] == tuple(IMAGENET_CLASSNAMES)
    assert names_of("imagenet-r")[1] == tuple(template("{c}") for template in OPENAI_IMAGENET_TEMPLATES)
    assert names_of("imagenet-a")[0][:3] == ("stingray", "goldfinch", "junco")  # three of its 200 wnids


def test_known_names_are_no_reason_whatever_their_blanks() -> None:
    for key, lists in packaged().items():
        blanks = [line.replace(" ", "  \t") for line in lists.get("classnames", ())]
        assert unlike_known(key, blanks, lists["templates"]) == []


def test_the_first_difference_is_named_with_both_texts() -> None:
    names, templates = names_of(PETS)
    (edited,) = unlike_known(PETS, [*names[:3], "Basset", *names[4:]], templates)
    assert edited == "classnames.txt, line 4, is 'Basset', known is 'Basset Hound'"
    swapped = [names[0], names[2], names[1], *names[3:]]
    assert unlike_known(PETS, swapped, ["a {c}"]) == [
        f"classnames.txt, line 2, is {names[2]!r}, known is {names[1]!r}",
        f"zeroshot_classification_templates.txt, line 1, is 'a {{c}}', known is {templates[0]!r}",
    ]
    (short,) = unlike_known(PETS, names[:36], templates)
    assert short == f"classnames.txt, line 37, is missing, known is {names[36]!r}"
    (long,) = unlike_known(PETS, [*names, "\x1b" + "x" * 99], templates)
    assert long == f"classnames.txt, line 38, is '\\x1b{'x' * 58}…', known is missing"
    assert all(map(speaks_of_names, (short, long))) and not speaks_of_names("36 class names, pinned at 37")


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert unlike_known("wilds/fmow", ["a"], ["{c}"]) == unlike_known("my/own", ["a"], ["{c}"]) == []
    assert unlike_known("vtab/dtd", ["a"], packaged()["vtab/dtd"]["templates"]) == []  # templates alone are known


def test_without_the_packages_a_difference_is_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    names, templates = names_of(PETS)
    monkeypatch.setattr(tasks.names, "packaged", dict)
    assert unlike_known(PETS, names, templates) == []
    (told,) = unlike_known(PETS, names[::-1], templates)
    assert told == "classnames.txt does not hold what is known for the task" and speaks_of_names(told)


def test_clip_benchmark_is_read_and_not_run() -> None:
    """Its modules import what takes seconds, and a change in them must change no grade."""
    code = "import sys, tasks.names; tasks.names.packaged(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"clip_benchmark.datasets", "open_clip", "torch", "webdataset"}
