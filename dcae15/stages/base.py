"""What a stage is. A new stage is one file with a `Stage`, and one row in `dcae15.stages.STAGES`.

Stage files import what computes (torch, Ray's workers) only where they run, so that plans and ``--help`` are quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dcae15 import artifacts
from dcae15.config import Config, autoencoder_spec
from dcae15.models.spec import AutoencoderSpec
from dcae15.tracking import TrackerSpec

if TYPE_CHECKING:
    from dcae15.cluster import Cluster

Row = dict[str, float]


@dataclass(frozen=True)
class View:
    """What a stage is planned by."""

    config: Config  # the configuration, of the stage's arm
    # URIs of artifacts that are used instead of those that the configuration would make, by role
    given: Mapping[str, str] = field(default_factory=dict)
    foreign: AutoencoderSpec | None = None  # the graph of the given autoencoder where it is one of other people's

    @property
    def graph(self) -> AutoencoderSpec:
        """The graph of the autoencoder: that of the given one, else the configured one."""
        uri = self.given.get("autoencoder", "")
        if self.foreign is None and uri and artifacts.finished(uri):
            return AutoencoderSpec.from_dict(artifacts.Autoencoder.open(uri).spec)
        return self.foreign or autoencoder_spec(self.config.autoencoder)

    @property
    def resolution(self) -> int:
        """The side of the prepared images, as given ones say themselves."""
        uri = self.given.get("images", "")
        return artifacts.ImageSet.open(uri).resolution if uri else self.config.data.resolution


@dataclass(frozen=True)
class Output:
    """Where a stage leaves its artifact, and what names it."""

    uri: str
    fingerprint: str


@dataclass(frozen=True)
class Context:
    """What a stage runs with."""

    config: Config  # the configuration, of the stage's arm
    cluster: Cluster  # its verbs run things elsewhere
    tracker: TrackerSpec  # the tracked run of the stage
    on_row: Callable[[Row], None] = lambda row: None  # takes a row of quality over training, as soon as it is measured
    # tells those that measure along a training that a milestone (images seen) is there; None when nobody does
    reached: Callable[[int], None] | None = None


Run = Callable[[Context, Mapping[str, str], Output], None]


@dataclass(frozen=True)
class Variant:
    """Something else that a stage's script does when it is asked to with ``--name``."""

    meaning: str  # for ``--help``
    # takes the configuration, the given artifacts, whether it is a dry run, and what finds the artifact of a role (given, or made
    # by this configuration); returns what to print
    run: Callable[[Config, Mapping[str, str], bool, Callable[[str], str]], str]
    inputs: Mapping[str, str] = field(default_factory=dict)  # artifacts that only this variant takes: name and meaning


@dataclass(frozen=True)
class Stage:
    """Everything about a stage."""

    name: str  # of the stage and its script
    about: str  # what it does, for ``--help``
    role: str  # what later stages call its result
    makes: type[artifacts.Artifact]  # the kind of artifact that it leaves
    reads: tuple[str, ...]  # roles of the artifacts that it reads
    run: Run  # makes the artifact from those that it reads, by role
    identity: Callable[[View], dict[str, Any]]  # returns the values of the configuration that can change the result
    facts: Callable[[View], dict[str, str]]  # returns what ``--dry-run`` prints: images, bytes, lengths
    active: Callable[[View], str] = lambda view: ""  # returns why there is nothing to do, or nothing
    ready: Callable[[View], None] = lambda view: None  # raises ConfigError now for what would stop the stage late
    # returns what the user should know now of what the stage will leave out; takes the URIs of what it reads, by role, too
    notes: Callable[[View, Mapping[str, str]], Iterable[str]] = lambda view, inputs: ()
    split: str = ""  # the split that tells an image set of this stage from others
    optional: tuple[str, ...] = ()  # roles that it reads where they are there
    # whether it runs once for each arm; then ``role`` is that of the structured one, and others are called by their arm
    per_arm: bool = False
    history: str = ""  # the figure of its training curves in the report; empty without any
    along: str = ""  # role of a training that it measures at milestones while that goes on, with `at_milestone`
    # measures one milestone: takes the context, the artifacts read, the output, and the images seen
    at_milestone: Callable[[Context, Mapping[str, str], Output, int], None] | None = None
    # returns the rows of quality over training of a finished artifact
    curve: Callable[[str], Sequence[Row]] = lambda uri: ()
    # top-level sections of the configuration that its script reads; None means all
    sections: tuple[str, ...] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)  # artifacts that its script takes: role and meaning
    variants: Mapping[str, Variant] = field(default_factory=dict)  # see `Variant`


def needs_diffusion(view: View) -> str:
    """Return why the stages of diffusion have nothing to do, or nothing."""
    return "" if view.config.diffusion.enabled else "diffusion.enabled is false; set it to true"
