//! Writes JSON (RFC 8259) into a buffer that does not grow beyond a bound.
//!
//! The writer puts the commas; whoever calls it opens and closes objects and arrays in pairs. Texts are chosen by peers: what JSON
//! needs escaped is escaped, everything else stays as it is, and whoever shows it on a terminal or a page escapes it for that.

/// A document that is being written.
#[derive(Debug)]
pub struct Json {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_cut: bool,
}

impl Json {
    /// An empty document that may become `bytes_max` bytes long.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max, is_cut: false }
    }

    /// Bytes that are left. Whoever writes rows stops while the next one fits.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes.len())
    }

    /// The document; `None` if something found no room.
    #[must_use]
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.is_cut).then_some(self.bytes)
    }

    /// `{`, as a value.
    pub fn begin_object(&mut self) {
        self.separate();
        self.put(b"{");
    }

    /// `}`.
    pub fn end_object(&mut self) {
        self.put(b"}");
    }

    /// `[`, as a value.
    pub fn begin_array(&mut self) {
        self.separate();
        self.put(b"[");
    }

    /// `]`.
    pub fn end_array(&mut self) {
        self.put(b"]");
    }

    /// The name of a member, whose value comes next.
    pub fn name(&mut self, name: &str) {
        self.value(name);
        self.put(b":");
    }

    /// A value: an element, or what belongs to the name before it.
    pub fn value<V: Value>(&mut self, value: V) {
        self.separate();
        value.write(self);
    }

    /// A member.
    pub fn field<V: Value>(&mut self, name: &str, value: V) {
        self.name(name);
        self.value(value);
    }

    /// A comma where something stands before. Nothing but what opens, and the colon, ends in these.
    fn separate(&mut self) {
        if !matches!(self.bytes.last(), None | Some(b'{' | b'[' | b':')) {
            self.put(b",");
        }
    }

    fn put(&mut self, piece: &[u8]) {
        if piece.len() <= self.room() && !self.is_cut {
            let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
            if length + piece.len() > capacity {
                // As a vector grows, but not beyond the bound.
                let wanted = (2 * capacity).clamp(length + piece.len(), self.bytes_max);
                self.bytes.reserve_exact(wanted - length);
            }
            self.bytes.extend_from_slice(piece);
        } else {
            self.is_cut = true;
        }
    }

    fn text(&mut self, text: &str) {
        self.put(b"\"");
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escape: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..0x20 => b"",
                _ => continue,
            };
            self.put(text.as_bytes().get(plain..at).unwrap_or_default());
            if escape.is_empty() {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 15)).copied().unwrap_or(b'0');
                self.put(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            } else {
                self.put(escape);
            }
            plain = at + 1;
        }
        self.put(text.as_bytes().get(plain..).unwrap_or_default());
        self.put(b"\"");
    }
}

/// What has a form in JSON.
pub trait Value {
    /// Writes it.
    fn write(self, json: &mut Json);
}

impl Value for &str {
    fn write(self, json: &mut Json) {
        json.text(self);
    }
}

impl Value for bool {
    fn write(self, json: &mut Json) {
        json.put(if self { b"true" } else { b"false" });
    }
}

impl Value for u64 {
    fn write(self, json: &mut Json) {
        json.put(self.to_string().as_bytes());
    }
}

impl Value for u32 {
    fn write(self, json: &mut Json) {
        u64::from(self).write(json);
    }
}

impl Value for u16 {
    fn write(self, json: &mut Json) {
        u64::from(self).write(json);
    }
}

impl Value for f64 {
    /// Three decimals; `null` for what is no number.
    fn write(self, json: &mut Json) {
        if self.is_finite() { json.put(format!("{self:.3}").as_bytes()) } else { json.put(b"null") }
    }
}

impl<V: Value> Value for Option<V> {
    fn write(self, json: &mut Json) {
        match self {
            Some(value) => value.write(json),
            None => json.put(b"null"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_is_what_another_reader_reads() {
        let mut json = Json::new(1_000);
        json.begin_object();
        json.field("text", "a\"b\\c\n\u{1}\u{e9}\u{7f}{[:,");
        json.field("number", u64::MAX);
        json.field("part", 1.5);
        json.field("none", None::<u32>);
        json.field("yes", true);
        json.name("list");
        json.begin_array();
        for number in [1_u32, 2] {
            json.begin_object();
            json.field("n", number);
            json.end_object();
        }
        json.value("x:");
        json.begin_array();
        json.end_array();
        json.end_array();
        json.end_object();
        let read: serde_json::Value = serde_json::from_slice(&json.finish().unwrap()).unwrap();
        let expected = serde_json::json!({
            "text": "a\"b\\c\n\u{1}\u{e9}\u{7f}{[:,", "number": u64::MAX, "part": 1.5, "none": null, "yes": true,
            "list": [{"n": 1}, {"n": 2}, "x:", []],
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn what_has_no_room_makes_no_document() {
        let mut json = Json::new(8);
        json.begin_array();
        json.value("abc");
        assert_eq!(json.room(), 2);
        json.value(10_u32);
        json.end_array();
        assert_eq!(json.finish(), None);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in ".*") {
            let mut json = Json::new(1 << 20);
            json.value(text.as_str());
            let read: String = serde_json::from_slice(&json.finish().unwrap()).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
