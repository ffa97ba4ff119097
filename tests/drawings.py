"""A folder of drawings as somebody would bring it: unequal counts, formats, sizes and colours."""

import numpy as np
from PIL import Image, ImageDraw

FORMATS = ("png", "jpg", "gif", "webp", "bmp", "tif")
CLASSES = [f"{kind}/{name}" for kind in ("round", "square", "lines") for name in "abcd"]
COUNTS = dict(zip(CLASSES, np.linspace(5, 40, 12).astype(int).tolist(), strict=True))


def draw(name, number):
    """A drawing of a class in colours of its own, on white, of a size of its own."""
    rng = np.random.default_rng([CLASSES.index(name), number])
    size = (int(rng.integers(24, 60)), int(rng.integers(24, 60)))
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    kind, letter = name.split("/")
    for place in range(1 + "abcd".index(letter)):
        colour = tuple(int(c) for c in rng.integers(0, 200, 3))
        low, high = 2 + 3 * place, 20 + int(rng.integers(0, 4)) - 2 * place
        if kind == "round":
            pen.ellipse((low, low, high, high), outline=colour, width=2)
        elif kind == "square":
            pen.rectangle((low, low, high, high), outline=colour, width=2)
        else:
            pen.line((low, 2, high, 22), fill=colour, width=2)
    return picture


def folder(root, counts=None):
    """Write the drawings of `counts` {class: how many} to root/class/number.ending; return root."""
    for name, count in (counts or COUNTS).items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            ending = FORMATS[number % len(FORMATS)]
            draw(name, number).save(root / name / f"{number:02}.{ending}")
    return root
