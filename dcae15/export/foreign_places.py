"""Where foreign weights are: in a file, in shards with an index, in a folder of diffusers or of others, in a pipeline's folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from dcae15 import storage
from dcae15.errors import ArtifactError, StorageError

CONFIG, PIPELINE = "config.json", "model_index.json"
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # of diffusers; of the official folders; of old ones
EXPECTED = "diffusion_pytorch_model.safetensors (diffusers) or model.safetensors (official)"
"""What a folder of weights should hold, for messages."""
_PRECISIONS = ("fp32", "bf16", "fp16")  # variants that hold the same weights, the most exact first
_INDEX = re.compile(r"(.+)\.(safetensors|bin)\.index(?:\.([\w-]+))?\.json")
_WEIGHTS = re.compile(r"(.+)\.(safetensors|bin|pt|pth|ckpt)")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")
_NO_NETWORK = re.compile(
    r"(optim\w*|scheduler|scaler|random_states?|rng|training_args|discriminator|critic|sampler)[\w.-]*"
)
_OURS = re.compile(r"checkpoints/\d{12}\.pt\.json")  # an artifact of ours that is not finished
_SHOWN = 5


@dataclass(frozen=True)
class Place:
    """Foreign weights that were found."""

    given: str  # what the user gave, without the entry
    files: tuple[str, ...]  # URIs of the weights: one file, or shards
    folder: str = ""  # the folder whose config.json says the graph; empty for a bare file, and for a folder without one
    index: str = ""  # URI of the file that lists the shards, where there is one
    entry: str = ""  # what is asked for of several in a file, see `dcae15.weights.choice.choose`
    notes: tuple[str, ...] = ()  # what was taken where there was a choice, in sentences

    @property
    def weights(self) -> str:
        """The file, or what stands for the shards."""
        return self.files[0] if len(self.files) == 1 else self.index or self.given


@dataclass
class _Set:
    """Files of a folder that hold the same weights in one way."""

    stem: str
    form: str  # their suffix
    variant: str = ""
    index: str = ""
    files: list[str] = field(default_factory=list)

    @property
    def whole(self) -> str:
        """The file that holds all, if there is one."""
        return next((name for name in self.files if not _SHARD.search(name)), "")

    @property
    def shown(self) -> str:
        return self.whole or self.index or self.files[0]


def split(uri: str) -> tuple[str, str]:
    """Cut what a user gives into the place and the name of an entry: ``/weights/last.ckpt#ema``; names may have a # themselves."""
    place, mark, entry = uri.rpartition("#")
    if not mark or not place or "/" in entry or storage.exists(storage.resolve(uri)):
        return uri, ""
    return place, entry


def is_there(uri: str) -> bool:
    """Tell whether there is a file, or a folder that holds weights or says that it should; not for unfinished artifacts of ours."""
    names = _names(uri)
    if not names:
        return storage.exists(uri)
    if any(map(_OURS.match, names)):
        return False
    return bool({CONFIG, PIPELINE} & set(names)) or bool(_sets(names)) or bool(_inner(names))


def find(uri: str) -> Place:
    """Find the files of foreign weights; which ones, where there are several, is in the notes.

    Of a folder it takes, in this order: the files that the entry names as their variant; the unvaried ones of diffusers and of
    the official folders, safetensors before .bin; the most exact of fp32, bf16 and fp16, or the only other variant; the only other
    weights file. Of a pipeline's folder it takes ``vae``, of another one the only folder in it that has config.json and weights.

    Raises:
        ArtifactError: nothing is there.
        StorageError: the folder holds no weights, several that nothing tells apart, or not all shards; says what is there.
    """
    given, entry = split(uri)
    place = storage.resolve(given)
    above, _, name = place.rpartition("/")
    if name in (CONFIG, PIPELINE):
        place = above
    names = _names(place)
    if names:
        return replace(_in_folder(place, names, entry), given=place)
    if _INDEX.fullmatch(name):
        return Place(place, _indexed(above, name, _names(above)), index=place, entry=entry)
    if (shard := _SHARD.search(name)) and int(shard[2]) > 1:
        files = tuple(name.replace(shard[0], f"-{i + 1:05d}-of-{shard[2]}") for i in range(int(shard[2])))
        _require_all(above, files, _names(above), f"{name} says")
        note = f"{name} is one of {len(files)} shards; all were opened"
        return Place(place, tuple(storage.join(above, file) for file in files), entry=entry, notes=(note,))
    if not _WEIGHTS.fullmatch(name) and not storage.exists(place):
        raise ArtifactError(f"there is nothing at {place}; give a weights file, or a folder with {CONFIG} and weights")
    return Place(place, (place,), entry=entry)


def described(uri: str) -> str:
    """Say what lies in a folder in the place of weights."""
    names = _names(uri)
    inside = Counter(name.partition("/")[0] for name in names if "/" in name)
    shown = [name for name in names if "/" not in name] + [f"{name}/ ({count:,})" for name, count in inside.items()]
    return f"{len(names):,} file{'' if len(names) == 1 else 's'} ({_listed(shown)})"


def unfinished(uri: str) -> str:
    """Return the newest checkpoint in an unfinished artifact of ours; '' if it is none."""
    sides = sorted(name for name in _names(uri) if _OURS.fullmatch(name))
    return storage.join(uri, sides[-1].removesuffix(".json")) if sides else ""


def _names(folder: str) -> list[str]:
    """All files below a folder; none if it is a file or not there."""
    return [info.path for info in storage.list_files(folder)]


def _in_folder(folder: str, names: Sequence[str], entry: str) -> Place:
    inner, sets = _inner(names), _sets(names)
    if inner and (PIPELINE in names or not sets):
        if len(inner) > 1 and "vae" not in inner:
            raise StorageError(
                f"{folder} holds weights in {_listed([f'{name}/' for name in inner])}; give one of these folders"
            )
        name = "vae" if "vae" in inner else inner[0]
        within = [path.removeprefix(f"{name}/") for path in names if path.startswith(f"{name}/")]
        found = _in_folder(storage.join(folder, name), within, entry)
        return replace(found, notes=(f"opened {name}/ in it", *found.notes))
    chosen, notes = _chosen(folder, sets, entry)
    if chosen is None:
        raise StorageError(
            f"{folder} holds no weights: expected {EXPECTED} in it, sharded or in a variant such as .fp16, "
            f"or below it in vae/; it holds {described(folder)}"
        )
    if chosen.whole:
        files: tuple[str, ...] = (storage.join(folder, chosen.whole),)
    elif chosen.index:
        files = _indexed(folder, chosen.index, names)
    else:
        shard = _SHARD.search(chosen.files[0])
        assert shard is not None
        first, count = chosen.files[0], int(shard[2])
        shards = [first.replace(shard[0], f"-{i + 1:05d}-of-{shard[2]}") for i in range(count)]
        _require_all(folder, shards, names, f"{first} says")
        files = tuple(storage.join(folder, name) for name in shards)
    return Place(
        folder,
        files,
        folder if CONFIG in names else "",
        storage.join(folder, chosen.index) if chosen.index and not chosen.whole else "",
        "" if entry and entry == chosen.variant else entry,
        notes,
    )


def _sets(names: Sequence[str]) -> list[_Set]:
    """What may hold weights right in a folder."""
    found: dict[tuple[str, str, str], _Set] = {}
    for name in names:
        if "/" in name or _NO_NETWORK.search(name):
            continue
        if index := _INDEX.fullmatch(name):
            stem, form, variant = index[1], index[2], index[3] or ""
        elif weights := _WEIGHTS.fullmatch(name):
            form, rest = weights[2], _SHARD.sub("", weights[1])
            stem = next((s for s in _STEMS if rest == s or rest.startswith(s + ".")), rest)
            variant = rest.removeprefix(stem).removeprefix(".")
        else:
            continue
        one = found.setdefault((stem, form, variant), _Set(stem, form, variant))
        if index:
            one.index = name
        else:
            one.files.append(name)
    return list(found.values())


def _inner(names: Sequence[str]) -> list[str]:
    """The folders below that have config.json and weights."""
    folders = sorted({name.rpartition("/")[0] for name in names if name.endswith(f"/{CONFIG}")})
    return [
        folder
        for folder in folders
        if _sets([name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")])
    ]


def _chosen(folder: str, sets: list[_Set], entry: str) -> tuple[_Set | None, tuple[str, ...]]:
    """Return which files to take, and what else could have been taken."""
    usual = [one for one in sets if one.stem in _STEMS]
    usual.sort(key=lambda one: (one.form != "safetensors", _STEMS.index(one.stem), one.form))
    others = [one for one in sets if one.stem not in _STEMS]
    if asked := [one for one in usual if one.variant and one.variant == entry]:
        return asked[0], ()
    plain = [one for one in usual if not one.variant]
    exact = sorted((one for one in usual if one.variant in _PRECISIONS), key=lambda one: _PRECISIONS.index(one.variant))
    pool = plain or exact or usual or others
    if not pool:
        return None, ()
    if not plain and not exact and len({(one.stem, one.variant) for one in pool}) > 1:
        raise StorageError(
            f"{folder} holds several weights: {_listed([one.shown for one in pool])}; give the path of one of these files"
        )
    first = pool[0]
    beside = [one.shown for one in (*usual, *others) if one is not first]
    if first.variant or others or any(one.variant not in ("", *_PRECISIONS) for one in usual):
        left = f"; not read: {_listed(beside)}" if beside else ", the only weights in it"
        return first, (f"took {first.shown}{left}",)
    return first, ()


def _indexed(folder: str, index: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the shards that an index names."""
    uri = storage.join(folder, index)
    content = storage.read_json(uri)
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise StorageError(f"{uri} is no index of shards: it has no 'weight_map' from names of tensors to files")
    shards = sorted(set(listed.values()))
    _require_all(folder, shards, names, f"{index} names")
    return tuple(storage.join(folder, shard) for shard in shards)


def _require_all(folder: str, shards: Sequence[str], names: Sequence[str], who: str) -> None:
    present = set(names)
    if missing := [shard for shard in shards if shard not in present]:
        raise StorageError(
            f"{who} {len(shards)} shard{'' if len(shards) == 1 else 's'}, of which {_listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not in {folder}; "
            "fetch what is missing"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def pieces(place: Place) -> Iterator[tuple[str, str]]:
    """Yield what a digest of the weights must cover, name and URI: all shards and their index."""
    for uri in (*([place.index] if place.index else []), *place.files):
        yield uri.rpartition("/")[2], uri
