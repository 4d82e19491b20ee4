//! How updates stand, in one word: PID 1 writes it, the broker shows it, and who has sent one reads it.

/// How an update stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateState {
    /// There was none.
    #[default]
    Idle,
    /// It is checked and written.
    Working,
    /// It runs, and must show that it can.
    Trial,
    /// It is in force.
    Kept,
    /// It was not taken; nothing has changed.
    Refused,
    /// It ran and could not; what was in force before is again.
    Back,
}

impl UpdateState {
    /// All of them.
    const ALL: [Self; 6] = [Self::Idle, Self::Working, Self::Trial, Self::Kept, Self::Refused, Self::Back];

    /// The one with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == word)
    }

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Trial => "trial",
            Self::Kept => "kept",
            Self::Refused => "refused",
            Self::Back => "back",
        }
    }

    /// Whether another update would be in its way.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        match self {
            Self::Working | Self::Trial => true,
            Self::Idle | Self::Kept | Self::Refused | Self::Back => false,
        }
    }
}
