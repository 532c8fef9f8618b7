"""What other tools know of hosts, as entries of fabric.yaml: Ansible's inventories, and ssh_config."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabdjango.exceptions import ConfigError
from fabdjango.inventory_files import InventoryFile, files_of, merged, read_inventory, twice

INI = """\
# before any group
lonely:2222 ansible_user=ada   # it's alone
[web]
web[01:03].example.com ansible_host="192.0.2.1" other='it is'
[2001:db8::1]:2200

[db]
db-[a:b] ansible_ssh_common_args='-C -o ProxyJump=ada@bastion:2200,inner'
web01.example.com

[all:vars]
ansible_user = root
ansible_port = 22

[site:children]
web
db

[site:vars]
ansible_user=deploy
ansible_ssh_private_key_file=~/it's a key

[db:vars]
ansible_user=postgres
"""
YAML = """\
all:
  vars: {ansible_user: root}
  children:
    site:
      vars: {ansible_user: deploy, ansible_ssh_private_key_file: "~/it's a key"}
      children:
        web:
          hosts:
            web[1:2]: {ansible_host: 192.0.2.1, ansible_port: 2222}
            local: {ansible_connection: local}
        db:
          hosts:
            db1:
              ansible_password: !vault |
                $ANSIBLE_VAULT;1.1;AES256
                6233
              ansible_ssh_common_args: -o ProxyCommand="ssh -W %h:%p -q -p 2200 ada@bastion"
"""
SSH_CONFIG = """\
Host blog-2
    HostName 192.0.2.2
    ProxyJump ada@bastion:2200
Host blog-1 other
    Port 2222
    IdentityFile /it's a key
Host !not * blog-?
    User deploy
"""


def read(text: str, path: str = "it's hosts.ini", only: str = "", kind: str = "ansible") -> dict[str, dict[str, Any]]:
    """The entries of a file with this text."""
    return read_inventory(InventoryFile(kind, path, only), textwrap.dedent(text))


def refused(text: str, *arguments: str, **more: str) -> tuple[str, str]:
    """Message and cure of the ConfigError for this text."""
    with pytest.raises(ConfigError) as caught:
        read(text, *arguments, **more)
    return caught.value.message, caught.value.cure


# --- Ansible -----------------------------------------------------------------


def test_ini() -> None:
    """Groups are roles, those above too; of two groups the nearer one wins, and the host over all."""
    key = {"key": ["~/it's a key"]}
    web = {"address": "192.0.2.1", "port": "22", "user": "deploy", **key}
    db = {"port": "22", "user": "postgres", **key, "jump": "ada@bastion:2200,inner"}
    assert read(INI) == {
        "lonely": {"roles": [], "ssh": {"port": "2222", "user": "ada"}},
        "web01.example.com": {"roles": ["db", "site", "web"], "ssh": {**web, "user": "postgres"}},
        "web02.example.com": {"roles": ["site", "web"], "ssh": web},
        "web03.example.com": {"roles": ["site", "web"], "ssh": web},
        "2001:db8::1": {"roles": ["site", "web"], "ssh": {"port": "2200", "user": "deploy", **key}},
        "db-a": {"roles": ["db", "site"], "ssh": db},
        "db-b": {"roles": ["db", "site"], "ssh": db},
    }


def test_yaml() -> None:
    """The same in the other form; a secret that nobody asks for does no harm, and this machine is no host to log in to."""
    key = {"key": ["~/it's a key"]}
    web = {"roles": ["site", "web"], "ssh": {"address": "192.0.2.1", "port": "2222", "user": "deploy", **key}}
    assert read(YAML, "hosts.yml") == {
        "web1": web,
        "web2": web,
        "db1": {"roles": ["db", "site"], "ssh": {"user": "deploy", **key, "jump": "ada@bastion:2200"}},
    }


def test_one_group() -> None:
    """With the groups below it."""
    assert list(read(INI, only="db")) == ["web01.example.com", "db-a", "db-b"]
    assert len(read(INI, only="site")) == 6
    assert len(read(INI, only="all")) == 7
    assert refused(INI, only="wbe") == ("the inventory it's hosts.ini has no group wbe", "did you mean web?")
    assert refused("[a]\nx\n", only="it's") == ("the inventory it's hosts.ini has no group it's", "its groups are: a")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web[8:10]", ["web8", "web9", "web10"]),
        ("web[08:10].it", ["web08.it", "web09.it", "web10.it"]),
        ("web[1:5:2]", ["web1", "web3", "web5"]),
        ("[a:b][1:2]", ["a1", "a2", "b1", "b2"]),
    ],
)
def test_ranges(pattern: str, names: list[str]) -> None:
    """As Ansible counts."""
    assert list(read(pattern)) == names


@pytest.mark.parametrize(
    ("text", "message", "cure"),
    [
        (
            "#!/usr/bin/env python3\n",
            "the inventory it's hosts.ini is a program; only inventories that are text can be read",
            "save what it lists: ansible-inventory --list --yaml --output FILE",
        ),
        (
            "$ANSIBLE_VAULT;1.1;AES256\n6233\n",
            "the inventory it's hosts.ini is encrypted by ansible-vault",
            "keep secrets in a file of their own, and the hosts in plain text",
        ),
        (
            "[web:children]\nit's\n",
            "the inventory it's hosts.ini line 2 names a group that it does not have: it's",
            "write its section: [it's]",
        ),
        (
            "[web]\na\n[wbe:vars]\nx=1\n",
            "the inventory it's hosts.ini line 3 names a group that it does not have: wbe",
            "did you mean web?",
        ),
        (
            "[a:children]\nb\n[b:children]\na\n",
            "the inventory it's hosts.ini has the group a below itself",
            "take it out of the children of one of its own",
        ),
        (
            "[web:host]\n",
            "the inventory it's hosts.ini line 1 has a section that Ansible does not know: [web:host]",
            "it takes [name], [name:children] and [name:vars]",
        ),
        (
            "[web]\na b=it's\n",
            "the inventory it's hosts.ini line 2 cannot be read: No closing quotation",
            "close its quotes",
        ),
        (
            "a b\n",
            "the inventory it's hosts.ini line 1 has a word that is no variable: b",
            "write variables as name=value, one host a line",
        ),
        (
            "[web:vars]\nit's\n",
            "the inventory it's hosts.ini line 2 has a variable without a value: it's",
            "write it as name=value",
        ),
        (
            "web[3:1]\n",
            "the inventory it's hosts.ini line 1 has a range that counts nothing: [3:1]",
            "write it as [01:50], [1:9:2] or [a:f]",
        ),
        (
            "[a]\nx ansible_user=ada\n[b]\nx ansible_user=eve\n",
            "duplicate hosts: x has two values of ansible_user, ada and eve (in it's hosts.ini)",
            "take one of them away, or give the other host its own name",
        ),
        (
            "x ansible_host='{{ it }}'\n",
            "the inventory it's hosts.ini has a template as ansible_host of x: {{ it }}",
            "write what it stands for, there or in fabric.yaml under hosts:",
        ),
        (
            "x ansible_connection=docker\n",
            "the inventory it's hosts.ini reaches x by docker, not by ssh",
            "take a group without it: inventory: {ansible: FILE, group: NAME}",
        ),
        (
            "x ansible_ssh_common_args='-o ProxyCommand=\"nc %h %p\"'\n",
            "the inventory it's hosts.ini reaches x by a ProxyCommand: nc %h %p",
            "write it as a ProxyJump: ansible_ssh_common_args='-J bastion'",
        ),
        (
            "Host web1\n  HostName 192.0.2.1\n",
            "the inventory it's hosts.ini line 1 looks like ssh_config",
            "write it as inventory: {ssh_config: it's hosts.ini}",
        ),
    ],
)
def test_ini_that_is_refused(text: str, message: str, cure: str) -> None:
    """With the line, and what to do."""
    assert refused(text) == (message, cure)


@pytest.mark.parametrize(
    ("text", "message", "cure"),
    [
        (
            "all: [it's",
            "the inventory hosts.yaml line 1 is not YAML: expected ',' or ']', but got '<stream end>'",
            "correct it there",
        ),
        (
            "plugin: it's\n",
            "the inventory hosts.yaml asks the inventory plugin it's",
            "save what it lists: ansible-inventory --list --yaml --output FILE",
        ),
        (
            "web: {host: {a: }}\n",
            "the inventory hosts.yaml has a key in the group web that Ansible does not know: host",
            "a group has hosts, children and vars",
        ),
        (
            "web: {hosts: [it's]}\n",
            "the inventory hosts.yaml has no mapping as web.hosts",
            "see how Ansible writes an inventory in YAML",
        ),
        (
            "web: {hosts: {a: {ansible_host: !vault x}}}\n",
            "the inventory hosts.yaml has no plain text as ansible_host of a",
            "write it in plain text, or in fabric.yaml under hosts:",
        ),
    ],
)
def test_yaml_that_is_refused(text: str, message: str, cure: str) -> None:
    """The same for the other form."""
    assert refused(text, "hosts.yaml") == (message, cure)


@given(st.text(alphabet="ab[]:=,;#'\"\\ \n-J{}$!\t0129é", max_size=60), st.sampled_from(["a.ini", "a.yml"]))
def test_any_text_is_read_or_refused_in_words(text: str, path: str) -> None:
    """Never a traceback."""
    try:
        read_inventory(InventoryFile("ansible", path), text)
    except ConfigError as error:
        assert error.cure  # noqa: PT017 - it need not be raised


# --- ssh_config --------------------------------------------------------------


def test_ssh_config() -> None:
    """The hosts that have a name of their own, in their order, with what patterns add."""
    assert read(SSH_CONFIG, kind="ssh_config") == {
        "blog-2": {"roles": [], "ssh": {"address": "192.0.2.2", "user": "deploy", "jump": "ada@bastion:2200"}},
        "blog-1": {"roles": [], "ssh": {"user": "deploy", "port": "2222", "key": ["/it's a key"]}},
        "other": {"roles": [], "ssh": {"user": "deploy", "port": "2222", "key": ["/it's a key"]}},
    }


def test_a_pattern_of_names() -> None:
    """As a shell takes it."""
    assert list(read(SSH_CONFIG, only="blog-*", kind="ssh_config")) == ["blog-2", "blog-1"]
    assert refused(SSH_CONFIG, only="it's*", kind="ssh_config") == (
        "the inventory it's hosts.ini has no host like it's*",
        "its hosts are: blog-2, blog-1, other",
    )


def test_what_is_no_ssh_config() -> None:
    """paramiko says which line."""
    message, cure = refused("[web]\n", kind="ssh_config")
    assert message == "the inventory it's hosts.ini is not ssh_config: Unparsable line [web]"
    assert cure == "see whether ssh itself can read it: ssh -F FILE -G HOST"


# --- several -----------------------------------------------------------------


def test_the_forms_of_the_key() -> None:
    """A path is Ansible's; a list has several."""
    assert files_of(None, "inventory", "fabric.yaml") == ()
    assert files_of("it's", "inventory", "fabric.yaml") == (InventoryFile("ansible", "it's"),)
    both = [{"ansible": "a", "group": "web"}, {"ssh_config": "b", "match": "blog-*"}]
    assert files_of(both, "inventory", "fabric.yaml") == (
        InventoryFile("ansible", "a", "web"),
        InventoryFile("ssh_config", "b", "blog-*"),
    )


def test_several_files() -> None:
    """They add to each other, and the caller's own entries stay as they were."""
    one, two = {"a": {"roles": ["x"], "ssh": {"user": "it's"}}}, {"a": {"roles": ["y"], "ssh": {"port": "22"}}}
    found = merged([(InventoryFile("ansible", "one"), one), (InventoryFile("ansible", "two"), two)])
    assert found == {"a": {"roles": ["x", "y"], "ssh": {"user": "it's", "port": "22"}, "from": "one, two"}}
    assert one == {"a": {"roles": ["x"], "ssh": {"user": "it's"}}}


def test_a_key_that_stands_twice() -> None:
    """YAML's readers take the last one, and are silent. What is not ours is nobody's business here."""
    text = """
        fabdjango:
          hosts:
            it's: {}
            b: {}
            it's: {roles: [x]}
          stages: {a: {branch: x, branch: y}}
          gunicorn: &one {workers: 1}
          systemd: {<<: *one, <<: *one}
        other: {a: 1, a: 2}
    """
    assert list(twice(textwrap.dedent(text), "fabdjango")) == [("hosts.it's", 4, 6), ("stages.a.branch", 7, 7)]
    assert twice("a: [", "fabdjango") == ()
    assert twice("fabdjango: &a {b: *a}", "fabdjango") == ()
