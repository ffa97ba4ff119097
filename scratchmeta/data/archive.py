"""Files out of a zip archive or a folder, read one by one and never extracted.

An archive comes from somebody else. What it could do to a careless reader (write outside its
folder, follow a link, expand to fill the memory, stop half-way) ends here in one error that names
the file.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

MAX_TOTAL = 1 << 30  # bytes a whole archive may expand to; Omniglot's largest needs 6 MB


class DataError(ValueError):
    """Data on disk that is missing, damaged, hostile or something else; the message names it."""


def members(path: Path, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file in a zip archive or a folder, sorted by name.

    Names are relative with forward slashes, in a folder beginning with the folder's own name as
    they do in an archive of it. Folders and what operating systems leave behind (`__MACOSX`, names
    beginning with a dot) are passed over.

    Raises `DataError` for an archive that is not one or is damaged, for an absolute or climbing
    name, a symbolic link, an encrypted file, a compression other than deflate, a file of more than
    `max_bytes` bytes and an archive of more than `MAX_TOTAL`; in a folder for what is no regular
    file (a device or a pipe never ends) and a link to one.
    """
    return _folder(path, max_bytes) if path.is_dir() else _zip(path, max_bytes)


def _folder(path: Path, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    for name in files(path):
        file = Path(name)
        try:
            regular(file, max_bytes)
            content = file.read_bytes()
        except OSError as error:  # a link that leads nowhere, or round
            raise DataError(f"{file}: not readable ({error.strerror})") from error
        yield f"{path.name}/{file.relative_to(path).as_posix()}", content


def regular(file: str | Path, max_bytes: int) -> os.stat_result:
    """What the system knows of a regular file; `DataError` for what is none or is larger.

    A device or a pipe in its place would never end. Raises OSError where there is nothing.
    """
    found = os.stat(file)
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{file}: a regular file wanted, got {stat.filemode(found.st_mode)}")
    if found.st_size > max_bytes:
        raise DataError(f"{file}: at most {max_bytes} bytes wanted, got {found.st_size}")
    return found


def files(folder: Path) -> list[str]:
    """List the paths of all files below a folder, sorted, without the operating system's own."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = (name for name in folders if not is_litter(name))
        found += [os.path.join(where, name) for name in names if not is_litter(name)]
    return sorted(found)


def _zip(path: Path, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = sorted(archive.infolist(), key=lambda info: info.filename)
            total = sum(info.file_size for info in infos)
            if total > MAX_TOTAL:
                raise DataError(
                    f"{path}: at most {MAX_TOTAL} bytes of content wanted, it declares {total}"
                )
            for info in infos:
                _refuse_hostile(path, info, max_bytes)
                if not (info.is_dir() or any(map(is_litter, info.filename.split("/")))):
                    yield info.filename, _content(archive, info)
    except DataError:
        raise
    # ValueError: names and offsets that cannot be; NotImplementedError: versions and flags likewise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise DataError(f"{path}: not readable as a zip archive ({error}); cut short?") from error


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member's content, unpacked no further than a byte beyond the size that it declares.

    `ZipFile.read` unpacks a whole stream before it cuts it there: gigabytes, in a hostile one.
    """
    with archive.open(info) as member:
        content = member.read(info.file_size + 1)  # and at its end it compares the checksum
    if len(content) != info.file_size:
        raise EOFError(f"member {info.filename!r} has not the {info.file_size} bytes it declares")
    return content


def _refuse_hostile(path: Path, info: zipfile.ZipInfo, max_bytes: int) -> None:
    name = info.filename
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        raise DataError(f"{path}: member {name!r} points outside the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"{path}: member {name!r} is a symbolic link")
    if info.flag_bits & 1:
        raise DataError(f"{path}: member {name!r} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: member {name!r} is neither stored nor deflated")
    if info.file_size > max_bytes:
        raise DataError(
            f"{path}: member {name!r} declares {info.file_size} bytes, at most {max_bytes} wanted"
        )


def is_litter(name: str) -> bool:
    """Whether an operating system leaves files or folders of this name behind."""
    return name == "__MACOSX" or name.startswith(".")
