//! What clients and the daemon say to each other on the control socket: one question for each connection,
//! then answers until [`Reply::End`] or [`Reply::Refused`].
//!
//! Each message is its length (four bytes, little endian) and then postcard. Pure but for reading and writing
//! of such frames, which is in `frame`.

use serde::{Deserialize, Serialize};

use ucr_common::event::Event;
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::{
    model::Directories,
    query::{
        Value,
        graph::Graph,
        listing::{Heading, Request as Listing, RequestError},
        who::{Answer, Target},
    },
    tracer::{event::TraceEvent, programs::Scope},
};

/// Version of these shapes: client and daemon have to have the same.
pub const PROTOCOL: u32 = 2;

/// Longest answer of the daemon in one message, in bytes.
pub const LONGEST_REPLY: usize = 4 << 20;

/// Rows of a listing in one message.
pub const ROWS_AT_ONCE: usize = 512;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// [`PROTOCOL`]. It comes first, so that any version can read it.
    pub protocol: u32,
    /// What it wants to know.
    pub about: About,
}

impl Question {
    /// Out of a message's bytes.
    ///
    /// # Errors
    /// [`Refusal::OtherProtocol`], whatever else a client of another version says;
    /// [`Refusal::Malformed`].
    pub fn decode(message: &[u8]) -> Result<Self, Refusal> {
        let malformed = |_| Refusal::Malformed;
        let (theirs, about) = postcard::take_from_bytes::<u32>(message).map_err(malformed)?;
        if theirs != PROTOCOL {
            return Err(Refusal::OtherProtocol { ours: PROTOCOL, theirs });
        }
        match postcard::take_from_bytes(about).map_err(malformed)? {
            (about, []) => Ok(Self { protocol: theirs, about }),
            _ => Err(Refusal::Malformed),
        }
    }
}

/// What a client wants to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum About {
    /// How the daemon is.
    Status,
    /// Its figures, as Prometheus wants them.
    Metrics,
    /// Live sockets, as a listing.
    Live {
        /// What is to be shown.
        listing: Listing,
        /// Of which network namespaces.
        scope: Scope,
    },
    /// Who is on the other end.
    Who(Target),
    /// Processes and connections.
    Graph {
        /// Which sockets: a filter over the columns of live sockets.
        filter: Option<String>,
        /// Of which network namespaces.
        scope: Scope,
    },
    /// What is gone, as a listing.
    History {
        /// Closed sockets or events.
        kind: Gone,
        /// From this moment on, in nanoseconds since the epoch.
        since: Option<u64>,
        /// Before this moment.
        until: Option<u64>,
        /// What is to be shown.
        listing: Listing,
    },
    /// Events from now on.
    Trace(Wanted),
}

impl About {
    /// How it is counted.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Live { .. } => "ls",
            Self::Who(_) => "who",
            Self::Graph { .. } => "graph",
            Self::History { .. } => "history",
            Self::Trace(_) => "trace",
        }
    }
}

/// What has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gone {
    /// Sockets that have closed.
    Sockets,
    /// Events.
    Events,
}

/// Which events a client wants; the words of `ucr trace`. An empty list sets no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// By these processes.
    pub pids: Vec<i32>,
    /// By threads with such names (globs).
    pub comms: Vec<String>,
    /// About such names (globs).
    pub names: Vec<String>,
    /// In these network namespaces.
    pub netns: Vec<u32>,
    /// About sockets of these kinds, as [`Kind`](crate::tracer::filter::Kind) calls them.
    pub types: Vec<String>,
    /// Of these kinds, as they are called.
    pub kinds: Vec<String>,
    /// Calls that failed as well.
    pub failed: bool,
}

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// There is no answer.
    Refused(Refusal),
    /// Something that goes with the answer and is to be read by people.
    Note(String),
    /// The first part of a listing.
    Listing {
        /// Its columns.
        headings: Vec<Heading>,
        /// How many rows there would be without a limit.
        matched: u64,
        /// Among how many the filter has chosen.
        examined: u64,
    },
    /// Some rows of it.
    Rows(Vec<Vec<Value>>),
    /// Who is on the other end.
    Who(Box<Answer>),
    /// Processes and connections.
    Graph(Box<Graph>),
    /// How the daemon is.
    Status(Box<super::status::Status>),
    /// Text as it is to be printed.
    Text(String),
    /// Events come from now on.
    Following,
    /// An event.
    Event(Box<Sent>),
    /// So many events more than the client could take.
    Missed(u64),
    /// So many events that nobody has seen: they came faster than the daemon could read.
    Lost(u64),
    /// That was all.
    End,
}

/// An event as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The shape of the ring buffer, without kernel addresses: where there was one, there is 1.
    event: Vec<u8>,
    /// For a bind to a pathname.
    directories: Option<Directories>,
}

impl Sent {
    /// As it is sent.
    #[must_use]
    pub fn new(event: &TraceEvent) -> Self {
        let mut raw = event.raw;
        for id in [&mut raw.socket, &mut raw.peer, &mut raw.listener] {
            id.sk = u64::from(id.sk != 0);
        }
        Self { event: raw.as_bytes().to_vec(), directories: event.directories.clone() }
    }

    /// As it was; `None` if it has no known shape.
    #[must_use]
    pub fn event(self) -> Option<TraceEvent> {
        let raw = Event::read_from_bytes(&self.event).ok()?;
        Some(TraceEvent { raw, directories: self.directories, record: None })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Neither root nor a member of the group that is configured.
    #[error("user {uid} may not ask")]
    NotAllowed {
        /// Who asked.
        uid: u32,
    },
    /// Too many ask.
    #[error("the daemon has {limit} clients already")]
    Busy {
        /// How many are let in.
        limit: u32,
    },
    /// The question is too long.
    #[error("the question is longer than {limit} bytes")]
    TooLong {
        /// What is read at most.
        limit: u64,
    },
    /// It did not come in time.
    #[error("the question did not come in time")]
    TooSlow,
    /// It could not be understood.
    #[error("the question could not be understood")]
    Malformed,
    /// The client is of another version.
    #[error("the daemon speaks version {ours} of its protocol, the client version {theirs}")]
    OtherProtocol {
        /// The daemon's.
        ours: u32,
        /// The client's.
        theirs: u32,
    },
    /// The listing that was asked for makes no sense.
    #[error("{0}")]
    Request(RequestError),
    /// A pattern that was asked for is none.
    #[error("this is no pattern: {message}")]
    Pattern {
        /// Why.
        message: String,
    },
    /// It failed.
    #[error("{message}")]
    Failed {
        /// With its causes.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// There is no history.
    #[error("the daemon keeps no history")]
    NoHistory,
}

impl Refusal {
    /// How it is counted.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAllowed { .. } => "not_allowed",
            Self::Busy { .. } => "busy",
            Self::TooLong { .. } => "too_long",
            Self::TooSlow => "too_slow",
            Self::Malformed => "malformed",
            Self::OtherProtocol { .. } => "other_protocol",
            Self::Request(_) | Self::Pattern { .. } => "request",
            Self::Failed { .. } => "failed",
            Self::NoHistory => "no_history",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let fixed = match self {
            Self::NotAllowed { .. } => {
                "ask as root, or as a member of the group that [control] group names"
            }
            Self::Busy { .. } => "try again, or raise [control] max_clients",
            Self::OtherProtocol { .. } => "restart the daemon after an update of ucr",
            Self::NoHistory => "[history] enabled = true turns it on",
            Self::Request(error) => return error.hint(),
            Self::Failed { hint, .. } => return hint.clone(),
            _ => return None,
        };
        Some(fixed.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(protocol: u32) -> Vec<u8> {
        let question = Question { protocol, about: About::Status };
        postcard::to_stdvec(&question).expect("a message")
    }

    #[test]
    fn a_question_is_heard_whole_or_not_at_all() {
        let bytes = message(PROTOCOL);
        let heard = Question::decode(&bytes).expect("understood");
        assert_eq!(heard, Question { protocol: PROTOCOL, about: About::Status });
        let longer = [bytes.as_slice(), &[0]].concat();
        for wrong in [&bytes[..1], &longer, &[], &[0xff; 9]] {
            assert_eq!(Question::decode(wrong), Err(Refusal::Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn a_client_of_another_version_is_told_so_whatever_it_asks() {
        let mut bytes = message(PROTOCOL + 1);
        let refusal = Refusal::OtherProtocol { ours: PROTOCOL, theirs: PROTOCOL + 1 };
        assert_eq!(Question::decode(&bytes), Err(refusal.clone()));
        // A question that only later versions know.
        bytes.truncate(1);
        bytes.extend([0xff, 0xff, 0x7f, 1, 2, 3]);
        assert_eq!(Question::decode(&bytes), Err(refusal));
    }
}
