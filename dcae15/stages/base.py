"""What a stage is. A new stage is one file with a `Stage`, and one row in `dcae15.stages.STAGES`.

Stage files import what computes (torch, Ray's workers) only where they run, so that plans and ``--help`` are quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """What a stage is planned by.

    Attributes:
        config: the configuration, of the stage's arm.
        given: URIs of artifacts that are used instead of those that the configuration would make, by role.
        foreign: the graph of the given autoencoder where it is one of other people's.
    """

    config: Config
    given: Mapping[str, str] = field(default_factory=dict)
    foreign: AutoencoderSpec | None = None

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
    """What a stage runs with.

    Attributes:
        config: the configuration, of the stage's arm.
        cluster: its verbs run things elsewhere.
        tracker: the tracked run of the stage.
        on_row: takes a row of quality over training, as soon as it is measured.
        reached: tells those that measure along a training that a milestone (images seen) is there; None when nobody does.
    """

    config: Config
    cluster: Cluster
    tracker: TrackerSpec
    on_row: Callable[[Row], None] = lambda row: None
    reached: Callable[[int], None] | None = None


Run = Callable[[Context, Mapping[str, str], Output], None]


@dataclass(frozen=True)
class Variant:
    """Something else that a stage's script does when it is asked to with ``--name``.

    Attributes:
        meaning: for ``--help``.
        run: takes the configuration, the given artifacts, whether it is a dry run, and what finds the artifact of a role (given,
            or made by this configuration); returns what to print.
        inputs: artifacts that only this variant takes: name and meaning.
    """

    meaning: str
    run: Callable[[Config, Mapping[str, str], bool, Callable[[str], str]], str]
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Everything about a stage.

    Attributes:
        name: of the stage and its script.
        about: what it does, for ``--help``.
        role: what later stages call its result.
        makes: the kind of artifact that it leaves.
        reads: roles of the artifacts that it reads.
        run: makes the artifact from those that it reads, by role.
        identity: returns the values of the configuration that can change the result.
        facts: returns what ``--dry-run`` prints: images, bytes, lengths.
        active: returns why there is nothing to do, or nothing.
        ready: raises ConfigError now for what would stop the stage late.
        optional: roles that it reads where they are there.
        per_arm: whether it runs once for each arm; then ``role`` is that of the structured one, and others are called by their arm.
        history: the figure of its training curves in the report; empty without any.
        along: role of a training that it measures at milestones while that goes on, with `at_milestone`.
        at_milestone: measures one milestone: takes the context, the artifacts read, the output, and the images seen.
        curve: returns the rows of quality over training of a finished artifact.
        sections: top-level sections of the configuration that its script reads; None means all.
        inputs: artifacts that its script takes: role and meaning.
        variants: see `Variant`.
    """

    name: str
    about: str
    role: str
    makes: type[artifacts.Artifact]
    reads: tuple[str, ...]
    run: Run
    identity: Callable[[View], dict[str, Any]]
    facts: Callable[[View], dict[str, str]]
    active: Callable[[View], str] = lambda view: ""
    ready: Callable[[View], None] = lambda view: None
    optional: tuple[str, ...] = ()
    per_arm: bool = False
    history: str = ""
    along: str = ""
    at_milestone: Callable[[Context, Mapping[str, str], Output, int], None] | None = None
    curve: Callable[[str], Sequence[Row]] = lambda uri: ()
    sections: tuple[str, ...] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)


def needs_diffusion(view: View) -> str:
    """Return why the stages of diffusion have nothing to do, or nothing."""
    return "" if view.config.diffusion.enabled else "diffusion.enabled is false; set it to true"
