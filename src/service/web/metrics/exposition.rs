//! Prometheus' text format, version 0.0.4, into a buffer that does not grow beyond a bound.

use crate::telemetry::Histogram;
use core::fmt::{self, Write as _};

/// What a client of this format asks for.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for a restart.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Whole.
    Count(u64),
    /// In parts.
    Real(f64),
    /// Seconds, given in milliseconds.
    Milliseconds(u64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(value) => write!(f, "{value}"),
            Self::Real(value) => write!(f, "{value:.6}"),
            Self::Milliseconds(value) => write!(f, "{}.{:03}", value / 1_000, value % 1_000),
        }
    }
}

/// A text that is being written.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    bytes_max: usize,
    is_cut: bool,
}

impl Exposition {
    /// An empty text that may become `bytes_max` bytes long.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { text: String::with_capacity(bytes_max.min(32 * 1024)), bytes_max, is_cut: false }
    }

    /// The text; `None` if something found no room.
    #[must_use]
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.is_cut).then(|| self.text.into_bytes())
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.put(&["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
    }

    /// A sample of the family that was begun.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: Number) {
        self.line(name, "", labels, value);
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: Number) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A family that is a histogram of seconds.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.put(&["# HELP ", name, " ", help, "\n# TYPE ", name, " histogram\n"]);
        for (bound, count) in histogram.cumulative() {
            let bound = Number::Milliseconds(bound).to_string();
            self.line(name, "_bucket", &[("le", &bound)], Number::Count(count));
        }
        self.line(name, "_bucket", &[("le", "+Inf")], Number::Count(histogram.count()));
        self.line(name, "_sum", &[], Number::Milliseconds(histogram.sum_milliseconds()));
        self.line(name, "_count", &[], Number::Count(histogram.count()));
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: Number) {
        self.put(&[name, suffix]);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.put(&[if index == 0 { "{" } else { "," }, label, "=\""]);
            self.escaped(text);
            self.put(&["\""]);
        }
        let mut number = heapless::String::<32>::new();
        // A number of 64 bits, with a point, has fewer characters.
        self.is_cut |= write!(number, "{value}").is_err();
        self.put(&[if labels.is_empty() { " " } else { "} " }, &number, "\n"]);
    }

    /// The value of a label. What would end it or its line is escaped; other control characters, which the format lets stand,
    /// are not worth what they do to a terminal.
    fn escaped(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\\' => self.put(&["\\\\"]),
                '"' => self.put(&["\\\""]),
                '\n' => self.put(&["\\n"]),
                other if other.is_control() => self.put(&["\u{FFFD}"]),
                other => self.put(&[other.encode_utf8(&mut [0; 4])]),
            }
        }
    }

    fn put(&mut self, pieces: &[&str]) {
        for piece in pieces {
            if self.is_cut || self.text.len() + piece.len() > self.bytes_max {
                self.is_cut = true;
                return;
            }
            self.text.push_str(piece);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_its_line() {
        let mut text = Exposition::new(1_000);
        text.family("x_total", Kind::Counter, "What.");
        text.sample("x_total", &[("a", "q\"\\\n\u{1b}ü"), ("b", "")], Number::Count(7));
        let expected = "# HELP x_total What.\n# TYPE x_total counter\nx_total{a=\"q\\\"\\\\\\n\u{FFFD}ü\",b=\"\"} 7\n";
        assert_eq!(text.finish().unwrap(), expected.as_bytes());
    }

    #[test]
    fn a_histogram_counts_up_to_infinity() {
        let mut histogram = Histogram::default();
        histogram.observe(3);
        histogram.observe(20_500);
        let mut text = Exposition::new(2_000);
        text.histogram("x_seconds", "What.", &histogram);
        let text = String::from_utf8(text.finish().unwrap()).unwrap();
        for line in [
            "x_seconds_bucket{le=\"0.002\"} 0",
            "x_seconds_bucket{le=\"0.005\"} 1",
            "x_seconds_bucket{le=\"10.000\"} 1",
            "x_seconds_bucket{le=\"+Inf\"} 2",
            "x_seconds_sum 20.503",
            "x_seconds_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn what_has_no_room_makes_no_text() {
        let mut text = Exposition::new(40);
        text.single("x", Kind::Gauge, "What.", Number::Count(1));
        assert_eq!(text.finish().map(|text| text.len()), Some(34));
        let mut text = Exposition::new(33);
        text.single("x", Kind::Gauge, "What.", Number::Count(1));
        assert_eq!(text.finish(), None);
    }
}
