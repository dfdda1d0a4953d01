//! Named formats of strings.

use std::fmt;
use std::sync::LazyLock;

use nave_machinery::names;
use regex::Regex;

use super::Library;
use super::urls::Url;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::Value;

/// A format.
pub(crate) struct Format {
    /// The name in expressions.
    call: &'static str,
    pub(crate) name: &'static str,
    check: fn(&str) -> Vec<String>,
    /// The length of the format's regular expression, for the cost of matching.
    pub(crate) regex_size: u64,
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! formats {
    ($($call:literal, $id:literal, $signature:literal, $function:ident, $name:literal, $size:expr, $check:expr;)*) => {
        static FORMATS: &[Format] = &[$(Format { call: $call, name: $name, check: $check, regex_size: $size }),*];

        $(fn $function<'a>(_: &Context<'a>, _: &[Value<'a>]) -> Result<Value<'a>, Failure> {
            named($call).map(Value::Format).ok_or_else(Failure::overload)
        })*

        /// Kubernetes' named formats.
        pub(super) const LIBRARY: Library = Library {
            since: 31,
            patch: false,
            overloads: &[
                $(($id, $signature, Some($function)),)*
                ("format-validate", "format::validate(string) optional(list(string))", Some(validate)),
                ("format-named", "format.named(string) optional(format)", Some(find)),
            ],
            singletons: &[],
            unguarded: &[],
        };
    };
}

formats! {
    "dns1123Label", "format.dns1123Label", "format.dns1123Label() format", dns1123_label,
        "DNS1123Label", 30, |text| characters(names::is_dns1123_label(text));
    "dns1123Subdomain", "format.dns1123Subdomain", "format.dns1123Subdomain() format", dns1123_subdomain,
        "DNS1123Subdomain", 60, |text| characters(names::is_dns1123_subdomain(text));
    "dns1035Label", "format.dns1035Label", "format.dns1035Label() format", dns1035_label,
        "DNS1035Label", 30, |text| characters(names::is_dns1035_label(text));
    "qualifiedName", "format.qualifiedName", "format.qualifiedName() format", qualified_name,
        "QualifiedName", 60, qualified;
    "dns1123LabelPrefix", "format.dns1123LabelPrefix", "format.dns1123LabelPrefix() format",
        dns1123_label_prefix, "DNS1123LabelPrefix", 30, |text| characters(names::is_dns1123_label(&masked(text)));
    "dns1123SubdomainPrefix", "format.dns1123SubdomainPrefix", "format.dns1123SubdomainPrefix() format",
        dns1123_subdomain_prefix, "DNS1123SubdomainPrefix", 60,
        |text| characters(names::is_dns1123_subdomain(&masked(text)));
    "dns1035LabelPrefix", "format.dns1035LabelPrefix", "format.dns1035LabelPrefix() format",
        dns1035_label_prefix, "DNS1035LabelPrefix", 30, |text| characters(names::is_dns1035_label(&masked(text)));
    "labelValue", "format.labelValue", "format.labelValue() format", label_value,
        "LabelValue", 40, names::is_valid_label_value;
    "uri", "format.uri", "format.uri() format", uri, "URI", 1103, |text| Url::check(text).err().into_iter().collect();
    "uuid", "format.uuid", "format.uuid() format", uuid, "uuid", 71,
        |text| unless(is_uuid(text), "does not match the UUID format");
    "byte", "format.byte", "format.byte() format", byte, "byte", 84, |text| unless(is_base64(text), "invalid base64");
    "date", "format.date", "format.date() format", date, "date", 71,
        |text| unless(super::time::parse_full_date(text).is_some(), "invalid date");
    "datetime", "format.datetime", "format.datetime() format", datetime, "datetime", 71,
        |text| unless(is_date_time(text), "invalid datetime");
}

/// Returns a format by its name in expressions.
fn named(call: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.call == call)
}

fn unless(valid: bool, message: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![message.to_owned()] }
}

/// Replaces the trailing dash of a name prefix, because a generated suffix would follow.
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        // Upstream replaces the last two characters.
        Some(start) if !start.is_empty() => {
            let mut letters = start.chars();
            letters.next_back();
            format!("{}a", letters.as_str())
        }
        _ => text.to_owned(),
    }
}

/// Replaces "bytes" by "characters" in messages about names, as upstream.
fn characters(messages: Vec<String>) -> Vec<String> {
    let plain = |it: String| match it
        .strip_prefix("must be no more than ")
        .and_then(|it| it.strip_suffix(" bytes"))
    {
        Some(max) => format!("must be no more than {max} characters"),
        None => it,
    };
    messages.into_iter().map(plain).collect()
}

/// Checks a label key, with upstream's messages.
fn qualified(text: &str) -> Vec<String> {
    let messages = names::is_qualified_name(text).into_iter();
    messages.map(|it| it.replace("a qualified name must", "a valid label key must")).collect()
}

fn is_uuid(text: &str) -> bool {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$").ok()
    });
    PATTERN.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && crate::value::decode_base64(text, &base64::alphabet::STANDARD).is_ok()
}

/// Returns whether a text is a date and a time of day, separated by `T` or `t`. As upstream, does not check the offset,
/// and ignores what follows another `t`.
fn is_date_time(text: &str) -> bool {
    static CLOCK: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new("^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$").ok()
    });
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(clock)) = (parts.next(), parts.next()) else { return false };
    let Some(found) = CLOCK.as_ref().and_then(|pattern| pattern.captures(clock)) else { return false };
    let limits = [(1, "23"), (2, "59"), (3, "59")];
    super::time::parse_full_date(date).is_some()
        && limits.iter().all(|(index, max)| found.get(*index).is_some_and(|it| it.as_str() <= *max))
}

fn validate<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::Format(format), Value::String(text)] = args else { return Err(Failure::overload()) };
    let messages = (format.check)(text);
    Ok(if messages.is_empty() { Value::Optional(None) } else { Value::some(Value::texts(messages)) })
}

fn find<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::String(name)] = args else { return Err(Failure::overload()) };
    Ok(named(name).map_or(Value::Optional(None), |format| Value::some(Value::Format(format))))
}
