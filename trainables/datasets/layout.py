"""How a folder of pictures is read: which of its folders are parts of the data set, which are classes."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainables.datasets.folder_names import FOLD, label_of, part_in, part_of
from trainables.datasets.reading import Reading
from trainables.datasets.tree import Reason, Tree, summed
from trainables.errors import DatasetError, did_you_mean, listed, shown


class NoClassFoldersError(DatasetError):
    """There are pictures, but no folders that are classes: a table may name the labels."""


@dataclass(frozen=True)
class Group:
    """The pictures of one part and one class: those in a folder, at all depths."""

    part: str  # empty if the data set has no parts
    label: str | None  # None: without one
    folder: Tree


@dataclass
class Layout:
    """The groups of a folder, what is left out, and how it was read, in words."""

    words: str
    groups: list[Group] = field(default_factory=list)
    left_out: list[tuple[Reason, Path]] = field(default_factory=list)


def read(root: Tree, reading: Reading) -> Layout:
    """Return how the folder is read.

    Raises:
        NoClassFoldersError: no folders are classes.
        DatasetError: it can be read in more than one way, which are named with the option for each, or is incomplete.
    """
    if not root.count:
        others = [f"{left.count:,} × {left.reason}" for left in summed(root.left_out(), root.path)]
        raise NoClassFoldersError(f"{shown(root.path)}: no images there{f'; found: {_some(others)}' if others else ''}")
    reader = _Reader(root, reading)
    reader.read()
    reader.check()
    return Layout(reader.words(), reader.groups, reader.left_out)


class _Reader:
    """Reads one folder: finds the groups of pictures in its parts and classes, and what is left out."""

    def __init__(self, root: Tree, reading: Reading) -> None:
        self.root, self.reading = root, reading
        self.groups: list[Group] = []
        self.left_out: list[tuple[Reason, Path]] = []
        self.places: dict[str, list[str]] = {}  # part → where its class folders are
        self.empty: list[str] = []  # class folders without pictures
        self.inverted = False  # the parts lie in the class folders

    def read(self) -> None:
        """Read the parts that `--parts` names and, unless one of them is to train on, the rest as its names show it."""
        claimed = self._claimed()
        folders = [folder for _, _, folder in claimed]
        for part, name, folder in claimed:
            rest = _without(folder, [other for other in folders if other is not folder])
            if part in ("ignore", "unlabelled"):
                self._leave_out(f"left out by --parts {part}={shown(name)}", rest)
            else:
                self._add_part(rest, part, certain=True)
        rest = _without(self.root, folders)
        if self.root in folders:
            pass
        elif any(part in ("train", "val") for part, _, _ in claimed):
            for folder in rest.filled:
                self._leave_out(f"in {shown(folder.name)}/, which --parts does not name", folder)
        else:
            self._add_unnamed(rest)
        labels = {group.label for group in self.groups if group.part != "test"}
        tested = {group.label for group in self.groups if group.part == "test"}
        if len(tested) == 1 < len(labels) and not tested & labels:  # test/images/, test1/test1/: no class
            self.groups = [dataclasses.replace(g, label=None) if g.part == "test" else g for g in self.groups]

    def check(self) -> None:
        """Raise DatasetError if a class has no pictures where it needs some, or if there is only one."""
        problems = []
        if self.empty:
            more = " …" if len(self.empty) > 10 else ""
            problems.append(
                f"{shown(self.root.path)}: no pictures for {', '.join(self.empty[:10])}{more}; add some, or remove "
                "the folder"
            )
        trained = {group.label for group in self.groups if group.part != "test" and group.label is not None}
        tested = {group.label for group in self.groups if group.part == "test" and group.label is not None}
        chosen = tested & set(self.reading.classes) if self.reading.classes else tested
        if trained and self.reading.min_rows is None and (missing := sorted(chosen - trained)):
            train = ", ".join(place for part, places in self.places.items() if part != "test" for place in places)
            problems.append(
                f"{train} has no folder for {listed(missing)}, but {', '.join(self.places['test'])} has"
                f"{did_you_mean(missing[0], trained)}: add pictures to train on, leave the class out with --min-rows "
                "drop, or name those to use with --classes"
            )
        if problems:
            raise DatasetError(*problems)
        if len(trained | tested) < 2:
            raise NoClassFoldersError(*self._one_class(sorted(trained | tested)))

    def words(self) -> str:
        """Describe the layout."""
        if self.inverted:
            parts = sorted({group.folder.name for group in self.groups})
            return f"parts in class folders: {', '.join(f'CLASS/{shown(name)}' for name in parts)}"
        if set(self.places) == {""}:
            places = [place for place in self.places[""] if place != "."]
            return f"class folders in {_some(places)}" if places else "class folders"
        parts = [f"{part} = {_some(places)}" for part, places in self.places.items()]
        return f"class folders in parts: {', '.join(parts)}"

    def _claimed(self) -> list[tuple[str, str, Tree]]:
        """Return each part that `--parts` names, its name, and its folder."""
        found = [(part, name, self.root.find(name)) for part, name in self.reading.parts]
        below = [_below(tree, self.root) for tree in (*self.root.folders, *_level(self.root.folders))]
        missing = [
            f"--parts {part}={shown(name)}: there is no such folder in {shown(self.root.path)}"
            f"{did_you_mean(name, below)} (there are: {listed(below)})"
            for part, name, folder in found
            if folder is None
        ]
        if missing:  # if none is there, they may be tables, or values in one
            raise (NoClassFoldersError if len(missing) == len(found) else DatasetError)(*missing)
        times = Counter(folder for _, _, folder in found)
        if twice := [
            f"--parts: {shown(name)} is named more than once" for _, name, folder in found if times[folder] > 1
        ]:
            raise DatasetError(*dict.fromkeys(twice))
        return [(part, name, folder) for part, name, folder in found if folder is not None]

    def _add_unnamed(self, tree: Tree) -> None:
        """Read a folder by the names and the structure of what is in it."""
        if named := self._named_parts(tree) or _loosely_named(tree):
            for part, folder in named:
                self._add_part(folder, part)
            for folder in tree.filled:
                if folder not in [part for _, part in named]:
                    self._leave_out(f"in {shown(folder.name)}/, which is none of the parts (see --parts)", folder)
            self.left_out += [("picture outside the class folders", file) for file in tree.loose]
        elif _holds_parts(tree.filled):
            self.inverted = True
            self.places[""] = ["."]
            self.groups += [
                Group(part_of(inner.name), label_of(folder.name), inner)
                for folder in tree.filled
                for inner in folder.filled
            ]
        elif inner := _wrapped(tree):
            self._add_unnamed(inner)
        else:
            self._add_classes(tree, "")

    def _named_parts(self, tree: Tree) -> list[tuple[str, Tree]]:
        """Return the folders in `tree` that are named like parts and hold class folders or, beside such, pictures."""
        named = [(part, folder) for folder in tree.folders if (part := part_of(folder.name))]
        whole = [(part, folder) for part, folder in named if folder.filled and part != "unlabelled"]
        beside = [folder for folder in tree.filled if not part_of(folder.name)]
        if not whole:
            flat = {part for part, folder in named if folder.loose}
            if flat and (not beside or {"train", "test"} <= flat):
                raise NoClassFoldersError(self._flat([folder for _, folder in named if folder.loose]))
            return []
        labels = {folder.name for _, part in whole for folder in part.filled}
        if len(named) == 1 and any(not labels & {inner.name for inner in folder.filled} for folder in beside):
            raise DatasetError(self._part_or_class(named[0], beside))
        self.empty += [f"{shown(folder.name)}/" for _, folder in named if not folder.count and folder.is_empty]
        return [(part, folder) for part, folder in named if folder.count]

    def _add_part(self, folder: Tree, part: str, certain: bool = False) -> None:
        """Add the groups of a part: its class folders, or its pictures without labels; see `_add_classes`."""
        if part == "unlabelled":
            self._leave_out(f"in {shown(folder.name)}/, which is named like a part without labels", folder)
            return
        while inner := _wrapped(folder):
            folder = inner
        if not folder.filled:
            self.groups.append(Group(part, None, folder))
        else:
            self._add_classes(folder, part, certain)

    def _add_classes(self, tree: Tree, part: str, certain: bool = False) -> None:
        """Add the folders in `tree` as classes, or those in its folds; unless `certain`, refuse what may be either."""
        folders = tree.filled
        if len(folders) > 1 and all(FOLD.fullmatch(folder.name) for folder in folders):
            if not all(folder.filled for folder in folders):
                raise NoClassFoldersError(self._flat(folders))
            for folder in folders:
                self._add_part(folder, part)
            return
        if not folders:
            raise NoClassFoldersError(self._flat([tree]))
        if not certain:
            self._refuse_ambiguous(tree)
        self.places.setdefault(part, []).append(_below(tree, self.root))
        self.left_out += [("picture outside the class folders", file) for file in tree.loose]
        wanted = [
            folder
            for folder in tree.folders
            if not self.reading.classes or label_of(folder.name) in self.reading.classes
        ]
        self.empty += [_below(folder, self.root) for folder in wanted if folder.is_empty]
        self.groups += [Group(part, label_of(folder.name), folder) for folder in folders]

    def _refuse_ambiguous(self, tree: Tree) -> None:
        """Raise DatasetError if the folders in `tree` may be parts or domains rather than classes."""
        for folder in tree.filled:
            if {"train", "test"} <= {part_of(inner.name) for inner in folder.filled}:
                raise DatasetError(
                    f"{shown(folder.path)} holds parts ({_some([inner.name for inner in folder.filled])}), and the "
                    f"folders beside it are read in another way: give {shown(folder.path)} as the data set, or read "
                    f"each folder as a class with --parts train={_below(tree, self.root)}"
                )
        if common := _shared(tree.filled):
            places = [_below(folder, self.root) for folder in tree.filled]
            parts = [f"{part_in(folder.name) or 'train'}={_below(folder, self.root)}" for folder in tree.filled]
            raise DatasetError(
                f"{shown(tree.path)}: {_some(places)} hold the same folders, {_some(common)}, which can be read "
                f"in two ways: {_some(common)} are the classes: --parts {_some(parts, ',')}; or {_some(places)} are "
                f"the classes: --parts train={_below(tree, self.root)}"
            )

    def _leave_out(self, reason: Reason, folder: Tree) -> None:
        self.left_out += [(reason, file) for file in folder.pictures()]

    def _part_or_class(self, named: tuple[str, Tree], beside: Sequence[Tree]) -> str:
        """Return the message that a folder named like a part may be a class."""
        part, folder = named
        others = _some([other.name for other in beside])
        return (
            f"{shown(self.root.path)}: {shown(folder.name)}/ is named like a part, and beside it is {others}, which "
            f"can be read in two ways: {shown(folder.name)}/ is a part, the others are left out: --parts "
            f"{'train' if part == 'val' else part}={_below(folder, self.root)}; or all are classes: --parts train=."
        )

    def _flat(self, folders: Sequence[Tree]) -> str:
        """Return the message that these folders hold pictures where class folders are needed."""
        pictures = [file for folder in folders for file in folder.loose]
        there = [folder for folder in folders if folder.loose]
        count = "1 picture lies" if len(pictures) == 1 else f"{len(pictures):,} pictures lie"
        places = _some([shown(folder.path) for folder in there])
        return (
            f"{count} directly in {places}, one level too high: a data set has a folder for each class, with its "
            f"pictures in it{_named_hint(pictures)}, or a table that names the file and the label of each picture"
            f"{self._tables_hint()}"
        )

    def _one_class(self, labels: Sequence[str]) -> list[str]:
        found = f"only one class, {listed(labels)}" if labels else "no class folders"
        return [
            f"{shown(self.root.path)}: {found}; a data set has a folder for each class, at least two, or a table that "
            f"names the file and the label of each picture{self._tables_hint()}"
        ]

    def _tables_hint(self) -> str:
        tables = [*self.root.tables, *(table for folder in self.root.folders for table in folder.tables)]
        return f" (if {shown(tables[0])} is one, give its path as the data set)" if tables else ""


def _wrapped(tree: Tree) -> Tree | None:
    """Return the only folder in `tree` with pictures if these lie in folders: an archive's own folder."""
    inner = tree.filled[0] if len(tree.filled) == 1 and not tree.loose else None
    return inner if inner and inner.filled and not inner.loose else None


def _holds_parts(folders: Sequence[Tree]) -> bool:
    """Return whether each of these folders holds the same parts, two or more, and nothing else; parts hold pictures."""
    parts = {tuple(part_of(inner.name) for inner in folder.filled) for folder in folders}
    known = len(parts) == 1 and all(map(all, parts)) and len(set(*parts)) > 1
    flat = all(inner.loose for folder in folders for inner in folder.filled)
    return known and flat and len(folders) > 1 and not any(folder.loose for folder in folders)


def _loosely_named(tree: Tree) -> list[tuple[str, Tree]]:
    """Return the folders as parts if they hold the same folders, and each name has the word of a part among others."""
    named = [(part, folder) for folder in tree.filled if (part := part_in(folder.name))]
    whole = len(named) == len(tree.filled) and len({part for part, _ in named}) > 1
    return named if whole and _shared(tree.filled) else []


def _shared(folders: Sequence[Tree]) -> list[str]:
    """Return the names of folders in more than one of `folders`, if they are half of all there and there is no more."""
    names = Counter(inner.name for folder in folders for inner in folder.filled)
    common = sorted(name for name, times in names.items() if times > 1)
    most = 2 * sum(names[name] for name in common) >= names.total() and len(names) > 1
    return common if len(folders) > 1 and most and not any(folder.loose for folder in folders) else []


def _without(tree: Tree, cut: Sequence[Tree]) -> Tree:
    """Return a folder without some of those below it."""
    if not cut or not tree.folders:
        return tree
    kept = [entry for entry in tree.entries if entry not in cut]
    return Tree(tree.path, [e if isinstance(e, Path) else _without(e, cut) for e in kept], tree.tables, tree.others)


def _level(folders: Sequence[Tree]) -> list[Tree]:
    return [inner for folder in folders for inner in folder.folders]


def _below(folder: Tree, root: Tree) -> str:
    return shown(folder.path.relative_to(root.path).as_posix())


def _some(names: Sequence[str], comma: str = ", ") -> str:
    """Return the first few names."""
    few = comma.join(map(shown, names[:4]))
    return f"{few}{comma}…" if len(names) > 4 else few


def _named_hint(pictures: Sequence[Path]) -> str:
    """Return what the beginnings of file names such as `cat.1.jpg` may mean; an empty text if nothing."""
    beginnings = Counter(match[0] for file in pictures if (match := re.match(r"[^\W\d_]+", file.stem)))
    if not 1 < len(beginnings) <= max(2, len(pictures) // 2) or sum(beginnings.values()) < len(pictures):
        return ""
    return f" (their names begin with {_some(sorted(beginnings))}: if these are the classes, make folders of them)"
