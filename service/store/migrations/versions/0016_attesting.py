"""What clinicians dispose of, edit and attest; what is hidden; recalls that wait for a second person."""

from __future__ import annotations

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
