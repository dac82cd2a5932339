"""How much one server is given: time, bytes, pages, requests at once. All in one place, all with a reason."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection to a server. Seconds end in `_s`, sizes are bytes after decompression."""

    connect_s: float = 10.0
    read_s: float = 60.0
    """Longest silence within one answer. `$everything` of a large chart is silent while it is assembled."""
    total_s: float = 300.0
    """Longest one request may take from first byte to last, whatever trickles in."""
    retries: int = 3
    """Repetitions after the first attempt, of requests that may be repeated."""
    backoff_s: float = 0.5
    """Upper bound of the first pause; it doubles each time (full jitter)."""
    retry_after_cap_s: float = 60.0
    """Longest pause a server's Retry-After can impose."""
    concurrency: int = 6
    """Requests in flight at once: what a browser opens towards one host."""
    max_bytes: int = 100 * MIB
    """One answer. The largest Synthea chart is 11 MB in one `$everything`."""
    max_pages: int = 2_000
    page_size: int = 500
    """`_count`: fewer round trips; servers cap it as they like."""
    max_medications: int = 200
    """Medication resources that are read because a prescription refers to them."""
    max_attachments: int = 500
    max_attachment_bytes: int = 10 * MIB
    max_attachments_bytes: int = 100 * MIB
    """All attachments of one pull together."""
    refresh_overlap_s: float = 300.0
    """How far before the last read a refresh begins: clocks differ, and transactions commit late."""
    whole_every_s: float = 24 * 3600.0
    """A record that was read whole longer ago is read whole again, whatever a refresh would find."""
    max_rereads: int = 50
    """Resources that a refresh looks up one by one to see whether they were deleted."""
    batch_entries: int = 100
    """Reads in one batch Bundle: servers cap them, and work them off one after the other."""
    allow_plain_http: bool = False
    """Unencrypted http to hosts other than this one."""


@dataclass(frozen=True, slots=True)
class ImagingLimits:
    """What one study may cost, beside the limits of the connection to the PACS."""

    max_series: int = 200
    """Series of a study whose instances are listed."""
    max_instances: int = 10_000
    """Instances of a study that are listed. A CT of 2,000 slices is ordinary, a cardiac one has 8,000."""
    max_metadata_bytes: int = 64 * MIB
    """Metadata of one series: 5 to 10 kB an instance."""
    max_instance_bytes: int = 128 * MIB
    """One instance. A tomosynthesis or a long loop of ultrasound is larger: ask for frames of it."""
    max_rendered_bytes: int = 16 * MIB
    """One frame as the PACS renders it."""
    max_picture_bytes: int = 16 * MIB
    """A photograph or scanned page that is kept in the record itself."""
    max_part_head_bytes: int = 16 * 1024
    """Headers of one part of a multipart answer, and what stands before the first."""
    page_size: int = 100
    """`limit` of a search: servers cap it as they like."""
