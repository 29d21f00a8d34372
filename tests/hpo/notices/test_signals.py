"""Signals: what receivers get, that none is lost or doubled, that none holds the night up, and that no secret shows."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import math
import socketserver
import ssl
import threading
import time
import urllib.parse
from dataclasses import replace
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hpo.config.notify import Command, Notify, Secret, Smtp, Webhook
from hpo.errors import SweepError
from hpo.nights.page import night_page, night_text
from hpo.nights.record import NightFiles
from hpo.notices import outbox
from hpo.notices.heartbeat import beat_address
from hpo.notices.outbox import Patience
from hpo.notices.signals import Signals
from tests.hpo.nights.records import kept, night, promoted

QUICK = Patience(tries=3, pause_s=0.01, limit_s=10, total_s=30)
NOON = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)
KEY = "a key of mine"


class Receiver:
    """An HTTP server that keeps what it gets, and answers as it is asked to; 0 stands for no answer at all."""

    def __init__(self, answers=()):
        self.got, self.answers, self.released = [], list(answers), threading.Event()
        self.says = lambda path: f"you are {path}"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, self.headers, body))
                code = outer.answers.pop(0) if outer.answers else 200
                if code == 0:
                    outer.released.wait(10)
                    return
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", f"{outer.address}/elsewhere")
                self.end_headers()
                self.wfile.write(outer.says(self.path).encode())

            def log_message(self, *_):
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a client that hangs up is what some tests are about
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = []

    def make(*answers):
        made.append(Receiver(answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def files(tmp_path):
    return NightFiles(tmp_path / "movies")


def hook(receiver, path="/T0KEN", **more):
    """A notify with one webhook, and an environment that knows its address."""
    return Notify(webhooks=(Webhook(Secret("env", "HOOK"), **more),)), {"HOOK": receiver.address + path, "KEY": KEY}.get


def signals(files, notify, environment, now=NOON):
    return Signals(notify, files, lambda: now, environment, QUICK)


def test_a_webhook_gets_text_for_chat_and_the_record_signed(receiver, files):
    one = receiver()
    notify, environment = hook(one, signing_key=Secret("env", "KEY"))
    record = promoted(metric="<!channel>", lead={"difference": math.nan})
    said = signals(files, notify, environment).send(record, night_text(record))
    assert said == ["webhook env:HOOK has the night 2026-11-28"]
    ((path, headers, body),) = one.got
    given = json.loads(body)
    assert path == "/T0KEN"
    assert given["text"].startswith("movies 2026-11-28: promoted; &lt;!channel&gt;")
    assert given["hpo"]["events"] == ["end", "promotion"]
    assert given["hpo"]["night"]["date"] == "2026-11-28"
    assert b"NaN" not in body  # no receiver could read it
    identity, stamp = headers["webhook-id"], headers["webhook-timestamp"]
    assert given["hpo"]["id"] == identity
    assert int(stamp) == NOON.timestamp()
    signed = hmac.new(KEY.encode(), f"{identity}.{stamp}.".encode() + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"


def test_one_that_fails_twice_has_it_at_the_third_try_and_a_second_call_sends_nothing(receiver, files):
    one = receiver(503, 429)
    notify, environment = hook(one)
    both = signals(files, notify, environment)
    assert both.send(promoted(), "t") == ["webhook env:HOOK has the night 2026-11-28"]
    assert len(one.got) == 3
    assert len({headers["webhook-id"] for _, headers, _ in one.got}) == 1
    assert both.send(promoted(), "t") == []  # the night was killed before it wrote that down
    assert len(one.got) == 3


def test_what_fails_is_kept_tried_by_the_next_night_and_given_up_in_the_end(receiver, files):
    one = receiver(*[500] * 9)
    notify, environment = hook(one)
    first = signals(files, notify, environment).send(promoted(), "t")
    assert first == [
        "webhook env:HOOK does not have the night 2026-11-28: it answered 500: you are /...; the next call tries again"
    ]
    day = datetime.timedelta(days=1)
    second = signals(files, notify, environment, NOON + day).send(kept(), "t")
    assert [line[:48] for line in second] == ["webhook env:HOOK does not have the night 2026-11"] * 2
    assert len(one.got) == 6  # the receiver is down: the newer one is not even tried
    one.answers = [410]
    third = signals(files, replace(notify, on=("failure",)), environment, NOON + 3 * day).send(kept(), "t")
    assert third[0].startswith("webhook env:HOOK never got the night 2026-11-28: it answered 410")
    assert third[0].endswith("given up after 3 days and 3 calls")
    assert third[1:] == ["webhook env:HOOK has the night 2026-11-29"]  # it refused the older one, and is not down
    assert [path.name for path in (files.outbox / "given-up").iterdir()] == [f"{one.got[0][1]['webhook-id']}.json"]


def test_one_that_hangs_holds_nobody_up(receiver, files):
    slow, quick = receiver(*[0] * 5), receiver()
    environment = {"A": slow.address, "B": quick.address}.get
    notify = Notify(webhooks=(Webhook(Secret("env", "A")), Webhook(Secret("env", "B"))), heartbeat=Secret("env", "A"))
    began = time.monotonic()
    said = replace(signals(files, notify, environment), patience=Patience(1, 0, 1.5, 10)).send(promoted(), "t")
    beat = replace(signals(files, notify, environment), patience=Patience(1, 0, 0.1, 10)).end(promoted())
    assert time.monotonic() - began < 5  # the one that hangs would take ten
    assert sorted(said) == [
        "webhook env:A does not have the night 2026-11-28: no answer within 1.5 s; the next call tries again",
        "webhook env:B has the night 2026-11-28",
    ]
    assert beat == ["the heartbeat did not get the success of the night 2026-11-28: no answer within 0.1 s"]


def test_a_receiver_is_known_by_what_it_is_wherever_the_file_names_it(receiver, files):
    down, has_it, new = receiver(*[500] * 3), receiver(), receiver()
    environment = {"A": down.address, "B": has_it.address, "C": new.address}.get

    def sent_to(*names):
        notify = Notify(webhooks=tuple(Webhook(Secret("env", name)) for name in names))
        return sorted(line.partition(":")[2][:19] for line in signals(files, notify, environment).send(promoted(), "t"))

    assert sent_to("A", "B") == ["A does not have the", "B has the night 202"]
    assert sent_to("C", "B", "A") == ["A has the night 202", "C has the night 202"]  # a person has edited the file
    assert [len(one.got) for one in (down, has_it, new)] == [4, 1, 1]
    assert len({headers["webhook-id"] for _, headers, _ in down.got}) == 1


def test_only_what_was_asked_for_is_sent(receiver, files):
    one = receiver()
    notify, environment = hook(one)
    rare = signals(files, replace(notify, on=("failure", "regression")), environment)
    assert rare.send(promoted(), "t") == []
    assert rare.send(kept(regressions=["worse"]), "t") == ["webhook env:HOOK has the night 2026-11-29"]
    assert signals(files, None, environment).send(promoted(), "t") == []


def test_no_redirect_is_followed_and_no_secret_shows_anywhere(receiver, files, tmp_path):
    one = receiver(302, 404)
    notify, environment = hook(one, path="/T0KEN-of-mine", signing_key=Secret("env", "KEY"))
    said = signals(files, notify, environment).send(promoted(), "t")
    said += signals(files, notify, {"HOOK": one.address + "/T0KEN-of-mine", "KEY": KEY}.get).send(promoted(), "t")
    for address in (
        "https://T0KEN:x@127.0.0.1:1/",
        "ftp://T0KEN",
        "http://127.0.0.1:T0KEN/",
        "http://127.0.0.1:1/T0KEN",
    ):
        said += signals(files, notify, {"HOOK": address, "KEY": KEY}.get).send(promoted(), "t")
    said += signals(files, notify, {"HOOK": one.address, "KEY": "whsec_T0KEN"}.get).send(promoted(), "t")
    said += signals(files, notify, {}.get).send(promoted(), "t")
    assert [path for path, *_ in one.got] == ["/T0KEN-of-mine"] * 2
    assert "a redirect, which is not followed" in said[0]
    assert "it answered 404: you are /...;" in said[1]
    assert "env:HOOK is not set" in said[-1]
    kept_on_disk = "".join(path.read_text() for path in files.outbox.rglob("*.json"))
    assert "T0KEN" not in "".join(said) + kept_on_disk
    assert KEY not in kept_on_disk
    assert len(said) == 8


def test_secrets_of_files(receiver, files, tmp_path):
    one = receiver()
    place = tmp_path / "hook"
    notify = Notify(webhooks=(Webhook(Secret("file", str(place))),))
    for content, trouble in (
        (None, "No such file"),
        (b"", "is empty"),
        (b"\xff", "not UTF-8"),
        (b"a" * 10_001, "larger"),
    ):
        if content is not None:
            place.write_bytes(content)
        (said,) = signals(files, notify, {}.get).send(promoted(), "t")
        assert trouble in said
    place.write_text(f"{one.address}\n")
    assert signals(files, notify, {}.get).send(promoted(), "t") == [f"webhook file:{place} has the night 2026-11-28"]


def test_heartbeats_are_those_of_healthchecks(receiver, files):
    one = receiver()
    notify = Notify(heartbeat=Secret("env", "BEAT"))
    all_of_them = signals(files, notify, {"BEAT": f"{one.address}/uuid"}.get)
    record = night(state="failed", reason="the disk is full")
    assert all_of_them.start(record) + all_of_them.end(promoted()) + all_of_them.end(record) == []
    paths = [path.partition("?rid=") for path, *_ in one.got]
    assert [path for path, *_ in paths] == ["/uuid/start", "/uuid", "/uuid/fail"]
    assert len({run for *_, run in paths}) == 1
    assert one.got[-1][2] == b"the night 2026-11-28 of movies: failed: the disk is full"
    assert beat_address("https://h/a/?x=1", "fail", record).startswith("https://h/a/fail?x=1&rid=")
    (said,) = signals(files, notify, {"BEAT": "http://["}.get).start(record)
    assert said.endswith("its address is not an http or https address")
    one.answers = [500, 500]
    (said,) = all_of_them.start(record)
    assert said.startswith(
        "the heartbeat did not get the start of the night 2026-11-28: it answered 500: you are /...?..."
    )


def test_a_command_reads_the_night_and_its_failure_is_said(files, tmp_path, monkeypatch):
    program = tmp_path / "tell"
    program.write_text('#!/bin/sh\ncat > got; echo "$HPO_DELIVERY_ID $1" > id\n')
    program.chmod(0o755)
    notify = Notify(command=Command(("./tell", "a b"), str(tmp_path), 5))
    assert signals(files, notify, {}.get).send(promoted(), "<text>") == ["command has the night 2026-11-28"]
    given = json.loads((tmp_path / "got").read_text())
    assert given["text"] == "<text>"
    assert (tmp_path / "id").read_text() == f"{given['hpo']['id']} a b\n"
    program.write_text("#!/bin/sh\necho no network >&2\nexit 7\n")
    (said,) = signals(files, notify, {}.get).send(kept(), "t")
    assert "it ended with 7: no network" in said
    program.write_text("#!/bin/sh\nsleep 60 &\nwait\n")
    slow = replace(notify, command=replace(notify.command, seconds=0.05))
    assert "took longer than 0.05 s" in signals(files, slow, {}.get).send(kept(), "t")[0]
    gone = replace(notify, command=Command(("./none",), str(tmp_path), 5))
    assert "cannot be started: No such file" in signals(files, gone, {}.get).send(kept(), "t")[0]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "full"))
    (said,) = signals(files, notify, {}.get).send(kept(), "t")
    assert "cannot be started: No such file" in said


class MailServer(socketserver.StreamRequestHandler):
    """Enough of SMTP to take a mail from a user who signs in."""

    def handle(self):
        self.say("220 here")
        while line := self.rfile.readline().decode().strip():
            word = line.split(" ")[0].upper()
            if word == "EHLO":
                self.say("250-here\r\n250 AUTH PLAIN")
            elif word == "AUTH":
                good = base64.b64encode(b"\0me\0p4ss").decode()
                self.say("235 fine" if line.endswith(good) else "535 no such p4ssw0rd")
            elif word == "RCPT" and "nobody" in line:
                self.say("550 nobody here")
            elif word == "DATA":
                self.say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.got.append(b"".join(lines))
                self.say("250 taken")
            else:
                self.say("221 bye" if word == "QUIT" else "250 fine")

    def say(self, text):
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of localhost that nobody else has signed, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")]),
    )
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def behind_tls(listening, certificate):
    """A socket whose clients must speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)


@pytest.fixture
def mail_server(certificate):
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer)
    server.daemon_threads, server.got = True, []
    server.socket = behind_tls(server.socket, certificate)
    server.handle_error = lambda *_: None  # a client that does not trust the certificate hangs up
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_address_without_a_trusted_certificate_gets_nothing(receiver, certificate, files):
    one = receiver()
    one.server.socket = behind_tls(one.server.socket, certificate)
    notify, _ = hook(one)
    address = f"https://localhost:{one.server.server_port}/T0KEN"
    (said,) = signals(files, notify, {"HOOK": address}.get).send(promoted(), "t")
    assert "its certificate is not trusted: self-signed certificate; the next call" in said
    assert not one.got


def test_mail_goes_to_each_address_over_a_checked_connection(mail_server, certificate, files, monkeypatch):
    port = mail_server.server_address[1]
    smtp = Smtp("localhost", port, "tls", "me", Secret("env", "PASS"), "hpo@here", ("a@here", "nobody@here"))
    record = promoted()
    files.dir.mkdir()
    files.page(record.night).write_text(night_page(record, []))
    untrusted = signals(files, Notify(smtp=smtp), {"PASS": "p4ss"}.get).send(record, night_text(record))
    assert all("certificate is not trusted" in line for line in untrusted)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    wrong = signals(files, Notify(smtp=smtp), {"PASS": "p4ssw0rd"}.get).send(record, night_text(record))
    assert all("the server answered 535: no such ...;" in line for line in wrong)
    other = signals(files, Notify(smtp=smtp), {"PASS": "p\u00e4ss"}.get).send(record, night_text(record))
    assert all("host, user or password has characters beyond ASCII" in line and "xe4" not in line for line in other)
    said = signals(files, Notify(smtp=smtp), {"PASS": "p4ss"}.get).send(record, night_text(record))
    assert sorted(said) == [
        "mail to a@here has the night 2026-11-28",
        "mail to nobody@here does not have the night 2026-11-28: the server answered 550 to this address: nobody here; "
        "the next call tries again",
    ]
    (got,) = map(message_from_bytes, mail_server.got)
    assert " ".join(got["Subject"].split()) == "movies 2026-11-28: promoted; f1_macro 0.8800, champion before 0.8600"
    assert got["X-Hpo-Id"] in got["Message-ID"]
    text, page = got.get_payload()
    assert "evidence 1 : 1,340" in text.get_payload(decode=True).decode()
    assert page.get_filename() == "2026-11-28.html"


def test_a_damaged_delivery_is_named_and_holds_no_other_back(receiver, files):
    notify, environment = hook(receiver())
    files.outbox.mkdir(parents=True)
    (files.outbox / "a.json").write_text("{")
    said = signals(files, notify, environment).send(promoted(), "t")
    assert "outbox/a.json cannot be read" in said[0]
    assert said[1:] == ["webhook env:HOOK has the night 2026-11-28"]


def test_a_full_disk_keeps_no_message_back_and_is_said(receiver, files, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    one = receiver()
    notify, environment = hook(one)
    with monkeypatch.context() as disk:
        disk.setattr(outbox, "write_atomically", full)
        with pytest.raises(SweepError, match=r"outbox cannot be written: webhook env:HOOK: .* No space left on device"):
            signals(files, notify, environment).send(promoted(), "t")
    assert len(one.got) == 1
    assert signals(files, notify, environment).send(promoted(), "t") == ["webhook env:HOOK has the night 2026-11-28"]
    assert len({headers["webhook-id"] for _, headers, _ in one.got}) == 1


def test_what_waits_is_tried_without_a_night_and_given_up_where_notify_is_gone(receiver, files):
    one = receiver(*[500] * 3)
    notify, environment = hook(one)
    signals(files, notify, environment).send(promoted(), "t")
    gone = signals(files, None, environment).retry()
    assert gone == [
        "webhook env:HOOK does not have the night 2026-11-28: notify has no such receiver any more; the next call "
        "tries again"
    ]
    later = NOON + datetime.timedelta(days=3)
    assert signals(files, notify, environment).retry() == ["webhook env:HOOK has the night 2026-11-28"]
    one.answers = [500] * 3
    signals(files, notify, environment).send(kept(), "t")
    (given_up,) = signals(files, None, environment, later).send(kept("2026-12-02"), "t")
    assert given_up.startswith(
        "webhook env:HOOK never got the night 2026-11-29: notify has no such receiver any more; given up"
    )


def test_a_secret_in_a_query_is_masked_as_written_and_decoded_also_where_the_answer_is_cut(receiver, files):
    one = receiver(*[403] * 6)
    notify, environment = hook(one, path="/a?chat=1&token=T0K%2FEN+9")
    echoes = (str, urllib.parse.unquote_plus, lambda path: " " * 3991 + urllib.parse.unquote_plus(path)[-8:])
    for day, one.says in enumerate(echoes, 1):
        said = signals(files, notify, environment).send(promoted(f"2026-11-0{day}"), "t")
        assert len(said) == day
        assert all("it answered 403" in line and "T0K" not in line for line in said)
    assert "T0K" not in "".join(path.read_text() for path in files.outbox.rglob("*.json"))
