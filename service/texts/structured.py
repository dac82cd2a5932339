"""Text of a DICOM Structured Report. Any other DICOM file has none."""

from __future__ import annotations

from service.texts.unreadable import Unreadable


def structured_text(content: bytes) -> str:
    """Return a report's lines; raise Unreadable where the file is no report, or broken."""
    from service.imaging.refusal import Refused  # noqa: PLC0415 - few charts hold such files; numpy is large
    from service.imaging.sr import report_text  # noqa: PLC0415

    try:
        return report_text(content)
    except Refused as refused:
        raise Unreadable(refused.reason) from refused
