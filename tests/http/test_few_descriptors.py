"""A service with a low limit of open files keeps enough of them for itself, whatever clients do."""

from contextlib import ExitStack
from pathlib import Path

from running import Server, Wire, running

LIMITED = (
    "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); "
    "from leasehold.cli.app import main; main()"
)


def test_writes_succeed_while_more_silent_clients_connect_than_there_are_descriptors(tmp_path: Path) -> None:
    with running(tmp_path / "data.json", program=("-c", LIMITED)) as server, ExitStack() as stack:
        assert server.put("first", "1").status_code == 201  # by a connection that stays
        connect(server, stack, 200)
        assert server.put("a", '"' + "x" * 300_000 + '"').status_code in (200, 201)  # more than a quiet snapshot takes
        for number in range(20):
            assert server.put(f"key/{number}", "1").status_code == 201
        assert [server.request("DELETE", f"/kv/key/{number}").status_code for number in range(20)] == [200] * 20
        log = server.log()
    assert "max_connections is lowered to fit the limit of open files" in log
    assert "Too many open files" not in log


def connect(server: Server, stack: ExitStack, count: int) -> None:
    for _ in range(count):
        stack.enter_context(Wire(server))
