"""What users can do wrong: each error says what is wrong, where, and how to mend it."""

import difflib
import sys
from collections.abc import Collection
from pathlib import PurePath


class Dcae15Error(Exception):
    """Base class of every error that a user can mend; the command line prints it without a traceback."""


class ConfigError(Dcae15Error):
    """A configuration field is unknown, has a wrong value, or contradicts another field."""


class InvalidConfigError(ConfigError):
    """Fields that can be read are out of range or contradict each other: a sweep may leave such a combination out."""


class DataError(Dcae15Error):
    """A source, an image set or a latent set is missing, damaged, or holds too many bad items."""


class ArtifactError(Dcae15Error):
    """An artifact is missing, unfinished, damaged, of another kind, or does not fit the one beside it."""


class StorageError(Dcae15Error):
    """A URI cannot be read or written: wrong credentials, missing bucket, no such file, no permission."""


class WeightsError(Dcae15Error):
    """A weights file is truncated, foreign, or does not fit the model that should load it."""


class TrainingError(Dcae15Error):
    """Training cannot go on: the loss or the gradient is not finite, or workers were lost too often."""


def nearest(word: str, words: Collection[str]) -> str:
    """Return a hint such as ``; did you mean 'cosine'?``, or nothing when no word comes near."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def command(name: str) -> str:
    """Return how a user calls a command, after the way this process was called: by ``dcae15``, or by its script."""
    installed = PurePath(sys.argv[0]).stem == "dcae15"
    return f"dcae15 {name}" if installed else f"python pipelines/{name}.py"
