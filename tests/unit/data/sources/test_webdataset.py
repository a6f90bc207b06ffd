"""WebDataset tars: labels, names, and samples that are not whole."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from dcae15.data.sources.reading import read_images
from dcae15.errors import DataError
from tests.layouts import open_source as opened
from tests.layouts import tar_bytes, write


def fails(folder, message, *members):
    write(folder / "train-0.tar", tar_bytes(members))
    with pytest.raises(DataError, match=message):
        opened(folder)


def said(**values):
    return json.dumps(values).encode()


def test_labels_in_words(tmp_path):
    members = [
        ("b.jpg", b"B"),
        ("b.json", said(class_name="dog")),
        ("a.png", b"A"),
        ("a.json", said(**{"class": "cat"})),
    ]
    write(tmp_path / "train-0.tar", tar_bytes(members))
    source = opened(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.train["id"].to_pylist() == ["train/cat/a.png", "train/dog/b.jpg"]
    assert list(read_images(source.train)) == [b"A", b"B"]


def test_names_beside_numbers_keep_the_numbers(tmp_path):
    members = [
        ("a.jpg", b"A"),
        ("a.json", said(label=2, class_name="dog")),
        ("b.jpg", b"B"),
        ("b.cls", b"0"),
        ("b.json", said(class_name="emu")),
    ]
    write(tmp_path / "train-0.tar", tar_bytes(members))
    source = opened(tmp_path)
    assert source.class_names == ("emu", "dog")
    assert source.train["label"].to_pylist() == [1, 0]
    fails(
        tmp_path,
        r"'d.jpg' has the label 1 and the class 'dog', others the label 2",
        *members,
        ("d.jpg", b""),
        ("d.json", said(label=1, class_name="dog")),
    )


def test_members_of_a_sample_may_lie_apart(tmp_path):
    members = [("x/a.jpg", b"A"), ("x/b.jpg", b"B"), ("x/b.cls", b" 1\n"), ("x/a.cls", b"0"), ("x/a.txt", b"caption")]
    write(tmp_path / "train-0.tar", tar_bytes(members))
    assert opened(tmp_path).train["label"].to_pylist() == [0, 1]


def test_the_first_dot_ends_the_key(tmp_path):
    members = [("v1.0/a.jpg", b"A"), ("v1.0/a.seg.png", b"mask"), ("v1.0/a.cls", b"0")]
    write(tmp_path / "train-0.tar", tar_bytes(members))
    assert opened(tmp_path).train["id"].to_pylist() == ["train/0/a.jpg"]


def test_names_that_occur_in_two_tars_are_told_apart(tmp_path):
    for part in range(2):
        write(
            tmp_path / f"train-{part}.tar",
            tar_bytes([("0.jpg", b"%d" % part), ("0.cls", b"0"), (f"{part}x.jpg", b""), (f"{part}x.cls", b"0")]),
        )
    source = opened(tmp_path)
    assert source.train["id"].to_pylist() == [f"train/0/train-{p}/{n}.jpg" for p in range(2) for n in ("0", f"{p}x")]
    assert next(read_images(source.train)) == b"0"


def test_members_that_are_no_samples(tmp_path):
    members = [
        ("__meta__.json", b"\x93NUMPY"),
        ("x/__index__.cls", b"none"),
        ("dataset.json", said(author="z")),
        ("a.jpg", b"A"),
        ("a.cls", b"0"),
    ]
    write(tmp_path / "train-0.tar", tar_bytes(members))
    write(tmp_path / "train-1.tar", tar_bytes([("b.jpg", b"B"), ("b.cls", b"0")]))
    source = opened(tmp_path)
    assert (source.train["id"].to_pylist(), source.ignored) == (["train/0/a.jpg", "train/0/b.jpg"], 3)
    write(tmp_path / "train-2.tar", tar_bytes([("c.json", said(label=0))]))
    assert opened(tmp_path).lost == {"with a label and no image": 1}


@pytest.mark.parametrize(("kind", "word"), [(tarfile.LNKTYPE, "hard"), (tarfile.SYMTYPE, "symbolic")])
def test_links_are_named(tmp_path, kind, word):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for name, target in (("a.jpg", ""), ("a.cls", ""), ("readme", "a.cls"), ("b.jpg", "a.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = (kind, target, 0) if target else (tarfile.REGTYPE, "", 1)
            tar.addfile(info, io.BytesIO(b"0"))
    with pytest.raises(DataError, match=rf"train-0.tar: 'b.jpg' is a {word} link, whose"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("f/a.cls", b"1")], "No images .*1 sample: with a label and no image, for example 'f/a'"),
        (
            [("a.jpg", b"x"), ("a.png", b"x"), ("a.cls", b"1")],
            "No images .*2 pictures .*several images of one sample",
        ),
        ([("a.jpg", b"x"), ("a.json", b"{")], "No images .*cannot be read.*'a.json' holds '{', which is no valid JSON"),
        ([("a.jpg", b"x"), ("a.cls", b"-1")], "train-0.tar: 'a.jpg' has the label -1, but labels count from 0"),
        ([("a.jpg", b"x"), ("a.json", said(label=1 << 70))], "No images .*cannot be read.*'a.json' has the label"),
        (
            [("a.jpg", b"x"), ("a.cls", b"0"), ("b.jpg", b"x"), ("b.json", said(**{"class": "c"}))],
            "mixes labels in numbers and class names",
        ),
        ([("readme.txt", b"x")], "No images"),
    ],
)
def test_samples_that_are_not_whole(tmp_path, members, message):
    fails(tmp_path, message, *members)


@pytest.mark.parametrize(
    ("name", "data", "detail"),
    [
        ("b.cls", b"\xff\xfe", "'b.cls' is not a UTF-8 text"),
        ("b.cls", b"", "'b.cls' holds '', but a .cls holds the class as a number or a name"),
        ("b.json", b"{", "'b.json' holds '{', which is no valid JSON"),
        ("b.json", b"[" * 100_000, "'b.json' holds '[[["),
        ("b.json", said(label=1 << 70), "'b.json' has the label 1180591620717411303424, which is no number"),
    ],
)
def test_a_label_that_cannot_be_read_is_that_of_its_sample(tmp_path, name, data, detail):
    write(tmp_path / "train-0.tar", tar_bytes([("a.jpg", b"A"), ("a.cls", b"0"), ("b.jpg", b"B"), (name, data)]))
    source = opened(tmp_path)
    assert source.train["id"].to_pylist() == ["train/0/a.jpg"]
    assert source.lost == {"of a label that cannot be read": 1}
    assert detail in source.left_out[0].mending


def test_labels_as_other_programs_write_them(tmp_path):
    says = [said(label=3.0), said(**{"class": 3}), said(class_id=3), said(label="3")]
    members = [m for i, data in enumerate(says) for m in ((f"{i}.jpg", b"x"), (f"{i}.json", data))]
    write(tmp_path / "train-0.tar", tar_bytes(members[:6]))
    assert opened(tmp_path).class_names == ("3",)
    write(tmp_path / "train-0.tar", tar_bytes(members[6:]))
    assert opened(tmp_path).class_names == ("3",)
    write(tmp_path / "train-0.tar", tar_bytes([*members[:2], ("z.jpg", b"x"), ("z.json", said(label=[3]))]))
    assert opened(tmp_path).lost == {"of a label that cannot be read": 1}


def test_numbers_of_which_some_are_padded_are_names(tmp_path):
    labels = ("01", "10", "11")
    write(
        tmp_path / "train-0.tar", tar_bytes([m for i in labels for m in ((f"{i}.jpg", b"x"), (f"{i}.cls", i.encode()))])
    )
    assert opened(tmp_path).class_names == labels


def test_numbers_in_texts_are_no_captions(tmp_path):
    for text in (b"0 0.5 0.5 0.1 0.1\n", b"caf\xe9", b" "):
        write(tmp_path / "train-0.tar", tar_bytes([("a.jpg", b"x"), ("a.cls", b"0"), ("a.txt", text)]))
        source = opened(tmp_path)
        assert (source.captions, source.others) == (0, {".txt that is no caption": 1})


def test_the_list_of_class_names(tmp_path):
    write(tmp_path / "classes.txt", b"cat\ndog\n")
    fails(tmp_path, "'a.jpg' has the label 2, but the 2 classes allow 0 to 1", ("a.jpg", b"x"), ("a.cls", b"2"))
    fails(
        tmp_path,
        "'a.jpg' has the class 'emu', which the list of class names lacks",
        ("a.jpg", b"x"),
        ("a.json", said(class_name="emu")),
    )
    write(tmp_path / "classes.txt", b"cat\ndog\ncat\n")
    fails(tmp_path, r"classes.txt has 'cat' again in line 3", ("a.jpg", b"x"), ("a.cls", b"1"))
    write(tmp_path / "classes.txt", b"cat\n\ndog\n")
    fails(tmp_path, r"classes.txt has nothing in line 2", ("a.jpg", b"x"), ("a.cls", b"1"))


def test_classes_that_are_only_validated(tmp_path):
    write(tmp_path / "val-0.tar", tar_bytes([("b.jpg", b"x"), ("b.json", said(class_name="dog"))]))
    fails(
        tmp_path,
        "1 classes in val tars that train tars lacks, for example 'dog'",
        ("a.jpg", b"x"),
        ("a.json", said(class_name="cat")),
    )


def test_compressed_tars(tmp_path):
    write(tmp_path / "train-0.tar.gz", b"x")
    with pytest.raises(DataError, match=r"'train-0.tar.gz': images in a compressed tar"):
        opened(tmp_path)
    (tmp_path / "train-0.tar.gz").unlink()
    write(tmp_path / "train-0.tar", tar_bytes([("a.jpg", b"x")], "w:gz"))
    with pytest.raises(DataError, match=r"train-0.tar is compressed"):
        opened(tmp_path)


def test_a_tar_that_is_cut_anywhere_is_never_taken_for_a_whole_one(tmp_path):
    whole = tar_bytes([(f"{i}.{end}", data) for i in range(2) for end, data in (("jpg", b"x" * 700), ("cls", b"0"))])
    content = whole.rstrip(b"\0")
    last = -(-len(content) // 512) * 512
    for size in [*range(0, last + 512, 100), last, last + 511]:
        write(tmp_path / "train-0.tar", whole[:size])
        with pytest.raises(DataError, match=r"train-0\.tar.* (cut off|no tar file)"):
            opened(tmp_path)
    write(tmp_path / "train-0.tar", whole[: last + 512])
    assert len(opened(tmp_path).train) == 2


@pytest.mark.parametrize(("begin", "size"), [(0, 40_960), (20_480, 20_480), (30 << 20, 0)])
def test_a_hole_of_zeros_is_not_taken_for_the_end(tmp_path, begin, size):
    members = [(f"{i}.{end}", data) for i in range(9) for end, data in (("jpg", b"x" * 9000), ("cls", b"0"))]
    data = bytearray(tar_bytes(members))
    data[begin : begin + size] = bytes(size)
    if not size:  # room for what was never fetched
        data += bytes((1 << 20) + 1)
    write(tmp_path / "train-0.tar", bytes(data))
    with pytest.raises(
        DataError, match=r"\d+ bytes follow the end mark of .*train-0.tar at byte \d+: a part is missing"
    ):
        opened(tmp_path)


def test_joined_tars_are_refused_and_padding_is_not(tmp_path):
    first, second = (tar_bytes([(f"{i}.jpg", b"x"), (f"{i}.cls", b"0")]) for i in range(2))
    write(tmp_path / "train-0.tar", first + second)
    with pytest.raises(DataError, match=r"bytes follow the end mark of .*tars were joined"):
        opened(tmp_path)
    write(tmp_path / "train-0.tar", first + bytes((1 << 20) - len(first)))
    assert len(opened(tmp_path).train) == 1
