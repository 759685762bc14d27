"""A file of libsndfile that is read from its beginning to its end."""

from __future__ import annotations

import soundfile


class StreamedFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file in which soundfile does not seek.

    After each block soundfile seeks to where the file is already. That starts the decoder anew: of
    an MP3 file of few bits it then lacks what frames further back hold of the next one, Opus
    of many channels and FLAC without a length fail.
    """

    def seekable(self) -> bool:
        """Return ``False``, so that blocks follow each other without a seek."""
        return False
