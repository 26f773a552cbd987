"""A picture of moments of clips."""

import av
import numpy as np
from PIL import Image, ImageDraw


def contact_sheet(clips, frames: int = 7, width: int = 240) -> Image.Image:
    """One row a clip, `frames` moments each, `width` pixels wide (PIL image).

    clips: a dict of captions and paths of videos, all of one size.
    """
    rows = []
    for caption, path in clips.items():
        with av.open(str(path)) as container:
            clip = [frame.to_image() for frame in container.decode(video=0)]
        size = width, width * clip[0].height // clip[0].width
        chosen = [clip[i].resize(size) for i in np.linspace(0, len(clip) - 1, frames).astype(int)]
        row = Image.new("RGB", (width * frames, chosen[0].height))
        for number, image in enumerate(chosen):
            row.paste(image, (number * width, 0))
        ImageDraw.Draw(row).text((3, 2), caption, fill="red")
        rows.append(row)
    whole = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    for number, row in enumerate(rows):
        whole.paste(row, (0, number * rows[0].height))
    return whole
