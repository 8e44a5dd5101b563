"""Folders as people have them, one a row: read rightly (labels, counts, pixels), or refused with the way on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from data_kinds import (
    TWO,
    Kind,
    Maker,
    cache_folder,
    check_kind,
    empty,
    file,
    folder,
    given,
    link,
    one,
    read,
    refuse,
)

from trainables.datasets import DatasetError, Reading, load
from trainables.datasets.reading import TOO_FEW

__all__ = ["cache_folder"]  # a fixture

CAT_DOG = (folder("cat"), folder("dog"))
SPLIT = (folder("train/cat"), folder("train/dog"), folder("test/cat", 2), folder("test/dog", 3))
IN_PARTS = {"test": {"cat": 2, "dog": 3}, "train": {"cat": 4, "dog": 4}}
FOUR = {"train": {"cat": 4, "dog": 4}}
PLAIN_PICTURE = (b"\x89PNG\r\n", "x")


def split(train: str, test: str) -> tuple[Maker, ...]:
    return folder(f"{train}/cat"), folder(f"{train}/dog"), folder(f"{test}/cat", 2), folder(f"{test}/dog", 3)


LAYOUTS: dict[str, Kind] = {
    "class folders": read(*CAT_DOG, parts=TWO, layout="class folders"),
    "pictures deeper in a class": read(folder("cat/2020/may", shows="cat"), folder("dog"), parts=TWO),
    "all classes have a folder images": read(
        folder("cat/images", shows="cat"), folder("dog/images", shows="dog"), parts=TWO
    ),
    "an archive's own folder": read(folder("pets/cat"), folder("pets/dog"), parts=TWO, layout="class folders in pets"),
    "an archive's own folders, one in another": read(
        folder("a/pets/cat"), folder("a/pets/dog"), file("a/readme.md"), parts=TWO, left_out={"not a picture: .md": 1}
    ),
    "train and test": read(*SPLIT, parts=IN_PARTS, layout="class folders in parts: test = test, train = train"),
    "Train and TEST": read(*split("Train", "TEST"), parts=IN_PARTS),
    "training and testing": read(*split("training", "testing"), parts=IN_PARTS),
    "training_set and test_set": read(*split("training_set", "test_set"), parts=IN_PARTS),
    "training_set twice": read(*split("training_set/training_set", "test_set/test_set"), parts=IN_PARTS),
    "seg_train, seg_test and seg_pred": read(
        *split("seg_train/seg_train", "seg_test/seg_test"),
        folder("seg_pred/seg_pred", 5, shows="fox"),
        parts=IN_PARTS,
        left_out={"in seg_pred/, which is named like a part without labels": 5},
        layout="class folders in parts: test = seg_test/seg_test, train = seg_train/seg_train",
    ),
    "trainset and testset": read(*split("trainset", "testset"), parts=IN_PARTS),
    "TrainData and TestData": read(*split("TrainData", "TestData"), parts=IN_PARTS),
    "train2017 and test2017": read(*split("train2017", "test2017"), parts=IN_PARTS),
    "images_train and images_test": read(*split("images_train", "images_test"), parts=IN_PARTS),
    "train-images and holdout": read(*split("train-images", "hold-out"), parts=IN_PARTS),
    "dataset/train and dataset/test": read(*split("dataset/train", "dataset/test"), parts=IN_PARTS),
    "train, val and test": read(
        *SPLIT,
        folder("val/cat", 3),
        folder("val/dog", 3),
        parts={**IN_PARTS, "val": {"cat": 3, "dog": 3}},
    ),
    "train and dev, no test": read(
        folder("train/cat"),
        folder("train/dog"),
        folder("dev/cat", 1),
        folder("dev/dog", 1),
        parts={"dev": {}, "val": {"cat": 1, "dog": 1}, "train": {"cat": 4, "dog": 4}},
    ),
    "val lacks a class": read(*SPLIT, folder("val/cat", 3), parts={**IN_PARTS, "val": {"cat": 3, "dog": 0}}),
    "test lacks a class": read(
        folder("train/cat"),
        folder("train/dog"),
        folder("train/fox"),
        folder("test/cat", 2),
        folder("test/dog", 2),
        parts={"train": {"cat": 4, "dog": 4, "fox": 4}, "test": {"cat": 2, "dog": 2, "fox": 0}},
    ),
    "train lacks a class of test": refuse(
        *SPLIT,
        folder("test/fox"),
        because=(r"train has no folder for fox, but test has: .*--min-rows drop.*--classes",),
    ),
    "train lacks a class of test, which is left out": read(
        *SPLIT,
        folder("test/fox"),
        reading=Reading(min_rows=TOO_FEW),
        parts=IN_PARTS,
        left_out={"class with too few rows": 4},
    ),
    "train lacks a class of test, others are named": read(
        *SPLIT,
        folder("test/fox"),
        reading=Reading(classes=("cat", "dog")),
        parts=IN_PARTS,
        left_out={"class not named by --classes": 4},
    ),
    "extra and eval beside the parts": read(
        *SPLIT,
        folder("extra/cat", 2),
        folder("eval/cat", 3),
        parts=IN_PARTS,
        left_out={
            "in extra/, which is none of the parts (see --parts)": 2,
            "in eval/, which is none of the parts (see --parts)": 3,
        },
    ),
    "extra is used": read(
        *SPLIT,
        folder("extra/cat", 2),
        folder("extra/dog", 1),
        reading=given(("train", "train"), ("train", "extra"), ("test", "test")),
        parts={"test": {"cat": 2, "dog": 3}, "train": {"cat": 6, "dog": 5}},
    ),
    "eval is the test part": read(
        folder("train/cat"),
        folder("train/dog"),
        folder("eval/cat", 2),
        folder("eval/dog", 3),
        reading=given(("test", "eval")),
        parts=IN_PARTS,
    ),
    "parts of other names": read(
        *split("old", "new/pictures"),
        folder("junk", 3, shows="fox"),
        reading=given(("train", "old"), ("test", "new/pictures")),
        parts=IN_PARTS,
        left_out={"in junk/, which --parts does not name": 3},
        layout="class folders in parts: train = old, test = new/pictures",
    ),
    "a folder is ignored": read(
        *CAT_DOG,
        folder("fox"),
        reading=given(("ignore", "fox")),
        parts=TWO,
        left_out={"left out by --parts ignore=fox": 4},
    ),
    "a part that is not there": refuse(
        *SPLIT,
        reading=given(("train", "train"), ("test", "tset"), ("val", "nowhere")),
        because=(r"--parts test=tset: .*did you mean test\?.*there are: test, train", "val=nowhere: there is no"),
    ),
    "a test part without labels": refuse(
        folder("train/cat"),
        folder("train/dog"),
        folder("test", 5, shows="fox"),
        because=(
            r"5 images have no label \(.*/test/0\.png, .*\); give each one, or leave them out with "
            r"--on-unlabelled skip",
        ),
    ),
    "a test part without labels is left out": read(
        folder("train/cat"),
        folder("train/dog"),
        folder("test", 5, shows="fox"),
        reading=Reading(on_unlabelled="skip"),
        parts=FOUR,
        left_out={"no label": 5},
    ),
    "a test part without labels in a folder of its own": read(
        folder("train/cat"),
        folder("train/dog"),
        folder("test/images", 5, shows="fox"),
        reading=Reading(on_unlabelled="skip"),
        parts=FOUR,
        left_out={"no label": 5},
    ),
    "test1/test1 as of a competition": read(
        folder("train/train/cat"),
        folder("train/train/dog"),
        folder("test1/test1", 5, shows="fox"),
        reading=Reading(on_unlabelled="skip"),
        parts=FOUR,
        left_out={"no label": 5},
    ),
    "a test part without labels is named so": read(
        folder("train/cat"),
        folder("train/dog"),
        folder("test", 5, shows="fox"),
        reading=given(("unlabelled", "test")),
        parts=FOUR,
        left_out={"left out by --parts unlabelled=test": 5},
    ),
    "an empty test part": refuse(
        folder("train/cat"), folder("train/dog"), empty("test"), because=("no pictures for test/; add some, or remove",)
    ),
    "only a test part": refuse(
        folder("test/cat"), folder("test/dog"), because=("all 8 rows are test rows; add others to train on",)
    ),
    "folds": read(
        folder("fold0/cat", 2),
        folder("fold0/dog", 2),
        folder("fold1/cat", 2),
        folder("fold1/dog", 2),
        parts=TWO,
        layout="class folders in fold0, fold1",
    ),
    "folds in a part": read(
        folder("train/fold_1/cat", 2),
        folder("train/fold_1/dog", 2),
        folder("train/fold_2/cat", 2),
        folder("train/fold_2/dog", 2),
        folder("test/cat", 2),
        folder("test/dog", 3),
        parts=IN_PARTS,
    ),
    "folds without classes": refuse(
        folder("fold0", shows="cat"),
        folder("fold1", shows="dog"),
        because=("8 pictures lie directly in .*one level too",),
    ),
    "parts in class folders": read(
        folder("cat/train", shows="cat"),
        folder("cat/test", 2, shows="cat"),
        folder("dog/train", shows="dog"),
        folder("dog/test", 3, shows="dog"),
        parts=IN_PARTS,
        layout="parts in class folders: CLASS/test, CLASS/train",
    ),
    "folders that all hold the same folders": refuse(
        folder("amazon/cat"),
        folder("amazon/dog"),
        folder("webcam/cat"),
        folder("webcam/dog"),
        because=(
            r"amazon, webcam hold the same folders, cat, dog, which can be read in two ways: cat, dog are the classes: "
            r"--parts train=amazon,train=webcam; or amazon, webcam are the classes: --parts train=\.",
        ),
    ),
    "names of parts with other words": read(*split("pets_train", "my test pets"), parts=IN_PARTS),
    "some classes hold parts": refuse(
        folder("cat/train", shows="cat"),
        folder("cat/test", shows="cat"),
        folder("dog"),
        because=(r"cat holds parts \(test, train\), and the folders beside it.*--parts train=\.",),
    ),
    "two data sets": refuse(
        *(folder(f"{name}/{part}/{shows}") for name in "ab" for part in ("train", "test") for shows in ("cat", "dog")),
        because=(r"a holds parts \(test, train\).*give .*/a as the data set",),
    ),
    "folders of years that hold nearly the same folders": refuse(
        folder("2019/cat"),
        folder("2019/dog"),
        folder("2020/cat"),
        folder("2020/fox"),
        because=(r"2019, 2020 hold the same folders, cat, which can be read.*train=2019,train=2020.*train=\.",),
    ),
    "classes of which two have a folder of the same name": read(
        folder("cat/young", 2, shows="cat"),
        folder("cat/old", 1, shows="cat"),
        folder("cat/wild", 1, shows="cat"),
        folder("dog/young", 2, shows="dog"),
        folder("dog/trained", 1, shows="dog"),
        folder("dog/lost", 1, shows="dog"),
        parts=TWO,
    ),
    "a folder is named for two parts": refuse(
        *SPLIT,
        reading=given(("train", "train"), ("test", "train/")),
        because=("--parts: train is named more than once",),
    ),
    "all is ignored": refuse(*CAT_DOG, reading=given(("ignore", ".")), because=("no class folders",)),
    "parts that differ in case": refuse(
        folder("train/Cat", shows="cat"),
        folder("train/Dog", shows="dog"),
        folder("test/cat"),
        folder("test/dog"),
        because=(r"train has no folder for cat, dog, but test has; did you mean Cat\?",),
    ),
    "the same, read as parts": read(
        folder("amazon/cat", 2),
        folder("amazon/dog", 2),
        folder("webcam/cat", 2),
        folder("webcam/dog", 2),
        reading=given(("train", "amazon"), ("train", "webcam")),
        parts={"train": {"cat": 4, "dog": 4}},
    ),
    "the same, read as classes": read(
        folder("amazon/x", 2, shows="cat"),
        folder("amazon/y", 2, shows="cat"),
        folder("webcam/x", 2, shows="dog"),
        folder("webcam/y", 2, shows="dog"),
        reading=given(("train", ".")),
        parts={"train": {"amazon": 4, "webcam": 4}},
        shows={"amazon": "cat", "webcam": "dog"},
    ),
    "vehicles: a class called train": read(
        folder("train", shows="cat"),
        folder("bus", shows="dog"),
        folder("car", shows="fox"),
        parts={"all": {"bus": 4, "car": 4, "train": 4}},
        shows={"train": "cat", "bus": "dog", "car": "fox"},
    ),
    "vehicles in deeper folders": refuse(
        folder("train/steam", shows="cat"),
        folder("train/diesel", shows="cat"),
        folder("bus/city", shows="dog"),
        because=(
            r"train/ is named like a part, and beside it is bus.*--parts train=train; or all are classes: "
            r"--parts train=\.",
        ),
    ),
    "vehicles in deeper folders, read as classes": read(
        folder("train/steam", shows="cat"),
        folder("train/diesel", shows="cat"),
        folder("bus/city", shows="dog"),
        reading=given(("train", ".")),
        parts={"train": {"train": 8, "bus": 4}},
        shows={"train": "cat", "bus": "dog"},
    ),
    "a competition": read(
        *(one(f"train_images/{row}.jpg", ("cat", "dog")[row % 2]) for row in range(8)),
        folder("test_images", shows="fox"),
        file("train.csv", "image_id,label\n" + "".join(f"{row}.jpg,{('cat', 'dog')[row % 2]}\n" for row in range(8))),
        file("sample_submission.csv", "image_id,label\n0.jpg,cat\n"),
        parts=TWO,
        left_out={"picture that no row names": 4, "table": 1},
    ),
    "a folder as of Hugging Face": read(
        *(one(f"{part}/{row}.png", ("cat", "dog")[row % 2]) for part in ("train", "test") for row in range(8)),
        *(
            file(f"{part}/metadata.csv", "file_name,label\n0.png,cat\n1.png,dog\n2.png,cat\n3.png,dog\n")
            for part in ("train", "test")
        ),
        parts={"train": {"cat": 2, "dog": 2}, "test": {"cat": 2, "dog": 2}},
        left_out={"picture that no row names": 8},
    ),
    "a competition without its table": refuse(
        folder("train_images", shows="cat"),
        folder("test_images", shows="dog"),
        because=("8 pictures lie directly in .*, one level too high: a data set has a folder for each class", "table"),
    ),
    "train and test without classes": refuse(
        folder("train", shows="cat"),
        folder("test", shows="dog"),
        folder("sample", shows="fox"),
        because=("lie directly in .*test, .*train, one level too high",),
    ),
    "pictures in no folder": refuse(
        one("a.jpg", "cat"), one("b.jpg", "dog"), because=(r"2 pictures lie directly in .*one level too high",)
    ),
    "pictures in no folder, named after their class": refuse(
        *(one(f"{name}.{row}.jpg", name) for name in ("cat", "dog") for row in range(3)),
        because=(r"their names begin with cat, dog: if these are the classes, make folders of them",),
    ),
    "all pictures in one folder": refuse(
        folder("images", 6, shows="cat"), because=("only one class, images; a data set has a folder for each class",)
    ),
    "labels in files for detection": refuse(
        folder("train/images", shows="cat"),
        file("train/labels/0.txt"),
        folder("val/images", shows="cat"),
        file("val/labels/0.txt"),
        because=("only one class, images",),
    ),
    "parts below a folder that others lie beside": refuse(
        *split("fruit/Training", "fruit/Test"),
        folder("multiple", shows="fox"),
        because=(r"fruit holds parts \(Test, Training\), and the folders beside it .*give .*fruit as the data set",),
    ),
    "an empty class": refuse(*CAT_DOG, empty("fox"), because=("no pictures for fox; add some, or remove the folder",)),
    "an empty class that is not chosen": read(
        *CAT_DOG, empty("fox"), reading=Reading(classes=("cat", "dog")), parts=TWO
    ),
    "a folder of texts beside the classes": read(
        *CAT_DOG, file("doc/a.txt"), file("doc/b.txt"), parts=TWO, left_out={"not a picture: .txt": 2}
    ),
    "pictures beside the classes": read(
        *CAT_DOG, one("cover.png", "fox"), parts=TWO, left_out={"picture outside the class folders": 1}
    ),
    "a file of no use": refuse(file("notes.txt"), because=("no images there.*found: 1 × not a picture: .txt",)),
}

TAKEN_IN: dict[str, Kind] = {
    "hidden folders of tools": read(
        *CAT_DOG,
        folder("cat/.ipynb_checkpoints", shows="cat"),
        folder("dog/.thumbnails", shows="dog"),
        folder("cat/@eaDir", 2, shows="cat"),
        folder("__MACOSX/cat", 3, shows="cat"),
        folder(".Trash-1000/files", 2, shows="dog"),
        parts=TWO,
        left_out={
            "in the hidden folder .ipynb_checkpoints": 4,
            "in the hidden folder .thumbnails": 4,
            "in the hidden folder .Trash-1000": 2,
            "in the folder @eaDir, which systems and tools make": 2,
            "in the folder __MACOSX, which systems and tools make": 3,
        },
    ),
    "hidden files": read(
        *CAT_DOG, one("cat/._0.png", "cat"), file("dog/.DS_Store"), parts=TWO, left_out={"hidden file": 2}
    ),
    "files of systems": read(
        *CAT_DOG,
        file("cat/Thumbs.db"),
        file("dog/desktop.ini"),
        parts=TWO,
        left_out={"not a picture: .db": 1, "not a picture: .ini": 1},
    ),
    "files that are no pictures": read(
        *CAT_DOG,
        file("cat/a.txt"),
        file("cat/a.ogg"),
        file("cat/b.ogg"),
        file("dog/LICENSE"),
        parts=TWO,
        left_out={"not a picture: .txt": 1, "not a picture: .ogg": 2, "not a picture: a name without a suffix": 1},
    ),
    "pictures in formats that are not read": read(
        *CAT_DOG,
        file("cat/a.svg", "<svg/>"),
        file("dog/a.cr2", b"II*\0"),
        file("dog/a.jp2", b"\0\0\0\x0cjP  "),
        parts=TWO,
        left_out={
            "picture in a format that is not read: .svg": 1,
            "picture in a format that is not read: .cr2": 1,
            "picture in a format that is not read: .jp2": 1,
        },
    ),
    "many kinds of other files": read(
        *CAT_DOG,
        *(file(f"cat/a.x{number}") for number in range(12)),
        parts=TWO,
        left_out={
            **{f"not a picture: .x{n}": 1 for n in (0, 1, 10, 11, 2, 3, 4, 5)},
            "not a picture, of other types": 4,
        },
    ),
    "a folder named like a picture": read(
        *CAT_DOG, empty("cat/9.jpg"), parts=TWO, left_out={"folder named like a picture": 1}
    ),
    "a folder named like a picture that holds pictures": read(
        *CAT_DOG, folder("cat/more.jpg", 2, shows="cat"), parts={"all": {"cat": 6, "dog": 4}}
    ),
    "a table among the pictures": read(*CAT_DOG, file("cat/rows.csv"), parts=TWO, left_out={"table": 1}),
}

NAMES: dict[str, Kind] = {
    "suffixes of all kinds": read(
        *(folder("cat", 1, suffix) for suffix in (".jpg", ".bmp", ".gif", ".webp", ".tif")),
        *(folder("cat", 1, suffix, format="jpeg") for suffix in (".jfif", ".jpe", ".JPEG", ".JPG")),
        folder("dog", 5),
        parts={"all": {"cat": 9, "dog": 5}},
    ),
    "pictures without a suffix, and of unknown ones": read(
        folder("cat", 2, ""),
        folder("cat", 2, ".orig"),
        folder("dog", 1, ".dat", format="jpeg"),
        folder("dog", 2, ".1", format="gif"),
        folder("dog", 1, ".x", format="bmp"),
        parts=TWO,
    ),
    "a wrong suffix": read(folder("cat", format="jpeg"), folder("dog"), parts=TWO),
    "class folders that are links": read(
        folder("elsewhere/cats", shows="cat"),
        link("pets/cat", "../elsewhere/cats"),
        folder("pets/dog"),
        path="pets",
        parts=TWO,
    ),
    "pictures that are links": read(
        *CAT_DOG,
        one("elsewhere/x.png", "cat"),
        link("cat/x.png", "../elsewhere/x.png"),
        reading=given(("ignore", "elsewhere")),
        parts={"all": {"cat": 5, "dog": 4}},
        left_out={"left out by --parts ignore=elsewhere": 1},
    ),
    "a link to the folder above": read(
        *CAT_DOG, link("cat/up", ".."), parts=TWO, left_out={"link to a folder that is read already": 1}
    ),
    "a class that is a link to another": read(
        *CAT_DOG, link("fox", "cat"), parts=TWO, left_out={"link to a folder that is read already": 1}
    ),
    "val is a link to test": read(
        *SPLIT, link("val", "test"), parts=IN_PARTS, left_out={"link to a folder that is read already": 1}
    ),
    "a link that leads nowhere": refuse(
        *CAT_DOG,
        link("cat/x.png", "gone.png"),
        because=(r"cat/x\.png: a link to a file that is not there", "--on-bad-image skip"),
    ),
    "a link that leads nowhere is left out": read(
        *CAT_DOG,
        link("cat/x.png", "gone.png"),
        reading=Reading(on_bad_image="skip"),
        parts=TWO,
        left_out={"cannot be read": 1},
    ),
    "a link to itself": read(
        *CAT_DOG,
        link("cat/x.png", "x.png"),
        reading=Reading(on_bad_image="skip"),
        parts=TWO,
        left_out={"cannot be read": 1},
    ),
    "other links that lead nowhere": read(
        *CAT_DOG, link("cat/notes", "gone"), link("cat/me", "me"), parts=TWO, left_out={"link that leads nowhere": 2}
    ),
    "pipes": read(
        *CAT_DOG,
        lambda root: os.mkfifo(root / "cat" / "x.png"),
        lambda root: os.mkfifo(root / "cat" / "x"),
        reading=Reading(on_bad_image="skip"),
        parts=TWO,
        left_out={"cannot be read": 1, "not a file": 1},
    ),
    "names that are not UTF-8": read(
        *CAT_DOG,
        one(os.fsdecode(b"cat/caf\xe9.png"), "cat"),
        folder(os.fsdecode(b"\xff"), shows="fox"),
        parts={"all": {"cat": 5, "dog": 4, "\\xff": 4}},
        shows={"\\xff": "fox"},
    ),
    "control characters, markup and emoji in names": read(
        folder("a\x1b[31mb", shows="cat"),
        folder("<b>\n", shows="dog"),
        folder("🦊", shows="fox"),
        parts={"all": {"a\x1b[31mb": 4, "<b>\n": 4, "🦊": 4}},
        shows={"a\x1b[31mb": "cat", "<b>\n": "dog", "🦊": "fox"},
    ),
    "a bad picture with an escape in its name": refuse(
        *CAT_DOG,
        file("cat/\x1b[31m\nerror: x.png"),
        because=(r"cat/\\x1b\[31m\\nerror: x\.png: the image cannot be read",),
    ),
    "composed and decomposed": read(
        folder("train/caf\u00e9", shows="cat"),
        folder("train/dog"),
        folder("test/cafe\u0301", 2, shows="cat"),
        folder("test/dog", 3),
        parts={"train": {"caf\u00e9": 4, "dog": 4}, "test": {"caf\u00e9": 2, "dog": 3}},
        shows={"caf\u00e9": "cat"},
    ),
    "many small classes": read(
        *(folder(f"{number:03}", 3, shows="cat") for number in range(100)),
        parts={"all": {f"{number:03}": 3 for number in range(100)}},
        shows={f"{number:03}": "cat" for number in range(100)},
    ),
    "small classes": refuse(
        *CAT_DOG, folder("fox", 1), because=(r"'fox' has 1; .*at least 3.*--min-rows drop.*--classes",)
    ),
    "small classes are left out": read(
        *CAT_DOG,
        folder("fox", 1),
        reading=Reading(min_rows=TOO_FEW),
        parts=TWO,
        left_out={"class with too few rows": 1},
    ),
}

KINDS = {**LAYOUTS, **TAKEN_IN, **NAMES}


@pytest.mark.parametrize("name", KINDS)
def test_kind(name: str, tmp_path: Path) -> None:
    check_kind(KINDS[name], tmp_path / "data")


def test_folders_that_cannot_be_looked_into_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (*CAT_DOG, folder("fox"), folder("cat/deep", shows="cat")):
        make(tmp_path)
    scan = os.scandir

    def refusing(path: Path) -> Any:
        if Path(path).name in ("fox", "deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DatasetError) as refused:
        load(str(tmp_path))
    named = [problem.partition(":")[0] for problem in refused.value.problems]
    assert named == [f"{tmp_path}/fox", f"{tmp_path}/cat/deep"]
    found = load(str(tmp_path), Reading(on_bad_image="skip")).inventory
    assert found.parts == TWO
    assert {left.reason: left.count for left in found.left_out} == {"folder that cannot be opened": 2}
