"""The process in which pictures of strangers are decoded. Started by `reader`, never imported by it.

    python -m service.imaging.child PARENT SECONDS MEMORY REPLY

How it bounds itself is told in `service.apart.child`.
"""

from __future__ import annotations

import sys

import msgspec

from service.apart.child import Answer, serve
from service.apart.frames import TOO_LARGE, TOO_MUCH_MEMORY, Said


def main(parent: int, seconds: float, memory_bytes: int, max_reply_bytes: int) -> None:
    """Bound this process, then answer orders until there are no more."""
    serve(parent, seconds, memory_bytes, lambda: _reading(max_reply_bytes))


def _reading(max_reply_bytes: int) -> Answer:
    from service.imaging.order import Order  # noqa: PLC0415 - decoders are loaded within the bounds
    from service.imaging.refusal import BROKEN, Refused  # noqa: PLC0415
    from service.imaging.work import carry_out  # noqa: PLC0415

    def answer(content: bytes, order: str, _: str) -> tuple[Said, bytes]:
        try:
            reply = carry_out(content, msgspec.json.decode(order, type=Order))
        except Refused as refused:
            return Said.UNREADABLE, refused.reason.encode()
        except MemoryError:
            return Said.UNREADABLE, TOO_MUCH_MEMORY.encode()
        except Exception:  # a fault that no reader foresaw is a fault of what was read
            return Said.UNREADABLE, BROKEN.encode()
        too_large = len(reply) > max_reply_bytes
        return (Said.UNREADABLE, TOO_LARGE.encode()) if too_large else (Said.TEXT, reply)

    return answer


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
