"""The device that embeddings are looked at by is no part of what a selection is known by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metadata import columns_of, write_file
from selecting import curate
from test_curate_embeddings import described, specs, vectors_of, write_targets

from curate.selectors import registry


def _on_cpu(spec: Any) -> Any:
    """The same with filter.device=cpu, wherever there may be one."""
    if isinstance(spec, list):
        return [_on_cpu(one) for one in spec]
    if not isinstance(spec, dict):
        return spec
    own = {"device": "cpu"} if spec["filter"] in ("vas", "vas_d", "norm_sim", "neg_clip_loss") else {}
    return {**spec, **own, **({"of": _on_cpu(spec["of"])} if "of" in spec else {})}


@pytest.mark.parametrize("name", ["vas", "vas_d", "norm_sim_inf", "loss", "both", "dynamic", "among_a_union"])
def test_nothing_is_known_by_the_device(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a subset nor what a run has left; what older versions kept, by the option's default, is found."""
    pool, named = tmp_path / "pool", specs(write_targets(tmp_path / "targets.npy"))
    arrays = {key: vectors_of(60, np.random.default_rng(1), "unit") for key in ("l14_img", "l14_txt")}
    write_file(pool / "0.parquet", columns_of(60), arrays)
    union = {"filter": "union", "of": ["no_filter", named["loss"]]}
    spec = {**named["norm_sim_2"], "of": union} if name == "among_a_union" else named[name]
    plain_, moved = registry.build(spec), registry.build(_on_cpu(spec))
    assert moved.options.device == "cpu" and moved.identity() == plain_.identity()
    assert registry.described(moved) == registry.described(plain_)
    assert registry.described(moved)["device"] == "auto"
    own = moved.identity()[0] if moved.children else moved.identity()
    assert own[2]["device"] == "auto" and own[2].get("of") == spec.get("of")
    where = [f"pool={pool}", f"out={tmp_path}/out.npy"]
    assert curate(described(tmp_path / "filter.yaml", spec), *where) == 0
    assert curate(described(tmp_path / "other.yaml", _on_cpu(spec)), *where) == 0
    assert "is complete" in capsys.readouterr().err
    assert curate(described(tmp_path / "other.yaml", _on_cpu({**spec, "fraction": 0.31})), *where) == 2
