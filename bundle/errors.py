"""What can be wrong with a bundle, or with a value on its way into one.

    BundleError                 a version that cannot be published or let in
      ManifestInvalid           the manifest does not parse, or contradicts itself
      SchemaVersionUnknown      written by a release that this one does not know
      FileMissing               named in the manifest, absent on disk
      FileUnsafe                a symlink, a directory, or a path out of the bundle
      FileUnreadable            may not be read, or nobody may
      ArrayInvalid              an array declares more than its file holds
      GraphInvalid              onnxruntime cannot open a graph
        OpsetUnsupported        ... it is of a later ONNX than this onnxruntime knows
        OperatorUnknown         ... it needs an operator that is not built in
        GraphMismatch           inputs or outputs are not those the manifest promises
      DigestMismatch            a byte is not what was published
      VersionExists             published versions are never overwritten
    ValueRejected               a raw feature value does not fit its declared kind

Every class has a stable `code`, used in logs, metrics and admin answers.
"""

from __future__ import annotations


class BundleError(Exception):
    """A bundle that cannot be published or loaded."""

    code = "bundle_error"


class ManifestInvalid(BundleError):
    """The manifest does not parse, or contradicts itself."""

    code = "manifest_invalid"


class SchemaVersionUnknown(BundleError):
    """The manifest's `schema_version` is one this release does not know."""

    code = "schema_version_unknown"


class FileMissing(BundleError):
    """A file named in the manifest is not there."""

    code = "file_missing"


class FileUnsafe(BundleError):
    """A file of the bundle is a symlink, not a plain file, or outside the bundle."""

    code = "file_unsafe"


class FileUnreadable(BundleError):
    """A file or directory of the bundle may not be read by this process, or by nobody."""

    code = "file_unreadable"


class ArrayInvalid(BundleError):
    """An array declares a shape that its file cannot hold."""

    code = "array_invalid"


class GraphInvalid(BundleError):
    """A graph that onnxruntime cannot open."""

    code = "graph_invalid"


class OpsetUnsupported(GraphInvalid):
    """A graph of a later ONNX than this onnxruntime knows."""

    code = "opset_unsupported"


class OperatorUnknown(GraphInvalid):
    """A graph with an operator that is not built into onnxruntime."""

    code = "operator_unknown"


class GraphMismatch(GraphInvalid):
    """A graph whose inputs or outputs are not those that the manifest promises."""

    code = "graph_mismatch"


class DigestMismatch(BundleError):
    """A file's size or sha256 is not the one in the manifest."""

    code = "digest_mismatch"


class VersionExists(BundleError):
    """The version to be published is already there."""

    code = "version_exists"


class ValueRejected(ValueError):
    """A raw feature value does not fit the feature's declared kind.

    Attributes:
        feature: the feature's name, without its entity.
        row: index of the offending row in the column, or None when the column as a whole is wrong.
        reason: what is wrong and how to mend it.
    """

    def __init__(self, feature: str, row: int | None, reason: str) -> None:
        self.feature = feature
        self.row = row
        self.reason = reason
        where = feature if row is None else f"{feature}[{row}]"
        super().__init__(f"{where}: {reason}")
