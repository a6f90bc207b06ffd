"""Lists of images: columns, labels, splits, and rows that are wrong."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dcae15.data import sources
from dcae15.data.sources import Selection, listed
from dcae15.data.sources.reading import read_images
from dcae15.errors import DataError
from tests.layouts import write


def opened(path, text=None, **selection):
    if text is not None:
        write(path, text.encode())
    return sources.assemble(sources.find(str(path)), [], Selection(**selection))


def test_labels_in_numbers(tmp_path):
    source = opened(tmp_path / "list.csv", "label,uri,note\n2,a.jpg,x\n0,s3://bucket/b.jpg,y\n0,/c.jpg,\n")
    assert source.class_names == ("0", "2"), "classes have images"
    assert source.train["label"].to_pylist() == [0, 1, 0]
    assert source.train["uri"].to_pylist() == ["/c.jpg", f"{tmp_path}/a.jpg", "s3://bucket/b.jpg"]
    assert source.train["id"].to_pylist() == ["/c.jpg", "a.jpg", "s3://bucket/b.jpg"]
    write(tmp_path / "classes.txt", b"x\ny\nz")
    assert opened(tmp_path / "list.csv").class_names == ("x", "z")


def test_labels_in_names_splits_and_ids(tmp_path):
    text = "uri,label,split,id\na.jpg,dog,train,one\nb.jpg,cat,validation,\nc.jpg,cat,test,three\n"
    text += "d.jpg,cat,train,four\ne.jpg,007,train,five\n"
    source = opened(tmp_path / "list.csv", text)
    assert source.class_names == ("007", "cat", "dog")
    assert source.train["id"].to_pylist() == ["five", "four", "one"]
    assert (source.val["id"].to_pylist(), source.val["label"].to_pylist(), source.ignored) == (["b.jpg"], [1], 1)


def test_rows_of_test_may_hold_anything(tmp_path):
    text = "uri,label,split\n,,test\na.jpg,1,train\n../c.jpg,-1,test\nd.jpg,what,Testing\nb.jpg,1,val\n"
    source = opened(tmp_path / "list.csv", text)
    assert (source.class_names, source.others) == (("1",), {"rows of test": 3})
    assert source.train["id"].to_pylist() + source.val["id"].to_pylist() == ["a.jpg", "b.jpg"]


def test_numbers_that_are_only_validated_are_left_out(tmp_path):
    source = opened(tmp_path / "list.csv", "uri,label,split\na.jpg,0,train\nb.jpg,1,val\nc.jpg,0,val\n")
    assert (source.class_names, source.val["id"].to_pylist()) == (("0",), ["c.jpg"])
    assert source.lost == {"validation images of classes without training images": 1}


def test_labels_that_begin_with_one_or_lie_far_apart_are_numbered_anew(tmp_path):
    source = opened(tmp_path / "list.csv", "uri,label\n" + "".join(f"{i}.jpg,{i + 1}\n" for i in range(3)))
    assert (source.class_names, source.train["label"].to_pylist()) == (("1", "2", "3"), [0, 1, 2])
    assert "labels from 1 to 3, 3 of them used, are numbered anew from 0; names stay" in source.describe()
    write(tmp_path / "classes.txt", b"ant\nbee\ncat\n")
    source = opened(tmp_path / "list.csv")
    assert (source.class_names, source.train["label"].to_pylist()) == (("ant", "bee", "cat"), [0, 1, 2])
    assert "labels count from 1 to 3, as many as there are class names" in source.describe()
    (tmp_path / "classes.txt").unlink()
    source = opened(tmp_path / "list.csv", "uri,label\na.jpg,600007\nb.jpg,12\nc.jpg,4000000000\n")
    assert (source.class_names, source.train["label"].to_pylist()) == (("12", "600007", "4000000000"), [1, 0, 2])


def test_names_of_classes_are_texts(tmp_path):
    names = ["no", "001", "1e3", "true", "null", "1_000", "0x1F", "2020-01-01", " spaced", "nan", "1.0", "-0"]
    rows = "".join(f'{i}.jpg,"{name}"\n' for i, name in enumerate(names))
    source = opened(tmp_path / "list.csv", "uri,label\n" + rows)
    assert source.class_names == tuple(sorted(name.strip() for name in names))


def test_other_columns_are_named(tmp_path):
    source = opened(
        tmp_path / "list.csv", "URI, Label ,Split,note\na.jpg, cat,TRAIN,x\nb.jpg,cat ,Val,y\nc.jpg, ,train,z\n"
    )
    assert (source.class_names, source.train.num_rows, source.val.num_rows) == (("cat",), 1, 1)
    assert source.lost == {"images without a label": 1}
    assert "columns that are not read: note" in source.describe()
    with pytest.raises(DataError, match="words for splits in the column 'set': rename it to split"):
        opened(tmp_path / "list.csv", "uri,label,set\na.jpg,1,train\nb.jpg,1,test\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"uri,label,label\na.jpg,1,2\n", "has the column label more than once"),
        (b"uri;label\na.jpg;1\n", "lacks the column uri.*Separate columns by commas"),
        (b"path,label\na.jpg,1\n", "Rename 'path' to uri"),
        ("uri,label\na.jpg,1\n".encode("utf-16"), "save it as UTF-8"),
        ("uri,label\na.jpg,caf\u00e9\n".encode("cp1252"), "save it as UTF-8"),
    ],
)
def test_lists_as_other_programs_write_them(tmp_path, data, message):
    write(tmp_path / "list.csv", data)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "list.csv")


def test_missing_numbers_of_a_parquet_list_are_no_labels(tmp_path):
    pq.write_table(pa.table({"uri": ["a", "b"], "label": [float("nan"), 2.5]}), tmp_path / "list.parquet")
    source = opened(tmp_path / "list.parquet")
    assert (source.class_names, source.lost) == (("2.5",), {"images without a label": 1})


def test_lists_without_labels_are_one_class(tmp_path):
    source = opened(tmp_path / "list.csv", "uri,caption\na.jpg,a cat\nb.jpg,\n")
    assert (source.class_names, source.captions) == (("images",), 1)
    assert source.train["caption"].to_pylist() == ["a cat", None]
    text = "uri,label,split\nt.jpg,,test\na.jpg,1,train\nb.jpg,,train\n"
    source = opened(tmp_path / "list.csv", text)
    assert (source.train.num_rows, source.lost) == (1, {"images without a label": 1})
    assert opened(tmp_path / "list.csv", labels="none").train.num_rows == 2


def test_signatures_are_no_part_of_an_id(tmp_path):
    address = "https://host/bucket/a.png?X-Amz-Signature=secret"
    source = opened(tmp_path / "list.csv", f"uri,label\n{address},0\ns3://bucket/b?.png,0\nhttp://h/c.png#x,0\n")
    assert source.train["id"].to_pylist() == ["http://h/c.png", "https://host/bucket/a.png", "s3://bucket/b?.png"]
    assert address in source.train["uri"].to_pylist(), "it is read with its signature"


def test_relative_uris_need_not_be_plain():
    assert listed._absolute("s3://bucket/set", "./x/./a.png", "row 1") == "s3://bucket/set/x/a.png"


def test_tabs_quotes_and_byte_order_marks(tmp_path):
    source = opened(tmp_path / "list.tsv", '\ufeffuri\tlabel\n"a, b.jpg"\tcat\n')
    assert source.train["id"].to_pylist() == ["a, b.jpg"]


def test_parquet_lists(tmp_path):
    pq.write_table(
        pa.table({"uri": ["a.jpg", "b.jpg"], "label": pa.array([1, 0], pa.uint8())}), tmp_path / "list.parquet"
    )
    assert opened(tmp_path / "list.parquet").train["label"].to_pylist() == [1, 0]
    pq.write_table(pa.table({"uri": ["a.jpg"], "label": [0.5]}), tmp_path / "list.parquet")
    assert opened(tmp_path / "list.parquet").class_names == ("0.5",)
    pq.write_table(pa.table({"uri": ["a.jpg"], "label": [[1]]}), tmp_path / "list.parquet")
    with pytest.raises(DataError, match=r"list.parquet has list<.* in the column label"):
        opened(tmp_path / "list.parquet")
    write(tmp_path / "list.parquet", b"no")
    with pytest.raises(DataError, match=r"list.parquet is no Parquet file"):
        opened(tmp_path / "list.parquet")


def test_a_share_is_held_out_without_splits(tmp_path):
    source = opened(
        tmp_path / "list.csv", "uri,label\n" + "".join(f"{i}.jpg,a\n" for i in range(20)), val_fraction=0.25
    )
    assert (source.train.num_rows, source.val.num_rows) == (15, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,1\n", "lacks the column uri: found path, label; expected uri, and if you like label"),
        ("path\na.jpg\n", "lacks the column uri: found path"),
        ("uri,label\n", "no rows"),
        ("", "cannot be read as a list"),
        ("uri,label\na.jpg,1\nb.jpg\n", "cannot be read as a list"),
        ("uri,label\n,1\n", "row 1 has no uri"),
        ("uri,label,split\na.jpg,1,train\nb.jpg,1,dev\n", "row 2 has the split 'dev'; use train"),
        ("uri,label,split\na.jpg,1,val\n", "no images whose split is train"),
        ("uri,label,split\na.jpg,1,test\n", "no images whose split is train"),
        (
            "uri,label,split\na.jpg,x,train\nb.jpg,y,val\n",
            "1 classes in its split val that its split train lacks, for example 'y'",
        ),
        ("uri,label\na.jpg,1\nb.jpg,-1\n", "row 2 has the label -1"),
        ("uri,label,split\na.jpg,1,train\nb.jpg,1,\n", "row 2 has no split; use train"),
        ("uri,label,split\nt.jpg,-1,test\na.jpg,1,train\nb.jpg,-1,train\n", "row 3 has the label -1"),
        (
            "uri,label\nhttps://h/a.png?sig=1,1\nhttps://h/a.png?sig=2,1\n",
            "1 ids more than once, for example 'https://h/a.png'",
        ),
        ("uri,label\na.jpg,1\n../b.jpg,1\n", "row 2 has the uri '../b.jpg', which leaves"),
        ("uri,label\na.jpg,1\na.jpg,2\n", "1 ids more than once, for example 'a.jpg'"),
    ],
)
def test_lists_that_are_wrong(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path / "list.csv", text)
    assert f"{tmp_path}/list.csv" in str(caught.value)


def test_files_that_do_not_exist_are_found_when_they_are_read(tmp_path):
    write(tmp_path / "a.jpg", b"A")
    source = opened(tmp_path / "list.csv", "uri,label\na.jpg,1\nb.jpg,1\n")
    first, second = read_images(source.train)
    assert (first, second.reason) == (b"A", "missing")
