//! Tables of attacks: a user, a request, and the expected status code.

use nave_machinery::Value;

use super::{Call, Cluster};

/// An attack.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The user; see [`Cluster::named`].
    pub(crate) who: &'static str,
    pub(crate) call: Call,
    /// The request line, for failure messages.
    line: String,
    code: u16,
    /// Text that the response body must contain.
    contains: &'static str,
}

/// Creates a row: `row("alice", "GET /api/v1/nodes", Value::Null, 403)`. Null means no body.
pub(crate) fn row(who: &'static str, line: &str, body: impl Into<Value>, code: u16) -> Row {
    let body = body.into();
    let call = if body.is_null() { Call::line(line) } else { Call::line(line).json(&body) };
    Row { who, call, line: line.to_owned(), code, contains: "" }
}

impl Row {
    /// Sets text that the response body must contain.
    pub(crate) fn containing(self, contains: &'static str) -> Self {
        Self { contains, ..self }
    }

    /// Sets a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.call = self.call.header(name, value);
        self
    }
}

/// Sends all rows in order. Panics with all unexpected responses.
#[track_caller]
pub(crate) fn check<'a>(cluster: &'a Cluster, rows: &'a [Row]) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let mut wrong = Vec::new();
        for Row { who, call, line, code, contains } in rows {
            let answer = cluster.named(who).send(call.clone()).await;
            let text = answer.text();
            if answer.code != *code || !text.contains(contains) {
                let shown: String = text.chars().take(300).collect();
                wrong.push(format!("{who}: {line}: {} instead of {code} {contains}: {shown}", answer.code));
            }
        }
        assert!(wrong.is_empty(), "{caller}:\n{}", wrong.join("\n"));
    }
}
