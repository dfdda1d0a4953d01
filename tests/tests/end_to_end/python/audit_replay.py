"""Sends recorded requests to a server with a recorded audit policy, and compares the events in meaning.

Environment: AUDIT_SERVER (URL), AUDIT_TOKEN (an administrator), AUDIT_LOG (the server's audit log), AUDIT_RECORDING
(folder with policy.json, requests.json and events.json). Prints each difference, and the share of requests whose events
agree.
"""

import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request

SERVER, TOKEN = os.environ["AUDIT_SERVER"], os.environ["AUDIT_TOKEN"]
LOG, RECORDING = os.environ["AUDIT_LOG"], os.environ["AUDIT_RECORDING"]
NAMESPACE = "audit-run"
CONTEXT = ssl._create_unverified_context()

# Values that differ between runs, and parts that are no part of the meaning.
VARYING = {"uid", "resourceVersion", "creationTimestamp", "time", "continue"}
# Requests whose events depend on webhooks, which the recording does not contain.
WITHOUT_WEBHOOKS = re.compile("webhook")


def send(method, path, body=None, opts=None):
    opts = opts or {}
    headers = {"User-Agent": "differ/1", "Audit-ID": opts.get("id", "")}
    if not headers["Audit-ID"]:
        del headers["Audit-ID"]
    if not opts.get("anonymous"):
        headers["Authorization"] = "Bearer " + opts.get("token", TOKEN)
    headers["Accept"] = opts.get("accept", "application/json")
    headers.update(opts.get("headers", {}))
    data = None
    if body is not None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        headers["Content-Type"] = opts.get("ctype", "application/json")
    request = urllib.request.Request(SERVER + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, context=CONTEXT, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def must(method, path, body):
    status, text = send(method, path, body)
    assert status < 300, (method, path, status, text)
    return json.loads(text)


def set_up():
    for name, labels in [
        (NAMESPACE, {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"}),
        (NAMESPACE + "-silent", {}),
    ]:
        must("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    accounts = [(NAMESPACE, "default"), (NAMESPACE, "quiet"), (NAMESPACE + "-silent", "noisy")]
    for namespace, name in accounts:
        must("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]
    must("POST", rbac + "/roles", {"metadata": {"name": "dev"}, "rules": rules})
    subjects = [
        {"kind": "User", "name": "maria", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "ServiceAccount", "name": "quiet", "namespace": NAMESPACE},
        {"kind": "ServiceAccount", "name": "noisy", "namespace": NAMESPACE + "-silent"},
    ]
    role = {"kind": "Role", "name": "dev", "apiGroup": "rbac.authorization.k8s.io"}
    must("POST", rbac + "/rolebindings", {"metadata": {"name": "dev"}, "roleRef": role, "subjects": subjects})
    # A second deployment, for a list with a limit.
    template = {"metadata": {"labels": {"a": "z"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "z"}}, "template": template}
    must("POST", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", {"metadata": {"name": "z"}, "spec": spec})
    admission = "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
    for name, actions, extra in [
        ("audit-note", ["Audit"], {
            "matchConditions": [{"name": "n", "expression": "object.metadata.name.startsWith('policy-')"}],
            "validations": [{"expression": "object.metadata.name != 'policy-bad'", "message": "not policy-bad"}],
            "auditAnnotations": [{"key": "keys", "valueExpression": "\"has \" + string(size(object.data)) + \" keys\""}],
        }),
        ("audit-deny", ["Deny"], {
            "validations": [{"expression": "object.metadata.name != 'policy-deny'", "message": "denied by policy"}],
        }),
    ]:
        spec = {"matchConstraints": {"resourceRules": [rule]}, **extra}
        must("POST", admission + "/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec})
        spec = {"policyName": name, "validationActions": actions}
        must("POST", admission + "/validatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": spec})

    def token(namespace, name):
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return must("POST", path, review)["status"]["token"]

    # Policies apply when the server has seen them.
    deadline = time.time() + 60
    while time.time() < deadline:
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "policy-deny"}}
        if send("POST", f"/api/v1/namespaces/{NAMESPACE}-silent/configmaps?dryRun=All", probe)[0] == 422:
            break
        time.sleep(0.2)
    return dict(zip(["{robot}", "{quiet}", "{noisy}"], [token(*account) for account in accounts]))


def events():
    found = {}
    with open(LOG, encoding="utf-8") as log:
        for line in log:
            event = json.loads(line)
            found.setdefault(event["auditID"], []).append(event)
    return found


def comparable(value, key=""):
    if isinstance(value, dict):
        if "columnDefinitions" in value:
            # The recording has no prose.
            for column in value["columnDefinitions"]:
                column.pop("description", None)
        compared = {name: comparable(item, name) for name, item in value.items()}
        return {name: item for name, item in compared.items() if item not in ({}, [], "", None)}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if key in VARYING and value:
        return "<set>"
    if isinstance(value, str):
        if value.startswith(("{", "[")) and key:
            try:
                return comparable(json.loads(value), key)
            except ValueError:
                pass
        value = value.replace("{ns}", NAMESPACE)
        value = re.sub(r"kube-api-access-\w+|kube-api-access-<rand>", "kube-api-access-x", value)
        value = re.sub(r"JTI=[-\w<>]+", "JTI=x", value)
    return value


def meaning(event):
    event = {name: value for name, value in event.items() if not name.endswith("Timestamp")}
    # Which of several modes allowed an impersonation depends on earlier requests of the real server.
    for name in ("auditID", "sourceIPs", "userAgent", "requestURI", "authenticationMetadata"):
        event.pop(name, None)
    # How the recording's users authenticated is not part of it.
    for user in (event.get("user", {}), event.get("impersonatedUser", {})):
        user.pop("extra", None)
    return comparable(event)


def differences(expected, actual, path=""):
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in sorted(expected.keys() | actual.keys()):
            yield from differences(expected.get(name), actual.get(name), f"{path}.{name}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, (one, other) in enumerate(zip(expected, actual)):
            yield from differences(one, other, f"{path}[{index}]")
    elif expected != actual:
        yield f"{path}: recorded {json.dumps(expected)}, found {json.dumps(actual)}"


def main():
    read = lambda name: json.load(open(os.path.join(RECORDING, name), encoding="utf-8"))
    requests, recorded = read("requests.json"), read("events.json")
    tokens = set_up()
    for request in requests:
        path = request["path"].replace("{ns}", NAMESPACE)
        opts = {**request["opts"], "id": f"replay-{request['n']}"}
        opts["token"] = tokens.get(opts.get("token"), opts.get("token", TOKEN))
        body = request["body"]
        if body is not None:
            body = json.loads(json.dumps(body).replace("{ns}", NAMESPACE))
        status, _ = send(request["method"], path, body, opts)
        if status != request["status"]:
            print(f"{request['label']}: status {status}, recorded {request['status']}")
    # Watches end by themselves; their last events follow.
    time.sleep(2)
    found, agreed, compared = events(), 0, 0
    for request, record in zip(requests, recorded):
        if WITHOUT_WEBHOOKS.search(request["label"]):
            continue
        compared += 1
        actual = [meaning(event) for event in found.get(f"replay-{request['n']}", [])]
        wrong = list(differences([meaning(event) for event in record["events"]], actual))
        agreed += not wrong
        for text in wrong:
            print(f"{request['label']}: {text[:400]}")
    print(f"agreed: {agreed} of {compared}")


main()
