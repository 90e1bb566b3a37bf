"""Tables of public models' scores: read from a copy or an address, and what is wrong with one in a line."""

import re
from pathlib import Path

import pytest
from faulty_server import Faulty, serving
from public_models import SCORED, made_up, write_table

import poolbench.remote
from poolbench.errors import UserError
from poolbench.files import digest_file

import tasks.published
from tasks.published import KNOWN, Model, chosen, read

MODELS = ["ViT-B-32/openai", "ViT-B-16/openai", "ViT-B-16/laion2b", "RN50/cc12m"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "scores.csv", made_up(MODELS))


def test_a_copy_is_read_by_the_keys_of_our_tasks(table: Path) -> None:
    found = read(str(table))
    assert found.models == [Model(name, scores) for name, scores in made_up(MODELS).items()]
    assert set(found.models[0].scores) == {task.key for task in SCORED} and len(SCORED) == 38
    assert (found.text, found.url) == (f"scores.csv, SHA-256 {digest_file(table)[:16]}", None)
    assert found.sha256 == digest_file(table)


def test_other_columns_orders_and_line_ends_are_no_difference(table: Path) -> None:
    expected = read(str(table)).models
    lines = [line.split(",") for line in table.read_text().splitlines()]
    turned = "\r\n".join(",".join([*line[::-1], "x" if number else "note"]) for number, line in enumerate(lines))
    table.write_bytes(b"\xef\xbb\xbf" + turned.encode() + b"\r\n\r\n")
    assert [(one.name, dict(sorted(one.scores.items()))) for one in read(str(table)).models] == [
        (one.name, dict(sorted(one.scores.items()))) for one in expected
    ]


def test_what_is_not_told_is_none(table: Path) -> None:
    name, pretrained, *rest = table.read_text().splitlines()[1].split(",")
    text = table.read_text().replace(",".join((name, pretrained, *rest)), ",".join((name, "", *rest[:-1], " ")))
    table.write_text(text)
    first = read(str(table)).models[0]
    assert first.name == "ViT-B-32" and list(first.scores.values()).count(None) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Flickr,", "Flicker,", "the column 'Flickr' is missing; did you mean 'Flicker'?"),
        ("pretrained,", "tag,", "the column 'pretrained' is missing; "),
        ("params (M),", "MNIST,", "the column 'MNIST' is there twice"),
        ("ViT-B-16,openai", "ViT-B-32,openai", ", line 3: the model ViT-B-32/openai stands there twice"),
        ("RN50,cc12m", ",cc12m", ", line 5: 'cc12m' is no name of a model"),
        ("RN50,cc12m", "RN\x1b50,cc12m", r", line 5: 'RN\x1b50/cc12m' is no name of a model"),
        ("RN50,cc12m", "RN50", ", line 5: 42 cells, where the first line has 43"),
        ("RN50,cc12m", 'RN50",cc12m', None),
        ("RN50,cc12m", 'RN50,"cc12m', " is not a CSV of results by model"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(table: Path, old: str, new: str, message: str | None) -> None:
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))
    if message is None:  # a quote within a cell is a letter like others
        assert read(str(table)).models[-1].name == 'RN50"/cc12m'
        return
    with pytest.raises(UserError) as caught:
        read(str(table))
    assert str(caught.value).startswith(f"published={table}") and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["63.3", "-0.1", "nan", "inf", "high", "1e400"])
def test_a_score_is_a_share(table: Path, cell: str) -> None:
    text = table.read_text()
    value = text.splitlines()[2].split(",")[-1]
    table.write_text(text.replace(f"{value}\n", f"{cell}\n", 1))
    with pytest.raises(UserError, match=rf", line 3: iWildCam is '{re.escape(cell)}', not a share from 0 to 1"):
        read(str(table))


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n<p>Sorry", b"\x93NUMPY\xff\xfe", b"a,b\n1,2\n"])
def test_another_file_is_no_table(table: Path, content: bytes) -> None:
    table.write_bytes(content)
    with pytest.raises(UserError, match=r"scores.csv is not a CSV of results by model") as caught:
        read(str(table))
    assert "\n" not in str(caught.value)


def test_a_table_without_rows_and_a_file_that_is_not_there(table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="has no models below its first line"):
        read(str(table))
    with pytest.raises(UserError, match=r"published=open_clip cannot be read: No such file.*; did you mean 'openclip'"):
        read("open_clip")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory$"):
        read(str(tmp_path))


def test_a_copy_that_is_pinned_is_that_one(table: Path) -> None:
    right = digest_file(table)
    assert read(f"{table}#sha256={right}") == read(str(table))
    with pytest.raises(UserError, match=rf"its digest is {right} instead of {'0' * 64}; it is not the file you pinned"):
        read(f"{table}#sha256={'0' * 64}")


# --- from an address ---


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(poolbench.remote, "_PAUSES", (0.01, 0.01))
    return tmp_path / "cache" / "assets"


def test_an_address_is_fetched_once_with_its_digest(table: Path, tmp_path: Path, home: Path) -> None:
    digest = digest_file(table)
    with serving(Faulty(tmp_path)) as server:
        server.cut["/scores.csv"] = 1
        place = f"{server.url}/scores.csv#sha256={digest}"
        found = read(place)
        gets = server.gets.total()
        assert found.models == read(str(table)).models and found == read(place)
        assert server.gets.total() == gets and server.failed >= 1
    assert [path.name for path in home.iterdir()] == [f"published_{digest[:16]}.csv"]


def test_an_address_with_another_content_or_none_is_refused(table: Path, tmp_path: Path, home: Path) -> None:
    with serving(Faulty(tmp_path)) as server:
        with pytest.raises(UserError, match=r"the digest is sha256:\w+ instead of sha256:0+ of http://.*/scores.csv"):
            read(f"{server.url}/scores.csv#sha256={'0' * 64}")
        with pytest.raises(UserError, match=r"can change; write #sha256=<64 hex digits> behind it, or load it down"):
            read(f"{server.url}/scores.csv")
        with pytest.raises(UserError, match=r"there is no such file; .* or name a copy of it: published=<file>"):
            read(f"{server.url}/gone.csv#sha256={'0' * 64}")
    with pytest.raises(UserError, match=r"published=s3://b/x.csv: a file, openclip, or a http\(s\) address is read"):
        read("s3://b/x.csv")
    assert not list(home.iterdir())


def test_open_clips_own_table_is_known_by_a_word(
    table: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KNOWN["openclip"]
    assert re.fullmatch(r"https://raw\.githubusercontent\.com/mlfoundations/open_clip/[0-9a-f]{40}/.*", known.asset.url)
    with serving(Faulty(tmp_path)) as server:
        asset = known.asset._replace(url=f"{server.url}/scores.csv", digest=f"sha256:{digest_file(table)}")
        monkeypatch.setitem(tasks.published.KNOWN, "openclip", known._replace(asset=asset))
        found = read("openclip")
        assert found == read(asset.url), "its address needs no digest"
    assert (found.text, found.url) == (known.text, known.url)
    assert read(str(table)) == found, "a copy is known, too"
    (home / "openclip_results.csv").write_bytes(b"changed")
    with pytest.raises(UserError, match="delete it, or put the right one there"):
        read("openclip")


# --- which models ---


def test_models_are_chosen_by_globs_in_the_order_of_the_table(table: Path) -> None:
    models = read(str(table)).models
    assert [one.name for one in chosen(models, ["ViT-B-16/*", "ViT-B-32/openai"])] == MODELS[:3]
    assert [one.name for one in chosen(models, ["*/openai", "*/openai"])] == MODELS[:2]
    assert [one.name for one in chosen(models, "RN50/*, ViT-B-32/*")] == [MODELS[0], MODELS[3]]
    assert chosen(models, []) == [] and chosen(models, None) == models
    with pytest.raises(UserError) as caught:
        chosen(models, ["ViT-B-32/openai", "ViT-B-16/opnai"])
    message = "models: 'ViT-B-16/opnai' is no published model; near it are ViT-B-16/openai, ViT-B-32/openai, "
    assert str(caught.value).startswith(message)
