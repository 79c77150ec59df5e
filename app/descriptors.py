"""How many files and sockets this process may have open at once."""

from app.logger import get_logger

WANTED = 256
"""A worker: 64 sends and 32 posts at once, 35 connections to database and Redis, files, and room to spare."""
ENOUGH = 16_384

log = get_logger(__name__)


def allowed_descriptors() -> int:
    """As many as may be had: the soft limit, which shells and services set low, is raised to the hard one.
    Fewer than WANTED are logged: connections then fail in turn, and what cannot be sent waits."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return ENOUGH
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    allowed = most if soft == resource.RLIM_INFINITY else max(soft, most)
    if soft not in (allowed, resource.RLIM_INFINITY):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        except (OSError, ValueError):  # a filter of system calls, as of a service's
            allowed = soft
    if allowed < WANTED:
        log.warning("descriptors_short", allowed=allowed, wanted=WANTED)
    return allowed
