"""Create, read, replace, patch and delete, with the errors a client must be able to tell apart."""
from kubernetes import client, config
from kubernetes.client.rest import ApiException

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def refused(status, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except ApiException as error:
        assert error.status == status, (error.status, error.body)
        return
    raise AssertionError(f"not refused with {status}")


made = core.create_namespaced_config_map(
    "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="one", labels={"app": "web"}), data={"a": "1"}))
assert made.metadata.uid and made.metadata.resource_version and made.metadata.creation_timestamp
refused(409, core.create_namespaced_config_map, "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="one")))
made.data = {"a": "2"}
replaced = core.replace_namespaced_config_map("one", "default", made)
refused(409, core.replace_namespaced_config_map, "one", "default", made)
patched = core.patch_namespaced_config_map("one", "default", {"data": {"b": "3"}})
assert patched.data == {"a": "2", "b": "3"}, patched.data
assert core.read_namespaced_config_map("one", "default").data == patched.data
core.delete_namespaced_config_map("one", "default")
refused(404, core.read_namespaced_config_map, "one", "default")

template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels={"app": "web"}),
    spec=client.V1PodSpec(containers=[client.V1Container(name="web", image="registry.example/web:1")]))
deployment = client.V1Deployment(
    metadata=client.V1ObjectMeta(name="web"),
    spec=client.V1DeploymentSpec(
        replicas=2, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template))
made = apps.create_namespaced_deployment("default", deployment)
assert made.metadata.generation == 1 and made.spec.strategy.type == "RollingUpdate", made
scale = apps.read_namespaced_deployment_scale("web", "default")
assert (scale.spec.replicas, scale.status.selector) == (2, "app=web"), scale
scale.spec.replicas = 5
apps.replace_namespaced_deployment_scale("web", "default", scale)
assert apps.read_namespaced_deployment("web", "default").spec.replicas == 5
status = apps.patch_namespaced_deployment_status("web", "default", {"status": {"replicas": 5}, "spec": {"replicas": 9}})
assert (status.status.replicas, status.spec.replicas) == (5, 5), "the status subresource changes the status alone"
wrong = client.V1Deployment(metadata=client.V1ObjectMeta(name="wrong"), spec=client.V1DeploymentSpec(
    selector=client.V1LabelSelector(match_labels={"app": "other"}), template=template))
refused(422, apps.create_namespaced_deployment, "default", wrong)
apps.delete_collection_namespaced_deployment("default", label_selector="")
assert apps.list_namespaced_deployment("default").items == []
print("done")
