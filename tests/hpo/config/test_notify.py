"""The section `notify`: every kind of receiver, every problem at once, and no secret in any message."""

from __future__ import annotations

import jsonschema
import pytest

from hpo.config.notify import NOTIFY, Command, Notify, Secret, Smtp, Webhook, parse_notify
from hpo.config.yaml_source import load


@pytest.fixture
def read(tmp_path):
    """The section of a text, and its problems, one line each."""

    def read(text):
        path = tmp_path / "a.yaml"
        path.write_text(text)
        root = load(path)
        found = parse_notify(root, tmp_path)
        root.finish()
        return found, [str(problem).replace(f"{tmp_path}/", "") for problem in root.problems]

    return read


def test_every_receiver(read, tmp_path):
    found, problems = read(
        "notify:\n"
        "  on: [promotion, failure]\n"
        "  webhook: [file:hook, {address: env:HOOK, signing_key: file:/run/key}]\n"
        "  smtp: {host: mail, security: tls, user: me, password: env:PASS, from: a@b, to: [c@d, e@f]}\n"
        "  command: [./tell, --night]\n"
        "  command_seconds: 5\n"
        "  heartbeat: file:beat\n"
        "  give_up_days: 0.5\n"
    )
    assert not problems
    assert found == Notify(
        ("failure", "promotion"),
        (Webhook(Secret("file", f"{tmp_path}/hook")), Webhook(Secret("env", "HOOK"), Secret("file", "/run/key"))),
        Smtp("mail", 465, "tls", "me", Secret("env", "PASS"), "a@b", ("c@d", "e@f")),
        Command(("./tell", "--night"), str(tmp_path), 5.0),
        Secret("file", f"{tmp_path}/beat"),
        0.5,
    )
    assert read("x-a: 1")[0] is None
    assert read("notify: {}")[0] == Notify()
    assert read("notify: {webhook: env:A, smtp: {host: h, from: a@b, to: c@d}}")[0].smtp.port == 587


def test_every_problem_at_once_and_no_secret_in_any(read):
    _, problems = read(
        "notify:\n"
        "  on: [promoted]\n"
        "  webhook:\n"
        "    - https://hooks.example.org/SECRET\n"
        "    - {addres: env:A}\n"
        "    - {address: env:A, signing_key: SECRET}\n"
        "  smtp: {host: mail, security: none, password: env:P, from: nobody, to: []}\n"
        "  command: ./tell\n"
        "  heartbeat: env:A-SECRET\n"
        "  sms: 1\n"
    )
    assert "SECRET" not in "".join(problems)
    assert [line.partition(": ")[2] for line in problems] == [
        "notify.heartbeat: is not the name of an environment variable; expected env: and letters, digits and _",
        "notify.on: got 'promoted'; did you mean 'promotion'?",
        "notify.webhook[0]: is not the place of a secret; write the secret to a file or into the environment, and here "
        "file:PATH or env:NAME",
        "notify.webhook[1].addres: unknown key; did you mean 'address'?",
        "notify.webhook[1].address: is missing; expected file:PATH or env:NAME",
        "notify.webhook[2].signing_key: is not the place of a secret; write the secret to a file or into the "
        "environment, and here file:PATH or env:NAME",
        "notify.smtp.to: got []; expected an address, or a list of at most 20",
        "notify.smtp.from: got 'nobody'; expected an address: name@example.org",
        "notify.smtp.password: is given without user; give both, or neither",
        "notify.smtp.security: is none, but there is a password; expected starttls or tls",
        "notify.command: got './tell'; expected a list: the program, then its arguments",
        "notify.sms: unknown key; known: command_seconds, heartbeat, give_up_days, on, webhook, smtp, command",
    ]


@pytest.mark.parametrize("form", ["{}", "[env:B, {}]"])
def test_a_signing_key_without_a_value_is_no_webhook_without_signature(read, form):
    (problem,) = read("notify:\n  webhook: " + form.replace("{}", "{address: env:A, signing_key: }"))[1]
    assert problem.startswith("a.yaml:2: notify.webhook")
    assert "signing_key: is empty; expected file:PATH" in problem


def test_the_schema_takes_what_the_file_may_say():
    check = jsonschema.Draft202012Validator(NOTIFY.shape())
    given = {"webhook": ["file:a", {"address": "env:A"}], "command": ["a"], "on": ["end"], "heartbeat": "file:b"}
    assert check.is_valid(given)
    assert check.is_valid({"webhook": "env:A"})
    assert not check.is_valid({"heartbeat": "https://example.org"})


def test_a_user_without_a_password_would_not_sign_in(read):
    (problem,) = read("notify: {smtp: {host: h, user: me, from: a@b, to: c@d}}")[1]
    assert "notify.smtp.user: is given without password; give both, or neither" in problem


def test_a_receiver_that_stands_there_twice_is_refused(read):
    smtp = "{host: h, from: a@b, to: [c@d, e@f, c@d]}"
    problems = read(f"notify: {{webhook: [env:A, file:b, {{address: env:A, signing_key: env:K}}], smtp: {smtp}}}")[1]
    assert [line.partition(": ")[2] for line in problems] == [
        "notify.webhook: has env:A twice; expected each receiver once",
        "notify.smtp: has c@d twice; expected each receiver once",
    ]


def test_what_must_be_given_is_not_null(read):
    """No message would be sent, and nobody would notice."""
    _, problems = read("notify: {webhook: {address: null}, smtp: {host: null, from: null, to: a@b}}")
    assert [line.partition("notify.")[2] for line in problems] == [
        "webhook.address: is not the place of a secret; write the secret to a file or into the environment, and here "
        "file:PATH or env:NAME",
        "smtp.host: got null; expected text",
        "smtp.from: got null; expected text",
    ]
