"""Column types, and that every sealed column is bound to its own place."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import import_module
from pkgutil import iter_modules

import pytest
from sqlalchemy import LargeBinary, create_engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlmodel import SQLModel

import service.store
from service.errors import StoreError
from service.store import admission_tables, tables
from service.store.cipher import Cipher
from service.store.columns import Encrypted, UtcInstant, attach_cipher
from tests.unit.writeback.charts import east

DIALECT = SQLiteDialect_pysqlite()
for _module in iter_modules(service.store.__path__, "service.store."):
    import_module(_module.name)  # brings every table, whatever was imported before
OURS = [table for name, table in SQLModel.metadata.tables.items() if name.startswith("epicrisis_")]


def test_every_sealed_column_names_its_own_place() -> None:
    sealed = [column for table in OURS for column in table.columns if isinstance(column.type, Encrypted)]
    assert len(sealed) >= 10
    for column in sealed:
        assert isinstance(column.type, Encrypted)
        assert column.type.place == f"{column.table.name}.{column.name}"


def test_only_the_vault_parts_of_inputs_and_the_master_keys_seal_a_column_themselves() -> None:
    """Texts of template sets are about nobody, and lie in the open as in their folder."""
    binary = [
        str(column) for table in OURS for column in table.columns if isinstance(column.type, LargeBinary)
    ]
    assert sorted(binary) == [
        "epicrisis_input_part.content",
        "epicrisis_kept.content",
        "epicrisis_patient_key.wrapped",
        "epicrisis_template.content",
    ]


def test_all_tables_carry_the_products_name() -> None:
    assert tables.RunTable.metadata is admission_tables.AdmissionTable.metadata is SQLModel.metadata
    assert {table.name for table in OURS} == set(SQLModel.metadata.tables)


def test_a_sealed_column_without_a_cipher_refuses() -> None:
    with pytest.raises(StoreError, match="without its key"):
        Encrypted("a.b").process_bind_param("x", DIALECT)


def test_nothing_stays_nothing() -> None:
    assert Encrypted("a.b").process_bind_param(None, DIALECT) is None
    assert Encrypted("a.b").process_result_value(None, DIALECT) is None
    assert UtcInstant().process_bind_param(None, DIALECT) is None
    assert UtcInstant().process_result_value(None, DIALECT) is None


def test_a_long_text_is_compressed_before_it_is_sealed(cipher: Cipher) -> None:
    engine = create_engine("sqlite://")
    attach_cipher(engine, cipher)
    column = Encrypted("a.b")
    sealed = column.process_bind_param("metformin " * 10_000, engine.dialect)
    assert sealed is not None
    assert len(sealed) < 1_000
    assert column.process_result_value(sealed, engine.dialect) == "metformin " * 10_000


def test_instants_are_kept_in_utc_and_naive_ones_refused() -> None:
    at = datetime(2026, 1, 1, 1, tzinfo=east(9))
    stored = UtcInstant().process_bind_param(at, DIALECT)
    assert stored == at
    assert stored is not None
    assert stored.utcoffset() == datetime.now(UTC).utcoffset()
    with pytest.raises(StoreError, match="without a zone"):
        UtcInstant().process_bind_param(datetime(2026, 1, 1), DIALECT)  # noqa: DTZ001
