"""What a selection does to groups: which share of each is kept, beside that of the pool, and whether it is chance.

python -m curate.audit subset=subset.npy pool=metadata out=audit
python -m curate.audit subset='[a.npy,b.npy]' pool=metadata attributes=faces.parquet domains=true out=audit

Writes groups.json, groups.csv, words.csv and index.html. docs/audits.md explains them.
"""

import contextlib
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import atomic, write_json
from poolbench.machine import cores
from poolbench.options import option, output, source
from poolbench.uids import malformed

from curate.audits.count import Question, Tallies, Words, items, tallies
from curate.audits.groups import Attribute, Languages, Shapes, Sides, captions, check_domains
from curate.audits.page import page
from curate.audits.results import Audit, Group, Word, audited
from curate.audits.tables import Given, by_domain, by_uid
from curate.models.languages import check_detector
from curate.pool.files import BadFile, File, list_pool, schema_of
from curate.pool.passes import Passes, work_folder
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


def audit(options: AuditOptions) -> int:
    """The command: write the audit; exit status 1 where files or uids of the pool had to be left out.

    Raises:
        UserError: wrong options, nothing to look at, or attributes of another pool.
    """
    out = _checked(options)
    paths = _listed(options.subset)
    subsets, files = [Members(path) for path in paths], list_pool(options.pool)
    with _tables_beside(out) as work, Passes(files, None, options.workers or cores()) as passes:
        attributes, notes = _attributes(options, _columns(files), work)
        words, domains = _words(attributes, options.words), options.domain_rows if options.domains else None
        question = Question(subsets, attributes, options.pairs, words, domains)
        total = tallies(passes, question)
        _check_given(attributes, total)
        found = audited(_names(paths), question, total, items(passes, question, total))
    left_out = [f"left out: {why}" for why in passes.bad.values()]
    if total.malformed:
        left_out.append(f"left out: {malformed(total.malformed, total.example)}")
    found.notes = [*left_out, *notes]
    _written(found, out)
    _told(found, out)
    return 1 if left_out else 0


@contextlib.contextmanager
def _tables_beside(out: Path) -> Iterator[Path]:
    """A folder for attribute tables in the making, which goes when the block ends."""
    with work_folder(out, None) as work:
        work.path.mkdir(parents=True, exist_ok=True)
        try:
            yield work.path
        finally:
            work.remove()


def _columns(files: Sequence[File]) -> set[str]:
    """The columns of the pool, as the first file that can be read has them.

    Raises:
        UserError: none can.
    """
    why = ""
    for file in files:
        try:
            return set(schema_of(file).names)
        except BadFile as error:
            why = why or str(error)
    raise UserError(f"no file of the pool can be used; {why}")


def _check_given(attributes: Sequence[Attribute], total: Tallies) -> None:
    """
    Raises:
        UserError: a table of attributes knows none of the pool's rows.
    """
    counted = {key.attribute for key in total.groups}
    for one in attributes:
        if isinstance(one, Given) and one.name not in counted:
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
    if options.language is not None:
        check_detector(options.language)
    if options.domains or options.domain_tables:
        check_domains()
    return Path(options.out)


def _listed(given: Any) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else list(given)


def _names(paths: Sequence[str]) -> list[str]:
    """What the subsets are called: by file name where that tells them apart."""
    names = [Path(path).stem for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _attributes(options: AuditOptions, known: set[str], work: Path) -> tuple[list[Attribute], list[str]]:
    """All attributes that are asked for, of which the pool has the columns, and what is to be said of them.

    Raises:
        UserError: a file that cannot be read, or two attributes of one name.
    """
    found: list[Attribute] = [*captions(_listed(options.captions)), Sides(), Shapes()]
    if options.language is not None:
        found.append(Languages(options.language))
    for path in _listed(options.domain_tables):
        found += by_domain(path)
    absent = sorted({name for one in found for name in one.columns} - known)
    notes = [f"the pool has no column {name}; what needs it is left out" for name in absent]
    found = [one for one in found if set(one.columns) <= known]
    bands = _bands(options.bands)
    for number, path in enumerate(_listed(options.attributes)):
        given, counts = by_uid(path, bands, work, number)
        found += given
        if counts.repeated:
            notes.append(f"{path}: {counts.repeated:,} rows repeat an earlier one's uid; the first one counts")
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


def _written(found: Audit, out: Path) -> None:
    write_json(out / "groups.json", found.as_json())
    for name, kind, rows in (("groups.csv", Group, found.groups), ("words.csv", Word, found.words)):
        with atomic(out / name) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow([*kind._fields, "different"])
            table.writerows([*row, row.different] for row in rows)
    with atomic(out / "index.html") as file:
        file.write(page(found))


def _told(found: Audit, out: Path) -> None:
    for name, kept in found.kept.items():
        groups = [one for one in found.groups if one.subset == name]
        less, more = (
            sum(one.different and (one.ratio < one.base) == fewer for one in groups) for fewer in (True, False)
        )
        print(
            f"{name}: {kept / found.pool:.1%} of {found.pool:,} rows kept; of {len(groups):,} groups {less:,} are kept "
            f"less often than the rest and {more:,} more often, beyond chance"
        )
    for line in found.notes:
        print(line, file=sys.stderr)
    print(out / "index.html")


COMMAND = Command(AuditOptions, audit)

if __name__ == "__main__":
    COMMAND.start()
