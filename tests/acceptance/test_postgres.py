"""The command line on PostgreSQL: one setting, and the password in no output."""

from __future__ import annotations

from fixtures.postgres import PASSWORD, PostgresServer
from service.settings import load_settings
from tests.acceptance.conftest import Run

ESCAPED = "p%40ss"


def check_quiet(*outputs: str) -> None:
    for output in outputs:
        assert PASSWORD not in output
        assert ESCAPED not in output


def test_one_setting_puts_the_store_on_postgresql(epicrisis: Run, postgres: PostgresServer) -> None:
    url = postgres.new_database()
    listed = epicrisis("runs", "--json", EPICRISIS_DATABASE_URL=url)
    assert listed.code == 0
    stopped = epicrisis("stop", "--all", "--reason", "test", EPICRISIS_DATABASE_URL=url)
    assert stopped.code == 0, stopped.stderr
    names = postgres.admin("SELECT scope FROM epicrisis_stop", url.rpartition("/")[2])
    assert names == [("all",)]
    check_quiet(listed.stdout, listed.stderr, stopped.stdout, stopped.stderr)


def test_doctor_names_the_database_that_answers_and_not_its_password(
    epicrisis: Run, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    doctor = epicrisis("doctor", "--json", EPICRISIS_DATABASE_URL=url)
    store = next(one for one in doctor.json["findings"] if one["name"] == "store")
    place = f"127.0.0.1:{postgres.port}, {url.rpartition('/')[2]}, no TLS"
    assert (store["state"], store["detail"].partition(" on ")[2]) == (
        "ok",
        f"{place}: 0 runs stored, patient text encrypted",
    )
    assert store["detail"].startswith("PostgreSQL ")
    sqlite = epicrisis("doctor", "--json", EPICRISIS_DATABASE_URL="")
    assert "SQLite 3" in sqlite.stdout
    check_quiet(doctor.stdout, doctor.stderr)


def test_doctor_says_that_a_database_does_not_let_us_in_without_the_password(
    epicrisis: Run, postgres: PostgresServer
) -> None:
    url = postgres.new_database().replace("epicrisis:", "nobody:")
    doctor = epicrisis("doctor", "--json", EPICRISIS_DATABASE_URL=url)
    store = next(one for one in doctor.json["findings"] if one["name"] == "store")
    assert (doctor.code, store["state"]) == (1, "failed")
    assert "does not let us in" in store["detail"]
    runs = epicrisis("runs", "--json", EPICRISIS_DATABASE_URL=url)
    assert (runs.code, runs.json["error"]["code"]) == (9, "store")
    check_quiet(doctor.stdout, doctor.stderr, runs.stdout, runs.stderr)


def test_the_settings_do_not_show_the_password_of_the_database(
    postgres: PostgresServer,
) -> None:
    settings = load_settings(database_url=postgres.url("any"))
    assert settings.database_url
    check_quiet(repr(settings), str(settings))
