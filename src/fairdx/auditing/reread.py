"""Read the JSON of an audit again."""

from pathlib import Path

from fairdx.auditing.result import SCHEMA_VERSION, AuditResult
from fairdx.core.errors import InputError


def read_audit(path: str | Path) -> AuditResult:
    """The audit that `AuditResult.to_json` wrote; null figures are nan again.

    Args:
        path: The file.

    Returns:
        The result.

    Raises:
        InputError: The file cannot be read, or holds no audit of this form; the message names the field.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return TypeAdapter(AuditResult).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{path} is not the JSON of an audit of form {SCHEMA_VERSION}, as `fairdx audit --json` writes "
            f"it: {where}: {first['msg']}"
        ) from error
