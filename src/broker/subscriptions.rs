//! Subscriptions: who gets what matches a filter, and how.
//!
//! A subscription stands in two lists: that of its session, and that of its filter's node or, for a shared subscription,
//! of its group. Both are doubly linked through the subscription, so that none of them is searched.
//!
//! **Invariant:** a subscription, its place in both lists and its entry in the index come and go together.

use super::filters::{FilterTree, Levels, Node};
use super::sessions::Session;
use crate::codec::{QoS, RetainHandling};
use crate::collections::{Full, HashIndex, Key, Slab, keyed_hash};

/// Longest name of a shared subscription's group, in bytes.
pub const GROUP_NAME_BYTES_MAX: usize = 64;
/// Bytes of a subscription's record in the log beside its filter and group, about.
const RECORD_BYTES: usize = 64;

/// Subscription Options as the broker keeps them. MQTT 5 §3.8.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The QoS granted.
    pub maximum_qos: QoS,
    /// The publisher's own messages are not sent back to it.
    pub no_local: bool,
    /// The RETAIN flag is forwarded as published.
    pub retain_as_published: bool,
    /// What a new subscription gets of what is retained.
    pub retain_handling: RetainHandling,
    /// Its Subscription Identifier. MQTT 5 §3.8.2.1.2
    pub identifier: Option<u32>,
}

/// One subscription of one session.
pub struct Subscription {
    /// Whose it is.
    pub session: Key<Session>,
    /// How messages are delivered.
    pub options: Options,
    /// The slot of the retained table that is to be looked at next, while retained messages are on their way.
    pub replay: Option<u32>,
    /// Its number in the log; 0 while the log knows nothing of it.
    pub number: u64,
    /// Bytes of its record, about.
    record_bytes: u32,
    node: Key<Node>,
    group: Option<Key<Group>>,
    hash: u64,
    beside: Links,
    in_session: Links,
}

#[derive(Clone, Copy, Default)]
struct Links {
    before: Option<Key<Subscription>>,
    after: Option<Key<Subscription>>,
}

/// The sessions that share one filter under one name.
#[derive(Default)]
pub struct Group {
    name: heapless::String<GROUP_NAME_BYTES_MAX>,
    first: Option<Key<Subscription>>,
    members: u32,
    /// The member that is asked first for the next message.
    turn: Option<Key<Subscription>>,
    next_at_node: Option<Key<Group>>,
}

/// A filter as a client names it, parsed.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Group of a shared subscription.
    pub group: Option<&'a str>,
    /// The Topic Filter without `$share/<group>/`.
    pub filter: &'a str,
}

/// All subscriptions of the broker.
pub struct Subscriptions {
    table: Slab<Subscription>,
    groups: Slab<Group>,
    index: HashIndex,
    tree: FilterTree,
    epoch: u64,
    seed: u64,
    /// Bytes of the records of all that the log knows, about.
    kept_bytes: u64,
}

impl Subscriptions {
    /// No subscriptions, in tables of these capacities.
    #[must_use]
    pub fn new(subscriptions: u32, nodes: u32, text_bytes: u32, seed: u64) -> Self {
        Self {
            table: Slab::new(subscriptions),
            groups: Slab::new(Self::group_count(subscriptions)),
            index: HashIndex::new(subscriptions),
            tree: FilterTree::new(nodes, text_bytes, seed),
            epoch: 0,
            seed,
            kept_bytes: 0,
        }
    }

    /// Shared groups are a fraction of the subscriptions: each has at least one member, and usually several.
    const fn group_count(subscriptions: u32) -> u32 {
        subscriptions.div_ceil(4)
    }

    /// Bytes that such tables take.
    #[must_use]
    pub const fn bytes(subscriptions: u32, nodes: u32, text_bytes: u32) -> u64 {
        Slab::<Subscription>::bytes(subscriptions)
            + Slab::<Group>::bytes(Self::group_count(subscriptions))
            + HashIndex::bytes(subscriptions)
            + FilterTree::bytes(nodes, text_bytes)
    }

    /// Grows whenever a message may have other receivers than before.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Subscriptions of all sessions.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.table.len()
    }

    /// Subscriptions that have room.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Sets the options of a subscription, which is made if it is not there. `first` is the head of the session's list.
    /// Returns whether it is new.
    ///
    /// # Errors
    /// [`Full`] when a table has no room or the group's name is too long; nothing changes then.
    pub fn set(
        &mut self,
        session: Key<Session>,
        first: &mut Option<Key<Subscription>>,
        target: Target<'_>,
        options: Options,
    ) -> Result<(Key<Subscription>, bool), Full> {
        let node = self.tree.insert(target.filter)?;
        let result = self.set_at(session, first, node, target.group, options);
        self.tree.prune(node);
        result
    }

    fn set_at(
        &mut self,
        session: Key<Session>,
        first: &mut Option<Key<Subscription>>,
        node: Key<Node>,
        group: Option<&str>,
        options: Options,
    ) -> Result<(Key<Subscription>, bool), Full> {
        let existing_group = group.and_then(|name| self.group(node, name));
        let known = match (group, existing_group) {
            (Some(_), None) => None,
            (_, group) => self.find(session, node, group),
        };
        if let Some((key, subscription)) = known.and_then(|key| Some((key, self.table.get_mut(key)?))) {
            self.epoch += u64::from(subscription.options != options);
            subscription.options = options;
            return Ok((key, false));
        }
        if self.table.free() == 0 {
            return Err(Full);
        }
        let group = match (group, existing_group) {
            (Some(name), None) => Some(self.add_group(node, name)?),
            (_, group) => group,
        };
        let hash = self.hash(session, node, group);
        let key = self.table.insert(Subscription {
            session,
            options,
            replay: None,
            number: 0,
            record_bytes: 0,
            node,
            group,
            hash,
            beside: Links { before: None, after: self.list_head(node, group) },
            in_session: Links { before: None, after: *first },
        })?;
        self.epoch += 1;
        self.index.insert(hash, key.index());
        if let Some(after) = self.list_head(node, group).and_then(|key| self.table.get_mut(key)) {
            after.beside.before = Some(key);
        }
        self.set_list_head(node, group, Some(key));
        if let Some(group) = group.and_then(|key| self.groups.get_mut(key)) {
            group.members += 1;
        }
        if let Some(after) = first.replace(key).and_then(|key| self.table.get_mut(key)) {
            after.in_session.before = Some(key);
        }
        Ok((key, true))
    }

    /// Whether the session has this subscription.
    #[must_use]
    pub fn contains(&self, session: Key<Session>, target: Target<'_>) -> bool {
        let Some(node) = self.tree.find(target.filter) else { return false };
        match target.group {
            None => self.find(session, node, None).is_some(),
            Some(name) => self.group(node, name).is_some_and(|group| self.find(session, node, Some(group)).is_some()),
        }
    }

    /// Removes a subscription. Returns its number in the log, if it was there.
    pub fn remove(
        &mut self,
        session: Key<Session>,
        first: &mut Option<Key<Subscription>>,
        target: Target<'_>,
    ) -> Option<u64> {
        let node = self.tree.find(target.filter)?;
        let group = match target.group {
            Some(name) => Some(self.group(node, name)?),
            None => None,
        };
        let key = self.find(session, node, group)?;
        let number = self.table.get(key)?.number;
        self.unlink(key, first);
        Some(number)
    }

    /// Removes all subscriptions of a session, whose list begins with `first`.
    pub fn remove_all(&mut self, first: &mut Option<Key<Subscription>>) {
        while let Some(key) = *first {
            self.unlink(key, first);
        }
    }

    /// Removes one subscription of the session whose list begins with `first`.
    pub fn drop_one(&mut self, key: Key<Subscription>, first: &mut Option<Key<Subscription>>) {
        if self.table.get(key).is_some() {
            self.unlink(key, first);
        }
    }

    /// The subscription behind this one in its session's list.
    #[must_use]
    pub fn after_in_session(&self, key: Key<Subscription>) -> Option<Key<Subscription>> {
        self.table.get(key)?.in_session.after
    }

    /// The log knows the subscription, whose filter has so many bytes, under `number`.
    pub fn set_kept(&mut self, key: Key<Subscription>, number: u64, filter_bytes: usize) {
        let group_bytes = self.get(key).and_then(|subscription| self.group_name(subscription)).map_or(0, str::len);
        let bytes = u32::try_from(filter_bytes + group_bytes + RECORD_BYTES).unwrap_or(u32::MAX);
        if let Some(subscription) = self.table.get_mut(key) {
            self.kept_bytes += u64::from(bytes);
            self.kept_bytes -= u64::from(core::mem::replace(&mut subscription.record_bytes, bytes));
            subscription.number = number;
        }
    }

    /// Bytes of the records of all subscriptions that the log knows, about.
    #[must_use]
    pub const fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// A subscription.
    #[must_use]
    pub fn get(&self, key: Key<Subscription>) -> Option<&Subscription> {
        self.table.get(key)
    }

    /// Slots that may be in use: those below this number.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.table.slots()
    }

    /// The subscription in a slot.
    #[must_use]
    pub fn key_at(&self, slot: u32) -> Option<Key<Subscription>> {
        self.table.key_at(slot)
    }

    /// The group of a shared subscription.
    #[must_use]
    pub fn group_name(&self, subscription: &Subscription) -> Option<&str> {
        Some(&self.groups.get(subscription.group?)?.name)
    }

    /// A subscription.
    pub fn get_mut(&mut self, key: Key<Subscription>) -> Option<&mut Subscription> {
        self.table.get_mut(key)
    }

    /// Writes the filter of a subscription, without its group, into `filter`, whose former contents go.
    pub fn read_filter(&self, key: Key<Subscription>, filter: &mut Vec<u8>) {
        filter.clear();
        if let Some(subscription) = self.table.get(key) {
            self.tree.read_filter(subscription.node, filter);
        }
    }

    /// Calls `each` for the subscriptions of a session, whose list begins with `first`.
    pub fn each_of(&self, first: Option<Key<Subscription>>, mut each: impl FnMut(Key<Subscription>, &Subscription)) {
        let mut at = first;
        while let Some((key, subscription)) = at.and_then(|key| Some((key, self.table.get(key)?))) {
            each(key, subscription);
            at = subscription.in_session.after;
        }
    }

    /// Calls `each` for every subscription that matches the topic, with whether it was chosen from a shared group.
    /// `can_take` tells whether a session has room now: of a group the first that has, from the one whose turn it is;
    /// if none has, the one whose turn it is. With a `partition`, the member that this hash falls on, whatever its room.
    pub fn matching(
        &mut self,
        topic: &Levels<'_>,
        partition: Option<u64>,
        can_take: impl Fn(Key<Session>) -> bool,
        mut each: impl FnMut(&Subscription, bool),
    ) {
        let Self { table, groups, tree, .. } = self;
        tree.matching(topic, |node| {
            let mut at = node.first_subscription;
            while let Some(subscription) = at.and_then(|key| table.get(key)) {
                each(subscription, false);
                at = subscription.beside.after;
            }
            let mut group = node.first_group;
            while let Some(shared) = group.and_then(|key| groups.get_mut(key)) {
                if let Some(chosen) = shared.choose(table, partition, &can_take) {
                    each(chosen, true);
                }
                group = shared.next_at_node;
            }
        });
    }

    fn find(&self, session: Key<Session>, node: Key<Node>, group: Option<Key<Group>>) -> Option<Key<Subscription>> {
        let hash = self.hash(session, node, group);
        let slot = self.index.find(hash, |slot| {
            self.table.key_at(slot).and_then(|key| self.table.get(key)).is_some_and(|subscription| {
                subscription.session == session && subscription.node == node && subscription.group == group
            })
        })?;
        self.table.key_at(slot)
    }

    fn hash(&self, session: Key<Session>, node: Key<Node>, group: Option<Key<Group>>) -> u64 {
        keyed_hash(self.seed, (session.to_bits(), node.to_bits(), group.map(Key::to_bits)))
    }

    fn group(&self, node: Key<Node>, name: &str) -> Option<Key<Group>> {
        let mut at = self.tree.node(node)?.first_group;
        while let Some(key) = at {
            let group = self.groups.get(key)?;
            if group.name == name {
                return Some(key);
            }
            at = group.next_at_node;
        }
        None
    }

    fn add_group(&mut self, node: Key<Node>, name: &str) -> Result<Key<Group>, Full> {
        let name = heapless::String::try_from(name).map_err(|_| Full)?;
        let next_at_node = self.tree.node(node).and_then(|node| node.first_group);
        let key = self.groups.insert(Group { name, next_at_node, ..Group::default() })?;
        if let Some(node) = self.tree.node_mut(node) {
            node.first_group = Some(key);
        }
        Ok(key)
    }

    fn remove_group(&mut self, node: Key<Node>, key: Key<Group>) {
        let Some(removed) = self.groups.remove(key) else { return };
        let Some(node) = self.tree.node_mut(node) else { return };
        if node.first_group == Some(key) {
            node.first_group = removed.next_at_node;
            return;
        }
        let mut at = node.first_group;
        while let Some(group) = at.and_then(|key| self.groups.get_mut(key)) {
            if group.next_at_node == Some(key) {
                group.next_at_node = removed.next_at_node;
                return;
            }
            at = group.next_at_node;
        }
    }

    fn list_head(&self, node: Key<Node>, group: Option<Key<Group>>) -> Option<Key<Subscription>> {
        match group {
            Some(group) => self.groups.get(group)?.first,
            None => self.tree.node(node)?.first_subscription,
        }
    }

    fn set_list_head(&mut self, node: Key<Node>, group: Option<Key<Group>>, head: Option<Key<Subscription>>) {
        if let Some(group) = group {
            if let Some(group) = self.groups.get_mut(group) {
                group.first = head;
            }
        } else if let Some(node) = self.tree.node_mut(node) {
            node.first_subscription = head;
        }
    }

    fn unlink(&mut self, key: Key<Subscription>, first: &mut Option<Key<Subscription>>) {
        let Some(removed) = self.table.remove(key) else {
            *first = None;
            return;
        };
        self.epoch += 1;
        self.index.remove(removed.hash, key.index());
        self.kept_bytes -= u64::from(removed.record_bytes);
        match removed.in_session.before.and_then(|key| self.table.get_mut(key)) {
            Some(before) => before.in_session.after = removed.in_session.after,
            None => *first = removed.in_session.after,
        }
        if let Some(after) = removed.in_session.after.and_then(|key| self.table.get_mut(key)) {
            after.in_session.before = removed.in_session.before;
        }
        match removed.beside.before.and_then(|key| self.table.get_mut(key)) {
            Some(before) => before.beside.after = removed.beside.after,
            None => self.set_list_head(removed.node, removed.group, removed.beside.after),
        }
        if let Some(after) = removed.beside.after.and_then(|key| self.table.get_mut(key)) {
            after.beside.before = removed.beside.before;
        }
        if let Some(group_key) = removed.group
            && let Some(group) = self.groups.get_mut(group_key)
        {
            group.members -= 1;
            if group.turn == Some(key) {
                group.turn = removed.beside.after;
            }
            if group.members == 0 {
                self.remove_group(removed.node, group_key);
            }
        }
        self.tree.prune(removed.node);
    }
}

impl Group {
    /// The member that gets the next message. The turn passes to the one behind it.
    fn choose<'t>(
        &mut self,
        table: &'t Slab<Subscription>,
        partition: Option<u64>,
        can_take: &impl Fn(Key<Session>) -> bool,
    ) -> Option<&'t Subscription> {
        if let Some(hash) = partition {
            let mut member = table.get(self.first?)?;
            for _ in 0..hash % u64::from(self.members.max(1)) {
                member = table.get(member.beside.after?)?;
            }
            return Some(member);
        }
        let start = self.turn.or(self.first)?;
        let mut chosen = start;
        for _ in 0..self.members {
            let member = table.get(chosen)?;
            if can_take(member.session) {
                break;
            }
            chosen = member.beside.after.or(self.first)?;
        }
        let member = table.get(chosen)?;
        self.turn = member.beside.after;
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options {
        maximum_qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::SendAtSubscribe,
        identifier: None,
    };

    fn session(index: u32) -> Key<Session> {
        Key::from_bits(1 << 32 | u64::from(index)).unwrap()
    }

    const fn plain(filter: &str) -> Target<'_> {
        Target { group: None, filter }
    }

    fn matched(subscriptions: &mut Subscriptions, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        subscriptions.matching(
            &Levels::split(topic).unwrap(),
            None,
            |_| true,
            |subscription, _| found.push(subscription.session.index()),
        );
        found.sort_unstable();
        found
    }

    #[test]
    fn a_second_subscription_to_a_filter_replaces_the_options_of_the_first() {
        let mut subscriptions = Subscriptions::new(4, 16, 1_024, 1);
        let mut first = None;
        assert!(subscriptions.set(session(0), &mut first, plain("a"), OPTIONS).unwrap().1);
        let options = Options { no_local: true, ..OPTIONS };
        assert!(!subscriptions.set(session(0), &mut first, plain("a"), options).unwrap().1);
        assert_eq!(subscriptions.count(), 1);
        assert_eq!(matched(&mut subscriptions, "a"), [0]);
    }

    #[test]
    fn what_is_removed_does_not_match_and_frees_its_nodes() {
        let mut subscriptions = Subscriptions::new(8, 16, 1_024, 1);
        let mut lists = [None; 3];
        for (index, list) in lists.iter_mut().enumerate() {
            for filter in ["a/+", "b"] {
                subscriptions.set(session(index as u32), list, plain(filter), OPTIONS).unwrap();
            }
        }
        assert_eq!(matched(&mut subscriptions, "a/x"), [0, 1, 2]);
        assert!(subscriptions.remove(session(1), &mut lists[1], plain("a/+")).is_some());
        assert!(subscriptions.remove(session(1), &mut lists[1], plain("a/+")).is_none());
        assert_eq!(matched(&mut subscriptions, "a/x"), [0, 2]);
        assert_eq!(matched(&mut subscriptions, "b"), [0, 1, 2]);
        for list in &mut lists {
            subscriptions.remove_all(list);
        }
        assert!(subscriptions.count() == 0);
        assert_eq!(subscriptions.tree.count(), 0);
    }

    #[test]
    fn a_shared_group_takes_turns_and_passes_over_members_without_room() {
        let mut subscriptions = Subscriptions::new(8, 16, 1_024, 1);
        let mut lists = [None; 3];
        let target = Target { group: Some("g"), filter: "a" };
        for (index, list) in lists.iter_mut().enumerate() {
            subscriptions.set(session(index as u32), list, target, OPTIONS).unwrap();
        }
        let mut counts = [0; 3];
        for _ in 0..9 {
            for index in matched(&mut subscriptions, "a") {
                counts[index as usize] += 1;
            }
        }
        assert_eq!(counts, [3, 3, 3]);
        for _ in 0..5 {
            let mut found = Vec::new();
            subscriptions.matching(
                &Levels::split("a").unwrap(),
                None,
                |candidate| candidate == session(1),
                |subscription, shared| found.push((subscription.session.index(), shared)),
            );
            assert_eq!(found, [(1, true)]);
        }
        for (index, list) in lists.iter_mut().enumerate() {
            assert!(subscriptions.remove(session(index as u32), list, target).is_some());
        }
        assert_eq!((subscriptions.groups.len(), subscriptions.tree.count()), (0, 0));
    }

    #[test]
    fn a_full_table_leaves_no_group_and_no_node_behind() {
        let mut subscriptions = Subscriptions::new(1, 16, 1_024, 1);
        let mut list = None;
        subscriptions.set(session(0), &mut list, plain("a"), OPTIONS).unwrap();
        let target = Target { group: Some("g"), filter: "b/c" };
        assert_eq!(subscriptions.set(session(0), &mut list, target, OPTIONS), Err(Full));
        assert_eq!((subscriptions.groups.len(), subscriptions.tree.count()), (0, 1));
    }
}
