//! Which devices a board has, as its flattened device tree says (Devicetree specification, chapter 5).

const MAGIC: u32 = 0xD00D_FEED;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOTHING: u32 = 4;

/// The `compatible` strings of all nodes that are not disabled, in their order; `None` for what is no device tree.
pub fn compatible(tree: &[u8]) -> Option<Vec<String>> {
    let word = |at: usize| Some(u32::from_be_bytes(tree.get(at..at + 4)?.try_into().ok()?));
    let offset = |at: usize| usize::try_from(word(at)?).ok();
    if word(0)? != MAGIC {
        return None;
    }
    let (mut at, strings) = (offset(8)?, offset(12)?);
    let text = |at: usize| tree.get(at..)?.split(|byte| *byte == 0).next();
    let mut found = Vec::new();
    // What each open node says of itself: what it is, and whether it is switched on.
    let mut nodes: Vec<(Vec<String>, bool)> = Vec::new();
    loop {
        let token = word(at)?;
        at += 4;
        match token {
            BEGIN_NODE => {
                let name = text(at)?;
                at = (at + name.len() + 1).next_multiple_of(4);
                let is_on = nodes.last().is_none_or(|(_, is_on)| *is_on);
                nodes.push((Vec::new(), is_on));
            }
            END_NODE => {
                let (names, is_on) = nodes.pop()?;
                if is_on {
                    found.extend(names);
                }
            }
            PROPERTY => {
                let (length, name) = (offset(at)?, text(strings + offset(at + 4)?)?);
                let value = tree.get(at + 8..at + 8 + length)?;
                at = (at + 8 + length).next_multiple_of(4);
                let (names, is_on) = nodes.last_mut()?;
                if name == b"compatible" {
                    let parts = value.split(|byte| *byte == 0).filter(|part| !part.is_empty());
                    names.extend(parts.map(|part| String::from_utf8_lossy(part).into_owned()));
                } else if name == b"status" && !matches!(value, b"okay\0" | b"ok\0") {
                    *is_on = false;
                }
            }
            NOTHING => {}
            _ => return nodes.is_empty().then_some(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of a root with two children, the second disabled.
    fn tree() -> Vec<u8> {
        let strings = b"compatible\0status\0";
        let mut body = Vec::new();
        let word = |body: &mut Vec<u8>, value: u32| body.extend(value.to_be_bytes());
        let property = |body: &mut Vec<u8>, name: u32, value: &[u8]| {
            body.extend(PROPERTY.to_be_bytes());
            body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend(name.to_be_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        word(&mut body, BEGIN_NODE);
        body.extend(b"\0\0\0\0");
        for (name, status) in [(&b"a,uart\0b,uart\0"[..], &b"okay\0"[..]), (b"a,wifi\0", b"disabled\0")] {
            word(&mut body, BEGIN_NODE);
            body.extend(b"node\0\0\0\0");
            property(&mut body, 0, name);
            property(&mut body, 11, status);
            word(&mut body, END_NODE);
        }
        word(&mut body, END_NODE);
        word(&mut body, 9);
        let mut tree = Vec::new();
        for value in [MAGIC, 0, 16, u32::try_from(16 + body.len()).unwrap()] {
            word(&mut tree, value);
        }
        tree.extend(body);
        tree.extend(strings);
        tree
    }

    #[test]
    fn devices_that_are_switched_off_do_not_count() {
        assert_eq!(compatible(&tree()).unwrap(), ["a,uart", "b,uart"]);
    }

    #[test]
    fn a_tree_that_is_cut_is_none() {
        let whole = tree();
        for length in 0..whole.len() - 30 {
            assert_eq!(compatible(&whole[..length]), None, "{length}");
        }
    }
}
