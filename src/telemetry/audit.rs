//! Who was denied what: counted always, said as often as somebody can read it.

use super::{Asking, Event, Telemetry, Text};
use crate::identity::{AuthenticationMethod, Identity};
use crate::time::Instant;
use core::fmt;

/// Denials of one session that are said in a minute.
const SAID_MAX: u8 = 10;
/// Length of that minute, milliseconds.
const WINDOW_MILLISECONDS: u64 = 60_000;

/// What a client wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// CONNECT.
    Connect,
    /// PUBLISH.
    Publish,
    /// SUBSCRIBE.
    Subscribe,
    /// Leave a Will at CONNECT, or have it published.
    Will,
    /// Keep a subscription that was allowed once.
    KeepSubscription,
    /// Get a message that waited for it.
    Receive,
}

impl Action {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Publish, Self::Subscribe, Self::Will, Self::KeepSubscription, Self::Receive];

    /// Its word in log lines and topics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Will => "will",
            Self::KeepSubscription => "keep-subscription",
            Self::Receive => "receive",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who did it, for a line of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Client Identifier.
    pub client: Text,
    /// User name that rules see.
    pub username: Option<Text>,
    /// How it was authenticated.
    pub method: AuthenticationMethod,
}

impl Who {
    /// A client.
    #[must_use]
    pub fn new(client_identifier: &str, identity: &Identity) -> Self {
        Self {
            client: Text::new(client_identifier),
            username: identity.username.as_deref().map(Text::new),
            method: identity.method,
        }
    }
}

impl fmt::Display for Who {
    /// `client='…' user='…' method=…`; no user where rules see none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client='{}'", self.client)?;
        if let Some(username) = &self.username {
            write!(f, " user='{username}'")?;
        }
        write!(f, " method={}", self.method.name())
    }
}

/// How much of a session's denials is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditBudget {
    since: Instant,
    said: u8,
    /// Denials that were counted only.
    unsaid: u32,
}

impl AuditBudget {
    /// Whether this denial is said, and how many before it were not.
    fn spend(&mut self, now: Instant) -> Option<u32> {
        if self.said == 0 || now.milliseconds_since(self.since) >= WINDOW_MILLISECONDS {
            (self.since, self.said) = (now, 0);
        }
        if self.said == SAID_MAX {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.said += 1;
        Some(core::mem::take(&mut self.unsaid))
    }

    /// How many denials were not said; they are said now.
    pub fn settle(&mut self) -> u32 {
        core::mem::take(&mut self.unsaid)
    }
}

impl Telemetry {
    /// No rule allows a client what it asked for. `resource` is the topic or filter.
    pub fn deny(&mut self, now: Instant, budget: &mut AuditBudget, action: Action, resource: &str, asking: Asking<'_>) {
        self.count_denied(action);
        if let Some(unsaid) = budget.spend(now) {
            self.denials.deny(now, asking, action, resource);
            let who = Who::new(asking.client, asking.identity);
            self.record(Event::Denied { who, action, resource: Text::new(resource), unsaid });
        }
    }

    /// Counts a denial that is not worth a line of its own.
    pub fn count_denied(&mut self, action: Action) {
        if let Some(count) = self.counters.denied.get_mut(action as usize) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_denials_a_minute_are_said_and_the_others_counted() {
        let (mut telemetry, mut budget) = (Telemetry::new(), AuditBudget::default());
        let identity = Identity::default();
        let asking = Asking { client: "c", identity: &identity, port: 0 };
        let mut deny = |milliseconds| {
            let now = Instant::from_milliseconds(milliseconds);
            telemetry.deny(now, &mut budget, Action::Publish, "t", asking);
            match telemetry.take_event() {
                Some(Event::Denied { unsaid, .. }) => Some(unsaid),
                _ => None,
            }
        };
        assert!((0..10).all(|at| deny(at) == Some(0)));
        assert!((10..1_010).all(|at| deny(at).is_none()));
        assert_eq!((deny(59_999), deny(60_000), deny(60_001)), (None, Some(1_001), Some(0)));
        assert_eq!(telemetry.counters.denied, [0, 1_013, 0, 0, 0, 0]);
        assert_eq!(telemetry.counters.authorization_denied(), 1_013);
        assert_eq!(budget.settle(), 0);
    }

    #[test]
    fn the_counters_stand_in_the_order_of_the_actions() {
        for (index, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, index);
        }
    }
}
