"""Files out of a zip archive or a folder, read one by one and never extracted.

An archive comes from somebody else. What it could do to a careless reader (write outside its
folder, follow a link, expand to fill the memory, stop half-way) ends here in one error that names
the file.
"""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
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
    `max_bytes` bytes and an archive of more than `MAX_TOTAL`.
    """
    return _folder(path, max_bytes) if path.is_dir() else _zip(path, max_bytes)


def _folder(path: Path, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    for name in files(path):
        file = Path(name)
        if (size := file.stat().st_size) > max_bytes:
            raise DataError(f"{file}: at most {max_bytes} bytes wanted, got {size}")
        yield f"{path.name}/{file.relative_to(path).as_posix()}", file.read_bytes()


def files(folder: Path) -> list[str]:
    """List the paths of all files below a folder, sorted, without the operating system's own."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = (name for name in folders if not _is_litter([name]))
        found += [os.path.join(where, name) for name in names if not _is_litter([name])]
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
                if not (info.is_dir() or _is_litter(info.filename.split("/"))):
                    # read() stops at the declared size and compares the checksum
                    yield info.filename, archive.read(info)
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


def _is_litter(parts: Sequence[str]) -> bool:
    return any(part == "__MACOSX" or part.startswith(".") for part in parts)
