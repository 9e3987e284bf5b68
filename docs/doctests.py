"""Extension of Griffe, which mkdocs.yml names: examples in docstrings, >>> ..., become blocks of code on the page."""

import re

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.M)  # up to the next empty line


class Fenced(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
