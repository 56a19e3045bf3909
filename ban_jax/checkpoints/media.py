"""What lies beside models and is none: pictures, sounds, films, documents, programs.

Each is known by its first bytes, and from the size of a network on by the rest, too: two
to four bytes of a magic number begin other files by accident or by intent.
"""

from collections.abc import Callable

from ban_jax.checkpoints import file_end, pickle_walk, pictures, unpacking

_IMAGE = "an image"
_OTHER = "no model: a document, a medium or a program"
End = Callable[[pickle_walk.Read], int]
"""Gives the place where a file should end, or raises."""
_SEGMENT = 0x18538067
"""Of Matroska, which everything behind its header is in."""
_MOST_RECORDS = 10_000
_TAIL = 1024 + file_end.SMALL
_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
"""Kilobits a second of MPEG 1 and 2, layer III,"""
_SAMPLES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""and samples a second by version."""


def kind(head: bytes) -> str:
    """What a file is by its first bytes alone; empty where they say nothing."""
    found = _known(head)
    return found[0] if found else ""


def of(head: bytes, whole: Callable[[], pickle_walk.Read]) -> str:
    """What a file is by all of it; small ones by their first bytes.

    Args:
      head: its first bytes.
      whole: gives a way to read all of it, each time from its start.
    """
    found = _known(head)
    if found is None:
        return ""
    return found[0] if is_whole(found[1], whole) else ""


def is_whole(end: End, whole: Callable[[], pickle_walk.Read]) -> bool:
    """Whether a file ends where it should, or has no room for a network anyway."""
    try:
        if file_end.is_small(whole()):
            return True
        return file_end.is_at(whole(), end(file_end.watched(whole())))
    except (pickle_walk.Beyond, OverflowError, *unpacking.DAMAGE):
        return False


def _known(head: bytes) -> tuple[str, End] | None:
    for told, table in ((_IMAGE, _IMAGES), (_OTHER, _MEDIA)):
        for magic, end in table:
            if head.startswith(magic):
                return told, end
    if head[:4] == b"RIFF" and len(head) > 8:
        return (_IMAGE if head[8:12] == b"WEBP" else _OTHER), _riff
    return (_OTHER, pictures.boxes) if head[4:8] == b"ftyp" else None


def _riff(read: pickle_walk.Read) -> int:
    at, end = file_end.Cursor(read), 0
    while bytes(read(at.at, 4)) == b"RIFF":  # long films have several
        at.at += 4
        length = at.number(4)
        end = at.at + length
        at.at = end + length % 2
    return end


def _ogg(read: pickle_walk.Read) -> int:
    at = file_end.Cursor(read)
    while bytes(read(at.at, 5)) == b"OggS\0":
        at.at += 26
        count = at.number(1)
        at.at += sum(at.take(count))
    return at.at


def _flac(read: pickle_walk.Read) -> int:
    """Blocks of what is known of it, then frames, which do not say how long they are."""
    at = file_end.Cursor(read, 4)
    is_last = False
    while not is_last:
        mark, length = at.numbers((1, 3), big=True)
        file_end.check(at.at > 8 or (mark & 0x7F, length) == (0, 34), "no FLAC")
        is_last = bool(mark & 0x80)
        at.at += length
    file_end.check(at.number(2, big=True) & 0xFFFE == 0xFFF8, "no FLAC")
    return file_end.size_of(read)


def _id3(read: pickle_walk.Read) -> int:
    """A tag, then frames of MPEG's layer III one behind the other."""
    at = file_end.Cursor(read, 3)
    version, _, flags, *length = at.numbers((1,) * 7)
    known = version in (2, 3, 4) and not flags & 0x0F and max(length) < 0x80
    file_end.check(known, "no ID3")
    at.at += sum(
        part << shift for part, shift in zip(length, (21, 14, 7, 0), strict=True)
    )
    start = at.at
    while len(read(at.at, 4)) == 4 and (size := _mpeg(bytes(read(at.at, 4)))):
        at.at += size
    file_end.check(at.at > start, "no MPEG frame behind ID3")
    return at.at


def _mpeg(head: bytes) -> int:
    """Bytes of a frame of layer III; 0 for what is none."""
    version, rate, sample = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    is_frame = head[0] == 0xFF and head[1] >> 5 == 7 and head[1] >> 1 & 3 == 1
    if not is_frame or version == 1 or sample == 3 or rate in (0, 15):
        return 0
    bits = _RATES[version != 3][rate] * 1000
    scale = 144 if version == 3 else 72
    return scale * bits // _SAMPLES[version][sample] + (head[2] >> 1 & 1)


def _ebml(read: pickle_walk.Read) -> int:
    """A header, and elements of the length they say: Matroska and WebM."""
    at = file_end.Cursor(read)
    while file_end.goes_on(read, at.at):
        identity = at.number(4, big=True)
        file_end.check(at.at == 4 or identity == _SEGMENT, "no Matroska")
        first = at.number(1)
        file_end.check(first > 0, "no Matroska")
        more = 8 - first.bit_length()
        length = (first & (1 << (7 - more)) - 1) << 8 * more
        length += at.number(more, big=True)
        file_end.check(length < (1 << 7 * (more + 1)) - 1, "of unknown length")
        at.at += length
    return at.at


def _pdf(read: pickle_walk.Read) -> int:
    size = file_end.size_of(read)
    start = max(0, size - _TAIL)
    place = bytes(read(start, _TAIL)).rfind(b"%%EOF")
    file_end.check(place >= 0, "a PDF without an end")
    return start + place + 5


def _sqlite(read: pickle_walk.Read) -> int:
    page = file_end.Cursor(read, 16).number(2, big=True)
    page = 2**16 if page == 1 else page
    file_end.check(page >= 512 and not page & (page - 1), "no SQLite")
    pages = file_end.Cursor(read, 28).number(4, big=True)
    return page * pages if pages else file_end.size_of(read)


def _elf(read: pickle_walk.Read) -> int:
    """The end of the last segment, section or table of them."""
    wide, order, version = bytes(read(4, 3))
    file_end.check(wide in (1, 2) and order in (1, 2) and version == 1, "no ELF")
    big, word = order == 2, 8 if wide == 2 else 4
    at = file_end.Cursor(read, 24 + word)
    segments, sections = at.numbers((word, word), big)
    _, header, each, count, wide_each, many = at.numbers((4, 2, 2, 2, 2, 2), big)
    file_end.check(header == (64 if wide == 2 else 52), "no ELF")
    end = max(segments + each * count, sections + wide_each * many)
    for place in range(segments, segments + each * count, max(each, 1)):
        at.at = place + word
        start, _, _, size = at.numbers((word,) * 4, big)
        end = max(end, start + size)
    for place in range(sections, sections + wide_each * many, max(wide_each, 1)):
        at.at = place + 4
        type_ = at.number(4, big)
        at.at += 2 * word
        start, size = at.numbers((word, word), big)
        end = max(end, start + size if type_ != 8 else 0)  # which takes no room here
    return end


def _apple_double(read: pickle_walk.Read) -> int:
    at = file_end.Cursor(read, 4)
    version, _, count = at.numbers((4, 16, 2), big=True)
    file_end.check(version == 0x20000 and 0 < count <= 32, "no AppleDouble")
    return max(sum(at.numbers((4, 4, 4), big=True)[1:]) for _ in range(count))


def _wasm(read: pickle_walk.Read) -> int:
    at = file_end.Cursor(read, 4)
    file_end.check(at.number(4) == 1, "no WebAssembly")
    while file_end.goes_on(read, at.at):
        file_end.check(at.number(1) <= 13, "no WebAssembly")
        length = shift = 0
        more = 0x80
        while more & 0x80 and shift < 35:
            more = at.number(1)
            length |= (more & 0x7F) << shift
            shift += 7
        at.at += length
    return at.at


def woff(read: pickle_walk.Read) -> int:
    return file_end.Cursor(read, 8).number(4, big=True)


def font(read: pickle_walk.Read) -> int:
    """TrueType and OpenType: the end of the last table."""
    at = file_end.Cursor(read, 4)
    count = at.number(2, big=True)
    file_end.check(0 < count <= 100, "no font")
    at.at += 6
    end = 0
    for _ in range(count):
        tag = at.take(4)
        file_end.check(tag.isascii() and tag.decode().isprintable(), "no font")
        _, start, length = at.numbers((4, 4, 4), big=True)
        end = max(end, start + length)
    return end


def windows_program(read: pickle_walk.Read) -> int:
    """The end of the last section, or of the signature behind it."""
    header = file_end.Cursor(read, 0x3C).number(4)
    at = file_end.Cursor(read, header)
    file_end.check(at.take(4) == b"PE\0\0", "no program of Windows")
    _, count, _, _, _, optional, _ = at.numbers((2, 2, 4, 4, 4, 2, 2))
    start, end = at.at, 0
    if optional >= 160:
        wide = {0x10B: 96, 0x20B: 112}.get(at.number(2))
        file_end.check(wide is not None, "no program of Windows")
        at.at = start + (wide or 0) + 4 * 8
        end = sum(at.numbers((4, 4)))
    at.at = start + optional
    for _ in range(count):
        fields = at.numbers((8, 4, 4, 4, 4, 12, 4))
        end = max(end, fields[3] + fields[4])
    return end


def bytes_of_idx(read: pickle_walk.Read) -> int:
    """MNIST's format: bytes in as many dimensions as the header says."""
    at = file_end.Cursor(read, 3)
    count = 1
    for _ in range(at.number(1)):
        count *= at.number(4, big=True)
    return at.at + count


def records(read: pickle_walk.Read) -> int:
    """TensorBoard's: a length, its checksum, what is logged, a checksum."""
    at = file_end.Cursor(read)
    for _ in range(_MOST_RECORDS):
        if not file_end.goes_on(read, at.at + 11):
            return at.at
        length = at.number(8)
        if not file_end.goes_on(read, at.at + length - 1):
            return at.at  # its writer was killed
        at.at += 8 + length
    return file_end.size_of(read)


def git_index(read: pickle_walk.Read) -> int:
    """Of a pack: how many objects have names up to each first byte, then their lists."""
    at = file_end.Cursor(read, 4)
    file_end.check(at.number(4, big=True) == 2, "no index of a git pack")
    upto = at.numbers((4,) * 256, big=True)
    file_end.check(sorted(upto) == upto, "no index of a git pack")
    size, least = file_end.size_of(read), at.at + 28 * upto[-1] + 40
    # Packs from 2 GiB on have up to eight bytes more for each; SHA-256 twelve.
    return min(size, least + 20 * upto[-1]) if size >= least else least


def python(read: pickle_walk.Read) -> int:
    """Compiled Python: a code object behind a header of 8, 12 or 16 bytes."""
    places = (bytes(read(place, 1)) for place in (8, 12, 16))
    file_end.check(any(one in (b"c", b"\xe3") for one in places), "no code")
    return file_end.size_of(read)


def saying(magic: bytes) -> End:
    """For a format with a longer magic number, whatever follows."""

    def end(read: pickle_walk.Read) -> int:
        file_end.check(bytes(read(0, len(magic))) == magic, "another format")
        return file_end.size_of(read)

    return end


_IMAGES: tuple[tuple[bytes, End], ...] = (
    (b"\x89PNG", pictures.png),
    (b"\xff\xd8\xff", pictures.jpeg),
    (b"GIF8", pictures.gif),
    (b"BM", pictures.bmp),
    (b"II*\0", pictures.tiff),
    (b"MM\0*", pictures.tiff),
    (b"\0\0\1\0", pictures.ico),
    (b"P5\n", pictures.pnm),
    (b"P6\n", pictures.pnm),
    (b"P5 ", pictures.pnm),
    (b"P6 ", pictures.pnm),
    (b"8BPS", pictures.psd),
    (b"\0\0\0\x0cjP", pictures.boxes),
)
_MEDIA: tuple[tuple[bytes, End], ...] = (
    (b"OggS", _ogg),
    (b"fLaC", _flac),
    (b"ID3", _id3),
    (b"\x1aE\xdf\xa3", _ebml),
    (b"%PDF", _pdf),
    (b"SQLite format 3\0", _sqlite),
    (b"\x7fELF", _elf),
    (b"\0\5\x16\7", _apple_double),
    (b"\0asm", _wasm),
    (b"wOFF", woff),
    (b"wOF2", woff),
)
"""Sound, film, PDF, databases, programs, what macOS puts beside files, fonts."""
