"""Places that results are written to: a path on this machine, or a URL in a bucket."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniadrs_scale.errors import StoreError
from uniadrs_scale.storage import buckets
from uniadrs_scale.storage.folders import temporary_folder
from uniadrs_scale.storage.urls import in_bucket, uri_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGES = (".html", ".htm")
ROOT = "zarr.json"
"""The object that makes a prefix a Zarr store."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder on this machine, or an object or prefix in a bucket.

    Made by :meth:`of`. It touches nothing until a method is called, and travels to other processes.
    """

    text: str
    """An absolute path, or a URL without a slash at its end."""

    @classmethod
    def of(cls, given: str | Path | Place, base: str | Path = "") -> Place:
        """Return the place that ``given`` names; a relative path counts from the folder ``base``.

        Raise StoreError if it is a URL that cannot be written to, or not a name in UTF-8.
        """
        if not isinstance(given, str | os.PathLike | Place):
            raise StoreError(
                f"A map or file is named by its path or URL, got {type(given).__name__}. Pass the "
                "path, such as 'map.zarr' of score(scene, 'map.zarr')."
            )
        text = str(given)
        if text.encode(errors="replace").decode() != text:
            raise StoreError(f"The name {text!a} is not UTF-8. Choose another one.")
        if in_bucket(text):
            if not text.partition("://")[2].strip("/").partition("/")[2]:
                raise StoreError(f"'{text}' names a bucket only. Add a name: {text}/map")
            return cls(text.rstrip("/"))
        if "://" in text:
            raise StoreError(
                f"'{text}' cannot be written to. Give a path, or a URL in a bucket (s3://, gs://)."
            )
        return cls(str(Path(base, text).absolute()))

    def __str__(self) -> str:
        return self.text

    @property
    def local(self) -> Path | None:
        """The path on this machine; None in a bucket."""
        return None if in_bucket(self.text) else Path(self.text)

    @property
    def name(self) -> str:
        """The last part."""
        return uri_name(self.text)

    @property
    def suffix(self) -> str:
        """The ending of the name, with the dot."""
        return Path(self.name).suffix

    def child(self, *names: str) -> Place:
        """Return the place with these names below this one."""
        return Place("/".join((self.text.rstrip("/"), *names)))

    def beside(self, name: str) -> Place:
        """Return another place in the same folder or prefix."""
        return Place(f"{self.text.rpartition('/')[0]}/{name}")

    def read(self, most: int | None = None) -> bytes | None:
        """Return the bytes, or the first ``most`` of them; None if the file does not exist.

        Raise OSError, in a folder StoreError, if they cannot be read.
        """
        if self.local is None:
            content = buckets.read_object(self.text)
            return None if content is None else content[:most]
        with self._explained("read"), suppress(FileNotFoundError), self.local.open("rb") as file:
            return file.read(most)
        return None

    def write(self, content: bytes | Path, media: str = "") -> None:
        """Put ``content`` here, whole or not at all: readers see the old file until then.

        Args:
            content: The bytes; or a file in a folder of :meth:`scratch`, which moves here.
            media: Media type in a bucket; by default that of the name's ending.

        Raises:
            StoreError: It cannot be written.
        """
        if self.local is None:
            buckets.write_object(self.text, content, media=media)
            return
        with self._explained("write"):
            self.local.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                write_whole(self.local, content)
            else:
                content.replace(self.local)

    def exists(self) -> bool:
        """Return True if there is a file, a folder or an object.

        Raise StoreError if that cannot be seen.
        """
        if self.local is None:
            return buckets.exists(self.text)
        with self._explained("read"):
            return self.local.exists()

    def has_store(self) -> bool:
        """Return True if there is a folder, or in a bucket a store whose root is written."""
        return self.child(ROOT).exists() if self.local is None else self.local.exists()

    def files(self) -> list[str]:
        """Return the names of all files below this place, relative to it."""
        if self.local is None:
            return buckets.list_keys(self.text)
        files = (file for file in self.local.rglob("*") if file.is_file())
        return [file.relative_to(self.local).as_posix() for file in files]

    def remove(self) -> None:
        """Remove the file or object, if there is one."""
        if self.local is None:
            parent, _, name = self.text.rpartition("/")
            buckets.remove_objects(parent, [name])
            return
        with self._explained("remove"):
            self.local.unlink(missing_ok=True)

    def remove_store(self) -> None:
        """Remove the folder or all objects, at no moment leaving half of a store.

        A folder is renamed before it is emptied; after a kill, what is left has a temporary name
        and goes with the next run (:mod:`.locks`). In a bucket the root goes first: without it,
        nothing is a store.
        """
        if self.local is None:
            buckets.remove_prefix(self.text, first=ROOT)
            return
        going = self._temporary()
        with self._explained("remove"):
            self.local.replace(going)
        shutil.rmtree(going, ignore_errors=True)

    def clear(self, going: Callable[[str], bool]) -> None:
        """Remove the files and stores right below whose names ``going`` accepts.

        A folder that is empty then goes, too.
        """
        if self.local is None:
            keys = [key for key in buckets.list_keys(self.text) if going(key.partition("/")[0])]
            roots = [key for key in keys if key.partition("/")[2] == ROOT]
            buckets.remove_objects(self.text, roots)
            buckets.remove_objects(self.text, [key for key in keys if key not in roots])
            return
        with self._explained("clear"):
            if not _is_folder(self.local):
                return
            for path in filter(lambda path: going(path.name), list(self.local.iterdir())):
                Place(str(path)).remove_store() if _is_folder(path) else path.unlink()
            if not any(self.local.iterdir()):
                self.local.rmdir()

    def remove_leftovers(self) -> None:
        """Remove what a killed :meth:`remove_store` left in a bucket. The caller holds the lock."""
        if self.local is None and not self.has_store():
            buckets.remove_prefix(self.text)

    def require_name(self) -> None:
        """Raise StoreError if the name is too long, or a folder in the path is a file."""
        if self.local is None:
            return
        try:
            # The longest name that a run makes of it.
            self.local.with_name(f".{self.name}.zarr.00000000.tmp").lstat()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(
                f"Cannot write '{self.name:.60}' ({error.strerror}). Choose another output path."
            ) from None

    def make_folder(self) -> None:
        """Make a folder here, unless it exists.

        Raise StoreError if something else has the name, even a link to a folder.
        """
        if self.local is None or _is_folder(self.local):
            return
        if self.local.is_symlink() or self.local.exists():
            raise StoreError(f"'{self}' is in the way: it is not a folder. Move it elsewhere.")
        with self._explained("make"):
            self.local.mkdir(parents=True)

    def require_folder(self) -> None:
        """Raise StoreError if the folder that is to hold this place is missing."""
        if self.local is not None and not self.local.parent.is_dir():
            raise StoreError(
                f"Output folder '{self.local.parent}' does not exist. Create it, or choose another."
            )

    def require_writable(self) -> None:
        """Raise StoreError if the folder that is to hold this place is missing or read-only."""
        self.require_folder()
        if self.local is not None and not os.access(self.local.parent, os.W_OK):
            raise StoreError(f"Cannot write to '{self.local.parent}'. Choose a writable folder.")

    def zarr(self, *, read_only: bool = False) -> Any:
        """Return what zarr and xarray open."""
        return buckets.zarr_place(self.text, read_only=read_only)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield an empty folder for files that :meth:`write` or :meth:`receive` takes.

        It is hidden next to this place, on the same disk; for a bucket, among temporary files.
        """
        if self.local is None:
            with temporary_folder() as folder:
                yield folder
            return
        made = self._temporary()
        with self._explained("write"):
            made.mkdir()
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def receive(self, folder: Path, last: str) -> None:
        """Move all files of a :meth:`scratch` folder here, the file ``last`` after all others.

        Raise StoreError if a file cannot be moved; ``last`` is then not here.
        """
        if self.local is None:
            buckets.upload(folder, self.text, last=last)
            return
        with self._explained("write"):
            if not self.local.exists():
                folder.replace(self.local)
                return
            for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
                path.replace(self.local / path.name)

    def _temporary(self) -> Path:
        return Path(self.beside(f".{self.name}.{uuid.uuid4().hex[:8]}.tmp").text)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        """Turn an OSError into a StoreError that says what could not be done."""
        try:
            yield
        except OSError as error:
            advice = "Check its permissions and those of its folder, and its disk"
            if verb != "read":
                advice = "Check free space and permissions of its folder, or choose another"
            raise StoreError(
                f"Cannot {verb} '{self.text}': {error.strerror or error}. {advice}."
            ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all, and never through a link.

    The temporary name is always the same: a kill leaves at most one such file, and the next write
    replaces it. The caller holds a lock.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        # "x" creates the file, and fails if anything, a link included, was put there meanwhile.
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # if the disk is full


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
