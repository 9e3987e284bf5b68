"""What --help shows: a verb's flags and the keys of its config, a line each, so that --help=TEXT and grep can search.

The comments come from configs/common.py itself, which stays the one place that lists every key.
"""

import ast
import inspect
import io
import pathlib
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags


def asked(arguments: list[str]) -> tuple[str | None, list[str]]:
    """(text that --help is to find, "" for everything, None where nobody asks for help; the other arguments)."""
    for place, argument in enumerate(arguments):
        found = re.fullmatch(r"-h|--?help(?:short)?(?:=(.*))?", argument)
        if found:
            after = arguments[place + 1 : place + 2]
            word = after if found[1] is None and after and not after[0].startswith("-") else []
            return found[1] or "".join(word), arguments[:place] + arguments[place + 1 + len(word) :]
    return None, arguments


def text(program: Any, wanted: str = "") -> str:
    """The help of a verb.

    Args:
      program: its module.
      wanted: shows only lines that contain it, in whatever case.
    """
    verb = pathlib.Path(program.__file__).stem
    by_module = flags.FLAGS.flags_by_module_dict()
    own = [flag for name in by_module for flag in by_module[name] if name == sys.argv[0] or "acrn_jax" in name]
    config = next((flag for flag in own if flag.name == "config"), None)
    sections = [(f"Flags of {verb}:", sorted(_flag(flag) for flag in own))]
    if config is not None:
        title = "Keys of the config, as configs/common.py sets them; with --config=FILE, as that file does:"
        sections.append((title, list(_keys(config.value))))
    if wanted:
        sections = [(title, [line for line in lines if wanted.lower() in line.lower()]) for title, lines in sections]
        if not any(lines for _, lines in sections):
            return f"No flag or key of {verb} has {wanted!r} in its name or description; --help alone lists all."
        return "\n".join(line for _, lines in sections for line in lines)
    about = (program.__doc__ or "").strip()
    return "\n".join([about, *(line for title, lines in sections for line in ("", title, *lines))] + ["", SEARCH])


SEARCH = "--help=TEXT shows only the lines that contain TEXT; --helpfull also lists the flags of libraries."


def _flag(flag: flags.Flag) -> str:
    value = "" if flag.boolean else "=" + "|".join(getattr(flag.parser, "enum_values", None) or ["..."])
    default = f" Default: {flag.default_as_str}." if flag.default not in (None, False, []) else ""
    return f"  {'--' + flag.name + value:44}  {' '.join((flag.help or '').split())}{default}"


def _keys(config: Any) -> Iterator[str]:
    """A line for each key of the config, of configs/common.py's if it is None."""
    from acrn_jax.configs import common

    config = common.get_config() if config is None else config
    about = comments(inspect.getsource(common))
    for key, value in _flat(config.to_dict()):
        shown = "" if value is None else value
        yield f"  {f'--config.{key}={shown}':44}  {about.get(key, '')}".rstrip()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def comments(source: str) -> dict[str, str]:
    """Dotted key -> what the source of configs/common.py says behind it."""
    alone, behind = {}, {}  # line -> comment that has the line for itself, or stands behind code
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            kind = alone if not token.line[: token.start[1]].strip() else behind
            kind[token.start[0]] = token.string.lstrip("# ")
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    found: dict[str, str] = {}

    def add(key: str, value: ast.expr, line: int) -> None:
        """What is said of `key`, whose value ends in `line`, and of the keys below it."""
        if line in behind:
            words = [behind[line]]
            while (line := line + 1) in alone:
                words.append(alone[line])
            found[key] = " ".join(words)
        called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
        made = functions.get(called)
        table = made.body[-1].value if made and isinstance(made.body[-1], ast.Return) else value
        if isinstance(table, ast.Dict):
            for name, inner in zip(table.keys, table.values, strict=True):
                if isinstance(name, ast.Constant):
                    add(f"{key}.{name.value}", inner, inner.end_lineno or 0)

    for node in functions["get_config"].body:
        if isinstance(node, ast.Assign) and (path := _path(node.targets[0])):
            add(".".join(path), node.value, node.end_lineno or 0)
    return found


def _path(target: ast.expr) -> list[str]:
    """c.attributes["from"] -> ["attributes", "from"]."""
    if isinstance(target, ast.Attribute):
        return [*_path(target.value), target.attr]
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        return [*_path(target.value), str(target.slice.value)]
    return []
