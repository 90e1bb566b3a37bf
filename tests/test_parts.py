"""Every verb in parts: the same bytes for any number of them, in any order; and what is missing, told by part."""

import json
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_audit
import test_overlap
from downloading import QUICK, write_metadata
from evalsets import MODEL, write_checkpoint, write_classification
from pools import picture, sample, uid_of, write_pool, write_tar
from test_score_hyperbolic import WIDTH, write_hyperbolic
from web_server import Web

from poolbench.command import Command
from poolbench.errors import UserError, status_of
from poolbench.uids import write_subset

from curate import attributes, audit, columns, overlap, score
from curate.command import run as curate
from curate.download import run as download
from curate.download.options import DownloadOptions
from curate.pack.options import PackOptions
from curate.pack.run import pack
from curate.pool.parts import WHOLE, Part, part_or_merge, tell_missing
from curate.scorers import registry
from tasks.registry import load_tasks

ROOT = Path(__file__).parent.parent
FILES = 3  # of a pool, so that of 2 parts one has more than the other, and of 5 some have nothing to do
Answer = Callable[[list[str]], int | None]


class Verb(NamedTuple):
    """A verb that takes parts.

    Attributes:
        prepare: writes what it reads below a folder, and gives its options besides those of the parts, `out/` in them
            being the folder of what it writes.
        names: of what it writes, whose bytes must not depend on the parts.
        piece: what stands for one piece of part 2 of 3, so that without it the piece is not done.
    """

    answer: Answer
    prepare: Callable[[Path, Web], list[str]]
    names: tuple[str, ...]
    piece: str


def scored(words: list[str]) -> int:
    before, sys.argv = sys.argv, ["score", *words]
    try:
        return score.main()
    finally:
        sys.argv = before


def pool_of_shards(root: Path, _: Web) -> list[str]:
    write_pool(root / "pool", FILES, 6)
    write_checkpoint(root / "model.pt")
    return [f"shards={root}/pool", f"out={root}/out", "workers=0"]


def by(scorer: str, *more: str) -> Callable[[Path, Web], list[str]]:
    def prepare(root: Path, hosts: Web) -> list[str]:
        model = [] if scorer == "attributes" else [f"checkpoint={root}/model.pt", f"model={MODEL}"]
        return [*pool_of_shards(root, hosts), f"scorer={scorer}", *model, *more]

    return prepare


def hyperbolic(root: Path, hosts: Web) -> list[str]:
    words = pool_of_shards(root, hosts)
    write_hyperbolic(root / "hyperbolic.pt", root / "model.pt")
    draw = np.random.default_rng(0)
    np.savez(root / "reference.npz", img=draw.normal(size=(9, WIDTH)), txt=draw.normal(size=(5, WIDTH)))
    given = ["objective=hyperbolic", "scorer=hyperbolic", f"reference={root}/reference.npz", "arch=b32"]
    return [*words, *given, f"checkpoint={root}/hyperbolic.pt", f"model={MODEL}"]


def listed_faces(root: Path, _: Web) -> list[str]:
    for shard in range(FILES):
        numbers = range(6 * shard, 6 * shard + 6)
        records = {n: {"uid": uid_of(n), "face_bboxes": [[0.1, 0.1, 0.2, 0.2]] * (n % 3)} for n in numbers}
        members = ((str(n), {**sample(n), "json": json.dumps(record).encode()}) for n, record in records.items())
        write_tar(root / "pool" / f"{shard:05d}.tar", members)
    return [f"shards={root}/pool", f"out={root}/out/table.parquet", "workers=0", "attributes=[listed_faces]"]


def audited(root: Path, _: Web) -> list[str]:
    rows = test_audit.write_pool(root / "pool", 150, FILES)
    for name, step in (("third", 3), ("half", 2)):
        write_subset(root / f"{name}.npy", [row["uid"] for row in rows[::step]])
    faces = {"uid": [row["uid"] for row in rows[::4]], "faces": [n % 3 for n in range(len(rows[::4]))]}
    pq.write_table(pa.table(faces), root / "faces.parquet")
    given = [f"subset=[{root}/third.npy,{root}/half.npy]", f"attributes={root}/faces.parquet", "words=3"]
    return [*given, "domains=true", "domain_rows=9", f"pool={root}/pool", f"out={root}/out/audit", "workers=1"]


def overlapping(root: Path, _: Web) -> list[str]:
    samples = [(f"s{n}", {"png": test_overlap.encoded(test_overlap.image(n), "PNG"), "cls": b"0"}) for n in range(6)]
    write_classification(root / "sets", load_tasks()["vtab/eurosat"], samples, shards=1, classes=2)
    for shard in range(FILES):
        numbers = range(4 * shard, 4 * shard + 4)
        shown = {n: test_overlap.image(n % 6) if n % 3 == 0 else None for n in numbers}
        write_tar(root / "pool" / f"{shard}.tar", [(str(n), test_overlap.training(n, shown[n])) for n in numbers])
    return [f"shards={root}/pool", f"data={root}/sets", f"out={root}/out/leak.npy", "workers=0"]


def imported(root: Path, _: Web) -> list[str]:
    test_audit.write_pool(root / "pool", 90, FILES)
    uids = [uid_of(number) for number in range(0, 90, 2)]
    pq.write_table(pa.table({"uid": uids, "judged": np.random.default_rng(0).random(45)}), root / "given.parquet")
    words = [f"pool={root}/pool", f"columns={root}/out", f"import={root}/given.parquet", "name=judge"]
    return [*words, "workers=1"]


def downloaded(root: Path, hosts: Web) -> list[str]:
    """Rows of two metadata files, of shards of 3, hosts of which some fail."""
    numbers = range(3 * FILES)
    urls = [hosts.url({4: "html", 7: "changed", 11: "busy"}.get(n, "good"), n) for n in numbers]
    for name, rows in (("a", slice(0, 7)), ("b", slice(7, None))):
        write_metadata(root / "out" / "metadata" / f"{name}.parquet", hosts, urls[rows])
    return ["scale=small", f"out={root}/out", *(word for word in QUICK if "shard_size" not in word), "shard_size=3"]


def selected(root: Path, _: Web) -> list[str]:
    """By a threshold, for which each part looks at all files."""
    test_audit.write_pool(root / "pool", 90, FILES)
    rows = pq.read_table(root / "pool").num_rows
    uids = [uid_of(number) for number in range(rows)]
    write_subset(root / "most.npy", uids[: rows * 2 // 3])
    words = ["filter=top", "filter.column=original_width", "filter.fraction=.4", f"filter.of={root}/most.npy"]
    return [*words, f"pool={root}/pool", f"out={root}/out/kept.npy", "workers=1"]


def packed(root: Path, _: Web) -> list[str]:
    """Pairs of a picture and a caption, of which the last is the first again."""
    (root / "mine").mkdir()
    for number in range(2 * FILES):
        (root / "mine" / f"{number}.png").write_bytes(picture(number % (2 * FILES - 1)))
        (root / "mine" / f"{number}.txt").write_text(f"picture {number % (2 * FILES - 1)}")
    return [f"from={root}/mine", f"out={root}/out/pool", "shard_size=2", "workers=1"]


VERBS = {
    "curate": Verb(curate, selected, ("kept.npy", "kept.npy.json"), "kept.npy.work/judge-*/1.*.json"),
    "curate.pack": Verb(
        Command(PackOptions, pack).answer, packed,
        ("pool/shards/*", "pool/metadata/*", "pool/*"), "pool/.pack/done/00000001.json",
    ),
    "curate.download": Verb(
        Command(DownloadOptions, download.download).answer, downloaded,
        ("shards/*.tar", "shards/0*.parquet", "arrived_uids.npy"), "shards/00000001_stats.json",
    ),
    "curate.audit": Verb(audit.COMMAND.answer, audited, ("audit/*",), "audit.work/itemized-*/1.*.json"),
    "curate.overlap": Verb(
        overlap.COMMAND.answer, overlapping, ("leak.npy", "leak/*"), "leak.npy.work/training/1.npz.json"
    ),
    "curate.columns": Verb(lambda words: columns.main(words), imported, ("judge/*.parquet",), "judge/1.parquet"),
    "curate.attributes": Verb(
        attributes.COMMAND.answer, listed_faces, ("table.parquet",), "table.parquet.shards/00001.parquet"
    ),
    "curate.score": Verb(scored, by("clip_similarity", "arch=b32"), ("*",), "00001.parquet"),
    "curate.score scorer=hyperbolic": Verb(scored, hyperbolic, ("*",), "00001.parquet"),
    "curate.score scorer=targets": Verb(scored, by("targets"), ("*",), "*00001.npy.json"),
    "curate.score scorer=attributes": Verb(
        scored, by("attributes", "attributes=[listed_faces]"), ("*",), "00001.parquet"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))


class Given(NamedTuple):
    """A verb ready to be run below `root`."""

    verb: Verb
    root: Path
    words: list[str]
    hosts: Web

    def run(self, *more: str) -> int:
        return status_of(lambda: self.verb.answer([*self.words, *more]))

    def made(self) -> dict[str, bytes]:
        out = self.root / "out"
        paths = [path for pattern in self.verb.names for path in out.glob(pattern) if path.is_file()]
        return {str(path.relative_to(out)): path.read_bytes() for path in paths if not path.name.startswith(".")}

    def kept(self) -> list[Path]:
        """All files that are there, but for what is done anew each time: reports, and what is hidden."""
        out = self.root / "out"
        paths = [path for path in out.rglob("*") if path.is_file() and "/." not in str(path.relative_to(self.root))]
        return [path for path in paths if not re.match(r"arrived|bad_samples", path.name)]

    def afresh(self) -> None:
        """Before anything was written; what it reads there stays."""
        for path in (self.root / "out").glob("*"):
            if path.name != "metadata":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (self.root / "out").glob(".[!.]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.hosts.gets.clear()


@pytest.fixture(params=VERBS)
def given(request: pytest.FixtureRequest, tmp_path: Path, hosts: Web) -> Given:
    verb = VERBS[request.param]
    (tmp_path / "out").mkdir()
    return Given(verb, tmp_path, verb.prepare(tmp_path, hosts), hosts)


def test_bytes_do_not_depend_on_the_parts(given: Given) -> None:
    assert given.run() == 0
    whole = given.made()
    assert len(whole) >= len(given.verb.names)
    for of in (1, 2, 5):  # 3, below; 5 are more than there are pieces
        given.afresh()
        numbers = random.Random(of).sample(range(1, of + 1), of)
        assert [given.run(f"part={number}/{of}") for number in numbers] == [0] * of
        assert given.run(f"merge={of}") == 0
        assert given.made() == whole, of


def test_what_is_missing_is_told_by_part(given: Given, capfd: pytest.CaptureFixture[str]) -> None:
    assert given.run() == 0
    whole = given.made()
    given.afresh()
    assert given.run("merge=3") != 0
    assert given.run("part=1/3") == given.run("part=3/3") == 0
    for piece in (given.root / "out").glob(given.verb.piece):  # of the verbs whose parts do what others have not done
        piece.unlink()
    before = {path: path.stat().st_mtime_ns for path in given.kept()}
    capfd.readouterr()
    assert given.run("merge=3") != 0
    said = capfd.readouterr().err
    lacking = re.findall(r"^part (\d)/3: (\d) of its 1 (?:files|shards) missing: (\S.*)$", said, re.MULTILINE)
    assert [part for part, *_ in lacking] == ["2"], said
    assert "start these parts of 3 again, which find what they have done: 2\n" in said
    assert "Traceback" not in said
    assert given.run("part=2/3") == 0
    after = {path: path.stat().st_mtime_ns for path in given.kept()}
    assert before and before.items() <= after.items()  # nothing was made twice
    assert given.run("merge=3") == 0
    assert given.made() == whole


def test_every_scorer_and_every_script_is_tried() -> None:
    words = {word for name in VERBS for word in name.split() if word.startswith("scorer=")}
    assert words | {"scorer=clip_similarity"} == {f"scorer={name}" for name in registry.names()}
    scripts = {path.name: path.read_text() for path in (ROOT / "slurm").glob("*.sbatch")}
    found = {name: re.search(r'-m (\S+) "\$\{part\[@\]\}"', text) for name, text in scripts.items()}
    run = {match[1]: name for name, match in found.items() if match is not None}
    elsewhere = {"evaluate", "curate.reshard"}  # by tests of their own
    assert run.keys() - elsewhere == {name.split()[0] for name in VERBS}
    told = (ROOT / "docs" / "slurm.md").read_text()
    assert all(f"slurm/{name}" in told for name in run.values())


@pytest.mark.parametrize(
    "name", ["curate", "curate.pack", "curate.download", "curate.audit", "curate.columns", "curate.score"]
)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["part=1/2", "merge=2"], "part=1/2 does a part, merge=2 puts all parts together; give one of them"),
        (["merge=0"], "merge=0: how many parts there are, at least 1"),
        (["part=3/2"], "part=3/2 is not i/n with i from 1 to n, such as part=1/4"),
    ],
)
def test_wrong_parts(
    name: str, words: list[str], said: str, tmp_path: Path, hosts: Web, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    given = Given(VERBS[name], tmp_path, VERBS[name].prepare(tmp_path, hosts), hosts)
    assert given.run(*words) == 2
    assert capfd.readouterr().err == f"error: {said}\n"
    assert not given.made()


def test_a_part_has_every_nth_piece() -> None:
    pieces = list(range(11))
    for of in (1, 2, 5, 20):
        shares = [Part(number, of).own(pieces) for number in range(1, of + 1)]
        assert sorted(piece for share in shares for piece in share) == pieces
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert part_or_merge(None, None) is WHOLE and part_or_merge(None, 3) is WHOLE
    assert part_or_merge("1/1", None) is not WHOLE
    with pytest.raises(UserError):
        part_or_merge("0/2", None)


def test_missing_pieces_are_named_up_to_a_few(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"p{number}" for number in range(40)]
    assert tell_missing(names, [number % 2 == 0 for number in range(40)], 4, "files") == 20
    assert capsys.readouterr().err.splitlines() == [
        "part 2/4: 10 of its 10 files missing: p1, p5, p9, p13, p17 and 5 more",
        "part 4/4: 10 of its 10 files missing: p3, p7, p11, p15, p19 and 5 more",
        "start these parts of 4 again, which find what they have done: 2,4",
    ]
    assert tell_missing(names, [True] * 40, 4, "files") == 0 and not capsys.readouterr().err
