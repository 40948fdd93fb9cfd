"""The files of a folder, a zip or a tar archive, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import contextlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from alp_repro.data.source_record import hex_digest
from alp_repro.errors import InputError

# The errors of the standard library on damaged, truncated or encrypted archive members.
_DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)


# A batch of CIFAR-10 has 31 MB, and no file of the other data sets is larger.
LARGEST_FILE = 64_000_000


class FileTree(Protocol):
    """The files of a folder or an archive.

    Attributes:
        names: paths inside the tree with forward slashes, in the order of the archive, or sorted.
        kind: "folder", "zip" or "tar archive".
        path: the folder or archive itself.
    """

    names: list[str]
    kind: str
    path: Path

    def read(self, name: str) -> bytes:
        """Return the content of a file; DamagedFile if it cannot be read."""
        ...


class DamagedFile(Exception):
    """A file of a tree cannot be read; the message says why."""


def _check_size(size: int) -> None:
    if size > LARGEST_FILE:
        raise DamagedFile(
            f"{size:,} bytes: expected at most {LARGEST_FILE:,} for a file of these data sets"
        )


class _Folder:
    kind = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = sorted(
            file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()
        )

    def read(self, name: str) -> bytes:
        try:
            _check_size((self.path / name).stat().st_size)
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise DamagedFile("missing") from None
        except OSError as error:
            raise DamagedFile(error.strerror or str(error)) from error


class _Zip:
    kind = "zip"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = zipfile.ZipFile(path)
        self.names = [info.filename for info in self._archive.infolist() if not info.is_dir()]
        self.unread = set(self.names)

    def read(self, name: str) -> bytes:
        self.unread.discard(name)
        try:
            _check_size(self._archive.getinfo(name).file_size)
            return self._archive.read(name)
        except KeyError:
            raise DamagedFile("missing") from None
        except _DAMAGE as error:
            raise DamagedFile(str(error)) from error

    def read_through(self, name: str) -> None:
        """Read a file of any size in parts; DamagedFile if it cannot be read."""
        archive = self._archive
        try:
            with archive.open(name) as file:
                while file.read(1 << 20):
                    pass
        except _DAMAGE as error:
            raise DamagedFile(str(error)) from error

    def close(self) -> None:
        self._archive.close()


class _Tar:
    kind = "tar archive"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = tarfile.open(path)  # noqa: SIM115 (closed by open_tree)
        try:
            # Links are left out: they could point anywhere.
            self._members = {m.name: m for m in self._archive.getmembers() if m.isreg()}
            self._read_to_the_end()
        except _DAMAGE:
            self._archive.close()
            raise
        self.names = list(self._members)

    def _read_to_the_end(self) -> None:
        # The checksum of gzip, bzip2 and xz follows the last byte; a tar reader stops before it.
        assert self._archive.fileobj is not None
        while self._archive.fileobj.read(1 << 20):
            pass

    def read(self, name: str) -> bytes:
        if name not in self._members:
            raise DamagedFile("missing")
        try:
            _check_size(self._members[name].size)
            stream = self._archive.extractfile(self._members[name])
            if stream is None:
                raise DamagedFile("it is not a regular file")
            return stream.read()
        except _DAMAGE as error:
            raise DamagedFile(str(error)) from error

    def close(self) -> None:
        self._archive.close()


@contextlib.contextmanager
def open_tree(path: Path) -> Iterator[FileTree]:
    """Open a folder, a zip or a (compressed) tar archive, recognised by content, not by name.

    Raises:
      InputError: the path does not exist or is none of these.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    if not path.exists():
        raise InputError(f"source {path} does not exist")
    try:
        archive = _open_archive(path)
    except _DAMAGE as error:
        raise InputError(f"source {path} is a damaged archive: {error}") from error
    with contextlib.closing(archive):
        yield archive


def _open_archive(path: Path) -> _Zip | _Tar:
    if zipfile.is_zipfile(path):
        return _Zip(path)
    if tarfile.is_tarfile(path):
        return _Tar(path)
    raise InputError(f"source {path}: expected a folder, a zip or a tar archive")


def root_of(tree: FileTree, marker: str) -> str | None:
    """Return the outermost folder ("" or "a/b/") with the file or folder `marker`, or None.

    Archives often have everything in one top-level folder.
    """
    found = set()
    for name in tree.names:
        parts = PurePosixPath(name).parts
        if marker in parts and "__MACOSX" not in parts:
            found.add(parts[: parts.index(marker)])
    if not found:
        return None
    return "".join(f"{part}/" for part in min(found, key=lambda parts: (len(parts), parts)))


def verify_unread_files(tree: FileTree) -> None:
    """Read the remaining files of a zip, to find files of the data set that were missed.

    A flipped bit in the zip's directory renames a file, which is then ignored; reading it compares
    the name with the one before its content.

    Raises:
      InputError: a file is damaged; the message names it.
    """
    if not isinstance(tree, _Zip):
        return
    for name in sorted(tree.unread):
        try:
            tree.read_through(name)
        except DamagedFile as error:
            raise InputError(f"{name} in {tree.path} is damaged: {error}") from error


def require_published(tree: FileTree, *, size: int, md5: str, what: str) -> bool:
    """Return whether an archive is the published one, by its authors' MD5.

    Raises:
      InputError: it has the published one's size and other content, so it is damaged.
    """
    if not tree.path.is_file() or tree.path.stat().st_size != size:
        return False
    digest = hex_digest(tree.path, "md5")
    if digest != md5:
        raise InputError(
            f"source {tree.path} has the size of the {what}, but the MD5 {digest}, expected {md5}: "
            "it is damaged; download it again"
        )
    return True
