"""nginx on a real host: what it serves, what it refuses, and that no change of its files leaves it half-done."""

from __future__ import annotations

import contextlib
import http.client
import json
import shlex
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fabdjango.escape import nginx_value
from tests import machines
from tests.hosts.workplace import Outcome, Workplace, wait_for
from tests.machines import Machine

CHECKOUT = Path(__file__).parents[2]
ROOT = "/srv/the blog"
DOMAIN = "blog.example.com"
STRANGE = ["it's", 'a "b"', "a\\b", "a\\", "\\\\n", "{;}#", "ü ☃", "a=b: c %20 ~*"]
FABFILE = """\
from invoke import Collection
from fabdjango.namespaces import maintenance, nginx, tls

ns = Collection()
for name, module in {"nginx": nginx, "maintenance": maintenance, "tls": tls}.items():
    made = Collection(name)
    for task in module.__all__:
        made.add_task(getattr(module, task), name=task)
    ns.add_collection(made)
"""
APPLICATION = '''\
"""Tells every request what arrived of it."""
import json, os, socketserver, sys
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/flaky"):
            Handler.asked += 1
            if Handler.asked % 2:
                self.close_connection = True
                return
        body = json.dumps(self.headers.items()).encode()
        self.send_response(200)
        if self.path.startswith("/own"):
            self.send_header("X-Frame-Options", "DENY")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def address_string(self):
        return "nginx"

class Server(socketserver.ThreadingUnixStreamServer):
    def server_bind(self):
        super().server_bind()
        os.chmod(self.server_address, 0o777)

Server(sys.argv[1], Handler).serve_forever()
'''


@dataclass
class Answer:
    """What came back of a request."""

    status: int
    headers: http.client.HTTPMessage
    body: str


@dataclass
class Site:
    """One host with nginx, a small application behind it, and the operator's folder."""

    machine: Machine
    workplace: Workplace

    def fab(self, *words: str) -> Outcome:
        """Run a task on the host as deploy, who may sudo."""
        return self.workplace.fab("-H", f"deploy@{self.machine.address}", "-i", self.machine.key, *words)

    def configure(self, **settings: Any) -> None:
        """Say what fabric.yaml has; a site below a root with a space unless said otherwise."""
        nginx = {"domains": [DOMAIN, "*.blog.example.com"], "max_body": "1k", **settings.pop("nginx", {})}
        given = {"project": "blog", "repository": "/nowhere", "root": ROOT, "nginx": nginx, **settings}
        self.workplace.configure(**given)

    def ask(
        self, path: str, host: str = DOMAIN, *, method: str = "GET", body: str = "", https: bool = False, **headers: str
    ) -> Answer:
        """Ask nginx from outside; an underscore in the name of a header is a hyphen."""
        link = http.client.HTTPConnection(self.machine.address, 443 if https else 80, timeout=10)
        if https:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            link.sock = context.wrap_socket(
                socket.create_connection((self.machine.address, 443), 10), server_hostname=host
            )
        with contextlib.closing(link):
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            link.request(method, path, body=body or None, headers={"Host": host, **sent})
            reply = link.getresponse()
            return Answer(reply.status, reply.headers, reply.read().decode(errors="replace"))

    def arrived(self, path: str, **more: Any) -> dict[str, str]:
        """The headers that reach the application, in small letters; one that comes twice is a failure."""
        pairs = [(name.lower(), value) for name, value in json.loads(self.ask(path, **more).body)]
        assert len(pairs) == len(dict(pairs)), pairs
        return dict(pairs)

    def write(self, path: str, text: str) -> None:
        """A file below the root that belongs to deploy."""
        self.machine.write(f"{ROOT}/{path}", text)
        self.machine.run(f"chown -R deploy: {shlex.quote(ROOT)}")

    def state(self) -> str:
        """What is in nginx's folders, and which masters run."""
        return self.machine.run(
            "cd /etc/nginx; ls -lA --time-style=full-iso sites-available sites-enabled conf.d; cat sites-available/*; pgrep -o nginx"
        ).stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A Debian 12 host with nginx, somebody else's site in it, and the application on the socket of slot a."""
    workplace = Workplace(tmp_path_factory.mktemp("nginx") / "work")
    (workplace.folder / "fabfile.py").write_text(FABFILE)
    booted = machines.up(1, "bookworm", "prepared", "ngx")
    try:
        machine = booted[0]
        workplace.know(machine)
        machine.run("command -v nginx >/dev/null || { apt-get update -q && apt-get install -q -y nginx; }", timeout=300)
        machine.write(
            "/etc/nginx/sites-available/other",
            'server { listen 80; server_name other.example.com; location / { return 200 "other\\n"; } }\n',
        )
        machine.run(
            "ln -s ../sites-available/other /etc/nginx/sites-enabled/other; rm -f /etc/nginx/sites-enabled/default"
        )
        machine.write("/opt/application.py", APPLICATION)
        found = Site(machine, workplace)
        found.configure()
        found.fab("nginx.configure").ended()
        found.write("run/sockets/application.log", "")
        machine.run(
            f"cd {shlex.quote(ROOT)}/run && systemd-run -q -u application --uid=deploy python3 /opt/application.py {shlex.quote(ROOT)}/run/sockets/a.sock && ln -s sockets/a.sock current.sock"
        )
        assert wait_for(lambda: found.ask("/").status == 200, 10)
        yield found
    finally:
        machines.down(booted)


def test_a_second_configure_changes_nothing(site: Site) -> None:
    """Neither a file nor the master is another one, and the site of somebody else is served on."""
    site.configure()
    before = site.state()
    assert (
        site.fab("nginx.configure")
        .ended()
        .output.splitlines()[-1]
        .startswith("unchanged: nginx serves blog.example.com")
    )
    assert site.state() == before
    assert "sites-available/blog.conf is enabled, and served" in site.fab("nginx.status").ended().output
    assert site.ask("/", "other.example.com").body == "other\n"
    assert site.ask("/", "www.blog.example.com").status == 200


def test_what_a_client_says_of_itself_does_not_arrive(site: Site) -> None:
    """gunicorn and Django believe these headers."""
    spoofed = {
        "X_Forwarded_For": "6.6.6.6",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_Host": "evil.example.com",
        "X_Forwarded_Port": "443",
        "X_Forwarded_Ssl": "on",
        "X_Forwarded_Protocol": "ssl",
        "X_Real_IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X_Fabdjango_Probe": "1",
        "Proxy": "http://evil.example.com",
    }
    found = site.arrived("/", **spoofed, Cookie="a=b")
    operator = machines.GATEWAY
    assert {name: value for name, value in found.items() if name not in ("accept-encoding", "connection")} == {
        "host": DOMAIN,
        "cookie": "a=b",
        "x-real-ip": operator,
        "x-forwarded-for": operator,
        "x-forwarded-proto": "http",
        "x-forwarded-host": DOMAIN,
        "x-forwarded-port": "80",
    }
    assert found["connection"] == "close"


def test_security_headers_come_once(site: Site) -> None:
    """nginx adds what the application leaves out, also to its own errors, and its version stays its own."""
    names = ("X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy")
    plain, own, error = (site.ask(path).headers for path in ("/", "/own", "/static/none.css"))
    assert [plain.get_all(name) for name in names] == [["nosniff"], ["SAMEORIGIN"], ["same-origin"]]
    assert [own.get_all(name) for name in names] == [["nosniff"], ["DENY"], ["no-referrer"]]
    assert [error.get_all(name) for name in names] == [["nosniff"], ["SAMEORIGIN"], ["same-origin"]]
    assert plain["Server"] == "nginx"


def test_static_files_of_this_and_of_earlier_releases(site: Site) -> None:
    """First those of the release that serves, then the store; only a name with a hash is kept for long."""
    site.write("releases/1-aaaaaaaaaaaa/static root/css/a.0123456789ab.css", "current")
    site.write("releases/1-aaaaaaaaaaaa/static root/plain.css", "plain")
    site.write("releases/1-aaaaaaaaaaaa/.fabdjango/secret", "secret")
    site.write("shared/static/css/a.0123456789ab.css", "stored")
    site.write("shared/static/css/old.ba9876543210.css", "stored")
    site.write("shared/secret", "secret")
    site.machine.run(
        f"cd {shlex.quote(ROOT)} && ln -sfT releases/1-aaaaaaaaaaaa current && ln -sfT '../static root' current/.fabdjango/static"
        " && chmod 751 current/.fabdjango"
    )
    found = {
        path: site.ask(f"/static/{path}")
        for path in (
            "css/a.0123456789ab.css",
            "css/old.ba9876543210.css",
            "plain.css",
            "none.0123456789ab.css",
            "css",
            "css/",
        )
    }
    assert {path: (each.status, each.body if each.status == 200 else "", each.headers["Cache-Control"]) for path, each in found.items()} == {
        "css/a.0123456789ab.css": (200, "current", "public, max-age=31536000, immutable"),
        "css/old.ba9876543210.css": (200, "stored", "public, max-age=31536000, immutable"),
        "plain.css": (200, "plain", "public, max-age=300"),
        "none.0123456789ab.css": (404, "", None),
        "css": (404, "", None),
        "css/": (404, "", None),
    }  # fmt: skip
    assert found["plain.css"].headers["Content-Type"] == "text/css"
    assert site.ask("/static/plain.css", method="POST", body="x").status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret",
        "/static../secret",
        "/static/..%2fsecret",
        "/static/%2e%2e/secret",
        "/static/..%2f..%2f.fabdjango/secret",
        "/static/%2e%2e%2f.fabdjango/secret",
        "/static/x%00/../../secret",
        "/static//../.fabdjango/secret",
        "/media/../secret",
        "/media../secret",
        "/media/..%2fsecret",
        "/media/.hidden",
        "/static/.hidden",
        "/.git/config",
        "/a/.env",
        "/.fabdjango/maintenance",
        "/.fabdjango/nginx",
    ],
)
def test_nothing_beside_the_folders_is_served(site: Site, path: str) -> None:
    """No way around the ends of a location, no file whose name begins with a dot, and nothing of ours from outside."""
    site.write("shared/media/.hidden", "secret")
    site.write("shared/static/.hidden", "secret")
    found = site.ask(path)
    assert "secret" not in found.body
    # What is outside of both folders is the application's to answer.
    assert found.status in (400, 404) or json.loads(found.body)


def test_an_upload_never_runs_in_the_name_of_the_site(site: Site) -> None:
    """A picture is shown; a page, a script or a drawing with a script is a download without rights."""
    for name in ("a b.png", "page.html", "drawing.svg", "script.PHP", "no-extension", "x.pdf"):
        site.write(f"shared/media/{name}", "<script>")
    found = {
        name: site.ask(f"/media/{name.replace(' ', '%20')}")
        for name in ("a b.png", "page.html", "drawing.svg", "script.PHP", "no-extension", "x.pdf")
    }
    assert {each.status for each in found.values()} == {200}
    assert {each.headers["X-Content-Type-Options"] for each in found.values()} == {"nosniff"}
    shown = {name for name, each in found.items() if each.headers["Content-Disposition"] is None}
    assert shown == {"a b.png", "x.pdf"}
    for name in found.keys() - shown:
        headers = found[name].headers
        assert (headers["Content-Disposition"], headers["Content-Security-Policy"]) == (
            "attachment",
            "default-src 'none'; sandbox",
        ), name


def test_a_body_that_is_too_large(site: Site) -> None:
    """The application does not even see it."""
    assert site.ask("/", method="POST", body="x" * 1000).status == 200
    assert site.ask("/", method="POST", body="x" * 2000).status == 413


def test_pages_are_compressed(site: Site) -> None:
    """What is text, if the client takes it, and caches are told."""
    plain, packed = (site.ask("/", Accept_Encoding=each, X_Long="x" * 600).headers for each in ("identity", "gzip"))
    assert (plain["Content-Encoding"], plain["Vary"]) == (None, "Accept-Encoding")
    assert (packed["Content-Encoding"], packed["Vary"]) == ("gzip", "Accept-Encoding")


def test_what_met_a_slot_at_its_end_is_asked_once_more(site: Site) -> None:
    """A GET whose connection breaks; never a POST, which could do something twice."""
    assert site.ask("/flaky").status == 200
    assert site.ask("/flaky", method="POST", body="x").status == 502


def test_a_value_arrives_in_nginx_as_it_is(site: Site) -> None:
    """Quotes, braces, semicolons and backslashes, read by nginx itself."""
    locations = "".join(f"location = /{n} {{ return 200 {nginx_value(text)}; }}\n" for n, text in enumerate(STRANGE))
    path = "/etc/nginx/conf.d/strange.conf"
    site.machine.write(path, f"server {{ listen 80; server_name strange.example.com;\n{locations}}}\n")
    try:
        site.machine.run("nginx -t -q && systemctl reload nginx")

        def read() -> list[str]:
            return [site.ask(f"/{n}", "strange.example.com").body for n in range(len(STRANGE))]

        # For a moment after a reload, workers with the old configuration take connections too.
        wait_for(lambda: read() == STRANGE, 10)
        assert read() == STRANGE
    finally:
        site.machine.run(f"rm {path} && systemctl reload nginx")


def test_a_dry_run_writes_nothing(site: Site) -> None:
    """It looks, and shows what it would do."""
    site.configure(nginx={"max_body": "2k"})
    before = site.state()
    outcome = site.workplace.fab(
        "--dry", "-H", f"deploy@{site.machine.address}", "-i", site.machine.key, "nginx.configure"
    ).ended()
    assert "nginx -t -q" in outcome.output
    assert site.state() == before
    site.configure()


def test_maintenance(site: Site) -> None:
    """503 with the page for everybody but static files; twice is once; then the site again, without a reload."""
    workers = site.machine.run("pgrep nginx").stdout
    site.fab("maintenance.on").ended()
    for method in ("GET", "POST"):
        found = site.ask("/any/page", method=method, body="x" if method == "POST" else "")
        assert (found.status, found.headers["Retry-After"], found.headers["Cache-Control"]) == (503, "120", "no-store")
        assert "<h1>Back soon</h1>" in found.body
        assert found.headers["Content-Type"] == "text/html; charset=utf-8"
    assert site.ask("/static/plain.css").status == 200
    assert site.ask("/media/page.html").status == 503
    assert "maintenance is on" in site.fab("nginx.status").ended().output
    again = site.fab("maintenance.on").ended()
    assert "it was on" in again.output
    site.fab("maintenance.off").ended()
    assert site.ask("/any/page").status == 200
    assert "it was off" in site.fab("maintenance.off").ended().output
    assert site.machine.run("pgrep nginx").stdout == workers


def test_a_page_of_the_projects_own(site: Site) -> None:
    """Rendered on the operator's side, and shown as it is."""
    (site.workplace.folder / "page.html.j2").write_text("<h1>{{ project }}: it's closed</h1>\n")
    site.configure(nginx={"maintenance_page": "page.html.j2"})
    site.fab("maintenance.on").ended()
    assert site.ask("/").body == "<h1>blog: it's closed</h1>\n"
    site.fab("maintenance.off").ended()
    site.configure()


def test_a_broken_template_changes_nothing(site: Site) -> None:
    """nginx reads the file before it is reloaded; the old one is put back, and traffic does not notice."""
    ours = site.workplace.folder / "templates/nginx/site.conf.j2"
    ours.parent.mkdir(parents=True)
    shipped = (CHECKOUT / "templates/nginx/site.conf.j2").read_text()
    before = site.state()
    try:
        ours.write_text(shipped.replace("server_tokens off;", "server_tokens maybe;"))
        outcome = site.fab("nginx.configure").ended(1)
        assert 'invalid value "maybe"' in outcome.quoted
        assert "nothing that serves was touched (exit 1)" in outcome.complaint
        assert without_times(site.state()) == without_times(before)
        assert site.ask("/").status == 200
        # One that nginx takes, but cannot run with: the port is somebody's.
        site.machine.run("systemd-run -q -u squatter python3 -m http.server 8123 --bind 0.0.0.0")
        wait_for(lambda: site.machine.run("ss -ltn | grep -q :8123", check=False).returncode == 0, 10)
        ours.write_text(shipped.replace("server_name", "listen 8123; server_name"))
        outcome = site.fab("nginx.configure").ended(3)
        assert "nginx runs with the site's file as it was before (exit 3)" in outcome.complaint
        assert "8123" in outcome.quoted
        assert without_times(site.state()) == without_times(before)
        assert site.ask("/").status == 200
    finally:
        ours.unlink()
        site.machine.run("systemctl stop squatter", check=False)
    assert "enabled, and served" in site.fab("nginx.status").ended().output


def without_times(state: str) -> list[list[str]]:
    """A listing without the times of its files."""
    return [[word for word in line.split() if ":" not in word and word[:3] != "202"] for line in state.splitlines()]


def test_files_of_others_are_left_alone(site: Site) -> None:
    """A file of our name that we did not write is refused, and so is one of another site with the same name."""
    machine = site.machine
    machine.write("/etc/nginx/sites-available/shop.conf", "# mine\n")
    site.configure(project="shop")
    before = site.state()
    outcome = site.fab("nginx.configure").ended(1)
    assert "/etc/nginx/sites-available/shop.conf was not written by fabdjango, and is left alone" in outcome.error
    site.configure(root="/srv/another blog")
    outcome = site.fab("nginx.configure").ended(1)
    assert "/etc/nginx/sites-available/blog.conf belongs to another site, in /srv/the blog" in outcome.error
    assert site.state() == before
    machine.run("rm /etc/nginx/sites-available/shop.conf")
    site.configure()


def test_disable_and_enable(site: Site) -> None:
    """Each believes it only when nginx shows it."""
    site.fab("nginx.disable").ended()
    assert site.ask("/").body == "other\n"
    assert "is not enabled" in site.fab("nginx.status").ended().output
    site.fab("nginx.disable").ended()
    site.fab("nginx.enable").ended()
    assert site.ask("/").status == 200
    assert json.loads(site.ask("/").body)
    site.fab("nginx.reload").ended()
    assert site.fab("nginx.logs", "--lines=3").ended()


def test_maintenance_needs_our_file(site: Site) -> None:
    """Without it, nothing would test the flag."""
    site.configure(project="shop", root="/srv/shop")
    outcome = site.fab("maintenance.on").ended(1)
    assert "nginx.configure" in outcome.error
    assert site.machine.run("ls /srv").stdout == "the blog\n"
    site.configure()


def test_a_home_that_nginx_may_not_enter(site: Site) -> None:
    """The usual mode of a home is 0700: said before anything is written, with the command that mends it."""
    site.machine.run("chmod 700 /home/deploy")
    site.configure(project="home", root="~/the site", nginx={"domains": ["home.example.com"]})
    outcome = site.fab("nginx.configure").ended(1)
    assert "nginx runs as www-data, which may not pass through /home/deploy" in outcome.error
    assert "chmod o+x /home/deploy" in outcome.error
    assert "home.conf" not in site.state()
    site.machine.run("chmod o+x /home/deploy")
    site.fab("nginx.configure").ended()
    assert site.ask("/", "home.example.com").status == 502
    site.machine.run("rm /etc/nginx/sites-*/home.conf")
    site.configure()


def test_a_host_that_includes_conf_d_alone(site: Site) -> None:
    """The link is where nginx looks; the file is beside it, where nothing includes it twice."""
    conf = "/etc/nginx/nginx.conf"
    site.machine.run(f"cp {conf} {conf}.kept && sed -i 's|include /etc/nginx/sites-enabled|#&|' {conf}")
    try:
        site.configure(project="plain", root="/srv/plain", nginx={"domains": ["plain.example.com"]})
        site.fab("nginx.configure").ended()
        found = site.machine.run("readlink /etc/nginx/conf.d/plain.conf; ls /etc/nginx/fabdjango").stdout
        assert found == "/etc/nginx/fabdjango/plain.conf\nplain.conf\n"
        assert site.ask("/", "plain.example.com").status == 502
        site.fab("nginx.disable").ended()
        assert site.machine.run("ls /etc/nginx/conf.d; rm /etc/nginx/fabdjango/*").stdout == ""
    finally:
        site.machine.run(f"mv {conf}.kept {conf} && systemctl reload nginx")
        site.configure()


def test_tls(site: Site) -> None:
    """https with the certificate's files, http sent there but for the answers to a certificate authority."""
    site.machine.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=blog.example.com"
        " -keyout '/etc/ssl/private/it is.key' -out '/etc/ssl/certs/it is.pem' 2>/dev/null"
    )
    site.configure(
        nginx={
            "tls": "files",
            "certificate": "/etc/ssl/certs/it is.pem",
            "certificate_key": "/etc/ssl/private/it is.key",
            "hsts": 300,
        }
    )
    site.machine.write("/var/lib/fabdjango/acme/blog/.well-known/acme-challenge/token", "proof")
    site.fab("nginx.configure").ended()
    assert site.arrived("/", https=True, X_Forwarded_Proto="http")["x-forwarded-proto"] == "https"
    found = site.ask("/", https=True)
    assert found.headers.get_all("Strict-Transport-Security") == ["max-age=300"]
    sent = site.ask("/a%20b?c=d")
    assert (sent.status, sent.headers["Location"]) == (308, "https://blog.example.com/a%20b?c=d")
    assert site.ask("/.well-known/acme-challenge/token").body == "proof"
    said = site.machine.run(
        f"curl -sk --http2 -o /dev/null -w '%{{http_version}}' --resolve {DOMAIN}:443:127.0.0.1 https://{DOMAIN}/"
    ).stdout
    assert said == "2"
    site.fab("maintenance.on").ended()
    assert site.ask("/", https=True).status == 503
    site.fab("maintenance.off").ended()
    site.machine.run("rm '/etc/ssl/certs/it is.pem'")
    outcome = site.fab("nginx.reload").ended(1)
    assert "cannot load certificate" in outcome.quoted
    assert site.ask("/", https=True).status == 200


PLACE = "/etc/ssl/fabdjango/blog"


def presented(site: Site) -> str:
    """The certificate that a client from outside gets."""
    return ssl.get_server_certificate((site.machine.address, 443))


def test_a_certificate_that_is_made_here(site: Site) -> None:
    """With the site's file, by one command; kept until the domains are others; served to who trusts it."""
    signed = {"tls": "self-signed", "domains": [DOMAIN, "*.blog.example.com"]}
    site.configure(nginx=signed)
    assert "there is no certificate" in site.fab("tls.status").ended().output
    assert "configured: nginx serves" in site.fab("nginx.configure").ended().output
    assert site.arrived("/", https=True)["x-forwarded-proto"] == "https"
    assert site.ask("/a").headers["Location"] == "https://blog.example.com/a"
    modes = "-rw------- root key.pem\n-rw-r--r-- root certificate.pem\ndrwxr-xr-x root .\n"
    assert site.machine.run(f"cd {PLACE} && find . -printf '%M %u %f\\n' | sort").stdout == modes
    first = presented(site)
    trusted = f"curl -s --cacert {PLACE}/certificate.pem --resolve www.{DOMAIN}:443:127.0.0.1 https://www.{DOMAIN}/"
    assert json.loads(site.machine.run(trusted).stdout)
    told = site.fab("tls.status").ended().output
    assert f"  for {DOMAIN}, *.{DOMAIN}\n  signed by itself, good from " in told
    assert "the running nginx presents it" in told
    before = site.state()
    for task in ("nginx.configure", "tls.obtain", "tls.renew"):
        assert site.fab(task).ended().output.splitlines()[-1].startswith("unchanged: nginx serves")
    assert (site.state(), presented(site)) == (before, first)
    site.fab("tls.renew", "--force").ended()
    second = presented(site)
    site.configure(nginx={**signed, "domains": [DOMAIN, "*.blog.example.com", "shop.example.com"]})
    site.fab("tls.obtain").ended()
    assert len({first, second, presented(site)}) == 3
    assert ", shop.example.com\n" in site.fab("tls.status").ended().output
    assert site.ask("/", "shop.example.com", https=True).status == 200


def test_a_certificate_that_cannot_be_made(site: Site) -> None:
    """What openssl says is told, and nginx goes on."""
    site.configure(nginx={"tls": "self-signed"})
    site.fab("nginx.configure").ended()
    before = presented(site)
    site.machine.run(f"chattr +i {PLACE} 2>/dev/null || mount --bind -o ro {PLACE} {PLACE}")
    try:
        outcome = site.fab("tls.renew", "--force").ended(1)
        assert "nothing that serves was touched (exit 1)" in outcome.complaint
        assert "openssl" in outcome.quoted
        assert (site.ask("/", https=True).status, presented(site)) == (200, before)
    finally:
        site.machine.run(f"chattr -i {PLACE} 2>/dev/null || umount {PLACE}")
