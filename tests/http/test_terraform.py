"""The real `terraform` keeps its state here: with the file engine and with PostgreSQL.

What `terraform` says and its exit codes are the judge. The configurations need no provider and no network.
"""

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from callers import READER, SECRET, token
from databases import STORES
from programs import needs, program
from proxy import Proxy, proxy_on_a_thread
from running import START_SECONDS, Server, clean_environment, refusal, running, until

from leasehold.limits import MAX_STATE_VERSIONS, MIB

pytestmark = needs("terraform", "curl")

NAME = "prod"
LOCK = f"terraform/{NAME}"
PATH = f"/{LOCK}"
HOLDER = {"ID": "11111111-2222-4333-8444-555555555555", "Operation": "OperationTypeApply", "Who": "ann@laptop"}
RELEASE = 'resource "terraform_data" "release" {\n  input = "1.0"\n}\n'
LATE = "leasehold_fenced_writes_refused_total"


class Project:
    """A folder with a configuration whose state is at `url`."""

    def __init__(self, folder: Path, url: str, *, query: str = "", **settings: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        address = f"{url}{PATH}{query}"
        self._settings = {"address": address, "lock_address": address, "unlock_address": address} | settings
        self.environment = {
            "CHECKPOINT_DISABLE": "1",  # do not ask whether there is a newer version
            "TF_CLI_ARGS": "-no-color",
            "TF_INPUT": "0",
            "GOGC": "400",  # Go collects garbage less often: a noticeable part of a short run
            "HOME": str(folder),
        }

    def write(self, body: str, *, has_backend: bool = True) -> "Project":
        """Write the configuration."""
        settings = "\n".join(f'    {name} = "{text}"' for name, text in self._settings.items())
        backend = f'terraform {{\n  backend "http" {{\n{settings}\n  }}\n}}\n'
        (self.folder / "main.tf").write_text((backend if has_backend else "") + body)
        return self

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(program("terraform")), *arguments],
            cwd=self.folder,
            env=clean_environment() | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a command prints."""
        return printed_by(self.start(*arguments), code=code)

    def begin(self, body: str = RELEASE) -> "Project":
        """Write the configuration and initialize."""
        self.write(body).run("init")
        return self

    def apply(self, *arguments: str, code: int = 0) -> str:
        return self.run("apply", "-auto-approve", *arguments, code=code)

    def outputs(self) -> str:
        return self.run("output", "-json")


def printed_by(process: "subprocess.Popen[str]", *, code: int = 0) -> str:
    printed, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == code, printed
    # Messages have a frame, and long lines are broken.
    return re.sub(r"\s+", " ", re.sub(r"[│╷╵]", "", printed)) if code else printed


@pytest.fixture(params=["file", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    store = STORES[request.param](tmp_path)
    with running(store, log_level="debug") as started:
        yield started


@pytest.fixture
def project(server: Server, tmp_path: Path) -> Project:
    return Project(tmp_path / "project", server.url)


def state_of(server: Server) -> Any:
    response = server.request("GET", PATH)
    assert response.status_code == 200
    return response.json()


def versions(server: Server) -> list[Any]:
    listed = server.request("GET", f"{PATH}/versions").json()["versions"]
    assert isinstance(listed, list)
    return listed


def count(server: Server, name: str, **labels: str) -> int:
    """The sum of a counter over all series with these labels."""
    lines = server.request("GET", "/metrics").text.splitlines()
    wanted = [f'{label}="{text}"' for label, text in labels.items()]
    found = [line for line in lines if re.match(rf"{name}[ {{]", line) and all(text in line for text in wanted)]
    return sum(int(float(line.rpartition(" ")[2])) for line in found)


def refused_locks(server: Server) -> int:
    return count(
        server,
        "http_server_request_duration_seconds_count",
        http_route="/terraform/{state}",
        http_response_status_code="423",
    )


def hold(server: Server, *, query: str = "") -> None:
    assert server.request("LOCK", PATH + query, json=HOLDER).status_code == 200


def state_is_missing(server: Server) -> bool:
    return server.request("GET", PATH).status_code == 404


# Apply and destroy --------------------------------------------------------------------------------------------


def test_a_state_is_created_changed_and_destroyed(server: Server, project: Project) -> None:
    assert "Successfully configured the backend" in project.write(RELEASE).run("init")
    assert "Resources: 1 added, 0 changed, 0 destroyed" in project.apply()
    assert state_of(server)["serial"] == 1
    assert project.run("state", "list").split() == ["terraform_data.release"]
    assert "No changes" in project.run("plan", "-detailed-exitcode")
    project.write(RELEASE.replace("1.0", "2.0"))
    project.run("plan", "-detailed-exitcode", code=2)
    assert "0 added, 1 changed, 0 destroyed" in project.apply()
    assert project.run("state", "pull").encode().strip() == server.request("GET", PATH).content.strip()
    assert "Resources: 1 destroyed" in project.run("destroy", "-auto-approve")
    assert state_of(server)["resources"] == []
    assert server.is_free(LOCK)
    assert [each["version"] for each in versions(server)] == sorted(
        (each["version"] for each in versions(server)), reverse=True
    )
    assert len(versions(server)) >= 3


def test_another_folder_continues_with_the_same_state(server: Server, project: Project, tmp_path: Path) -> None:
    project.begin().apply()
    other = Project(tmp_path / "other", server.url).begin()
    assert "No changes" in other.run("plan", "-detailed-exitcode")


def test_the_lock_can_have_an_address_and_methods_of_its_own(server: Server, tmp_path: Path) -> None:
    settings = {f"{name}_address": f"{server.url}{PATH}/lock" for name in ("lock", "unlock")}
    methods = {"lock_method": "POST", "unlock_method": "DELETE", "update_method": "PUT"}
    project = Project(tmp_path / "project", server.url, **settings, **methods)
    assert "1 added" in project.begin().apply()
    assert server.is_free(LOCK)
    hold(server)
    assert f"already locked: ID={HOLDER['ID']}" in project.apply(code=1)
    project.run("force-unlock", "-force", HOLDER["ID"])
    assert server.is_free(LOCK)


def test_a_run_without_a_lock_is_refused_only_while_another_run_holds_it(server: Server, project: Project) -> None:
    project.begin().apply("-lock=false")
    hold(server)
    project.write(RELEASE.replace("1.0", "2.0"))
    assert "Failed to save state" in project.apply("-lock=false", code=1)
    assert "1.0" in json.dumps(state_of(server))


# Values -------------------------------------------------------------------------------------------------------

NUMBERS = {
    "beyond 64 bits": "123456789012345678901234567890123456789012345678901234567890",
    "negative": "-98765432109876543210987654321",
    "a long decimal": "0." + "1234567891" * 12,
}


def test_numbers_of_any_size_are_kept(server: Server, project: Project) -> None:
    body = "".join(f'output "n{number}" {{\n  value = {text}\n}}\n' for number, text in enumerate(NUMBERS.values()))
    printed = project.begin(body).apply()
    for text in NUMBERS.values():
        assert text in server.request("GET", PATH).text
        assert text in printed
    again = project.apply()
    assert "0 added, 0 changed, 0 destroyed" in again
    assert all(text in project.outputs() for text in NUMBERS.values())


@pytest.mark.long
def test_a_state_of_8_mb_is_kept(server: Server, project: Project) -> None:
    """They are an output, which is not printed: with a resource, Terraform itself takes twice as long."""
    text = "".join(f"line {number:06} of a large text\n" for number in range(8 * MIB // 30))
    output = 'output "large" {\n  value     = file("large.txt")\n  sensitive = true\n}\n'
    project.begin()
    (project.folder / "large.txt").write_text(text)
    assert "1 added" in project.write(RELEASE + output).apply()
    assert len(server.request("GET", PATH).content) > 8_000_000
    assert state_of(server)["outputs"]["large"]["value"] == text
    assert "No changes" in project.run("plan", "-detailed-exitcode")
    (project.folder / "large.txt").write_text(text.replace("large", "other"))
    assert "1 changed" in project.write(RELEASE.replace("1.0", "2.0") + output).apply()
    assert min(each["size"] for each in versions(server)[:2]) > 8_000_000
    assert "1 destroyed" in project.run("destroy", "-auto-approve")


def test_a_state_that_was_pushed_by_force_may_have_the_same_serial(server: Server, project: Project) -> None:
    project.begin().apply()
    pulled = json.loads(project.run("state", "pull"))
    changed = pulled | {"outputs": {"note": {"value": "by hand \u0000", "type": "string"}}}
    (project.folder / "changed.tfstate").write_text(json.dumps(changed))
    project.run("state", "push", "-force", "changed.tfstate")
    assert state_of(server)["serial"] >= pulled["serial"]
    assert "by hand" in project.outputs()


def test_an_earlier_version_can_be_pushed(server: Server, project: Project) -> None:
    project.begin()
    for number in range(MAX_STATE_VERSIONS + 2):
        project.write(RELEASE.replace("1.0", f"{number}.0"))
        project.apply()
    listed = versions(server)
    assert len(listed) == MAX_STATE_VERSIONS
    oldest = server.request("GET", f"{PATH}?version={listed[-1]['version']}")
    (project.folder / "old.tfstate").write_bytes(oldest.content)
    project.run("state", "push", "-force", "old.tfstate")
    assert state_of(server)["resources"] == oldest.json()["resources"]


def test_a_present_state_is_moved_here(server: Server, project: Project) -> None:
    project.write(RELEASE, has_backend=False).run("init")
    project.apply()
    local = json.loads((project.folder / "terraform.tfstate").read_text())
    printed = project.write(RELEASE).run("init", "-migrate-state", "-force-copy")
    assert "Successfully configured the backend" in printed
    moved = state_of(server)
    assert moved["resources"] == local["resources"]
    assert "No changes" in project.run("plan", "-detailed-exitcode")
    project.write(RELEASE, has_backend=False).run("init", "-migrate-state", "-force-copy")
    assert json.loads((project.folder / "terraform.tfstate").read_text())["resources"] == local["resources"]


# Locks --------------------------------------------------------------------------------------------------------


def test_a_run_that_does_not_get_the_lock_fails_and_changes_nothing(server: Server, project: Project) -> None:
    project.begin().apply()
    before = server.request("GET", PATH).content
    hold(server)
    printed = project.write(RELEASE.replace("1.0", "2.0")).apply(code=1)
    assert "Error acquiring the state lock" in printed
    assert f"HTTP remote state already locked: ID={HOLDER['ID']}" in printed
    assert server.request("GET", PATH).content == before
    assert server.holder(LOCK).json()["owner"] == HOLDER


def test_a_run_with_a_lock_timeout_gets_the_lock_when_it_is_free(server: Server, project: Project) -> None:
    project.begin()
    hold(server)
    run = project.start("apply", "-auto-approve", f"-lock-timeout={START_SECONDS:.0f}s")
    until(lambda: refused_locks(server) > 0 or run.poll() is not None)
    assert server.request("UNLOCK", PATH, json=HOLDER).json() == {"unlocked": True}
    assert "1 added" in printed_by(run)
    assert server.is_free(LOCK)


def test_a_run_with_a_lock_timeout_gets_the_lock_when_it_expires(server: Server, project: Project) -> None:
    project.begin()
    hold(server, query="?ttl=1")
    assert "1 added" in project.apply(f"-lock-timeout={START_SECONDS:.0f}s")


def test_a_run_whose_lock_timeout_ends_fails(server: Server, project: Project) -> None:
    project.begin()
    hold(server)
    assert "Error acquiring the state lock" in project.apply("-lock-timeout=1s", code=1)
    assert refused_locks(server) > 0
    assert state_is_missing(server)


def test_only_one_of_two_runs_at_once_holds_the_lock(server: Server, project: Project, tmp_path: Path) -> None:
    body = RELEASE + '\nresource "terraform_data" "second" {\n  depends_on = [terraform_data.release]\n}\n'
    projects = [project.begin(body), Project(tmp_path / "other", server.url).begin(body)]
    runs = [each.start("apply", "-auto-approve", f"-lock-timeout={START_SECONDS:.0f}s") for each in projects]
    assert sorted("2 added" in printed_by(run) for run in runs) == [False, True]
    assert len(state_of(server)["resources"]) == 2


def test_a_lock_is_ended_with_force_unlock(server: Server, project: Project) -> None:
    project.begin()
    hold(server)
    assert "successfully unlocked" in project.run("force-unlock", "-force", HOLDER["ID"])
    assert server.is_free(LOCK)
    assert "a state is unlocked by force" in server.log()
    assert "1 added" in project.apply()


# Late writes --------------------------------------------------------------------------------------------------


def working(command: str) -> str:
    """A resource that runs a command while the lock is held, and then another one."""
    text = json.dumps(command).replace("${", "$${")
    provisioner = f'  provisioner "local-exec" {{\n    command = {text}\n  }}\n'
    return f'resource "terraform_data" "slow" {{\n  depends_on = [terraform_data.release]\n{provisioner}}}\n'


def curl(method: str, url: str, body: str = "") -> str:
    data = f" -d '{body}'" if body else ""
    return f"curl -sSf -X {method} '{url}'{data}"


LOSSES: dict[str, Callable[[str], str]] = {
    "ended by force": lambda url: curl("DELETE", f"{url}/locks/{LOCK}?force"),
    "held by another run": lambda url: " && ".join(
        (curl("DELETE", f"{url}/locks/{LOCK}?force"), curl("LOCK", url + PATH, json.dumps(HOLDER)))
    ),
    "expired": lambda url: f"until curl -s '{url}/locks/{LOCK}' | grep -q lock_not_found; do sleep 0.1; done",
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_save_of_a_run_that_has_lost_its_lock_is_refused(
    server: Server, tmp_path: Path, loss: Callable[[str], str]
) -> None:
    Project(tmp_path / "first", server.url).begin().apply()
    before = server.request("GET", PATH).content
    project = Project(tmp_path / "late", server.url, query="?ttl=2")
    project.begin()
    printed = project.write(RELEASE.replace("1.0", "2.0") + working(loss(server.url))).apply(code=1)
    assert "Failed to save state" in printed
    assert server.request("GET", PATH).content == before
    assert count(server, LATE) > 0
    errored = json.loads((project.folder / "errored.tfstate").read_text())
    assert {each["name"] for each in errored["resources"]} == {"release", "slow"}
    if not server.is_free(LOCK):
        assert refusal(server.request("DELETE", PATH)) == (423, "lock_held")
        project.run("force-unlock", "-force", HOLDER["ID"])
    project.run("state", "push", "errored.tfstate")
    assert len(state_of(server)["resources"]) == 2


def test_a_save_that_the_storage_refuses_leaves_the_state_in_a_file(tmp_path: Path) -> None:
    with running(tmp_path / "data.json", environment={"LEASEHOLD_MAX_STATE_BYTES": "2000"}) as server:
        project = Project(tmp_path / "project", server.url).begin()
        project.apply()
        before = server.request("GET", PATH).content
        project.write(RELEASE.replace("1.0", "x" * 2_000))
        assert "Failed to save state" in project.apply(code=1)
        assert server.request("GET", PATH).content == before
        assert (project.folder / "errored.tfstate").exists()
        assert server.is_free(LOCK)


# Lost answers -------------------------------------------------------------------------------------------------


def losing(proxy: Proxy, method: bytes) -> None:
    """Lose the first answer to a request of this method, whole."""
    has_lost = threading.Event()
    waits = threading.Event()

    def to_server(data: bytes) -> None:
        if data.startswith(method + b" ") and not has_lost.is_set():
            waits.set()

    def to_client(_data: bytes) -> int | None:
        if not waits.is_set():
            return None
        waits.clear()
        has_lost.set()
        return 0

    proxy.to_server, proxy.to_client = to_server, to_client


@pytest.mark.parametrize("method", ["LOCK", "POST", "UNLOCK"])
def test_a_request_whose_answer_is_lost_is_done_again(server: Server, tmp_path: Path, method: str) -> None:
    with proxy_on_a_thread(server.address[1]) as proxy:
        project = Project(tmp_path / "project", f"http://127.0.0.1:{proxy.port}").begin()
        losing(proxy, method.encode())
        assert "1 added" in project.apply()
        assert proxy.cuts == 1
    assert server.is_free(LOCK)
    assert state_of(server)["resources"]
    sent = re.findall(rf"method={method} path={PATH} .*status=(\d+)", server.log())
    assert len(sent) >= 2
    assert set(sent) <= {"200", "201"}


# Tokens -------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    with running(tmp_path / "guarded.json", environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret)}) as started:
        yield started


def password(*permissions: str, **claims: Any) -> Mapping[str, str]:
    return {"TF_HTTP_USERNAME": "ci", "TF_HTTP_PASSWORD": token(*permissions, **claims)}


def test_the_token_is_the_password(guarded: Server, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", guarded.url).write(RELEASE)
    project.run("init", code=1)
    project.environment |= password("read", "write", prefixes=[LOCK])
    project.run("init")
    assert "1 added" in project.apply()
    assert guarded.request("GET", PATH, headers=READER).json()["serial"] == 1
    project.environment |= password("read")
    assert "Error acquiring the state lock" in project.write(RELEASE.replace("1.0", "2.0")).apply(code=1)
    project.environment |= password("read", "write", prefixes=["terraform/other"])
    project.apply(code=1)


def test_to_unlock_by_force_needs_the_permission_admin(guarded: Server, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", guarded.url)
    project.environment |= password("read", "write")
    project.begin()
    headers = {"Authorization": f"Bearer {token('write', subject='bob')}"}
    assert guarded.request("LOCK", PATH, json=HOLDER, headers=headers).status_code == 200
    project.run("force-unlock", "-force", HOLDER["ID"], code=1)
    project.environment |= password("read", "write", "admin")
    assert "successfully unlocked" in project.run("force-unlock", "-force", HOLDER["ID"])
    assert "1 added" in project.apply()


# Namespaces ---------------------------------------------------------------------------------------------------

OTHER = RELEASE.replace("1.0", "2.0")


def in_namespace(server: Server, name: str, folder: Path) -> Project:
    """A project whose state is in this namespace."""
    return Project(folder / name, f"{server.url}/ns/{name}")


def test_a_state_of_the_same_name_in_another_namespace_is_another_state(tmp_path: Path) -> None:
    with running(tmp_path / "data.json") as server:
        for name in ("team-a", "team-b"):
            assert server.request("PUT", f"/ns/{name}").status_code == 201
        one, two = (in_namespace(server, name, tmp_path).begin() for name in ("team-a", "team-b"))
        assert "1 added" in one.apply()
        assert "1 added" in two.write(OTHER).apply()
        assert server.request("GET", PATH).status_code == 404, "default has none"
        states = [server.request("GET", f"/ns/{name}{PATH}").json() for name in ("team-a", "team-b")]
        assert states[0]["lineage"] != states[1]["lineage"]

        assert server.request("LOCK", f"/ns/team-a{PATH}", json=HOLDER).status_code == 200
        assert f"already locked: ID={HOLDER['ID']}" in one.write(OTHER).apply(code=1)
        assert "1 changed" in two.write(RELEASE).apply()
        assert server.request("GET", f"/ns/team-a{PATH}").json() == states[0]
        one.run("force-unlock", "-force", HOLDER["ID"])
        assert "1 changed" in one.apply()
        assert server.is_free(LOCK)


def test_a_namespace_that_does_not_exist_stops_a_run_before_it_does_anything(tmp_path: Path) -> None:
    """Terraform takes the 404 of a state for an empty state, but not that of a lock."""
    with running(tmp_path / "data.json") as server:
        project = in_namespace(server, "misspelt", tmp_path).begin(RELEASE + working("touch done"))
        assert "HTTP response code 404" in project.apply(code=1)
        assert not (project.folder / "done").exists()


def test_a_save_beyond_the_quota_leaves_the_state_in_a_file(tmp_path: Path) -> None:
    with running(tmp_path / "data.json") as server:
        server.request("PUT", "/ns/small", json={"max_bytes": 4_000})
        project = in_namespace(server, "small", tmp_path).begin()
        project.apply()
        before = server.request("GET", f"/ns/small{PATH}").content
        project.write(RELEASE.replace("1.0", "x" * 4_000))
        assert "Failed to save state" in project.apply(code=1)
        assert server.request("GET", f"/ns/small{PATH}").content == before
        server.request("PUT", "/ns/small", json={"max_bytes": None})
        project.run("state", "push", "errored.tfstate")
        assert "No changes" in project.run("plan", "-detailed-exitcode")


def test_a_token_for_one_namespace_is_the_password_there_only(guarded: Server, tmp_path: Path) -> None:
    everywhere = {"Authorization": f"Bearer {token('admin', namespaces=['*'])}"}
    for name in ("team-a", "team-b"):
        assert guarded.request("PUT", f"/ns/{name}", headers=everywhere).status_code == 201
    project = in_namespace(guarded, "team-a", tmp_path).write(RELEASE)
    project.environment |= password("read", "write", namespaces=["team-a"])
    project.run("init")
    assert "1 added" in project.apply()
    for url in (f"{guarded.url}/ns/team-b", guarded.url):
        other = Project(tmp_path / "other", url).write(RELEASE)
        other.environment |= password("read", "write", namespaces=["team-a"])
        other.run("init", "-reconfigure", code=1)


# The example --------------------------------------------------------------------------------------------------


def test_the_example_gets_its_addresses_from_the_command(server: Server, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "terraform" / "main.tf"
    text = example.read_text()
    [command] = re.findall(r"^#   terraform (init (?:.*\\\n)*.*)", text, re.MULTILINE)
    arguments = re.sub(r"\\\n#", "", command).replace("http://localhost:8080", server.url).split()
    project = Project(tmp_path / "example", server.url)
    (project.folder / "main.tf").write_text(text)
    project.run(*arguments)
    assert 'release = "1.1"' in project.apply("-var=release=1.1")
    assert server.request("GET", "/terraform/example").json()["outputs"]["release"]["value"] == "1.1"
    assert server.is_free("terraform/example")
