"""A delivery as mail, over a connection whose certificate is checked; the night's page is attached."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from hpo.config.notify import Smtp
from hpo.notices.delivery import Delivery, Environment, Undelivered
from hpo.notices.secrets import read_secret, without
from hpo.quoting import clipped, visible


@dataclass(frozen=True)
class MailChannel:
    """Sends to one address: where a server refuses one of several, the others get no mail twice."""

    smtp: Smtp
    to: str
    environment: Environment
    limit_s: float
    """Of each wait for the server."""

    @property
    def name(self) -> str:
        """Whom it writes to, through whichever server."""
        return f"mail to {self.to}"

    def send(self, delivery: Delivery, left_s: float) -> None:
        """Send the mail. Raises `Undelivered`."""
        password = read_secret(self.smtp.password, self.environment) if self.smtp.password else None
        try:
            with self._connected(min(self.limit_s, left_s)) as server:
                if self.smtp.user and password is not None:
                    server.login(self.smtp.user, password)
                server.send_message(mail_of(delivery, self.smtp), to_addrs=[self.to])
        except smtplib.SMTPResponseException as error:
            said = error.smtp_error
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            why = f"the server answered {error.smtp_code}: {text}"
            raise _undelivered(why, password, may_pass=400 <= error.smtp_code < 500) from None
        except smtplib.SMTPRecipientsRefused as error:
            code, said = error.recipients[self.to]
            why = f"the server answered {code} to this address: {said.decode('utf-8', 'replace')}"
            raise _undelivered(why, password, may_pass=400 <= code < 500) from None
        except ssl.SSLCertVerificationError as error:
            why = f"the server's certificate is not trusted: {error.verify_message}"
            raise Undelivered(why, may_pass=False) from None
        except UnicodeError:  # its words would have a character of the password
            why = "it cannot be sent: host, user or password has characters beyond ASCII"
            raise Undelivered(why, may_pass=False) from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            why = f"it cannot be sent: {getattr(error, 'strerror', None) or error}"
            raise _undelivered(why, password, may_pass=isinstance(error, OSError)) from None

    def _connected(self, limit_s: float) -> smtplib.SMTP:
        """A connection, encrypted unless the file says `none`."""
        context, where = ssl.create_default_context(), (self.smtp.host, self.smtp.port)
        if self.smtp.security == "tls":
            return smtplib.SMTP_SSL(*where, timeout=limit_s, context=context)
        server = smtplib.SMTP(*where, timeout=limit_s)
        if self.smtp.security == "starttls":
            try:
                server.starttls(context=context)
            except BaseException:
                server.close()
                raise
        return server


def mail_of(delivery: Delivery, smtp: Smtp) -> EmailMessage:
    """The mail: the night in plain text, and its page where that is still there."""
    message, mail = delivery.message, EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.subject, smtp.sender, ", ".join(smtp.to)
    mail["Message-ID"] = f"<{delivery.id}@hpo.invalid>"
    mail["X-Hpo-Id"] = delivery.id
    mail.set_content(message.text + "\n")
    page = Path(message.page)
    if message.page and page.is_file():
        mail.add_attachment(page.read_text(encoding="utf-8"), subtype="html", filename=page.name)
    return mail


def _undelivered(why: str, password: str | None, *, may_pass: bool) -> Undelivered:
    shown = clipped(visible(" ".join(without(why, [password] if password else []).split())), 200)
    return Undelivered(shown, may_pass=may_pass)
