"""Every setting of the service: one `MULTIRANK_` environment variable each, read once, frozen."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.values import KeptAs, OnFailure

PREFIX = "MULTIRANK_"


class SettingsInvalid(Exception):
    """A variable has a wrong value or a wrong name; the message names it."""


def _checked_failures(text: str) -> str:
    _failures(text)
    return text


def _failures(text: str) -> dict[str, OnFailure]:
    """`defaults,user=error` -> {"": "defaults", "user": "error"}."""
    found: dict[str, OnFailure] = {"": "defaults"}
    for part in text.split(","):
        name, _, policy = part.strip().rpartition("=")
        if policy not in get_args(OnFailure):
            raise ValueError(f"{part.strip()!r}: expected defaults, error, or NAME=one of these")
        found[name] = cast("OnFailure", policy)
    return found


class Settings(BaseSettings):
    """The service's configuration. Field `models_dir` is the variable `MULTIRANK_MODELS_DIR`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    models_dir: Path = Field(Path("models"), description="Directory of published models")
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port; 0 picks one")
    reuse_port: bool = Field(
        False,
        description="Whether another instance may listen on the port too, to take over from this",
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        1, description="Processes that share the port; 0: one for each usable core"
    )
    redis_url: str | None = Field(
        None, description="Feature store, e.g. redis://host:6379/0; unset: the embedded store"
    )
    user_features_file: Path | None = Field(
        None, description="Parquet file for the embedded store; unset: the bundle's sample"
    )
    item_features_file: Path | None = Field(
        None, description="Parquet file for the embedded store; unset: the bundle's sample"
    )
    feature_timeout_ms: Annotated[float, Field(gt=0)] = Field(
        50.0, description="Longest wait for the feature store in one request, milliseconds"
    )
    feature_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        64 << 20, description="In-process feature rows, bytes for users and for items each"
    )
    feature_ttl_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="Longest a feature row is believed in process, seconds"
    )
    feature_stale_s: Annotated[float, Field(ge=0)] = Field(
        300.0, description="While the store fails, rows serve this long after they were read, s"
    )
    feature_failure: Annotated[str, AfterValidator(_checked_failures)] = Field(
        "defaults",
        description="Without row and store: `defaults` (degraded) or `error` (503); also by "
        "feature set or entity: `defaults,user=error,films/item=error`",
    )
    timeout_ms: Annotated[float, Field(gt=0)] = Field(
        500.0, description="A request's deadline, milliseconds; requests may shorten it"
    )
    max_candidates: Annotated[int, Field(ge=1)] = Field(
        2000, description="Most candidates a request may have"
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        8 << 20, description="Most bytes a request's body may have"
    )
    row_budget: Annotated[int, Field(ge=1)] = Field(
        1024, description="Most candidate rows in one run of the model"
    )
    queue_rows: Annotated[int, Field(ge=1)] = Field(
        20_000, description="Most candidate rows waiting for one model; beyond: 429"
    )
    item_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        256 << 20, description="Item tensors kept by each loaded version, bytes; 0 keeps none"
    )
    item_cache_type: KeptAs = Field(
        "float32",
        description="Numbers of item tensors; `float16`: twice as many in those bytes, less memory "
        "read in a run, and rounded scores (the log says by how much)",
    )
    memory_budget_bytes: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Estimated bytes of all loaded versions; one more is refused. Unset: no limit",
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Threads inside one run of a model; unset: the usable cores over the workers",
    )
    poll_interval_ms: Annotated[float, Field(gt=0)] = Field(
        500.0, description="How often the models directory is looked at, milliseconds"
    )
    allow_request_formula: bool = Field(
        False, description="Whether a request may bring a fusion formula of its own"
    )
    decision_log_dir: Path | None = Field(
        None, description="Directory of the decision log; unset: it is off"
    )
    decision_log_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="Share of the requests that are logged, by the hash of their id"
    )
    decision_log_file_bytes: Annotated[int, Field(ge=1)] = Field(
        64 << 20, description="A file of the decision log is closed at this size ..."
    )
    decision_log_file_s: Annotated[float, Field(gt=0)] = Field(
        300.0, description="... or at this age, seconds, whichever is first"
    )
    decision_log_bytes: Annotated[int, Field(ge=0)] = Field(
        10 << 30, description="All files of the decision log; beyond, the oldest are deleted"
    )
    admin_token: Annotated[SecretStr, Field(min_length=1)] | None = Field(
        None, description="Bearer token of the calls under /admin; unset: they are off"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log lines that are written"
    )

    @property
    def feature_failures(self) -> dict[str, OnFailure]:
        """`feature_failure` by feature set and entity; "" is for all others."""
        return _failures(self.feature_failure)


def load_settings(given: Mapping[str, object] | None = None) -> Settings:
    """Read the settings from the environment.

    Args:
        given: settings by field name that come before the environment's, e.g. from a command line.

    Raises:
        SettingsInvalid: a variable's value is wrong, or a `MULTIRANK_` variable is not one.
    """
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    for variable in os.environ:
        if variable.upper().startswith(PREFIX) and variable.upper() not in known:
            near = difflib.get_close_matches(variable.upper(), sorted(known), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsInvalid(f"{variable}: no such setting{hint}")
    try:
        return Settings(**(given or {}))  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"{PREFIX}{str(each['loc'][0]).upper()}: {each['msg']} (got {each['input']!r})"
            for each in error.errors()
        ]
        raise SettingsInvalid("\n".join(lines)) from error


def table() -> str:
    """The settings as a Markdown table, as the README has it."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, each in Settings.model_fields.items():
        default = "" if each.default is None else f"`{each.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {each.description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
