"""Settings: `EPICRISIS_*` in the environment, or lines of `epicrisis.env` in the working folder.

This is the only module that reads the environment. Secrets are `SecretStr`, so no `repr`, log or error
shows them.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import SettingsError

ENGINE_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HF_HOME", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE",
)  # fmt: skip
"""What a supervised engine may see of our environment: never a token, a key or a password."""


class FhirAuth(StrEnum):
    """How Epicrisis signs in at the FHIR server."""

    NONE = "none"
    BASIC = "basic"
    BEARER = "bearer"
    BACKEND = "backend"


class Settings(BaseSettings):
    """Everything that can be set. Each field is `EPICRISIS_<NAME>`; the README lists them."""

    model_config = SettingsConfigDict(
        env_prefix="EPICRISIS_", env_file="epicrisis.env", env_ignore_empty=True, extra="ignore"
    )

    home: Path = Path(".epicrisis")
    """Folder of the database, the key file, the local engine's logs and the demonstration's data."""
    database_url: str = Field(default="", repr=False)
    """SQLAlchemy URL, for example postgresql+psycopg://user:password@host/database; empty means SQLite in
    `home`."""
    key_file: Path | None = None
    """File of the key that encrypts stored patient text; empty means `home/key`."""

    master_key: SecretStr = SecretStr("")
    """Master key of what is stored (32 bytes in base64), where it is not to lie in a file of this machine."""
    master_key_previous: SecretStr = SecretStr("")
    """The one before it, until `epicrisis keys rotate` has run."""

    fhir_url: str = ""
    """Base URL of the FHIR server, for example https://ehr.hospital.example/fhir/R4"""
    fhir_auth: FhirAuth = FhirAuth.NONE
    fhir_user: str = ""
    fhir_password: SecretStr = SecretStr("")
    fhir_token: SecretStr = SecretStr("")
    fhir_client_id: str = ""
    fhir_private_key: Path | None = None
    """JWK file with the private key of SMART Backend Services (RS384 or ES384)."""
    fhir_scope: str = "system/*.rs system/DocumentReference.cu system/Provenance.cu system/Device.cu"
    fhir_allow_http: bool = False
    """Allow plain http to a host other than loopback. Patient data then crosses the network readable."""
    fhir_allowed_origins: tuple[str, ...] = ()
    """Further origins that URLs in a record, an export or the server's SMART configuration may point to. Its
    token goes to the FHIR server alone, and to these for an export's files that ask for it."""
    fhir_timeout_s: float = Field(default=60.0, gt=0)
    fhir_concurrency: int = Field(default=6, ge=1, le=64)

    pacs_url: str = ""
    """DICOMweb base URL of the image archive that is asked where the record names none."""
    pacs_auth: FhirAuth = FhirAuth.NONE
    pacs_user: str = ""
    pacs_password: SecretStr = SecretStr("")
    pacs_token: SecretStr = SecretStr("")
    pacs_token_url: str = ""
    """Token endpoint for `backend`; client id and key are those of the FHIR server."""
    pacs_scope: str = "system/ImagingStudy.rs"
    pacs_allow_http: bool = False
    pacs_allowed_origins: tuple[str, ...] = ()
    """Further image archives that an Endpoint of a record may name; no credentials go there."""
    pacs_issuers: dict[str, str] = Field(default_factory=dict)
    """Issuer of Patient ID as images have it → system of the patient's identifier."""
    pacs_timeout_s: float = Field(default=30.0, gt=0)
    pacs_concurrency: int = Field(default=4, ge=1, le=32)
    ohif_url: str = ""
    """Base URL of the site's own image viewer (OHIF); empty: no link to one."""

    file_when: Literal["draft", "attested"] = "draft"
    """Whether drafts are filed as such, or kept here until a clinician attests them."""
    write_profile: str = ""
    """How the FHIR server is written to: generic, us-core, oracle-millennium, epic or minimal; empty chooses
    by its CapabilityStatement."""
    write_risk_signed_by: str = ""
    """Who accepted in writing that this server drops what says that a draft is one; empty: nobody."""

    audit_anchors: Path | None = None
    """File to which the head of the audit log's chain is written every minute: on storage that nobody who can
    change the database can change; empty means `home/audit-anchors`."""
    audit_events: str = "off"
    """Where FHIR AuditEvents of every act go: `off`, `ehr` (the FHIR server), or a collector's base URL."""
    audit_token: SecretStr = SecretStr("")
    """Bearer token for the collector; the FHIR server's own is never sent there."""

    engine: Literal["vllm", "scripted"] = "vllm"
    engine_url: str = ""
    """An OpenAI-compatible vLLM, for example http://127.0.0.1:8000/v1; empty starts our own."""
    engine_api_key: SecretStr = SecretStr("")
    model: str = ""
    """A local folder or hub name, for example google/medgemma-1.5-4b-it; empty: the demonstration model."""
    model_digest: str = ""
    """Digest of the weights that a remote engine serves, where you know it."""
    profile: str = ""
    """Engine profile by name; empty chooses by the model's name."""
    tokenizer: Path | None = None
    """Folder with the served model's tokenizer.json, where a remote engine serves: counts are then local."""
    digest_windows: int | None = Field(default=None, ge=0)
    """How many parts of a chart beyond the budget one run may digest; empty: the profile's number."""
    second_pass: Literal["auto", "off"] = "auto"  # noqa: S105 - no password
    """Whether the engine is asked about what rules cannot settle, where it passes a probe."""
    prompts: Path | None = None
    """Folder with the site's own template sets, one folder each."""
    images: Literal["off", "show", "file"] = "off"
    """What becomes of what the model reads from pictures: nothing is looked at, it is shown apart in
    sidebar and console, or it is also filed, marked as not checked."""
    images_most: int = Field(default=8, ge=1, le=85)
    """Most pictures that one summary's model is shown."""
    images_timeout_s: float = Field(default=60.0, gt=0, le=600)
    """How long one summary waits for pictures in all, in seconds; what is not there then is not seen."""
    images_burned_in: Literal["use", "refuse"] = "use"
    """Whether pictures are used into whose pixels text may be burned."""
    medsiglip: Path | None = None
    """Folder with the image encoder google/medsiglip-448; empty: pictures are chosen by rules alone."""
    medsiglip_device: str = Field(default="", pattern=r"(cpu|cuda(:\d{1,2})?)?")
    """Where it runs, for example `cpu` or `cuda:1`; empty: on a GPU where there is one."""
    picture_cache_mb: int = Field(default=1024, ge=0)
    """Most megabytes of pictures kept, encrypted; 0 keeps none."""
    snapshot_days: int = Field(default=30, ge=0)
    """How long an unused snapshot of a chart, or digest of a part of one, is kept; 0 keeps none."""
    replay_days: int = Field(default=365, ge=0)
    """How long it is kept what a run was made of, so that it can be replayed; 0 keeps none."""
    retention_days: int = Field(default=0, ge=0)
    """How long texts of summaries and all that quotes them are kept, by `epicrisis retain`; 0: for ever."""
    budget_tokens: int | None = Field(default=None, ge=200)
    """Token budget of the context; empty: what the model's window leaves, or the profile's limit."""

    schedules: Path | None = None
    """TOML file of schedules: when which admissions are summarised."""
    quality: Path | None = None
    """TOML file of limits: when quality has changed, and what an evaluation must reach."""
    gate: Literal["on", "off"] = "off"
    """Whether schedules refuse a model with a prompt that has no passed evaluation."""
    review: Path | None = None
    """TOML file of which summaries are reviewed for quality; empty: as in ops/review.toml."""
    sweep_kind: str = "admission"
    """Template set of `epicrisis sweep`, and of admissions that are heard of between schedules."""
    sweep_visits: int = Field(default=4, ge=1, le=256)
    """Admissions that one worker looks after at a time."""
    sweep_requests: int = Field(default=8, ge=1, le=1024)
    """Requests of the schedule that one worker has at the engine at a time: fewer than its seats."""
    poll_s: float = Field(default=60.0, ge=0)
    """How often a worker asks who is admitted, in seconds; 0: only when told."""
    queue_days: int = Field(default=30, ge=1)
    """How long ended admissions, events, ticks and finished work of the queue are kept."""
    retry_scale: float = Field(default=1.0, gt=0, le=10)
    """How long a step that failed is waited for before it is tried again, as a multiple of the usual."""
    drain_s: int = Field(default=60, ge=0)
    """How long a worker that is told to stop gives what is under way, in seconds."""
    hook_url: str = ""
    """Address at which the FHIR server reaches this service: it is then told of admissions (Subscription)."""
    hook_secret: SecretStr = SecretStr("")
    """What the FHIR server sends with each notification; at least 32 characters."""
    hl7_host: str = "127.0.0.1"
    hl7_port: int = Field(default=0, ge=0, le=65535)
    """Port for HL7 v2 ADT messages (MLLP); 0: none."""
    hl7_allow_plain: bool = False
    """Take unencrypted ADT messages from other machines."""
    census: Path | None = None
    """CSV file of who is admitted, read anew by every sweep."""
    authorities: dict[str, str] = {}
    """Assigning authority of HL7 v2, or system of a census, to the URI that the FHIR server uses."""
    opt_out_list: Path | None = None
    """TOML or CSV file of patients and wards that no schedule touches."""
    opt_out_flags: tuple[str, ...] = ()
    """`system|code` of the Flags that say no; none: Flags are not asked for."""
    opt_out_consents: tuple[str, ...] = ()
    """`system|code` by which Consents name summaries by a machine."""
    allowed_labels: tuple[str, ...] = ()
    """`system|code` of security labels that this site declared harmless: a stay may bear them."""
    subgroup_codes: Path | None = None
    """TOML file with a site's own codes and words for obstetrics and psychiatry, added to ours."""
    subgroups: tuple[Literal["minors", "obstetrics", "psychiatry"], ...] = ()
    """Patients outside of the intended use that this site switched on after an evaluation."""

    oidc_issuer: str = ""
    """Issuer of the OpenID provider by which people and services sign in, exactly as it writes itself; empty:
    one user of this machine, by a one-time token."""
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    """Empty: a public client, protected by PKCE alone."""
    oidc_audience: str = ""
    """What a service's access token must be for (`aud`); empty: no access token opens anything."""
    oidc_tenant: str = ""
    """What every token must say in the claim `oidc_tenant_claim`; empty: nothing is asked for."""
    oidc_tenant_claim: str = "tid"
    oidc_roles_claim: str = "roles"
    """Claim that holds a person's roles or groups; `realm_access.roles` looks inside."""
    oidc_roles: dict[str, str] = {}
    """JSON map from a value of that claim to reader, clinician, reviewer, auditor or admin."""
    session_idle_s: int = Field(default=1800, ge=60)
    """How long a session lasts that nobody uses, in seconds."""
    session_max_s: int = Field(default=43200, ge=60)
    """How long any session lasts, in seconds."""
    ehrs: Path | None = None
    """TOML file of the EHRs that may launch Epicrisis; empty: none."""
    follow_s: float = Field(default=15.0, gt=0, le=600)
    """How long a summary is written on that nobody follows any more, in seconds."""
    told_hours: int = Field(default=24, ge=1)
    """How long what was told of a summary while it was written is kept, in hours."""
    tls_cert: Path | None = None
    """PEM file of the certificate chain that the pages are served with."""
    tls_key: Path | None = None
    """PEM file of its private key."""

    time_zone: str = ""
    """The site's IANA time zone, for calendar days; empty keeps each date as recorded."""
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Host headers that the pages answer to."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    @field_validator("audit_events")
    @classmethod
    def _known_collector(cls, value: str) -> str:
        if value not in ("off", "ehr") and not value.startswith(("https://", "http://")):
            raise ValueError("off, ehr, or the base URL of a FHIR server")
        return value

    @field_validator("opt_out_flags", "opt_out_consents", "allowed_labels")
    @classmethod
    def _codes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(text.strip().rpartition("|")[2] for text in value):
            raise ValueError("each is written as system|code")
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        import zoneinfo  # noqa: PLC0415 - only here

        if value and value not in zoneinfo.available_timezones():
            raise ValueError("not an IANA time zone, for example Europe/Berlin")
        return value

    def engine_environment(self) -> dict[str, str]:
        """Return the part of our environment that a supervised engine may see."""
        return {name: os.environ[name] for name in ENGINE_ENVIRONMENT if name in os.environ}  # noqa: TID251


def load_settings(**overrides: object) -> Settings:
    """Read the settings. Raises SettingsError that names each wrong setting, never its value."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = ", ".join(
            f"EPICRISIS_{'_'.join(str(part) for part in problem['loc']).upper()} ({problem['msg']})"
            for problem in error.errors(include_input=False, include_context=False)
        )
        raise SettingsError(
            f"Settings that cannot be used: {wrong}.", "Correct them and try again."
        ) from None
