"""nginx: what stands in the site's file, what is refused, and what a change of it runs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabdjango.commands import nginx
from fabdjango.commands.nginx import Webserver
from fabdjango.exceptions import ConfigError, FabdjangoError, RefusedValueError
from fabdjango.layout import Layout
from fabdjango.plan import ROOT, Put
from fabdjango.settings import Settings
from tests.conftest import LAYOUT, sample_settings, sample_templates, shell, shown

TLS = {"tls": "files", "certificate": "/etc/it's.pem", "certificate_key": "/etc/it's.key"}
FOUND = Webserver(
    root=str(LAYOUT.root),
    program="/usr/sbin/nginx",
    version="1.22.1",
    user="www-data",
    folder="/etc/nginx/sites-enabled",
    file_path="/etc/nginx/sites-available/blog.conf",
    link_path="/etc/nginx/sites-enabled/blog.conf",
    active=True,
)


def found(**more: Any) -> Webserver:
    """A host with nginx, and the site's file unless said otherwise."""
    return Webserver(**{**vars(FOUND), **more})


def settings(values: dict[str, Any] | None = None, **more: Any) -> Settings:
    """A site with a domain; ``values`` are those of fabdjango.nginx."""
    return sample_settings(nginx={"domains": ["blog.example.com"], **(values or {})}, **more)


def file_of(values: dict[str, Any] | None = None, server: Webserver = FOUND, **more: Any) -> str:
    """The text of the site's file."""
    return nginx.site_file(settings(values, **more), LAYOUT, sample_templates(), server).content


def lines(text: str, *names: str) -> list[str]:
    """The directives called so, in their order."""
    return [line.strip() for line in text.splitlines() if line.split()[:1] and line.split()[0] in names]


# --- the file ----------------------------------------------------------------


def test_the_file_names_its_own_digest() -> None:
    """Another text has another one, and the running server answers with it."""
    put = nginx.site_file(settings(), LAYOUT, sample_templates(), FOUND)
    digest = nginx.digest_in(put.content)
    assert put == Put(PurePosixPath("/etc/nginx/sites-available/blog.conf"), put.content)
    assert hashlib.sha256(put.content.replace(digest, "0" * 64).encode()).hexdigest() == digest
    assert put.content.startswith(
        f"# Managed by fabdjango; local edits are overwritten.\n# fabdjango site blog in /srv/it's here, digest {digest}\n"
    )
    assert f'return 200 "{digest}\\n";' in put.content
    assert nginx.digest_in(file_of({"max_body": "1k"})) not in ("", digest)


@pytest.mark.parametrize(
    ("bind", "upstream"),
    [
        ("", '"unix:/srv/it\'s here/run/current.sock"'),
        ("unix:{run}/web.sock", '"unix:/srv/it\'s here/run/web.sock"'),
        ("127.0.0.1:8001", '"127.0.0.1:8001"'),
        ("0.0.0.0:8001", '"127.0.0.1:8001"'),
        (":8001", '"127.0.0.1:8001"'),
        ("[::]:8001", '"[::1]:8001"'),
    ],
)
def test_where_gunicorn_is_asked(bind: str, upstream: str) -> None:
    """The live socket, or what gunicorn.bind says; an address for all interfaces is reached over loopback."""
    text = file_of(gunicorn={"bind": bind})
    # Twice the same, so that a broken connection is tried again.
    assert lines(text, "server")[:2] == [f"server {upstream} max_fails=0;"] * 2
    assert "keepalive" not in re.sub("#.*", "", text)


def test_listeners() -> None:
    """HTTP/2 in the form that old and new versions take; no IPv6 on a host that has none."""
    assert lines(file_of(), "listen") == ["listen 80;", "listen [::]:80;"]
    assert lines(file_of(TLS), "listen") == [
        "listen 80;",
        "listen [::]:80;",
        "listen 443 ssl http2;",
        "listen [::]:443 ssl http2;",
    ]
    assert lines(file_of(TLS, found(ipv6=False)), "listen") == ["listen 80;", "listen 443 ssl http2;"]
    assert lines(file_of(TLS), "ssl_certificate", "ssl_certificate_key") == [
        'ssl_certificate "/etc/it\'s.pem";',
        'ssl_certificate_key "/etc/it\'s.key";',
    ]


@pytest.mark.parametrize(
    ("values", "sent"),
    [
        ({}, False),
        ({"hsts": 300}, False),
        (TLS, False),
        ({**TLS, "hsts": 300}, True),
        ({"tls": "self-signed", "hsts": 300}, True),
        ({"tls": "letsencrypt", "hsts": 300}, True),
    ],
)
def test_hsts_only_where_there_is_tls(values: dict[str, Any], *, sent: bool) -> None:
    """And only if it is asked for: it cannot be taken back."""
    assert ("max-age=300" in file_of(values).replace("public, max-age=300", "")) is sent


def test_what_can_be_left_out() -> None:
    """Static and media files to Django, compression to nobody, and websockets where the application is WSGI."""
    text = file_of({"static_url": "", "media_url": "", "gzip": False, "frame_options": "none"})
    assert [line for line in lines(text, "location") if "fabdjango" not in line] == [
        "location / {",
        'location ~ "(^|/)\\.(?!well-known/)" {',
        "location ^~ /.well-known/acme-challenge/ {",
    ]
    assert lines(text, "gzip") == ["gzip off;"]
    assert "$http_upgrade" not in text
    assert "$http_upgrade" in file_of(gunicorn={"interface": "asgi"})


def test_what_no_visitor_gets_of_the_uploads() -> None:
    """Folders of invoices, for instance, which the application hands out itself; without uploads there is nothing to keep."""
    private = {"media_url": "/files/", "media_private": ["invoices", "~tmp/cached.d/"]}
    text = file_of(private)
    assert [line for line in lines(text, "location") if "files" in line] == [
        'location ^~ "/files/invoices/" {',
        'location ^~ "/files/~tmp/cached.d/" {',
        "location /files/ {",
    ]
    assert '    location ^~ "/files/invoices/" {\n        return 404;\n    }\n' in text
    assert "invoices" not in file_of({**private, "media_url": ""})


def test_two_sites_share_no_name() -> None:
    """Upstreams and variables belong to all of nginx."""
    names = [
        set(
            re.findall(
                r"fabdjango_\w+", nginx.site_file(settings(project=name), LAYOUT, sample_templates(), FOUND).content
            )
        )
        for name in ("a-b", "a_b", "a", "a_cache")
    ]
    assert sum(len(each) for each in names) == len(set().union(*names))


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed here; tests/hosts asks it too")
@pytest.mark.parametrize(
    "values",
    [{"media_private": ["a~b"]}, {"static_url": "", "media_url": "", "gzip": False}, {**TLS, "hsts": 300}],
)
def test_nginx_takes_it(tmp_path: Path, values: dict[str, Any]) -> None:
    """The whole file, read by nginx itself."""
    certificate = tmp_path / "it's.pem"
    words = ("-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=blog", "-keyout", certificate, "-out", certificate)
    subprocess.run(["openssl", "req", *words], check=True, capture_output=True)
    key = tmp_path / "key.pem"
    shutil.copy(certificate, key)
    own = {"certificate": str(certificate), "certificate_key": str(key)} if values.get("tls") else {}
    text = file_of({**values, **own}, gunicorn={"interface": "asgi"}).replace("/var/log/nginx", str(tmp_path))
    (tmp_path / "site.conf").write_text(text)
    main = f"error_log {tmp_path}/e; pid {tmp_path}/p; events {{}}\nhttp {{ access_log off; include site.conf; }}\n"
    (tmp_path / "nginx.conf").write_text(main)
    done = subprocess.run(
        ["nginx", "-t", "-q", "-c", tmp_path / "nginx.conf"], capture_output=True, text=True, check=False
    )
    # nginx 1.25 and later warn of the one way to ask for HTTP/2 that those before it know.
    complaints = [line for line in done.stderr.splitlines() if "[warn]" not in line]
    assert (done.returncode, complaints) == (0, [])


# --- what is refused ---------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"domains": []}, "fabdjango.nginx.domains is empty"),
        ({"domains": ["_"]}, "'_' is not a host name"),
        ({"tls": "files"}, "no certificate is named"),
        ({"tls": "letsencrypt", "domains": ["*.example.com"]}, r"no certificate for \*\.example\.com over http"),
        ({"media_url": "/static/"}, "are both /static/"),
        ({"media": "../it's"}, "must be a folder of uploaded files"),
        ({"media": "/"}, "must be a folder of uploaded files"),
        ({"media": "/srv/$host"}, r"holds a \$"),
    ],
)
def test_settings_that_nginx_could_not_serve(values: dict[str, Any], message: str) -> None:
    """Said before a host is asked, or at the latest before its files are touched."""
    with pytest.raises(ConfigError, match=message):
        file_of(values)


@pytest.mark.parametrize("url", ["static", "/static", "/", "/a b/", "/a;b/", "/../", "/.fabdjango/", "/$x/", "/a//b/"])
def test_addresses_that_are_refused(url: str) -> None:
    """Whole folders without anything that a location could read in another way."""
    with pytest.raises(ConfigError, match=r"fabdjango\.nginx\.static_url"):
        settings({"static_url": url})


def test_a_root_with_a_dollar_is_refused() -> None:
    """nginx has no way to write it."""
    with pytest.raises(RefusedValueError, match=r"holds a \$"):
        nginx.site_file(settings(), Layout(PurePosixPath("/srv/it's $here"), "blog"), sample_templates(), FOUND)


def test_a_template_of_the_projects_own_must_name_the_digest(tmp_path: Path) -> None:
    """Without it nobody could tell whether nginx runs with the file."""
    (tmp_path / "templates/nginx").mkdir(parents=True)
    (tmp_path / "templates/nginx/site.conf.j2").write_text("server { server_name {{ domains }}; }\n")
    with pytest.raises(ConfigError, match=r"nginx/site\.conf\.j2 of the project does not say"):
        nginx.site_file(settings(), LAYOUT, sample_templates(tmp_path), FOUND)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"program": ""}, "nginx is not installed on the host"),
        ({"folder": ""}, "nginx includes neither /etc/nginx/sites-enabled nor /etc/nginx/conf.d"),
        (
            {"text": "# it's mine\n"},
            "/etc/nginx/sites-available/blog.conf was not written by fabdjango, and is left alone",
        ),
        ({"link": "other"}, "/etc/nginx/sites-enabled/blog.conf was not written by fabdjango, and is left alone"),
        (
            {"text": file_of().replace("in /srv/it's here", "in /srv/it's elsewhere")},
            "/etc/nginx/sites-available/blog.conf belongs to another site, in /srv/it's elsewhere",
        ),
    ],
)
def test_what_is_not_ours(more: dict[str, Any], message: str) -> None:
    """Nothing of others is overwritten."""
    with pytest.raises(FabdjangoError) as caught:
        nginx.refuse_foreign(settings(), LAYOUT, found(**more))
    assert caught.value.message == message
    assert caught.value.cure


def test_a_folder_that_nginx_may_not_enter() -> None:
    """The cure can be copied, also where the folder has a space and a quote in it."""
    nginx.refuse_unreachable(FOUND)
    with pytest.raises(
        FabdjangoError, match="nginx runs as www-data, which may not pass through /home/it's ada"
    ) as caught:
        nginx.refuse_unreachable(found(blocked=("/home/it's ada",)))
    assert caught.value.cure.splitlines()[0] == """on the host: chmod o+x '/home/it'"'"'s ada'"""


# --- steps -------------------------------------------------------------------


def test_a_change_and_its_way_back() -> None:
    """The link is replaced by a rename, under a name that nginx does not include."""
    put = Put(FOUND.place.file, "new\n")
    steps = (
        nginx.write(put, FOUND.place),
        nginx.check(FOUND),
        nginx.restore(FOUND),
        nginx.reload_back(found(active=False)),
    )
    assert shown(*steps) == shell("""
        # nginx-write (as root): write /etc/nginx/sites-available/blog.conf
        replace /etc/nginx/sites-available/blog.conf 644 <<'EOF'
        (4 bytes)
        EOF
        [ "$changed_files" ] || [ ! /etc/nginx/sites-enabled/blog.conf -ef /etc/nginx/sites-available/blog.conf ] || unchanged "as before"
        rm -f -- /etc/nginx/sites-enabled/.fabdjango.blog.conf
        ln -s -- /etc/nginx/sites-available/blog.conf /etc/nginx/sites-enabled/.fabdjango.blog.conf
        mv -fT -- /etc/nginx/sites-enabled/.fabdjango.blog.conf /etc/nginx/sites-enabled/blog.conf
        # nginx-check (as root): nginx -t
        nginx -t -q
        # nginx-write-back (as root): no file of the site, as before
        rm -f -- /etc/nginx/sites-enabled/blog.conf
        rm -f -- /etc/nginx/sites-available/blog.conf
        # nginx-reload-back (as root): nginx runs as before
        nginx -t -q || { note 'nginx was not reloaded: it does not take its files without ours either'; exit 0; }
        if [ -d /run/systemd/system ] && systemctl cat nginx.service >/dev/null 2>&1; then
          systemctl stop nginx.service
        else
          nginx -s stop
        fi 2>/dev/null || :
    """)


def test_the_old_file_comes_back_with_its_link() -> None:
    """Only if it had one."""
    old = file_of()
    for link, last in (("ours", "mv"), ("", "rm")):
        step = nginx.restore(found(text=old, link=link))
        assert (step.user, step.puts) == (ROOT, (Put(FOUND.place.file, old),))
        assert str(step.body).splitlines()[-1].split()[0] == last


def test_files_that_were_broken_before() -> None:
    """Whoever reads the failure learns that it is not this change's."""
    assert nginx.check(FOUND).cure == ""
    assert (
        nginx.check(found(test="it's broken")).cure
        == "nginx did not take its files before this either: mend those first"
    )


def test_who_is_asked_for_the_proof() -> None:
    """Loopback, by the first domain; below a wildcard any name is the site's."""
    proof = nginx.prove(settings({**TLS, "domains": ["*.example.com"]}), file_of())
    digest = nginx.digest_in(file_of())
    asked = {name: proof.parameters[name] for name in ("https", "host", "path", "status", "body", "gone")}
    assert asked == {
        "https": True,
        "host": "fabdjango.example.com",
        "path": "/.fabdjango/nginx",
        "status": 200,
        "body": f"{digest}\n",
        "gone": False,
    }


def test_the_certificate_that_a_file_names() -> None:
    """The proof wants it presented, if it is the only one; what nginx had to read is read back."""
    path = r"""/etc/it's "a\b".pem"""
    text = file_of({**TLS, "certificate": path})
    used = (PurePosixPath(path), PurePosixPath("/etc/it's.key"))
    assert nginx.certificate_in(text) == used
    assert nginx.prove(settings(TLS), text).parameters["certificate"] == str(used[0])
    for none in (file_of(), text + text):
        assert nginx.certificate_in(none) is None
        assert nginx.prove(settings(TLS), none).parameters["certificate"] == ""


@given(path=st.from_regex(r"/[^\s/][^\n/]{0,20}[^\s/]", fullmatch=True))
def test_any_path_that_a_file_can_name(path: str) -> None:
    """Whatever nginx's quoting does to it."""
    try:
        text = file_of({**TLS, "certificate": path})
    except ConfigError:
        return
    assert nginx.certificate_in(text) == (PurePosixPath(path), PurePosixPath("/etc/it's.key"))


def test_answers_that_are_read() -> None:
    """What a project or a login prints before them does not matter."""
    assert nginx.read_look('hello\n{"root": "/srv/it\'s", "blocked": ["/home"], "new": 1}\n') == Webserver(
        root="/srv/it's", blocked=("/home",)
    )
    digest = "0a" * 32
    assert nginx.digest_of(json.dumps({"status": 200, "body": f"{digest}\n"})) == digest
    assert nginx.digest_of(json.dumps({"status": 404, "body": f"{digest}\n"})) == ""
    assert nginx.digest_of(json.dumps({"status": 200, "body": "it's another"})) == ""
    with pytest.raises(FabdjangoError, match="did not give an answer"):
        nginx.read_look("it's broken")


def test_what_status_says() -> None:
    """Whether nginx runs, and whether it runs with the site's file."""
    text = file_of()
    enabled = found(text=text, link="ours", maintenance=True, test="it's broken")
    assert nginx.status_lines(Webserver(), "") == ["nginx is not installed"]
    assert nginx.status_lines(enabled, nginx.digest_in(text)) == [
        "nginx 1.22.1 runs, its workers as www-data",
        "/etc/nginx/sites-available/blog.conf is enabled, and served",
        "maintenance is on: visitors get 503",
        "nginx -t complains:\nit's broken",
    ]
    assert nginx.status_lines(enabled, "")[1].endswith(
        "is enabled, but the running nginx does not serve it: nginx.reload"
    )
    assert nginx.status_lines(found(text=text), "")[1].endswith("is not enabled")
    assert nginx.status_lines(FOUND, "")[1] == "the site has no file there: fab … nginx.configure"


def test_logs() -> None:
    """One of two, and never a file that the command line names."""
    assert shown(nginx.logs(settings(), "access", 5)) == shell("""
        # logs (as root): access log of nginx
        tail -n 5 -- /var/log/nginx/blog.access.log
    """)
    with pytest.raises(ConfigError, match="nginx has no log 'other' of the site"):
        nginx.logs(settings(), "other", 5)
