"""The command line of ``pipelines/sweep.py``: which sweep, at which scale, with which fields changed."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dcae15.errors import ConfigError, command, nearest
from dcae15.sweep.file import Sweep
from dcae15.sweep.reading import read_text, sweep_from_yaml

CONFIGS = Path(__file__).parents[2] / "pipelines" / "configs"
"""Where the sweeps and studies of a checkout are; an installed package takes files."""
FOLDERS = ("studies", "sweeps")
"""Below the folder of configurations; both hold sweeps, and studies ask a question."""
OWN = ("seeds", "trials", "concurrent", "cpus_per_trial", "gpus_per_trial")
"""Keys of a sweep's file that the command line may set."""


class SweepCommand(NamedTuple):
    """What the command line asks for; ``open`` opens another sweep at the same scale, by name or file."""

    sweep: Sweep
    overrides: tuple[str, ...]
    dry_run: bool
    open: Callable[[str], Sweep]


ABOUT = """Run many pipelines that differ in some fields, and compare them: a sweep, or one of the studies.

Trials share what they have in common: two with the same autoencoder train it once. An interrupted sweep is continued by the
same command; trials that failed are tried again."""


def run_sweep_command(argv: Sequence[str]) -> None:
    """Run the sweep of a command line, or print its plan."""
    asked = parse(argv, ABOUT, CONFIGS)
    from dcae15.sweep.run import dry_run, run_sweep  # which load torch and Ray

    arguments = asked.sweep, asked.overrides, asked.open
    print(dry_run(*arguments) if asked.dry_run else f"report: {run_sweep(*arguments)}")


def parse(argv: Sequence[str], description: str, folder: Path) -> SweepCommand:
    """Read a command line.

    Raises:
        ConfigError: no or several sweeps are named, there is no such sweep, or its file cannot work.
        SystemExit: after --help (0) or an unknown option (2).
    """
    epilog = _epilog(folder) if {"-h", "--help"} & set(argv) else ""  # it opens every sweep
    options = _parser(description, epilog).parse_intermixed_args(argv)
    if bool(options.study) == bool(options.sweep):
        raise ConfigError(f"name one sweep: --study NAME with {', '.join(_names(folder))}, or --sweep FILE")
    own: dict[str, Any] = {}
    for name, _, text in (word.partition("=") for word in options.words):
        if name in OWN:
            own[name] = text
            with suppress(ValueError):
                own[name] = json.loads(text)
    overrides = tuple(word for word in options.words if word.partition("=")[0] not in OWN)
    opened = partial(open_sweep, folder=folder, scale=options.scale, own=own)
    return SweepCommand(opened(options.study or options.sweep), overrides, options.dry_run, opened)


def open_sweep(name: str, folder: Path, scale: str = "", own: Mapping[str, Any] | None = None) -> Sweep:
    """Return the sweep of a name, or of a YAML file.

    Names are those of files below ``folder``, see `FOLDERS`; ``own`` has keys of `OWN` that take the place of the file's.

    Raises:
        ConfigError: there is none, or its file cannot work.
    """
    known = _names(folder)
    uri = str(known.get(name, name))
    if name not in known and not name.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"there is no sweep '{name}'{nearest(name, known)}; there are {', '.join(known)}, or name a .yaml file"
        )
    return sweep_from_yaml(read_text(uri), uri, scale, own)


def _names(folder: Path) -> dict[str, Path]:
    here = Path.cwd()  # paths relative to it are the same for whoever reads a trial's command
    folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return {path.stem: path for part in FOLDERS for path in sorted((folder / part).glob("*.yaml"))}


def _parser(description: str, epilog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sweep.py",
        usage=f"{command('sweep')} (--study NAME | --sweep FILE) [--scale NAME] [--dry-run] [key=value ...]",
        description=description.strip(),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--study", metavar="NAME", default="", help="one of the studies below")
    parser.add_argument(
        "--sweep", metavar="FILE", default="", help="YAML file or URI of a sweep; docs/sweeps.md describes it"
    )
    parser.add_argument("--scale", metavar="NAME", default="", help="size of the study, such as laptop or imagenet")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the trials and the stages that they share, then stop"
    )
    meaning = f"fields of all trials, which `{command('full')} --help` lists, or {', '.join(OWN)} of the sweep"
    parser.add_argument("words", nargs="*", metavar="key=value", help=meaning)
    return parser


def _epilog(folder: Path) -> str:
    width = max(60, shutil.get_terminal_size((100, 24)).columns - 2)
    lines = ["studies and sweeps:"]
    for name in _names(folder):
        text = f"{name}  {_purpose(name, folder)}"
        lines.append(textwrap.fill(text, width, initial_indent="  ", subsequent_indent=" " * 6))
    return "\n".join(lines)


def _purpose(name: str, folder: Path) -> str:
    try:
        sweep = open_sweep(name, folder)
    except ConfigError as error:  # one broken file must not hide the others
        return f"cannot be started: {error}"
    return sweep.question or f"{sweep.search} search by {sweep.metric}"
