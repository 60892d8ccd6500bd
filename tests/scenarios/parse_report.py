# What is in a delivery status notification, as Python's email package sees it, as JSON.
import email, email.policy, json, sys

message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
facts = {
    "type": message.get_content_type(),
    "report_type": message.get_param("report-type"),
    "auto_submitted": str(message["auto-submitted"]),
    "defects": sum(len(part.defects) for part in message.walk()),
    "recipients": [],
}
for part in message.walk():
    if part.get_content_type() == "message/delivery-status":
        first, *rest = part.get_payload()
        facts["envid"] = str(first["original-envelope-id"] or "")
        facts["reporting_mta"] = str(first["reporting-mta"])
        facts["queue_id"] = next((str(v) for k, v in first.items() if k.lower().endswith("-queue-id")), None)
        for block in rest:
            facts["recipients"].append({name.lower(): str(value) for name, value in block.items()})
    if part.get_content_type() == "message/rfc822":
        original = part.get_payload(0)
        facts["returned"] = {"subject": str(original["subject"]), "body": original.get_payload()}
json.dump(facts, sys.stdout)
