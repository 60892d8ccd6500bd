# Names what differs from run to run: queue ids, times, process ids, ports, boundaries; and the name of the mail system.
import re, sys

text = sys.stdin.buffer.read().decode("utf-8", "replace")
text = re.sub(r"\b4[0-9A-Za-z]{9,20}\b|\b[0-9A-F]{9,12}\b", "ID", text)
text = re.sub(r"\b20\d{12}\b", "STAMP", text)
text = re.sub(r"(?m)^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ ", "", text)
text = re.sub(r"[A-Z][a-z]{2}, [ \d]?\d [A-Z][a-z]{2} 20(2[5-9]|[3-9]\d) \d\d:\d\d:\d\d [-+]\d{4}( \([A-Z]+\))?", "DATE", text)
text = re.sub(r"(postroad|postfix)/(\w+)\[\d+\]", r"mail/\2", text)
text = re.sub(r"Postroad|Postfix", "NAME", text)
text = re.sub(r"delay=[\d.]+, delays=[\d./]+", "delay=D, delays=D/D/D/D", text)
text = re.sub(r"size=\d+", "size=N", text)
text = re.sub(r"ID(\.ID)?/mail\.example\.com|_MIME_BOUNDARY_\d+_\d+", "BOUNDARY", text)
sys.stdout.buffer.write(text.encode())
