"""Machines on one host: network namespaces on a bridge, each with an address of its own. Root only.

All of it lies in a network and a mount namespace of the caller's (`unshare --net --mount`), so that nothing
of it outlives the caller's processes, and no address of the host is taken.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK = "10.77.0.0/24"
HUB = "10.77.0.1"
"""Where the servers are: the caller's own address on the bridge."""
BRIDGE = "drill"
NAMES = Path("/run/netns")
TOOLS = ("ip", "mount", "unshare", "nsenter", "nginx")


def missing_tools() -> list[str]:
    """Programs that are not installed."""
    return [name for name in TOOLS if shutil.which(name) is None]


def inside(*command: str) -> list[str]:
    """A command in new namespaces, where machines may be made."""
    return ["unshare", "--net", "--mount", *command]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Machine:
    """One namespace with its cable to the bridge."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._cable = f"to-{name}"

    def make(self) -> None:
        """The namespace, its cable and its address."""
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self._cable, "master", BRIDGE, "up")
        _ip("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", self.name, "link", "set", device, "up")

    def command(self, *command: str) -> list[str]:
        """A command on this machine; it keeps its process id."""
        return ["nsenter", f"--net={NAMES / self.name}", *command]

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """What is sent to or from it vanishes, and nobody is told: connections stand."""
        _ip("link", "set", self._cable, "nomaster")
        try:
            yield
        finally:
            _ip("link", "set", self._cable, "master", BRIDGE)


def make_machines(*names: str) -> dict[str, Machine]:
    """Machines by name, once the bridge stands; they go with the caller's namespaces."""
    NAMES.mkdir(exist_ok=True)
    # Their names too are the caller's own.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(NAMES)], check=True, capture_output=True)
    _ip("link", "set", "lo", "up")
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("address", "add", f"{HUB}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    machines = {name: Machine(name, f"10.77.0.{11 + n}") for n, name in enumerate(names)}
    for machine in machines.values():
        machine.make()
    return machines
