//! The text of subject attributes of a certificate, parsed as Go's `crypto/x509` does.
//!
//! A value that cannot be parsed is an error, never an absent value. Otherwise, admission could skip a value that a
//! signer understands, and accept a group without checking it.

use x509_parser::asn1_rs::Tag;
use x509_parser::oid_registry::Oid;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The reasons why an attribute cannot be decoded as text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The bytes are not valid for the string type.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// Go does not support the value's string type.
    #[error("unsupported string type: {0}")]
    Unsupported(u32),
}

/// Returns the values of the attribute `oid`, in order. A relative name may have several attributes.
///
/// # Errors
/// A value is not text.
pub fn attribute_values(name: &X509Name<'_>, oid: &Oid<'_>) -> Result<Vec<String>, NameError> {
    name.iter_attributes().filter(|attribute| attribute.attr_type() == oid).map(text).collect()
}

/// Checks that every attribute of a name is text.
///
/// # Errors
/// A value is not text.
pub fn check_readable(name: &X509Name<'_>) -> Result<(), NameError> {
    name.iter_attributes().try_for_each(|attribute| text(attribute).map(drop))
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Result<String, NameError> {
    let value = attribute.attr_value();
    let (tag, bytes) = (value.tag(), value.data);
    if value.header.is_constructed() || value.class() != x509_parser::asn1_rs::Class::Universal {
        return Err(NameError::Unsupported(tag.0));
    }
    let utf8 = |name, allowed: fn(u8) -> bool| {
        let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.iter().copied().all(allowed));
        text.map(str::to_owned).ok_or(NameError::Invalid(name))
    };
    match tag {
        Tag::Utf8String => utf8("UTF-8 string", |_| true),
        Tag::PrintableString => utf8("PrintableString", is_printable),
        Tag::Ia5String => utf8("IA5String", |byte| byte.is_ascii()),
        Tag::NumericString => utf8("NumericString", |byte| byte.is_ascii_digit() || byte == b' '),
        // T.61 is decoded as Latin-1, as in other implementations.
        Tag::TeletexString => Ok(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => bmp(bytes),
        Tag(other) => Err(NameError::Unsupported(other)),
    }
}

/// Returns whether a character is allowed in a `PrintableString`. Includes `*` and `&`, which occur in practice.
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?*&".contains(&byte)
}

/// Decodes UCS-2, big-endian; a terminating zero is dropped.
fn bmp(bytes: &[u8]) -> Result<String, NameError> {
    let invalid = NameError::Invalid("BMPString");
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(invalid);
    }
    let units = units.strip_suffix(&[[0, 0]]).unwrap_or(units);
    let character = |unit: &[u8; 2]| {
        let unit = u32::from(u16::from_be_bytes(*unit));
        // Noncharacters. `char::from_u32` rejects surrogates.
        let reserved = matches!(unit, 0xfdd0..=0xfdef | 0xfffe | 0xffff);
        char::from_u32(unit).filter(|_| !reserved)
    };
    units.iter().map(character).collect::<Option<String>>().ok_or(invalid)
}

#[cfg(test)]
mod tests {
    use x509_parser::asn1_rs::{Any, Class, Header, Length};
    use x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;

    use super::*;

    fn read(tag: Tag, data: &[u8]) -> Result<String, NameError> {
        let header = Header::new(Class::Universal, false, tag, Length::Definite(data.len()));
        text(&AttributeTypeAndValue::new(OID_X509_ORGANIZATION_NAME, Any::new(header, data)))
    }

    #[test]
    fn decodes_every_string_type_that_go_supports() {
        let ucs2: Vec<u8> = "system:masters".bytes().flat_map(|byte| [0, byte]).collect();
        let terminated = [ucs2.as_slice(), &[0, 0]].concat();
        for (tag, bytes) in [
            (Tag::Utf8String, b"system:masters".as_slice()),
            (Tag::PrintableString, b"system:masters"),
            (Tag::Ia5String, b"system:masters"),
            (Tag::TeletexString, b"system:masters"),
            (Tag::BmpString, &ucs2),
            (Tag::BmpString, &terminated),
        ] {
            assert_eq!(read(tag, bytes).as_deref(), Ok("system:masters"), "{tag}");
        }
        assert_eq!(read(Tag::NumericString, b"1 2").as_deref(), Ok("1 2"));
        assert_eq!(read(Tag::TeletexString, b"\xe9").as_deref(), Ok("é"));
        assert_eq!(read(Tag::BmpString, b"\x20\xac").as_deref(), Ok("€"));
    }

    #[test]
    fn rejects_other_string_types_and_invalid_bytes() {
        for (tag, bytes) in [
            (Tag::Utf8String, b"\xff".as_slice()),
            (Tag::PrintableString, b"a@b"),
            (Tag::Ia5String, b"\xc3\xa9"),
            (Tag::NumericString, b"a"),
            (Tag::BmpString, b"\0a\0"),
            (Tag::BmpString, b"\xd8\0\xdc\0"),
            (Tag::BmpString, b"\xff\xfe"),
        ] {
            assert!(matches!(read(tag, bytes), Err(NameError::Invalid(_))), "{tag}");
        }
        for tag in 0..31 {
            let known = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String, Tag::NumericString];
            let known = known.contains(&Tag(tag)) || [Tag::TeletexString, Tag::BmpString].contains(&Tag(tag));
            let unsupported = read(Tag(tag), b"") == Err(NameError::Unsupported(tag));
            assert_eq!(unsupported, !known, "{tag}");
        }
        let header = Header::new(Class::Universal, true, Tag::Utf8String, Length::Definite(0));
        let constructed = AttributeTypeAndValue::new(OID_X509_ORGANIZATION_NAME, Any::new(header, b""));
        assert!(text(&constructed).is_err());
    }
}
