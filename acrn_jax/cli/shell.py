"""What all verbs share: flags in, a result or one sentence out."""

import difflib
import functools
import keyword
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable

from absl import app, flags

from acrn_jax import COMMAND, configs
from acrn_jax.cli import manual
from acrn_jax.data_prep import paths

# Exit codes: stopped by ctrl-C, and by SIGTERM, which leaves work for the same command; docs/clusters.md.
WRONG_INPUT, STOPPED, TERMINATED = 2, 130, os.EX_TEMPFAIL  # the last is 75


flags.DEFINE_bool("debug", False, "Show the traceback behind an error.")


class Terminated(SystemExit):
    """SIGTERM came where nobody waits for it to save something first, as training does."""


def run(main: Callable[[list[str]], int | None], *, bare: str | None = None) -> None:
    """Parses the command line, runs `main(argv)` and leaves the process.

    Arguments that are no flags are refused, or with `bare` paths of the flag of that name.

    Wrong input (ValueError, OSError, wrong flags and config keys) becomes one sentence on stderr and exit code 2,
    ctrl-C a sentence and 130, SIGTERM a sentence and 75; with --debug each keeps its traceback. Other exceptions are
    bugs and keep it always. --help[=TEXT] is printed instead, with exit code 0.
    """
    sys.argv[1:] = quote_keywords(sys.argv[1:])  # in place: ml_collections looks for overrides there
    signal.signal(signal.SIGTERM, _terminate)
    parse_ = functools.partial(parse, bare=bare)
    wanted, sys.argv[1:] = manual.asked(sys.argv[1:])
    if wanted is not None:
        parse_(sys.argv)
        print(with_command(manual.text(sys.modules["__main__"], wanted)))
        sys.exit()
    if debugging():
        app.run(lambda argv: main(_take_bare(bare, argv)), argv=[sys.argv[0], *find_config(sys.argv[1:])])

    def in_sentences(argv: list[str]) -> int | None:
        try:
            return main(argv)
        except (ValueError, OSError, app.UsageError) as error:
            return complain(sentence(error))
        except KeyboardInterrupt:
            return complain("stopped; run the same command again to continue.", STOPPED)
        except Terminated:
            return complain("stopped by SIGTERM; run the same command again to continue.", TERMINATED)

    app.run(in_sentences, flags_parser=parse_)


def _terminate(number: int, frame: object) -> None:
    raise Terminated(TERMINATED)


def debugging() -> bool:
    """Whether --debug is on the command line."""
    return any(re.fullmatch("--?debug(=true)?", argument) for argument in sys.argv)


def parse(argv: list[str], *, bare: str | None = None) -> list[str]:
    """Sets absl's flags from argv, which starts with the program's name; leaves with a sentence if that fails.

    `bare` as of `run`.
    """
    try:
        rest = _take_bare(bare, flags.FLAGS([argv[0], *find_config(argv[1:])]))
    except (KeyError, AttributeError) as error:  # what ml_collections raises for a key that the config does not have
        key = re.search(r"[\"'](\w+)\\?[\"']", str(error))
        if key is None:
            raise
        flag = next((a for a in argv if key[1] in a.split("=")[0].split(".")), "the config file")
        near = re.search(r'Did you mean "(\w+)"', str(error))
        hint = f"did you mean {near[1]!r}?" if near else "--help=TEXT searches the keys."
        sys.exit(complain(f"the config has no key {key[1]!r}, asked for by {flag}; {hint}"))
    except (flags.Error, ValueError, OSError) as error:
        sys.exit(complain(plain(sentence(error))))
    except SystemExit:  # of --helpfull and its like, which absl takes for a failure
        sys.exit()
    flags.FLAGS["verbosity"].using_default_value = False  # lest absl turns on the libraries' INFO lines
    if len(rest) > 1:
        sys.exit(complain(f"unexpected argument {rest[1]!r}; everything is a flag, such as --workdir=runs/first."))
    return rest


def _take_bare(flag: str | None, rest: list[str]) -> list[str]:
    """Sets a flag of paths from the arguments that are none of a flag's; gives what is left of them."""
    program, *found = rest
    if flag is None or not found:
        return rest
    if flags.FLAGS[flag].present:
        raise ValueError(f"{found[0]!r} is given beside --{flag}; give paths either way, not both.")
    flags.FLAGS[flag].value = [paths.tidy(path) for path in found]
    flags.FLAGS.validate_all_flags()
    return [program]


def find_config(arguments: list[str]) -> list[str]:
    """The arguments, with the file in place of a --config that names a shipped one, X or configs/X.py.

    A file of the caller that is called so goes before it.

    Raises:
      FileNotFoundError: there is neither.
    """
    arguments = list(arguments)
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if not equals and place + 1 == len(arguments):
            break  # absl will say that the value is missing
        place, value = (place, value) if equals else (place + 1, arguments[place + 1])
        path, colon, mode = value.partition(":")
        file = pathlib.Path(os.path.expanduser(path))
        if not file.is_file():
            name = re.sub(r"^(\./)?configs/|\.py$", "", path)
            if name not in (known := shipped_configs()):
                raise FileNotFoundError(f"there is no config {path!r}{near_config(path)}")
            file = known[name]
        arguments[place] = f"{flag}={file}{colon}{mode}" if equals else f"{file}{colon}{mode}"
    return arguments


def shipped_configs() -> dict[str, pathlib.Path]:
    """Name -> file of each config that comes with the package."""
    folder = pathlib.Path(configs.__file__).parent
    return {file.stem: file for file in sorted(folder.glob("*.py")) if "\ndef get_config(" in file.read_text()}


def quote_keywords(arguments: list[str]) -> list[str]:
    """--config.attributes.from=M -> --config.attributes['from']=M: ml_collections parses the path as Python."""
    found = []
    for argument in arguments:
        path, equals, value = argument.partition("=")
        if path.lstrip("-").startswith("config."):
            first, *keys = path.split(".")
            path = first + "".join(f"['{key}']" if keyword.iskeyword(key) else f".{key}" for key in keys)
        found.append(path + equals + value)
    return found


def near_config(path: str) -> str:
    """What to name in place of `path`: the most similar of the shipped configs, else all of them."""
    names = shipped_configs().keys() - {"common"}  # which has every key and is no experiment
    near = difflib.get_close_matches(pathlib.Path(path).stem, sorted(names), n=1)
    if not near:
        return f"; name a file, or one of {', '.join(sorted(names))}."
    return f"; did you mean {f'configs/{near[0]}.py' if '/' in path or path.endswith('.py') else near[0]}?"


def sentence(error: BaseException) -> str:
    """One line for the reader of an error, without traceback and error numbers."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    text = str(error)
    if "Traceback (most recent call last)" in text:  # ml_collections, of an error in a config file
        *_, last = re.finditer(r"^[\w.]+: ", text, re.MULTILINE)
        text = text[last.end() :]
    return " ".join(text.split()) or type(error).__name__


def plain(text: str) -> str:
    """What Python, absl and ml_collections say of a flag's value, in the words of a reader of --help."""
    for pattern, meant in {
        r"invalid literal for int\(\).*": "a whole number is wanted",
        r"could not convert string to float.*": "a number is wanted",
        r"\('Non-boolean argument.*": "True or False is wanted",
        r"Failed to parse .* as a ConfigDict.*": "this is a group of keys; give one of them, --help lists them",
    }.items():
        text = re.sub(pattern, f"{meant}.", text)
    return text


def with_command(text: str) -> str:
    """The text, which says ./launch.sh, with the command that its reader has."""
    return text.replace("./launch.sh", COMMAND)


def complain(text: str, code: int = WRONG_INPUT) -> int:
    """Prints the sentence to stderr, returns the exit code."""
    print(f"acrn_jax: {with_command(text)}", file=sys.stderr)
    return code


def require(**values: object) -> None:
    """ValueError that names the flags whose value is missing."""
    missing = [f"--{name}" for name, value in values.items() if value is None]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given; --help says what each flag is.")
