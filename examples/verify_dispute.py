#!/usr/bin/env python3
"""Checks an archive of `tallyhook dispute`, needing nothing but Python: no line of Tallyhook's is used.

    python verify_dispute.py ARCHIVE --secret-env NAME [--secret-env NAME …]

Every file must be in the manifest with its size and SHA-256, and every file of the manifest must be there.
Every delivery must carry the signature that the webhook secret gives over its exact bytes:

    X-Cloro-Signature = "v1=" + hex(HMAC-SHA-256(secret, X-Cloro-Timestamp + "." + body))

The secret is the value of the environment variable NAME; several, comma-separated or by several --secret-env,
where the account has changed it. Ends with 0 when everything holds, with 1 when anything does not, and with 2
when it was asked for wrongly. The freshness of a signature is not judged: it was when the delivery came.
"""

# ruff: noqa: T201 - it is a script, and says what it found

import argparse
import hashlib
import hmac
import json
import os
import sys
import tarfile
import zipfile

FORMAT = "tallyhook-dispute-1"
MANIFEST = "manifest.json"


def members(path):
    """(name, bytes) of each file, one at a time."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                yield info.filename, archive.read(info)
        return
    with tarfile.open(path, "r|gz") as archive:
        for info in archive:
            if not info.isfile():
                raise ValueError(f"{info.name} is not a plain file")
            yield info.name, archive.extractfile(info).read()
            archive.members.clear()


def read_manifest(path):
    """Its files by path. Raises ValueError."""
    for name, data in members(path):
        if name == MANIFEST:
            manifest = json.loads(data)
            if manifest.get("format") != FORMAT:
                raise ValueError(f"the format is {manifest.get('format')!r}, and this checks {FORMAT!r}")
            return {entry["path"]: entry for entry in manifest["files"]}
    raise ValueError(f"there is no {MANIFEST}")


def signed_by(secrets, timestamp, body, signature):
    """Whether one of the secrets made the signature."""
    given = (signature or "").removeprefix("v1=")
    message = (timestamp or "").encode() + b"." + body
    digests = (hmac.new(secret.encode(), message, hashlib.sha256).hexdigest() for secret in secrets)
    return any(hmac.compare_digest(digest.encode(), given.encode()) for digest in digests)


class Check:
    """One pass over an archive."""

    def __init__(self, manifest, secrets):
        self.manifest = manifest
        self.secrets = secrets
        self.faults = []
        self.seen = set()
        self.bodies = {}  # path -> bytes of a delivery, until its headers are read: they follow it
        self.verified = self.unsigned = self.withheld = 0

    def file(self, name, data):
        """A file as it is: its hash, and what it is evidence of."""
        entry = self.manifest.get(name)
        if name in self.seen:
            self.faults.append(f"{name}: is there twice")
        elif name == MANIFEST:
            pass
        elif entry is None:
            self.faults.append(f"{name}: is not in the manifest")
        elif len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            self.faults.append(f"{name}: is not what the manifest says")
        self.seen.add(name)
        if "/deliveries/" in name and name.endswith(".body"):
            self.bodies[name] = data
        elif "/deliveries/" in name and name.endswith(".json"):
            self.delivery(name, data)

    def delivery(self, name, data):
        """The headers of a delivery; its body came before."""
        try:
            report = json.loads(data)
            path, headers = report["body"], report["headers"]
        except (ValueError, KeyError, TypeError) as error:
            self.faults.append(f"{name}: cannot be read ({error!r})")
            return
        if path is None:
            self.withheld += 1
            return
        body = self.bodies.pop(path, None)
        if body is None or path != name.removesuffix(".json") + ".body":
            self.faults.append(f"{name}: its body is missing")
        elif headers["X-Cloro-Signature"] is None:
            self.unsigned += 1
        elif signed_by(self.secrets, headers["X-Cloro-Timestamp"], body, headers["X-Cloro-Signature"]):
            self.verified += 1
        else:
            self.faults.append(f"{path}: no secret given made this signature")

    def finish(self):
        """What was promised and is not there."""
        self.faults += [f"{name}: is missing" for name in self.manifest if name not in self.seen]
        self.faults += [f"{name}: has no headers" for name in self.bodies]


def main(arguments):
    parser = argparse.ArgumentParser(
        description="Checks an archive of tallyhook dispute.", allow_abbrev=False
    )
    parser.add_argument("archive")
    parser.add_argument("--secret-env", action="append", required=True, metavar="NAME")
    parser.add_argument(
        "--allow-unsigned", action="store_true", help="deliveries without a signature are no fault"
    )
    options = parser.parse_args(arguments)
    values = [os.environ.get(name, "") for name in options.secret_env]
    secrets = [part.strip() for value in values for part in value.split(",") if part.strip()]
    if not secrets:
        # Not by name: it may be the secret itself.
        parser.error("no secret in the variable that --secret-env names; it takes a name, not the secret")
    try:
        check = Check(read_manifest(options.archive), secrets)
        for name, data in members(options.archive):
            check.file(name, data)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        print(f"NOT VERIFIED: {options.archive} cannot be read: {error}")
        return 1
    check.finish()
    if check.unsigned and not options.allow_unsigned:
        check.faults.append(f"{check.unsigned} deliveries carry no signature")
    for fault in check.faults[:20]:
        print(f"  {fault}")
    if len(check.faults) > 20:
        print(f"  … and {len(check.faults) - 20} more")
    verdict = "NOT VERIFIED" if check.faults else "verified"
    print(
        f"{verdict}: {len(check.seen)} files, {check.verified} deliveries signed by the secret, "
        f"{check.unsigned} unsigned, {check.withheld} withheld, {len(check.faults)} faults"
    )
    return 1 if check.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
