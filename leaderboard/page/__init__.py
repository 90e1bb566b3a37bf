"""The leaderboard as one static page, which needs no network: data, script and chart library are inside.

Text from submissions is data: the script puts it into the document as text, never as markup. Should it get into the
markup all the same, the page's policy runs no script but those whose hash it names, and loads nothing.
"""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from string import Template

from leaderboard.charts import VERSION
from leaderboard.models import Leaderboard
from leaderboard.page.data import page_data
from leaderboard.page.tables import public_section, tables
from leaderboard.public_models import PublicModels

_FOLDER = Path(__file__).parent
_SCRIPTS = (
    "dom",
    "data",
    "state",
    "ranking",
    "leader",
    "methods",
    "audits",
    "compare",
    "tasks",
    "charts",
    "download",
    "main",
)
_STYLES = ("page", "tables")


def page(leaderboard: Leaderboard, public: PublicModels | None = None) -> str:
    """The whole HTML document; the same text for the same leaderboard and public models."""
    library, program = _library(), _program()
    return Template(_read("page.html")).substitute(
        policy=_policy(library, program),
        style="\n".join(_read(f"{name}.css") for name in _STYLES),
        tables=tables(leaderboard),
        public=public_section(public),
        data=_inlined(page_data(leaderboard)),
        library=library,
        program=program,
    )


def _policy(*scripts: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    # Vega sets style attributes; styles load nothing, as every other source is closed.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _inlined(value: object) -> str:
    """JSON that ends no script element, in ASCII."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, which makes `window.vegaEmbed`."""
    import vl_convert  # here, because it takes a second to load

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VERSION)
    # Line ends as the browser reads them, else the hash would not fit; and nothing that ends the element.
    lines = bundle.replace("\r\n", "\n").replace("\r", "\n")
    return lines.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@cache
def _program() -> str:
    parts = "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n\n{parts}}})();\n'


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
