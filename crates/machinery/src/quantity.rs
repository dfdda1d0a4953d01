//! Exact resource quantities (upstream: `apimachinery/pkg/api/resource`).
//!
//! A quantity is a decimal number with a suffix: binary (`Ki`…`Ei`), decimal (`n`, `u`, `m`, empty, `k`…`E`) or an
//! exponent (`e3`). The value is stored in nanos, the finest resolution; smaller fractions are rounded up.

use std::fmt;
use std::ops::{Add, Sub};

/// Nanos per unit.
const NANO: i128 = 1_000_000_000;
/// Maximum magnitude, in nanos: 10^29 units. Upstream has no maximum.
const MAX: i128 = 10i128.pow(38);
/// Maximum magnitude of a parsed binary quantity, in nanos: 2^63 - 1 units, as upstream.
const BINARY_MAX: i128 = (i64::MAX as i128) * NANO;
/// Maximum length of the number before the suffix; longer ones are rejected.
const DIGITS_MAX: usize = 200;

/// Decimal suffixes, in descending order, with their powers of ten.
const DECIMAL: [(&str, i32); 10] =
    [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3), ("", 0), ("m", -3), ("u", -6), ("n", -9)];
/// Binary suffixes, in descending order, with their powers of two.
const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

/// A resource quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The notation of a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// The text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl Quantity {
    /// Zero, in decimal notation.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Parses a quantity.
    ///
    /// # Errors
    /// The text is not a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if text.is_empty() || fraction.contains('.') || number.len() > DIGITS_MAX {
            return Err(QuantityError);
        }
        let (scale, format) = read_suffix(suffix)?;
        // A quantity without digits is zero, unless the suffix is very large or very small.
        if whole.is_empty() && fraction.is_empty() && !scale.allows_no_digits() {
            return Err(QuantityError);
        }
        let max = if format == Format::BinarySi { BINARY_MAX } else { MAX };
        let short = if fraction.is_empty() { short_to_nanos(whole, scale) } else { None };
        let nanos = short.or_else(|| to_nanos(whole, fraction, scale)).map_or(max, |nanos| nanos.min(max));
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// Returns a quantity of `value` units, in decimal notation.
    pub fn from_value(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANO, format: Format::DecimalSi }
    }

    /// Returns a quantity of `milli` thousandths, in decimal notation.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Returns the value, rounded away from zero to a whole number.
    pub fn value(self) -> i64 {
        round_up(self.nanos, NANO)
    }

    /// Returns the value in thousandths, rounded away from zero.
    pub fn milli_value(self) -> i64 {
        round_up(self.nanos, NANO / 1000)
    }

    /// Rounds to thousandths, away from zero.
    pub fn rounded_to_milli(self) -> Self {
        const MILLI: i128 = NANO / 1000;
        let rest = self.nanos % MILLI;
        let nanos = if rest == 0 { self.nanos } else { self.nanos - rest + self.nanos.signum() * MILLI };
        Self { nanos, ..self }
    }

    /// Returns the nearest floating-point number.
    #[expect(clippy::cast_precision_loss, reason = "an approximation is what is asked for")]
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Returns the amount as an integer and a decimal exponent of at least -9, as large as possible up to `max`.
    pub fn scaled(self, max: i32) -> (i128, i32) {
        let (mut amount, mut exponent) = (self.nanos, -9);
        while exponent < max && amount % 10 == 0 {
            (amount, exponent) = (amount / 10, exponent + 1);
        }
        (amount, exponent)
    }

    /// Returns the amount in binary notation.
    #[must_use]
    pub fn in_binary(self) -> Self {
        Self { format: Format::BinarySi, ..self }
    }

    /// Returns whether the amounts are equal, whatever their notation.
    pub fn is_same_amount(self, other: Self) -> bool {
        self.nanos == other.nanos
    }

    /// Returns whether the amount is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Returns whether the amount is negative.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }
}

impl Add for Quantity {
    type Output = Self;

    /// Adds two quantities. The result has the notation of `self`, or that of `other` if `self` is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos).clamp(-MAX, MAX), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// Subtracts `other`. The result has the notation of `self`, or that of `other` if `self` is zero.
    fn sub(self, other: Self) -> Self {
        self + Self { nanos: -other.nanos, ..other }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.nanos.cmp(&other.nanos))
    }
}

impl fmt::Display for Quantity {
    /// Formats the canonical form, with the largest suffix that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match self.format {
            // A binary quantity below 1Ki, or with a fraction, is formatted in decimal notation.
            Format::BinarySi if self.nanos.abs() >= 1024 * NANO && self.nanos % NANO == 0 => {
                let value = self.nanos / NANO;
                let fits = BINARY.iter().find(|(_, bits)| value % (1i128 << bits) == 0);
                match fits {
                    Some((suffix, bits)) => write!(f, "{}{suffix}", value >> bits),
                    None => write!(f, "{value}"),
                }
            }
            Format::BinarySi | Format::DecimalSi => {
                let (digits, suffix, _) = self.decimal();
                write!(f, "{digits}{suffix}")
            }
            Format::DecimalExponent => {
                let (digits, _, exponent) = self.decimal();
                if exponent == 0 { write!(f, "{digits}") } else { write!(f, "{digits}e{exponent}") }
            }
        }
    }
}

impl Quantity {
    /// Returns the number, suffix and exponent for the largest decimal unit that needs no fraction.
    fn decimal(self) -> (i128, &'static str, i32) {
        for (suffix, exponent) in DECIMAL {
            let unit = 10i128.pow((exponent + 9).unsigned_abs());
            if self.nanos % unit == 0 {
                return (self.nanos / unit, suffix, exponent);
            }
        }
        (self.nanos, "n", -9)
    }
}

/// The factor of a suffix.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

impl Scale {
    fn allows_no_digits(self) -> bool {
        match self {
            Self::Ten(exponent) => exponent >= -9,
            Self::Two(bits) => bits <= 40,
        }
    }
}

fn read_suffix(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Ok((Scale::Ten(*exponent), Format::DecimalSi));
    }
    if let Some((_, bits)) = BINARY.iter().find(|(known, _)| *known == suffix) {
        return Ok((Scale::Two(*bits), Format::BinarySi));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    let exponent: i32 = digits.parse().map_err(|_| QuantityError)?;
    Ok((Scale::Ten(exponent.clamp(-400, 400)), Format::DecimalExponent))
}

/// Returns the magnitude of a short whole number in nanos; `None` for other numbers and small scales. Most quantities are
/// such numbers, and need no arithmetic with single digits.
fn short_to_nanos(whole: &str, scale: Scale) -> Option<i128> {
    let number = i128::from(whole.parse::<u32>().ok()?);
    match scale {
        Scale::Ten(exponent @ -9..=18) => Some(number * 10i128.pow((exponent + 9).unsigned_abs())),
        Scale::Ten(_) => None,
        Scale::Two(bits) => Some((number * NANO) << bits),
    }
}

/// Returns the magnitude in nanos, rounded up; `None` if it is too large.
fn to_nanos(whole: &str, fraction: &str, scale: Scale) -> Option<i128> {
    let (ten, factor) = match scale {
        Scale::Ten(exponent) => (exponent, 1),
        Scale::Two(bits) => (0, 1i128 << bits),
    };
    let digits: Vec<i128> = whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0')).collect();
    // The number of digits that are whole nanos before multiplication by the factor.
    let point = i32::try_from(whole.len()).ok()? + ten + 9;
    let (above, below) = digits.split_at(usize::try_from(point).unwrap_or(0).min(digits.len()));
    // Multiplies the digits below a nano from the right, so that the carry is exact.
    let (mut carry, mut rest) = (0, false);
    let zeros = (point..0).map(|_| &0);
    for digit in below.iter().rev().chain(zeros) {
        let product = digit * factor + carry;
        rest |= product % 10 != 0;
        carry = product / 10;
    }
    let mut nanos: i128 = 0;
    for digit in above {
        nanos = nanos.checked_mul(10)?.checked_add(*digit)?;
    }
    if nanos != 0 {
        let zeros = usize::try_from(point).unwrap_or(0) - above.len();
        nanos = nanos.checked_mul(10i128.checked_pow(u32::try_from(zeros).ok()?)?)?;
    }
    nanos.checked_mul(factor)?.checked_add(carry + i128::from(rest))
}

fn round_up(nanos: i128, unit: i128) -> i64 {
    let quotient = nanos.div_euclid(unit);
    // Rounds positive values up and negative values down, as upstream.
    let rounded = if nanos > 0 && nanos % unit != 0 { quotient + 1 } else { quotient };
    i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).unwrap().to_string()
    }

    #[test]
    fn formats_the_canonical_form() {
        let cases = [
            ("0", "0"),
            (".", "0"),
            ("-", "0"),
            ("e3", "0"),
            ("Ki", "0"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1.0", "1"),
            ("1000m", "1"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("1025Ki", "1025Ki"),
            ("0.5Gi", "512Mi"),
            ("1024", "1024"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e4", "120e3"),
            ("1.5k", "1500"),
            ("-1.5", "-1500m"),
            ("+3", "3"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.1Ki", "102400m"),
            ("100n", "100n"),
            ("0.0000000001", "1n"),
            ("1E", "1E"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("2048Ki", "2Mi"),
            ("9223372036854775808", "9223372036854775808"),
            ("100000000000000000000", "100E"),
            ("-1e20", "-100e18"),
            ("9223372036854775808Ki", "9223372036854775807"),
            ("0.0000000001", "1n"),
            ("0.00000000000000000000000001", "1n"),
            ("0.00000000001Ki", "11n"),
            ("0.0000000009765625Ki", "1u"),
        ];
        for (text, wanted) in cases {
            assert_eq!(canonical(text), wanted, "{text}");
        }
    }

    #[test]
    fn rejects_invalid_quantities() {
        for text in [
            "", "1.2.3", "1x", "1 ", " 1", "1ki", "1K", "Ei", "e-10", "1e", "1e3.5", "--1", "0x1", "1mi", "é",
        ] {
            assert_eq!(Quantity::parse(text), Err(QuantityError), "{text}");
        }
        assert!(Quantity::parse(&"9".repeat(1000)).is_err());
        assert_eq!(Quantity::parse(&"9".repeat(100)).unwrap().value(), i64::MAX);
        assert_eq!(Quantity::parse("1e200").unwrap().value(), i64::MAX);
        assert_eq!(Quantity::parse("0e200").unwrap().value(), 0);
    }

    #[test]
    fn rounds_values_up() {
        assert_eq!(Quantity::parse("1500m").unwrap().value(), 2);
        assert_eq!(Quantity::parse("1500m").unwrap().milli_value(), 1500);
        assert_eq!(Quantity::parse("1n").unwrap().milli_value(), 1);
        assert_eq!(Quantity::parse("1Gi").unwrap().value(), 1 << 30);
    }

    #[test]
    fn rounds_to_thousandths_away_from_zero() {
        let cases = [
            ("1n", "1m"),
            ("-1n", "-1m"),
            ("1000u", "1m"),
            ("1001u", "2m"),
            ("1e-4", "1e-3"),
            ("1Gi", "1Gi"),
            ("0", "0"),
        ];
        for (text, wanted) in cases {
            assert_eq!(Quantity::parse(text).unwrap().rounded_to_milli().to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn sums_keep_the_notation() {
        let sum = |a: &str, b: &str| (Quantity::parse(a).unwrap() + Quantity::parse(b).unwrap()).to_string();
        assert_eq!(sum("1Gi", "1Gi"), "2Gi");
        assert_eq!(sum("100m", "900m"), "1");
        assert_eq!(sum("0", "1Mi"), "1Mi");
        assert!((Quantity::parse("1").unwrap() - Quantity::parse("2").unwrap()).is_negative());
        assert!(Quantity::parse("1Ki").unwrap() > Quantity::parse("1k").unwrap());
    }

    /// Each digit below a nano adds a fraction that a binary suffix makes larger than a nano.
    #[test]
    fn binary_suffixes_carry_fractions_of_nanos() {
        let cases = [
            ("0.0000000009999999999Ki", 1024),
            ("0.00000000055555Mi", 582_537),
            ("0.00000000099999999999999999999999Ei", 1_152_921_504_606_846_976),
        ];
        for (text, nanos) in cases {
            assert_eq!(Quantity::parse(text).unwrap().nanos, nanos, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[-+0-9.eEinumkKMGTP]{0,30}") {
            if let Ok(quantity) = Quantity::parse(&text) {
                let _ = (quantity.value(), quantity.milli_value(), quantity.to_string());
            }
        }

        /// Compares with integer arithmetic on nanos.
        #[test]
        fn decimal_values_are_exact(nanos in -1_000_000_000_000_000i64..1_000_000_000_000_000) {
            let sign = if nanos < 0 { "-" } else { "" };
            let (whole, part) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
            let quantity = Quantity::parse(&format!("{sign}{whole}.{part:09}")).unwrap();
            prop_assert_eq!(quantity.nanos, i128::from(nanos));
            prop_assert_eq!(Quantity::parse(&quantity.to_string()).unwrap().nanos, i128::from(nanos));
        }

        #[test]
        fn short_numbers_have_the_same_value(number: u32, exponent in -9i32..=18, bits in 0u32..=60) {
            for scale in [Scale::Ten(exponent), Scale::Two(bits)] {
                let whole = number.to_string();
                prop_assert_eq!(short_to_nanos(&whole, scale), to_nanos(&whole, "", scale));
            }
        }

        #[test]
        fn binary_values_are_exact(count in 0i64..1_000_000, suffix in 0usize..6) {
            let (name, bits) = BINARY[suffix];
            let wanted = (i128::from(count) << bits).min(i128::from(i64::MAX));
            let quantity = Quantity::parse(&format!("{count}{name}")).unwrap();
            prop_assert_eq!(i128::from(quantity.value()), wanted);
            prop_assert_eq!(Quantity::parse(&quantity.to_string()).unwrap().nanos, quantity.nanos);
        }
    }
}
