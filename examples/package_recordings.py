"""The recordings of one unpacked package: which to keep, as what, and under which licence."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import soundfile

from rtsr.bandwidth.file_cutoff import measure_cutoff
from rtsr.train.decode import to_int16
from rtsr.train.listing import SUFFIXES

ARCHIVES = frozenset({".pk3", ".zip", ".pk4", ".mod"})
LOWEST_RATE = 32000
SHORTEST_SECONDS = 0.3
EXCERPT_SECONDS = 30.0
MUSIC_FROM_SECONDS = 45.0
QUIETEST_PEAK = 0.03
QUIETEST_RMS = 0.002
MOST_CLIPPED = 0.002
#: What the folders and the file's name say; looked for in this order.
HINTS = (
    ("speech", r"voice|speech|spoken|speak|dialog|taunt|announc|tutorial|letters|syllab|\bsay"),
    (
        "music",
        r"music|soundtrack|\bsongs?\b|theme[0-9_. -]|drumkits?|samples/instruments|\bloops?\b",
    ),
    ("effects", r"effect|\bsfx\b|\bfx\b|sounds?\b|noise|ambien"),
)


@dataclass(frozen=True)
class Recording:
    """One kept file.

    Attributes:
        path: where it was written.
        origin: the path that it had in the package.
    """

    path: Path
    origin: str
    domain: str
    group: str
    sample_rate: int
    seconds: float
    cutoff_hz: float

    def row(self, folder: Path) -> dict[str, str]:
        """Return a manifest's row, without split, source and licence."""
        return {
            "path": self.path.relative_to(folder).as_posix(),
            "domain": self.domain,
            "speaker_or_group": self.group,
            "sample_rate": str(self.sample_rate),
            "seconds": f"{self.seconds:.2f}",
            "measured_cutoff_hz": f"{self.cutoff_hz:.0f}",
        }


def keep_recordings(
    tree: Path, out: Path, package: str, domain: str | None, options: Any
) -> list[Recording]:
    """Write what is worth keeping below `tree` to ``out/DOMAIN/PACKAGE-...flac``.

    Args:
        tree: an unpacked package; archives of games (pk3, zip) in it are looked into.
        domain: what a recording is whose path does not tell, or None: by its length.
        options: has ``lowest_cutoff`` and minutes per domain (``music_minutes``, ...).
    """
    for archive in [path for path in tree.rglob("*") if path.suffix.lower() in ARCHIVES]:
        _unpack(archive)
    by_domain: dict[str, list[tuple[Path, float]]] = {}
    seen: set[str] = set()
    for path in sorted(tree.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file() or path.is_symlink():
            continue
        try:
            facts = soundfile.info(path)
        except (soundfile.LibsndfileError, OSError):
            continue
        seconds = facts.frames / facts.samplerate
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if facts.samplerate < LOWEST_RATE or seconds < SHORTEST_SECONDS or digest in seen:
            continue
        seen.add(digest)
        kind = _domain(path.relative_to(tree).as_posix().lower(), seconds, domain)
        by_domain.setdefault(kind, []).append((path, seconds))
    kept: list[Recording] = []
    for kind, found in by_domain.items():
        limit = 60.0 * getattr(options, f"{kind}_minutes")
        share = min(1.0, limit / sum(seconds for _, seconds in found))
        for path, seconds in found:
            origin = path.relative_to(tree).as_posix()
            kept += _keep(
                path, out, f"{package}-{_slug(origin)}", origin, kind, seconds, share, options
            )
    return kept


def _unpack(archive: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                if PurePosixPath(member.filename).suffix.lower() in SUFFIXES:
                    content.extract(member, archive.with_name(archive.name + ".d"))
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError):
        return  # not a zip file after all, or an encrypted one: it holds nothing for us


def _domain(path: str, seconds: float, usual: str | None) -> str:
    folder_and_name = "/".join(path.split("/")[4:]) or path
    for domain, pattern in HINTS:
        # Games call every folder "sounds", also that of their voices.
        if re.search(pattern, folder_and_name) and not (domain == "effects" and usual):
            # A jingle of some seconds is music, but a track of minutes is never an effect.
            return "music" if domain == "effects" and seconds > 3 * MUSIC_FROM_SECONDS else domain
    return usual or ("music" if seconds > MUSIC_FROM_SECONDS else "effects")


def _slug(origin: str) -> str:
    """Join the last folders, the name and a hash, as different folders have equal names."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(PurePosixPath(origin).with_suffix("").parts[-2:]))
    return f"{name[:48].strip('-')}-{hashlib.sha256(origin.encode()).hexdigest()[:6]}"


def _keep(
    path: Path,
    out: Path,
    name: str,
    origin: str,
    domain: str,
    seconds: float,
    share: float,
    options: Any,
) -> Iterator[Recording]:
    """Excerpts, evenly from a long file; a short one as a whole, as often as `share` says."""
    for number, (begin, length) in enumerate(_excerpts(name, seconds, share)):
        sound, rate = read_channel(path, begin, length)
        if sound is None:
            return
        audio = to_int16(sound)
        cutoff = measure_cutoff(audio, rate, speech=domain == "speech")
        if cutoff < options.lowest_cutoff:
            continue
        target = out / domain / f"{name}_{number:02d}.flac"
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.part")
        soundfile.write(beside, audio, rate, format="FLAC", subtype="PCM_16")
        beside.replace(target)
        group = name if domain == "music" else name.split("-")[0] + "-" + Path(origin).parent.name
        yield Recording(target, origin, domain, group, rate, len(audio) / rate, cutoff)


def _excerpts(name: str, seconds: float, share: float) -> list[tuple[float, float]]:
    wanted = share * seconds
    if wanted < EXCERPT_SECONDS:
        length = min(seconds, EXCERPT_SECONDS)
        lot = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
        return [(0.5 * (seconds - length), length)] if lot < wanted / length else []
    count = round(wanted / EXCERPT_SECONDS)
    pitch = seconds / count
    length = min(EXCERPT_SECONDS, pitch)
    return [(index * pitch + 0.5 * (pitch - length), length) for index in range(count)]


def read_channel(path: Path, begin: float, length: float) -> tuple[np.ndarray | None, int]:
    """One channel that sounds, ``(samples,)``, or None if it is quiet, clipped or broken."""
    try:
        with soundfile.SoundFile(path) as file:
            rate = int(file.samplerate)
            file.seek(int(begin * rate))
            block = file.read(int(length * rate), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError):
        return None, 0
    if len(block) < SHORTEST_SECONDS * rate or not np.isfinite(block).all():
        return None, rate
    peaks = np.abs(block).max(axis=0)
    audio = block[:, int(np.argmax(peaks > QUIETEST_PEAK))]
    clipped = np.mean(np.abs(audio) > 0.999)
    too_quiet = np.abs(audio).max() < QUIETEST_PEAK or np.sqrt(np.mean(audio**2)) < QUIETEST_RMS
    if too_quiet or clipped > MOST_CLIPPED:
        return None, rate
    return audio, rate


def licences_of(text: str) -> Callable[[str], str]:
    """From a copyright file, a function from an installed path to the short name of its licence.

    Where the file is machine-readable (DEP-5), its last ``Files`` paragraph that fits wins. The
    patterns are about the source's tree, so a pattern may fit any end of the path.
    """
    stanzas: list[tuple[list[str], str]] = []
    for paragraph in re.split(r"\n\s*\n", text):
        files = re.search(r"^Files:(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        licence = re.search(r"^License:[ \t]*(.*)", paragraph, re.MULTILINE)
        if files and licence:
            stanzas.append((files.group(1).replace(",", " ").split(), licence.group(1).strip()))

    def licence_of(origin: str) -> str:
        parts = PurePosixPath(origin).parts
        ends = ["/".join(parts[index:]) for index in range(len(parts))]
        for patterns, licence in reversed(stanzas):
            if any(
                pattern == "*" or fnmatch.fnmatchcase(end, pattern.removeprefix("./"))
                for pattern in patterns
                for end in ends
            ):
                return licence or "see the package's copyright file"
        return "see the package's copyright file"

    return licence_of
