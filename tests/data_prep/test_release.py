import pytest

from acrn_jax.data_prep import release

WANTED = ("bounding_box_train", "query")


def make(folder, *names):
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


@pytest.mark.parametrize("inner", ["", "a", "a/b", "a/b/c"])
def test_finds_the_folder_at_every_depth(tmp_path, inner):
    root = make(tmp_path / inner, *WANTED)
    make(tmp_path, "__MACOSX/" + WANTED[0], "__MACOSX/" + WANTED[1], ".old/" + WANTED[0], ".old/" + WANTED[1])
    assert release.find_folder(tmp_path, WANTED) == root


def test_the_nearest_folder_wins_and_capitals_do_not_matter(tmp_path):
    make(tmp_path, "z/Query", "z/Bounding_Box_Train", "a/b/query", "a/b/bounding_box_train", "y/query")
    found = release.find_folder(tmp_path, WANTED)
    assert found == tmp_path / "z"
    assert release.child(found, "query").name.lower() == "query" and release.child(found, "gt_bbox") is None


def test_what_is_wanted_may_be_a_file(tmp_path):
    make(tmp_path, "a").joinpath("a/list.txt").touch()
    assert release.find_folder(tmp_path, ["list.txt"]) == tmp_path / "a"


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere"):
        release.find_folder(tmp_path / "nowhere", WANTED)
    with pytest.raises(FileNotFoundError, match=r"bounding_box_train, query in .*, which holds nothing"):
        release.find_folder(tmp_path, WANTED)
    make(tmp_path, "1/2/3/4/query", "1/2/3/4/bounding_box_train")
    with pytest.raises(FileNotFoundError, match="which holds 1;"):
        release.find_folder(tmp_path, WANTED)
    make(tmp_path, "market/query")
    with pytest.raises(FileNotFoundError, match="market has no bounding_box_train"):
        release.find_folder(tmp_path, WANTED)
    make(tmp_path, "market/bounding_box_train", "copy/query", "copy/bounding_box_train")
    with pytest.raises(ValueError, match=r"copy and .*market both hold"):
        release.find_folder(tmp_path, WANTED)


def test_reads_names_in_order_and_passes_over_what_is_no_image(tmp_path):
    for name in ("2.jpg", "10.jpg", "Thumbs.db", ".DS_Store", "._2.jpg", "notes.txt", "x.png", "3.JPG", "٣.jpg"):
        (tmp_path / name).touch()
    make(tmp_path, "4.jpg")
    named, faults = release.read_names(tmp_path, r"(\d+)\.jpg", example="1.jpg")
    assert [(path.name, match[1]) for path, match in named] == [("10.jpg", "10"), ("2.jpg", "2")]
    assert [fault.split(" is not named as 1.jpg is")[0] for fault in faults] == [
        str(tmp_path / name) for name in ("3.JPG", "x.png", "٣.jpg")
    ]


def test_folder_without_images(tmp_path):
    (tmp_path / "Thumbs.db").touch()
    with pytest.raises(FileNotFoundError, match="holds no images"):
        release.read_names(tmp_path, ".*", example="1.jpg")
    with pytest.raises(FileNotFoundError, match=r"Thumbs\.db is no folder"):
        release.read_names(tmp_path / "Thumbs.db", ".*", example="1.jpg")
