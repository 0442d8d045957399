//! What the kernel's memory tells of the sockets that were made.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use foldhash::{HashMap, HashSet};

use ucr_common::descriptor::SocketDescriptor;

use super::{ObserveError, queues::is_needed};
use crate::{
    image::{Image, SocketIndex},
    process::{
        state::{SocketDetails, StateError},
        states::{States, Unknown},
    },
    restore::execute::Restored,
    snapshot::{
        descriptors::{DescriptorError, Lister},
        memory::{Memory, MemoryError, TOGETHER},
    },
};

/// From so many sockets on it is quicker to load what reads memory than to ask each of them everything.
pub const MANY: usize = 1024;

/// A way to look.
#[derive(Debug)]
pub struct Insight {
    pub(super) memory: Memory,
    /// Where each socket is.
    pub(super) socks: HashMap<SocketIndex, u64>,
    listed: HashMap<i32, SocketDescriptor>,
    /// Those that are no unix sockets.
    others: HashSet<SocketIndex>,
}

impl Insight {
    /// Opens one, if something in the image takes it or it is quicker, which it is from so many sockets on; `lister` gives what it takes.
    ///
    /// # Errors
    /// The kernel's memory cannot be read, and something in the image takes it.
    pub fn open(
        image: &Image,
        restored: &Restored,
        many: usize,
        lister: impl FnOnce() -> Result<Lister, DescriptorError>,
    ) -> Result<Option<Self>, MemoryError> {
        let must_be = is_needed(image);
        if !must_be && image.sockets.len() < many {
            return Ok(None);
        }
        match Self::of(image, restored, lister) {
            // Everything can be asked as well.
            Err(_) if !must_be => Ok(None),
            result => result.map(Some),
        }
    }

    fn of(
        image: &Image,
        restored: &Restored,
        lister: impl FnOnce() -> Result<Lister, DescriptorError>,
    ) -> Result<Self, MemoryError> {
        let mut lister = lister()?;
        let (memory, listed) = Memory::prepare_and_list(&mut lister)?;
        let listed = listed.into_iter().filter(|d| d.tid == d.pid);
        let listed: HashMap<i32, SocketDescriptor> =
            listed.map(|d| (d.fd.cast_signed(), d)).collect();
        let sk = |index| {
            let fd = restored.socket(index)?.as_raw_fd();
            Some((index, listed.get(&fd)?.socket.sk))
        };
        let socks = (0..).map(SocketIndex).zip(&image.sockets).filter_map(|(at, _)| sk(at));
        let all = (0..).map(SocketIndex).zip(&image.sockets);
        let others = all.filter(|(_, socket)| !socket.is_unix()).map(|(at, _)| at).collect();
        Ok(Self { socks: socks.collect(), memory, listed, others })
    }

    /// Reads ahead what will be asked of a socket and those behind it; does so now and then.
    pub(super) fn read_ahead(&self, index: SocketIndex) {
        if index.get().is_multiple_of(TOGETHER) {
            let together = (index.0..).map(SocketIndex).take(TOGETHER);
            let unix = together.filter(|at| !self.others.contains(at));
            let socks: Vec<u64> = unix.filter_map(|at| self.socks.get(&at).copied()).collect();
            self.memory.read_ahead(&socks);
        }
    }

    /// One of our own descriptors as it was listed.
    pub(super) fn listed(&self, socket: BorrowedFd<'_>) -> Option<&SocketDescriptor> {
        self.listed.get(&socket.as_raw_fd())
    }

    /// What it tells of one socket; `None` if it is not listed.
    pub(super) fn details(
        &self,
        states: &mut States<'_>,
        restored: &Restored,
        index: SocketIndex,
    ) -> Result<Option<SocketDetails>, ObserveError> {
        let Some(socket) = restored.socket(index) else { return Ok(None) };
        let Some(listed) = self.listed(socket) else { return Ok(None) };
        let failed = |source| ObserveError::State { socket: index, source };
        let senseless = |error| {
            let fd = socket.as_raw_fd();
            let source = io::Error::other(error);
            failed(StateError::Read { operation: "the kernel's memory", fd, source })
        };
        let sock = self.memory.sock(listed.socket.sk).map_err(senseless)?;
        match states.read(&sock, listed, || socket.try_clone_to_owned()) {
            Ok((details, _)) => Ok(Some(details)),
            Err(Unknown::OutOfReach(source)) => {
                let fd = socket.as_raw_fd();
                Err(failed(StateError::Read { operation: "duplicate", fd, source }))
            }
            Err(Unknown::Refused(source)) => Err(failed(source)),
            Err(Unknown::Senseless(error)) => Err(senseless(error)),
        }
    }
}
