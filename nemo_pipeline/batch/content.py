"""Is a file a video, by its name and, where that does not say, by its first bytes? Nothing is decoded here."""

from __future__ import annotations

import os

#: A file in a folder that has one of these extensions is a video. Other extensions: the file's content decides.
# fmt: off
VIDEO_EXTENSIONS: frozenset[str] = frozenset({
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf",
    ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".vob", ".webm", ".wmv", ".wtv", ".xvid", ".y4m",
})
#: Never opened: pictures, sound in the containers of video, and files that accompany recordings in great number.
_OTHER_EXTENSIONS: frozenset[str] = frozenset({
    ".aac", ".avif", ".bmp", ".csv", ".flac", ".h5", ".hdf5", ".heic", ".heif", ".htm", ".html", ".jpeg", ".jpg",
    ".json", ".log", ".m4a", ".m4b", ".m4r", ".md", ".mka", ".mp3", ".npy", ".npz", ".oga", ".ogg", ".opus",
    ".pdf", ".pkl", ".pth", ".py", ".safetensors", ".srt", ".thm", ".tif", ".tiff", ".tsv", ".txt", ".vtt",
    ".wav", ".wma", ".xml", ".yaml", ".yml", ".zip",
})
# fmt: on
#: A file in a folder that has one of these extensions is a picture, where pictures are asked for.
PICTURE_EXTENSIONS: frozenset[str] = frozenset(
    {".avif", ".bmp", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
#: Small copies that cameras write next to a recording, with its name.
CAMERA_COPIES: frozenset[str] = frozenset({".lrf", ".lrv"})

#: How much is read of a file whose name does not say what it is; more where pictures have to be counted.
_HEAD, _LONGER_HEAD = 4096, 1 << 20
#: First bytes of formats that hold video (the ones that may hold sound alone are told by their extension).
_STARTS: tuple[bytes, ...] = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),  # ASF: WMV
    bytes.fromhex("b7d800203749da11a64e0007e95ead8d"),  # WTV
    bytes.fromhex("060e2b34020501010d010201"),  # MXF
    b"FLV\x01",
    b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x00\x00\x01\xb0",  # MPEG program stream, MPEG-1/2, MPEG-4
    b"\x1f\x07\x00",  # DV
    b"nut/multimedia container",
    b".RMF",
    b"YUV4MPEG2 ",
    b"DKIF",  # IVF
)  # fmt: skip
#: Brands of ISO files (mp4's family) that are sound, pictures or documents.
_OTHER_BRANDS = {
    b"M4A ",
    b"M4B ",
    b"M4P ",
    b"F4A ",
    b"F4B ",
    b"heic",
    b"heix",
    b"mif1",
    b"avif",
    b"crx ",
    b"jp2 ",
    b"jpx ",
}


def not_taken(path: str, extension: str) -> str:
    """Why a file in a folder is not a video, "" where it is one. `extension` in lower case, with its dot."""
    if extension in VIDEO_EXTENSIONS:
        return ""
    if extension in CAMERA_COPIES:
        return "a camera's small copy of a recording; name the file itself to prepare it"
    if extension in _OTHER_EXTENSIONS:
        return "its extension is not a video's"
    return "" if looks_like_video(path) else "neither its extension nor its content is a video's"


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a file is called a picture."""
    return os.path.splitext(path)[1].lower() in PICTURE_EXTENSIONS  # noqa: PTH122


def not_a_picture(path: str, extension: str) -> str:
    """Why a file in a folder is not a picture, "" where it is one."""
    return "" if extension in PICTURE_EXTENSIONS else "its extension is not a picture's"


def looks_like_video(path: str) -> bool:
    """Whether the first bytes of a file are those of a video; False for a pipe or a file that cannot be read."""
    if not os.path.isfile(path):  # noqa: PTH113
        return False
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            head = file.read(_HEAD)
            if head[:3] in (b"GIF", b"\xff\xd8\xff", b"\x89PN"):
                head += file.read(_LONGER_HEAD - len(head))
    except OSError:
        return False
    if min(head[:512], default=0x20) >= 9 and not head.startswith(b"YUV4MPEG2 "):
        return False  # text
    if head.startswith(_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return not (head[4:8] == b"ftyp" and head[8:12] in _OTHER_BRANDS)
    if head[:4] == b"OggS":
        return b"theora" in head[:256] or b"video" in head[:256]
    if head[:3] == b"GIF":
        return _gif_pictures(head) > 1
    if head[:3] == b"\xff\xd8\xff":  # JPEGs end to end: Motion JPEG; two are a photo and its copy
        return head.count(b"\xff\xd9\xff\xd8\xff") > 1
    if head[:4] == b"\x89PNG":
        return b"acTL" in head[:64]
    return _transport_stream(head) or _annex_b(head)


def _transport_stream(head: bytes) -> bool:
    """MPEG transport stream: a sync byte at the start of every piece (188 bytes; 192 in AVCHD, 204 with checksums)."""
    return any(
        len(head) > start + 4 * step and all(head[start + k * step] == 0x47 for k in range(5))
        for step, start in ((188, 0), (192, 4), (204, 0))
    )


def _annex_b(head: bytes) -> bool:
    """A raw H.264 or HEVC stream: a start code, then a parameter set or a delimiter."""
    at = 3 if head[:3] == b"\x00\x00\x01" else 4 if head[:4] == b"\x00\x00\x00\x01" else 0
    if not at or len(head) < at + 2:
        return False
    h264 = head[at] in (0x09, 0x27, 0x47, 0x67)
    hevc = head[at] in (0x40, 0x42, 0x46) and head[at + 1] == 1
    return h264 or hevc


def _gif_pictures(data: bytes) -> int:
    """How many pictures a GIF begins with, at most 2."""
    at, n = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0), 0
    while at + 10 < len(data) and n < 2:
        if data[at] == 0x21:
            at += 2
        elif data[at] == 0x2C:
            n += 1
            at += 11 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
        else:
            break
        while at < len(data) and data[at]:  # sub-blocks, up to an empty one
            at += data[at] + 1
        at += 1
    return n
