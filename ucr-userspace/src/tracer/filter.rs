//! Which events somebody wants to see. Pure.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::event::TraceEvent;
use crate::model::{Pid, SocketType, UnixName, name::Escaped};

/// Whether calls that failed are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failed {
    /// Only calls that succeeded.
    #[default]
    Hidden,
    /// All calls.
    Shown,
}

/// What every wanted event has. An empty list sets no condition.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Made by one of these processes.
    pub pids: Vec<Pid>,
    /// By a thread whose name, as shown, matches one of these.
    pub comms: Vec<GlobSet>,
    /// About a name (as shown, abstract ones with a leading `@`) that matches one of these.
    pub names: Vec<GlobSet>,
    /// In one of these network namespaces, by inode number.
    pub netns: Vec<u32>,
    /// About a socket of one of these types.
    pub types: Vec<SocketType>,
    /// Of one of these kinds, as [`TraceEvent::kind`] calls them.
    pub kinds: Vec<String>,
    /// Calls that failed.
    pub failed: Failed,
}

impl EventFilter {
    /// Whether the event is wanted.
    #[must_use]
    pub fn wants(&self, event: &TraceEvent) -> bool {
        let raw = &event.raw;
        (self.failed == Failed::Shown || raw.result >= 0)
            && any(&self.pids, |pid| u32::try_from(pid.0).is_ok_and(|pid| pid == raw.actor.pid))
            && any(&self.comms, |glob| glob.is_match(Escaped(raw.actor.comm()).to_string()))
            && any(&self.names, |glob| {
                let name = event.name();
                name != UnixName::Unnamed && glob.is_match(name.to_string())
            })
            && any(&self.netns, |netns| *netns == raw.netns)
            && any(&self.types, |wanted| event.socket_type() == Some(*wanted))
            && any(&self.kinds, |kind| kind == event.kind())
    }
}

/// A pattern for what is shown, where odd bytes are `\xNN`: a backslash has no other meaning in it.
///
/// # Errors
/// It is none, or one that is too large or nested too deeply: some of that is found only by building a set
/// (a single matcher would panic).
pub fn pattern(text: &str) -> Result<GlobSet, globset::Error> {
    let glob = GlobBuilder::new(text).backslash_escape(false).build()?;
    GlobSetBuilder::new().add(glob).build()
}

fn any<T>(conditions: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    conditions.is_empty() || conditions.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use ucr_common::event::{Event, kind};
    use zerocopy::FromZeros as _;

    use super::*;

    fn event(change: impl FnOnce(&mut Event)) -> TraceEvent {
        let mut raw = Event::new_zeroed();
        raw.kind = kind::BIND;
        change(&mut raw);
        TraceEvent { raw, directories: None, record: None }
    }

    fn glob(text: &str) -> GlobSet {
        pattern(text).expect("a pattern")
    }

    #[test]
    fn no_condition_wants_all_that_succeeded() {
        let all = EventFilter::default();
        assert!(all.wants(&event(|_| {})));
        assert!(!all.wants(&event(|e| e.result = -98)));
        let failed = EventFilter { failed: Failed::Shown, ..EventFilter::default() };
        assert!(failed.wants(&event(|e| e.result = -98)));
    }

    #[test]
    fn every_condition_must_hold() {
        let filter = EventFilter {
            pids: vec![Pid(7)],
            names: vec![glob("@bus*")],
            ..EventFilter::default()
        };
        let named = |pid: u32, name: &[u8]| {
            event(|e| {
                e.actor.pid = pid;
                e.name.bytes[..name.len()].copy_from_slice(name);
                e.name.len = u32::try_from(name.len()).expect("short");
            })
        };
        assert!(filter.wants(&named(7, b"\0bus1")));
        assert!(!filter.wants(&named(8, b"\0bus1")));
        assert!(!filter.wants(&named(7, b"/bus1")));
        assert!(!filter.wants(&named(7, b"")));
    }

    #[test]
    fn kinds_and_types_select() {
        let filter = EventFilter {
            kinds: vec!["bind".to_owned()],
            types: vec![SocketType::Stream],
            ..EventFilter::default()
        };
        assert!(filter.wants(&event(|e| e.socket_type = 1)));
        assert!(!filter.wants(&event(|e| e.socket_type = 2)));
        assert!(!filter.wants(&event(|e| {
            e.socket_type = 1;
            e.kind = kind::CLOSE;
        })));
    }
}
