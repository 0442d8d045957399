//! What is set on internet sockets, many of which are alike: what one of them was asked is not asked of the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    io, mem,
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use ucr_common::descriptor::SocketDescriptor;

use super::{
    InetDetails, MAX_LEN, create, details,
    trial::{self, Told},
};
use crate::{
    image::{InetOption, SocketOption},
    model::{
        inet::Over,
        inet_options::{self, Known},
        option_table,
    },
    process::{
        options,
        state::{self, Defaults, Settings, StateError},
        states::Unknown,
    },
    snapshot::memory::{Memory, TOGETHER},
    sys::sockopt,
};

/// `SO_BUF_LOCK`: the size of this buffer was set, and the kernel leaves it alone.
const SEND_LOCKED: i32 = 1;
const RECEIVE_LOCKED: i32 = 2;

/// To ask so many of a kind everything takes as long as to try out what their likeness tells.
const FEW: usize = 24;

/// Reads the states of internet sockets that stand still.
pub struct InetStates<'a> {
    memory: &'a Memory,
    kinds: HashMap<Over, Kind>,
    likeness: Vec<u8>,
    /// Those that will be read, by the addresses of their socks, and how many of them have been.
    expected: Vec<(u64, Over)>,
    read: usize,
}

/// One kind of socket.
struct Kind {
    general: Defaults,
    /// Of a new one.
    options: Vec<InetOption>,
    /// What this kernel has for it, in the order of the table.
    known: Vec<&'static Known>,
    told: Arc<Told>,
    /// What is set on those that are alike, as far as their likeness tells it.
    alike: HashMap<Vec<u8>, Set, foldhash::fast::RandomState>,
}

/// What is set.
type Set = (Settings, Vec<InetOption>);

impl Kind {
    /// Makes a socket, reads it and closes it.
    fn probe(kind: Over) -> Result<Self, StateError> {
        let new = create(kind.1, kind.0).map_err(|source| StateError::Read {
            operation: "socket for the defaults",
            fd: -1,
            source,
        })?;
        let new = new.as_fd();
        let mut known: Vec<_> = inet_options::of(kind.0).collect();
        let mut unknown = Vec::new();
        let options = read(new, known.iter().copied(), |of| unknown.push((of.level, of.number)))?;
        known.retain(|of| !unknown.contains(&(of.level, of.number)));
        Ok(Self {
            general: Defaults::of(new)?,
            options,
            known,
            told: Arc::default(),
            alike: HashMap::default(),
        })
    }

    /// What its likeness tells.
    fn told(&self, socket: BorrowedFd<'_>) -> Result<Set, StateError> {
        let settings = state::settings_of(socket, &self.general, |name| self.told.general(name))?;
        let told = self.known.iter().copied().filter(|of| self.told.inet(of.level, of.number));
        let mut options = read(socket, told, |_| {})?;
        state::unusual(&mut options, &self.options, |option| (option.level, option.number));
        Ok((settings, options))
    }

    /// The same with what it does not tell; of the second kind of options only those that matter.
    fn with_the_rest(
        &self,
        socket: BorrowedFd<'_>,
        (mut settings, mut options): Set,
        is_heard: bool,
        matters: impl Fn((i32, i32)) -> bool,
    ) -> Result<Set, StateError> {
        let is_told = |name| self.told.general(name);
        let locked = locked(&settings.options);
        let is_wanted = |name: i32| match name {
            libc::SO_SNDBUF => !is_told(libc::SO_BUF_LOCK) || locked & SEND_LOCKED != 0,
            libc::SO_RCVBUF => !is_told(libc::SO_BUF_LOCK) || locked & RECEIVE_LOCKED != 0,
            libc::SO_INCOMING_CPU => !is_heard,
            _ => true,
        };
        let rest = |name| !is_told(name) && is_wanted(name);
        let mut general = state::options_of(socket, &self.general, rest)?;
        if !general.is_empty() {
            general.append(&mut settings.options);
            general.sort_by_key(|option| option_table::rank(option.name));
            settings.options = general;
        }
        settings.options = set_by_somebody(settings.options, is_heard);
        let rest = self.known.iter().copied();
        let rest = rest.filter(|of| !self.told.inet(of.level, of.number));
        let mut asked = read(socket, rest.filter(|of| matters((of.level, of.number))), |_| {})?;
        state::unusual(&mut asked, &self.options, |option| (option.level, option.number));
        options.retain(|option| matters((option.level, option.number)));
        if !asked.is_empty() {
            options.append(&mut asked);
            options.sort_by_key(|option| inet_options::rank(option.level, option.number));
        }
        Ok((settings, options))
    }
}

impl<'a> InetStates<'a> {
    /// For sockets that will be read in this order, by the addresses of their socks.
    ///
    /// # Errors
    /// If no sockets can be made to see what new ones look like, or the kernel's memory makes no sense.
    pub fn new(
        memory: &'a Memory,
        expected: Vec<(u64, Over)>,
    ) -> Result<Self, Unknown<StateError>> {
        let mut counts: HashMap<Over, usize> = HashMap::new();
        for (_, kind) in &expected {
            *counts.entry(*kind).or_default() += 1;
        }
        let mut kinds = HashMap::new();
        for (kind, count) in counts {
            let mut new = Kind::probe(kind)?;
            if count > FEW {
                new.told = trial::told(memory, kind);
            }
            kinds.insert(kind, new);
        }
        Ok(Self { memory, kinds, likeness: Vec::new(), expected, read: 0 })
    }

    /// Tries out what it takes to read so many of a kind, so that it need not be done while they stand still.
    pub fn prepare(memory: &Memory, kind: Over, count: usize) {
        if count > FEW {
            drop(trial::told(memory, kind));
        }
    }

    /// Where it reads.
    pub(super) fn memory(&self) -> &'a Memory {
        self.memory
    }

    /// The state of one socket of this kind, by one of its descriptors and a duplicate of that.
    ///
    /// # Errors
    /// If the kernel refuses a question, or its memory makes no sense.
    pub fn read(
        &mut self,
        socket: BorrowedFd<'_>,
        listed: &SocketDescriptor,
        kind: Over,
    ) -> Result<InetDetails, Unknown<StateError>> {
        let rest = self.expected.get(self.read..).unwrap_or_default();
        if rest.first() == Some(&(listed.socket.sk, kind)) {
            if self.read.is_multiple_of(TOGETHER) {
                let together = rest.iter().take(TOGETHER);
                let together = together.map(|(sk, kind)| (*sk, kind.0.is_datagram()));
                self.memory.read_inet_ahead(together);
            }
            self.read += 1;
        }
        details(socket, listed, kind, self)
    }

    /// What is set on it. `is_heard`: it is connected, or was; `matters`: whether an option says something of it.
    pub(super) fn set(
        &mut self,
        socket: BorrowedFd<'_>,
        sk: u64,
        kind: Over,
        is_heard: bool,
        matters: impl Fn((i32, i32)) -> bool,
    ) -> Result<Set, Unknown<StateError>> {
        let of_kind = match self.kinds.entry(kind) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unexpected) => unexpected.insert(Kind::probe(kind)?),
        };
        let told = if of_kind.told.is_nothing() {
            // Then all of it is asked for as the rest.
            of_kind.told(socket)?
        } else {
            self.memory.inet_likeness(sk, kind.1, kind.0.is_datagram(), &mut self.likeness)?;
            match of_kind.alike.get(&self.likeness) {
                Some(known) => known.clone(),
                None => {
                    let new = of_kind.told(socket)?;
                    of_kind.alike.insert(mem::take(&mut self.likeness), new.clone());
                    new
                }
            }
        };
        Ok(of_kind.with_the_rest(socket, told, is_heard, matters)?)
    }
}

/// The value of `SO_BUF_LOCK`.
fn locked(options: &[SocketOption]) -> i32 {
    let lock = options.iter().find(|option| option.name == libc::SO_BUF_LOCK);
    lock.and_then(|lock| sockopt::as_int(&lock.value)).unwrap_or_default()
}

/// `SOL_SOCKET` options as far as somebody has set them.
fn set_by_somebody(mut options: Vec<SocketOption>, is_heard: bool) -> Vec<SocketOption> {
    let locked = locked(&options);
    options.retain(|option| match option.name {
        // Without a lock the kernel chooses the size, and changes it as it goes.
        libc::SO_SNDBUF => locked & SEND_LOCKED != 0,
        libc::SO_RCVBUF => locked & RECEIVE_LOCKED != 0,
        // The kernel notes here where the last packet of a connection came.
        libc::SO_INCOMING_CPU => !is_heard,
        _ => true,
    });
    options
}

/// Reads options; `unknown` is told which this kernel does not have.
fn read(
    socket: BorrowedFd<'_>,
    all: impl Iterator<Item = &'static Known>,
    mut unknown: impl FnMut(&Known),
) -> Result<Vec<InetOption>, StateError> {
    let mut options = Vec::new();
    for known in all {
        let &Known { level, number, name, .. } = known;
        match sockopt::get_at(socket, level, number, MAX_LEN) {
            // Of lists there are none.
            Ok(value) if value.is_empty() => {}
            Ok(value) => options.push(InetOption { level, number, value }),
            Err(error) if options::is_unknown(&error) => unknown(known),
            Err(error) if is_not_for_it(&error) => {}
            Err(error) => return Err(state::failed(name, socket, error)),
        }
    }
    Ok(options)
}

/// Whether the kernel says by this that a socket in this state has no such thing.
fn is_not_for_it(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::EINVAL))
}
