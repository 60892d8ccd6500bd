"""A content filter in the manner of amavis: takes mail over SMTP, marks it, and gives it back over SMTP.

Its arguments are the port it listens at and the port it gives mail back to.
"""

import smtplib
import socketserver
import sys


class Filter(socketserver.StreamRequestHandler):
    def handle(self):
        self.reply("220 filter ESMTP")
        sender, recipients, said = "", [], []
        for line in iter(self.rfile.readline, b""):
            command = line.decode().strip()
            verb = command.upper()
            if verb.startswith(("EHLO", "HELO")):
                self.reply("250 filter")
            elif verb.startswith("MAIL FROM:"):
                sender, recipients = address(command), []
                self.reply("250 ok")
            elif verb.startswith("RCPT TO:"):
                recipients.append(address(command))
                self.reply("250 ok")
            elif verb == "DATA":
                self.reply("354 go on")
                self.reply(give_back(sender, recipients, self.content()))
            elif verb == "QUIT":
                self.reply("221 bye")
                return
            else:
                self.reply("250 ok")

    def content(self):
        lines = []
        for line in iter(self.rfile.readline, b".\r\n"):
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def reply(self, text):
        self.wfile.write(text.encode() + b"\r\n")


def address(command):
    return command.split("<", 1)[1].split(">", 1)[0]


def give_back(sender, recipients, content):
    if b"\r\nSubject: virus\r\n" in b"\r\n" + content:
        return "554 5.7.0 Reject, infected"
    with smtplib.SMTP("127.0.0.1", int(sys.argv[2]), local_hostname="filter") as client:
        client.sendmail(sender, recipients, b"X-Filtered: yes\r\n" + content)
    return "250 2.0.0 from MTA: ok"


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("127.0.0.1", int(sys.argv[1])), Filter) as server:
    server.serve_forever()
