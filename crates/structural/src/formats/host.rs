//! Addresses and names of hosts, and email addresses.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// Parses an IPv4 address whose parts may have leading zeros, as Go did before 1.17.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = [0u8; 4];
    let mut fields = text.split('.');
    for part in &mut parts {
        let field = fields.next().filter(|field| field.bytes().all(|byte| byte.is_ascii_digit()))?;
        *part = field.parse().ok()?;
    }
    fields.next().is_none().then(|| Ipv4Addr::from(parts))
}

pub(super) fn is_ipv4(text: &str) -> bool {
    ipv4(text).is_some() || (text.contains('.') && text.parse::<Ipv6Addr>().is_ok())
}

pub(super) fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let max = if ipv4(address).is_some() {
        32
    } else if is_ipv6(address) {
        128
    } else {
        return false;
    };
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    is_number && length.parse::<u32>().is_ok_and(|length| length <= max)
}

/// Returns whether a text is a MAC address of 6, 8 or 20 bytes: groups of two digits separated by colons or
/// dashes, of four separated by dots, or digits without separators.
pub(super) fn is_mac(text: &str) -> bool {
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (separator, digits) = match (text.as_bytes().get(2), text.as_bytes().get(4)) {
        (Some(b':'), _) => (':', 2),
        (Some(b'-'), _) => ('-', 2),
        (_, Some(b'.')) => ('.', 4),
        _ => return matches!(text.len(), 12 | 16 | 40) && are_digits(text),
    };
    let groups = text.split(separator).count();
    let is_group = |group: &str| group.len() == digits && are_digits(group);
    matches!(groups * digits / 2, 6 | 8 | 20) && text.split(separator).all(is_group)
}

/// Letters, digits and symbols.
static NAME_CHARACTER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[a-zA-Z0-9\p{S}\p{L}]$").ok());
static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{L}$").ok());

fn matches(class: &LazyLock<Option<Regex>>, character: char) -> bool {
    let mut buffer = [0; 4];
    class.as_ref().is_some_and(|class| class.is_match(character.encode_utf8(&mut buffer)))
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches(&NAME_CHARACTER, character)
}

/// Returns whether a text is a host name: one word, which may have a dash after the first character, or labels followed
/// by a top-level domain of letters.
pub(super) fn is_hostname(text: &str) -> bool {
    if text.len() > 255 || text.split('.').any(|label| label.len() > 63) {
        return false;
    }
    is_word(text) || is_domain(text)
}

fn is_word(text: &str) -> bool {
    let mut characters = text.chars();
    let is_first = characters.next().is_some_and(is_name_character);
    let rest = characters.as_str();
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    is_first && rest.chars().count() <= 62 && rest.chars().all(is_name_character)
}

fn is_domain(text: &str) -> bool {
    let Some((labels, top)) = text.rsplit_once('.') else { return false };
    let is_letter = |character: char| character.is_ascii_alphabetic() || matches(&LETTER, character);
    let is_label = |label: &str| {
        label.chars().next().is_some_and(is_name_character)
            && label.chars().next_back().is_some_and(is_name_character)
            && label.chars().all(|character| character == '-' || is_name_character(character))
    };
    labels.split('.').all(is_label) && top.chars().count() >= 2 && top.chars().all(is_letter)
}

/// Returns whether a text is a DNS label in lower case, of any length.
pub(super) fn is_lower_label(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().all(|byte| byte == b'-' || is_part(byte))
        && text.bytes().next().is_some_and(is_part)
        && text.bytes().next_back().is_some_and(is_part)
}

/// Returns whether a text is one email address, alone or in angle brackets behind a name (RFC 5322 without comments).
pub(super) fn is_email(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t']);
    let Some(inner) = text.strip_suffix('>') else { return is_address(text) };
    let Some((name, address)) = inner.rsplit_once('<') else { return false };
    is_display_name(name.trim_matches([' ', '\t'])) && is_address(address)
}

fn is_display_name(name: &str) -> bool {
    let is_quoted = name.len() >= 2 && is_quoted_string(name);
    name.is_empty() || is_quoted || name.split([' ', '\t']).all(|word| word.is_empty() || is_dot_atom(word))
}

fn is_address(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_literal =
        domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|literal| {
            literal.parse::<Ipv4Addr>().is_ok() || literal.strip_prefix("IPv6:").is_some_and(is_ipv6)
        });
    (is_dot_atom(local) || is_quoted_string(local)) && (is_literal || is_dot_atom(domain))
}

fn is_dot_atom(text: &str) -> bool {
    let is_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    !text.is_empty() && text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom))
}

fn is_quoted_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let is_sound = match character {
            '\\' => characters.next().is_some_and(|next| !next.is_control()),
            '"' => false,
            other => other == '\t' || !other.is_control(),
        };
        if !is_sound {
            return false;
        }
    }
    true
}
