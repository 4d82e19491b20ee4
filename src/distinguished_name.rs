//! Distinguished names: parsed from configuration text, compared with the DER of a certificate's subject, printed.

use serde::{Deserialize, Serialize};

/// A distinguished name as a list of relative distinguished names in encoded order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DistinguishedName {
    /// Each a set of (DER content bytes of the attribute type's object identifier, value).
    pub relative_names: Vec<Vec<(Vec<u8>, String)>>,
}
