//! How much each room says: `info,authorization=debug` in words, one level a room in numbers.

use core::fmt;
use log::LevelFilter;

/// Rooms whose level can be set by itself, and `libraries` for what is not ours. Everything else has the level of all.
pub const ROOMS: [&str; 10] = [
    "authentication",
    "authorization",
    "bridge",
    "broker",
    "commands",
    "net",
    "service",
    "store",
    "upstream",
    "libraries",
];

/// What log targets of this program begin with.
const OURS: &str = "portcullis::";

/// A level for each room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    all: LevelFilter,
    rooms: [LevelFilter; ROOMS.len()],
}

impl From<LevelFilter> for Levels {
    /// The same for all of ours. Libraries speak about single records and wakers: of interest only when asked for everything.
    fn from(all: LevelFilter) -> Self {
        let mut levels = Self { all, rooms: [all; ROOMS.len()] };
        if all < LevelFilter::Trace {
            levels.set("libraries", all.min(LevelFilter::Warn));
        }
        levels
    }
}

impl Levels {
    /// Reads `LEVEL`, `ROOM=LEVEL`, or several of them with commas between; what is said later counts. Rooms that are not named
    /// have the level without a room, `info` if there is none.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = || {
            text.split(',').map(|part| part.split_once('=').map_or((None, part), |(room, level)| (Some(room), level)))
        };
        let mut levels = Self::from(LevelFilter::Info);
        for (_, level) in parts().filter(|(room, _)| room.is_none()) {
            levels = Self::from(level_named(level)?);
        }
        for (room, level) in parts() {
            let Some(room) = room else { continue };
            if !levels.set(room, level_named(level)?) {
                return Err(format!("there is no room '{}', rooms are {}", room.escape_debug(), ROOMS.join(", ")));
            }
        }
        Ok(levels)
    }

    /// The level of what is logged with this target.
    #[must_use]
    pub fn of(&self, target: &str) -> LevelFilter {
        room_of(target).and_then(|room| self.rooms.get(room)).copied().unwrap_or(self.all)
    }

    /// The level that some room has at least.
    #[must_use]
    pub fn max(&self) -> LevelFilter {
        self.rooms.into_iter().fold(self.all, Ord::max)
    }

    fn set(&mut self, room: &str, level: LevelFilter) -> bool {
        let place = ROOMS.iter().position(|name| *name == room).and_then(|room| self.rooms.get_mut(room));
        place.map(|place| *place = level).is_some()
    }
}

/// Index in [`ROOMS`] of the room that a target belongs to; `None` for others of ours.
pub fn room_of(target: &str) -> Option<usize> {
    match target.strip_prefix(OURS) {
        Some(path) => {
            let name = path.split("::").next().unwrap_or(path);
            ROOMS.iter().position(|room| *room == name)
        }
        None if target == OURS.trim_end_matches(':') => None,
        None => Some(ROOMS.len() - 1),
    }
}

fn level_named(name: &str) -> Result<LevelFilter, String> {
    let levels = [
        ("off", LevelFilter::Off),
        ("error", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
        ("trace", LevelFilter::Trace),
    ];
    let found = levels.into_iter().find(|(level, _)| *level == name);
    found.map(|(_, level)| level).ok_or_else(|| {
        format!("'{}' is no level; levels are error, warn, info, debug, trace and off", name.escape_debug())
    })
}

impl fmt::Display for Levels {
    /// As [`Levels::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |level: LevelFilter| level.as_str().to_ascii_lowercase();
        f.write_str(&name(self.all))?;
        let usual = Self::from(self.all);
        for ((room, level), usual) in ROOMS.iter().zip(self.rooms).zip(usual.rooms) {
            if level != usual {
                write!(f, ",{room}={}", name(level))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_its_own_level_and_the_others_that_of_all() {
        let levels = Levels::parse("store=trace,warn,authorization=debug").unwrap();
        assert_eq!(levels.of("portcullis::authorization::policy"), LevelFilter::Debug);
        assert_eq!(levels.of("portcullis::store"), LevelFilter::Trace);
        assert_eq!(levels.of("portcullis::net::turn"), LevelFilter::Warn);
        assert_eq!(levels.of("portcullis"), LevelFilter::Warn);
        assert_eq!(levels.of("portcullis::codec"), LevelFilter::Warn);
        assert_eq!(levels.of("rustls::server"), LevelFilter::Warn);
        assert_eq!(levels.max(), LevelFilter::Trace);
        assert_eq!(levels.to_string(), "warn,authorization=debug,store=trace");
        assert_eq!(Levels::parse(&levels.to_string()), Ok(levels));
    }

    #[test]
    fn libraries_speak_of_details_only_when_asked() {
        assert_eq!(Levels::parse("debug").unwrap().of("polling::epoll"), LevelFilter::Warn);
        assert_eq!(Levels::parse("trace").unwrap().of("polling::epoll"), LevelFilter::Trace);
        assert_eq!(Levels::parse("off").unwrap().of("polling::epoll"), LevelFilter::Off);
        assert_eq!(Levels::parse("libraries=debug").unwrap().of("polling::epoll"), LevelFilter::Debug);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in
            [("", "'' is no level"), ("loud", "'loud'"), ("nets=debug", "'nets'"), ("net=", "''"), ("a\n", "a\\n")]
        {
            let fault = Levels::parse(text).unwrap_err();
            assert!(fault.contains(said), "{fault}");
        }
    }
}
