"""Server-side apply with the dynamic client: create, share, conflict, force, dry run, give up."""
from kubernetes import config, dynamic
from kubernetes.client import api_client
from kubernetes.dynamic.exceptions import ConflictError

config.load_kube_config()
client = dynamic.DynamicClient(api_client.ApiClient())
maps = client.resources.get(api_version="v1", kind="ConfigMap")


def apply(manager, data, **options):
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    if data is not None:
        body["data"] = data
    return maps.server_side_apply(body=body, name="x", namespace="default", field_manager=manager, **options)


def owners(found):
    return sorted((entry.manager, entry.operation) for entry in found.metadata.managedFields or [])


made = apply("one", {"a": "1", "b": "1"})
assert owners(made) == [("one", "Apply")], made
assert apply("one", {"a": "1", "b": "1"}).metadata.resourceVersion == made.metadata.resourceVersion
shared = apply("two", {"a": "1", "c": "1"})
assert owners(shared) == [("one", "Apply"), ("two", "Apply")], shared
try:
    apply("two", {"b": "2"})
    raise AssertionError("no conflict")
except ConflictError as error:
    assert error.status == 409 and '".data.b"' in error.body, error.body
tried = apply("two", {"b": "2"}, force_conflicts=True, dry_run="All")
assert tried.data.to_dict() == {"a": "1", "b": "2"}, tried
assert maps.get(name="x", namespace="default").data.to_dict() == shared.data.to_dict()
forced = apply("two", {"b": "2"}, force_conflicts=True)
assert forced.data.to_dict() == tried.data.to_dict(), forced
left = apply("one", None)
assert left.data.to_dict() == {"b": "2"} and owners(left) == [("two", "Apply")], left
print("done")
