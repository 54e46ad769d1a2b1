"""passes.zip: the passes of a job in one archive, stored as they are, made while it is sent."""

import io
import zipfile
from typing import BinaryIO, Iterator, List, Optional, Tuple

BLOCK = 1 << 18
TIME = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive


class _Sink(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        self.held = bytearray()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes are all that zipfile writes
        """Hold the bytes."""
        self.held += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        data, self.held = bytes(self.held), bytearray()
        return data


def size(files: List[Tuple[str, int]]) -> Optional[int]:
    """The bytes of the archive of files of so many bytes, by name; None where ZIP64 makes it less simple."""
    total = sum(count for _, count in files)
    if total > zipfile.ZIP64_LIMIT - (1 << 20):
        return None
    return total + sum(map(len, stream([(name, io.BytesIO()) for name, _ in files])))


def part(blocks: Iterator[bytes], first: int, count: int) -> Iterator[bytes]:
    """So many bytes of a sequence of blocks, from byte `first` on."""
    for block in blocks:
        if first < len(block):
            yield block[first : first + count]
            count -= min(count, len(block) - first)
            if not count:
                return
        first = max(0, first - len(block))


def stream(files: List[Tuple[str, BinaryIO]]) -> Iterator[bytes]:
    """The bytes of an uncompressed ZIP (ZIP64 where it is needed) of open files by name."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, file in files:
            with archive.open(zipfile.ZipInfo(name, TIME), "w", force_zip64=True) as member:
                while block := file.read(BLOCK):
                    member.write(block)
                    yield sink.take()
    yield sink.take()
