"""Settings: every variable is read, a wrong one is named, and nothing changes afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.settings import PREFIX, Settings, SettingsInvalid, load_settings

OTHER_VALUES: dict[str, tuple[str, object]] = {
    "models_dir": ("/srv/models", Path("/srv/models")),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("0", 0),
    "redis_url": ("redis://cache:6379/1", "redis://cache:6379/1"),
    "user_features_file": ("users.parquet", Path("users.parquet")),
    "item_features_file": ("items.parquet", Path("items.parquet")),
    "feature_failure": ("error", "error"),
    "threads": ("3", 3),
    "allow_request_formula": ("true", True),
    "memory_budget_bytes": ("1000000", 1_000_000),
    "item_cache_type": ("float16", "float16"),
    "decision_log_dir": ("log", Path("log")),
    "decision_log_rate": ("0.5", 0.5),
    "admin_token": ("secret", SecretStr("secret")),
    "log_level": ("debug", "debug"),
}


def other_value(name: str) -> tuple[str, object]:
    """A variable's text that is not the default, and what it means."""
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    default = Settings.model_fields[name].default
    if isinstance(default, bool):
        return str(not default).lower(), not default
    assert isinstance(default, int | float), f"{name}: say what another value is"
    return str(default + 1), default + 1


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.upper().startswith(PREFIX):
            monkeypatch.delenv(variable)


def test_defaults_need_no_environment() -> None:
    settings = load_settings()
    assert settings.models_dir == Path("models")
    assert settings.redis_url is None
    assert settings.allow_request_formula is False


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = other_value(name)
    default = getattr(load_settings(), name)
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", text)
    settings = load_settings()
    assert getattr(settings, name) == value != default
    changed = {
        field
        for field in Settings.model_fields
        if getattr(settings, field) != getattr(load_settings({name: default}), field)
    }
    assert changed == {name}
    assert Settings.model_fields[name].description


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "http"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", ""),
        ("row_budget", "0"),
        ("row_budget", "1.5"),
        ("queue_rows", "0"),
        ("threads", "0"),
        ("max_candidates", "0"),
        ("max_body_bytes", "1023"),
        ("timeout_ms", "0"),
        ("timeout_ms", "-5"),
        ("timeout_ms", "nan"),
        ("timeout_ms", "50ms"),
        ("feature_timeout_ms", "0"),
        ("poll_interval_ms", "0"),
        ("feature_failure", "ignore"),
        ("allow_request_formula", "maybe"),
        ("log_level", "loud"),
    ],
)
def test_a_wrong_value_is_named(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", text)
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"MULTIRANK_{name.upper()}: ")
    assert line.endswith(f"(got {text!r})")


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIRANK_PORT", "x")
    monkeypatch.setenv("MULTIRANK_THREADS", "none")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["MULTIRANK_PORT", "MULTIRANK_THREADS"]


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("MULTIRANK_PROT", "MULTIRANK_PROT: no such setting; did you mean MULTIRANK_PORT?"),
        (
            "multirank_row_buget",
            "multirank_row_buget: no such setting; did you mean MULTIRANK_ROW_BUDGET?",
        ),
    ],
)
def test_an_unknown_variable_is_named(
    variable: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings()
    assert str(caught.value) == message


def test_other_programs_variables_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIRANKING_PORT", "x")
    monkeypatch.setenv("PORT", "x")
    assert load_settings().port == 8000


def test_what_is_given_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIRANK_PORT", "81")
    monkeypatch.setenv("MULTIRANK_HOST", "::1")
    settings = load_settings({"port": 82})
    assert (settings.port, settings.host) == (82, "::1")
    with pytest.raises(SettingsInvalid, match=r"MULTIRANK_PORT: .*less than or equal to 65535"):
        load_settings({"port": 99999})
    with pytest.raises(SettingsInvalid, match=r"MULTIRANK_PROT: .*not permitted"):
        load_settings({"prot": 82})


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]


def test_what_to_do_when_the_store_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().feature_failures == {"": "defaults"}
    monkeypatch.setenv("MULTIRANK_FEATURE_FAILURE", "error, user=defaults,films/item=error")
    failures = load_settings().feature_failures
    assert failures == {"": "error", "user": "defaults", "films/item": "error"}
    for wrong in ("", "sometimes", "user=", "user=never", "error,"):
        monkeypatch.setenv("MULTIRANK_FEATURE_FAILURE", wrong)
        with pytest.raises(SettingsInvalid, match=r"FEATURE_FAILURE: .*expected defaults"):
            load_settings()
