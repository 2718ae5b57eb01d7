"""Miniature trees of made images in the layouts of CelebA, MeGlass, SoF and SPECFACE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# (Eyeglasses, Male, Smiling) of each image, and so on from the start.
CELEBA_ATTRIBUTES = ("Eyeglasses", "Male", "Smiling")
CELEBA_ROWS = ((0, 0, 1), (1, 1, 0), (0, 1, 1), (0, 0, 0), (1, 0, 1), (0, 1, 0))
LANDMARK_COLUMNS = (
    "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y "
    "leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
)
LANDMARKS = (14, 22, 26, 22, 20, 30, 15, 36, 25, 36)


def draw_face(path: Path, rng: np.random.Generator, *, glasses: bool) -> None:
    """Write a 40x44 image of a round face, with dark frames or without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (40, 44), tuple(rng.integers(90, 200, 3).tolist()))
    draw = ImageDraw.Draw(image)
    skin = tuple((np.array((225, 185, 160)) + rng.integers(-20, 20, 3)).tolist())
    draw.ellipse((4, 4, 36, 42), fill=skin)
    draw.line((15, 36, 25, 36), fill=(150, 60, 60), width=2)
    for x in (14, 26):
        draw.ellipse((x - 1, 21, x + 1, 23), fill=(40, 30, 20))
        if glasses:
            draw.rectangle((x - 5, 17, x + 5, 27), outline=(10, 10, 10), width=3)
    image.save(path)


def make_celeba(
    root: Path,
    form: str = "txt",
    *,
    number: int = 12,
    rows: Sequence[Sequence[int]] = CELEBA_ROWS,
    roles: Sequence[int] = (0, 0, 0, 0, 1, 2),
    images: str = "",
) -> Path:
    """Write the official form ("txt") or Kaggle's ("csv"); images repeat `rows` and `roles`.

    Two images in a row are of one person. With `images`, they go into that folder.
    """
    rng = np.random.default_rng(0)
    default = "img_align_celeba" if form == "txt" else "img_align_celeba/img_align_celeba"
    names = [f"{i:06d}.jpg" for i in range(1, number + 1)]
    cells = {name: rows[i % len(rows)] for i, name in enumerate(names)}
    for name in names:
        draw_face(root / (images or default) / name, rng, glasses=bool(cells[name][0]))
    tables = {
        "list_attr_celeba": (
            " ".join(CELEBA_ATTRIBUTES),
            [[str(2 * value - 1) for value in cells[name]] for name in names],
        ),
        "list_landmarks_align_celeba": (LANDMARK_COLUMNS, [[*map(str, LANDMARKS)]] * number),
        "list_bbox_celeba": ("x_1 y_1 width height", [["4", "5", "32", "38"]] * number),
        "list_eval_partition": ("", [[str(roles[i % len(roles)])] for i in range(number)]),
        "identity_CelebA": ("", [[str(100 + i // 2)] for i in range(number)]),
    }
    for stem, (header, values) in tables.items():
        if form == "csv":
            columns = header.split() or ["partition" if "partition" in stem else "identity"]
            lines = [["image_id", *columns], *([n, *v] for n, v in zip(names, values, strict=True))]
            text = "".join(",".join(line) + "\n" for line in lines)
        else:
            # The header of the boxes names the first column too, the others do not.
            head = "image_id " * ("bbox" in stem) + header
            body = "".join(f"{n} {'  '.join(v)} \n" for n, v in zip(names, values, strict=True))
            text = f"{number}\n{head} \n{body}" if header else body
        (root / f"{stem}.{form}").write_text(text)
    return root


def make_meglass(root: Path, *, people: int = 4, per_person: int = 3) -> Path:
    """Write MeGlass_120x120/ and meta.txt; every third image of a person has glasses."""
    rng = np.random.default_rng(1)
    lines = []
    for person in range(people):
        for i in range(per_person):
            name = f"1003252{person}@N08_identity_{person % 2}@{person}{i}_1.jpg"
            draw_face(root / "MeGlass_120x120" / name, rng, glasses=i % 3 == 2)
            lines.append(f"{name} {int(i % 3 == 2)}\n")
    (root / "meta.txt").write_text("".join(lines))
    return root


def make_sof(root: Path, *, people: Sequence[str] = ("AbdA", "MonB"), folder: str = "") -> Path:
    """Write each person's original, a covered copy and a noisy copy."""
    rng = np.random.default_rng(2)
    for number, person in enumerate(people):
        for end in ("e0_nl_o", "em_nl_h", "e0_Gn_m"):
            name = f"{person}_{number:05d}_m_31_i_fr_nc_no_2016_2_{end}.jpg"
            draw_face(root / folder / name, rng, glasses=True)
    return root


def make_specface(root: Path, *, people: int = 2, per_person: int = 3) -> Path:
    """Write folders 01, 02, ... of `image (N).jpg`."""
    rng = np.random.default_rng(3)
    for person in range(1, people + 1):
        for i in range(1, per_person + 1):
            draw_face(root / f"{person:02d}" / f"image ({i}).jpg", rng, glasses=True)
    return root
