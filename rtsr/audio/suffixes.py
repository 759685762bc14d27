"""Suffixes of sound files."""

from __future__ import annotations

#: Of those that PyAV reads, and that are not written.
READ_ONLY = frozenset({".3gp", ".aac", ".amr", ".m4a", ".mka", ".mkv", ".mp4", ".webm", ".wma"})
#: What is taken for a sound file in a folder.
SUFFIXES = READ_ONLY | frozenset(
    {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
)
