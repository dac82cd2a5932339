"""A patient's pictures as an image encoder sees them: looked at for a choice, kept, and found again by words.

What is kept lies under the patient's key. A picture that is found is one to look at: its score says how well
the words fit, and never that it shows what they say.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from service.errors import StoreError
from service.imaging.choice import Sight
from service.imaging.encoder import Embedder, NoEncoder
from service.imaging.index import Entry, PictureIndex
from service.imaging.labels import Labeller
from service.imaging.picture import Spot
from service.ports.pictures import PictureIndexes, Whose

LONGEST_QUESTION = 200
"""Characters of what is looked for: the encoder reads 64 tokens."""
_log = logging.getLogger("epicrisis.imaging")


class Hit(NamedTuple):
    """One picture that fits some words, and how well, 0 to 1 by the encoder's sigmoid."""

    entry: Entry
    likeness: float
    score: float


class AlbumAt(NamedTuple):
    """The album of one server's patients, as one reader sees them: what `service.pictures` looks with."""

    album: Album
    server: str
    reader: str
    """Access profile."""

    def see(
        self, pngs: Mapping[Spot, bytes], prompts: Sequence[str], patient: str, about: Mapping[Spot, Entry]
    ) -> Sight | None:
        """Look, and keep what was seen under this patient; None where it fails."""
        return self.album.see(pngs, prompts, Whose(self.server, self.reader, patient), about)


@dataclass
class Album:
    """All pictures that were looked at. Its methods block, for as long as the encoder takes."""

    encoder: Embedder
    indexes: PictureIndexes
    _labeller: Labeller = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._labeller = Labeller(self.encoder)

    def see(
        self, pngs: Mapping[Spot, bytes], prompts: Sequence[str], whose: Whose, about: Mapping[Spot, Entry]
    ) -> Sight | None:
        """Look at pictures and prompts, and keep what was seen; None, and a line in the log, where it fails.

        `about` says what each picture is of: what is not in it is looked at and not kept.
        """
        try:
            index = self.indexes.read(whose, self.encoder.model)
            digests = {spot: hashlib.sha256(png).hexdigest() for spot, png in pngs.items()}
            sight = self._look(pngs, prompts, index, digests)
            new = [spot for spot in pngs if spot in about]
            index.scale, index.bias = sight.scale, sight.bias
            index.add(
                [self._entry(about[one], digests[one], sight) for one in new],
                [sight.images[one] for one in new],
            )
        except NoEncoder as error:
            _log.warning("%s Pictures are chosen by rules alone.", error.message)
            return None
        self._keep(whose, index)
        return sight

    def find(self, whose: Whose, words: str, most: int = 10) -> tuple[Hit, ...]:
        """Return the kept pictures that fit the words best, best first. Raises NoEncoder, StoreError."""
        index = self.indexes.read(whose, self.encoder.model)
        if not len(index):
            return ()
        told = self.encoder.embed_texts([words[:LONGEST_QUESTION]])
        measure = Sight({}, {}, told.scale, told.bias)
        found = index.find(told.vectors[0], most)
        return tuple(Hit(one.entry, one.likeness, measure.score(one.likeness)) for one in found)

    def entries(self, whose: Whose) -> tuple[Entry, ...]:
        """Return every picture that is kept of a patient, in the order they came in. Raises StoreError."""
        return self.indexes.read(whose, self.encoder.model).entries

    def close(self) -> None:
        """End the encoder's process."""
        self.encoder.close()

    def _look(
        self,
        pngs: Mapping[Spot, bytes],
        prompts: Sequence[str],
        index: PictureIndex,
        digests: Mapping[Spot, str],
    ) -> Sight:
        seen = index.known(digests.items())
        new = [spot for spot in pngs if spot not in seen]
        seen |= zip(new, self.encoder.embed_images([pngs[spot] for spot in new]).vectors, strict=True)
        told = self.encoder.embed_texts(prompts)
        return Sight(seen, dict(zip(prompts, told.vectors, strict=True)), told.scale, told.bias)

    def _entry(self, entry: Entry, digest: str, sight: Sight) -> Entry:
        labels = self._labeller.suggest(entry.modality, [entry.what], sight.images[entry.spot])
        return msgspec.structs.replace(entry, digest=digest, labels=labels)

    def _keep(self, whose: Whose, index: PictureIndex) -> None:
        """What cannot be kept, or is of a patient who was shredded, is seen all the same."""
        try:
            self.indexes.write(whose, index)
        except StoreError as error:
            _log.warning("What the image encoder saw was not kept (%s)", error.code)
