"""Machines on one host: network namespaces on a bridge, each with an address of its own. Root only.

All of it lies in namespaces of the caller's (network, mounts, processes), so that nothing of it outlives the
caller, however that ends, and no address of the host is taken.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.servers.disks import filled, mount_disk, unmount_disk

NETWORK = "10.77.0.0/24"
HUB = "10.77.0.1"
"""Where the servers are: the caller's own address on the bridge."""
DATABASE = "10.77.0.2"
REDIS = "10.77.0.3"
"""Further addresses of the caller's, so that a machine can be cut off from one of them alone."""
NOBODY = "02:00:00:00:00:ff"
BRIDGE = "drill"
NAMES = Path("/run/netns")
TOOLS = ("ip", "mount", "unshare", "nsenter", "nginx", "tc")


def missing_tools() -> list[str]:
    """Programs that are not installed."""
    return [name for name in TOOLS if shutil.which(name) is None]


def inside(*command: str) -> list[str]:
    """A command in new namespaces, where machines may be made; all that it starts is killed as it ends."""
    own = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
    return ["unshare", *own, *command]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


class Machine:
    """One namespace with its cable to the bridge."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._cable = f"to-{name}"
        self.disk: Path | None = None

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

    @contextmanager
    def cut_off_from(self, address: str) -> Iterator[None]:
        """What it sends to one of the caller's addresses vanishes; what is sent to it still comes."""
        place = ("-n", self.name, "neigh")
        _ip(*place, "replace", address, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent")
        try:
            yield
        finally:
            _ip(*place, "del", address, "dev", "eth0")

    @contextmanager
    def narrow(self, rate: str) -> Iterator[None]:
        """Its cable carries so little in each direction (as `tc` has it: "256kbit"), and what waits for more
        than 0.4 s is lost."""
        shape = ("root", "tbf", "rate", rate, "burst", "8kb", "latency", "400ms")
        ends = (((), self._cable), (("-n", self.name), "eth0"))
        for place, device in ends:
            _run("tc", *place, "qdisc", "add", "dev", device, *shape)
        try:
            yield
        finally:
            for place, device in ends:
                _run("tc", *place, "qdisc", "del", "dev", device, "root")

    def make_disk(self, folder: Path, size: str) -> None:
        """A disk of its own at this folder, which goes with the caller's namespaces."""
        mount_disk(folder, size)
        self.disk = folder

    def remove_disk(self) -> None:
        """With all that is on it."""
        if self.disk is not None:
            unmount_disk(self.disk)
            self.disk = None

    def full_disk(self) -> AbstractContextManager[None]:
        """Not a byte is left on it, for the length of the `with`."""
        assert self.disk is not None, "no disk of its own"
        return filled(self.disk)


def make_machines(*names: str) -> dict[str, Machine]:
    """Machines by name, once the bridge stands; they go with the caller's namespaces."""
    NAMES.mkdir(exist_ok=True)
    # Their names too are the caller's own.
    _run("mount", "-t", "tmpfs", "tmpfs", str(NAMES))
    _ip("link", "set", "lo", "up")
    _ip("link", "add", BRIDGE, "type", "bridge")
    for address in (HUB, DATABASE, REDIS):
        _ip("address", "add", f"{address}/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    machines = {name: Machine(name, f"10.77.0.{11 + n}") for n, name in enumerate(names)}
    for machine in machines.values():
        machine.make()
    return machines
