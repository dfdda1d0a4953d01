import os

from kubernetes import client
from kubernetes.config.incluster_config import InClusterConfigLoader

mounted = os.environ["MOUNTED"]
loader = InClusterConfigLoader(token_filename=mounted + "/token", cert_filename=mounted + "/ca.crt")
loader.load_and_set()

me = client.AuthenticationV1Api().create_self_subject_review(client.V1SelfSubjectReview())
user = me.status.user_info
assert user.username == "system:serviceaccount:default:robot", user
assert "system:serviceaccounts:default" in user.groups, user
assert user.extra["authentication.kubernetes.io/pod-name"] == ["p"], user

core = client.CoreV1Api()
assert [pod.metadata.name for pod in core.list_namespaced_pod("default").items] == ["p"]
for forbidden in [
    lambda: core.list_namespaced_secret("default"),
    lambda: core.delete_namespaced_pod("p", "default"),
    lambda: core.list_namespaced_pod("kube-system"),
]:
    try:
        forbidden()
    except client.ApiException as error:
        assert error.status == 403, error
    else:
        raise AssertionError("a workload may read only what it is let to")
print("done")
