"""What a request can be answered with when it is not answered with scores.

    ServiceError                  status  code
      InvalidRequest              422     invalid_request
        MissingFeature            422     missing_feature
      UnknownModel                404     unknown_model
      TooManyCandidates           413     too_many_candidates
      BodyTooLarge                413     body_too_large
      MethodNotAllowed            405     method_not_allowed
      UnsupportedMediaType        415     unsupported_media_type
      QueueFull                   429     queue_full              with Retry-After
      InferenceFailed             500     inference_failed
      FeatureStoreUnavailable     503     feature_store_unavailable
      NoActiveModel               503     no_active_model
      NotReady                    503     not_ready               /readyz alone
      DeadlineExceeded            504     deadline_exceeded
      Unauthorized                401     unauthorized            /admin alone
      AdminDisabled               403     admin_disabled          /admin alone
      Conflict                    409     conflict                /admin alone

The rooms raise these; `app.py` has the one handler that turns them into RFC 9457 answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One field that is wrong: `loc` is its path in the request, `msg` says what to mend."""

    loc: str
    msg: str


class ServiceError(Exception):
    """An answer that is not scores. `detail` is for the caller and names the fix."""

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class InvalidRequest(ServiceError):
    """The request cannot be understood, or asks for something the model does not have."""

    status = 422
    code = "invalid_request"
    title = "Invalid request"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        super().__init__(f"{first.loc}: {first.msg}{more}" if first.loc else first.msg + more)

    @classmethod
    def at(cls, loc: str, msg: str) -> InvalidRequest:
        """A request with one wrong field."""
        return cls([FieldError(loc, msg)])


class MissingFeature(InvalidRequest):
    """A required feature has no value, neither in the request nor in the store."""

    code = "missing_feature"
    title = "Missing feature"


class UnknownModel(ServiceError):
    """No such model, or the pinned version is not loaded."""

    status = 404
    code = "unknown_model"
    title = "Unknown model or version"


class TooManyCandidates(ServiceError):
    """More candidates than one request may have."""

    status = 413
    code = "too_many_candidates"
    title = "Too many candidates"


class BodyTooLarge(ServiceError):
    """More bytes than one request may have."""

    status = 413
    code = "body_too_large"
    title = "Body too large"


class MethodNotAllowed(ServiceError):
    """The route takes another method."""

    status = 405
    code = "method_not_allowed"
    title = "Method Not Allowed"


class UnsupportedMediaType(ServiceError):
    """The body's content type is not one of those that are read."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class QueueFull(ServiceError):
    """The queue has no room for the request's rows; `retry_after_s` is when it should have."""

    status = 429
    code = "queue_full"
    title = "Queue full"

    def __init__(self, detail: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(detail)


class InferenceFailed(ServiceError):
    """The model's graph failed on this request."""

    code = "inference_failed"
    title = "Inference failed"


class FeatureStoreUnavailable(ServiceError):
    """The feature store did not answer, and defaults are not allowed."""

    status = 503
    code = "feature_store_unavailable"
    title = "Feature store unavailable"


class NoActiveModel(ServiceError):
    """No version is ready."""

    status = 503
    code = "no_active_model"
    title = "No active model"


class NotReady(ServiceError):
    """Something that requests need is not there yet."""

    status = 503
    code = "not_ready"
    title = "Not ready"


class DeadlineExceeded(ServiceError):
    """The answer could not be ready in time."""

    status = 504
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class Unauthorized(ServiceError):
    """An admin call without the right token."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"


class AdminDisabled(ServiceError):
    """Admin calls are off."""

    status = 403
    code = "admin_disabled"
    title = "Admin calls are off"


class Conflict(ServiceError):
    """A change that does not fit what is there: someone was first, or it cannot be let in."""

    status = 409
    code = "conflict"
    title = "Conflict"
