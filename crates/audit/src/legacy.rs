//! The format `legacy`: an event as one line of text (upstream: `audit.EventString`).

use std::fmt::{self, Write};

use nave_machinery::user::UserInfo;

use crate::event::{Event, timestamp};

/// Appends an event's line, without a line feed.
pub(crate) fn encode(event: &Event, out: &mut Vec<u8>) {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(event, &mut text);
    out.extend_from_slice(text.as_bytes());
}

fn write(event: &Event, out: &mut String) -> fmt::Result {
    let origin = &*event.origin;
    let user = origin.user.as_deref().filter(|user| !user.name.is_empty());
    let namespace = event.object.as_ref().map(|object| object.namespace.as_str());
    let ip = origin.source_ips.first().map_or("<unknown>".to_owned(), ToString::to_string);
    write!(
        out,
        "{} AUDIT: id={:?} stage={:?} ip={ip:?} method={:?} user={:?} groups={:?} as={:?} asgroups={:?}",
        timestamp(origin.received).rfc3339_micro(),
        origin.audit_id,
        event.stage.as_str(),
        origin.verb,
        user.map_or("<none>", |user| &user.name),
        groups(user, "<none>"),
        event.impersonated.as_ref().map_or("<self>", |user| &user.name),
        groups(event.impersonated.as_deref(), "<lookup>"),
    )?;
    let namespace = namespace.filter(|namespace| !namespace.is_empty()).unwrap_or("<none>");
    write!(out, " user-agent={:?} namespace={namespace:?} uri={:?}", origin.user_agent, origin.request_uri)?;
    match &event.response {
        Some(response) => write!(out, " response=\"{}\"", response.code),
        None => out.write_str(" response=\"<deferred>\""),
    }
}

/// Returns the quoted groups of a user, or a text if there are none.
fn groups(user: Option<&UserInfo>, none: &str) -> String {
    let groups = user.map_or(&[][..], |user| &user.groups);
    if groups.is_empty() {
        return none.to_owned();
    }
    let quoted: Vec<String> = groups.iter().map(|group| format!("{group:?}")).collect();
    quoted.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::event;

    #[test]
    fn writes_one_line() {
        let mut line = Vec::new();
        encode(&event("x"), &mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "2023-11-14T22:13:20.000005Z AUDIT: id=\"id\" stage=\"ResponseComplete\" ip=\"192.0.2.1\" \
             method=\"get\" user=\"a \\\"b\\\"\" groups=\"\\\"g\\\",\\\"h\\\"\" as=\"<self>\" \
             asgroups=\"<lookup>\" user-agent=\"agent\" namespace=\"n\" \
             uri=\"/api/v1/namespaces/n/configmaps/x\" response=\"200\""
        );
    }

    #[test]
    fn absent_parts_have_placeholders() {
        let mut line = Vec::new();
        encode(&Event { object: None, response: None, ..event("x\ny") }, &mut line);
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains("namespace=\"<none>\"") && line.ends_with("response=\"<deferred>\""), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
}
