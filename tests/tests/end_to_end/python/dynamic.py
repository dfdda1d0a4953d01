"""The dynamic client knows no kinds: it reads discovery, and then works with whatever it finds."""
import yaml
from kubernetes import client, config, dynamic, utils

config.load_kube_config()
api = client.ApiClient()
cluster = dynamic.DynamicClient(api)

widgets = cluster.resources.get(api_version="batch/v1", kind="CronJob")
assert widgets.namespaced and "cj" in (widgets.short_names or []), widgets.to_dict()
job = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}, "spec": {
    "schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "a", "image": "registry.example/a:1"}]}}}}}}
made = widgets.create(namespace="default", body=job)
assert made.spec.concurrencyPolicy == "Allow" and made.spec.successfulJobsHistoryLimit == 3, made
patch = {"spec": {"suspend": True}}
patched = widgets.patch(namespace="default", name="nightly", body=patch, content_type="application/merge-patch+json")
assert patched.spec.suspend is True
assert [item.metadata.name for item in widgets.get(namespace="default").items] == ["nightly"]
widgets.delete(namespace="default", name="nightly")

for document in yaml.safe_load_all("""
{apiVersion: v1, kind: Namespace, metadata: {name: made}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: made}, spec: {ports: [{port: 80}]}}
"""):
    utils.create_from_dict(api, document)
service = client.CoreV1Api().read_namespaced_service("web", "made")
assert service.spec.cluster_ip and service.spec.ports[0].target_port == 80, service
version = client.VersionApi().get_code()
assert version.major == "1" and version.minor.startswith("36"), version
print("done")
