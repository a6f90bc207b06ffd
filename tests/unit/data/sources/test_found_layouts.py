"""Folders and tars as people have them: what is taken, what is left out, and how it is said."""

from __future__ import annotations

import json

import pytest

from dcae15 import storage
from dcae15.data.sources.reading import read_images
from dcae15.errors import DataError
from tests import layouts
from tests.layouts import WNIDS, tar_bytes, write
from tests.layouts import open_source as opened

JPEG, PNG = layouts.encoded(1), layouts.encoded(2, kind="PNG")


def fill(root, *paths, data=JPEG):
    for path in paths:
        write(root / path, data)


def taken(source):
    """Ids with the names of their classes, of both splits."""
    return [
        list(zip(t["id"].to_pylist(), [source.class_names[i] for i in t["label"].to_pylist()], strict=True))
        for t in (source.train, source.val)
    ]


def left(source):
    return {part.reason: part.count for part in source.left_out}


# ImageNet


@pytest.fixture
def kaggle(tmp_path):
    """ILSVRC as Kaggle gives it: the validation images in one folder, their classes in a file above."""
    root = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid in WNIDS:
        fill(root, *(f"train/{wnid}/{wnid}_{i}.JPEG" for i in range(3)))
    fill(root, *(f"val/ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 3)), "test/ILSVRC2012_test_00000001.JPEG")
    fill(tmp_path, f"ILSVRC/Annotations/CLS-LOC/train/{WNIDS[0]}/x.xml", "ILSVRC/ImageSets/CLS-LOC/val.txt", data=b"x")
    rows = [f"ILSVRC2012_val_{i:08d},{WNIDS[-i]} 1 2 3 4 {WNIDS[0]} 1 2 3 4 \n" for i in (3, 1, 2)]
    write(tmp_path / "LOC_val_solution.csv", "".join(["ImageId,PredictionString\n", *rows]).encode())
    write(tmp_path / "LOC_synset_mapping.txt", b"n01440764 tench\n")
    return tmp_path


@pytest.mark.parametrize("below", ["", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_of_kaggle(kaggle, below):
    source = opened(kaggle / below)
    assert source.class_names == WNIDS
    train, val = taken(source)
    assert train == [(f"train/{w}/{w}_{i}.JPEG", w) for w in WNIDS for i in range(3)]
    assert val == sorted((f"val/{WNIDS[-i]}/ILSVRC2012_val_{i:08d}.JPEG", WNIDS[-i]) for i in (1, 2, 3))
    assert left(source) == {"images of test, which have no use here": 1}
    assert (source.lost, next(read_images(source.val))) == ({}, JPEG)
    text = source.describe()
    assert "9 training and 3 validation images of 3 classes" in text
    assert f"labels of the validation images: {kaggle}/LOC_val_solution.csv" in text
    assert "left out: 1 picture (1 .jpeg): images of test" in text


def test_imagenet_of_kaggle_in_a_bucket(kaggle, s3_root):
    for info in storage.list_files(str(kaggle)):
        storage.write_bytes(f"{s3_root}/{info.path}", (kaggle / info.path).read_bytes())
    for below in ("", "/ILSVRC/Data/CLS-LOC"):
        source = opened(s3_root + below)
        assert taken(source) == taken(opened(kaggle))
        assert f"labels of the validation images: {s3_root}/LOC_val_solution.csv" in source.describe()
        assert list(read_images(source.val)) == [JPEG] * 3


def test_a_validation_image_that_the_file_does_not_know_is_left_out(kaggle):
    fill(kaggle, "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000009.JPEG")
    source = opened(kaggle)
    assert source.lost == {"of a class that no line says": 1}
    assert f"give {kaggle}/LOC_val_solution.csv a line" in source.left_out[-1].mending
    write(kaggle / "LOC_val_solution.csv", b"ImageId,PredictionString\nILSVRC2012_val_00000001,tench\n")
    with pytest.raises(DataError, match=r"LOC_val_solution.csv has 'tench' for 'ILSVRC2012_val_00000001'; expected"):
        opened(kaggle)
    (kaggle / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match=r"images of val/ lie in none.*LOC_val_solution.csv, val_annotations.txt"):
        opened(kaggle)


def test_one_loose_validation_image_is_left_out(tmp_path):
    fill(tmp_path, *(f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in "ab" for i in range(10)), "val/cover.jpg")
    source = opened(tmp_path)
    assert (source.val.num_rows, source.lost) == (20, {"in no folder of a class": 1})


@pytest.mark.parametrize("name", ["a.zip", "a.jpg", "list.txt"])
def test_a_file_of_no_known_kind(tmp_path, name):
    fill(tmp_path, name)
    with pytest.raises(DataError, match=rf"{name} is a file of no known kind.*\.csv"):
        opened(tmp_path / name)
    with pytest.raises(DataError, match="no/where does not exist"):
        opened(tmp_path / "no" / "where")


@pytest.mark.parametrize("packed", [True, False])
def test_flat_validation_images_beside_the_development_kit(tmp_path, packed):
    items = layouts.pictures(broken=False)
    for item in items:
        write(tmp_path / (item.path if item.split == "train" else f"val/{item.name}"), item.data)
    kit = layouts.devkit([layouts.numbers()[item.wnid] for item in items if item.split == "val"])
    write(tmp_path / layouts.DEVKIT, kit)
    if not packed:
        import tarfile

        with tarfile.open(tmp_path / layouts.DEVKIT) as tar:
            tar.extractall(tmp_path, filter="data")
        (tmp_path / layouts.DEVKIT).unlink()
    source = opened(tmp_path)
    assert [i for t in taken(source) for i, _ in t] == sorted(item.path for item in items)
    assert {name for _, name in taken(source)[1]} == set(WNIDS)


def test_tiny_imagenet(tmp_path):
    for wnid in WNIDS:
        fill(tmp_path, *(f"train/{wnid}/images/{wnid}_{i}.JPEG" for i in range(2)))
    fill(tmp_path, "val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG")
    write(
        tmp_path / "val/val_annotations.txt",
        f"val_0.JPEG\t{WNIDS[1]}\t0\t0\t9\t9\nval_1.JPEG\t{WNIDS[0]}\t0\n".encode(),
    )
    source = opened(tmp_path)
    assert source.class_names == WNIDS
    assert taken(source)[1] == [(f"val/{WNIDS[0]}/val_1.JPEG", WNIDS[0]), (f"val/{WNIDS[1]}/val_0.JPEG", WNIDS[1])]


def test_a_flat_imagenet_has_its_classes_in_the_names(tmp_path):
    fill(tmp_path, *(f"train/{w}_{i}.JPEG" for w in WNIDS for i in range(2)))
    assert opened(tmp_path).class_names == WNIDS
    fill(tmp_path, "train/other.JPEG")
    assert opened(tmp_path).class_names == ("images",), "all names must agree"


# Loose pictures, and folders among them


@pytest.mark.parametrize("folder", ["@eaDir", "thumbs", ".thumbnails", "Cache", "__MACOSX"])
def test_loose_photographs_with_a_folder_of_thumbnails(tmp_path, folder):
    fill(tmp_path, *(f"IMG_{i:04d}.JPG" for i in range(500)), *(f"{folder}/IMG_{i:04d}.jpg" for i in range(5)))
    source = opened(tmp_path, val_fraction=0.0)
    assert (source.class_names, source.train.num_rows) == (("images",), 500)
    assert sum(left(source).values()) == 5
    assert source.lost == {}
    assert f"5 pictures (5 .jpg): {source.left_out[0].reason}, for example '{folder}/IMG_0000.jpg'" in source.describe()


def test_loose_photographs_with_a_folder_of_others_are_all_taken(tmp_path):
    fill(tmp_path, *(f"{i}.jpg" for i in range(500)), *(f"holiday/{i}.jpg" for i in range(5)))
    source = opened(tmp_path)
    assert (source.class_names, source.count, source.left_out) == (("images",), 505, ())
    assert "folders are not taken as classes: 'holiday'" in source.describe()
    source = opened(tmp_path, labels="top")
    assert (source.class_names, source.lost) == (("holiday",), {"in no folder of a class": 500})


def test_a_loose_picture_beside_class_folders_is_named(tmp_path):
    fill(tmp_path, *(f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(50)), "cover.jpg")
    source = opened(tmp_path)
    assert (source.class_names, source.count) == (("cat", "dog"), 100)
    assert source.lost == {"in no folder of a class": 1}
    assert "data.labels=none" in source.left_out[0].mending


def test_half_loose_pictures_are_asked_for(tmp_path):
    fill(tmp_path, *(f"{i}.jpg" for i in range(5)), *(f"cat/{i}.jpg" for i in range(5)))
    with pytest.raises(
        DataError, match=r"5 images in no folder of a class, and 5 in folders, .*'cat'.*data.labels=none"
    ):
        opened(tmp_path)
    assert opened(tmp_path, labels="none").count == 10
    assert opened(tmp_path, labels="top").count == 5


# Words for splits


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train", "valid"),
        ("train", "validation"),
        ("Training", "Validation"),
        ("TRAIN", "Val"),
        ("train2017", "val2017"),
        ("train_images", "val_images"),
        ("cars_train", "cars_val"),
        ("train-256", "valid-256"),
        ("trainset", "valset"),
        ("training_set", "validation_set"),
        ("train", "eval"),
    ],
)
def test_words_for_splits(tmp_path, train, val):
    fill(tmp_path, *(f"{train}/{c}/{i}.jpg" for c in "ab" for i in range(3)), *(f"{val}/{c}/9.jpg" for c in "ab"))
    train_images, val_images = taken(opened(tmp_path))
    assert train_images == [(f"train/{c}/{i}.jpg", c) for c in "ab" for i in range(3)]
    assert val_images == [("val/a/9.jpg", "a"), ("val/b/9.jpg", "b")]


def test_several_folders_of_one_split(tmp_path):
    fill(tmp_path, "train2014/1.jpg", "train2017/2.jpg", "val2014/3.jpg", "test2017/4.jpg")
    source = opened(tmp_path)
    assert (taken(source), left(source)) == (
        [[("train/1.jpg", "images"), ("train/2.jpg", "images")], [("val/3.jpg", "images")]],
        {"images of test, which have no use here": 1},
    )
    fill(tmp_path, "train2017/1.jpg")
    assert taken(opened(tmp_path))[0] == [(f"train20{n}.jpg", "images") for n in ("14/1", "17/1", "17/2")]


def test_splits_within_classes(tmp_path):
    fill(tmp_path, *(f"{c}/{s}/{i}.jpg" for c in ("cat", "dog") for s, i in (("train", 1), ("valid", 2), ("test", 3))))
    source = opened(tmp_path)
    assert taken(source) == [
        [("train/cat/1.jpg", "cat"), ("train/dog/1.jpg", "dog")],
        [("val/cat/2.jpg", "cat"), ("val/dog/2.jpg", "dog")],
    ]
    assert "layout: <class>/<split>/*" in source.describe()


@pytest.mark.parametrize(
    "names",
    [
        ["train", "plane", "bus"],
        ["bullet-train", "test-tube", "a", "b", "c", "d", "e"],
        ["trainer", "valley", "tester"],
    ],
)
def test_words_for_splits_that_are_classes(tmp_path, names):
    fill(tmp_path, *(f"{name}/{i}.jpg" for name in names for i in range(4)))
    assert opened(tmp_path).class_names == tuple(sorted(names))


def test_images_to_validate_or_test_only(tmp_path):
    fill(tmp_path, "val/cat/1.jpg", "test/cat/1.jpg")
    with pytest.raises(DataError, match=r"has test/ and val/ but no train/ with images.*data.source=.*/test"):
        opened(tmp_path)


# Formats and suffixes


def test_contents_decide_where_names_do_not_tell(tmp_path):
    fill(tmp_path, "a/1", "a/2.weird", "b/3.JFIF", "b/4.jpe", "c/5.dat")
    fill(tmp_path, "c/notes", "c/6.dat", "b/list.txt", data=b"no picture")
    source = opened(tmp_path, val_fraction=0.0)
    assert [i for i, _ in taken(source)[0]] == ["a/1", "a/2.weird", "b/3.JFIF", "b/4.jpe", "c/5.dat"]
    assert source.others == {"without suffix": 1, ".dat": 1, ".txt": 1}
    assert "other files: 3 (1 .dat, 1 .txt, 1 without suffix)" in source.describe()
    fill(tmp_path / "more", "1", "2")
    fill(tmp_path / "more", "about.csv", "images.tar.gz", data=b"x")
    assert opened(tmp_path / "more").train.num_rows == 2


def test_a_class_of_another_suffix_is_no_longer_lost(tmp_path):
    fill(
        tmp_path,
        *(f"a/{i}.jpg" for i in range(3)),
        *(f"b/{i}.avif" for i in range(3)),
        *(f"c/{i}.ppm" for i in range(3)),
    )
    assert opened(tmp_path).class_names == ("a", "b", "c")


def test_links_that_lead_nowhere_are_missing_pictures(tmp_path):
    fill(tmp_path, "cat/1.jpg")
    (tmp_path / "cat" / "2.jpg").symlink_to("/nowhere/at/all")
    (tmp_path / "cat" / "3.jpg").symlink_to("3.jpg")
    source = opened(tmp_path)
    first, *others = read_images(source.train)
    assert first == JPEG
    assert [getattr(bad, "reason", bad) for bad in others] == ["missing", "missing"]


def test_raw_files_beside_their_pictures_are_no_loss(tmp_path):
    fill(tmp_path, "1.jpg", "2.jpg")
    fill(tmp_path, "1.CR2", "3.nef", data=b"II*\0raw")
    source = opened(tmp_path, val_fraction=0.0)
    assert [i for i, _ in taken(source)[0]] == ["1.jpg", "2.jpg", "3.nef"], (
        "a raw file alone is a picture, to be told as such"
    )
    assert (source.lost, [part.count for part in source.left_out]) == ({}, [1])


# Tars


def test_names_with_dots_in_tars(tmp_path):
    names = [f"img.v2.{i:03d}" for i in range(4)]
    members = [m for n in names for m in ((f"{n}.jpg", JPEG), (f"{n}.cls", b"%d" % (int(n[-1]) % 2)))]
    write(tmp_path / "train-0.tar", tar_bytes(members))
    source = opened(tmp_path)
    assert taken(source)[0] == sorted((f"train/{int(n[-1]) % 2}/{n}.jpg", str(int(n[-1]) % 2)) for n in names)
    write(tmp_path / "train-0.tar", tar_bytes([("a.b.jpg", JPEG), ("a.cls", b"7"), ("b.jpg", JPEG), ("b.cls", b"7")]))
    assert [i for i, _ in taken(opened(tmp_path))[0]] == ["train/7/a.b.jpg", "train/7/b.jpg"]


def test_further_images_of_a_sample_are_counted(tmp_path):
    members = [("a.jpg", JPEG), ("a.seg.png", PNG), ("a.cls", b"cat"), ("b.jpg", JPEG), ("b.cls", b"no")]
    write(tmp_path / "train-0.tar", tar_bytes(members))
    source = opened(tmp_path)
    assert (source.class_names, left(source), source.lost) == (("cat", "no"), {"further images of a sample": 1}, {})


def test_classes_as_folders_in_a_tar(tmp_path):
    members = [(f"{split}/{c}/{i}.jpg", JPEG) for split in ("train", "val") for c in "ab" for i in range(2)]
    write(tmp_path / "all.tar", tar_bytes(members))
    expected = [[(f"{s}/{c}/{i}.jpg", c) for c in "ab" for i in range(2)] for s in ("train", "val")]
    assert taken(opened(tmp_path)) == expected
    (tmp_path / "all.tar").unlink()
    for split in ("train", "val"):
        write(
            tmp_path / f"{split}-0.tar", tar_bytes([(p.removeprefix(f"{split}/"), d) for p, d in members if split in p])
        )
    assert taken(opened(tmp_path)) == expected
    for split in ("train", "val"):  # a folder that is called like the tar
        write(
            tmp_path / f"{split}-0.tar", tar_bytes([(f"{split}-0/{c}/{i}.jpg", JPEG) for c in "ab" for i in range(2)])
        )
    assert taken(opened(tmp_path)) == expected


@pytest.mark.parametrize("names", [WNIDS, ("cat", "dog", "no")])
def test_a_tar_for_each_class(tmp_path, names):
    for name in names:
        write(tmp_path / "train" / f"{name}.tar", tar_bytes([(f"{i}.jpg", JPEG) for i in range(3)]))
    source = opened(tmp_path)
    assert source.class_names == tuple(sorted(names))
    assert taken(source)[0][0] == (f"train/{min(names)}/0.jpg", min(names))
    assert "classes: the names of the tars" in source.describe()


def test_wordnet_ids_in_names_in_tars(tmp_path):
    for part in range(2):
        members = [(f"{w}_{i}{part}.JPEG", JPEG) for w in WNIDS for i in range(2)]
        write(tmp_path / f"train-{part}.tar", tar_bytes(members))
    source = opened(tmp_path)
    assert (source.class_names, source.train.num_rows) == (WNIDS, 12)


def test_tars_of_img2dataset(tmp_path):
    for shard in range(2):
        members = []
        for i in range(3):
            key = f"{shard:05d}{i:04d}"
            note = {"caption": f"a cat {i}", "url": "https://x", "status": "success", "key": key}
            members += [
                (f"{key}.jpg", JPEG),
                (f"{key}.json", json.dumps(note).encode()),
                (f"{key}.txt", b"a cat %d" % i),
            ]
        members.append((f"{shard:05d}9999.json", json.dumps({"status": "failed_to_download", "caption": "x"}).encode()))
        write(tmp_path / f"{shard:05d}.tar", tar_bytes(members))
        write(tmp_path / f"{shard:05d}.parquet_stats.json", b"{}")
    source = opened(tmp_path)
    assert (source.class_names, source.train.num_rows, source.captions) == (("images",), 6, 6)
    assert source.train["caption"].to_pylist()[:2] == ["a cat 0", "a cat 1"]
    assert source.train["id"].to_pylist()[0] == "000000000.jpg"
    assert "captions: 6 images have one" in source.describe()
    assert source.others[".json"] == 4


def test_tars_that_say_nothing_are_one_class(tmp_path):
    for shard in range(2):
        write(tmp_path / f"shard-{shard:04d}.tar", tar_bytes([(f"{shard}{i}.jpg", JPEG) for i in range(3)]))
    source = opened(tmp_path)
    assert (source.class_names, source.train.num_rows) == (("images",), 6)
    assert "no labels are taken, so that all images are one class" in source.describe()


def test_what_several_images_of_a_sample_are(tmp_path):
    members = [(f"{i}.{w}.png", PNG) for i in range(3) for w in ("image", "mask")] + [
        (f"{i}.cls", b"cat") for i in range(3)
    ]
    write(tmp_path / "train-0.tar", tar_bytes(members))
    source = opened(tmp_path)
    assert taken(source)[0] == [(f"train/cat/{i}.image.png", "cat") for i in range(3)]
    assert (left(source), source.lost) == ({"further images of a sample": 3}, {})


def test_hidden_members_and_those_of_systems_are_counted(tmp_path):
    members = [
        ("cat/1.jpg", JPEG),
        ("dog/2.jpg", JPEG),
        ("cat/._1.jpg", b"x"),
        ("__MACOSX/cat/1.jpg", b"x"),
        ("@eaDir/1.jpg", b"x"),
    ]
    write(tmp_path / "all.tar", tar_bytes(members))
    source = opened(tmp_path)
    assert (source.class_names, source.train.num_rows) == (("cat", "dog"), 2)
    assert left(source) == {"hidden, or in folders that a system keeps for itself": 3}


@pytest.mark.parametrize("stray", [("cat/0.txt", b"a caption"), ("cat/0.cls", b"7")])
def test_one_stray_member_does_not_decide_for_a_tar(tmp_path, stray):
    members = [(f"{c}/{i}.jpg", JPEG) for c in ("cat", "dog") for i in range(20)]
    write(tmp_path / "train.tar", tar_bytes([*members, stray]))
    source = opened(tmp_path)
    assert (source.class_names, source.train.num_rows) == (("cat", "dog"), 40)
    assert (source.captions == 1) or source.others == {"labels, because folders say the classes": 1}


def test_a_sample_without_a_label_among_others_is_left_out(tmp_path):
    write(tmp_path / "train-0.tar", tar_bytes([("a.jpg", JPEG), ("a.cls", b"0"), ("b.jpg", JPEG), ("c.jpg", JPEG)]))
    source = opened(tmp_path)
    assert (source.train.num_rows, source.lost) == (1, {"without a label, beside others that have one": 2})
    assert opened(tmp_path, labels="none").train.num_rows == 3


# Folders of folders


def test_classes_below_letters(tmp_path):
    paths = ["a/airfield/1.jpg", "a/apartment_building/outdoor/2.jpg", "b/barn/3.jpg", "b/bazaar/indoor/4.jpg"]
    fill(tmp_path, *(f"train/{path}" for path in paths))
    source = opened(tmp_path)
    assert source.class_names == ("airfield", "apartment_building/outdoor", "barn", "bazaar/indoor")
    assert [i for i, _ in taken(source)[0]] == [f"train/{path}" for path in paths]
    assert opened(tmp_path, labels="top").class_names == ("a", "b")


def test_deeper_folders_are_joined_with_a_word(tmp_path):
    fill(tmp_path, "animals/cat/1.jpg", "animals/dog/2.jpg", "vehicles/bus/3.jpg")
    source = opened(tmp_path)
    assert source.class_names == ("animals", "vehicles")
    assert "as 'animals/cat' to 'animals'; data.labels=leaf" in source.describe()
    assert opened(tmp_path, labels="leaf").class_names == ("animals/cat", "animals/dog", "vehicles/bus")


def test_a_lone_folder_around_the_classes_is_none(tmp_path):
    fill(tmp_path, "photos/cat/1.jpg", "photos/dog/2.jpg")
    assert taken(opened(tmp_path))[0] == [("photos/cat/1.jpg", "cat"), ("photos/dog/2.jpg", "dog")]


def test_sets_side_by_side_are_asked_for(tmp_path):
    fill(tmp_path, *(f"{s}/{split}/{c}/1.jpg" for s in ("large", "small") for split in ("train", "val") for c in "ab"))
    with pytest.raises(DataError, match=r"holds 2 sets side by side.*'large', 'small'.*/large, .*data.join=true"):
        opened(tmp_path)
    source = opened(tmp_path, join=True)
    assert (source.class_names, source.train.num_rows, source.val.num_rows) == (("a", "b"), 4, 4)
    assert opened(tmp_path / "small").train.num_rows == 2


def test_folders_that_hold_the_same_folders_are_asked_for(tmp_path):
    fill(tmp_path, *(f"set/{s}/{c}/1.jpg" for s in ("color", "gray") for c in ("blight", "rust")))
    with pytest.raises(
        DataError, match=r"2 folders with the same folders in each: 'color', 'gray', with 'blight', 'rust'"
    ):
        opened(tmp_path)
    assert opened(tmp_path / "set" / "gray").class_names == ("blight", "rust")
    assert opened(tmp_path / "set", labels="top").class_names == ("color", "gray")
    fill(tmp_path / "set", "gray/scab/1.jpg")
    with pytest.raises(DataError, match="2 folders with the same folders"):
        opened(tmp_path)


@pytest.mark.parametrize("head", ["", "train/"])
def test_masks_beside_images_are_no_class(tmp_path, head):
    fill(tmp_path, *(f"{head}{name}/{i}.jpg" for name in ("Images", "masks", "annotations/trimaps") for i in range(9)))
    source = opened(tmp_path, val_fraction=0.0)
    assert (source.class_names, source.train.num_rows) == (("images",), 9)
    assert left(source) == {"in folders of masks or annotations, by their names": 18}
    assert source.lost == {}


@pytest.mark.parametrize("name", ["train", "seg_train"])
def test_folders_that_repeat_the_name_of_their_split(tmp_path, name):
    test = name.replace("train", "test")
    fill(tmp_path, *(f"{s}/{s}/{c}/{i}.jpg" for s in (name, test) for c in ("sea", "street") for i in range(2)))
    source = opened(tmp_path, val_fraction=0.0)
    assert source.class_names == ("sea", "street")
    assert left(source) == {"images of test, which have no use here": 4}
    assert "validation: 0 images are held out" in source.describe()


NEAR = {
    "DIV2K": ["DIV2K_train_HR/1.png", "DIV2K_valid_HR/1.png"],
    "CycleGAN": [f"{name}/1.jpg" for name in ("trainA", "trainB", "testA", "testB")],
    "Market-1501": [f"{name}/1.jpg" for name in ("bounding_box_train", "bounding_box_test", "query")],
    "trainval": ["trainval/cat/1.jpg", "test/cat/1.jpg"],
    "splits of classes": [f"{c}_{s}/1.jpg" for c in ("cats", "dogs") for s in ("train", "val")],
    "SVHN": ["train/1.png", "test/1.png", *(f"extra/{i}.png" for i in range(9))],
    "unpacked twice": [f"{h}{s}/{c}/1.jpg" for h in ("x/", "x/x/") for s in ("train", "test") for c in "ab"],
}


@pytest.mark.parametrize("name", NEAR)
def test_what_looks_nearly_like_splits_is_asked_for(tmp_path, name):
    fill(tmp_path, *NEAR[name])
    with pytest.raises(DataError, match=r"folders that look like splits.*data.source=.*data.labels=top"):
        opened(tmp_path)
    assert len(opened(tmp_path, labels="top").class_names) >= 1


@pytest.mark.parametrize(
    ("paths", "trained"),
    [
        (["01_train/a/1.jpg", "02_val/a/2.jpg"], ["train/a/1.jpg"]),
        (["train (1)/a/1.jpg", "val (1)/a/2.jpg"], ["train/a/1.jpg"]),
        (["train/1.png", "test/2.png", "unlabeled/3.png", "unlabeled/4.png"], ["train/1.png"]),
        (["train/1.png", "train_masks/1.png", "test/2.png", "val/3.png"], ["train/1.png"]),
        (["train/1.png", "trainannot/1.png", "val/2.png", "valannot/2.png"], ["train/1.png"]),
        (["train2017/1.jpg", "val2017/2.jpg", *(f"annotations/panoptic_x/{i}.png" for i in range(3))], ["train/1.jpg"]),
        (
            ["train/good/1.png", "train/good/2.png", "ground_truth/bad/1.png", "test/bad/1.png"],
            [f"train/good/{i}.png" for i in (1, 2)],
        ),
        (
            ["ADE/images/training/1.jpg", "ADE/images/validation/2.jpg", "ADE/annotations/training/1.png"],
            ["train/1.jpg"],
        ),
        ([f"{c}/{d}1.jpg" for c in ("cat", "dog") for d in ("", "thumbs/")], ["cat/1.jpg", "dog/1.jpg"]),
        (["a/1.png", "a/1_mask.png", "b/2 (1).png", "b/2 (1)_mask_1.png"], ["a/1.png", "b/2 (1).png"]),
    ],
)
def test_what_is_beside_the_images_is_left_out(tmp_path, paths, trained):
    fill(tmp_path, *paths)
    source = opened(tmp_path, val_fraction=0.0)
    assert [i for i, _ in taken(source)[0]] == trained
    assert source.lost == {}


@pytest.mark.parametrize("names", [("HAM_part_1", "HAM_part_2"), ("100APPLE", "101APPLE"), ("images",)])
def test_parts_and_folders_of_cameras_are_no_classes(tmp_path, names):
    fill(tmp_path, *(f"{name}/{name}{i}.jpg" for name in names for i in range(2)))
    source = opened(tmp_path)
    assert (source.class_names, source.count) == (("images",), 2 * len(names))
    assert "no classes" in source.describe()


@pytest.mark.parametrize(
    "paths", [("s/tomato", "s/potato", "S/s/tomato", "S/s/potato"), ("s/a", "s/b", "s/s/a", "s/s/b")]
)
def test_a_set_that_is_there_twice_is_asked_for(tmp_path, paths):
    fill(tmp_path, *(f"{path}/1.jpg" for path in paths))
    with pytest.raises(DataError, match=r"same set may be there twice|same folders in each"):
        opened(tmp_path)


def test_names_of_classes_in_any_unicode_form_are_one(tmp_path):
    fill(tmp_path, "train/caf\u00e9/1.jpg", "train/cafe\u0301/2.jpg", "val/cafe\u0301/3.jpg")
    source = opened(tmp_path)
    assert (source.class_names, source.train.num_rows, source.val.num_rows) == (("caf\u00e9",), 2, 1)


def test_a_class_that_is_called_like_its_split_stays(tmp_path):
    fill(tmp_path, *(f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in ("train", "bus", "val") for i in range(3)))
    source = opened(tmp_path)
    assert (source.class_names, source.train.num_rows, source.val.num_rows) == (("bus", "train", "val"), 9, 9)


@pytest.mark.parametrize("names", [("color", "gray"), ("fold1", "fold2")])
def test_sets_of_the_same_classes_are_joined_on_request(tmp_path, names):
    fill(tmp_path, *(f"{name}/{c}/{i}.jpg" for name in names for c in ("cat", "dog") for i in range(2)))
    source = opened(tmp_path, join=True, val_fraction=0.0)
    assert (source.class_names, source.train.num_rows) == (("cat", "dog"), 8)
    assert opened(tmp_path, labels="none").class_names == ("images",)


def test_classes_called_like_masks_among_others_stay(tmp_path):
    fill(tmp_path, *(f"{name}/{i}.jpg" for name in ("image", "mask", "hat") for i in range(2)))
    assert opened(tmp_path).class_names == ("hat", "image", "mask")


def test_archives_are_to_be_unpacked(tmp_path):
    fill(tmp_path, "images.zip", "readme.md", data=b"PK")
    with pytest.raises(DataError, match=r"2 files are there \(1 .md, 1 .zip\); unpack the archives first"):
        opened(tmp_path)


def test_names_of_classes_stay_texts(tmp_path):
    names = ["no", "001", "1e3", "True", "null", "#1", "50%", "what?", "a b"]
    fill(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert opened(tmp_path).class_names == tuple(sorted(names))
    assert opened(tmp_path, classes=("001", "no")).class_names == ("001", "no")
