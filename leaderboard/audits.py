"""The audit that a submission carries: read from curate.audit's groups.json, shortened, and held against itself.

    python -m curate.audit subset=mine.npy pool=/pool/metadata out=audit
    python -m leaderboard submit run=runs/mine ... audit=audit

What cannot be seen from the file is whether the pool had these rows: the groups.json, whose digest is kept, and the
same command again would show it.
"""

from collections.abc import Iterator
from pathlib import Path

from poolbench.audit_report import FILE, AuditedSubset, AuditReport, read_report, wilson
from poolbench.errors import UserError
from poolbench.files import digest_file
from poolbench.run_record import RunRecord

from leaderboard.models import MOST_GROUPS, MOST_LINES, Audit, AuditedGroup, AuditedLine, Submission

_LONGEST = 200  # characters of the name of an attribute or group
_TOLERANCE = 1e-9


def audit_of(place: str, run: RunRecord) -> Audit:
    """What an audit says of the run's subset.

    Args:
        place: a groups.json, or the folder that it is in.

    Raises:
        UserError: it cannot be read, is of another form, or of other subsets than the run's.
    """
    path = Path(place) / FILE if Path(place).is_dir() else Path(place)
    found = read_report(path)
    if run.subset is None:
        raise UserError(f"audit={place}: the run was trained without a subset, so there is nobody who is left out")
    ours = [one for one in found.subsets if one.digest == run.subset.digest]
    if not ours:
        told = ", ".join(f"{one.subset[:40]} {one.digest[:8]} of {one.size:,}" for one in found.subsets[:3])
        raise UserError(
            f"{path} is of other subsets ({told}) than the run's, {run.subset.digest[:8]} of {run.subset.size:,} uids"
        )
    return _shortened(found, ours[0], digest_file(path))


def check_audit(submission: Submission) -> Iterator[str]:
    """Whether the numbers of a submission's audit fit each other, one line each that does not."""
    audit = submission.audit
    if audit is None:
        return
    if submission.subset is None:
        yield "audit: there is no subset that it could be of"
    if audit.kept > audit.pool:
        yield f"audit.kept: {audit.kept} of {audit.pool} rows"
    base, both = audit.kept / audit.pool, audit.less + audit.more
    if both > audit.groups or len(audit.different) != min(both, MOST_GROUPS):
        yield f"audit.different: {len(audit.different)} groups, but {both} of {audit.groups} differ"
    elif both <= MOST_GROUPS and audit.less != sum(one.ratio < base for one in audit.different):
        yield f"audit.less: {audit.less} is not what the groups say"
    for number, one in enumerate(audit.different):
        yield from (f"audit.different.{number}: {why}" for why in _wrong(one, audit))
    if audit.different != sorted(audit.different, key=lambda one: _farthest(one, base)):
        yield "audit.different: not the farthest from kept / pool first"


def _shortened(found: AuditReport, subset: AuditedSubset, digest: str) -> Audit:
    base = subset.kept / found.pool
    groups = [one for one in found.groups if one.subset == subset.subset]
    different = [
        AuditedGroup(
            attribute=_line(one.attribute),
            group=_line(one.group),
            **one.model_dump(include={"raw", "kept", "ratio", "low", "high"}),
        )
        for one in groups
        if one.different
    ]
    lines = sorted((one for one in found.amplification if one.subset == subset.subset), key=lambda one: one.p)
    return Audit(
        digest=digest,
        pool=found.pool,
        kept=subset.kept,
        level=found.level,
        groups=len(groups),
        less=sum(one.ratio < base for one in different),
        more=sum(one.ratio >= base for one in different),
        different=sorted(different, key=lambda one: _farthest(one, base))[:MOST_GROUPS],
        amplification=[
            AuditedLine(attribute=_line(one.attribute), **one.model_dump(include={"slope", "r", "p", "groups"}))
            for one in lines[:MOST_LINES]
        ],
    )


def _farthest(one: AuditedGroup, base: float) -> tuple[float, str, str]:
    """By what groups are in order."""
    return -abs(one.ratio - base), one.attribute, one.group


def _line(text: str) -> str:
    """A name as a submission can hold it: an attribute of a table can be called anything."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST]).strip()
    return shown or "?"


def _wrong(one: AuditedGroup, audit: Audit) -> Iterator[str]:
    if one.raw > audit.pool or one.kept > min(one.raw, audit.kept):
        yield f"{one.kept} of {one.raw} rows are kept, but {audit.kept} of {audit.pool} in all"
        return
    right = (one.kept / one.raw, *wilson(one.kept, one.raw))
    for name, written, computed in zip(("ratio", "low", "high"), (one.ratio, one.low, one.high), right, strict=True):
        if abs(written - computed) > _TOLERANCE:
            yield f"{name}: {written} is not that of {one.kept} of {one.raw} rows, {computed}"
