"""Pictures by what stands in them: each function gives the place where one should end.

They raise a ValueError or what `unpacking.DAMAGE` has for what only begins like one.
"""

import itertools
import re

from ban_jax.checkpoints import file_end, pickle_walk

_MARKER = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")
"""In the numbers of a JPEG: what is no number and no mark to restart at."""
_WINDOW = 2**18
_LONE = (0x01, *range(0xD0, 0xD8))
"""JPEG's marks without a length."""
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_MOST_TAGS = 1000
_MOST_STRIPS = 2**20
_TIFF_WIDTHS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)
"""Bytes of a value of each type of TIFF."""
_PLACES, _LENGTHS = (273, 324, 513), (279, 325, 514)
"""Where TIFF keeps pixels: strips, tiles, a JPEG."""
_SPACE = b" \t\r\n"


def png(read: pickle_walk.Read) -> int:
    at = file_end.Cursor(read, 8)
    while True:
        length, kind = at.number(4, big=True), at.take(4)
        file_end.check(kind.isalpha(), "no PNG")
        at.at += length + 4
        if kind == b"IEND":
            return at.at


def jpeg(read: pickle_walk.Read) -> int:
    """Of several in one file, as cameras write them, the last one's end."""
    end = _one_jpeg(read, 0)
    while bytes(read(end, 3)) == b"\xff\xd8\xff":
        end = _one_jpeg(read, end)
    return end


def _one_jpeg(read: pickle_walk.Read, start: int) -> int:
    at = file_end.Cursor(read, start + 2)
    while True:
        file_end.check(at.take(1) == b"\xff", "no JPEG")
        mark = 0xFF
        while mark == 0xFF:
            mark = at.number(1)
        if mark == 0xD9:
            return at.at
        if mark in _LONE:
            continue
        file_end.check(mark >= 0xC0, "no JPEG")
        length = at.number(2, big=True)
        file_end.check(length >= 2, "no JPEG")
        at.at += length - 2
        if mark == 0xDA:
            at.at = _behind_numbers(read, at.at)
            if len(read(at.at, 2)) < 2:
                return at.at  # a picture that was cut off in its numbers


def _behind_numbers(read: pickle_walk.Read, at: int) -> int:
    """Where the numbers of a JPEG end: at the next mark, or with the file."""
    while True:
        window = bytes(read(at, _WINDOW))
        if found := _MARKER.search(window):
            return at + found.start()
        if len(window) < 2:
            return at + len(window)
        at += len(window) - 1


def gif(read: pickle_walk.Read) -> int:
    at = file_end.Cursor(read, 10)
    _skip_colours(at, at.number(1), 2)
    while True:
        kind = at.take(1)
        if kind == b";":
            return at.at
        if kind == b"!":
            at.at += 1
        else:
            file_end.check(kind == b",", "no GIF")
            at.at += 8
            _skip_colours(at, at.number(1), 1)
        while length := at.number(1):
            at.at += length


def _skip_colours(at: file_end.Cursor, flags: int, more: int) -> None:
    at.at += more + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)


def bmp(read: pickle_walk.Read) -> int:
    size, reserved, pixels, header = file_end.Cursor(read, 2).numbers((4, 4, 4, 4))
    fits = not reserved and header in _BMP_HEADERS and 14 + header <= pixels <= size
    file_end.check(fits, "no BMP")
    return size


def ico(read: pickle_walk.Read) -> int:
    at = file_end.Cursor(read, 4)
    end = 0
    count = at.number(2)
    for _ in range(count):
        fields = at.numbers((1, 1, 1, 1, 2, 2, 4, 4))
        file_end.check(not fields[3] and fields[7] >= 6 + 16 * count, "no icon")
        end = max(end, fields[6] + fields[7])
    return end


def tiff(read: pickle_walk.Read) -> int:
    """The end of the last strip of pixels, or of the list of tags behind it."""
    big = bytes(read(0, 2)) == b"MM"
    place, end = file_end.Cursor(read, 4).number(4, big), 0
    pages: set[int] = set()
    while place:
        file_end.check(place >= 8 and place not in pages, "no TIFF")
        file_end.check(len(pages) < _MOST_TAGS, "no TIFF that is looked through")
        pages.add(place)
        at = file_end.Cursor(read, place)
        count = at.number(2, big)
        file_end.check(0 < count <= _MOST_TAGS, "no TIFF")
        tags = [_tag(at, big) for _ in range(count)]
        file_end.check(
            all(a[0] <= b[0] for a, b in itertools.pairwise(tags)), "no TIFF"
        )
        end = max(end, at.at + 4, _strips(read, {tag[0]: tag for tag in tags}, big))
        place = at.number(4, big)
    return end


_Tag = tuple[int, int, int, int, int]


def _tag(at: file_end.Cursor, big: bool) -> _Tag:
    """Its number, type and count, where its values are, and where they end."""
    number, kind, count = at.numbers((2, 2, 4), big)
    file_end.check(0 < kind < len(_TIFF_WIDTHS), "no TIFF")
    width = count * _TIFF_WIDTHS[kind]
    inside, place = at.at, at.number(4, big)
    start = inside if width <= 4 else place
    return number, kind, count, start, start + width


def _strips(read: pickle_walk.Read, tags: dict[int, _Tag], big: bool) -> int:
    end = max(tag[4] for tag in tags.values())
    for places, lengths in zip(_PLACES, _LENGTHS, strict=True):
        if places in tags and lengths in tags:
            starts = _values(read, tags[places], big)
            sizes = _values(read, tags[lengths], big)
            end = max([end, *map(sum, zip(starts, sizes, strict=True))])
    return end


def _values(read: pickle_walk.Read, tag: _Tag, big: bool) -> list[int]:
    _, kind, count, start, _ = tag
    file_end.check(kind in (3, 4) and count <= _MOST_STRIPS, "no TIFF")
    return file_end.Cursor(read, start).numbers((_TIFF_WIDTHS[kind],) * count, big)


def pnm(read: pickle_walk.Read) -> int:
    """P5 and P6: width, height and the largest number, then rows of one or two bytes."""
    at = file_end.Cursor(read, 2)
    width, height, largest = (_decimal(at) for _ in range(3))
    file_end.check(0 < largest < 2**16, "no PNM")
    channels = 3 if bytes(read(0, 2)) == b"P6" else 1
    return at.at + width * height * channels * (2 if largest > 255 else 1)


def _decimal(at: file_end.Cursor) -> int:
    """A number and the blank behind it; blanks and comments before it are skipped."""
    sign = at.take(1)
    while sign in (b"#", *(bytes([c]) for c in _SPACE)):
        if sign == b"#":
            while at.take(1) not in b"\r\n":
                pass
        sign = at.take(1)
    digits = b""
    while sign.isdigit() and len(digits) < 9:
        digits += sign
        sign = at.take(1)
    file_end.check(bool(digits) and sign in _SPACE, "no PNM")
    return int(digits)


def psd(read: pickle_walk.Read) -> int:
    at = file_end.Cursor(read, 4)
    version, zeros, channels, height, width, depth, _ = at.numbers(
        (2, 6, 2, 4, 4, 2, 2), big=True
    )
    known = version == 1 and not zeros and depth in (1, 8, 16, 32)
    file_end.check(known and 0 < channels <= 56, "no PSD")
    for _ in range(3):
        at.at += at.number(4, big=True)
    packed, rows = at.number(2, big=True), height * channels
    file_end.check(packed in (0, 1) and rows <= _MOST_STRIPS, "no PSD that is known")
    if packed:
        lengths = at.numbers((2,) * rows, big=True)
        return at.at + sum(lengths)
    return at.at + rows * (-(-width * depth // 8))


def boxes(read: pickle_walk.Read) -> int:
    """JPEG 2000 and the family of MP4: boxes one behind the other."""
    at = file_end.Cursor(read)
    while file_end.goes_on(read, at.at):
        start = at.at
        length, kind = at.number(4, big=True), at.take(4)
        file_end.check(kind.isascii() and kind.decode().isprintable(), "no boxes")
        if length == 1:
            length = at.number(8, big=True)
        if not length:
            return file_end.size_of(read)  # up to the end of the file
        file_end.check(length >= 8, "no boxes")
        at.at = start + length
    return at.at
