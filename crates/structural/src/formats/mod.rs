//! The formats that definitions may use (upstream: `apiserver/validation/formats.go`,
//! `kube-openapi/pkg/validation/strfmt`). Other formats are not checked.

mod codes;
mod host;
mod moments;
mod uri;

pub use uri::RequestUri;

/// A format that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Format {
    BsonObjectId,
    Uri,
    Email,
    Hostname,
    Ipv4,
    Ipv6,
    Cidr,
    Mac,
    Uuid,
    Uuid3,
    Uuid4,
    Uuid5,
    Isbn,
    Isbn10,
    Isbn13,
    CreditCard,
    Ssn,
    HexColor,
    RgbColor,
    Byte,
    Password,
    Date,
    Duration,
    DateTime,
    /// `date-time`, the usual spelling of [`Self::DateTime`].
    DateDashTime,
    ShortName,
    LongName,
    Int32,
    Int64,
    Float,
    Double,
}

impl Format {
    /// Returns the format with this name, if it is checked for values of the type. An empty type is any type.
    pub fn supported(name: &str, kind: &str) -> Option<Self> {
        match kind {
            "" | "string" => Self::textual(name),
            "integer" => match name {
                "int32" => Some(Self::Int32),
                "int64" => Some(Self::Int64),
                _ => None,
            },
            "number" => match name {
                "float" => Some(Self::Float),
                "double" => Some(Self::Double),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns the string format with this name, ignoring dashes.
    fn textual(name: &str) -> Option<Self> {
        Some(match name.replace('-', "").as_str() {
            "bsonobjectid" => Self::BsonObjectId,
            "uri" => Self::Uri,
            "email" => Self::Email,
            "hostname" => Self::Hostname,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "cidr" => Self::Cidr,
            "mac" => Self::Mac,
            "uuid" => Self::Uuid,
            "uuid3" => Self::Uuid3,
            "uuid4" => Self::Uuid4,
            "uuid5" => Self::Uuid5,
            "isbn" => Self::Isbn,
            "isbn10" => Self::Isbn10,
            "isbn13" => Self::Isbn13,
            "creditcard" => Self::CreditCard,
            "ssn" => Self::Ssn,
            "hexcolor" => Self::HexColor,
            "rgbcolor" => Self::RgbColor,
            "byte" => Self::Byte,
            "password" => Self::Password,
            "date" => Self::Date,
            "duration" => Self::Duration,
            "datetime" if name.contains('-') => Self::DateDashTime,
            "datetime" => Self::DateTime,
            "k8sshortname" => Self::ShortName,
            "k8slongname" => Self::LongName,
            _ => return None,
        })
    }

    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BsonObjectId => "bsonobjectid",
            Self::Uri => "uri",
            Self::Email => "email",
            Self::Hostname => "hostname",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Cidr => "cidr",
            Self::Mac => "mac",
            Self::Uuid => "uuid",
            Self::Uuid3 => "uuid3",
            Self::Uuid4 => "uuid4",
            Self::Uuid5 => "uuid5",
            Self::Isbn => "isbn",
            Self::Isbn10 => "isbn10",
            Self::Isbn13 => "isbn13",
            Self::CreditCard => "creditcard",
            Self::Ssn => "ssn",
            Self::HexColor => "hexcolor",
            Self::RgbColor => "rgbcolor",
            Self::Byte => "byte",
            Self::Password => "password",
            Self::Date => "date",
            Self::Duration => "duration",
            Self::DateTime => "datetime",
            Self::DateDashTime => "date-time",
            Self::ShortName => "k8s-short-name",
            Self::LongName => "k8s-long-name",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float => "float",
            Self::Double => "double",
        }
    }

    /// Returns whether the format applies to numbers.
    pub(crate) fn is_numeric(self) -> bool {
        matches!(self, Self::Int32 | Self::Int64 | Self::Float | Self::Double)
    }

    /// Returns whether the format applies to strings.
    pub(crate) fn is_textual(self) -> bool {
        !self.is_numeric()
    }

    /// Returns whether a text has the format.
    pub fn matches(self, text: &str) -> bool {
        match self {
            Self::BsonObjectId => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            Self::Uri => RequestUri::parse(text).is_some(),
            Self::Email => host::is_email(text),
            Self::Hostname => host::is_hostname(text),
            Self::Ipv4 => host::is_ipv4(text),
            Self::Ipv6 => host::is_ipv6(text),
            Self::Cidr => host::is_cidr(text),
            Self::Mac => host::is_mac(text),
            Self::Uuid => codes::is_uuid(text, None),
            Self::Uuid3 => codes::is_uuid(text, Some(b'3')),
            Self::Uuid4 => codes::is_uuid(text, Some(b'4')),
            Self::Uuid5 => codes::is_uuid(text, Some(b'5')),
            Self::Isbn => codes::is_isbn10(text) || codes::is_isbn13(text),
            Self::Isbn10 => codes::is_isbn10(text),
            Self::Isbn13 => codes::is_isbn13(text),
            Self::CreditCard => codes::is_credit_card(text),
            Self::Ssn => codes::is_ssn(text),
            Self::HexColor => codes::is_hex_color(text),
            Self::RgbColor => codes::is_rgb_color(text),
            Self::Byte => codes::is_base64(text),
            Self::Password | Self::Int32 | Self::Int64 | Self::Float | Self::Double => true,
            Self::Date => moments::is_date(text),
            Self::Duration => moments::is_duration(text),
            Self::DateTime | Self::DateDashTime => moments::is_date_time(text),
            Self::ShortName => text.len() <= 63 && host::is_lower_label(text),
            Self::LongName => text.len() <= 253 && text.split('.').all(host::is_lower_label),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_refuse_as_upstream() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f1f77bcf86cd79943901", "x"]),
            (
                "uri",
                &["https://a.b/c?d#e", "/x", "mailto:a", "*"],
                &["", "a/b", "http://a b/", "http://a/%zz"],
            ),
            (
                "email",
                &["a@b", "A <a.b@c.d>", "\"x y\"@z"],
                &["", "a", "a@", "@b", "a b@c", "<a@b", "a@b, c@d"],
            ),
            (
                "hostname",
                &["a", "a-b", "a.example", "ä.example", "x-"],
                &["", "my-host", "a..b", "-a.bc", "a.b1", "a.c"],
            ),
            ("ipv4", &["1.2.3.4", "01.002.3.4", "::ffff:1.2.3.4"], &["1.2.3", "1.2.3.256", "::1", ""]),
            ("ipv6", &["::1", "::ffff:1.2.3.4"], &["1.2.3.4", "fe80::1%eth0", ":"]),
            (
                "cidr",
                &["10.0.0.0/8", "::/0", "01.0.0.1/32"],
                &["10.0.0.0", "10.0.0.0/33", "::/129", "1.2.3.4/+8"],
            ),
            (
                "mac",
                &["01:23:45:67:89:ab", "01-23-45-67-89-ab-cd-ef", "0123.4567.89ab", "0123456789AB"],
                &[
                    "01:23",
                    "01:23:45:67:89:",
                    "01:23-45:67:89:ab",
                    "1:2:3:4:5:6",
                    "0123456789a",
                    "0123456789ag",
                ],
            ),
            (
                "uuid",
                &["7D444840-9DC0-11D1-B245-5FFDCE74FAD2", "7d4448409dc011d1b2455ffdce74fad2"],
                &["7d444840", "g"],
            ),
            ("uuid3", &["7d444840-9dc0-31d1-0245-5ffdce74fad2"], &["7d444840-9dc0-41d1-b245-5ffdce74fad2"]),
            ("uuid4", &["7d444840-9dc0-41d1-b245-5ffdce74fad2"], &["7d444840-9dc0-41d1-0245-5ffdce74fad2"]),
            ("uuid5", &["7d444840-9dc0-51d1-a245-5ffdce74fad2"], &["7d444840-9dc0-11d1-a245-5ffdce74fad2"]),
            ("isbn", &["0321751043", "978-0321751041"], &["0321751044", "978-0321751042", ""]),
            ("isbn10", &["0 321 75104 3", "080442957X"], &["978-0321751041", "03217510é"]),
            ("isbn13", &["978-0321751041"], &["0321751043"]),
            ("creditcard", &["4111 1111 1111 1111", "378282246310005"], &["4111 1111 1111 1112", "1234", ""]),
            ("ssn", &["111-11-1111", "111 11 1111"], &["111111111", "11-111-1111"]),
            ("hexcolor", &["#FFFFFF", "abc"], &["#FFFF", "#ggg", "##abc"]),
            ("rgbcolor", &["rgb(255,0, 19)", "rgb( 1 ,2,3)"], &["rgb(256,0,0)", "rgb(1,2)", "RGB(1,2,3)"]),
            ("byte", &["VGVzdA==", "AAAA", "AAA="], &["", "A", "AA", "A===", "AAAA AAAA", "_-__"]),
            ("password", &["", "anything"], &[]),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-2-9", "2024-13-01", "x", "2024-01-01T"]),
            ("duration", &["1h", "22 ns", "3 days", "1.5h", "x5 weeksy"], &["", "5", "5 parsecs", "h"]),
            (
                "datetime",
                &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+02:00"],
                &["2014-12-15", "2014-12-15T24:00:00Z", "2014-12-15T19:30:20", "T19:30:20Z"],
            ),
            ("k8s-short-name", &["a-b", "9"], &["", "A", "a.b", "-a", "a-"]),
            ("k8s-long-name", &["a-b.c", "9"], &["", "A", "a..b", "-a", "a-"]),
        ];
        for (name, good, bad) in cases {
            let format = Format::supported(name, "string").unwrap();
            for text in *good {
                assert!(format.matches(text), "{name} refuses {text:?}");
            }
            for text in *bad {
                assert!(!format.matches(text), "{name} accepts {text:?}");
            }
        }
    }

    #[test]
    fn a_format_belongs_to_a_type() {
        assert_eq!(Format::supported("date-time", "").map(Format::as_str), Some("date-time"));
        assert_eq!(Format::supported("int32", "integer"), Some(Format::Int32));
        for (name, kind) in
            [("int32", "string"), ("int32", "number"), ("uri", "object"), ("postcode", "string")]
        {
            assert_eq!(Format::supported(name, kind), None, "{name} {kind}");
        }
    }
}
