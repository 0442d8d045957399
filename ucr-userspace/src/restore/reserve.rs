//! Wanted descriptor numbers are kept free: nothing that is opened while restoring lands on one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{Mode, OFlags, open};

use crate::image::{Image, Socket};
use crate::sys::descriptor::{self, OnExec};
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
    /// Too many at once.
    #[error("{needed} descriptors are needed, beyond the hard limit of {hard} (RLIMIT_NOFILE)")]
    TooMany {
        /// How many.
        needed: u64,
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
            Self::BeyondLimit { .. } | Self::TooMany { .. } => {
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

/// Descriptors that a restore takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The numbers of all saved descriptors.
    numbers: BTreeSet<RawFd>,
    /// Sockets that stand at none of them meanwhile. With one process each is put straight to its first
    /// number; with several the same number may be wanted for different sockets.
    beside: usize,
}

impl Wanted {
    /// By an image.
    #[must_use]
    pub fn by(image: &Image) -> Self {
        let numbers = image.descriptors.iter().map(|descriptor| descriptor.fd).collect();
        let beside = if image.processes.len() == 1 { 0 } else { image.sockets.len() };
        Self { numbers, beside }
    }

    /// Of an image whose sockets get their numbers in other processes.
    #[must_use]
    pub fn beside(image: &Image) -> Self {
        // Of an internet socket also the old one.
        let each = |socket: &Socket| if socket.inet.is_some() { 2 } else { 1 };
        Self { numbers: BTreeSet::new(), beside: image.sockets.iter().map(each).sum() }
    }

    /// The lowest limit that all fit below.
    fn limit(&self) -> u64 {
        let number = self.numbers.last().copied().and_then(|number| u64::try_from(number).ok());
        let count = u64::try_from(self.numbers.len() + self.beside).unwrap_or(u64::MAX / 2);
        number.map_or(0, |number| number + 1).max(count + OWN_DESCRIPTORS)
    }
}

/// Whether these can be had. Nothing is changed.
///
/// # Errors
///
/// As [`Reserved::new`].
pub fn check(wanted: &Wanted) -> Result<(), ReserveError> {
    make_room(wanted).map(drop)
}

fn make_room(wanted: &Wanted) -> Result<RaisedLimit, ReserveError> {
    let needed = wanted.limit();
    let limit = RaisedLimit::raise(needed)?;
    let hard = limit.raised;
    match wanted.numbers.last() {
        _ if needed <= hard => Ok(limit),
        Some(&number) if u64::try_from(number).is_ok_and(|number| number >= hard) => {
            Err(ReserveError::BeyondLimit { number, hard })
        }
        _ => Err(ReserveError::TooMany { needed, hard }),
    }
}

/// Wanted numbers, each open in this process: by a placeholder, or by what was there before.
#[derive(Debug)]
pub struct Reserved {
    /// By number; closed when this is dropped, with whatever has been put over them.
    placeholders: HashMap<RawFd, OwnedFd>,
    /// Numbers that had nothing else to be put back.
    free: HashSet<RawFd>,
    /// What the placeholders are. It may itself have one of the numbers: it then goes on standing there.
    _nothing: OwnedFd,
    /// Put back after that.
    limit: RaisedLimit,
}

impl Reserved {
    /// Reserves the numbers, and makes room for the sockets beside them.
    ///
    /// # Errors
    ///
    /// A number or a count beyond the hard limit, and what the system refuses.
    pub fn new(wanted: &Wanted) -> Result<Self, ReserveError> {
        let limit = make_room(wanted)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let nothing = open("/", flags, Mode::empty()).map_err(failed("open /"))?;
        let mut placeholders = HashMap::new();
        for &number in &wanted.numbers {
            let reserved = descriptor::reserve(nothing.as_fd(), number);
            if let Some(placeholder) = reserved.map_err(failed("reserve a descriptor number"))? {
                placeholders.insert(number, placeholder);
            }
        }
        let free = placeholders.keys().copied().collect();
        Ok(Self { placeholders, free, _nothing: nothing, limit })
    }

    /// Puts a socket in the place of the placeholder at a number. If there is none, the socket stays
    /// where it is.
    ///
    /// # Errors
    ///
    /// What `dup3` refuses; the socket is closed then.
    pub fn settle(&mut self, socket: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
        let Some(place) = self.placeholders.remove(&number) else { return Ok(socket) };
        descriptor::duplicate_onto(socket.as_fd(), number, OnExec::Close)?;
        Ok(place)
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> &RaisedLimit {
        &self.limit
    }

    /// Whether a number was free before, so that nothing has to be put back there.
    #[must_use]
    pub fn was_free(&self, number: RawFd) -> bool {
        self.free.contains(&number)
    }
}
