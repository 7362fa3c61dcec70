"""Real servers of object stores and of files on loopback: SeaweedFS, JuiceFS's gateway, rclone and nginx.

Each has free ports and a folder of its own. A test whose server is not installed is skipped.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import http.client
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import pytest

from msd.broker.cli import demo
from tests.processes import port_slot, wait_for

#: The credentials of all servers that want some.
KEY_ID, SECRET = "loopbackkey", "loopback-secret-of-the-tests"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
#: The bucket of all tests: each has a prefix of its own.
BUCKET = "films"
#: Other ports than those of ``tests/processes.py``: how many each pytest-xdist process has.
FIRST_PORT, PORTS = 15000, 200


PARTS_OF_SEAWEEDFS = ("s3", "master", "volume", "filer", "admin")


class Server:
    """A program that serves HTTP. A context manager: leaving it kills the program and all that it has started."""

    #: The program, and where it comes from.
    program = ""
    origin = "make test-stores"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = _free_ports()
        self.port = self.ports[0]
        self._process: subprocess.Popen[bytes] | None = None
        self._command = _find(self.program, self.origin)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The pid of the running server."""
        assert self._process is not None
        return self._process.pid

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def env(self) -> Mapping[str, str]:
        return {}

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        env = {**os.environ, **self.env()}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._command, *self.arguments()],
                env=env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(f"an answer of {self.program}", self._is_ready)

    def kill(self) -> None:
        """Kills the server: some take half a minute to end when they are asked to."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text(errors="replace")[-2000:]
        return self.answers()

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class S3Server(Server):
    """A server with the bucket ``BUCKET``."""

    def client(self, prefix: str = "") -> Any:
        """Returns a store for the objects below a prefix, which does not go through any proxy."""
        store = pytest.importorskip("obstore.store", reason="obstore is not installed")
        return store.S3Store(
            BUCKET,
            prefix=prefix or None,
            endpoint=self.url,
            region="us-east-1",
            access_key_id=KEY_ID,
            secret_access_key=SECRET,
            virtual_hosted_style_request=False,
            # Idle connections would be sockets that a test leaks.
            client_options={"allow_http": True, "pool_max_idle_per_host": "0"},
        )

    def put(self, path: str, content: bytes = b"") -> None:
        """Makes an object with any key, or a bucket: obstore cannot."""
        now = datetime.datetime.now(datetime.UTC)
        time, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        target, digest = f"/{quote(path, safe='/~')}", hashlib.sha256(content).hexdigest()
        headers = {"host": f"127.0.0.1:{self.port}", "x-amz-content-sha256": digest, "x-amz-date": time}
        names = ";".join(headers)
        request = "\n".join(["PUT", target, "", *(f"{n}:{v}" for n, v in headers.items()), "", names, digest])
        scope = f"{day}/us-east-1/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{SECRET}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), "sha256").digest()
        signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
        credential = f"Credential={KEY_ID}/{scope}, SignedHeaders={names}, Signature={signature}"
        headers["Authorization"] = f"AWS4-HMAC-SHA256 {credential}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("PUT", target, content, headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()


class SeaweedFs(S3Server):
    program = "weed"

    def arguments(self) -> list[str]:
        # It listens on all addresses and sends reports unless it is told otherwise.
        names = [f"{part}.{port}" for part in PARTS_OF_SEAWEEDFS for port in ("port", "port.grpc")]
        flags = [f"-{name}={port}" for name, port in zip(names, self.ports, strict=True)]
        local = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-admin.ui=false", "-webdav=false"]
        return ["mini", "-dir=.", *local, *flags, "-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}"]

    def env(self) -> Mapping[str, str]:
        return CREDENTIALS

    def _is_ready(self) -> bool:
        if not super()._is_ready():
            return False
        # It answers before it accepts objects.
        import obstore

        try:
            obstore.put(self.client(), "ready", b"")
        except Exception:
            return False
        return True


class JuiceFsGateway(S3Server):
    """MinIO's front end over a file of SQLite and a folder."""

    program = "juicefs"

    def start(self) -> None:
        if not (self.folder / "meta.db").exists():
            command = [self._command, "format", "--storage", "file", "--bucket", f"{self.folder}/objects/"]
            command += ["sqlite3://meta.db", "volume"]
            subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=60)
        super().start()
        self.put(BUCKET)

    def arguments(self) -> list[str]:
        flags = ["--no-usage-report", "--multi-buckets", "--keep-etag", "--log", "gateway.log"]
        return ["gateway", *flags, "sqlite3://meta.db", f"127.0.0.1:{self.port}"]

    def env(self) -> Mapping[str, str]:
        return {"MINIO_ROOT_USER": KEY_ID, "MINIO_ROOT_PASSWORD": SECRET}


class RcloneS3(S3Server):
    """Answers requests for a range with the whole object. Its buckets are the folders in ``files``. It wants no
    credentials.
    """

    program = "rclone"

    def arguments(self) -> list[str]:
        (self.folder / "files" / BUCKET).mkdir(parents=True, exist_ok=True)
        return ["serve", "s3", "--config", "", "--addr", f"127.0.0.1:{self.port}", "files"]


class RcloneHttp(Server):
    """A web server without ETags for the folder ``files``."""

    program = "rclone"

    def arguments(self) -> list[str]:
        (self.folder / "files").mkdir(exist_ok=True)
        flags = ["--config", "", "--dir-cache-time", "0s", "--addr", f"127.0.0.1:{self.port}"]
        return ["serve", "http", *flags, "files"]


class Nginx(Server):
    """A web server with ETags for the folder ``files``."""

    program = "nginx"
    origin = "the distribution"

    def arguments(self) -> list[str]:
        (self.folder / "files").mkdir(exist_ok=True)
        folders = "".join(f"{n}_temp_path temp;" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {folders} server {{ listen 127.0.0.1:{self.port}; root files; }} }}\n"
        )
        return ["-p", f"{self.folder}/", "-c", "nginx.conf"]


def _free_ports() -> tuple[int, ...]:
    slot = FIRST_PORT + port_slot() * PORTS
    return (*demo.free_ports(slot, slot + PORTS // 2), *demo.free_ports(slot + PORTS // 2, slot + PORTS))


def _find(program: str, origin: str) -> str:
    found = shutil.which(program, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    return found or pytest.skip(f"{program} is not installed: it comes with {origin}")
