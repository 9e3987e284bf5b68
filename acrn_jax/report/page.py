"""What self-contained pages are made of; without charts, whose library takes its time to load."""

import base64
import io
import pathlib

import jinja2
from PIL import Image


def template(name: str) -> jinja2.Template:
    """A page of this folder, which escapes what it is given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def thumbnail(image: Image.Image, size: tuple[int, int]) -> str:
    """A picture in RGB made small, in place, as data URI; nothing else that its file told is in it."""
    image.thumbnail(size)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
