"""Another program changes the output folder while files are saved in it: it moves folders, removes things, and puts
links, files and folders in their places. Nothing outside is written, and only errors for users are raised."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from msd.client.storage.existing_file import Policy
from msd.client.storage.tree import Tree
from msd.wire.errors import MsdError
from tests.memory_worker import entry_of, manifest_of

FOLDERS = ["", "a/", "a/b/", "c/"]
NAMES = st.sampled_from([folder + name for folder in FOLDERS for name in ("x", "y")])
TARGETS = st.sampled_from(["a", "a/b", "c", "x", "a/x", "a/b/y", ".x.msd-part", "a/.x.msd-part", "a/b/.y.msd-part"])


class TreeMachine(RuleBasedStateMachine):
    @initialize(update=st.booleans(), force=st.booleans(), sync=st.booleans())
    def begin(self, update: bool, force: bool, sync: bool) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="msd-t-"))
        self.outside, self.out = self.base / "outside", self.base / "out"
        (self.outside / "b").mkdir(parents=True)
        (self.outside / "x").write_bytes(b"outside")
        (self.outside / "b" / "y").write_bytes(b"outside")
        self.tree = Tree(self.out, policy=Policy(update=update, force=force), make=True, sync=sync)
        self.count = 0

    # What the download does.

    @rule(name=NAMES, size=st.sampled_from([0, 1, 500]))
    def save(self, name: str, size: int) -> None:
        data = self.data(size)
        with contextlib.suppress(MsdError):
            self.tree.check(entry_of(name, data))
            self.tree.save(entry_of(name, data), memoryview(data))

    @rule(name=NAMES)
    def fetch(self, name: str) -> None:
        data = self.data(300)
        manifest = manifest_of(name, data)
        try:
            output = self.tree.open(manifest)
            for index in range(manifest.segments):
                offset, length = manifest.span(index)
                output.write(index, memoryview(data)[offset : offset + length])
            self.tree.finish(manifest)
        except MsdError:
            self.tree.discard(name)

    @rule(name=st.sampled_from(FOLDERS[1:]))
    def add_folder(self, name: str) -> None:
        with contextlib.suppress(MsdError):
            self.tree.add_folder(entry_of(name, b""))

    @rule(name=NAMES)
    def compare(self, name: str) -> None:
        with contextlib.suppress(MsdError):
            assert [*self.tree.compare(entry_of(name, b"content of the attacker"))][-1] in (True, False)

    @rule()
    def complete(self) -> None:
        with contextlib.suppress(MsdError):
            self.tree.complete()
            self.tree.sync_names()

    @rule()
    def remove_leftovers(self) -> None:
        self.tree.remove_leftovers(lambda name: True)

    # What the other program does.

    @rule(place=TARGETS, kind=st.sampled_from(["link", "link to a file", "file", "folder", "nothing", "moved"]))
    def attack(self, place: str, kind: str) -> None:
        path = self.out / place
        if any(parent.is_symlink() for parent in path.parents if parent != self.base):
            return  # The attacker does not act outside itself.
        with contextlib.suppress(OSError):
            if kind == "moved":
                path.rename(self.base / f"moved{self.count}")
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self.count += 1
        with contextlib.suppress(OSError):
            match kind:
                case "link":
                    path.symlink_to(self.outside)
                case "link to a file":
                    path.symlink_to(self.outside / "x")
                case "file":
                    path.write_bytes(b"content of the attacker")
                case "folder":
                    path.mkdir()

    @invariant()
    def nothing_outside_is_changed(self) -> None:
        if hasattr(self, "outside"):
            found = {
                str(path.relative_to(self.outside)): path.is_dir() or path.read_bytes()
                for path in self.outside.rglob("*")
            }
            assert found == {"b": True, "x": b"outside", "b/y": b"outside"}

    def data(self, size: int) -> bytes:
        self.count += 1
        return (f"{self.count} ".encode() * size)[:size]

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.tree.close()
            shutil.rmtree(self.base)


TreeMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
test_any_interleaving = TreeMachine.TestCase
