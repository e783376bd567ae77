"""Pulse, as a process: `python -m orchestration.serve`, which only reads. With `--bridge` the bridge, and Pulse beside it.

Owns the exit code, where it listens and who may read; what is answered is in `pulse/server/` and `bridge/http/`. Like
`klorosctl` it sees the mode, the window and the state folder that the installed unit gives ticks, unless its own variables
say otherwise.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestration import configuration, wiring
from orchestration.command_line import Parser
from orchestration.errors import KlorosError, SettingsInvalid, Usage
from orchestration.exits import Exit
from orchestration.host import clock, listening, process_identity
from orchestration.host.journal import Event, Priority, log
from orchestration.host.listening import Listening
from orchestration.host.notify import Notifier
from orchestration.operator.in_force import InForce

if TYPE_CHECKING:
    from orchestration.pulse.server.admission import Admission
    from orchestration.pulse.server.app import Application
    from orchestration.serving import process
    from orchestration.settings import Pulse, Settings
    from orchestration.store.port import Database

_FLAGS = {
    "--host": "host",
    "--port": "port",
    "--idle-exit": "idle_exit",
    "--token-file": "token_file",
    "--hosts": "hosts",
}
_MOST_WITH_BRIDGE = 2000
_TOLD_IN_OUR_WORDS = 32
_EPILOG = (
    "A flag beats its variable, the variable beats [pulse] in the TOML file. "
    "exit codes: 0 ended, 1 can't listen there, 64 usage, 70 defect, 78 settings"
)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the entry; returns the exit status."""
    try:
        given = vars(_parser().parse_args(sys.argv[1:] if arguments is None else arguments))
        return _run(given, environ)
    except KlorosError as error:
        event = Event.SETTINGS_REFUSED if error.exit is Exit.SETTINGS_INVALID else Event.PULSE_FAILED
        log(event, str(error), priority=Priority.ERROR, exit=error.exit)
        return error.exit
    except Exception:
        import traceback

        log(Event.PULSE_FAILED, f"a defect of ours: {traceback.format_exc()}", priority=Priority.CRITICAL)
        return Exit.DEFECT


def _parser() -> Parser:
    from orchestration.settings import Pulse

    parser = Parser(
        prog="python -m orchestration.serve",
        description="Serve Pulse: page, metrics and API. It only reads. With --bridge also the bridge.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--bridge", action="store_true", help="Serve the bridge, at [bridge] host and port, and Pulse beside it."
    )
    for flag, name in _FLAGS.items():
        about = " ".join((Pulse.model_fields[name].description or "").split()).replace("`", "").replace("%", "%%")
        metavar = name.rpartition("_")[2].upper()
        parser.add_argument(flag, dest=name, metavar=metavar, help=f"{about} [KLR_PULSE_{name.upper()}]")
    return parser


def _run(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Exit:
    current = InForce(environ)
    chosen = _chosen(flags, current.environ)
    wiring.become_owner(current.settings().state_dir)
    if flags["bridge"]:
        bridge = current.settings().bridge
        given = {name: getattr(bridge, name) for name in ("host", "port") if flags[name] is None}
        chosen = chosen.model_copy(update=given)
    try:
        from orchestration.pulse.server.admission import Admission, read_token
        from orchestration.pulse.server.app import application
        from orchestration.pulse.server.looking import Looking
        from orchestration.serving import process
    except ImportError as error:
        hint = "install the extra pulse: sudo ./install.sh --with pulse, or pip install 'kloros-orchestration[pulse]'"
        raise Usage(f"the server needs a package that is not installed: {error.name}", hint=hint) from error
    token = read_token(chosen.token_file, environ)
    listens = listening.handed_over(environ) or listening.listen(chosen.host, chosen.port)
    _check(listens, token)
    looking = Looking(settings=current.settings, look=_look, now=clock.now, boot_id=process_identity.boot_id())
    admission = Admission(token=token, hosts=chosen.hosts)
    served = application(looking, admission)
    idle_exit = chosen.idle_exit if listens.handed_over and chosen.idle_exit else None
    server: process.Server
    if flags["bridge"]:
        server = _with_bridge(current.settings(), served, admission, environ)
    else:
        server = process.Server(
            served.app,
            traffic=served.traffic,
            notifier=Notifier(environ),
            idle_exit=idle_exit,
            on_stop=served.following.stop,
        )
    _tell_start(listens, token)
    process.serve(server, listens.sockets)
    log(Event.PULSE_ENDED, "nobody has asked for a while" if server.idle else "told to end")
    return Exit.DONE


def _with_bridge(
    settings: Settings, served: Application, admission: Admission, environ: Mapping[str, str]
) -> process.Server:
    """Put the bridge and Pulse into one server.

    Raises:
        Usage: a package of the extra is missing. KlorosError: the store can't be opened.
    """
    try:
        from orchestration import bridge_wiring
        from orchestration.bridge.http.face import Beside
        from orchestration.bridge.http.protocol import BridgeProtocol
        from orchestration.serving import process
    except ImportError as error:
        hint = "install the extra bridge: sudo ./install.sh --with bridge, or pip install 'kloros-orchestration[bridge]'"
        raise Usage(f"the bridge needs a package that is not installed: {error.name}", hint=hint) from error

    def admits(host: str, authorization: str) -> bool:
        return admission.knows(host) and admission.admits(authorization)

    bridge = bridge_wiring.Bridge(settings, admits=admits, names=admission)

    def stop() -> None:
        bridge.stop()
        served.following.stop()

    most = process.allow_connections(_MOST_WITH_BRIDGE)
    server = process.Server(
        Beside(bridge, served.app),
        traffic=served.traffic,
        notifier=Notifier(environ),
        idle_exit=None,
        on_stop=stop,
        on_start=bridge.start,
        on_end=bridge.end,
        protocol=BridgeProtocol,
        most_connections=most,
        fast_loop=True,
    )
    # uvicorn's own limit answers in its own words; ours, a little below it, in those of the wire.
    bridge.crowded = lambda: len(server.server_state.connections) > most - _TOLD_IN_OUR_WORDS
    return server


def _chosen(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Pulse:
    """Return [pulse] with the flags over it.

    Raises:
        SettingsInvalid: variables or file are wrong.
        Usage: a flag is.
    """
    from orchestration.settings_faults import read_file, read_variables, validated

    settings = configuration.load(environ)
    given = {flag: text for flag, name in _FLAGS.items() if (text := flags[name]) is not None}
    if not given:
        return settings.pulse
    path = configuration.config_path(environ)
    values = read_file(path, must_exist="KLR_CONFIG" in environ)
    values.setdefault("state_dir", configuration.default_state_dir(environ))
    read_variables(values, environ, configuration.variables(type(settings)))
    sources = read_variables(values, given, {flag: ("pulse", name) for flag, name in _FLAGS.items()})
    try:
        return validated(values, path, sources).pulse
    except SettingsInvalid as error:
        raise Usage(error.message, hint="python -m orchestration.serve --help") from None


def _check(listens: Listening, token: str | None) -> None:
    """Refuse to let others than this host read without a token.

    Raises:
        SettingsInvalid: they could.
    """
    if listens.beyond_this_host and token is None:
        raise SettingsInvalid(
            f"{', '.join(listens.beyond_this_host)} can be reached from other hosts, and there is no token",
            hint="listen on 127.0.0.1 (and reach it by ssh -L), or set [pulse] token_file: docs/how-to/pulse.md",
        )


def _tell_start(listens: Listening, token: str | None) -> None:
    where = ", ".join(listens.addresses)
    ours = "" if listens.handed_over else f": http://{listens.addresses[0]}/"
    if token is None:
        log(Event.PULSE_STARTED, f"reading is open to this host{ours or f' at {where}'}", addresses=where, token="no")  # noqa: S106
        return
    others = f"; {', '.join(listens.beyond_this_host)} can be reached from other hosts" if listens.beyond_this_host else ""
    plain = ", unencrypted: put a proxy with TLS before it" if listens.beyond_this_host else ""
    message = f"reading needs the token{ours or f' at {where}'}{others}{plain}"
    priority = Priority.NOTICE if listens.beyond_this_host else Priority.INFO
    log(Event.PULSE_STARTED, message, priority=priority, addresses=where, token="needed")  # noqa: S106


def _look(settings: Settings, see: Callable[[Database], object]) -> object:
    from orchestration.store import opening

    return opening.look(opening.place_of(settings), see)


if __name__ == "__main__":
    sys.exit(main())
