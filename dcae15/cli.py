"""The command line: ``dcae15 full``, a command for each stage, ``sweep`` and ``export``; `pipelines/` has a script for each.

Options, YAML files, ``key=value`` words, help, errors without traceback.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dcae15 import storage
from dcae15.cluster.machine import set_spin
from dcae15.config import Config, Layer, build, check, dump, fields_help, from_overrides, from_yaml, warnings_for
from dcae15.errors import ConfigError, Dcae15Error, StorageError, nearest
from dcae15.errors import command as called
from dcae15.redaction import redact
from dcae15.stages import STAGES
from dcae15.stages.base import Stage


@dataclass(frozen=True)
class Asked:
    """What a command was asked to do."""

    config: Config  # all values, resolved and checked
    inputs: Mapping[str, str]  # name of an artifact -> its URI, as given by ``name=URI``
    dry_run: bool  # only say what would be done
    flags: frozenset[str] = frozenset()  # the command's own options that were given, without their dashes


@dataclass(frozen=True)
class Command:
    """A command."""

    name: str  # of the command, and of its script
    about: str  # what it does; the first line is its summary
    run: Callable[[Asked], None]  # does it
    # top-level config sections that it reads; None means all. Help shows only these, rules between fields are checked only among
    # these, and an override elsewhere is warned about
    sections: tuple[str, ...] | None = None
    # name -> meaning of each ``name=WORD`` that it needs. One may bear a section's name: ``autoencoder=URI`` is the input,
    # ``autoencoder.flip=false`` a field
    required: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)  # the same, of those that may be left out
    flags: Mapping[str, str] = field(default_factory=dict)  # name -> meaning of its own options


def _full(asked: Asked) -> None:
    from dcae15 import pipeline

    print(pipeline.dry_run(asked.config) if asked.dry_run else f"report: {pipeline.run_pipeline(asked.config)}")


def _export(asked: Asked) -> None:
    from dcae15 import artifacts, pipeline
    from dcae15.export.publish import FORMATS, export_folder
    from dcae15.library import load_autoencoder

    inputs = asked.inputs
    to, layout = storage.resolve(inputs["to"]), inputs.get("format", FORMATS[0])
    if asked.dry_run:
        print(f"would export {inputs.get('autoencoder', 'the autoencoder of this configuration')} to {to} ({layout})")
        return
    given = {name: inputs[name] for name in ("autoencoder",) if name in inputs}
    artifact = artifacts.Autoencoder.open(pipeline.find(asked.config, "autoencoder", given))
    latents = artifacts.LatentSet.open(inputs["latents"]) if "latents" in inputs else None
    weights = load_autoencoder(artifact.uri).state_dict()
    export_folder(weights, artifact, to, latents=latents, layout=layout, license=inputs.get("license", "unknown"))
    print(f"exported: {to} ({layout}) from {artifact.uri}")


FULL = Command(
    "full",
    "Run the whole pipeline, from images to the report.\n\n"
    "Stages: prepare images, train the autoencoder and its controls, cache latents, train the denoiser, sample, evaluate.\n"
    "Finished stages are reused; the same command continues an interrupted run.",
    _full,
)
EXPORT = Command(
    "export",
    "Write an autoencoder as a folder for others: for diffusers' AutoencoderDC, or in the official layout.\n\n"
    "The folder has the weights, config.json, a model card (README.md) and, with latents=URI, the statistics of the latents.",
    _export,
    sections=("data", "autoencoder"),
    required={"to": "folder to write"},
    optional={
        "autoencoder": "autoencoder, or a folder or file with foreign weights; default: the one that train_autoencoder makes",
        "latents": "latent set that it made: gives scaling_factor and latent_statistics.json",
        "format": "'diffusers' (the default) or 'official'",
        "license": "licence of the weights, for the model card (apache-2.0, mit, other, ...); default: unknown",
    },
)


def _of_stage(stage: Stage) -> Command:
    def run(asked: Asked) -> None:
        from dcae15 import pipeline

        chosen = next((v for name, v in stage.variants.items() if name in asked.flags), None)
        for name, variant in stage.variants.items():
            if variant is not chosen and (extra := set(variant.inputs) & set(asked.inputs)):
                raise ConfigError(f"{extra.pop()}=URI is for --{name}; leave it out, or add --{name}")
        if chosen is not None:
            find = functools.partial(pipeline.find, asked.config, given=asked.inputs)
            print(chosen.run(asked.config, asked.inputs, asked.dry_run, find))
        elif asked.dry_run:
            print(pipeline.dry_run(asked.config, stage, asked.inputs))
        else:
            pipeline.run_stage(asked.config, stage, asked.inputs)

    optional = {**stage.inputs}
    for variant in stage.variants.values():
        optional |= variant.inputs
    flags = {name: variant.meaning for name, variant in stage.variants.items()}
    return Command(stage.name, stage.about, run, stage.sections, optional=optional, flags=flags)


COMMANDS = {command.name: command for command in (FULL, *map(_of_stage, STAGES), EXPORT)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dcae15 COMMAND ...``; return its exit code, see `run_guarded`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in (*COMMANDS, "sweep"):
        return script(words[0], words[1:])
    width = max(map(len, COMMANDS)) + 2
    about = {name: command.about.splitlines()[0] for name, command in COMMANDS.items()}
    about["sweep"] = "Run many pipelines that differ in some fields, and compare them."
    lines = [
        textwrap.fill(
            meaning, _terminal_width(), initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2)
        )
        for name, meaning in about.items()
    ]
    text = "\n".join(["usage: dcae15 COMMAND [--help] ...", "", "commands:", *lines])
    if not words or words[0] in ("-h", "--help"):
        print(text)
        return 0 if words else 2
    _show(f"error: there is no command '{words[0]}'{nearest(words[0], [*COMMANDS, 'sweep'])}\n{text}")
    return 2


def script(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a command by name with the words of the command line; return its exit code, see `run_guarded`."""
    words = list(sys.argv[1:] if argv is None else argv)
    if name == "sweep":
        from dcae15.sweep.command import run_sweep_command

        return run_guarded(lambda: run_sweep_command(words))
    command = COMMANDS[name]

    def work() -> None:
        asked, warnings = parse(command, words)
        for warning in warnings:
            _show(f"warning: {warning}")
        command.run(asked)

    return run_guarded(work)


def parse(command: Command, argv: Sequence[str]) -> tuple[Asked, list[str]]:
    """Read a command line; print and exit for --help and --print-config.

    Returns:
        What was asked, and sentences that the user should read before the work starts.

    Raises:
        ConfigError: an unknown key, a wrong value, fields that contradict each other, a missing input or file.
        SystemExit: after --help (0), --print-config (0), or an unknown option (2).
    """
    options = _parser(command).parse_intermixed_args(argv)
    given, overrides = _split(options.words, {**command.required, **command.optional})
    layers = [_file_layer(uri) for uri in options.config]
    layers.append(from_overrides(overrides))
    unread = {"data"} if "images" in given else set()  # the images say where they came from
    sections = command.sections
    config, origins = build(layers, None if sections is None else set(sections) - unread)
    if options.print_config:
        print(dump(config, origins), end="")
    check(config, sections, given)
    if options.print_config:
        raise SystemExit(0)
    for name, meaning in command.required.items():
        if name not in given:
            raise ConfigError(f"the input '{name}' is missing: {meaning}; add {name}=URI")
    flags = frozenset(name for name in command.flags if getattr(options, name.replace("-", "_")))
    # In files such fields are for other commands.
    outside = [p for p in layers[-1].values if sections and "." in p and p.split(".")[0] not in sections]
    unused = [f"{path} has no effect in this script" for path in outside]
    return Asked(config, given, options.dry_run, flags), [*warnings_for(config), *unused]


def run_guarded(work: Callable[[], None]) -> int:
    """Do a command's work.

    Returns:
        0 after success, 2 for a ConfigError, 1 for any other error that a user can mend, 130 after an interrupt (SIGINT),
        143 after SIGTERM. Each is one message on stderr; only bugs show a traceback.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    set_spin()
    try:
        work()
    except Dcae15Error as error:
        _show(f"error: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        _show(f"{'terminated' if number == signal.SIGTERM else 'interrupted'}; the same command continues the work")
        return 128 + number
    return 0


def _interrupt(number: int, _frame: object) -> None:
    """Let a polite kill, as schedulers and Kubernetes send it, clean up as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def _show(message: str) -> None:
    print(redact(message).replace("\n", "\n  "), file=sys.stderr, flush=True)


def _terminal_width() -> int:
    return max(60, shutil.get_terminal_size((100, 24)).columns - 2)


def _parser(command: Command) -> argparse.ArgumentParser:
    width = _terminal_width()
    words = [*(f"{name}=URI" for name in command.required), *(f"[{name}=URI]" for name in command.optional)]
    own = "".join(f"[--{name}] " for name in command.flags)
    usage = f"{called(command.name)} [--config FILE]... [--print-config] [--dry-run] {own}"
    parser = argparse.ArgumentParser(
        prog=f"{command.name}.py",
        usage=" ".join([usage.strip(), *words, "[key=value ...]"]),
        description=command.about,
        epilog=_epilog(command, width),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    config_help = "YAML file or URI; later ones win"
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help=config_help)
    parser.add_argument("--print-config", action="store_true", help="print every value and its origin, then stop")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, then stop")
    for name, meaning in command.flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    parser.add_argument("words", nargs="*", metavar="key=value", help="configuration fields, listed below")
    return parser


def _epilog(command: Command, width: int) -> str:
    lines = []
    for title, group in (("inputs", command.required), ("optional inputs", command.optional)):
        if group:
            wrapped = (
                textwrap.fill(f"{name}=URI  {meaning}", width, initial_indent="  ", subsequent_indent=" " * 6)
                for name, meaning in group.items()
            )
            lines += [f"{title}:", *wrapped, ""]
    return "\n".join([*lines, "configuration:", "", fields_help(command.sections, width)])


def _split(words: Sequence[str], inputs: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    given: dict[str, str] = {}
    overrides: list[str] = []
    for word in words:
        name, equals, uri = word.partition("=")
        if equals and name in inputs:
            if not uri:
                raise ConfigError(f"the input '{name}' is empty: {inputs[name]}; give {name}=URI")
            given[name] = storage.expanded(uri)
        elif equals and name not in Config.model_fields and "." not in name and (hint := nearest(name, inputs)):
            raise ConfigError(f"'{name}' is neither an input nor a configuration field{hint}")
        else:
            overrides.append(word)
    return given, overrides


def _file_layer(uri: str) -> Layer:
    try:
        return from_yaml(storage.read_bytes(storage.expanded(uri)).decode(), redact(uri))
    except StorageError as error:
        raise ConfigError(f"--config {uri} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {uri} is not a text file") from error
