//! Why a policy denies, and all that it grants: for people, never for a decision.
//!
//! In: a policy, a client, what it wished. Out: the rules that come nearest to allowing it with what each of them lacks, or
//! every grant. What is decided is [`Policy`]'s; this looks at the same tables and asks the same functions, may allocate,
//! and goes through all rules. The order of what is found depends on the tables only.
//!
//! Deliberately absent: advice. Which of the near rules was meant is for the operator to say.

mod wording;

use super::client::{self, Client};
use super::policy::{ApplicableRules, Policy, is_granted_identifier};
use super::{covers, patterns::Asked};
use crate::codec::topic::{Subscription, TopicName};
use crate::config::blob::{Action, Authorization, Range, Rule, Text};
use crate::config::token::{Piece, Token, pieces};
use crate::config::topic::is_too_deep;
use crate::config::verify;
use crate::limits::TOPIC_LEVELS_MAX;
use core::cmp::Reverse;

/// What a client wishes to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Connect under its client identifier.
    Connect,
    /// Publish to a valid Topic Name.
    Publish(&'a str),
    /// Subscribe to a valid Topic Filter, without `$share/<group>/`.
    Subscribe(&'a str),
}

impl<'a> Wish<'a> {
    /// The wish to publish to what may be no topic.
    ///
    /// # Errors
    /// Why nobody may publish there, whatever rules say: what the broker looks at before it asks them.
    pub fn publish(topic: &'a str) -> Result<Self, String> {
        TopicName::parse(topic).map_err(|fault| format!("not a Topic Name: {fault}"))?;
        match topic.split('/').next() {
            Some("$SYS") => Err("topics below $SYS are the broker's own: nobody may publish there".to_owned()),
            Some("$share") => Err("a topic below $share cannot be subscribed to: nobody may publish there".to_owned()),
            _ if is_too_deep(topic) => Err(too_deep()),
            _ => Ok(Self::Publish(topic)),
        }
    }

    /// The wish to subscribe to what may be no filter. Policies are asked about it without `$share/<group>/`.
    ///
    /// # Errors
    /// Why nobody may subscribe to it.
    pub fn subscribe(filter: &'a str) -> Result<Self, String> {
        let parsed = Subscription::parse(filter).map_err(|fault| format!("not a Topic Filter: {fault}"))?;
        let filter = parsed.filter().as_str();
        if is_too_deep(filter) { Err(too_deep()) } else { Ok(Self::Subscribe(filter)) }
    }

    /// `method` of a rule.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Connect => Action::Connect,
            Self::Publish(_) => Action::Publish,
            Self::Subscribe(_) => Action::Subscribe,
        }
    }

    fn asked(self) -> Option<Asked<'a>> {
        match self {
            Self::Connect => None,
            Self::Publish(topic) => Some(Asked::Topic(topic)),
            Self::Subscribe(filter) => Some(Asked::Filter(filter)),
        }
    }
}

fn too_deep() -> String {
    format!("more than {TOPIC_LEVELS_MAX} levels, which the broker does not take")
}

/// Whom a rule is for, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Principal<'a> {
    /// An element of `usernames`.
    Username(&'a str),
    /// An element of `clientIds`.
    ClientIdentifier(&'a str),
    /// An element of `attributes`: all pairs, sorted.
    Attributes(Vec<(&'a str, &'a str)>),
}

/// One thing that a rule allows to one of its principals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant<'a> {
    /// Whom.
    pub principal: Principal<'a>,
    /// `method`.
    pub action: Action,
    /// Topic pattern, or pattern of client identifiers; `*` for Connect without `clientIds`.
    pub pattern: &'a str,
    /// The rule, from 0.
    pub rule: u32,
}

/// A rule that comes near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The rule, from 0.
    pub rule: u32,
    /// What is missing, one line, escaped.
    pub missing: String,
}

/// Why a text with tokens stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfilled<'a> {
    /// The client has no such value, or an empty one.
    NoValue(Token<'a>),
    /// Its value would be more than a level.
    Leaks(Token<'a>, &'a str),
}

/// How far a principal is from a client: things missing, things there, and how telling the lack is.
type PrincipalRank = (usize, Reverse<usize>, usize);

/// What keeps a pattern from granting.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gap<'a> {
    Unfilled { pattern: &'a str, why: Unfilled<'a> },
    Wider { filled: String },
    System { filled: String },
    Level { filled: String, number: usize, has: String, asks: String },
    Ends { filled: String, levels: usize },
    Continues { filled: String },
    Identifier { filled: String },
}

/// Rows of a range; none when it is out of bounds, which a policy has excluded.
fn rows<T>(table: &[T], range: Range) -> &[T] {
    verify::slice_of(table, range).unwrap_or_default()
}

fn text(table: &Authorization, span: Text) -> &str {
    verify::text_of(table, span).unwrap_or_default()
}

/// The patterns of an action of a rule, as they are written.
fn patterns_of<'a>(table: &'a Authorization, rule: &Rule, action: Action) -> Vec<&'a str> {
    let mut found = Vec::new();
    for resource in rows(&table.resources, rule.resources).iter().filter(|resource| resource.action == action) {
        let patterns = rows(&table.patterns, resource.patterns);
        if patterns.is_empty() && action == Action::Connect {
            found.push("*");
        }
        found.extend(patterns.iter().map(|pattern| text(table, *pattern)));
    }
    found
}

fn principals_of<'a>(table: &'a Authorization, rule: &Rule) -> Vec<Principal<'a>> {
    let texts = |list: &[Text], range| rows(list, range).iter().map(|span| text(table, *span)).collect::<Vec<_>>();
    let mut found: Vec<Principal<'a>> =
        texts(&table.usernames, rule.usernames).into_iter().map(Principal::Username).collect();
    let identifiers = texts(&table.client_identifiers, rule.client_identifiers);
    found.extend(identifiers.into_iter().map(Principal::ClientIdentifier));
    for map in rows(&table.attribute_maps, rule.attribute_maps) {
        let pairs = rows(&table.attribute_pairs, *map).iter();
        let mut pairs: Vec<_> = pairs.map(|(name, value)| (text(table, *name), text(table, *value))).collect();
        pairs.sort_unstable();
        found.push(Principal::Attributes(pairs));
    }
    found
}

const ACTIONS: [Action; 3] = [Action::Connect, Action::Publish, Action::Subscribe];

/// Everything that a policy grants to anybody, sorted, each thing once with the first rule that grants it.
#[must_use]
pub fn grants(policy: &Policy) -> Vec<Grant<'_>> {
    let table = policy.table();
    let mut found = Vec::new();
    for (index, rule) in (0_u32..).zip(&table.rules) {
        for principal in principals_of(table, rule) {
            for action in ACTIONS {
                found.extend(patterns_of(table, rule, action).into_iter().map(|pattern| Grant {
                    principal: principal.clone(),
                    action,
                    pattern,
                    rule: index,
                }));
            }
        }
    }
    found.sort();
    found.dedup_by(|later, first| {
        (&later.principal, later.action, later.pattern) == (&first.principal, first.action, first.pattern)
    });
    found
}

/// Everything that a client may do: action, pattern as it is written, the pattern with its tokens replaced or what is wrong
/// with them, and the rule. In the order of actions, and of the rules within one.
#[must_use]
pub fn grants_to<'a>(policy: &'a Policy, client: &Client<'a>) -> Vec<(Action, &'a str, Result<String, String>, u32)> {
    let table = policy.table();
    let mut found = Vec::new();
    for action in ACTIONS {
        for (index, rule) in applicable(table, client.rules) {
            for pattern in patterns_of(table, rule, action) {
                let filled = match action {
                    Action::Connect => filled(pattern, client),
                    Action::Publish | Action::Subscribe => {
                        filled_levels(pattern, client).map(|levels| levels.join("/"))
                    }
                };
                found.push((action, pattern, filled.map_err(|why| why.to_string()), index));
            }
        }
    }
    found
}

fn applicable<'a>(table: &'a Authorization, rules: &'a ApplicableRules) -> impl Iterator<Item = (u32, &'a Rule)> {
    (0_u32..).zip(&table.rules).filter(|(index, _)| rules.contains(*index))
}

/// A principal, or pattern of client identifiers, with its tokens replaced.
fn filled<'a>(pattern: &'a str, client: &Client<'a>) -> Result<String, Unfilled<'a>> {
    let mut whole = String::new();
    for piece in pieces(pattern) {
        whole.push_str(match piece {
            Piece::Literal(literal) => literal,
            Piece::Token(token) => {
                client::value(token, client.identity, client.identifier).ok_or(Unfilled::NoValue(token))?
            }
        });
    }
    Ok(whole)
}

/// The levels of a topic pattern with its tokens replaced.
fn filled_levels<'a>(pattern: &'a str, client: &Client<'a>) -> Result<Vec<&'a str>, Unfilled<'a>> {
    let fill = |(number, level): (usize, &'a str)| {
        let Some(token) = Token::parse(level) else { return Ok(level) };
        let value = client::value(token, client.identity, client.identifier).ok_or(Unfilled::NoValue(token))?;
        client::level(token, number == 0, client.identity, client.identifier).ok_or(Unfilled::Leaks(token, value))
    };
    pattern.split('/').enumerate().map(fill).collect()
}

/// The rules that come nearest to allowing what was denied, at most one of each kind: one for other principals, one that
/// applies and is for other resources, one that applies and is for another action.
#[must_use]
pub fn nearest(policy: &Policy, client: &Client<'_>, wish: Wish<'_>) -> Vec<Nearest> {
    [for_others(policy, client, wish), of_own(policy, client, wish), other_action(policy, client, wish)]
        .into_iter()
        .flatten()
        .collect()
}

/// Every rule that grants the wish to somebody.
fn granting(policy: &Policy, client: &Client<'_>, wish: Wish<'_>) -> Vec<u32> {
    let table = policy.table();
    let mut found = Vec::new();
    match (policy.patterns(wish.action()), wish.asked()) {
        (Some(patterns), Some(asked)) => {
            patterns.search(table, client, asked, &mut |rules| found.extend_from_slice(rules));
        }
        (_, _) => {
            found.extend((0_u32..).zip(&table.rules).filter_map(|(index, rule)| {
                let mut patterns = patterns_of(table, rule, Action::Connect).into_iter();
                let grants = |pattern| is_granted_identifier(pattern, client.identity, client.identifier);
                patterns.any(grants).then_some(index)
            }));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The rule for somebody else that would allow it: of the principals the one with the fewest things missing, then with the
/// most things there.
fn for_others(policy: &Policy, client: &Client<'_>, wish: Wish<'_>) -> Option<Nearest> {
    let table = policy.table();
    let mut best: Option<(PrincipalRank, Nearest)> = None;
    for index in granting(policy, client, wish) {
        let rule = table.rules.get(usize::try_from(index).ok()?)?;
        for principal in principals_of(table, rule) {
            let (missing, there, kind) = lacks(&principal, client);
            let rank = (missing.len(), Reverse(there), kind);
            if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                best = Some((rank, Nearest { rule: index, missing: missing.join("; ") }));
            }
        }
    }
    best.map(|(_, nearest)| nearest)
}

/// What a client lacks of a principal, how much of it is there, and how telling the lack is: a wrong value before a missing
/// one, a name before a client identifier.
fn lacks(principal: &Principal<'_>, client: &Client<'_>) -> (Vec<String>, usize, usize) {
    let identity = client.identity;
    match principal {
        Principal::Username(wanted) => {
            (vec![wording::lack("the user name", identity.username.as_deref(), wanted, filled(wanted, client))], 0, 2)
        }
        Principal::ClientIdentifier(wanted) => {
            (vec![wording::lack("the client id", Some(client.identifier), wanted, filled(wanted, client))], 0, 3)
        }
        Principal::Attributes(pairs) => {
            let mut missing = Vec::new();
            let mut kind = 1;
            for (name, wanted) in pairs {
                let own = identity.attributes.value_of(name);
                let expected = filled(wanted, client);
                if own.is_none() || own != expected.as_deref().ok() {
                    let what = format!("attribute '{}'", name.escape_debug());
                    missing.push(wording::lack(&what, own, wanted, expected));
                    if own.is_some() {
                        kind = 0;
                    }
                }
            }
            let there = pairs.len() - missing.len();
            (missing, there, kind)
        }
    }
}

/// The rule for the client that allows the action elsewhere: of the patterns the one with the most equal levels, then the
/// most alike.
fn of_own(policy: &Policy, client: &Client<'_>, wish: Wish<'_>) -> Option<Nearest> {
    let table = policy.table();
    let resource = match wish {
        Wish::Connect => client.identifier,
        Wish::Publish(resource) | Wish::Subscribe(resource) => resource,
    };
    let mut best: Option<((Reverse<usize>, usize), Nearest)> = None;
    for (index, rule) in applicable(table, client.rules) {
        for pattern in patterns_of(table, rule, wish.action()) {
            let (equal, gap) = match wish.asked() {
                None => identifier_gap(pattern, client),
                Some(asked) => topic_gap(pattern, client, asked),
            };
            // The comparison is quadratic, and of two long texts nobody sees which is nearer.
            let short = |text: &str| text.chars().take(128).collect::<String>();
            let distance = match gap {
                // All that a wider filter asks for is equally far; the first pattern is as good as any.
                Gap::Wider { .. } => 0,
                _ => strsim::levenshtein(&short(pattern), &short(resource)),
            };
            let rank = (Reverse(equal), distance);
            if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                best = Some((rank, Nearest { rule: index, missing: wording::gap(&gap, wish) }));
            }
        }
    }
    best.map(|(_, nearest)| nearest)
}

fn identifier_gap<'a>(pattern: &'a str, client: &Client<'a>) -> (usize, Gap<'a>) {
    match filled(pattern, client) {
        Ok(filled) => (0, Gap::Identifier { filled }),
        Err(why) => (0, Gap::Unfilled { pattern, why }),
    }
}

/// How many levels of a pattern grant those that are asked for, and why the next does not.
fn topic_gap<'a>(pattern: &'a str, client: &Client<'a>, asked: Asked<'_>) -> (usize, Gap<'a>) {
    let (is_filter, resource) = match asked {
        Asked::Topic(topic) => (false, topic),
        Asked::Filter(filter) => (true, filter),
    };
    let levels = match filled_levels(pattern, client) {
        Ok(levels) => levels,
        Err(why) => {
            // What stands before the token tells how near the pattern is.
            let literal = |(own, wanted): &(&str, &str)| own == wanted || *own == "+";
            return (
                pattern.split('/').zip(resource.split('/')).take_while(literal).count(),
                Gap::Unfilled { pattern, why },
            );
        }
    };
    let filled = levels.join("/");
    if resource.starts_with('$') && filled.starts_with(['+', '#']) {
        return (0, Gap::System { filled });
    }
    let mut wanted = resource.split('/');
    for (number, own) in levels.iter().enumerate() {
        match wanted.next() {
            Some(level) if is_filter && matches!(level, "+" | "#") && !covers(own, level) => {
                return (number, Gap::Wider { filled });
            }
            Some(level) if *own == "+" || *own == level => {}
            Some(level) => {
                let (has, asks) = ((*own).to_owned(), level.to_owned());
                return (number, Gap::Level { filled, number: number + 1, has, asks });
            }
            None => return (number, Gap::Continues { filled }),
        }
    }
    (levels.len(), Gap::Ends { filled, levels: levels.len() })
}

/// The rule that allows the client something else with the same topic.
fn other_action(policy: &Policy, client: &Client<'_>, wish: Wish<'_>) -> Option<Nearest> {
    let other = match wish {
        Wish::Connect => return None,
        Wish::Publish(_) => Action::Subscribe,
        Wish::Subscribe(_) => Action::Publish,
    };
    let rule = policy.patterns(other)?.first_rule(policy.table(), client, wish.asked()?)?;
    Some(Nearest { rule, missing: wording::other_action(wish, other) })
}
