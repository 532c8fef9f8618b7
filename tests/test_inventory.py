"""The hosts of a stage: who they are, which of them a command is for, and what is refused before any host is asked."""

from __future__ import annotations

from typing import Any

import pytest
from fabric import Config, Connection
from hypothesis import given
from hypothesis import strategies as st

from fabdjango import session
from fabdjango.configuration import Layer, Resolved, resolve
from fabdjango.exceptions import ConfigError
from fabdjango.inventory import Host, hosts_of, leads, literal, primary_of, select, split_address, table, words_of
from fabdjango.login import connection_to, name_of, target_of
from fabdjango.settings import Ssh

REQUIRED = {"project": "blog", "repository": "it's a repository"}
FILES = {
    "deploy/it's hosts.ini": "[web]\nweb1 ansible_host=192.0.2.1 ansible_user=ini\nweb2 ansible_port=2222\n",
    "other.ini": "web2 ansible_port=2200\n",
    "ssh": "Host blog-1\n  HostName 192.0.2.3\n  User ada\n",
}


def resolved(values: dict[str, Any], stage: str = "", host: str = "", above: dict[str, Any] | None = None) -> Resolved:
    """One file with what is required, and what a variable says above it."""
    layers = [Layer("fabric.yaml", {**REQUIRED, **values}), Layer("the environment", above or {})]
    return resolve(layers, stage=stage, host=host, read=FILES.__getitem__)


def refused(function: Any, *arguments: Any, **more: Any) -> tuple[str, str]:
    """Message and cure of a ConfigError."""
    with pytest.raises(ConfigError) as caught:
        function(*arguments, **more)
    return caught.value.message, caught.value.cure


def host(name: str, *roles: str, **more: Any) -> Host:
    """A host as fabric.yaml would list it."""
    return Host(name, more.pop("address", name), roles=roles, source="fabric.yaml", **more)


# --- who they are ------------------------------------------------------------


def test_who_leads() -> None:
    """The primary, a host alone, and one that no inventory lists; of several without one, nobody."""
    one, two = (Host(name, name, roles=("it's", *roles)) for name, roles in (("a", ("primary",)), ("b", ())))
    assert [leads(name, [one, two]) for name in ("a", "b", "c d")] == [True, False, True]
    assert leads("b", [two])
    assert not leads("b", [two, Host("c", "c")])


def test_every_layer_says_how_a_host_is_reached() -> None:
    """For all, by stage, by role, by inventory file, and by the host itself; the last one wins, and each has its source."""
    values = {
        "ssh": {"user": "all", "port": 1, "jump": "it's", "address": ""},
        "roles": {"web": {"ssh": {"user": "role", "port": 3}}},
        "stages": {
            "live": {
                "ssh": {"user": "stage", "port": 2, "key": ["it's a key"]},
                "inventory": "deploy/it's hosts.ini",
                "hosts": {"web2": {"ssh": {"address": "192.0.2.2"}}},
            }
        },
    }
    found = resolved(values, "live", "web2")
    assert found.hosts == (
        Host("web1", "192.0.2.1", "ini", 3, ("it's a key",), "it's", ("web",), "live", "deploy/it's hosts.ini"),
        Host(
            "web2",
            "192.0.2.2",
            "role",
            2222,
            ("it's a key",),
            "it's",
            ("web",),
            "live",
            "deploy/it's hosts.ini, fabric.yaml",
        ),
    )
    assert {key: found.sources[key] for key in ("ssh.user", "ssh.port", "ssh.key", "ssh.jump", "ssh.address")} == {
        "ssh.user": "fabric.yaml, roles.web",
        "ssh.port": "deploy/it's hosts.ini",
        "ssh.key": "fabric.yaml, stages.live",
        "ssh.jump": "fabric.yaml",
        "ssh.address": "fabric.yaml, stages.live, hosts.web2",
    }


def test_a_variable_wins_over_the_host() -> None:
    """As the README says: what stands in the environment was written last."""
    values = {"hosts": {"web1": {"branch": "it's the host's", "ssh": {"user": "ada"}}}}
    found = resolved(values, host="web1", above={"branch": "v2", "ssh": {"user": "eve"}})
    assert (found.settings.branch, found.sources["branch"]) == ("v2", "the environment")
    assert found.hosts[0].user == "eve"


def test_an_entry_replaces_the_roles_of_a_file() -> None:
    """A list replaces a list, here too."""
    values = {"inventory": ["deploy/it's hosts.ini"], "hosts": {"web1": {"roles": ["web", "primary"]}}}
    assert [(each.name, each.roles) for each in resolved(values).hosts] == [
        ("web1", ("web", "primary")),
        ("web2", ("web",)),
    ]


def test_a_stage_that_lists_hosts_has_no_others() -> None:
    """But what is said of them outside of stages holds."""
    values = {
        "inventory": "deploy/it's hosts.ini",
        "hosts": {"web9": {}},
        "stages": {"one": {"hosts": {"web1": {}}}, "all": {"confirm": True}},
    }
    one = resolved(values, "one")
    assert [(each.name, each.address, each.stage) for each in one.hosts] == [("web1", "192.0.2.1", "one")]
    assert one.elsewhere == {"web2": ("",), "web9": ("",)}
    everyone = resolved(values, "all")
    assert ([each.name for each in everyone.hosts], everyone.confirm) == (["web1", "web2", "web9"], True)


def test_hosts_of_ssh_config() -> None:
    """Chosen by a pattern."""
    found = resolved({"inventory": {"ssh_config": "ssh", "match": "blog-*"}})
    assert found.hosts == (Host("blog-1", "192.0.2.3", "ada", source="ssh"),)


@pytest.mark.parametrize(
    ("values", "message", "cure"),
    [
        (
            {"hosts": {"a": {"ssh": {"address": "192.0.2.1"}}, "it's": {"ssh": {"address": "192.0.2.1", "port": 22}}}},
            "duplicate hosts: a and it's are both 192.0.2.1 port 22 (in fabric.yaml)",
            "take one of them away, or give it's its own ssh: {address: …}",
        ),
        (
            {"inventory": ["deploy/it's hosts.ini", "other.ini"]},
            "duplicate hosts: web2 has two values of port, 2222 and 2200 (in deploy/it's hosts.ini and other.ini)",
            "take one of them away, or give the other host its own name",
        ),
        (
            {"inventory": {"ansibel": "it's"}},
            "fabdjango.inventory must name a file, not {'ansibel': \"it's\"} (in fabric.yaml)",
            (
                "write it as one of: deploy/hosts.ini, {ansible: deploy/hosts.ini, group: web}, "
                '{ssh_config: ~/.ssh/config, match: "blog-*"}'
            ),
        ),
        (
            {"stages": {"live": {"confirm": "it's"}}},
            'fabdjango.stages.live.confirm must be true or false, not "it\'s" (in fabric.yaml)',
            "change fabdjango.stages.live.confirm in fabric.yaml",
        ),
        (
            {"hosts": {"a": {"ssh": {"jump": "it's, b"}}}},
            (
                'fabdjango.ssh.jump must be user@host:port, or several of them with commas between, not "it\'s, b" '
                "(in fabric.yaml, hosts.a)"
            ),
            "change fabdjango.ssh.jump in fabric.yaml, hosts.a",
        ),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str, cure: str) -> None:
    """Before any host is asked, with the cure."""
    assert refused(resolved, values) == (message, cure)


def test_an_address_behind_another_jump_host_is_another_machine() -> None:
    """Private networks use the same addresses again and again."""
    values = {"a": {"ssh": {"address": "10.0.0.1", "jump": "x"}}, "b": {"ssh": {"address": "10.0.0.1", "jump": "y"}}}
    assert len(resolved({"hosts": values}).hosts) == 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ada@web1.example.com:2222", ("ada", "web1.example.com", 2222)),
        ("web1", ("", "web1", 0)),
        ("2001:db8::1", ("", "2001:db8::1", 0)),
        ("ada@[2001:db8::1]:22", ("ada", "2001:db8::1", 22)),
        ("it's a host", ("", "it's a host", 0)),
    ],
)
def test_an_address_with_its_user_and_port(text: str, parts: tuple[str, str, int]) -> None:
    """As ssh and Fabric take it."""
    assert split_address(text) == parts


@given(st.text(max_size=40))
def test_any_text_has_an_address(text: str) -> None:
    """Nothing that somebody writes there is a traceback."""
    assert split_address(text)[1] or not text or "[" in text or "]" in text


# --- which of them -----------------------------------------------------------

HOSTS = (host("web1", "web", "primary"), host("web2", "web"), host("it's db", "db"))


def test_selection() -> None:
    """All; by name or address; by role; and less the others."""
    assert select(HOSTS) == HOSTS
    assert select(HOSTS, ["web2", "192.0.2.9"]) == (HOSTS[1], literal("192.0.2.9", Ssh()))
    assert select(HOSTS, role="web") == HOSTS[:2]
    assert select(HOSTS, role="web", limit=["web2", "it's db"]) == HOSTS[1:2]
    assert words_of(" web1, it's db,") == ("web1", "it's db")


@pytest.mark.parametrize(
    ("choice", "message", "cure"),
    [
        ({"role": "wbe"}, "no host has the role wbe", "did you mean web?"),
        ({"role": "it's"}, "no host has the role it's", "the roles are: web, primary, db"),
        ({"limit": ["web3"]}, "web3 is none of the hosts that --limit chooses from", "did you mean web2 or web1?"),
        ({"limit": ["x"]}, "x is none of the hosts that --limit chooses from", "they are: web1, web2, it's db"),
        ({"role": "web", "limit": ["it's db"]}, "none of it's db has the role web", "these have it: web1, web2"),
    ],
)
def test_a_choice_that_chooses_nobody(choice: dict[str, Any], message: str, cure: str) -> None:
    """A word that was misspelt must not become a deployment to fewer hosts."""
    assert refused(select, HOSTS, **choice) == (message, cure)


def test_nobody_has_any_role() -> None:
    """The cure is the line to write."""
    assert refused(select, [host("it's")], role="web") == (
        "no host has the role web",
        "give it to one: hosts: {it's: {roles: [web]}}",
    )


def test_the_primary() -> None:
    """One of several has the role; a single host needs none."""
    assert primary_of(HOSTS) == HOSTS[0]
    assert primary_of(HOSTS[1:2]) == HOSTS[1]
    assert refused(primary_of, HOSTS[1:]) == (
        "none of web2, it's db is the primary, which migrates for all of them",
        "give one of them the role in fabric.yaml:\nhosts: {web2: {roles: [web, primary]}}",
    )
    two = (HOSTS[0], host("it's", "primary", "db", stage="live"))
    assert refused(primary_of, two) == (
        "web1 and it's are both primary; there can be only one",
        "leave it to web1:\nstages: {live: {hosts: {it's: {roles: [db]}}}}",
    )
    assert refused(primary_of, ()) == (
        "there is no host, and so no primary",
        "list one: hosts: {web1.example.com: {roles: [primary]}}",
    )


def test_the_table() -> None:
    """What nobody has is no column."""
    hosts = (*HOSTS[:2], host("it's db", "db", address="192.0.2.4", port=2222))
    assert table(hosts, hosts) == [
        "host     address    port  roles         from",
        "web1 *   web1       -     web, primary  fabric.yaml",
        "web2     web2       -     web           fabric.yaml",
        "it's db  192.0.2.4  2222  db            fabric.yaml",
    ]
    assert table(hosts[1:2], hosts) == ["host  address  roles  from", "web2  web2     web    fabric.yaml"]
    assert table(hosts[1:2], hosts[1:2])[1] == "web2 *  web2     web    fabric.yaml"


# --- -H ----------------------------------------------------------------------

STAGES = {
    "hosts": {"web9": {}},
    "stages": {"it-s": {"hosts": {"web1": {}}}, "live": {"hosts": {"web2": {}}, "confirm": True}},
    "ssh": {"user": "deploy"},
}


def test_a_name_of_the_inventory_or_an_address() -> None:
    """What nobody lists is taken as it is, with the settings of all."""
    found = resolved(STAGES, "live")
    assert session.host_of("web2", found) == Host("web2", "web2", "deploy", stage="live", source="fabric.yaml")
    assert session.host_of("192.0.2.9", found) == literal("192.0.2.9", Ssh(user="deploy"), "live")


def test_a_host_of_another_stage() -> None:
    """It is told where it is, and how to choose that."""
    assert refused(session.host_of, "web1", resolved(STAGES)) == (
        "web1 is in the stage it-s, and none is chosen",
        "choose it: fab -H web1 it-s …",
    )
    assert refused(session.host_of, "web1", resolved(STAGES, "live")) == (
        "web1 is in the stage it-s, and the chosen one is live",
        "choose it: fab -H web1 it-s …",
    )
    assert refused(session.host_of, "web9", resolved(STAGES, "live")) == (
        "web9 is in no stage, and the chosen one is live",
        "choose none: fab -H web9 …\nor list it in fabric.yaml: fabdjango: stages: {live: {hosts: {web9: {}}}}",
    )


def test_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal a stage that wants to be asked for needs --yes; others need nothing."""
    monkeypatch.setattr("sys.stdin", open("/dev/null", encoding="ascii"))  # noqa: SIM115, PTH123
    session.confirmed(resolved(STAGES), False, "Deploy to")
    session.confirmed(resolved(STAGES, "live"), True, "Deploy to")
    assert refused(session.confirmed, resolved(STAGES, "live"), False, "Deploy to") == (
        "the stage live wants a word before it is touched, and there is no terminal to ask on",
        "say it: --yes",
    )


# --- the connection ----------------------------------------------------------


def config(ssh_config: str = "", **more: Any) -> Config:
    """Fabric's configuration with the text of an ssh_config."""
    made = Config(lazy=True, overrides=more)
    made.base_ssh_config.parse(ssh_config.splitlines())
    made.merge()
    return made


def parts(connection: Connection) -> tuple[str, str, int, list[str]]:
    """How it would log in."""
    return connection.host, connection.user, connection.port, connection.connect_kwargs["key_filename"]


def test_a_connection_has_what_the_host_has() -> None:
    """The chain of jump hosts in the order of ssh -J: the first is the one that is logged in to from here."""
    wanted = host("web1", address="192.0.2.1", user="deploy", port=2222, key=("/it's a key",), jump="a@x:22,b@y:2022")
    made = connection_to(wanted, config())
    assert parts(made) == ("192.0.2.1", "deploy", 2222, ["/it's a key"])
    assert parts(made.gateway) == ("y", "b", 2022, ["/it's a key"])
    assert parts(made.gateway.gateway) == ("x", "a", 22, ["/it's a key"])
    assert made.gateway.gateway.gateway is None
    assert (made.original_host, name_of(made), target_of(made)) == ("web1", "web1", "web1")


def test_keys_do_not_pile_up() -> None:
    """Fabric itself offers each host the keys of all hosts before it, and whoever logs in is locked out for trying."""
    ssh_config = "Host a\n IdentityFile /a\nHost b\n IdentityFile /it's b\n"
    shared = config(ssh_config, connect_kwargs={"key_filename": ["/i"]})
    given = [Connection(name, config=shared) for name in ("a", "b")]
    assert given[1].connect_kwargs["key_filename"] == ["/i", "/a", "/it's b"]
    assert [parts(connection_to(host(each.host), shared, each))[3] for each in given] == [
        ["/i", "/a"],
        ["/i", "/it's b"],
    ]
    assert parts(connection_to(host("c", key=("/c",)), shared))[3] == ["/i", "/c"]


def test_ssh_config_fills_in_what_is_not_said() -> None:
    """Its entry of the host's name, or else that of the address."""
    shared = config("Host web1\n HostName 192.0.2.1\n Port 2222\n User ada\nHost 192.0.2.2\n User eve\n ProxyJump it\n")
    assert parts(connection_to(host("web1"), shared)) == ("192.0.2.1", "ada", 2222, [])
    assert parts(connection_to(host("web1", address="192.0.2.7", user="bob"), shared)) == ("192.0.2.7", "bob", 2222, [])
    made = connection_to(host("web2", address="192.0.2.2"), shared)
    assert (parts(made), made.gateway.host) == (("192.0.2.2", "eve", 22, []), "it")
    assert connection_to(host("web2", address="192.0.2.2", jump="none"), shared).gateway is False


def test_what_is_asked_for_by_hand_wins() -> None:
    """User and port of -H; and the words that other messages give to type have them too."""
    shared = config("Host web1\n User ada\n")
    wanted = host("web1", address="192.0.2.1", user="deploy", port=2222, stage="live")
    by_hand = connection_to(wanted, shared, Connection("eve@web1:2200", config=shared))
    assert (parts(by_hand), target_of(by_hand)) == (("192.0.2.1", "eve", 2200, []), "eve@web1:2200 live")
    by_name = connection_to(wanted, shared, Connection("web1", config=shared))
    assert (parts(by_name), target_of(by_name)) == (("192.0.2.1", "deploy", 2222, []), "web1 live")


def test_an_address_keeps_what_fabric_made_of_it() -> None:
    """A host that no inventory lists, and arguments of a caller from Python."""
    shared = config()
    arguments = {"key_filename": ["/it's a key"], "allow_agent": False}
    own = Connection("ada@192.0.2.9:2222", config=shared, connect_kwargs=arguments, gateway=Connection("gate"))
    made = connection_to(literal("192.0.2.9", Ssh()), shared, own)
    assert (parts(made), made.gateway.host) == (("192.0.2.9", "ada", 2222, ["/it's a key"]), "gate")
    assert made.connect_kwargs["allow_agent"] is False
    assert target_of(made) == "ada@192.0.2.9:2222"


def test_duplicates_are_found_without_settings() -> None:
    """The one rule that hosts_of has."""
    assert hosts_of([], "live") == ()
