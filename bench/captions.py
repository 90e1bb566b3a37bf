"""Real captions in many languages, from what the machine has: WordNet's glosses and examples, the names of emoji, what
programs say in the languages that they know, and the remarks in installed Python packages."""

import gettext
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import emoji

WORDNET = Path("/usr/share/wordnet")
LOCALE = Path("/usr/share/locale")
_REMARK = re.compile(r"^\s*# ?(\w.*\w.*)$", re.MULTILINE)


def captions(most: int) -> list[str]:
    """Different ones, at most so many, always in the same order."""
    found: dict[str, None] = {}
    for source in (_glosses(), _emoji(), _messages(), _remarks()):
        for caption in source:
            found[caption] = None
            if len(found) == most:
                return list(found)
    return list(found)


def _glosses() -> Iterator[str]:
    for part in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{part}").read_text(encoding="utf-8", errors="ignore").splitlines():
            if not line.startswith("  "):
                yield from (piece.strip().strip('"') for piece in line.partition("| ")[2].split(";"))


def _emoji() -> Iterator[str]:
    for language in emoji.LANGUAGES:
        emoji.config.load_language(language)
        for names in emoji.EMOJI_DATA.values():
            if language in names:
                yield names[language].strip(":").replace("_", " ")


def _messages() -> Iterator[str]:
    for path in sorted(LOCALE.glob("*/LC_MESSAGES/*.mo")):
        try:
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        except UnicodeDecodeError:  # written in another encoding than it says
            continue
        yield from (text for key, text in catalogue.items() if key and isinstance(text, str) and text.strip())


def _remarks() -> Iterator[str]:
    folder = next(Path(place) for place in sys.path if place.endswith("site-packages"))
    for path in sorted(folder.rglob("*.py")):
        yield from _REMARK.findall(path.read_text(encoding="utf-8", errors="ignore"))
