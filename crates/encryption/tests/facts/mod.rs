//! Values that a kube-apiserver 1.36.2 has written, with the key `0123456789abcdef0123456789abcdef` under the name
//! `key1`.

/// The key in etcd, a text in the plain value, and the stored value in base64.
pub(crate) const RECORDED: [(&str, &str, &str); 3] = [
    (
        "/registry/secrets/default/s1",
        "plain-secret-text",
        "azhzOmVuYzphZXNnY206djE6a2V5MTr4JiOw7tz1z3XtBm9u7tKLcZhPfB3Phv3XubvCx5qspG1zepZdVBGWbDTcB4zsf8q5Ot5S57hYh85QWPvAhKZPg0f25ffEGodbfcfHpI3lJe/uEPWcmLgj6MWouKPndklgiRapVKXXk0HfSVXDwj7pajo3j9MHhUOhukG3QBumaxSNuhhELNrgRvYtzD/YTdo7yxqvkP+8RwP9kbxIugbLJz6LBkWUeEZsMe2Xsnq9/SEQOgoN8BlX7WC0CeWs670TABEnzRgwpeHL9HrBBXonxbk/ziZo8msmhkMAVSp29Pcp1MHSSYHTI719421GRTqRZJ72",
    ),
    (
        "/registry/configmaps/default/c1",
        "plain-config-text",
        "azhzOmVuYzphZXNjYmM6djE6a2V5MTpb/yBgmdE2/ibrwIHSGKt5Rnc4XTO7OZ/vWyq/VKT4pk5DazxQ0Si7Xp+2VonrtxbVUdJXhjPq6WgOkojGOdlHzuHGw17QaCE32Jd7VElKRxBbmhw4Bf+TLHf+UoclkIaahqxGSwA5mnvn5UjRFu3OGYkQDLKvkx81MLZ33rrsC0Kd734Wtph+k59XReEeTmfg14PtobQlHM32yvgAlKCOmPNW7sV3gBCVaVMsUXRXp4omM/ffNEtaSAgORYig8HGkDJjNVj9gWxN7vaj0VQ+U4K/bQ11Otf3F5HR9pgV2ag==",
    ),
    (
        "/registry/serviceaccounts/default/a1",
        "ServiceAccount",
        "azhzOmVuYzpzZWNyZXRib3g6djE6a2V5MTpGw14WVIFYfbKf7LNp5ekKdABIGsXGqntNcn4WO31JcR1/81d3gA4HgcqYoOn8U2dtWZhFNRwyi8bp1VYgtCVmCD5Go5NSgrnNZlw1dZrZcihD348IuSbs2bDWNp4Jcgc/czCbM/8kz+z0ztO2w3yc9nv24cbfWq2eJIyo6awPXy9Nyaftm0e82bYyNhq6Hg==",
    ),
];
