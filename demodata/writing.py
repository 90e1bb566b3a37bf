"""Letters on a picture: words as large as they fit into the lower part of it, by the one font that Pillow carries."""

import functools
from typing import TYPE_CHECKING, NamedTuple

from poolbench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

SIZES = (30, 24, 20)  # of letters, in pixels; the largest one that fits is taken
STRIP = 56  # pixels from the lower edge, in which all writing is
_LINES = 2
_MARGIN = 6  # pixels; the training's crops cut off no more than that
_BELOW = 0.22  # of a letter's size: how far a g reaches below the line
_INK, _HALO = "#101010", "#ffffff"


class Writing(NamedTuple):
    """Words in lines, and the size of their letters."""

    lines: tuple[str, ...]
    size: int


def fitted(text: str, width: int) -> Writing | None:
    """How a text is written on a picture that is `width` pixels wide, None where it does not fit."""
    for size in SIZES:
        lines = _wrapped(text.split(), size, width - 2 * _MARGIN)
        if lines and len(lines) <= _LINES and len(lines) * size <= STRIP - _MARGIN:
            return Writing(tuple(lines), size)
    return None


def below(drawing: "Image", writing: Writing) -> "Image":
    """The drawing smaller, on its own ground, and the writing below it."""
    from PIL import Image

    width, height = drawing.size
    ground = drawing.getpixel((0, 0))
    made = Image.new("RGB", drawing.size, ground)
    small = drawing.resize((width - STRIP, height - STRIP), Image.Resampling.LANCZOS)
    made.paste(small, (STRIP // 2, 0))
    _write(made, writing, halo=False)
    return made


def over(drawing: "Image", writing: Writing) -> "Image":
    """The writing across the lower part of the drawing, at the same place as `below` has it."""
    made = drawing.copy()
    _write(made, writing, halo=True)
    return made


def _write(image: "Image", writing: Writing, halo: bool) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(image)
    lowest = image.height - _MARGIN - round(_BELOW * writing.size)
    for above, line in enumerate(reversed(writing.lines)):
        draw.text(
            (_MARGIN, lowest - above * writing.size),
            line,
            fill=_INK,
            font=_font(writing.size),
            anchor="ls",
            stroke_width=2 if halo else 0,
            stroke_fill=_HALO,
        )


def _wrapped(words: list[str], size: int, width: int) -> list[str]:
    """Words in as few lines as they take, [] where one word is wider than a line."""
    lines: list[str] = []
    room = 0.0
    for word in words:
        wide = _width(word, size)
        if wide > width:
            return []
        if lines and wide + _width(" ", size) <= room:
            lines[-1] += f" {word}"
            room -= wide + _width(" ", size)
        else:
            lines.append(word)
            room = width - wide
    return lines


@functools.cache
def _width(word: str, size: int) -> float:
    return _font(size).getlength(word)


@functools.cache
def _font(size: int) -> "FreeTypeFont":
    from PIL import ImageFont, features

    if not features.check("freetype2"):
        raise UserError("this Pillow was built without FreeType, and so draws no letters: install one of pip's")
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
