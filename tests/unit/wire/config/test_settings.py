"""The configuration: defaults, config.toml, and the flags that override it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from msgspec.structs import replace

from msd.wire.config.settings import DEFAULT_PORTS, Config, load
from msd.wire.config.store_urls import StoreUrl
from msd.wire.config.toml_file import MAX_WORKERS
from msd.wire.errors import NotAllowedError, UsageError
from msd.wire.net.endpoints import Endpoint
from tests.unit.wire.config.configurations import KEY, PORTS, create_server_pair, read, workers


def error_of(folder: Path, text: str) -> str:
    """The error message for an invalid configuration, without the leading file name."""
    with pytest.raises(UsageError) as caught:
        read(folder, text)
    message = str(caught.value)
    prefix = f"{folder / 'config.toml'}: "
    assert message.startswith(prefix)
    assert "\n" not in message
    return message.removeprefix(prefix)


def check_error(config: Config) -> str:
    """The error message for a configuration that fails its check."""
    with pytest.raises(UsageError) as caught:
        config.checked()
    return str(caught.value)


# The defaults.


def test_the_defaults_are_the_ports_of_the_report_on_loopback() -> None:
    config = Config().checked()
    assert config.workers == workers(21018, 27215, 35416, 19222)
    assert config.status == Endpoint("127.0.0.1", 39223)
    assert config.control == Endpoint("127.0.0.1", 39224)
    assert (config.paths, config.interval, config.hang_limit, config.security) == ((), 2.0, 60.0, "")
    assert (config.keys, config.server_key, config.exposed_endpoint) == (None, None, None)
    assert not config.uses_keys
    assert config.load_server_keys() is None


def test_without_a_file_the_defaults_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None) == Config()


def test_the_file_in_the_current_folder_is_read_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text("[broker]\ninterval = 9")
    assert load(None).interval == 9.0


@pytest.mark.parametrize(
    "data",
    [
        b'[package]\nname = "other"\n[dependencies]\nclient = "1"',
        b"[docker]\n[workspace]\n[server]\n[tool.broker]\n",
        b"worker = 1",
        b"",
    ],
)
def test_a_file_of_another_program_in_the_current_folder_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_bytes(data)
    assert load(None) == Config(passed_over_file=True)


def test_a_folder_named_config_toml_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").mkdir()
    assert load(None) == Config(passed_over_file=True)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[broker]\nintervall = 1", "unknown key 'intervall'"),
        (b"[brokr]\n[share]\n", "unknown section 'brokr'"),
        (b"[brokr]\nsecurity = 'curve'", "unknown section 'brokr'; did you mean broker"),
        (b"title = 1\n[[worker]]\nport = 1", "unknown section"),
        (b"[Share]\npath = 'a'", "unknown section 'Share'"),
        (b"[[workers]\nport = 1", "not valid TOML"),
        (b"[share\npath = 'a'", "not valid TOML"),
        (b"security = curve", "not valid TOML"),
        (b"title = '\xff'", "cannot be read"),
        (b"\xef\xbb\xbf[broker\n[broker]", "not valid TOML"),
        (b"[share]\npath = '\xff'", "cannot be read"),
    ],
)
def test_a_mistake_in_a_file_with_a_section_of_msd_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_bytes(data)
    with pytest.raises(UsageError, match=problem):
        load(None)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xef\xbb\xbf[broker]\ninterval = 9")
    assert load(file).interval == 9.0


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Config()


def test_the_file_in_the_repository_contains_the_defaults() -> None:
    root = Path(__file__).parents[4]
    config = load(str(root / "config.toml"))
    assert config == Config(paths=(root / "docs",), share_file=root / "config.toml", has_default_ports=False)


# A valid value for every key.


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("[share]\npath = ['/a', '/b']", "paths", (Path("/a"), Path("/b"))),
        ("[share]\nexclude = '*.tmp'", "excludes", ("*.tmp",)),
        ("[share]\nexclude = ['*.tmp', 'a/b']", "excludes", ("*.tmp", "a/b")),
        ("[share]\nhidden = true", "hidden", True),
        ("[share]\nfollow_links = true", "follow_links", True),
        ("[broker]\nhost = '10.0.0.1'", "host", "10.0.0.1"),
        ("[broker]\nstatus_port = 1", "status_port", 1),
        ("[broker]\nstatus_port = 65535", "status_port", 65535),
        ("[broker]\ncontrol_port = 7", "control_port", 7),
        ("[broker]\ninterval = 0.05", "interval", 0.05),
        ("[broker]\ninterval = 86400", "interval", 86400.0),
        ("[broker]\nhang_limit = 5", "hang_limit", 5.0),
        ("[broker]\nsecurity = 'none'", "security", "none"),
        ("[broker]\nsecurity = 'curve'", "security", "curve"),
        (f"[broker]\nserver_key = '{KEY}'", "server_key", b"\xab" * 32),
        (f"[broker]\nserver_key = '{KEY.upper()}'", "server_key", b"\xab" * 32),
        ("[client]\nmemory = '4MiB'", "memory", 4 << 20),
        ("[client]\nmemory = 8388608", "memory", 8 << 20),
        ("[client]\nmax_rate = '2MiB/s'", "max_rate", 2 << 20),
        ("[client]\nname = 'Zoë@attic'", "name", "Zoë@attic"),
        ("[[workers]]\nport = 80", "workers", workers(80)),
        ("[[workers]]\nport = 80\nhost = '10.0.0.1'", "workers", workers(80, host="10.0.0.1")),
        ("[[workers]]\nport = 80\nrate = '25MiB/s'", "workers", workers(80, rate=25 << 20)),
        ("[[workers]]\nport = 80\nrate = 0", "workers", workers(80)),
        ("[[workers]]\nport = 80\n[[workers]]\nport = 81", "workers", workers(80, 81)),
    ],
)
def test_a_key_is_read(tmp_path: Path, text: str, key: str, value: object) -> None:
    config = read(tmp_path, text)
    assert getattr(config, key) == value
    assert type(getattr(config, key)) is type(value)


def test_a_worker_has_the_host_of_the_broker_unless_it_sets_its_own(tmp_path: Path) -> None:
    config = read(
        tmp_path, "[[workers]]\nport = 80\n[[workers]]\nport = 81\nhost = '10.0.0.2'\n[broker]\nhost = '10.0.0.1'"
    )
    assert config.workers == workers(80, host="10.0.0.1") + workers(81, host="10.0.0.2")


def test_the_default_workers_have_the_host_of_the_broker(tmp_path: Path) -> None:
    assert read(tmp_path, "[broker]\nhost = '10.0.0.1'").workers == workers(*DEFAULT_PORTS[:4], host="10.0.0.1")


def test_a_relative_share_is_relative_to_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert read(tmp_path, "[share]\npath = 'my files/a'").paths == (tmp_path / "my files" / "a",)
    assert load("../config.toml").paths == (Path("../my files/a"),)


def test_an_absolute_share_is_unchanged(tmp_path: Path) -> None:
    assert read(tmp_path, "[share]\npath = '/srv/files'").paths == (Path("/srv/files"),)


def test_a_relative_key_folder_is_relative_to_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert read(tmp_path, "[broker]\nkeys = 'my keys'").keys == tmp_path / "my keys"
    assert load("../config.toml").keys == Path("../my keys")


def test_an_absolute_key_folder_is_unchanged_and_a_tilde_is_expanded(tmp_path: Path, home: Path) -> None:
    assert read(tmp_path, "[broker]\nkeys = '/srv/keys'").keys == Path("/srv/keys")
    assert read(tmp_path, "[broker]\nkeys = '~/keys'").keys == home / "keys"


def test_the_home_of_an_unknown_user_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such home directory"):
        read(tmp_path, "[broker]\nkeys = '~no-such-user/keys'")


# Invalid values for every key: the error contains the key, the value and the allowed values.

A_PORT = "a port from 1 to 65535"
SECONDS = "a number of seconds from 0.05 to 86400"
A_STRING = "a non-empty string"
A_KEY = "a key of 64 hexadecimal digits"
SECURITY = '"none" or "curve", or not set'
BYTES = 'a number of bytes, such as 1048576 or "40MiB"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[share]\npath = ''", f"[share] path = '': must be {A_STRING}, or a list of them"),
        ("[share]\npath = 3", f"[share] path = 3: must be {A_STRING}, or a list of them"),
        ('[share]\npath = "a\\u0000b"', f"[share] path = 'a\\x00b': must be {A_STRING}, or a list of them"),
        ("[share]\nexclude = ['a', 1]", f"[share] exclude = ['a', 1]: must be {A_STRING}, or a list of them"),
        ("[share]\nhidden = 1", "[share] hidden = 1: must be true or false"),
        ("[broker]\nhost = ''", f"[broker] host = '': must be {A_STRING}"),
        ("[broker]\nhost = 127", f"[broker] host = 127: must be {A_STRING}"),
        ("[broker]\nstatus_port = 0", f"[broker] status_port = 0: must be {A_PORT}"),
        ("[broker]\nstatus_port = 80000", f"[broker] status_port = 80000: must be {A_PORT}"),
        ("[broker]\nstatus_port = '80'", f"[broker] status_port = '80': must be {A_PORT}"),
        ("[broker]\nstatus_port = true", f"[broker] status_port = True: must be {A_PORT}"),
        ("[broker]\nstatus_port = 80.0", f"[broker] status_port = 80.0: must be {A_PORT}"),
        ("[broker]\ncontrol_port = -1", f"[broker] control_port = -1: must be {A_PORT}"),
        ("[broker]\ncontrol_port = 0", f"[broker] control_port = 0: must be {A_PORT}"),
        ("[broker]\ninterval = 0", f"[broker] interval = 0: must be {SECONDS}"),
        ("[broker]\ninterval = 0.049", f"[broker] interval = 0.049: must be {SECONDS}"),
        ("[broker]\ninterval = 86401", f"[broker] interval = 86401: must be {SECONDS}"),
        ("[broker]\ninterval = nan", f"[broker] interval = nan: must be {SECONDS}"),
        ("[broker]\ninterval = inf", f"[broker] interval = inf: must be {SECONDS}"),
        ("[broker]\ninterval = '2'", f"[broker] interval = '2': must be {SECONDS}"),
        ("[broker]\ninterval = true", f"[broker] interval = True: must be {SECONDS}"),
        (f"[broker]\ninterval = {10**400}", f"[broker] interval = {10**400}: must be {SECONDS}"),
        ("[broker]\nhang_limit = -60", "[broker] hang_limit = -60: must be a number of seconds from 1 to 86400"),
        ("[broker]\nsecurity = 'plain'", f"[broker] security = 'plain': must be {SECURITY}"),
        ("[broker]\nsecurity = 'CURVE'", f"[broker] security = 'CURVE': must be {SECURITY}"),
        ("[broker]\nsecurity = ''", f"[broker] security = '': must be {SECURITY}"),
        ("[broker]\nsecurity = false", f"[broker] security = False: must be {SECURITY}"),
        ("[broker]\nsecurity = ['curve']", f"[broker] security = ['curve']: must be {SECURITY}"),
        ("[broker]\nkeys = ''", f"[broker] keys = '': must be {A_STRING}"),
        ("[broker]\nkeys = true", f"[broker] keys = True: must be {A_STRING}"),
        ("[broker]\nserver_key = ''", f"[broker] server_key = '': must be {A_STRING}"),
        ("[broker]\nserver_key = 'abc'", f"[broker] server_key = 'abc': must be {A_KEY}"),
        (f"[broker]\nserver_key = '{KEY}ab'", f"[broker] server_key = '{KEY}ab': must be {A_KEY}"),
        ("[broker]\nserver_key = 12", f"[broker] server_key = 12: must be {A_STRING}"),
        ("[client]\nmemory = '1MiB'", "[client] memory = '1MiB': must be at least \"4MiB\""),
        ("[client]\nmemory = 4194303", '[client] memory = 4194303: must be at least "4MiB"'),
        ("[client]\nmemory = 'much'", f"[client] memory = 'much': must be {BYTES}"),
        ("[[workers]]\nport = 65536", f"[[workers]] 1: port = 65536: must be {A_PORT}"),
        ("[[workers]]\nport = 80\n[[workers]]\nport = 'x'", f"[[workers]] 2: port = 'x': must be {A_PORT}"),
        ("[[workers]]\nport = 80\nhost = ''", f"[[workers]] 1: host = '': must be {A_STRING}"),
        ("[[workers]]\nport = 80\nrate = -1", f"[[workers]] 1: rate = -1: must be {BYTES}"),
        ("[[workers]]\nport = 80\nrate = 'fast'", f"[[workers]] 1: rate = 'fast': must be {BYTES}"),
        ("[[workers]]\nhost = '127.0.0.1'", "[[workers]] 1: port is missing: add the port of this worker"),
    ],
)
def test_an_invalid_value_is_reported_with_its_key_and_the_allowed_values(
    tmp_path: Path, text: str, message: str
) -> None:
    assert error_of(tmp_path, text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[broker]\nstatus_prot = 80", "unknown key 'status_prot' in [broker]; did you mean status_port?"),
        ("[broker]\nintervall = 80", "unknown key 'intervall' in [broker]; did you mean interval?"),
        ("[share]\npaht = 'x'", "unknown key 'paht' in [share]; did you mean path?"),
        ("[[workers]]\nprot = 1", "unknown key 'prot' in [[workers]] 1; did you mean port?"),
        ("[client]\nxyz = 1", "unknown key 'xyz' in [client]; expected one of memory, max_rate, key, name"),
        ("[brokr]\n", "unknown section 'brokr'; did you mean broker?"),
        ("[worker]\n", "unknown section 'worker'; did you mean workers?"),
        ("xyz = 1", "unknown section 'xyz'; expected one of share, broker, workers, store, client"),
        ("share = 'path'", "share must be written as [share]"),
        ("[[broker]]\n", "broker must be written as [broker]"),
        ("[workers]\nport = 1", "workers must be written as [[workers]]"),
        ("workers = [1]", "[[workers]] 1: must be a table"),
    ],
)
def test_an_unknown_key_is_reported_with_the_most_similar_known_key(tmp_path: Path, text: str, message: str) -> None:
    assert error_of(tmp_path, text) == message


def test_too_many_workers_are_refused(tmp_path: Path) -> None:
    lines = [f"[[workers]]\nport = {port}" for port in range(1, MAX_WORKERS + 2)]
    assert len(read(tmp_path, "\n".join(lines[:-1])).workers) == MAX_WORKERS
    assert (
        error_of(tmp_path, "\n".join(lines))
        == f"{MAX_WORKERS + 1} [[workers]] tables: at most {MAX_WORKERS} are allowed"
    )


@pytest.mark.parametrize(
    "text", ["[broker", "a = ", "a = 1\na = 2", f"[broker]\ninterval = {'9' * 5000}", "a = " + "[" * 5000]
)
def test_invalid_toml_is_reported(tmp_path: Path, text: str) -> None:
    assert error_of(tmp_path, text).startswith("not valid TOML: ")


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    file = str(tmp_path / "none.toml")
    with pytest.raises(UsageError) as caught:
        load(file)
    assert str(caught.value) == f"{file}: no such file: give the path of a config.toml"


def test_an_unreadable_file_is_reported_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(str(tmp_path))
    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_a_folder_that_this_user_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError) as caught:
        load(None)
    assert str(caught.value) == f"{tmp_path / 'config.toml'} cannot be read: run msd in another folder"


def test_a_file_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"[share]\npath = '\xff'")
    with pytest.raises(UsageError, match="cannot be read: 'utf-8' codec"):
        load(str(file))


# Flags override the file.


def test_without_flags_nothing_changes() -> None:
    config = Config(paths=(Path("a"),), workers=workers(1, 2))
    assert config.with_flags() == config


def test_each_flag_overrides_the_file() -> None:
    config = Config(paths=(Path("a"),), interval=9.0, workers=workers(1, 2, rate=5))
    assert config.with_flags(paths=["b"]).paths == (Path("b"),)
    assert config.with_flags(paths=["b", "c"]).paths == (Path("b"), Path("c"))
    assert config.with_flags(excludes=["*.tmp"]).excludes == ("*.tmp",)
    assert config.with_flags(hidden=True, follow_links=True) == replace(config, hidden=True, follow_links=True)
    assert config.with_flags(interval=0.5).interval == 0.5
    assert config.with_flags(rate="1k").workers == workers(1, 2, rate=1000)
    assert config.with_flags(rate="0").workers == workers(1, 2)


def test_a_share_on_the_command_line_is_relative_to_the_current_folder(tmp_path: Path) -> None:
    assert read(tmp_path, "[share]\npath = 'a'").with_flags(paths=["b"]).paths == (Path("b"),)


def test_the_host_flag_applies_to_server_5_and_every_worker() -> None:
    config = Config(workers=workers(1, 2, host="10.0.0.9", rate=7)).with_flags(host="10.0.0.1")
    assert config.status == Endpoint("10.0.0.1", 39223)
    assert config.control == Endpoint("10.0.0.1", 39224)
    assert config.workers == workers(1, 2, host="10.0.0.1", rate=7)


def test_the_ports_flag_sets_the_ports_of_four_workers_and_server_5() -> None:
    config = Config(host="10.0.0.1").with_flags(ports=PORTS)
    assert config.workers == workers(5001, 5002, 5003, 5004, host="10.0.0.1")
    assert config.status.port == 5005
    assert config.control.port == 5006


def test_the_ports_flag_replaces_any_other_number_of_workers() -> None:
    assert Config(workers=workers(1, 2, rate=7)).with_flags(ports=PORTS).workers == workers(5001, 5002, 5003, 5004)


def test_the_ports_flag_keeps_the_rates_of_four_workers() -> None:
    config = Config(workers=workers(1, 2, rate=7) + workers(3, 4, rate=8))
    assert [worker.rate for worker in config.with_flags(ports=PORTS).workers] == [7, 7, 8, 8]


def test_the_ports_flag_keeps_the_control_port_of_the_file() -> None:
    assert Config(control_port=7000).with_flags(ports=PORTS).control.port == 7000


@pytest.mark.parametrize("count", [1, 2, 64])
def test_the_ports_flag_takes_a_port_for_each_worker_and_one_for_server_5(count: int) -> None:
    ports = tuple(range(6001, 6002 + count))
    for given in (count, None):
        config = Config().with_flags(ports=ports, count=given).checked()
        assert config.workers == workers(*ports[:-1])
        assert config.status.port == ports[-1]


@pytest.mark.parametrize(
    ("count", "problem"), [(3, "3 workers and server 5 need 4 ports"), (1, "1 worker and server 5 need 2 ports")]
)
def test_a_worker_count_that_does_not_match_the_ports_is_refused(count: int, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config().with_flags(ports=PORTS, count=count)
    assert str(caught.value).startswith(f"{problem}, but -p has 5: ")


def test_more_ports_than_workers_are_allowed_are_refused() -> None:
    with pytest.raises(UsageError, match="66 ports: at most 64 workers and server 5 are allowed"):
        Config().with_flags(ports=tuple(range(6001, 6067)))


@pytest.mark.parametrize("count", [-1, 65])
def test_a_worker_count_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"-n {count}: must be a number of workers from 0 to 64$"):
        Config().with_flags(count=count)


def test_an_empty_path_does_not_stand_for_the_current_folder() -> None:
    with pytest.raises(UsageError, match=r"^PATH '': must be a non-empty string$"):
        Config().with_flags(paths=["film", ""])
    with pytest.raises(UsageError, match=r"^--exclude '': must be a non-empty string$"):
        Config().with_flags(excludes=[""])


def test_a_smaller_worker_count_keeps_the_first_configured_workers() -> None:
    config = Config(workers=workers(1, 2, rate=7))
    assert config.with_flags(count=1).workers == workers(1, rate=7)
    assert config.with_flags(count=2) == config


def test_further_workers_listen_on_the_ports_after_the_last_configured_one() -> None:
    assert Config().with_flags(count=6).checked().workers == workers(21018, 27215, 35416, 19222, 19223, 19224)
    config = Config(host="10.0.0.1", status_port=5000, workers=workers(1, 2, host="10.0.0.1", rate=7))
    assert config.with_flags(count=3).workers[2:] == workers(3, host="10.0.0.1")
    assert len(Config().with_flags(count=64).checked().workers) == 64


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_flag_out_of_range_is_reported(port: int) -> None:
    with pytest.raises(UsageError, match=f"ports: {port} is not a valid port; ports range from 1 to 65535"):
        Config().with_flags(ports=(5001, 5002, port, 5004, 5005))


@pytest.mark.parametrize("interval", [0.0, 0.01, -1.0, 1e6, float("nan"), float("inf")])
def test_an_interval_flag_out_of_range_is_reported(interval: float) -> None:
    with pytest.raises(UsageError) as caught:
        Config().with_flags(interval=interval)
    assert str(caught.value) == f"-i {interval}: must be {SECONDS}"


def test_an_invalid_rate_flag_is_reported() -> None:
    with pytest.raises(UsageError) as caught:
        Config().with_flags(rate="fast")
    assert str(caught.value) == f"--rate fast: must be {BYTES}"


# Conflicting ports.


def test_a_port_given_twice_is_reported_with_both_uses() -> None:
    assert check_error(Config(workers=workers(1, 2, 1))) == "port 1 is given twice: for worker 1 and for worker 3"
    assert check_error(Config(workers=workers(1, 39223))) == "port 39223 is given twice: for worker 2 and for server 5"


def test_a_port_given_twice_on_the_command_line_is_refused() -> None:
    assert "for worker 1 and for worker 2" in check_error(Config().with_flags(ports=(5001, 5001, 5003, 5004, 5005)))
    assert "for worker 4 and for server 5" in check_error(Config().with_flags(ports=(5001, 5002, 5003, 5005, 5005)))


def test_a_conflict_of_the_default_control_port_is_explained() -> None:
    config = Config().with_flags(ports=(5001, 5002, 5003, 5006, 5005))
    assert check_error(config) == "port 5006 is given twice: for worker 4 and for the control port (the fifth port + 1)"


def test_a_conflict_of_a_configured_control_port_needs_no_explanation() -> None:
    config = Config(control_port=39223)
    assert check_error(config) == "port 39223 is given twice: for server 5 and for the control port"


def test_a_default_control_port_out_of_range_is_refused() -> None:
    assert check_error(Config(status_port=65535)).startswith("the control port: 65536 is not a valid port")
    assert Config(status_port=65535, control_port=65534).checked().control.port == 65534


def test_two_hosts_can_use_the_same_port() -> None:
    config = Config(workers=workers(80, host="10.0.0.1") + workers(80, host="10.0.0.2"))
    assert config.checked() is config


def test_a_third_use_of_a_port_is_compared_with_both_others() -> None:
    config = Config(workers=workers(80, host="10.0.0.1") + workers(80, 80, host="10.0.0.2"))
    assert check_error(config) == "port 80 is given twice: for worker 2 and for worker 3"


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::"])
def test_a_port_on_a_wildcard_conflicts_with_the_port_on_any_host(host: str) -> None:
    one_address, wildcard = workers(80, host="10.0.0.1"), workers(80, host=host)
    for pair in (one_address + wildcard, wildcard + one_address):
        assert "port 80 is given twice" in check_error(Config(workers=pair))


def test_a_file_with_a_broker_alone_is_that_of_a_broker_whose_workers_join(tmp_path: Path) -> None:
    assert read(tmp_path, "[broker]\nhost = '10.0.0.1'").is_only_broker
    assert not read(tmp_path, "[broker]\nhost = '10.0.0.1'\n[share]\npath = 'film'").is_only_broker
    assert not read(tmp_path, "[broker]\nhost = '10.0.0.1'\n[[workers]]\nport = 80").is_only_broker
    assert not read(tmp_path, "[client]\nmemory = 10000000").is_only_broker


def test_a_broker_may_have_no_workers() -> None:
    assert Config().with_flags(count=0).checked().workers == ()


def test_the_access_log_is_relative_to_the_folder_of_the_configuration(tmp_path: Path) -> None:
    assert read(tmp_path, "[broker]\naccess_log = 'log/access'").access_log == tmp_path / "log" / "access"
    assert read(tmp_path, "[broker]\naccess_log = '/dev/stdout'").access_log == Path("/dev/stdout")
    assert read(tmp_path, "[broker]").access_log is None


def test_without_a_metrics_port_there_is_no_metrics_endpoint() -> None:
    assert Config().metrics is None


def test_metrics_are_on_the_brokers_host(tmp_path: Path) -> None:
    config = read(tmp_path, "[broker]\nmetrics_port = 9000").with_flags(host="10.0.0.1", ports=PORTS)
    assert config.metrics == Endpoint("10.0.0.1", 9000)


@pytest.mark.parametrize(("port", "other"), [(39223, "server 5"), (39224, "the control port"), (21018, "worker 1")])
def test_the_metrics_port_must_differ_from_all_other_ports(port: int, other: str) -> None:
    assert check_error(Config(metrics_port=port)) == f"port {port} is given twice: for {other} and for the metrics port"


# The key folder.


def test_the_key_folder_is_configured_or_in_the_home_directory(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Config().key_folder.path == home / ".config" / "msd" / "keys"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert Config().key_folder.path == tmp_path / "msd" / "keys"
    assert Config(keys=tmp_path).key_folder.path == tmp_path


def test_a_missing_home_directory_is_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(UsageError, match=r"^no home directory for the keys: set XDG_CONFIG_HOME$"):
        _ = Config().key_folder


# Keys: which servers need them.


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_servers_on_loopback_need_no_keys(host: str) -> None:
    config = Config().with_flags(host=host)
    assert config.exposed_endpoint is None
    assert not config.uses_keys
    assert config.load_server_keys() is None


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "::", "192.168.1.2", "example.org"])
def test_an_exposed_host_needs_keys_or_a_security_setting(host: str, home: Path) -> None:
    config = Config().with_flags(host=host)
    assert config.exposed_endpoint == config.status
    assert config.uses_keys
    with pytest.raises(NotAllowedError, match=r"no server key in .*: create it with msd keys init"):
        config.load_server_keys()
    pair = create_server_pair(home / ".config" / "msd" / "keys")
    assert config.load_server_keys() == pair


def test_one_exposed_worker_needs_keys() -> None:
    config = Config(workers=workers(1, 2, 3) + workers(4, host="10.0.0.1"))
    assert config.exposed_endpoint == Endpoint("10.0.0.1", 4)
    assert config.uses_keys


def test_security_none_allows_exposed_servers_without_keys(tmp_path: Path) -> None:
    create_server_pair(tmp_path / "keys")
    config = Config(host="0.0.0.0", security="none", keys=tmp_path / "keys")
    assert not config.uses_keys
    assert config.load_server_keys() is None


@pytest.mark.parametrize("setting", ["security", "keys"])
def test_servers_on_loopback_can_use_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    folder = tmp_path / "msd" / "keys"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = Config(security="curve") if setting == "security" else Config(keys=folder)
    assert config.uses_keys
    with pytest.raises(NotAllowedError) as caught:
        config.load_server_keys()
    assert str(caught.value) == f"no server key in {folder}: create it with msd keys init"
    pair = create_server_pair(folder)
    assert config.load_server_keys() == pair


def test_keys_that_other_users_can_access_are_refused(tmp_path: Path) -> None:
    create_server_pair(tmp_path / "keys")
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(NotAllowedError, match="is accessible to other users"):
        Config(keys=tmp_path / "keys").load_server_keys()


def test_ports_from_a_file_or_a_flag_are_no_default_ports(tmp_path: Path) -> None:
    assert Config().with_flags(count=8, host="127.0.0.1").has_default_ports
    assert read(tmp_path, "[broker]\nhost = '127.0.0.1'").has_default_ports
    for text in ("[broker]\nstatus_port = 39223", "[broker]\ncontrol_port = 39224", "[[workers]]\nport = 21018"):
        assert not read(tmp_path, text).has_default_ports
    assert not Config().with_flags(ports=PORTS).has_default_ports


def test_all_ports_can_be_moved_together() -> None:
    config = Config(workers=workers(1, 2, rate=7), status_port=5).with_other_ports(100)
    assert config.workers == workers(101, 102, rate=7)
    assert (config.status.port, config.control.port) == (105, 106)
    assert Config().with_other_ports(0) == Config()


def test_urls_and_the_settings_of_stores_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[share]\npath = ["s3://films/new/", "film"]\n[store]\nendpoint = "https://s3.example.com"\nregion = "eu"\n'
        'access_key_id = "id"\nsecret_access_key = "key"\nanonymous = false\ncache = "1GiB"\n'
    )
    config = load(file)
    assert config.paths == (StoreUrl("s3", "films", "new/"), tmp_path / "film")
    assert config.store_cache == 1 << 30
    settings = {"endpoint": "https://s3.example.com", "region": "eu", "access_key_id": "id", "secret_access_key": "key"}
    assert config.store == settings
    file.write_text("[store]\nanonymous = true\n")
    assert load(file).store == {"anonymous": "true"}
    assert load(file).with_flags(paths=["gs://a/b"]).paths == (StoreUrl("gs", "a", "b"),)


@pytest.mark.parametrize(
    "text",
    ['endpoint = "s3.example.com"', 'endpoint = "https://me:secret@s3.example.com"', "anonymous = 1", "cache = -1"],
)
def test_a_wrong_setting_of_a_store_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[store]\n{text}\n")
    with pytest.raises(UsageError, match=r"\[store\] (endpoint|anonymous|cache): must be") as raised:
        load(file)
    assert "secret" not in str(raised.value)
