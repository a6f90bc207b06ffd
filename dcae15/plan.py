"""The plan of a pipeline: its steps, what names each result, and which are there already. Pure arithmetic: no Ray, no data.

A fingerprint covers the configuration fields that are active and can change a result, and the fingerprints of the inputs. So a
step that ran with the same ones is reused, whoever ran it, and a sweep shares what its trials have in common.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dcae15 import artifacts, storage
from dcae15.config import ARMS, Config, autoencoder_spec, fingerprint, with_arm
from dcae15.config.arms import STRUCTURED
from dcae15.errors import ArtifactError, command
from dcae15.stages import FOREIGN, STAGES
from dcae15.stages.base import Output, Stage, View


@dataclass(frozen=True)
class Step:
    """A stage in a plan; one that is run for each arm has a step for each."""

    name: str  # of the stage, or of the arm's run of it: ``train_autoencoder``, ``train_baseline``
    stage: Stage  # what it does
    role: str  # what others call its result
    view: View  # what it is planned by
    output: Output  # where the result is, or will be, and what names it
    inputs: Mapping[str, str] = field(default_factory=dict)  # URIs of the artifacts that it reads, by role
    facts: Mapping[str, str] = field(default_factory=dict)  # what ``--dry-run`` prints
    arm: str = ""  # the arm that it belongs to; empty where there are no arms

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return artifacts.finished(self.output.uri)

    @property
    def notes(self) -> list[str]:
        """What the user should know before it runs; nothing where it ran."""
        return [] if self.done else list(self.stage.notes(self.view, self.inputs))

    @property
    def line(self) -> str:
        """The step in one line: reused or to run, fingerprint, URI."""
        state = "reused" if self.done else "to run"
        return f"{self.name:<18} {state:<7} {self.output.fingerprint}  {self.output.uri}"


@dataclass(frozen=True)
class Plan:
    """The steps of a pipeline in order, and why stages have none, by name."""

    steps: Sequence[Step]
    left_out: Mapping[str, str]


def plan(config: Config, given: Mapping[str, str] | None = None, absent: Collection[str] = ()) -> Plan:
    """Return the plan of the whole pipeline.

    Args:
        config: the configuration.
        given: URIs of artifacts to use instead of those that this configuration would make, by role (``images``,
            ``autoencoder``, ``latents``, ``denoiser``, ``samples``, or an arm's name); their stages are left out. An
            autoencoder may also be foreign weights (a file or folder); then a step that imports them comes first.
        absent: optional roles to do without.

    Raises:
        ArtifactError: there is nothing at a given URI, or something of another kind.
    """
    initial = {"initial": storage.expanded(config.autoencoder.initial)} if config.autoencoder.initial else {}
    planner = _Planner(View(config, {**initial, **(given or {})}))
    planner.take_given()
    for stage in STAGES:
        arms = config.trained_arms if stage.per_arm else [""]
        for arm in arms:
            planner.add(stage, arm, absent)
    return Plan(planner.steps, planner.left_out)


class _Planner:
    def __init__(self, view: View) -> None:
        self.view = view
        self.steps: list[Step] = []
        self.left_out: dict[str, str] = {}
        self.known: dict[str, tuple[str, str]] = {}

    def take_given(self) -> None:
        """Note what is given; plan the import of autoencoders that are no artifacts, which are named by their content."""
        config = self.view.config
        autoencoders = {"initial", *(_role(stage, arm) for stage in STAGES if stage.per_arm for arm in ARMS)}
        for role, uri in self.view.given.items():
            if role not in autoencoders:
                self.known[role] = (uri, _fingerprint_of(role, uri))
                continue
            from dcae15.export.foreign_weights import given_autoencoder  # which imports torch

            found = given_autoencoder(uri, autoencoder_spec(config.autoencoder), config.autoencoder.preset)
            if not found.foreign:
                self.known[role] = (uri, found.digest)
                continue
            self.known["weights"] = (found.uri, found.digest)
            latent = f"{found.spec.latent_channels} channels, f{found.spec.spatial_compression}"
            facts = {"latent": latent, **({"weights": found.taken} if found.taken else {})}
            self._plan(FOREIGN, f"import_{role}", role, self.view, found.facts, facts)
            if role == "autoencoder":
                self.view = replace(self.view, foreign=found.spec)

    def add(self, stage: Stage, arm: str, absent: Collection[str]) -> None:
        """Plan a stage unless its result was given."""
        role = _role(stage, arm)
        name = stage.name if arm in ("", STRUCTURED) else f"{stage.name.partition('_')[0]}_{arm}"
        config = self.view.config
        changed = config.changed(autoencoder=with_arm(config.autoencoder, arm)) if arm else config
        view = replace(self.view, config=changed)
        if role in self.known:
            return
        if why := stage.active(view):
            self.left_out[stage.name] = why
            return
        self._plan(stage, name, role, view, stage.identity(view), stage.facts(view), arm, absent)

    def _plan(
        self,
        stage: Stage,
        name: str,
        role: str,
        view: View,
        identity: Mapping[str, object],
        facts: Mapping[str, str],
        arm: str = "",
        absent: Collection[str] = (),
    ) -> None:
        roles = [*stage.reads, *(role for role in stage.optional if role not in absent)]
        inputs = {role: self.known[role] for role in roles if role in self.known}
        named = fingerprint(
            stage.makes.KIND, {**identity, "inputs": {role: print_ for role, (_, print_) in inputs.items()}}
        )
        uri = storage.join(view.config.storage, stage.makes.KIND, named)
        reads = {role: uri for role, (uri, _) in inputs.items()}
        self.steps.append(Step(name, stage, role, view, Output(uri, named), reads, facts, arm))
        self.known[role] = (uri, named)


def _fingerprint_of(role: str, uri: str) -> str:
    """Return what names a given artifact; raise ArtifactError when it is of another kind than its role."""
    stage = next(stage for stage in STAGES if stage.role == role)
    artifact = stage.makes.open(uri)
    if isinstance(artifact, artifacts.ImageSet) and stage.split not in artifact.splits:
        raise ArtifactError(
            f"{role}={uri} is an image set with {' and '.join(artifact.splits)} images, but one with '{stage.split}' images is "
            f"needed, as {command(stage.name)} makes it"
        )
    return artifact.fingerprint


def _role(stage: Stage, arm: str) -> str:
    return stage.role if arm in ("", STRUCTURED) else arm


def describe(steps: Sequence[Step], config: Config) -> str:
    """Return steps as text: each reused or to run, fingerprint, inputs, images, bytes; and what will be left out."""
    lines = [f"storage: {config.storage}"]
    for step in steps:
        lines.append(step.line)
        lines += [f"{'':<18}   reads {role}: {uri}" for role, uri in step.inputs.items()]
        lines += [f"{'':<18}   {name}: {value}" for name, value in step.facts.items()]
        lines += [f"{'':<18}   note: {note}" for note in step.notes]
    return "\n".join(lines)


def require_inputs(steps: Sequence[Step], everything: Plan, given: Mapping[str, str]) -> None:
    """Raise ArtifactError when something that steps read is not there and none of them makes it; name the script that does."""
    makers = {step.output.uri: step for step in everything.steps}
    made = {step.output.uri for step in steps}
    for step in steps:
        for role, uri in step.inputs.items():
            if uri in makers and uri not in made and not artifacts.finished(uri):
                without = f" (without {' and '.join(f'{name}=URI' for name in given)})" if given else ""
                raise ArtifactError(
                    f"{step.name} needs {role} at {uri}, which is not there; run `{command(makers[uri].stage.name)}` "
                    f"with the same configuration{without} first, or pass {role}=URI"
                )
