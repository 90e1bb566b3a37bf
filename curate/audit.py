"""What a selection does to groups: which share of each is kept, beside that of the pool, and whether it is chance.

python -m curate.audit subset=subset.npy pool=metadata out=audit
python -m curate.audit subset='[a.npy,b.npy]' pool=metadata attributes=faces.parquet domains=true out=audit
python -m curate.audit subset=subset.npy pool=metadata out=audit part=3/16    # and, when all are through: merge=16

Writes groups.json, groups.csv, words.csv and index.html. docs/audits.md explains them.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from poolbench.audit_report import FILE, AuditReport, Group, Word
from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import atomic, digest_file, write_json
from poolbench.machine import cores
from poolbench.options import option, output, source
from poolbench.text import one_line
from poolbench.uids import malformed

from curate.audits.count import Question, Tallies, Words, count, items, tallies
from curate.audits.groups import Attribute, Languages, Shapes, Sides, captions, check_domains
from curate.audits.page import page
from curate.audits.results import audited
from curate.audits.tables import Given, by_domain, by_uid
from curate.models.languages import check_detector
from curate.pool.files import BadFile, File, list_pool, schema_of
from curate.pool.parts import WHOLE, Part, part_or_merge
from curate.pool.passes import Passes
from curate.pool.work import WorkFolder, work_folder
from curate.report.members import Members


@dataclass
class AuditOptions:
    """The options; docs/audits.md says more."""

    subset: Any = source("subset file, or a list [a.npy,b.npy] of them")
    pool: str = source("folder or URL of the pool's metadata", remote=True)
    out: str = output("folder for groups.json, the tables and the page", "audit")
    captions: Any = source("YAML files of groups that captions name, besides the packaged ones", None)
    attributes: Any = source("parquet or CSV tables of attributes, found by a column uid", None)
    bands: str | None = option("edges that part numbers of these tables: '{age: [18, 65]}'", None)
    pairs: bool = option("groups of two attributes of captions together, too", True)
    words: int | None = option("rows of a word beside each of two groups, at least; null: no words", 100)
    domains: bool = option("also by the domain of the picture", False)
    domain_rows: int = option("rows of a domain, at least", 10_000)
    domain_tables: Any = source("parquet or CSV tables of attributes of domains, found by a column domain", None)
    language: str | None = option("also by language: fasttext | fasttext_small | cld3; null: not", None)
    workers: int | None = option("processes; null: one for each core", None)
    part: str | None = option("i/n: count one of n parts of the pool, and no more", None)
    merge: int | None = option("n: put n parts together; what one has not counted is told, and not made", None)
    work: str | None = output("folder of the counts, to be kept; null: <out>.work, which goes at the end", None)


def audit(options: AuditOptions) -> int:
    """The command: write the audit, or count a part's files; exit status 1 where files or uids of the pool had to be
    left out.

    Raises:
        UserError: wrong options, nothing to look at, attributes of another pool, or a part that is missing.
    """
    out, part = _checked(options), part_or_merge(options.part, options.merge)
    files = list_pool(options.pool)
    with work_folder(out, options.work, shared=part is not WHOLE) as work:
        with Passes(files, work.path, options.workers or cores(), part, merge=options.merge) as passes:
            question, notes = _question(options, files, work)
            if part is not WHOLE:
                count(passes, question, part)
                return _told_of_part(part, passes)
            total = tallies(passes, question)
            _check_given(question.attributes, total, work)
            of_items = items(passes, question, total)
        left_out = [f"left out: {why}" for why in passes.bad.values()]
        if total.malformed:
            left_out.append(f"left out: {malformed(total.malformed, total.example)}")
        names = _names(_listed(options.subset))
        notes += _not_in_pool(names, question, total)
        found = audited(names, question, total, of_items, [*left_out, *notes])
        _written(found, out)
        if not passes.bad:
            work.remove()
    _told(found, out)
    return 1 if left_out else 0


def _question(options: AuditOptions, files: Sequence[File], work: WorkFolder) -> tuple[Question, list[str]]:
    """What to count, and what is to be said of it."""
    paths = _listed(options.subset)
    work.path.mkdir(parents=True, exist_ok=True)
    try:
        subsets, digests = [Members(path) for path in paths], [digest_file(path) for path in paths]
        attributes, notes = _attributes(options, files, work.path)
    except UserError:
        if options.part is None:
            work.remove_unused()
        raise
    words, domains = _words(attributes, options.words), options.domain_rows if options.domains else None
    return Question(subsets, digests, attributes, options.pairs, words, domains), notes


def _not_in_pool(names: Sequence[str], question: Question, total: Tallies) -> Iterator[str]:
    """What is to be said of subsets that have uids of which no row was counted. Where several rows have one uid, each
    beyond the first makes the number one too small."""
    for name, subset, kept in zip(names, question.subsets, total.rows[1:].tolist(), strict=True):
        distinct = subset.runs().distinct
        if kept < distinct:
            other = "" if kept else "; is it of another pool?"
            yield f"{name}: {distinct - kept:,} of its {distinct:,} uids are not in the pool{other}"


def _told_of_part(part: Part, passes: Passes) -> int:
    """Say what became of a part's files; 1 where one was left out."""
    own = part.own(passes.files)
    bad = [passes.bad[file.name] for file in own if file.name in passes.bad]
    print(f"part {part}: {len(own) - len(bad):,} of {len(own):,} files are counted; merge={part.of} puts all together")
    for why in bad:
        print(one_line(f"left out: {why}"), file=sys.stderr)
    return 1 if bad else 0


def _columns(files: Sequence[File], wanted: set[str]) -> set[str]:
    """Those of some columns that a file of the pool has. Where files differ, one that lacks a column is left out.

    Raises:
        UserError: none can be read.
    """
    why, found, read = "", set[str](), 0
    for file in files:
        try:
            found |= wanted & set(schema_of(file).names)
            read += 1
        except BadFile as error:
            why = why or str(error)
        if found == wanted and read:
            break
    if not read:
        raise UserError(f"no file of the pool can be used; {why}")
    return found


def _check_given(attributes: Sequence[Attribute], total: Tallies, work: WorkFolder) -> None:
    """
    Raises:
        UserError: a table of attributes knows none of the pool's rows; the counts, of no use, are gone.
    """
    counted = {key.attribute for key in total.groups}
    for one in attributes:
        if isinstance(one, Given) and one.name not in counted:
            work.remove()
            raise UserError(f"attributes= has a value of {one.name!r} for no row of the pool; is it of another pool?")


def _checked(options: AuditOptions) -> Path:
    """The folder to write to.

    Raises:
        UserError: options that cannot be right.
    """
    for name in ("words", "domain_rows", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: at least 1")
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise UserError(f"out={options.out} is a file, not a folder")
    subsets = _listed(options.subset)
    if not subsets:
        raise UserError(f"subset={options.subset} is empty; name a subset file, or several as '[a.npy,b.npy]'")
    if twice := next((path for path in subsets if subsets.count(path) > 1), None):
        raise UserError(f"subset= names {twice} twice")
    if options.language is not None:
        check_detector(options.language, "language")
    if options.domains or options.domain_tables:
        check_domains()
    return Path(options.out)


def _listed(given: Any) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else list(given)


def _names(paths: Sequence[str]) -> list[str]:
    """What the subsets are called: by file name where that tells them apart."""
    names = [Path(path).stem for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _attributes(options: AuditOptions, files: Sequence[File], work: Path) -> tuple[list[Attribute], list[str]]:
    """All attributes that are asked for, of which the pool has the columns, and what is to be said of them.

    Raises:
        UserError: a file that cannot be read, or two attributes of one name.
    """
    found: list[Attribute] = [*captions(_listed(options.captions)), Sides(), Shapes()]
    if options.language is not None:
        found.append(Languages(options.language))
    for path in _listed(options.domain_tables):
        found += by_domain(path)
    wanted = {name for one in found for name in one.columns}
    known = _columns(files, wanted)
    absent = sorted(wanted - known)
    notes = [f"the pool has no column {name}; what needs it is left out" for name in absent]
    found = [one for one in found if set(one.columns) <= known]
    bands = _bands(options.bands)
    for path in _listed(options.attributes):
        given, told = by_uid(path, bands, work)
        found += given
        notes += told
    names = [one.name for one in found]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two attributes are called {doubled!r}; rename the column of one")
    if missing := sorted(bands.keys() - set(names)):
        raise UserError(f"bands= names {missing[0]!r}, which is no column of attributes=")
    return found, notes


def _bands(given: str | None) -> dict[str, list[float]]:
    """
    Raises:
        UserError: no lists of rising numbers by column.
    """
    try:
        found = {} if given is None else yaml.safe_load(given)
        bands = {str(name): [float(edge) for edge in edges] for name, edges in found.items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        raise UserError(f"bands={given} is not of the form '{{age: [18, 65]}}'") from None
    for name, edges in bands.items():
        if not edges or sorted(set(edges)) != edges:
            raise UserError(f"bands={given}: the edges of {name} must rise")
    return bands


def _words(attributes: Sequence[Attribute], minimum: int | None) -> Words | None:
    """The attribute whose two groups are compared word by word; None where there is none."""
    if minimum is None:
        return None
    comparing = (one for one in attributes if getattr(one, "compare", None) is not None)
    found = next(comparing, None)
    return None if found is None else Words(found.name, found.compare, minimum)  # type: ignore[attr-defined]


def _written(found: AuditReport, out: Path) -> None:
    write_json(out / FILE, found.model_dump())
    for name, kind, rows in (("groups.csv", Group, found.groups), ("words.csv", Word, found.words)):
        with atomic(out / name) as file:
            table = csv.DictWriter(file, list(kind.model_fields), lineterminator="\n")
            table.writeheader()
            table.writerows(row.model_dump() for row in rows)
    with atomic(out / "index.html") as file:
        file.write(page(found))


def _told(found: AuditReport, out: Path) -> None:
    for subset in found.subsets:
        groups = [one for one in found.groups if one.subset == subset.subset]
        less, more = (
            sum(one.different and (one.ratio < one.base) == fewer for one in groups) for fewer in (True, False)
        )
        print(
            f"{subset.subset}: {subset.base:.1%} of {found.pool:,} rows kept; of {len(groups):,} groups {less:,} are "
            f"kept less often than the rest and {more:,} more often, beyond chance"
        )
    for line in found.notes:
        print(line, file=sys.stderr)
    print(out / "index.html")


COMMAND = Command(AuditOptions, audit)

if __name__ == "__main__":
    COMMAND.start()
