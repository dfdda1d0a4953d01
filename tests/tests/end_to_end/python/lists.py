"""Pages, selectors, and a watch from a known revision."""
from kubernetes import client, config, watch

config.load_kube_config()
core = client.CoreV1Api()


def create(name):
    labels = {"parity": "even" if int(name[-2:]) % 2 == 0 else "odd"}
    core.create_namespaced_config_map("default", client.V1ConfigMap(
        metadata=client.V1ObjectMeta(name=name, labels=labels)))


for number in range(25):
    create(f"map-{number:02}")

names, token, pages = [], None, 0
while True:
    page = core.list_namespaced_config_map("default", limit=10, _continue=token, label_selector="parity")
    names += [item.metadata.name for item in page.items]
    pages, token = pages + 1, page.metadata._continue
    if not token:
        break
    assert page.metadata.remaining_item_count in (None, 25 - len(names)), page.metadata
assert pages == 3 and names == sorted(names) and len(names) == 25, (pages, names)
assert len(core.list_config_map_for_all_namespaces(label_selector="parity=even").items) == 13
assert len(core.list_namespaced_config_map("default", field_selector="metadata.name=map-07").items) == 1

start = core.list_namespaced_config_map("default").metadata.resource_version
create("new-01")
core.patch_namespaced_config_map("new-01", "default", {"data": {"a": "1"}})
core.delete_namespaced_config_map("new-01", "default")
seen, revisions = [], []
for event in watch.Watch().stream(
        core.list_namespaced_config_map, "default", resource_version=start, label_selector="parity", timeout_seconds=60):
    seen.append((event["type"], event["object"].metadata.name))
    revisions.append(int(event["object"].metadata.resource_version))
    if len(seen) == 3:
        break
assert seen == [("ADDED", "new-01"), ("MODIFIED", "new-01"), ("DELETED", "new-01")], seen
assert int(start) < revisions[0] < revisions[1] < revisions[2], revisions
print("done")
