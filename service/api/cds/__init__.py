"""CDS Hooks 2.0: a card in the EHR that says that a summary is there, how old it is, and how to open it.

No model is called here and no chart is written. A card holds counts and times, and nothing clinical.
"""

from __future__ import annotations
