"""What the reader says of clips: counted before training, logged once where it only shows later."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model_card.run_summary import shown_file, without_places
from modeling_ast.audio import AudioNote, files_of_each_kind, notes_in_words

from ..sources.data_errors import NAMES_SHOWN

logger = logging.getLogger(__name__)

NOTES_KEPT = 1 << 16  # of a data set; beyond that a note may be logged again in every epoch


@dataclass(frozen=True)
class NotedClip:
    """A clip that can be used, and of which there is something to be said.

    Args:
        split (`str`): which it is in.
        place (`int`): which of its clips it is.
        path (`str`, *optional*): its file.
        notes (`tuple[AudioNote, ...]`): what the reader says of it.
    """

    split: str
    place: int
    path: str | None
    notes: tuple[AudioNote, ...]

    def rows(self, folder: Path | None) -> list[dict]:
        """Make rows for the run summary, without the folders of a machine; see [`shown_file`].

        Args:
            folder (`Path`, *optional*): in which the data is.

        Returns:
            `split`, `file`, `kind` and `text` of each note.
        """
        file = shown_file(self.path, folder) if self.path else f"clip {self.place + 1}"
        return [
            {
                "split": self.split,
                "file": file,
                "kind": note.kind,
                "text": without_places(note.text, self.path, folder),
            }
            for note in self.notes
        ]


def noted_in_words(notes: Sequence[tuple[AudioNote, ...]], number: int) -> list[str]:
    """Say how many clips there is something to be said of, and what is said of the first ones.

    Args:
        notes (sequence of `tuple[AudioNote, ...]`): of each clip.
        number (`int`): of all clips that were looked at.

    Returns:
        A text for each kind of note.
    """
    of_kind: dict[str, list[str]] = {}
    counts = files_of_each_kind(notes)
    for note in (note for of_clip in notes for note in of_clip):
        of_kind.setdefault(note.kind, []).append(note.text)
    words = []
    for kind, texts in of_kind.items():
        more = [f"and {len(texts) - NAMES_SHOWN} more"] if len(texts) > NAMES_SHOWN else []
        (count,) = notes_in_words({kind: counts[kind]}, number)
        words.append(f"{count}:" + "".join(f"\n    {line}" for line in [*texts[:NAMES_SHOWN], *more]))
    return words


class NotesSaid:
    """Which notes were said, remembered by all processes that read a data set's clips."""

    def __init__(self):
        self._digests = torch.zeros(NOTES_KEPT, dtype=torch.int64).share_memory_()

    def add(self, texts: Iterable[str]):
        """Take notes as said.

        Args:
            texts (iterable of `str`): of the notes.
        """
        for text in texts:
            self._is_new(text)

    def log(self, notes: Iterable[AudioNote]):
        """Log notes as warnings that were not said before.

        Args:
            notes (iterable of `AudioNote`): of a clip.
        """
        for note in notes:
            if self._is_new(note.text):
                logger.warning(note.text)

    def _is_new(self, text: str) -> bool:
        digest = int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=7).digest()) + 1
        for step in range(NOTES_KEPT):
            place = (digest + step) % NOTES_KEPT
            found = int(self._digests[place])
            if found == digest:
                return False
            if not found:
                self._digests[place] = digest
                return True
        return True
