"""Wiring: the only place that knows which edges are in use."""

from __future__ import annotations

from service.wiring.ehr import audit_sender, fhir_client, manner_of, open_desk, tell_collector
from service.wiring.engines import build_engine, cache_salt_of, model_folder, open_summarizer
from service.wiring.installation import (
    open_admissions,
    open_inputs,
    open_keys,
    open_store,
    open_vault,
    policy,
    software_version,
    utc_now,
)
from service.wiring.pages import build_app, tls_files
from service.wiring.rounds import Rounds, check_kind, open_rounds, open_watchman, schedules, watch_of_schedule

__all__ = [
    "Rounds",
    "audit_sender",
    "build_app",
    "build_engine",
    "cache_salt_of",
    "check_kind",
    "fhir_client",
    "manner_of",
    "model_folder",
    "open_admissions",
    "open_desk",
    "open_inputs",
    "open_keys",
    "open_rounds",
    "open_store",
    "open_summarizer",
    "open_vault",
    "open_watchman",
    "policy",
    "schedules",
    "software_version",
    "tell_collector",
    "tls_files",
    "utc_now",
    "watch_of_schedule",
]
