import re

import pytest

from acrn_jax.data_prep.image_folder import image_folder_dataset_builder as image_folder
from tests.fixtures import image_folder as fixture


def read(root, **changes):
    return image_folder.read(raw_dir=root, csv=fixture.write(root, **changes))


def test_reads_what_the_csv_says(tmp_path):
    contents = read(tmp_path)
    found = [
        (split, e.file_name, e.person_id, e.camera_id, list(e.attributes))
        for split, examples in contents.splits.items()
        for e in examples
    ]
    assert found == [
        ("train", "a/0001.jpg", 7, 1, [1, 0]),
        ("train", "a/0002.png", 7, 2, [1, -1]),
        ("query", "b/0003.jpg", 9, 1, [0, -1]),
        ("gallery", "b/0004.jpg", 9, 2, [0, 1]),
        ("gallery", "b/0005.jpg", 0, 2, [-1, -1]),
        ("gallery", "b/0006 with space.bmp", -1, -1, [-1, -1]),
    ]
    assert contents.metadata == {"attribute_names": ["hat", "skirt"], "protocol": "market1501"}
    assert contents.splits["train"][0].image == tmp_path / "a/0001.jpg"


def test_names_of_people_are_numbered_in_sorted_order(tmp_path):
    names = {"7": "zoe", "9": "adam"}
    rows = [(path, names.get(person, person), *rest) for path, person, *rest in fixture.ROWS]
    contents = read(tmp_path, rows=rows)
    assert contents.metadata["person_names"] == {"adam": 1, "zoe": 2}
    assert [e.person_id for s in contents.splits.values() for e in s] == [2, 2, 1, 1, 0, -1]


@pytest.mark.parametrize("leave_out", [None, 2])
def test_without_cameras_and_attributes(tmp_path, leave_out):
    keep = [i for i in range(4) if i != leave_out]
    rows = [[row[i] if i != 2 else "" for i in keep] for row in fixture.ROWS]
    contents = read(tmp_path, rows=rows, header=[fixture.HEADER[i] for i in keep])
    assert contents.metadata == {"attribute_names": [], "protocol": "single_shot"}
    assert {e.camera_id for s in contents.splits.values() for e in s} == {-1}


def test_attribute_set(tmp_path):
    rows = [(*row[:3], split, *row[4:]) for row, split in zip(fixture.ROWS, ["train", "test", "val"] * 2, strict=True)]
    contents = read(tmp_path, rows=rows)
    assert contents.metadata["protocol"] == "attributes" and list(contents.splits) == ["train", "val", "test"]


def rows_of(*people):
    """Rows of (person, camera, split), of the fixture's images."""
    return [(row[0], *person, "", "") for row, person in zip(fixture.ROWS, people, strict=False)]


@pytest.mark.parametrize(
    ("people", "protocol", "words"),
    [
        ([("9", "1", "query"), ("9", "1", "gallery"), ("9", "1", "gallery")], "multi_shot", "Nobody is seen by two"),
        ([("9", "1", "query"), ("9", "1", "gallery"), ("8", "2", "gallery")], "multi_shot", "Nobody is seen by two"),
        ([("9", "", "query"), ("9", "", "gallery"), ("8", "", "gallery")], "single_shot", "3 of 3 .* no camera"),
        ([("9", "", "query"), ("9", "", "gallery"), ("9", "", "gallery")], "multi_shot", "3 of 3 .* no camera"),
        ([("9", "1", "query"), ("9", "", "gallery"), ("9", "2", "gallery")], "multi_shot", "1 of 3 .* no camera"),
        ([("9", "1", "query"), ("9", "2", "gallery"), ("0", "", "gallery")], "market1501", None),
        ([("9", "1", "query"), ("9", "2", "gallery"), ("8", "1", "query")], "market1501", None),
    ],
)
def test_the_protocol_fits_the_cameras(tmp_path, people, protocol, words):
    contents = read(tmp_path, rows=rows_of(*people))
    assert contents.metadata["protocol"] == protocol
    assert [bool(re.match(words or "none", note)) for note in contents.notes] == [True] * (words is not None)


@pytest.mark.parametrize("form", ["7", "007", "+7", "7.0", "7."])
def test_numbers_as_programs_write_them(tmp_path, form):
    rows = [
        ("a/0001.jpg", form, "1.0", "train", "1.0", "0.0"),
        ("a/0002.png", "7", "02", "train", "-1.0", ""),
        ("b/0003.jpg", "0.0", "-1.0", "gallery", "1", "0"),
        ("b/0004.jpg", "8.0", "", "gallery", "1", "0"),
        ("b/0005.jpg", "-1.0", "3", "gallery", "1", "0"),
        ("b/0006 with space.bmp", "8", "3", "query", "1", "0"),
    ]
    contents = read(tmp_path, rows=rows)
    found = [[(e.person_id, e.camera_id) for e in part] for part in contents.splits.values()]
    assert found == [[(7, 1), (7, 2)], [(8, 3)], [(0, -1), (8, -1), (-1, 3)]]
    assert [list(e.attributes) for e in contents.splits["train"]] == [[1, 0], [-1, -1]]
    assert "person_names" not in contents.metadata


def test_numbers_among_names_are_names_and_told(tmp_path):
    rows = rows_of(("7", "1", "train"), ("x9", "1", "train"), ("07", "1", "train"), ("0.0", "1", "train"))
    contents = read(tmp_path, rows=rows)
    assert contents.metadata["person_names"] == {"07": 1, "7": 2, "x9": 3}
    assert [e.person_id for e in contents.splits["train"]] == [2, 3, 1, 0]
    assert contents.notes == ["person_id has numbers (07) and names (x9): all of them are taken as names."]


def test_a_missing_value_is_no_name(tmp_path):
    with pytest.raises(ValueError, match="line 3: person_id 'nan'; give a number or a name"):
        read(tmp_path, rows=rows_of(("anna", "1", "train"), ("nan", "1", "train")))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, "b/none.jpg", r"line 4: no file .*b/none\.jpg"),
        (0, "a/0001.jpg", r"line 4: a/0001\.jpg was in line 2 already"),
        (0, "./a/0001.jpg", r"line 4: a/0001\.jpg was in line 2 already"),
        (0, "../images.csv", "line 4: path '../images.csv'; wanted is a path below"),
        (0, "/etc/hosts", "line 4: path '/etc/hosts'"),
        (0, "", "line 4: path ''"),
        (1, "", "line 4: no person_id"),
        (1, "-2", "line 4: person_id '-2'; wanted is an integer from -1"),
        (1, "99999999999", "line 4: person_id '99999999999'"),
        (2, "east", "line 4: camera_id 'east'"),
        (2, "1.5", "line 4: camera_id '1.5'"),
        (3, "probe", "line 4: split 'probe'; wanted is one of train, val, test, query, gallery"),
        (3, "train", "query and gallery need each other"),
        (4, "2", "line 4: hat is '2'; wanted is 1, 0"),
        (5, "1,1", "line 4: not 6 values"),
    ],
)
def test_wrong_values(tmp_path, column, value, message):
    rows = [list(row) for row in fixture.ROWS]
    rows[2][column] = value
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(tmp_path, rows=rows)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("path", "person", "camera_id", "split", "hat", "skirt"), "add person_id"),
        (("file", "person_id", "camera_id", "part", "hat", "skirt"), "add path, split"),
        (("path", "person_id", "camera_id", "split", "hat", "hat"), "a name of its own"),
        (("path", "person_id", "camera_id", "split", "hat", ""), "a name of its own"),
        (("path", "person_id", "camera_id", "split", "hat"), "line 2: not 5 values"),
    ],
)
def test_wrong_columns(tmp_path, header, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, header=header)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"has the columns \(none\); add path, person_id, split"),
        (b"path,person_id,split\n", "lists no images"),
        (b"path;person_id;split\na;1;train\n", "has the columns path;person_id;split; add"),
        ("path,person_id,split\nä.jpg,1,train\n".encode("latin-1"), "not a CSV in UTF-8"),
        (b'path,person_id,split\n"a.jpg,1,train\n', "not a CSV in UTF-8"),
    ],
)
def test_files_that_are_no_such_csv(tmp_path, content, message):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        image_folder.read(raw_dir=tmp_path, csv=tmp_path / "x.csv")


def test_missing_folder_and_csv(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*none"):
        image_folder.read(raw_dir=tmp_path / "none", csv=tmp_path / "x.csv")
    with pytest.raises(FileNotFoundError, match=r"No file .*x\.csv"):
        image_folder.read(raw_dir=tmp_path, csv=tmp_path / "x.csv")


def test_spreadsheet_byte_order_mark(tmp_path):
    csv = fixture.write(tmp_path)
    csv.write_bytes(b"\xef\xbb\xbf" + csv.read_bytes().replace(b"\n", b"\r\n"))
    assert len(image_folder.read(raw_dir=tmp_path, csv=csv).splits["gallery"]) == 3
