"""The original tars of ILSVRC 2012, and what is said when one of the three files is not what it should be."""

from __future__ import annotations

import tarfile

import pytest

from dcae15.data import sources
from dcae15.data.sources import imagenet_tars
from dcae15.errors import DataError
from tests import layouts
from tests.layouts import DEVKIT, TRAIN_TAR, VAL_TAR, WNIDS
from tests.layouts import open_source as opened


@pytest.fixture
def tars(tmp_path):
    layouts.as_imagenet_tars(tmp_path, layouts.pictures(broken=False))
    return tmp_path


def fails(folder, message):
    with pytest.raises(DataError, match=message) as caught:
        opened(folder)
    assert str(folder) in str(caught.value)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def inner(folder, wnid=WNIDS[1]):
    """Place and size of a class's tar."""
    with tarfile.open(folder / TRAIN_TAR) as tar:
        member = tar.getmember(f"{wnid}.tar")
        return member.offset_data, member.size


def test_a_class_tar_that_is_cut_off_names_itself_and_the_tar_around_it(tars):
    members = []
    with tarfile.open(tars / TRAIN_TAR) as tar:
        for member in tar:
            data = tar.extractfile(member).read()
            members.append((member.name, data[: len(data) // 2] if member.name.startswith(WNIDS[1]) else data))
    layouts.write(tars / TRAIN_TAR, layouts.tar_bytes(members))
    fails(
        tars,
        rf"{WNIDS[1]}.tar in .*{TRAIN_TAR} is cut off: its member '{WNIDS[1]}_\d+.JPEG' ends at byte \d+, the tar after",
    )


def test_a_class_tar_cut_between_two_members_lacks_its_end(tars):
    members = [(f"{w}.tar", layouts.tar_bytes([("a.JPEG", b"x" * 512)])) for w in WNIDS]
    members[2] = (members[2][0], members[2][1][:1024])
    layouts.write(tars / TRAIN_TAR, layouts.tar_bytes(members))
    fails(tars, rf"{WNIDS[2]}.tar in .*{TRAIN_TAR} is cut off: it ends after 1024 bytes without the mark of its end")


def test_a_training_tar_that_is_cut_off(tars):
    offset, size = inner(tars)
    cut(tars / TRAIN_TAR, offset + size // 2)
    fails(
        tars,
        rf"{TRAIN_TAR} is cut off: its member '{WNIDS[1]}.tar' ends at byte {offset + size}, the tar after {offset + size // 2}",
    )


def test_a_header_that_is_damaged_is_not_taken_for_the_end(tars):
    offset, _ = inner(tars)
    data = bytearray((tars / TRAIN_TAR).read_bytes())
    data[offset - 512 : offset - 412] = b"?" * 100
    (tars / TRAIN_TAR).write_bytes(bytes(data))
    fails(tars, rf"{TRAIN_TAR} is damaged: what follows byte \d+ is no header")


@pytest.mark.parametrize("data", [b"", b"no tar", b"<html>" * 1000])
def test_what_is_no_tar(tars, data):
    (tars / VAL_TAR).write_bytes(data)
    fails(tars, VAL_TAR)


def test_other_tars_of_that_name(tars):
    layouts.write(tars / TRAIN_TAR, layouts.tar_bytes([("n01440764/a.JPEG", b"x")]))
    fails(tars, "holds 'n01440764/a.JPEG', which is no <wnid>.tar")


@pytest.mark.parametrize(
    ("name", "message"),
    [(DEVKIT, f"lacks {DEVKIT}; its ground truth"), (TRAIN_TAR, f"lacks {TRAIN_TAR}; it holds the training")],
)
def test_missing_files(tars, name, message):
    (tars / name).unlink()
    fails(tars, message)


def test_validation_images_may_be_missing(tars):
    (tars / VAL_TAR).unlink()
    (tars / DEVKIT).unlink()
    assert (opened(tars).train.num_rows, opened(tars).val.num_rows) == (48, 0)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([1] * 11, f"{VAL_TAR} has 12 images, but the ground truth in .*{DEVKIT} has 11 lines"),
        ([1] * 5 + [4] + [1] * 6, "has the class 4 in line 6, which data/meta.mat lacks"),
    ],
)
def test_ground_truth_that_does_not_fit(tars, truth, message):
    (tars / DEVKIT).write_bytes(layouts.devkit(truth))
    fails(tars, message)


def test_classes_of_other_sizes_than_the_development_kit_says(tars):
    truth = [1] * 12
    assert opened(tars).notes == ()
    (tars / DEVKIT).write_bytes(layouts.devkit(truth, images=(16, 17, 1300)))
    [note] = opened(tars).notes
    assert f"2 classes have other numbers of training images than {DEVKIT} says" in note
    assert f"for example {WNIDS[1]} 16 instead of 17" in note
    assert f"for example {WNIDS[2]} 16 instead of 1,300" in opened(tars, classes=(WNIDS[0], WNIDS[2])).notes[0]
    assert opened(tars, classes=(WNIDS[0],)).notes == ()
    (tars / DEVKIT).write_bytes(layouts.devkit(truth, images=()))
    assert opened(tars).notes == ()


def test_validation_images_of_other_names(tars):
    layouts.write(tars / VAL_TAR, layouts.tar_bytes([("1.JPEG", b"x")] * 12))
    fails(tars, rf"{VAL_TAR} holds '1.JPEG', but the ground truth is for ILSVRC2012_val_00000001 to _00000012")


def test_classes_without_training_images(tars):
    with tarfile.open(tars / TRAIN_TAR) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar if not m.name.startswith(WNIDS[0])]
    layouts.write(tars / TRAIN_TAR, layouts.tar_bytes(members))
    fails(tars, rf"1 classes in {VAL_TAR} that {TRAIN_TAR} lacks, for example '{WNIDS[0]}'")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no archive", "is no tar file"),
        (layouts.tar_bytes([("other/readme.txt", b"x")], "w:gz"), "lacks data/meta.mat"),
        (
            layouts.tar_bytes(
                [("d/data/meta.mat", b"x"), ("d/data/ILSVRC2012_validation_ground_truth.txt", b"1")], "w:gz"
            ),
            "meta.mat in .* cannot be read",
        ),
        (layouts.devkit([1] * 12)[:-40], "damaged or cut off"),
    ],
)
def test_development_kits_that_are_none(tars, data, message):
    (tars / DEVKIT).write_bytes(data)
    fails(tars, message)


def test_ground_truth_in_words():
    data = layouts.tar_bytes(
        [("data/meta.mat", meta()), ("data/ILSVRC2012_validation_ground_truth.txt", b"one\n")], "w:gz"
    )
    with pytest.raises(DataError, match="not one number a line"):
        imagenet_tars.read_devkit(data, "kit")


def meta():
    with layouts.tarfile.open(fileobj=layouts.io.BytesIO(layouts.devkit([1]))) as tar:
        return tar.extractfile("ILSVRC2012_devkit_t12/data/meta.mat").read()


def test_long_names_and_other_members(tars):
    long = "n01440764_" + "x" * 200 + ".JPEG"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = layouts.tar_bytes([(f"./{long}", b"long"), ("._a.JPEG", b"mac"), ("notes.txt", b"n")], form=form)
        layouts.write(
            tars / TRAIN_TAR,
            layouts.tar_bytes(
                [(f"{w}.tar", data if w == WNIDS[0] else layouts.tar_bytes([("a.JPEG", b"x")])) for w in WNIDS]
            ),
        )
        source = opened(tars)
        assert source.train["id"].to_pylist()[0] == f"train/n01440764/{long}"
        assert next(sources.reading.read_images(source.train)) == b"long"
        assert source.ignored == 1
