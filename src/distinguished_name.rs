//! Distinguished names: parsed from configuration text, read from certificates, compared, printed.
//!
//! The text form is the one that OpenSSL prints (`CN = Contoso Root CA Cert, OU = Engineering, C = US`), read tolerantly:
//! blanks around `=` and `,` do not matter, and values may be quoted or escaped as RFC 4514 §2.4 says. Two names are equal
//! when their relative names are equal, case-sensitively, in encoded order or, because RFC 4514 text is written backwards,
//! in reversed order.

use core::fmt;
use serde::{Deserialize, Serialize};
use x509_cert::attr::{AttributeTypeAndValue, AttributeValue};
use x509_cert::der::asn1::{ObjectIdentifier, SetOfVec};
use x509_cert::der::{Tag, Tagged};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

/// One attribute of a name: the content bytes of its type's object identifier in DER, and its value.
pub type Attribute = (Vec<u8>, String);

/// A distinguished name as a list of relative distinguished names in encoded order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DistinguishedName {
    /// The attributes of each relative name, sorted, because they are a set.
    pub relative_names: Vec<Vec<Attribute>>,
}

/// Most relative names of a name that is read.
const RELATIVE_NAMES_MAX: usize = 64;

/// Attribute types by their short and long names, as RFC 4519 and OpenSSL give them. The first name of a type is printed.
const TYPES: [(&str, &str); 36] = [
    ("CN", "2.5.4.3"),
    ("commonName", "2.5.4.3"),
    ("SN", "2.5.4.4"),
    ("surname", "2.5.4.4"),
    ("serialNumber", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("countryName", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("localityName", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("S", "2.5.4.8"),
    ("stateOrProvinceName", "2.5.4.8"),
    ("street", "2.5.4.9"),
    ("streetAddress", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("organizationName", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("organizationalUnitName", "2.5.4.11"),
    ("title", "2.5.4.12"),
    ("description", "2.5.4.13"),
    ("businessCategory", "2.5.4.15"),
    ("postalCode", "2.5.4.17"),
    ("name", "2.5.4.41"),
    ("GN", "2.5.4.42"),
    ("givenName", "2.5.4.42"),
    ("initials", "2.5.4.43"),
    ("generationQualifier", "2.5.4.44"),
    ("dnQualifier", "2.5.4.46"),
    ("pseudonym", "2.5.4.65"),
    ("organizationIdentifier", "2.5.4.97"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("userId", "0.9.2342.19200300.100.1.1"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("domainComponent", "0.9.2342.19200300.100.1.25"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
    ("E", "1.2.840.113549.1.9.1"),
];

/// Content bytes of id-at-commonName.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// Why a text is no distinguished name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Byte offset of the mistake.
    pub offset: usize,
    /// What is wrong there.
    pub reason: SyntaxFault,
}

/// What is wrong in the text of a distinguished name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyntaxFault {
    /// Nothing but blanks.
    Empty,
    /// `TYPE = value` was expected.
    ExpectedAttribute,
    /// The type is neither a known name nor an object identifier.
    UnknownType(String),
    /// The value is empty.
    EmptyValue,
    /// A quotation mark is never closed.
    OpenQuote,
    /// Something stands between a closing quotation mark and the next separator.
    AfterQuote,
    /// A backslash is followed by neither a special character nor two hexadecimal digits.
    Escape,
    /// The escaped bytes are not UTF-8.
    NotUtf8,
    /// A value in hexadecimal BER (`#04…`), which cannot be compared as text.
    HexadecimalValue,
    /// The slash-separated form of old OpenSSL, which is ambiguous.
    SlashForm,
    /// More relative names than any certificate has.
    TooLong,
}

impl fmt::Display for SyntaxFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::ExpectedAttribute => f.write_str("expected TYPE = value"),
            Self::UnknownType(given) => write!(f, "unknown attribute type \"{}\"", given.escape_debug()),
            Self::EmptyValue => f.write_str("the value is empty"),
            Self::OpenQuote => f.write_str("the quotation mark is never closed"),
            Self::AfterQuote => f.write_str("expected a comma after the closing quotation mark"),
            Self::Escape => {
                f.write_str("a backslash must be followed by a special character or two hexadecimal digits")
            }
            Self::NotUtf8 => f.write_str("the value is not UTF-8"),
            Self::HexadecimalValue => f.write_str("a value in hexadecimal cannot be compared as text"),
            Self::SlashForm => f.write_str("write it as CN = name, O = organization"),
            Self::TooLong => write!(f, "more than {RELATIVE_NAMES_MAX} parts"),
        }
    }
}

/// A certificate's name has a value that is no text, or is far too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadableName;

impl DistinguishedName {
    /// Reads a name from text.
    ///
    /// # Errors
    /// The first mistake and where it is.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        Parser { text, at: 0 }.name()
    }

    /// Reads the name of a certificate.
    ///
    /// # Errors
    /// [`UnreadableName`] when a value is not a string type of X.520, is not valid in its type, or there are too many.
    pub fn from_name(name: &Name) -> Result<Self, UnreadableName> {
        if name.0.len() > RELATIVE_NAMES_MAX {
            return Err(UnreadableName);
        }
        let mut relative_names = Vec::with_capacity(name.0.len());
        for relative_name in &name.0 {
            let mut attributes = Vec::new();
            for attribute in relative_name.0.iter() {
                attributes.push((attribute.oid.as_bytes().to_vec(), text_of(&attribute.value)?));
            }
            attributes.sort();
            relative_names.push(attributes);
        }
        Ok(Self { relative_names })
    }

    /// Makes the name for a certificate, all values as UTF8String. `None` when a type or value cannot be encoded.
    #[must_use]
    pub fn to_name(&self) -> Option<Name> {
        let mut names = Vec::new();
        for attributes in &self.relative_names {
            let mut set = SetOfVec::new();
            for (kind, value) in attributes {
                let oid = ObjectIdentifier::from_bytes(kind).ok()?;
                let value = AttributeValue::new(Tag::Utf8String, value.as_bytes()).ok()?;
                set.insert(AttributeTypeAndValue { oid, value }).ok()?;
            }
            names.push(RelativeDistinguishedName(set));
        }
        Some(RdnSequence(names))
    }

    /// Whether both name the same subject: equal, in the same or in reversed order.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.relative_names == other.relative_names || self.relative_names.iter().eq(other.relative_names.iter().rev())
    }

    /// The common names, in encoded order.
    pub fn common_names(&self) -> impl Iterator<Item = &str> {
        let attributes = self.relative_names.iter().flatten();
        attributes.filter(|(kind, _)| kind == COMMON_NAME).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for DistinguishedName {
    /// Prints the form that [`DistinguishedName::parse`] reads, ready to paste. Control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attributes) in self.relative_names.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            for (index, (kind, value)) in attributes.iter().enumerate() {
                if index > 0 {
                    f.write_str(" + ")?;
                }
                write_type(f, kind)?;
                f.write_str(" = ")?;
                write_value(f, value)?;
            }
        }
        Ok(())
    }
}

fn write_type(f: &mut fmt::Formatter<'_>, kind: &[u8]) -> fmt::Result {
    let Ok(identifier) = ObjectIdentifier::from_bytes(kind) else { return f.write_str("?") };
    let known = TYPES.iter().find(|(_, dotted)| ObjectIdentifier::new(dotted) == Ok(identifier));
    match known {
        Some((name, _)) => f.write_str(name),
        None => write!(f, "{identifier}"),
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    use fmt::Write as _;
    let quoted = value.contains([',', '+', '"', '\\', '<', '>', ';', '='])
        || value.starts_with(['#', ' '])
        || value.ends_with(' ');
    if quoted {
        f.write_char('"')?;
    }
    for character in value.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            _ if character.is_control() => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    write!(f, "\\{byte:02X}")?;
                }
            }
            _ => f.write_char(character)?,
        }
    }
    if quoted {
        f.write_char('"')?;
    }
    Ok(())
}

/// The text of a value, whatever string type of X.520 it has.
fn text_of(value: &AttributeValue) -> Result<String, UnreadableName> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            core::str::from_utf8(bytes).map(str::to_owned).map_err(|_| UnreadableName)
        }
        // T.61 is in practice read as ISO 8859-1.
        Tag::TeletexString => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let (units, rest) = bytes.as_chunks::<2>();
            if !rest.is_empty() {
                return Err(UnreadableName);
            }
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            char::decode_utf16(units).collect::<Result<String, _>>().map_err(|_| UnreadableName)
        }
        _ => Err(UnreadableName),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn name(mut self) -> Result<DistinguishedName, SyntaxError> {
        self.skip_blanks();
        match self.peek() {
            None => return Err(self.fault(SyntaxFault::Empty)),
            Some(b'/') => return Err(self.fault(SyntaxFault::SlashForm)),
            Some(_) => {}
        }
        let mut relative_names = Vec::new();
        loop {
            if relative_names.len() == RELATIVE_NAMES_MAX {
                return Err(self.fault(SyntaxFault::TooLong));
            }
            let mut attributes = vec![self.attribute()?];
            while self.take_if(b'+') {
                attributes.push(self.attribute()?);
            }
            attributes.sort();
            relative_names.push(attributes);
            if !self.take_if(b',') {
                return Ok(DistinguishedName { relative_names });
            }
        }
    }

    fn attribute(&mut self) -> Result<Attribute, SyntaxError> {
        self.skip_blanks();
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or_default();
        let length = rest.find(['=', ',', '+', '"']).unwrap_or(rest.len());
        let name = rest.get(..length).unwrap_or_default().trim_end();
        if rest.as_bytes().get(length) != Some(&b'=') || name.is_empty() {
            return Err(SyntaxError { offset: start, reason: SyntaxFault::ExpectedAttribute });
        }
        let kind = type_named(name)
            .ok_or_else(|| SyntaxError { offset: start, reason: SyntaxFault::UnknownType(name.to_owned()) })?;
        self.at = start + length + 1;
        self.skip_blanks();
        let value_start = self.at;
        let bytes = match self.peek() {
            Some(b'"') => self.quoted()?,
            Some(b'#') => return Err(self.fault(SyntaxFault::HexadecimalValue)),
            _ => self.unquoted()?,
        };
        if bytes.is_empty() {
            return Err(SyntaxError { offset: value_start, reason: SyntaxFault::EmptyValue });
        }
        let value =
            String::from_utf8(bytes).map_err(|_| SyntaxError { offset: value_start, reason: SyntaxFault::NotUtf8 })?;
        Ok((kind, value))
    }

    fn quoted(&mut self) -> Result<Vec<u8>, SyntaxError> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.peek() {
                None => return Err(SyntaxError { offset: start, reason: SyntaxFault::OpenQuote }),
                Some(b'"') => break,
                Some(b'\\') => bytes.push(self.escape()?),
                Some(byte) => {
                    bytes.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        self.skip_blanks();
        match self.peek() {
            None | Some(b',' | b'+') => Ok(bytes),
            Some(_) => Err(self.fault(SyntaxFault::AfterQuote)),
        }
    }

    /// Up to the next separator. Blanks at the end are dropped unless they are escaped.
    fn unquoted(&mut self) -> Result<Vec<u8>, SyntaxError> {
        let mut bytes = Vec::new();
        let mut kept = 0;
        while let Some(byte) = self.peek() {
            match byte {
                b',' | b'+' => break,
                b'\\' => {
                    bytes.push(self.escape()?);
                    kept = bytes.len();
                }
                _ => {
                    bytes.push(byte);
                    self.at += 1;
                    if byte != b' ' && byte != b'\t' {
                        kept = bytes.len();
                    }
                }
            }
        }
        bytes.truncate(kept);
        Ok(bytes)
    }

    fn escape(&mut self) -> Result<u8, SyntaxError> {
        let rest = self.text.as_bytes().get(self.at + 1..).unwrap_or_default();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (byte, length) = match rest {
            [special @ (b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=' | b'#' | b' ' | b'/'), ..] => {
                (*special, 2)
            }
            [high, low, ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err(self.fault(SyntaxFault::Escape)),
            },
            _ => return Err(self.fault(SyntaxFault::Escape)),
        };
        self.at += length;
        Ok(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take_if(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn fault(&self, reason: SyntaxFault) -> SyntaxError {
        SyntaxError { offset: self.at, reason }
    }
}

/// The content bytes of a type's object identifier: by its name, whose case does not matter, or by its dotted numbers.
fn type_named(name: &str) -> Option<Vec<u8>> {
    let known = TYPES.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, dotted)| *dotted);
    let dotted = known.unwrap_or_else(|| name.strip_prefix("OID.").or(name.strip_prefix("oid.")).unwrap_or(name));
    ObjectIdentifier::new(dotted).ok().map(|identifier| identifier.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DistinguishedName {
        DistinguishedName::parse(text).unwrap()
    }

    #[test]
    fn blanks_and_escapes_do_not_matter() {
        for text in ["CN=smart-fan", "CN = smart-fan", "  CN =smart-fan ", "cn = \"smart-fan\"", "2.5.4.3=smart\\2Dfan"]
        {
            assert_eq!(name(text), name("CN=smart-fan"), "{text}");
        }
        assert_eq!(name(r#"CN = "Acme, Inc. \"edge\"""#), name(r#"CN=Acme\, Inc. \"edge\""#));
        assert_eq!(name(r"CN=M\C3\BCller"), name("CN=Müller"));
        assert_eq!(name("CN=a b ").relative_names[0][0].1, "a b");
        assert_eq!(name(r"CN=a\ ").relative_names[0][0].1, "a ");
    }

    #[test]
    fn the_order_may_be_reversed_and_the_case_matters() {
        let documented = name("CN = Contoso Root CA Cert, OU = Engineering, C = US");
        assert!(documented.is_same_as(&name("C=US,OU=Engineering,CN=Contoso Root CA Cert")));
        assert!(!documented.is_same_as(&name("OU=Engineering,C=US,CN=Contoso Root CA Cert")));
        assert!(!documented.is_same_as(&name("CN = contoso root ca cert, OU = Engineering, C = US")));
        assert!(!documented.is_same_as(&name("CN = Contoso Root CA Cert, OU = Engineering")));
        assert!(!name("CN=a").is_same_as(&name("O=a")));
    }

    #[test]
    fn a_multi_valued_part_is_a_set() {
        assert_eq!(name("CN=a+O=b, C=US"), name("O=b + CN=a, C=US"));
        assert_ne!(name("CN=a+O=b"), name("CN=a,O=b"));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, offset, reason) in [
            ("", 0, SyntaxFault::Empty),
            ("   ", 3, SyntaxFault::Empty),
            ("/C=US/CN=x", 0, SyntaxFault::SlashForm),
            ("smart-fan", 0, SyntaxFault::ExpectedAttribute),
            ("CN=a, b", 6, SyntaxFault::ExpectedAttribute),
            ("CN=a,", 5, SyntaxFault::ExpectedAttribute),
            ("CN=a, XX=b", 6, SyntaxFault::UnknownType("XX".to_owned())),
            ("1.999.1=b", 0, SyntaxFault::UnknownType("1.999.1".to_owned())),
            ("CN=", 3, SyntaxFault::EmptyValue),
            ("CN=  , O=b", 5, SyntaxFault::EmptyValue),
            ("CN=\"a", 3, SyntaxFault::OpenQuote),
            ("CN=\"a\"b", 6, SyntaxFault::AfterQuote),
            (r"CN=a\", 4, SyntaxFault::Escape),
            (r"CN=\zz", 3, SyntaxFault::Escape),
            (r"CN=\FF", 3, SyntaxFault::NotUtf8),
            ("CN=#0401", 3, SyntaxFault::HexadecimalValue),
        ] {
            assert_eq!(DistinguishedName::parse(text), Err(SyntaxError { offset, reason }), "{text:?}");
        }
        let long = vec!["CN=a"; RELATIVE_NAMES_MAX + 1].join(",");
        assert_eq!(DistinguishedName::parse(&long).unwrap_err().reason, SyntaxFault::TooLong);
    }

    #[test]
    fn what_is_printed_is_read_again() {
        for text in [
            "CN = thermostat",
            "CN = Contoso Root CA Cert, OU = Engineering, C = US",
            r#"CN = "Acme, Inc. \"edge\"""#,
            r"CN = line\0Abreak",
            "DC = com, UID = 7 + CN = x, 1.2.3.4 = y",
            r##"O = "#7", L = " a ""##,
        ] {
            assert_eq!(name(&name(text).to_string()), name(text), "{text}");
        }
        assert_eq!(name("c=US, cn=x").to_string(), "C = US, CN = x");
        assert_eq!(name(r#"CN=Acme\, Inc. \"edge\""#).to_string(), r#"CN = "Acme, Inc. \"edge\"""#);
        assert!(!name(r"CN=\1B[31m").to_string().contains('\u{1b}'));
    }

    #[test]
    fn names_of_certificates_are_read_whatever_their_string_type() {
        let encode = |tag, bytes: &[u8]| {
            let mut set = SetOfVec::new();
            let value = AttributeValue::new(tag, bytes).unwrap();
            set.insert(AttributeTypeAndValue { oid: ObjectIdentifier::new("2.5.4.3").unwrap(), value }).unwrap();
            RdnSequence(vec![RelativeDistinguishedName(set)])
        };
        for (tag, bytes) in [
            (Tag::Utf8String, &b"fan"[..]),
            (Tag::PrintableString, b"fan"),
            (Tag::Ia5String, b"fan"),
            (Tag::TeletexString, b"fan"),
            (Tag::BmpString, b"\0f\0a\0n"),
        ] {
            assert_eq!(DistinguishedName::from_name(&encode(tag, bytes)), Ok(name("CN=fan")), "{tag:?}");
        }
        for (tag, bytes) in [
            (Tag::Utf8String, &b"\xff"[..]),
            (Tag::BmpString, b"\0f\0"),
            (Tag::BmpString, b"\xd8\0\0a"),
            (Tag::Null, b""),
        ] {
            assert_eq!(DistinguishedName::from_name(&encode(tag, bytes)), Err(UnreadableName), "{tag:?}");
        }
        let written = name("CN=a+O=b, C=US");
        assert_eq!(DistinguishedName::from_name(&written.to_name().unwrap()), Ok(written));
    }

    #[test]
    fn common_names_are_counted() {
        assert_eq!(name("O=x").common_names().count(), 0);
        assert_eq!(name("CN=a, O=x, CN=b").common_names().collect::<Vec<_>>(), ["a", "b"]);
    }
}
