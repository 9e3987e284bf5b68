"""Flags that name files and folders, the same for all verbs: ~ is the home folder, and a wrong kind is told at once.

Variables such as $HOME are left to the shell, as a $ may be part of a name.
"""

import csv
import os
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags

flags.disclaim_key_flags()  # a flag belongs to the module that asks for it


def tidy(path: str) -> str:
    """A path as it was typed -> as it is meant: with ~ expanded, without slashes at its end.

    Raises:
      ValueError: it is empty, or the home folder is not known.
    """
    if not path.strip():
        raise ValueError("is empty; name a file or folder (is a variable of your script unset?)")
    if (expanded := os.path.expanduser(path)).startswith("~"):
        raise ValueError(f"no home folder {path.split('/')[0]} is known; write the path out, or ./{path}")
    return str(pathlib.Path(expanded))


def split(paths: str) -> list[str]:
    """Several paths, separated by commas; what is there under the whole name is one. Quotes keep a comma: "a,b",c."""
    if os.path.exists(os.path.expanduser(paths)):
        return [tidy(paths)]
    return [tidy(path) for path in next(csv.reader([paths]), None) or [""]]


def fault(path: str, kind: str) -> str | None:
    """Why a path cannot be a "file" or "folder", if it cannot; another kind is either."""
    place = pathlib.Path(path)
    if kind == "file" and place.is_dir():
        return f"{path} is a folder; give the name of a file"
    if kind == "folder" and place.exists() and not place.is_dir():
        return f"{path} is a file; give the name of a folder"
    above = next((p for p in place.parents if p.exists()), None)
    return f"{above} is a file, so there is nothing in it" if above and not above.is_dir() else None


class _Parser(flags.ArgumentParser):
    def __init__(self, read: Callable[[str], Any]):
        self._read = read

    def parse(self, argument: Any) -> Any:
        return self._read(argument) if isinstance(argument, str) else argument


def _define(kind: str, several: bool) -> Callable[..., flags.FlagHolder]:
    def define(name: str, default: Any, help: str, *, flag_values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
        parser, serializer = _Parser(split if several else tidy), flags.ListSerializer(",") if several else None
        holder = flags.DEFINE(parser, name, default, help, flag_values=flag_values, serializer=serializer)

        def check(value: Any) -> bool:
            for path in (value or ()) if several else [value]:
                if path is not None and (wrong := fault(path, kind)):
                    raise flags.ValidationError(wrong)
            return True

        flags.register_validator(name, check, flag_values=flag_values)
        return holder

    return define


define_file, define_folder, define_path = (_define(kind, False) for kind in ("file", "folder", "path"))
define_files, define_folders, define_paths = (_define(kind, True) for kind in ("file", "folder", "path"))
