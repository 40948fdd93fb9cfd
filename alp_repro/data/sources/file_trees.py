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

# What the standard library raises on damaged, truncated or encrypted archive members.
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


# A batch of CIFAR-10 has 31 MB, and no file of another data set is larger.
LARGEST_FILE = 64_000_000


class FileTree(Protocol):
    """Named files, wherever they lie.

    Attributes:
        names: paths inside the tree with forward slashes, in the order of the archive, or sorted.
        kind: "folder", "zip" or "tar archive".
        path: the folder or archive itself.
    """

    names: list[str]
    kind: str
    path: Path

    def read(self, name: str) -> bytes:
        """The content of a file; DamagedFile when it cannot be read."""
        ...


class DamagedFile(Exception):
    """A file of a tree cannot be read; the message says why."""


def _check_size(size: int) -> None:
    if size > LARGEST_FILE:
        raise DamagedFile(
            f"{size:,} bytes, and no file of these data sets has more than {LARGEST_FILE:,}"
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
        """Reads a file of any size, a part at a time; DamagedFile when it cannot be read."""
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
        # The checksum of gzip, bzip2 and xz stands behind the last byte; a tar reader stops before.
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
    """Open a folder, a zip or a (compressed) tar archive, told apart by content, not by name.

    Raises InputError when the path does not exist or is none of them.
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
    raise InputError(f"source {path} is neither a folder nor a zip nor a tar archive")


def root_of(tree: FileTree, marker: str) -> str | None:
    """The folder ("" or "a/b/") in which the file or folder `marker` lies, the outermost one.

    Archives often hold everything in one folder of their own; None when nothing matches.
    """
    found = set()
    for name in tree.names:
        parts = PurePosixPath(name).parts
        if marker in parts and "__MACOSX" not in parts:
            found.add(parts[: parts.index(marker)])
    if not found:
        return None
    return "".join(f"{part}/" for part in min(found, key=lambda parts: (len(parts), parts)))


def require_rest_whole(tree: FileTree) -> None:
    """Reads what was not read of a zip: a file that belongs to the data may hide there.

    A flipped bit in the zip's directory renames a file, which then looks like one to pass over;
    the name that stands before its content tells.

    Raises InputError naming the damaged file.
    """
    if not isinstance(tree, _Zip):
        return
    for name in sorted(tree.unread):
        try:
            tree.read_through(name)
        except DamagedFile as error:
            raise InputError(f"{name} in {tree.path} is damaged: {error}") from error


def require_published(tree: FileTree, *, size: int, md5: str, what: str) -> bool:
    """Whether an archive is the published one, as its authors' MD5 tells.

    Raises InputError when it has the published one's size and other content: it is damaged.
    """
    if not tree.path.is_file() or tree.path.stat().st_size != size:
        return False
    digest = hex_digest(tree.path, "md5")
    if digest != md5:
        raise InputError(
            f"source {tree.path} has the size of the {what}, but the MD5 {digest} instead of "
            f"{md5}: it is damaged; fetch it again"
        )
    return True
