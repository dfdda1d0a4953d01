//! The `traceparent` header (W3C Trace Context).

use std::fmt::Write;

use http::HeaderValue;
use rand::Rng;

/// The position of a request in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The id of the trace.
    pub trace_id: [u8; 16],
    /// The id of the caller's span.
    pub span_id: [u8; 8],
    /// True if the trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Starts a trace.
    pub fn new(sampled: bool) -> Self {
        Self { trace_id: random(), span_id: random(), sampled }
    }

    /// Returns the position of a span below this one.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: random(), ..self }
    }

    /// Parses a header: `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal. Later versions may have further parts.
    pub fn parse(header: &HeaderValue) -> Option<Self> {
        let mut parts = header.to_str().ok()?.split('-');
        let (version, trace_id, span_id, flags) = (
            bytes::<1>(parts.next()?)?,
            bytes(parts.next()?)?,
            bytes(parts.next()?)?,
            bytes::<1>(parts.next()?)?,
        );
        let is_valid = trace_id != [0; 16] && span_id != [0; 8] && version != [0xff];
        if !is_valid || version == [0] && parts.next().is_some() {
            return None;
        }
        Some(Self { trace_id, span_id, sampled: flags[0] & 1 != 0 })
    }

    /// Returns the header for requests that belong to this one.
    pub fn header(self) -> HeaderValue {
        let mut text = "00-".to_owned();
        hexadecimal(&self.trace_id, &mut text);
        text.push('-');
        hexadecimal(&self.span_id, &mut text);
        text.push_str(if self.sampled { "-01" } else { "-00" });
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Returns random bytes that are not all zero.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill(&mut bytes[..]);
    if let Some(last) = bytes.last_mut() {
        *last = (*last).max(1);
    }
    bytes
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let digits = text.as_bytes();
    if digits.len() != 2 * N || digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        *byte = u8::try_from(digit(pair.first()?)? << 4 | digit(pair.last()?)?).ok()?;
    }
    Some(bytes)
}

fn hexadecimal(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for sampled in [true, false] {
            let context = TraceContext::new(sampled);
            assert_eq!(TraceContext::parse(&context.header()), Some(context));
            let child = context.child();
            assert_eq!((child.trace_id, child.sampled), (context.trace_id, sampled));
            assert_ne!(child.span_id, context.span_id);
        }
    }

    #[test]
    fn rejects_other_headers() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for (header, is_valid) in [
            (format!("00-{trace}-{span}-01"), true),
            (format!("01-{trace}-{span}-01-more"), true),
            (format!("00-{trace}-{span}-01-more"), false),
            (format!("ff-{trace}-{span}-01"), false),
            (format!("00-{}-{span}-01", trace.to_uppercase()), false),
            (format!("00-{}-{span}-01", "0".repeat(32)), false),
            (format!("00-{trace}-{}-01", "0".repeat(16)), false),
            (format!("00-{trace}-{span}"), false),
            (format!("00-{trace}-{span}x-01"), false),
            (String::new(), false),
        ] {
            let parsed = TraceContext::parse(&HeaderValue::try_from(&header).unwrap());
            assert_eq!(parsed.is_some(), is_valid, "{header}");
        }
    }
}
