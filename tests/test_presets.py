"""Published selections: every file of conf/method is composed, and gives way to what the command line says."""

from pathlib import Path

import pytest
import yaml

from poolbench import HOME
from poolbench.errors import UserError
from poolbench.recipes import pinned, scales

from curate.config import parsed
from curate.presets import preset, presets, selection
from curate.selectors.registry import build


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_filter_with_its_options(name: str) -> None:
    found = preset(name)
    assert found.scales and set(found.scales) <= set(scales()) and set(found.results) <= set(found.scales)
    assert found.url.startswith("https://") and found.cite
    for scale in found.scales:
        _, spec = parsed([f"filter={name}", f"scale={scale}", "pool=a", "out=b.npy"])
        built = build(spec)
        for option, value in (found.options | found.scales[scale]).items():
            assert getattr(built.options, option) == value or option == "of"


def test_a_method_of_repeats_fills_the_budget() -> None:
    for scale in preset("m_flyt").scales:
        assert selection("m_flyt", scale, [])["size"] == pinned(scale)["samples"]


def test_what_is_given_counts() -> None:
    def spec(*words: str) -> object:
        return parsed(["pool=a", "out=b.npy", *words])[1]

    assert spec("filter=clip_score", "scale=medium") == {"filter": "clip_score", "arch": "l14", "fraction": 0.3}
    assert spec("filter=clip_score", "scale=medium", "filter.threshold=.28", "filter.arch=b32") == {
        "filter": "clip_score", "arch": "b32", "threshold": 0.28,
    }  # fmt: skip
    assert spec("filter=clip_score", "filter.fraction=.2") == {"filter": "clip_score", "fraction": 0.2}
    assert spec("filter=clip_score_b32") == {"filter": "clip_score", "arch": "b32", "fraction": 0.3}
    assert spec("filter=image_based", "scale=large") == {"filter": "image_based", "centroids": "large"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["filter=tmars", "scale=small"], "filter=tmars was published at scale=medium, not at small; without"),
        (["filter=basic", "scale=medum"], "scale=medum is not known; did you mean 'medium'?"),
        (["filter=union", "scale=medium"], "filter=union has no published selection; known: "),
        (["filter=mine.yaml", "scale=medium"], "scale=medium is for a published method by its name, not for mine.yaml"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], says: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed(["pool=a", "out=b.npy", *words])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_conf_is_yaml_and_nothing_else() -> None:
    files = [path for path in Path(HOME, "conf").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".yaml"}
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path
