//! Parsing of image names, for the default of `imagePullPolicy`.

/// Maximum length of the path of a repository. Names without a host and a path are below `library/`.
const MAX_REPOSITORY_LENGTH: usize = 255;

/// Returns whether an image name refers to the tag `latest`, either explicitly or because it has no tag and no
/// digest. Returns false for an invalid name.
pub(crate) fn is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last_segment = name.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match name[last_segment..].find(':') {
        Some(colon) => (&name[..last_segment + colon], Some(&name[last_segment + colon + 1..])),
        None => (name, None),
    };
    is_repository(name) && tag.map_or(digest.is_none(), |tag| tag == "latest")
}

/// Returns whether a name without tag and digest is a valid repository: an optional host and lowercase components.
fn is_repository(name: &str) -> bool {
    let is_host = |part: &str| {
        part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase())
    };
    let path = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => rest,
        _ => name,
    };
    let is_short = path.len() == name.len() && !path.contains('/');
    let added = if is_short { "library/".len() } else { 0 };
    path.len() + added <= MAX_REPOSITORY_LENGTH && path.split('/').all(is_component)
}

/// Returns whether a text consists of lowercase letters and digits, with separators between them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.into_iter().all(|b| b.is_some_and(alphanumeric))
        && text.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_tag_after_port_and_before_digest() {
        for latest in
            ["nginx", "nginx:latest", "a.example:5000/x/y", "localhost/x:latest", "x:latest@sha256:00"]
        {
            assert!(is_latest(latest), "{latest}");
        }
        assert!(is_latest(&"a".repeat(247)) && is_latest(&format!("a.example/{}", "a".repeat(255))));
        assert!(!is_latest(&"a".repeat(248)) && !is_latest(&format!("a.example/{}", "a".repeat(256))));
        for other in ["nginx:1", "a.example:5000/x:1.2", "nginx@sha256:00", "", "NGINX", "a//b", "x:Latest"] {
            assert!(!is_latest(other), "{other}");
        }
    }
}
