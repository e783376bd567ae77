"""Which SSH servers are believed when bundles are copied by SFTP: those whose key stands in a known_hosts file.

fsspec itself would take any key, or, told to reject, none, for it reads no such file.
"""

from __future__ import annotations

import os
from typing import Any, Final

import paramiko

_FILES: Final = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


class KnownHosts(paramiko.MissingHostKeyPolicy):
    """Refuses a server whose key is not known, or is another."""

    def __init__(self, path: str = "") -> None:
        """Take the file's path; empty for the user's and the host's own."""
        self._paths = [path] if path else [os.path.expanduser(one) for one in _FILES]

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Come back when the server may be believed.

        Raises:
            SSHException: says what to do.
        """
        for path in self._paths:
            if os.path.exists(path) and paramiko.HostKeys(path).check(hostname, key):
                return
        host, _, port = hostname.strip("[]").partition("]:")
        scan = f"ssh-keyscan -t {key.get_name()} {f'-p {port} ' if port else ''}{host}"
        raise paramiko.SSHException(
            f"the key of {hostname} ({key.get_name()}, {key.fingerprint}) is not in {' or '.join(self._paths)}; "
            f"compare it with the server's own, and add it: {scan}"
        )
