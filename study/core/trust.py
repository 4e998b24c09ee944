"""What this user has accepted of what others may have written: code, and places of records.

Results may be handed over. Code that lies in them, or a server that they name, is used only if this
user has accepted it before, which is written down in the user's settings.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from study.core.atomic_io import lock_of, write_with
from study.core.errors import UserError, printable
from study.core.paths import private_folder, read_small_file, real_path
from study.core.records import without_password

ACCEPTED = "STUDY_TRUSTED_CODE"
"""Environment variable: SHA-256 of what this process and those it starts may run or use."""

SHA256 = re.compile(r"[0-9a-f]{64}")

SQLITE = "sqlite:///"

WITHOUT_SERVER = ("sqlite:", "postgresql:", "postgresql+")
"""How tracking URIs begin by which this process itself writes artifacts."""


def accept(sha256: str, code: str) -> None:
    """Let this user's processes run code of this content, now and later.

    It is written down in the user's settings; where these cannot be written it holds for this
    process and those that it starts.
    """
    inherited = os.environ.get(ACCEPTED, "")
    if sha256 not in inherited:
        os.environ[ACCEPTED] = ",".join(filter(None, (inherited, sha256)))
    file = _file_of_accepted()
    if file is not None and sha256 not in _written_down():
        with suppress(OSError, UserError):
            _write_down(file, f"{sha256}  {printable(code)}".replace("\n", " "))


def is_accepted(sha256: str) -> bool:
    """Whether this user has accepted code of this content."""
    return sha256 in SHA256.findall(f"{os.environ.get(ACCEPTED, '')}\n{_written_down()}")


def accept_place(uri: str) -> None:
    """Let this user's processes use a place of records, a tracking URI or a folder of artifacts."""
    uri = without_password(uri)
    accept(_hash(uri), uri)


def refusal(code: str, sha256: str) -> UserError:
    """Describe code that is not run, because nobody has accepted it."""
    return UserError(
        f"{code}: is code that came with results or a model, and would run with your rights; read "
        f"it, then accept it: --trust, trust=True, or {ACCEPTED}={sha256}"
    )


def tracking_uri_of(study: Path, recorded: str, named: str | None = None) -> str:
    """Return the tracking URI at which the records of a study may be read and written.

    Whoever wrote `study.json` chose its URI, so that it could lead to a server that collects
    passwords from the environment, or to another database of this user.

    Args:
        study: folder of the study.
        recorded: what its `study.json` says; used if it is a database among the same results, or
            if this user has named it before.
        named: what the user says, which is accepted.

    Raises:
        UserError: if it may not be used.
    """
    if named:
        accept_place(named)
        return named
    root = real_path(study).parent.parent
    beside = root / "mlflow.db"
    if recorded.startswith(SQLITE):
        path = Path(recorded.removeprefix(SQLITE))
        known = real_path(path).is_relative_to(root) or _is_accepted_place(recorded)
        if known and path.exists():
            return recorded
        if beside.exists():  # The results were moved, or handed over.
            return f"{SQLITE}{beside}"
        if not path.exists():
            raise UserError(
                f"{recorded}: no such database; MLflow's records of {study} are not here, name "
                "them with --tracking-uri"
            )
    if _is_accepted_place(recorded) or recorded == os.environ.get("MLFLOW_TRACKING_URI"):
        return recorded
    raise UserError(
        f"{study / 'study.json'}: names {recorded} for MLflow's records, which you have not used "
        "before; if it is yours, name it with --tracking-uri"
    )


def require_own_artifacts(uri: str, study: Path, *locations: str) -> None:
    """Refuse a database that keeps artifacts outside the results, where MLflow would write.

    Args:
        uri: of MLflow; a server keeps artifacts where its owner wants.
        study: folder of the study.
        locations: URIs of the artifacts of its experiment and runs.

    Raises:
        UserError: naming the first that is elsewhere, unless this user has put it there.
    """
    if not uri.startswith(WITHOUT_SERVER):
        return
    root = real_path(study).parent.parent
    for location in locations:
        parts = urlsplit(location)
        inside = parts.scheme in ("", "file") and not parts.netloc
        if inside and real_path(Path(unquote(parts.path))).is_relative_to(root):
            continue
        if not any(_is_accepted_place(each) for each in _above(location)):
            raise UserError(
                f"{without_password(uri)}: keeps artifacts of {study.name} at {location}, outside "
                f"{root}; give the study a new --name, which takes over all finished work"
            )


def _above(location: str) -> list[str]:
    """A location and the folders above it; none with `..` in it."""
    parts = location.rstrip("/").split("/")
    return [] if ".." in parts else ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _is_accepted_place(uri: str) -> bool:
    return is_accepted(_hash(without_password(uri)))


def _hash(uri: str) -> str:
    return hashlib.sha256(f"place {uri}".encode()).hexdigest()


def _written_down() -> str:
    file = _file_of_accepted()
    if file is None or not file.exists():
        return ""
    return read_small_file(file, "a list of accepted code").decode(errors="replace")


def _write_down(file: Path, line: str) -> None:
    def write(temporary: Path) -> None:
        temporary.touch()
        temporary.chmod(0o600)
        temporary.write_text(f"{_written_down()}{line}\n")

    with lock_of(file.with_suffix(".lock")):
        write_with(file, write)


def _file_of_accepted() -> Path | None:
    """A line per file, package or place: its SHA-256, and where it was."""
    folder = private_folder("trusted", "config")
    return None if folder is None else folder / "code.txt"
