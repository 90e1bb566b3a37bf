"""What asking pictures for attributes costs: pictures per second of a core, an attribute and a size at a time.

    python bench/attributes.py [--pictures 32] [--out FILE.md]

The work of a worker alone, in seconds of the processor, which others that use the machine hardly change: a JPEG is
decoded and looked at. Pictures are four photographs that scikit-image carries, one of them of a person, at each size.
"""

import argparse
import datetime
import io
import os
import time
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

import skimage.data
from evaluation_report import table
from machine import machine
from PIL import Image

from poolbench.files import atomic

from curate.models.face_attributes import Faces
from curate.models.nsfw import Nsfw
from curate.models.picture_attributes import PictureAttribute
from curate.scorers.attributes import Look

SIDES = (256, 512)  # pixels of the longer side


def pictures(side: int) -> list[bytes]:
    """JPEGs of the photographs."""
    made = []
    for name in ("astronaut", "cat", "coffee", "rocket"):
        image = Image.fromarray(getattr(skimage.data, name)())
        scale = side / max(image.size)
        buffer = io.BytesIO()
        image.resize((round(image.width * scale), round(image.height * scale))).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def of_a_worker(asked: list[PictureAttribute], files: list[bytes], count: int) -> float:
    """Pictures per second of the processor."""
    look, names = Look(asked), {one.name for one in asked}
    for file in files:
        look(file, names)
    began = time.process_time()
    for number in range(count):
        look(files[number % len(files)], names)
    return count / (time.process_time() - began)


def report(count: int, load: float, rows: list[list[Any]]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in (Nsfw().versions | Faces(640, 0.99).versions).items())
    cells = [[str(cell) for cell in row] for row in rows]
    lines = "\n".join(table(["asked for", *(f"{side} pixels" for side in SIDES)], cells))
    return f"""# Attributes of pictures

`python bench/attributes.py --pictures {count}`, {datetime.date.today():%-d %B %Y}. Load average before: {load:.1f}.

Machine: {machine()}. {packages}.

Pictures per second of a core, in time of the processor, one thread, decoding among it; of pictures whose longer side
has {" or ".join(map(str, SIDES))} pixels. Faces are looked for in a picture of `face_side` pixels, if that is at most
twice as large as it is.

{lines}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--out")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    rows: list[list[Any]] = []
    every: dict[str, list[PictureAttribute]] = {
        "decoded alone": [],
        "nsfw": [Nsfw()],
        "faces": [Faces(640, 0.99)],
        "faces, `face_side=320`": [Faces(320, 0.99)],
        "faces, `face_side=1280`": [Faces(1280, 0.99)],
    }
    for name, asked in every.items():
        rates = [of_a_worker(asked, pictures(side), given.pictures) for side in SIDES]
        rows.append([name, *(f"{rate:,.1f}" for rate in rates)])
    text = report(given.pictures, load, rows)
    print(text)
    if given.out:
        with atomic(given.out) as file:
            file.write(text)


if __name__ == "__main__":
    main()
