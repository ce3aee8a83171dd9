"""Text files that a person brings: UTF-8, with or without a byte order mark. Other files are refused with their kind.

An editor of Windows may begin a file with a byte order mark. `>` of Windows PowerShell writes UTF-16, in which bytes
that are not ASCII may be lost already.
"""

_UTF_8_MARK = b"\xef\xbb\xbf"
_UTF_16 = "is UTF-16, as `>` of Windows PowerShell writes it, which may have changed bytes: save it as UTF-8"
_KINDS = {
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
    b"\x1f\x8b": "is compressed with gzip: decompress it with `gunzip` first",
    b"BZh": "is compressed with bzip2: decompress it with `bunzip2` first",
    b"\xfd7zXZ": "is compressed with xz: decompress it with `unxz` first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: decompress it with `unzstd` first",
    b"PK\x03\x04": "is a ZIP archive or a spreadsheet: unpack it, or save it as text, first",
    b"SQLite format 3\0": "is an SQLite database: `kvstore restore` reads a file made by `kvstore backup`",
}


class NotTextError(ValueError):
    """Error for a file that is not UTF-8. The message continues the name of the file: `is compressed with ...`."""


def kind_of(head: bytes) -> str | None:
    """Return the kind of a file that begins with `head`, as the end of a message; None for others and for text."""
    return next((kind for signature, kind in _KINDS.items() if head.startswith(signature)), None)


def without_mark(head: bytes) -> bytes:
    """Return the beginning of a file without a byte order mark. Raises NotTextError for a file of another kind."""
    kind = kind_of(head)
    if kind is not None:
        raise NotTextError(kind)
    if b"\0" in head[:4]:
        raise NotTextError("has bytes of value 0, as UTF-16 and binary files have: save it as UTF-8 text")
    return head.removeprefix(_UTF_8_MARK)


def text_of(content: bytes) -> str:
    """Return the text of a file. Raises NotTextError."""
    content = without_mark(content)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise NotTextError(f"is not UTF-8: line {line} has the byte 0x{byte:02x}; save it as UTF-8 text") from None
