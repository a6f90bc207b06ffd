"""The command line all scripts share: options, YAML files, ``key=value`` words, help, errors without traceback."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dcae15 import storage
from dcae15.config import Config, Layer, build, check, dump, fields_help, from_overrides, from_yaml, warnings_for
from dcae15.config.checks import nearest
from dcae15.errors import ConfigError, Dcae15Error, StorageError
from dcae15.redaction import redact

THREADS = {"GOMP_SPINCOUNT": "10000"}
"""Threads that wait soon leave the core to others; else a shared machine slows down tenfold. Read when torch is loaded."""


@dataclass(frozen=True)
class Command:
    """What a script was asked to do.

    Attributes:
        config: all values, resolved and checked.
        inputs: name of an artifact -> its URI, as given by ``name=URI``.
        dry_run: only say what would be done.
        origins: dotted path -> file name or ``command line``; values without an entry are defaults.
        warnings: sentences that the user should read before the work starts.
        flags: the script's own options that were given, without their dashes.
    """

    config: Config
    inputs: Mapping[str, str]
    dry_run: bool
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    flags: frozenset[str] = frozenset()


def parse(
    argv: Sequence[str],
    description: str,
    sections: Collection[str] | None = None,
    inputs: Mapping[str, str] | None = None,
    optional_inputs: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Command:
    """Read a command line; print and exit for --help and --print-config.

    Args:
        argv: the words after the script's name.
        description: what the script does; its first lines of help.
        sections: top-level config sections that the script reads; None means all. Help shows only these, rules between
            fields are checked only among these, and an override elsewhere is warned about.
        inputs: name -> meaning of each artifact URI that the script needs, given as ``name=URI``. An input may bear a
            section's name: ``autoencoder=URI`` is the input, ``autoencoder.flip=false`` a field.
        optional_inputs: the same, of inputs that may be left out.
        flags: name -> meaning of options that only this script has, given as ``--name``.

    Raises:
        ConfigError: an unknown key, a wrong value, fields that contradict each other, a missing input or file.
        SystemExit: after --help (0), --print-config (0), or an unknown option (2).
    """
    required, known = inputs or {}, {**(inputs or {}), **(optional_inputs or {})}
    parser = _parser(description, sections, required, optional_inputs or {}, flags or {})
    options = parser.parse_intermixed_args(argv)
    given, overrides = _split(options.words, known)
    layers = [_file_layer(uri) for uri in options.config]
    layers.append(from_overrides(overrides))
    unread = {"data"} if "images" in given else set()  # the images say where they came from
    config, origins = build(layers, sections=None if sections is None else set(sections) - unread)
    if options.print_config:
        print(dump(config, origins), end="")
    check(config, sections, given)
    if options.print_config:
        raise SystemExit(0)
    for name, meaning in required.items():
        if name not in given:
            raise ConfigError(f"the input '{name}' is missing: {meaning}; add {name}=URI")
    warnings = warnings_for(config) + _unread(layers[-1], sections)
    set_ = frozenset(name for name in flags or {} if getattr(options, name.replace("-", "_")))
    return Command(config, given, options.dry_run, origins, tuple(warnings), set_)


def run_script(
    run: Callable[[Command], None],
    description: str,
    *,
    sections: Collection[str] | None = None,
    inputs: Mapping[str, str] | None = None,
    optional_inputs: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the command line, run the script, and return its exit code: ``sys.exit(run_script(run, __doc__))``.

    Returns:
        0 after success, 2 for a ConfigError, 1 for any other error that a user can mend, 130 after an interrupt (SIGINT),
        143 after SIGTERM. Each is one message on stderr; only bugs show a traceback.
    """

    def work() -> None:
        command = parse(sys.argv[1:] if argv is None else argv, description, sections, inputs, optional_inputs, flags)
        for warning in command.warnings:
            _say(f"warning: {warning}")
        run(command)

    return guarded(work)


def guarded(work: Callable[[], None]) -> int:
    """Do a script's work and return its exit code; see `run_script`."""
    signal.signal(signal.SIGTERM, _interrupt)
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    try:
        work()
    except Dcae15Error as error:
        _say(f"error: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        _say(f"{'terminated' if number == signal.SIGTERM else 'interrupted'}; the same command continues the work")
        return 128 + number
    return 0


def _interrupt(number: int, _frame: object) -> None:
    """Let a polite kill, as schedulers and Kubernetes send it, clean up as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def _say(message: str) -> None:
    print(redact(message).replace("\n", "\n  "), file=sys.stderr, flush=True)


def _parser(
    description: str,
    sections: Collection[str] | None,
    required: Mapping[str, str],
    optional: Mapping[str, str],
    flags: Mapping[str, str],
) -> argparse.ArgumentParser:
    width = max(60, shutil.get_terminal_size((100, 24)).columns - 2)
    words = " ".join(
        [*(f"{name}=URI" for name in required), *(f"[{name}=URI]" for name in optional), "[key=value ...]"]
    )
    own = "".join(f"[--{name}] " for name in flags)
    script = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(
        prog=script,
        usage=f"python pipelines/{script} [--config FILE]... [--print-config] [--dry-run] {own}{words}",
        description=description.strip(),
        epilog=_epilog(sections, required, optional, width),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML file or URI; later ones win"
    )
    parser.add_argument("--print-config", action="store_true", help="print every value and its origin, then stop")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, then stop")
    for name, meaning in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    parser.add_argument("words", nargs="*", metavar="key=value", help="configuration fields, listed below")
    return parser


def _epilog(
    sections: Collection[str] | None, required: Mapping[str, str], optional: Mapping[str, str], width: int
) -> str:
    lines = []
    for title, group in (("inputs", required), ("optional inputs", optional)):
        if group:
            lines += [f"{title}:"]
            lines += [
                textwrap.fill(f"{name}=URI  {meaning}", width, initial_indent="  ", subsequent_indent=" " * 6)
                for name, meaning in group.items()
            ]
            lines += [""]
    return "\n".join([*lines, "configuration:", "", fields_help(sections, width)])


def _split(words: Sequence[str], inputs: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    given: dict[str, str] = {}
    overrides: list[str] = []
    top_level = {f.name for f in dataclasses.fields(Config)}
    for word in words:
        name, equals, uri = word.partition("=")
        if equals and name in inputs:
            if not uri:
                raise ConfigError(f"the input '{name}' is empty: {inputs[name]}; give {name}=URI")
            given[name] = uri
        elif equals and name not in top_level and "." not in name and (hint := nearest(name, inputs)):
            raise ConfigError(f"'{name}' is neither an input nor a configuration field{hint}")
        else:
            overrides.append(word)
    return given, overrides


def _file_layer(uri: str) -> Layer:
    try:
        text = storage.read_bytes(uri).decode()
    except StorageError as error:
        raise ConfigError(f"--config {uri} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {uri} is not a text file") from error
    return from_yaml(text, redact(uri))


def _unread(overrides: Layer, sections: Collection[str] | None) -> list[str]:
    """Warn about fields on the command line that this script does not read; in files they are for other scripts."""
    if sections is None:
        return []
    outside = [path for path in overrides.values if "." in path and path.split(".")[0] not in sections]
    return [f"{path} has no effect in this script" for path in outside]
