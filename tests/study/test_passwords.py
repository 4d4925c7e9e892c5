"""Passwords of databases are never printed, however an address is written."""

import pytest

from fairdx.core.errors import InputError
from fairdx.study import storage
from fairdx.study.storage import Trials

SECRETS = ("hunter2", "xq7@wj9", "k3z/vz0:8yq", "p%40q7", "two w0rds", "#h4sh", "100%")
FORMS = (
    "postgresql://me:{}@127.0.0.1:1/db",
    "postgres://me:{}@127.0.0.1:1/db",
    "postgresql://me:{}@127.0.0.1:port/db",
    "postgresql://me:{}@127.0.0.1:99999/db",
    "postgresql:/me:{}@127.0.0.1:1/db",
    "postgresql//me:{}@127.0.0.1/db",
    "me:{}@127.0.0.1/db",
    "postgresql://me:{}@[::1/db",
    "postgresql://127.0.0.1:1/db?user=me&password={}",
    "postgresql://127.0.0.1:1/db?sslmode={}",
    "postgresql+nodriver://me:{}@127.0.0.1/db",
    "nosuchdatabase://me:{}@127.0.0.1/db",
    "postgresql://:{}@/db?host=/nowhere",
    " postgresql://me:{}@127.0.0.1:1/db ",
    "sqlite:///nowhere/{}/study.db",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_password_is_never_shown(form, secret, tmp_path, monkeypatch):
    pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with pytest.raises(InputError) as raised:
        Trials("study", tmp_path, form.replace("{}", secret), ("minimize",)).close()
    error, said = raised.value, ""
    while error is not None:  # what --debug would show
        said += str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for part in (secret, *secret.replace("/", "@").replace(":", "@").split("@")):
        assert part not in said


def test_a_good_address_is_named_with_the_reason(tmp_path, monkeypatch):
    pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with pytest.raises(InputError, match=r"postgresql at 127\.0\.0\.1: .*(refused|failed)"):
        Trials("study", tmp_path, "postgresql://me:hunter2@127.0.0.1:1/db", ("minimize",))
