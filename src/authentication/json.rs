//! JSON that others send, read more strictly than serde does by default.
//!
//! serde takes an array for a structure (`[]` for one whose members are all optional) and lets the last of several equal
//! names win in a map. Either could make a yes of what was none. The depth is bounded by `serde_json`, the length by who
//! read the bytes.

use core::fmt;
use core::marker::PhantomData;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// A `T` that is written as an object, and as nothing else.
pub(super) struct Object<T>(pub(super) T);

/// The members of an object in their order, every name once.
pub(super) struct Members<T>(pub(super) Vec<(String, T)>);

struct ObjectVisitor<T>(PhantomData<T>);
struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = Members<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom("a name is given twice"));
            }
            members.push((name, value));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Optional {
        a: Option<u8>,
    }

    fn object(text: &str) -> Option<Option<u8>> {
        serde_json::from_str::<Object<Optional>>(text).ok().map(|Object(read)| read.a)
    }

    #[test]
    fn only_an_object_is_an_object() {
        assert_eq!(object("{}"), Some(None));
        assert_eq!(object(r#" { "a" : 1, "b": [] } "#), Some(Some(1)));
        for text in ["[]", "[1]", "null", "1", "\"a\"", "", "{", r#"{"a":1,"a":1}"#, "{} {}"] {
            assert_eq!(object(text), None, "{text}");
        }
    }

    #[test]
    fn members_keep_their_order_and_have_one_value() {
        let Members(members) = serde_json::from_str::<Members<String>>(r#"{"b":"1","a":"2"}"#).unwrap();
        assert_eq!(members, [("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())]);
        for text in [r#"{"a":"1","a":"1"}"#, r#"{"a":1}"#, r#"{"a":null}"#, "[]", r#"{"\u0061":"1","a":"2"}"#] {
            assert!(serde_json::from_str::<Members<String>>(text).is_err(), "{text}");
        }
    }
}
