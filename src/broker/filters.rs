//! The tree of Topic Filters: which subscriptions match a topic.
//!
//! One node for every level of every distinct filter; children are found through one hash index over all nodes, so that a
//! level with a hundred thousand names costs what a level with one does. Matching walks the tree with a stack of its own,
//! no deeper than the topic. Texts of levels live in chained blocks of a pool of their own.
//!
//! **Invariant:** a node without subscriptions, shared groups and children does not exist, except the root.

use crate::collections::{Full, HashIndex, Key, Slab, keyed_hash_of_bytes};
use crate::limits::TOPIC_LEVELS_MAX;

/// Bytes of one block of a level's text.
const TEXT_BLOCK_BYTES: usize = 28;

/// One level of one or more filters.
pub struct Node {
    parent: Option<Key<Node>>,
    text: Option<Key<TextBlock>>,
    text_bytes: u16,
    hash: u64,
    children: u32,
    /// The `+` child, if any.
    single: Option<Key<Node>>,
    /// The `#` child, if any.
    multi: Option<Key<Node>>,
    /// First of the list of subscriptions whose filter ends here.
    pub first_subscription: Option<Key<super::subscriptions::Subscription>>,
    /// First of the list of shared groups whose filter ends here.
    pub first_group: Option<Key<super::subscriptions::Group>>,
}

struct TextBlock {
    bytes: [u8; TEXT_BLOCK_BYTES],
    next: Option<Key<TextBlock>>,
}

/// The levels of a topic name, split once for each PUBLISH.
pub struct Levels<'a> {
    topic: &'a str,
    /// Where each level but the last one ends.
    ends: heapless::Vec<u16, { TOPIC_LEVELS_MAX - 1 }>,
}

impl<'a> Levels<'a> {
    /// Splits `topic` at its separators.
    ///
    /// # Errors
    /// [`Full`] for more than [`TOPIC_LEVELS_MAX`] levels.
    pub fn split(topic: &'a str) -> Result<Self, Full> {
        let mut ends = heapless::Vec::new();
        for (at, byte) in topic.bytes().enumerate() {
            if byte == b'/' {
                // A UTF-8 string on the wire has at most 65,535 bytes.
                ends.push(u16::try_from(at).map_err(|_| Full)?).map_err(|_| Full)?;
            }
        }
        Ok(Self { topic, ends })
    }

    /// The level at this depth, the first one being 0.
    fn get(&self, depth: usize) -> Option<&'a str> {
        let begin = match depth.checked_sub(1) {
            None => 0,
            Some(before) => usize::from(*self.ends.get(before)?) + 1,
        };
        let end = self.ends.get(depth).map_or(self.topic.len(), |end| usize::from(*end));
        self.topic.get(begin..end)
    }

    fn starts_with_dollar(&self) -> bool {
        self.topic.starts_with('$')
    }
}

/// All filters of the broker.
pub struct FilterTree {
    nodes: Slab<Node>,
    index: HashIndex,
    texts: Slab<TextBlock>,
    root: Option<Key<Node>>,
    seed: u64,
}

impl FilterTree {
    /// An empty tree of at most `nodes` levels whose texts take at most about `text_bytes`.
    #[must_use]
    pub fn new(nodes: u32, text_bytes: u32, seed: u64) -> Self {
        let mut tree = Self {
            nodes: Slab::new(nodes.saturating_add(1)),
            index: HashIndex::new(nodes.saturating_add(1)),
            texts: Slab::new(Self::text_blocks(text_bytes)),
            root: None,
            seed,
        };
        tree.root = tree.nodes.insert(Node::new(None, 0)).ok();
        tree
    }

    const fn text_blocks(text_bytes: u32) -> u32 {
        text_bytes.div_ceil(TEXT_BLOCK_BYTES as u32)
    }

    /// Bytes that such a tree takes.
    #[must_use]
    pub const fn bytes(nodes: u32, text_bytes: u32) -> u64 {
        Slab::<Node>::bytes(nodes.saturating_add(1))
            + HashIndex::bytes(nodes.saturating_add(1))
            + Slab::<TextBlock>::bytes(Self::text_blocks(text_bytes))
    }

    /// The node of `filter`, a valid Topic Filter, if it is in the tree.
    #[must_use]
    pub fn find(&self, filter: &str) -> Option<Key<Node>> {
        let mut at = self.root?;
        for level in filter.split('/') {
            at = self.child(at, level)?;
        }
        Some(at)
    }

    /// The node of `filter`, a valid Topic Filter, made if it is not there. The caller attaches something to it or calls
    /// [`FilterTree::prune`].
    ///
    /// # Errors
    /// [`Full`] when nodes or texts do not suffice; the tree is as before then.
    pub fn insert(&mut self, filter: &str) -> Result<Key<Node>, Full> {
        let mut at = self.root.ok_or(Full)?;
        for level in filter.split('/') {
            at = match self.child(at, level) {
                Some(child) => child,
                None => match self.add_child(at, level) {
                    Ok(child) => child,
                    Err(full) => {
                        self.prune(at);
                        return Err(full);
                    }
                },
            };
        }
        Ok(at)
    }

    /// Removes `node` if nothing is attached to it, and then its parent likewise, up to the root.
    pub fn prune(&mut self, node: Key<Node>) {
        let mut at = node;
        while let Some(node) = self.nodes.get(at) {
            let Some(parent) = node.parent else { return };
            if node.children > 0 || node.first_subscription.is_some() || node.first_group.is_some() {
                return;
            }
            let (hash, text) = (node.hash, node.text);
            self.index.remove(hash, at.index());
            self.free_text(text);
            self.nodes.remove(at);
            if let Some(parent) = self.nodes.get_mut(parent) {
                parent.children -= 1;
                for wildcard in [&mut parent.single, &mut parent.multi] {
                    if *wildcard == Some(at) {
                        *wildcard = None;
                    }
                }
            }
            at = parent;
        }
    }

    /// What is attached to a node.
    #[must_use]
    pub fn node(&self, key: Key<Node>) -> Option<&Node> {
        self.nodes.get(key)
    }

    /// What is attached to a node.
    pub fn node_mut(&mut self, key: Key<Node>) -> Option<&mut Node> {
        self.nodes.get_mut(key)
    }

    /// Appends the filter that ends at a node.
    pub fn read_filter(&self, key: Key<Node>, filter: &mut Vec<u8>) {
        let mut path: heapless::Vec<&Node, TOPIC_LEVELS_MAX> = heapless::Vec::new();
        let mut at = Some(key);
        while let Some(node) = at.and_then(|key| self.nodes.get(key)) {
            if node.parent.is_none() || path.push(node).is_err() {
                break;
            }
            at = node.parent;
        }
        for (index, node) in path.iter().rev().enumerate() {
            if index > 0 {
                filter.push(b'/');
            }
            let mut rest = usize::from(node.text_bytes);
            let mut text = node.text;
            while let Some(block) = text.and_then(|key| self.texts.get(key)) {
                let taken = rest.min(TEXT_BLOCK_BYTES);
                filter.extend_from_slice(block.bytes.get(..taken).unwrap_or_default());
                rest -= taken;
                text = block.next;
            }
        }
    }

    /// Nodes in use, the root not counted.
    #[must_use]
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Calls `found` for every node whose filter matches the topic. MQTT 5 §4.7: `#` also matches its parent level, and
    /// no filter that begins with a wildcard matches a topic that begins with `$`.
    pub fn matching(&self, topic: &Levels<'_>, mut found: impl FnMut(&Node)) {
        let Some(root) = self.root else { return };
        // A node is taken off before its at most two children are put on, so that one more than the depth suffices.
        let mut stack: heapless::Vec<(Key<Node>, u16), { TOPIC_LEVELS_MAX + 2 }> = heapless::Vec::new();
        let _ = stack.push((root, 0));
        while let Some((at, depth)) = stack.pop() {
            let Some(node) = self.nodes.get(at) else { continue };
            let wildcards = depth > 0 || !topic.starts_with_dollar();
            if wildcards && let Some(multi) = node.multi.and_then(|key| self.nodes.get(key)) {
                found(multi);
            }
            let Some(level) = topic.get(usize::from(depth)) else {
                found(node);
                continue;
            };
            if wildcards && let Some(single) = node.single {
                let _ = stack.push((single, depth + 1));
            }
            let literals = node.children - u32::from(node.single.is_some()) - u32::from(node.multi.is_some());
            if literals > 0
                && let Some(child) = self.child(at, level)
            {
                let _ = stack.push((child, depth + 1));
            }
        }
    }

    fn child(&self, parent: Key<Node>, level: &str) -> Option<Key<Node>> {
        match level {
            "+" => return self.nodes.get(parent)?.single,
            "#" => return self.nodes.get(parent)?.multi,
            _ => {}
        }
        let hash = self.hash(parent, level);
        let slot = self.index.find(hash, |slot| {
            self.nodes.key_at(slot).and_then(|key| self.nodes.get(key)).is_some_and(|node| {
                node.hash == hash && node.parent == Some(parent) && self.text_equals(node, level.as_bytes())
            })
        })?;
        self.nodes.key_at(slot)
    }

    fn add_child(&mut self, parent: Key<Node>, level: &str) -> Result<Key<Node>, Full> {
        let hash = self.hash(parent, level);
        let text = self.store_text(level.as_bytes())?;
        let mut node = Node::new(Some(parent), hash);
        node.text = text;
        // A UTF-8 string on the wire has at most 65,535 bytes.
        node.text_bytes = u16::try_from(level.len()).map_err(|_| Full)?;
        let Ok(key) = self.nodes.insert(node) else {
            self.free_text(text);
            return Err(Full);
        };
        self.index.insert(hash, key.index());
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children += 1;
            match level {
                "+" => parent.single = Some(key),
                "#" => parent.multi = Some(key),
                _ => {}
            }
        }
        Ok(key)
    }

    fn hash(&self, parent: Key<Node>, level: &str) -> u64 {
        keyed_hash_of_bytes((self.seed, parent.to_bits()), level.as_bytes()).0
    }

    fn store_text(&mut self, text: &[u8]) -> Result<Option<Key<TextBlock>>, Full> {
        if text.len().div_ceil(TEXT_BLOCK_BYTES) > self.texts.free() {
            return Err(Full);
        }
        let mut following = None;
        // From the last piece to the first, so that every block knows the one behind it.
        for piece in text.chunks(TEXT_BLOCK_BYTES).rev() {
            let mut bytes = [0; TEXT_BLOCK_BYTES];
            bytes[..piece.len()].copy_from_slice(piece);
            following = Some(self.texts.insert(TextBlock { bytes, next: following })?);
        }
        Ok(following)
    }

    fn free_text(&mut self, first: Option<Key<TextBlock>>) {
        let mut at = first;
        while let Some(block) = at.and_then(|key| self.texts.remove(key)) {
            at = block.next;
        }
    }

    fn text_equals(&self, node: &Node, text: &[u8]) -> bool {
        if usize::from(node.text_bytes) != text.len() {
            return false;
        }
        let mut at = node.text;
        for piece in text.chunks(TEXT_BLOCK_BYTES) {
            let Some(block) = at.and_then(|key| self.texts.get(key)) else { return false };
            if block.bytes[..piece.len()] != *piece {
                return false;
            }
            at = block.next;
        }
        true
    }
}

impl Node {
    const fn new(parent: Option<Key<Self>>, hash: u64) -> Self {
        Self {
            parent,
            text: None,
            text_bytes: 0,
            hash,
            children: 0,
            single: None,
            multi: None,
            first_subscription: None,
            first_group: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::subscriptions::Group;

    /// A tree in which every filter ends at a node with a group of its own, whose index tells the filter.
    fn tree(filters: &[&str]) -> (FilterTree, Slab<Group>) {
        let mut groups = Slab::new(64);
        let mut tree = FilterTree::new(256, 4_096, 1);
        for filter in filters {
            let node = tree.insert(filter).unwrap();
            let group = groups.insert(Group::default()).unwrap();
            tree.node_mut(node).unwrap().first_group = Some(group);
        }
        (tree, groups)
    }

    fn matched(filters: &[&str], topic: &str) -> Vec<String> {
        let (tree, _groups) = tree(filters);
        let mut found = Vec::new();
        tree.matching(&Levels::split(topic).unwrap(), |node| {
            if let Some(group) = node.first_group {
                found.push(filters[group.index() as usize].to_owned());
            }
        });
        found.sort();
        found
    }

    #[test]
    fn a_topic_finds_its_literal_and_its_wildcards() {
        let filters = ["a/b", "a/+", "+/b", "a/#", "#", "+", "a", "b/#", "a/b/#", "a/b/c", "+/+/#"];
        assert_eq!(matched(&filters, "a/b"), ["#", "+/+/#", "+/b", "a/#", "a/+", "a/b", "a/b/#"]);
        assert_eq!(matched(&filters, "a"), ["#", "+", "a", "a/#"]);
    }

    #[test]
    fn dollar_topics_never_match_a_leading_wildcard() {
        let filters = ["#", "+/x", "$SYS/#", "$SYS/+", "$SYS/x"];
        assert_eq!(matched(&filters, "$SYS/x"), ["$SYS/#", "$SYS/+", "$SYS/x"]);
    }

    #[test]
    fn empty_levels_are_levels() {
        assert_eq!(matched(&["/", "+/+", "/+", "+", "a//b", "a/+/b"], "/"), ["+/+", "/", "/+"]);
        assert_eq!(matched(&["a//b", "a/+/b", "a/b"], "a//b"), ["a/+/b", "a//b"]);
    }

    #[test]
    fn a_removed_filter_leaves_nothing_behind() {
        let filters = ["a/b/c", "a/b", "a/+/c", "x/#", "a-name-that-is-longer-than-one-block-of-text/y"];
        let (mut tree, _groups) = tree(&filters);
        for filter in filters {
            let node = tree.find(filter).unwrap();
            tree.node_mut(node).unwrap().first_group = None;
            tree.prune(node);
        }
        assert_eq!(tree.count(), 0);
        assert_eq!(tree.texts.len(), 0);
        assert!(filters.iter().all(|filter| tree.find(filter).is_none()));
    }

    #[test]
    fn a_filter_that_does_not_fit_leaves_the_tree_as_it_was() {
        let mut tree = FilterTree::new(3, 4_096, 1);
        assert_eq!(tree.insert("a/b/c/d"), Err(Full));
        assert_eq!((tree.count(), tree.texts.len()), (0, 0));
        let mut tree = FilterTree::new(8, 28, 1);
        assert_eq!(tree.insert("a/b"), Err(Full));
        assert_eq!((tree.count(), tree.texts.len()), (0, 0));
    }

    #[test]
    fn matching_equals_the_naive_matcher_on_random_filters() {
        let mut seed = 99_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let level = |choice: u64| ["a", "b", "", "$s"][choice as usize];
        for _ in 0..500 {
            let mut filters = std::collections::BTreeSet::new();
            for _ in 0..12 {
                let depth = random(4) + 1;
                let mut filter: Vec<&str> =
                    (0..depth).map(|_| if random(3) == 0 { "+" } else { level(random(4)) }).collect();
                if random(3) == 0 {
                    filter.push("#");
                }
                let filter = filter.join("/");
                if !filter.is_empty() {
                    filters.insert(filter);
                }
            }
            let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
            let depth = random(4) + 1;
            let topic = (0..depth).map(|_| level(random(4))).collect::<Vec<_>>().join("/");
            let expected: Vec<String> =
                filters.iter().filter(|filter| naive(filter, &topic)).map(ToString::to_string).collect();
            assert_eq!(matched(&filters, &topic), expected, "{filters:?} against {topic:?}");
        }
    }

    fn naive(filter: &str, topic: &str) -> bool {
        fn levels(filter: &[&str], topic: &[&str]) -> bool {
            match (filter.first(), topic.first()) {
                (Some(&"#"), _) | (None, None) => true,
                (Some(&"+"), Some(_)) => levels(&filter[1..], &topic[1..]),
                (Some(literal), Some(level)) => literal == level && levels(&filter[1..], &topic[1..]),
                _ => false,
            }
        }
        if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
            return false;
        }
        levels(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
    }
}
