"""Drawn shapes with text written below them, for the tests of finding text and of painting it over."""

import io

from PIL import Image, ImageDraw, ImageFont

SHAPES = ("disc", "square", "triangle", "cross")
COLOURS = {"red": (200, 40, 40), "green": (40, 140, 60), "blue": (50, 60, 200), "black": (20, 20, 20)}
SIDE = 320  # at which these tests look for text; the default costs twice as much


def drawn(shape: str, colour: str, text: str = "", size: tuple[int, int] = (240, 200), height: int = 24) -> Image.Image:
    """A shape on a light ground, and text below it."""
    image = Image.new("RGB", size, (225, 225, 210))
    draw, fill = ImageDraw.Draw(image), COLOURS[colour]
    if shape == "disc":
        draw.ellipse((80, 20, 160, 100), fill=fill)
    elif shape == "square":
        draw.rectangle((80, 20, 160, 100), fill=fill)
    elif shape == "triangle":
        draw.polygon([(120, 20), (160, 100), (80, 100)], fill=fill)
    elif shape == "cross":
        draw.line((80, 20, 160, 100), fill=fill, width=18)
        draw.line((80, 100, 160, 20), fill=fill, width=18)
    if text:
        draw.text((14, 140), text, fill=(30, 30, 30), font=ImageFont.load_default(height))
    return image


def box_of(text: str, height: int = 24, at: tuple[int, int] = (14, 140)) -> tuple[float, ...]:
    return ImageDraw.Draw(Image.new("RGB", (1, 1))).textbbox(at, text, font=ImageFont.load_default(height))


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()
