"""Which data set a picture comes from: planted differences and none, exact draws, a leak, mistakes, the page."""

import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pools import by_webdataset, encoded, uid_of, write_tar
from runs import ROOT
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from poolbench.command import parse
from poolbench.errors import UserError
from poolbench.uids import split_uid, uid_text, write_subset

from curate import classify
from curate.classes import run as runs
from curate.classes import store as stores
from curate.classes.draws import listing, seed_of
from curate.classes.recipes import recipe_of
from curate.classes.results import Answer, control_of, rows_of
from curate.classes.run import Run
from curate.classes.sets import named
from curate.pool.hashes import hashed
from curate.pool.passes import Passes
from demodata.emoji import pictures

sys.path.insert(0, str(ROOT / "bench"))

from emoji_sets import write_sets

GREY, RED = (120, 120, 120), (160, 110, 100)
SMALL = ("side=28", "train=48", "validation=24", "epochs=6", "batch=16", "draws=2", "workers=1")


def picture(number: int, colour: tuple[int, int, int] = GREY, form: str = "PNG") -> bytes:
    """A picture of a noise of its own, about a colour."""
    noise = np.random.default_rng(number).integers(-60, 60, (36, 32 + number % 9, 3))
    return encoded(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8), form)


def sample(number: int, colour: tuple[int, int, int] = GREY, text: str = "a picture") -> tuple[str, dict[str, bytes]]:
    members = {"png": picture(number, colour), "txt": f"{text} {number}".encode()}
    return f"{number:06d}", {**members, "json": json.dumps({"uid": uid_of(number)}).encode()}


def write_set(
    folder: Path, numbers: range, colour: tuple[int, int, int] = GREY, text: str = "a picture", shards: int = 2
) -> Path:
    """Shards of samples of a colour."""
    for shard in range(shards):
        write_tar(folder / f"{shard}.tar", [sample(number, colour, text) for number in numbers[shard::shards]])
    return folder


def answer(root: Path, datasets: str, *words: str, options: tuple[str, ...] = SMALL) -> tuple[int, dict[str, Any]]:
    """`python -m curate.classify` in this process; its exit status and accuracy.json."""
    words = (*words, *(one for one in options if key(one) not in {key(word) for word in words}))
    status = classify.COMMAND.answer([f"datasets={datasets}", f"out={root / 'out'}", *words])
    return status, json.loads((root / "out" / "accuracy.json").read_text())


def key(word: str) -> str:
    """Of an option as it is typed."""
    return word.partition("=")[0]


def row(found: dict[str, Any], transform: str) -> dict[str, Any]:
    (one,) = (one for one in found["transforms"] if one["transform"] == transform)
    return dict(one)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures, other grey ones, and reddish ones."""
    root = tmp_path_factory.mktemp("sets")
    write_set(root / "grey", range(160))
    write_set(root / "other", range(1000, 1100))
    write_set(root / "red", range(2000, 2160), RED, "a red one")
    return root


def test_a_planted_tint_is_found_where_it_is_and_only_there(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = answer(
        tmp_path,
        f"{{grey: {sets}/grey, red: {sets}/red}}",
        f"asked={{mine: {sets}/other}}",
        "transforms=[none,mean_colour,pixel_shuffle_fixed,high_pass,captions]",
    )
    assert status == 0 and found["chance"] == 0.5
    for name in ("none", "mean_colour", "pixel_shuffle_fixed", "captions"):
        assert row(found, name)["mean"] > 0.9 and row(found, name)["different"], name
    blind = row(found, "high_pass")  # grey: the tint is gone
    assert not blind["different"] and 0.3 < blind["mean"] < 0.7
    for one in found["transforms"]:
        assert one["of"] == 2 * 2 * 24 and len(one["accuracies"]) == 2
        assert np.isclose(one["mean"], np.mean(one["accuracies"]))
        assert np.isclose(one["sd"], np.std(one["accuracies"], ddof=1))
        assert one["correct"] == np.trace(one["confusion"]) and np.sum(one["confusion"], axis=1).tolist() == [48, 48]
    mine = {one["taken_for"]: one for one in found["asked"] if one["transform"] == "none"}
    assert mine["grey"]["mean"] > 0.9 and np.isclose(mine["grey"]["mean"] + mine["red"]["mean"], 1)
    assert found["control"]["passed"] and found["control"]["of"] == 48 and found["control"]["sets"] == ["grey", "red"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/", "")
    assert page.count("data:image/png") == 4 * 3 * 6 and "a red one" in page
    assert "none: 9" in (told := capsys.readouterr().out) or "none: 100" in told
    assert not list(tmp_path.glob("*.work"))


def test_a_set_is_like_itself(sets: Path, tmp_path: Path) -> None:
    status, found = answer(tmp_path, f"{{first: {sets}/grey, second: {sets}/grey}}", "control=false")
    assert status == 0 and not row(found, "none")["different"] and 0.3 < row(found, "none")["mean"] < 0.7
    assert found["control"] is None


def test_workers_shards_and_their_order_change_nothing(sets: Path, tmp_path: Path) -> None:
    """Nor does a run that was stopped and goes on."""
    words = ("transforms=[none,canny,patch_shuffle]", "epochs=1", "train=20", "validation=10")
    _, found = answer(tmp_path, f"{{grey: {sets}/grey, red: {sets}/red}}", *words)
    samples = by_webdataset(sorted((sets / "grey").glob("*.tar")))[::-1]
    for shard in range(3):
        write_tar(tmp_path / "again" / f"{shard}.tar", samples[shard::3])
    _, again = answer(tmp_path, f"{{grey: {tmp_path}/again, red: {sets}/red}}", *words, "workers=2")
    for one in (found, again):
        one["sets"] = [{**known, "source": ""} for known in one["sets"]]
    assert again == found


@pytest.mark.parametrize("stopped", [1, 3])
def test_the_same_command_goes_on(sets: Path, tmp_path: Path, stopped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        f"{{grey: {sets}/grey, red: {sets}/red}}",
        "transforms=[none,hog]",
        "epochs=1",
        "train=20",
        "validation=10",
    )
    _, whole = answer(tmp_path / "whole", *words)
    made, real = list[str](), Run._predictions

    def predictions(self: Run, lesson: Any, name: str, view: str, told: str) -> Any:
        if len(made) == stopped and "again" not in made:
            raise KeyboardInterrupt
        made.append(told)
        return real(self, lesson, name, view, told)

    monkeypatch.setattr(Run, "_predictions", predictions)
    with pytest.raises(KeyboardInterrupt):
        answer(tmp_path, *words)
    done = set(made)
    made.append("again")
    _, found = answer(tmp_path, *words)
    assert found == whole and len(made) == 1 + 2 * 3 and len(done & set(made[stopped + 1 :])) == 0


@pytest.mark.slow
def test_artists_are_told_apart_and_halves_of_one_are_not(tmp_path: Path) -> None:
    """Real pictures: the same emoji as OpenMoji and as Twemoji draw them."""
    write_sets(tmp_path, pictures(lambda every: every[::16]))
    words = ("side=56", "train=120", "validation=60", "epochs=12", "draws=1", "batch=16")
    _, found = answer(tmp_path, f"{{openmoji: {tmp_path}/openmoji, twemoji: {tmp_path}/twemoji}}", *words)
    assert row(found, "none")["different"] and row(found, "none")["mean"] > 0.7 and found["control"]["passed"]
    words = (*words[:1], "train=60", "validation=40", *words[3:])
    _, found = answer(tmp_path, f"{{a: {tmp_path}/openmoji, b: {tmp_path}/openmoji}}", *words)
    assert not row(found, "none")["different"]


# --- draws ---


def drawn(root: Path, datasets: str, *words: str) -> Callable[[int], dict[str, stores.Store]]:
    """What a draw holds of each set."""
    words = (*words, *(one for one in SMALL if key(one) not in {key(word) for word in words}))
    plan = classify._plan(parse([f"datasets={datasets}", *words], classify.ClassifyOptions)[1])
    run = Run(plan, Passes([], None, 1), root / "work")
    return lambda draw: run._stores(draw)[0]


def uids(store: stores.Store) -> list[str]:
    return [uid_text(uid) for uid in store.rows["uid"]]


def test_draws_are_apart_and_follow_from_uids_alone(sets: Path, tmp_path: Path) -> None:
    """Of a set those whose hashes are least, in that order, as plain Python sorts them."""
    make = drawn(tmp_path, f"{{grey: {sets}/grey, red: {sets}/red}}", "seed=5")
    seen = []
    for draw in range(2):
        found = make(draw)
        for name, numbers in (("grey", range(160)), ("red", range(2000, 2160))):
            own = np.array([split_uid(uid_of(number)) for number in numbers], "u8,u8")
            order = np.argsort(hashed(own, seed_of(5, draw, name)))[: 48 + 24]
            assert uids(found[name]) == [uid_text(uid) for uid in own[order]]
            assert len(found[name].filled) == 72
        seen.append(uids(found["grey"]))
    assert set(seen[0]) != set(seen[1])


def test_a_part_and_its_whole_share_no_picture(sets: Path, tmp_path: Path) -> None:
    """Nor does a draw hold one picture twice, under two uids or under one."""
    part = [uid_of(number) for number in range(0, 160, 2)]
    write_subset(tmp_path / "part.npy", part)
    part_of = f"{{shards: {sets}/grey, subset: {tmp_path}/part.npy}}"
    rest_of = f"{{shards: {sets}/grey, without: {tmp_path}/part.npy}}"
    found = drawn(tmp_path, f"{{part: {part_of}, whole: {sets}/grey}}", "train=20", "validation=10")(0)
    assert set(uids(found["part"])) <= set(part) and not set(uids(found["part"])) & set(uids(found["whole"]))
    assert set(uids(found["whole"])) & set(part), "the whole is drawn from first, and from its part, too"
    found = drawn(tmp_path / "b", f"{{part: {part_of}, rest: {rest_of}}}", "train=40", "validation=40")(0)
    assert set(uids(found["part"])) == set(part) and not set(uids(found["rest"])) & set(part)
    write_subset(tmp_path / "none.npy", [])
    none_of = f"{{shards: {sets}/grey, without: {tmp_path}/none.npy}}"
    draws = [
        drawn(tmp_path / name, f"{{grey: {of}, red: {sets}/red}}")(0)
        for name, of in (("d", none_of), ("e", f"{sets}/grey"))
    ]
    assert uids(draws[0]["grey"]) == uids(draws[1]["grey"])
    twice = [sample(number) for number in range(40)] * 2
    for at, (name, members) in enumerate(twice):
        twice[at] = (f"{name}-{at}", {**members, "json": json.dumps({"uid": uid_of(9000 + at)}).encode()})
    write_tar(tmp_path / "twice" / "0.tar", twice)
    with pytest.raises(UserError, match=r"'twice' has 40 different usable samples of 80"):
        drawn(tmp_path / "c", f"{{twice: {tmp_path}/twice, red: {sets}/red}}")(0)


@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
def test_as_many_candidates_are_held_as_are_asked_for(sets: Path, limit: int) -> None:
    (of,) = named("datasets", f"{{grey: {sets}/grey}}", metadata=False)
    with Passes([], None, 1) as passes:
        found = listing(passes, of, 3, 2, limit)
        whole = listing(passes, of, 3, 2, 10_000)
    assert found.samples == 160 and found.whole == (limit >= 160)
    for some, all_ in zip(found.orders, whole.orders, strict=True):
        assert some.tolist() == all_[:limit].tolist()


def test_a_set_that_repeats_itself_is_listed_further(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first candidates are one picture, the next ones are looked at."""
    same = [(key, {**members, "png": picture(7)}) for key, members in map(sample, range(3000, 4000))]
    write_tar(tmp_path / "many" / "0.tar", [*same, *map(sample, range(4000, 4080))])
    asked = list[int]()
    real = listing

    def counted(passes: Any, of: Any, seed: int, draws: int, limit: int) -> Any:
        asked.extend([limit] if of.name == "many" else [])
        return real(passes, of, seed, draws, limit)

    monkeypatch.setattr(runs, "listing", counted)
    found = drawn(tmp_path, f"{{many: {tmp_path}/many, red: {sets}/red}}")(0)
    assert len(set(uids(found["many"]))) == 72 and asked == [144, 576, 2304]


def test_a_broken_picture_is_counted_and_another_one_drawn(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [sample(number) for number in range(76)]
    for at in (3, 40):
        samples[at][1]["png"] = b"no picture"
    write_tar(tmp_path / "a" / "0.tar", samples)
    status, found = answer(tmp_path, f"{{a: {tmp_path}/a, red: {sets}/red}}", "epochs=1")
    assert status == 1 and {one["drawn"] for one in found["sets"]} == {72}
    assert "key 000003: image cannot be decoded" in "".join(found["notes"]) or "key 000040" in "".join(found["notes"])
    assert "passed over in a, others were drawn instead" in capsys.readouterr().err


def test_keys_stand_for_uids_that_are_missing(sets: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "0.tar", [(key, {"png": of["png"]}) for key, of in map(sample, range(80))])
    _, found = answer(tmp_path, f"{{a: {tmp_path}/a, red: {sets}/red}}", "epochs=1", "control=false")
    assert [one["without_uid"] for one in found["sets"]] == [80, 0]


# --- what classifiers are given ---


def test_given_pictures_and_those_that_are_missing(sets: Path, tmp_path: Path) -> None:
    """Pictures made elsewhere of grey pictures, which tell the sets apart."""
    for name, level, numbers in (("grey", 40, range(160)), ("other", 200, range(1000, 1100))):
        (tmp_path / "depth" / name).mkdir(parents=True)
        for number in numbers:
            made = np.full((30, 30), level, np.uint8)
            (tmp_path / "depth" / name / f"{number:06d}.png").write_bytes(encoded(made, "PNG"))
    datasets = f"{{grey: {sets}/grey, other: {sets}/other}}"
    words = ("transforms=[depth]", f"given={{depth: {tmp_path}/depth}}", "draws=1")
    status, found = answer(tmp_path, datasets, *words)
    assert status == 0 and row(found, "depth")["mean"] == 1
    for number in range(0, 160, 4):
        (tmp_path / "depth" / "grey" / f"{number:06d}.png").unlink()
    status, found = answer(tmp_path, datasets, *words)
    assert status == 1 and row(found, "depth")["mean"] == 1 and row(found, "depth")["of"] < 48
    assert "samples of grey have no depth; grey: depth: no picture" in found["notes"][0]


def write_metadata(folder: Path, rng: np.random.Generator, shift: float, copies: int = 1, width: int = 16) -> Path:
    """Metadata of 200 samples of some columns, each sample `copies` times under uids of its own."""
    folder.mkdir()
    vectors = np.tile(rng.normal(size=(200, width)) + shift, (copies, 1)).astype(np.float16)
    digests = [f"{int(one):064x}" for one in np.tile(rng.integers(2**62, size=200), copies)]
    table = {
        "uid": [f"{int(one):032x}" for one in rng.integers(2**62, size=len(vectors))],
        "sha256": [one[::-1] for one in digests],
        "text": ["a text"] * len(vectors),
    }
    pq.write_table(pa.table(table), folder / "0.parquet")
    np.savez(folder / "0.npz", b32_img=vectors)
    return folder


def test_embeddings_are_told_apart_without_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shift in (("a", 0.0), ("b", 1.0), ("c", 0.0)):
        write_metadata(tmp_path / name, rng, shift)
    words = ("model=logistic", "transforms=[none,captions]")
    _, found = answer(tmp_path, f"{{a: {tmp_path}/a, b: {tmp_path}/b}}", f"asked={{c: {tmp_path}/c}}", *words)
    assert row(found, "none")["mean"] > 0.9 and row(found, "captions")["mean"] == 0.5
    taken = {one["taken_for"]: one["mean"] for one in found["asked"] if one["transform"] == "none"}
    assert taken["a"] > 0.9 and found["embedding"] == "b32_img" and found["control"]["passed"]
    _, found = answer(tmp_path, f"{{a: {tmp_path}/a, c: {tmp_path}/c}}", *words)
    assert not row(found, "none")["different"]


def test_a_leak_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the rule that no picture is drawn twice, halves of one set are told apart by the pictures in both."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write_metadata(tmp_path / name, rng, 0.0, copies=2, width=300)  # so many that all are learnt by heart
    datasets = f"{{a: {tmp_path}/a, b: {tmp_path}/b}}"
    words = ("model=logistic", "train=100", "validation=100", "draws=3")
    status, found = answer(tmp_path, datasets, *words)
    assert status == 0 and found["control"]["passed"], capsys.readouterr().err
    write_many = ("model=logistic", "train=200", "validation=200", "draws=3")
    monkeypatch.setattr(stores, "fresh", lambda order, taken: order)
    status, found = answer(tmp_path, datasets, *write_many)
    assert status == 1 and not found["control"]["passed"] and found["control"]["p"] < 1e-3
    assert "warning: halves of one set are told apart" in capsys.readouterr().err
    assert "only a leak can do" in (tmp_path / "out" / "index.html").read_text()


def test_a_network_of_timm_is_trained_by_the_published_recipe(sets: Path, tmp_path: Path) -> None:
    published = recipe_of("convnext_tiny")
    assert (published.learning_rate, published.weight_decay, published.betas) == (1e-3, 0.3, (0.9, 0.95))
    assert (published.batch, published.epochs, published.warmup, published.side) == (4096, 30, 2, 224)
    assert (published.smoothing, published.mixup, published.cutmix) == (0.1, 0.8, 1.0)
    assert recipe_of("convnext_tiny", batch=1024).learning_rate == 2.5e-4
    words = ("model=test_convnext", "side=56", "batch=16", "learning_rate=.002", "train=32", "epochs=2", "draws=1")
    _, found = answer(tmp_path, f"{{grey: {sets}/grey, red: {sets}/red}}", *words, "workers=2")
    _, again = answer(tmp_path, f"{{grey: {sets}/grey, red: {sets}/red}}", *words)
    assert found == again and found["recipe"]["randaug"] == "rand-m9-mstd0.5-inc1" and found["recipe"]["mixup"] == 0.8


# --- mistakes, and the page ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["datasets={a: SETS/grey}"], "datasets= names one set; two at least are told apart"),
        (["datasets=SETS/grey"], "is not of the form '{a: …, b: …}'"),
        (["datasets={a: SETS/grey, a: SETS/red}"], "datasets= names 'a' twice"),
        (["datasets={a: SETS/grey, b: SETS/none}"], "datasets.b=SETS/none does not exist"),
        (
            ["datasets={a: SETS/grey, b: {shards: SETS/red, subsets: x}}"],
            "datasets.b has no 'subsets'; did you mean 'sub",
        ),
        (["datasets={a: SETS/grey, b: {pool: SETS/red}}"], "datasets.b has no 'shards'; this model reads pictures"),
        (["datasets={a: SETS/grey, ../b: SETS/red}"], "a name is letters and digits"),
        (["asked={red: SETS/other}"], "asked= names 'red', which datasets= does, too"),
        (["transforms=[cany]"], "transforms= has no 'cany'; did you mean 'canny'?"),
        (["transforms=[none,none]"], "transforms= names none, or one twice"),
        (["transforms=[depth]", "given={depth: SETS/nowhere}"], "given.depth=SETS/nowhere has no folder 'grey'"),
        (["given={hog: SETS}"], "given= names 'hog', which is made here"),
        (["model=convnext_tinny"], "model=convnext_tinny is not known; did you mean 'convnext_tiny'?"),
        (["side=50"], "side=50 is no multiple of 14"),
        (["epochs=0"], "epochs=0: more than 0"),
        (["train=1"], "train=1: at least 2"),
        (["train=200"], "160 different usable samples of 160 that no other set's draw has; train=200 and"),
        (["model=logistic", "datasets={a: SETS/grey, b: SETS/red}"], "datasets.a=SETS/grey: no .parquet in it"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(sets: Path, tmp_path: Path, words: list[str], said: str) -> None:
    given = [word.replace("SETS", str(sets)) for word in words]
    if not any(word.startswith("datasets=") for word in given):
        given.append(f"datasets={{grey: {sets}/grey, red: {sets}/red}}")
    options = [one for one in SMALL if key(one) not in {key(word) for word in given}]
    with pytest.raises(UserError) as caught:
        classify.COMMAND.answer([*given, *options, f"out={tmp_path / 'out'}"])
    assert said.replace("SETS", str(sets)) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_control_without_two_halves_is_told(sets: Path, tmp_path: Path) -> None:
    """Of six draws of two pictures each one has both in one half, all but certainly."""
    words = [f"datasets={{grey: {sets}/grey, red: {sets}/red}}", "train=2", "validation=1", "draws=6", "epochs=1"]
    with pytest.raises(UserError, match=r"control: half of a set has no sample; draw more .* or control=false"):
        classify.COMMAND.answer([*words, f"out={tmp_path}/out", "workers=1", "device=cpu"])


def test_a_brace_pattern_and_a_list_are_shards(sets: Path) -> None:
    text = f"{{a: {sets}/grey/{{0,1}}.tar, b: {{shards: [{sets}/red/0.tar, {sets}/other]}}, c: '{sets}/red'}}"
    assert [len(one.items) for one in named("datasets", text, metadata=False)] == [2, 3, 2]


@pytest.mark.parametrize(
    ("package", "words", "said"),
    [
        ("cv2", ["transforms=canny"], "cv2 is missing"),
        ("skimage.feature", ["transforms=hog"], "skimage.feature is missing"),
        ("sklearn", ["transforms=captions"], "sklearn is missing, the package scikit-learn"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    sets: Path, tmp_path: Path, package: str, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as caught:
        answer(tmp_path, f"{{grey: {sets}/grey, red: {sets}/red}}", *words)
    assert str(caught.value) == f"{said}; pip install 'poolbench[classify]'"


def test_what_is_beyond_chance_is_exact() -> None:
    """Against sums of binomial coefficients, in fractions, and statsmodels."""

    def tail(correct: int, of: int, chance: Fraction) -> float:
        return float(sum(comb(of, n) * chance**n * (1 - chance) ** (of - n) for n in range(correct, of + 1)))

    one = [Answer([[9, 1, 2], [3, 7, 2], [4, 4, 4]], {}), Answer([[6, 4, 2], [5, 5, 2], [2, 3, 7]], {})]
    even = [Answer([[4, 4, 4], [4, 4, 4], [4, 4, 4]], {})]
    rows = rows_of({"one": one, "even": even}, {"one": "", "even": ""}, 3)
    expected = [tail(38, 72, Fraction(1, 3)), tail(12, 36, Fraction(1, 3))]
    np.testing.assert_allclose([row.p for row in rows], expected)
    np.testing.assert_allclose([row.p_corrected for row in rows], multipletests(expected, method="fdr_bh")[1])
    assert (rows[0].low, rows[0].high) == pytest.approx(proportion_confint(38, 72, method="wilson"))
    assert (rows[0].correct, rows[0].of, rows[0].sd) == (38, 72, pytest.approx(np.std([20 / 36, 18 / 36], ddof=1)))
    assert rows[1].sd is None
    control = control_of([Answer([[30, 20], [14, 36]], {})], "none", ["a", "a"])
    assert control.p == pytest.approx(2 * tail(66, 100, Fraction(1, 2))) and control.passed == (control.p >= 0.001)


@pytest.fixture
def strange(sets: Path, tmp_path: Path) -> Iterator[Path]:
    write_set(tmp_path / "strange", range(5000, 5080), text="<script>alert(1)</script>")
    yield tmp_path


def test_the_page_escapes_what_it_shows(sets: Path, strange: Path) -> None:
    answer(strange, f"{{a: {strange}/strange, red: {sets}/red}}", "transforms=captions", "draws=1")
    page = (strange / "out" / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
