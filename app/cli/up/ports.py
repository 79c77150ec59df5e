"""Ports that are free: the usual one or the next; one that was asked for, or none."""

import errno
import socket

from app.address.listening import host_in_url
from app.errors import UserError
from app.local.processes import free_port

TRIED = 20
SET_BY = {"web": "PORT", "api": "TALLYHOOK_API_PORT"}


def port_for(what: str, host: str, wanted: int, *, asked_by: str = "", promised: int = 0) -> int:
    """`wanted`, or the next free one, unless it was asked for by the setting `asked_by`. `promised`: another
    process of ours is about to listen there. Raises UserError."""
    if wanted == 0:
        # Chosen here, so that one that is started again has it again.
        return free_port(host)
    if wanted != promised and is_free(host, wanted):
        return wanted
    where = f"{host_in_url(host)}:{wanted}"
    if asked_by:
        remedy = f"end what listens there, or set {asked_by} to another port; 0 takes a free one"
        raise UserError("cannot_listen", f"something listens on {where} already, where {what} should", remedy)
    others = (port for port in range(wanted + 1, wanted + TRIED) if port != promised)
    free = next((port for port in others if is_free(host, port)), None)
    if free is None:
        what_next = f"end what listens there, or set {SET_BY.get(what, '--emulator --port')}"
        raise UserError("cannot_listen", f"{where} and the {TRIED - 1} ports behind it are in use", what_next)
    return free


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there now; somebody may be faster than us. What else is wrong with a host or a
    port, whoever listens there will say."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        except OverflowError:
            return True
    return True
