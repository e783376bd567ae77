"""Who owns a file by name, and who stands behind this process."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from orchestration.host import users

ME = pwd.getpwuid(os.getuid()).pw_name


def test_a_user_has_a_name_or_a_number() -> None:
    assert users.name_of(0) == "root"
    assert users.name_of(4_000_000_001) == "uid 4000000001"


def test_behind_a_process_stand_its_user_who_became_it_and_who_logged_in() -> None:
    login = Path("/proc/self/loginuid")
    uid = int(login.read_text()) if login.exists() else 2**32 - 1
    logged_in = set() if uid == 2**32 - 1 else {users.name_of(uid)}
    assert users.behind({}) == {ME} | logged_in
    assert users.behind({"SUDO_USER": "ada"}) == {ME, "ada"} | logged_in
