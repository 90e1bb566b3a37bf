"""Published subsets: a local copy is taken, and checked against what is known of it."""

from pathlib import Path

import numpy as np
import pytest
from metadata import write_metadata
from pools import uid_of
from test_curate_columns import refused, selected

from poolbench.files import digest_file
from poolbench.recipes import scales
from poolbench.uids import write_subset

from curate.selectors import published
from curate.selectors.published import Known, registry


def test_the_registry_is_what_it_should_be() -> None:
    for known in registry().values():
        assert known.scale in scales() and known.rows[0] <= known.rows[1] and "http" in known.where


def test_a_copy_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pool, copy = write_metadata(tmp_path / "pool", 1, 40, npz=False), tmp_path / "copy.npy"
    write_subset(copy, [uid_of(number) for number in range(0, 40, 2)])
    words = (f"pool={pool}", f"out={tmp_path / 'a.npy'}", "filter=published", "filter.name=t_mars_medium")
    assert "locuslab/T-MARS" in refused(capsys, *words)
    assert "did you mean 't_mars_medium'?" in refused(capsys, *words[:3], "filter.name=tmars_medium")
    assert "copy.npy has 20 uids, t_mars_medium has from 25,250,000" in refused(capsys, *words, f"filter.path={copy}")
    rest = [f"pool={pool}", *words[2:], f"filter.path={copy}"]
    np.testing.assert_array_equal(selected(tmp_path / "b.npy", *rest, "filter.check=false"), np.load(copy))
    for digest, good in ((digest_file(copy), True), ("0" * 64, False), (None, True)):
        known = Known(method="a", scale="medium", rows=(20, 20), sha256=digest, where="")
        monkeypatch.setattr(published, "registry", lambda known=known: {"t_mars_medium": known})
        if good:
            assert len(selected(tmp_path / f"{good}-{digest}.npy", *rest)) == 20
        else:
            assert "has the SHA-256" in refused(capsys, *words, f"filter.path={copy}")
