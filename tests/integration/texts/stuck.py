"""A reader whose libraries never finish their import."""

from __future__ import annotations

import time

time.sleep(600)
