//! Wanted descriptor numbers are kept free: nothing that is opened while restoring lands on one.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{Mode, OFlags, open};

use crate::sys::descriptor;
use crate::sys::spawn::FileLimit;

/// What ucr itself has open meanwhile, generously.
const OWN_DESCRIPTORS: u64 = 64;

/// Why numbers cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Beyond the hard limit.
    #[error("descriptor {number} is beyond the hard limit of {hard} descriptors (RLIMIT_NOFILE)")]
    BeyondLimit {
        /// The wanted number.
        number: RawFd,
        /// The limit.
        hard: u64,
    },
    /// The system refuses.
    #[error("{operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl ReserveError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BeyondLimit { .. } => {
                Some("raise the hard limit first, e.g. with prlimit --nofile or ulimit -Hn")
            }
            Self::Io { .. } => None,
        }
    }
}

fn failed<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> ReserveError {
    move |error| ReserveError::Io { operation, source: error.into() }
}

/// The soft limit raised to the hard one; put back when this is dropped.
#[derive(Debug)]
pub struct RaisedLimit {
    before: FileLimit,
    raised: u64,
}

impl RaisedLimit {
    /// Raises the soft limit to the hard one, and that to what is needed where we may.
    fn raise(needed: u64) -> Result<Self, ReserveError> {
        let (soft, hard) =
            getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("getrlimit RLIMIT_NOFILE"))?;
        let before = FileLimit { soft, hard };
        // Without CAP_SYS_RESOURCE, or beyond fs.nr_open, the hard limit is what there is.
        if needed > hard && setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok() {
            return Ok(Self { before, raised: needed });
        }
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .map_err(failed("setrlimit RLIMIT_NOFILE"))?;
        Ok(Self { before, raised: hard })
    }

    /// The limit as it was.
    #[must_use]
    pub fn before(&self) -> FileLimit {
        self.before
    }

    /// Puts the limit back for now, and says whether that worked.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn put_back(&self) -> io::Result<()> {
        Ok(setrlimit(Resource::RLIMIT_NOFILE, self.before.soft, self.before.hard)?)
    }
}

impl RaisedLimit {
    /// Raises it once more after it was put back.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn raise_again(&self) -> io::Result<()> {
        // Lowering the hard limit can only be taken back by whoever could raise it before.
        Ok(setrlimit(Resource::RLIMIT_NOFILE, self.raised, self.raised)?)
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            tracing::error!(%error, "failed to put RLIMIT_NOFILE back");
        }
    }
}

/// Whether these numbers can be had, with as many sockets beside them. Nothing is changed.
///
/// # Errors
///
/// As [`Reserved::new`].
pub fn check(numbers: &BTreeSet<RawFd>, sockets: usize) -> Result<(), ReserveError> {
    make_room(numbers, sockets).map(drop)
}

fn make_room(numbers: &BTreeSet<RawFd>, sockets: usize) -> Result<RaisedLimit, ReserveError> {
    let highest = numbers.last().copied().unwrap_or(0);
    let needed = u64::try_from(highest).unwrap_or(0)
        + u64::try_from(sockets + numbers.len()).unwrap_or(u64::MAX / 2)
        + OWN_DESCRIPTORS;
    let limit = RaisedLimit::raise(needed)?;
    let hard = limit.raised;
    if let Some(&number) = numbers.last()
        && u64::try_from(number).is_ok_and(|number| number >= hard)
    {
        return Err(ReserveError::BeyondLimit { number, hard });
    }
    Ok(limit)
}

/// Wanted numbers, each open in this process: by a placeholder, or by what was there before.
#[derive(Debug)]
pub struct Reserved {
    /// Closed when this is dropped, with whatever has been put over them.
    placeholders: Vec<OwnedFd>,
    numbers: HashSet<RawFd>,
    /// Put back after that.
    limit: RaisedLimit,
}

impl Reserved {
    /// Reserves these numbers, and makes room for as many sockets beside them.
    ///
    /// # Errors
    ///
    /// A number beyond the hard limit, and what the system refuses.
    pub fn new(numbers: &BTreeSet<RawFd>, sockets: usize) -> Result<Self, ReserveError> {
        let limit = make_room(numbers, sockets)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let nothing = open("/", flags, Mode::empty()).map_err(failed("open /"))?;
        let mut placeholders = Vec::new();
        let mut held = HashSet::new();
        for &number in numbers {
            let reserved = descriptor::reserve(nothing.as_fd(), number);
            if let Some(placeholder) = reserved.map_err(failed("reserve a descriptor number"))? {
                placeholders.push(placeholder);
                held.insert(number);
            }
        }
        // What was opened first may itself have one of the numbers: it then goes on standing there.
        placeholders.push(nothing);
        Ok(Self { placeholders, numbers: held, limit })
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> &RaisedLimit {
        &self.limit
    }

    /// Whether a number is held by a placeholder, and not by something that was there before.
    #[must_use]
    pub fn is_placeholder(&self, number: RawFd) -> bool {
        self.numbers.contains(&number)
    }

    /// How many descriptors hold a number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.placeholders.len()
    }

    /// Whether nothing is reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.placeholders.is_empty()
    }
}
