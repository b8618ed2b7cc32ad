"""One Ray cluster for all tests of a session that leave it as it was.

To start Ray and to end it takes half of a short sweep's time. A command joins the cluster by its environment alone
(`RAY_ADDRESS`), so tests type it as a user does. Tests that kill Ray, or look at its processes, start their own.
"""

from __future__ import annotations

from tests.support.machines.ray_nodes import Nodes

CPUS = 2  # so that two trials run at once, as on the machines that the tests are meant for


class SharedRay(Nodes):
    """A head without CPUs and one node that trains."""

    @property
    def joining(self) -> dict[str, str]:
        """What a command's environment needs to run on this cluster."""
        names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
        return {"RAY_ADDRESS": self.address, **{name: self.env[name] for name in names}}
