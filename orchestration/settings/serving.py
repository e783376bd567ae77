"""What is served: Pulse and the bridge."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from orchestration.settings.fields import Command, Duration, PositiveDuration, Section


class Pulse(Section):
    """The served page, metrics and API: `python -m orchestration.serve`, `kloros-pulse.socket`."""

    host: Annotated[str, Field(min_length=1, examples=["127.0.0.1"])] = "127.0.0.1"
    """Address to listen on, or a name of one. Anything but this host's own loopback needs a token. Under systemd
    `kloros-pulse.socket` says where."""
    port: Annotated[int, Field(ge=0, le=65535, examples=[9410])] = 9410
    """TCP port to listen on; 0 for any free one, which is told at the start."""
    idle_exit: Annotated[Duration, Field(examples=["15min"])] = timedelta(minutes=15)
    """Time without a request after which a server that systemd's socket started ends; 0 for never. Fifteen minutes bridge
    the reloads of one look at the page."""
    token_file: Annotated[str, Field(pattern=r"^(/.*)?$", examples=["/etc/kloros/pulse-token"])] = ""
    """File of the token that readers must show, 16 characters or more, readable for its owner alone. Empty: systemd's
    credential `pulse-token`, if there is one; without any, only this host's loopback is served."""
    hosts: Annotated[tuple[str, ...], Field(examples=[["kloros.example.org"]])] = ()
    """Further names under which readers may ask on loopback, such as a proxy's. `localhost`, the loopback addresses and
    this host's own name always may."""


class Filter(Section):
    """One pattern for texts of the bridge: bodies, metadata, titles, reasons, prompts."""

    pattern: Annotated[str, Field(min_length=1, examples=["AKIA[0-9A-Z]{16}"])]
    """Regular expression, in the words of Python's `re`, looked for anywhere in a text."""
    act: Annotated[Literal["refuse", "mask"], Field(examples=["mask"])] = "refuse"
    """What becomes of a text in which it is found: refused, or kept with `[removed]` in its place."""

    @field_validator("pattern")
    @classmethod
    def _pattern_is_one(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern


_SAFE_URL = re.compile(r"https://[^\s/]+\S*|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/\S*)?")


class Bridge(Section):
    """The bridge, in which agents talk: `python -m orchestration.serve --bridge`, `kloros-bridge.service`. Needs the extra
    `bridge`."""

    host: Annotated[str, Field(min_length=1, examples=["127.0.0.1"])] = "127.0.0.1"
    """Address to listen on, or a name of one. Pulse is served beside it, so anything but this host's own loopback needs
    `[pulse] token_file` too."""
    port: Annotated[int, Field(ge=0, le=65535, examples=[9411])] = 9411
    """TCP port to listen on; 0 for any free one, which is told at the start."""
    workspace: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$", examples=["kloros"])] = "kloros"
    """Workspace of this host's commands and of the tokens that it issues, where they name none."""
    auth_jwks_url: Annotated[str, Field(examples=["https://id.example.org/.well-known/jwks.json"])] = ""
    """URL of the public keys of whoever issues tokens (JWKS): https, or http on this host's own loopback. Empty: tokens are
    those that `klorosctl token issue` signs on this host."""
    auth_issuer: Annotated[str, Field(examples=["https://id.example.org/"])] = ""
    """What a token must say of who issued it, `iss`. Needed with `auth_jwks_url`; without, `kloros` by default."""
    auth_audience: Annotated[str, Field(examples=["kloros-bridge"])] = ""
    """What a token must say of whom it is for, `aud`. Needed with `auth_jwks_url`; without, `kloros-bridge` by default."""
    auth_keys_refresh: Annotated[PositiveDuration, Field(ge=timedelta(seconds=30), examples=["10min"])] = timedelta(
        minutes=10
    )
    """Time after which the keys are asked for again, at least 30 s. A token that names another key asks at once, though not
    twice within 30 s."""
    auth_keys_keep: Annotated[PositiveDuration, Field(examples=["24h"])] = timedelta(days=1)
    """How long the last keys count while their issuer is out of reach. A day bridges an outage; a key that its issuer
    withdraws meanwhile counts as long."""

    agent_posts_per_minute: Annotated[int, Field(ge=0, examples=[120])] = 120
    """Messages that one agent may post within a minute, in all its threads together; 0 for any number. Two a second are
    more than a model writes."""
    thread_posts_per_minute: Annotated[int, Field(ge=0, examples=[600])] = 600
    """Messages that one thread takes within a minute, from everybody together; 0 for any number."""
    max_turns: Annotated[int, Field(ge=0, examples=[20])] = 20
    """A thread is blocked after so many messages of agents without a change of status or a new type of event; 0: never."""
    max_repeats: Annotated[int, Field(ge=0, examples=[3])] = 3
    """A thread is blocked when one finding was reported or rejected so many times without being verified; 0: never."""
    filters: Annotated[dict[str, Filter], Field(examples=["[bridge.filters.keys]"])] = {}
    """Patterns that refuse a text, or mask what they match, before anything is kept; applied in this order."""
    filter_command: Annotated[Command, Field(examples=[["/opt/app/judge"]])] = ()
    """Program that looks at each message first, a JSON file named by `KLR_MESSAGE`: it ends with 0 to let it pass, with 1 to
    refuse it. Empty: none. One message at a time: it makes posting slow."""
    filter_timeout: Annotated[PositiveDuration, Field(examples=["5s"])] = timedelta(seconds=5)
    """Longest time for one judgement; after it the message is refused."""
    summary_command: Annotated[Command, Field(examples=[["/opt/app/summarise"]])] = ()
    """Program that writes the summaries of threads, by a model for example: it finds a JSON file by `KLR_THREAD`, and prints
    the summary. Empty, or when it fails: the bridge's own, made of the thread's events."""
    summary_timeout: Annotated[PositiveDuration, Field(examples=["30s"])] = timedelta(seconds=30)
    """Longest time for one summary; after it the bridge's own is given."""

    @field_validator("auth_jwks_url")
    @classmethod
    def _keys_come_by_a_safe_way(cls, url: str) -> str:
        if url and not _SAFE_URL.fullmatch(url):
            raise ValueError("https://…, or http:// on localhost: whoever changes the keys on their way can sign tokens")
        return url

    @model_validator(mode="after")
    def _an_issuer_elsewhere_has_a_name(self) -> Bridge:
        if self.auth_jwks_url and not (self.auth_issuer and self.auth_audience):
            raise ValueError("auth_jwks_url needs auth_issuer and auth_audience too")
        return self
