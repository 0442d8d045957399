//! Programs that hang on nothing and are run when somebody asks: passes over sockets and descriptors, a
//! search through the ledger, a look at one socket.
//!
//! Attached tracing keeps them pinned, so that a question costs no load: reading the kernel's types and
//! verifying takes longer than most answers.

mod counts;
mod ends;
mod sights;

pub use counts::{InetCounts, UnixCounts};
pub use sights::{Parser, Sight};

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use ucr_common::sighting::{COUNTS, NAME_WORDS, Wanted, wanted};
use zerocopy::IntoBytes as _;

use super::{
    TracerError,
    demand::OnDemand,
    object::{Object, Sizes, open_pin},
    pass::{self, Pass},
    pins::{PinDirectory, files},
};
use crate::{
    model::UnixName,
    sys::bpf::{self, Mapped},
};

/// All of them, with what each goes over; none: it is run once.
pub const PROGRAMS: [(&str, Option<&str>); 9] = [
    ("visit_unix", Some("unix")),
    ("visit_inet", Some("task_file")),
    ("mark_gone", Some("unix")),
    ("see_addresses", Some("unix")),
    ("see_descriptors", Some("task_file")),
    ("see_socket", None),
    ("search_ledger", None),
    ("list_sockets", Some("task_file")),
    ("read_memory", None),
];

/// Which sockets are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Scope {
    /// Those of the network namespace that ucr is in.
    #[default]
    OwnNamespace,
    /// Those of every network namespace that some task is in, or whose socket somebody holds.
    AllNamespaces,
}

/// What to look for in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought<'a> {
    /// The socket with this inode.
    Inode(u32),
    /// The socket with this cookie.
    Cookie(u64),
    /// All sockets with this name.
    Name(&'a UnixName),
    /// All sockets that came through the listener at this address, or whose peer is there.
    Related(u64),
}

/// The programs, loaded, with the maps that they answer in.
pub struct Programs {
    programs: Vec<(&'static str, OnceLock<OwnedFd>)>,
    /// What loads those that are not there yet.
    loader: Option<Mutex<OnDemand>>,
    /// One asks at a time.
    maps: Mutex<Maps>,
    /// The pinned maps are everybody's: one process asks at a time.
    shared: Option<PinDirectory>,
}

/// Where questions and answers are.
struct Maps {
    wanted: Array<MapData, [u8; size_of::<Wanted>()]>,
    found: Array<MapData, u64>,
    found_memory: Mapped,
    room: usize,
    sight: Mapped,
    ends: Array<MapData, u64>,
}

/// How long somebody else may ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same while processes stand still.
const SHORT_PATIENCE: Duration = Duration::from_millis(100);

/// The right to ask.
struct Turn<'a> {
    maps: MutexGuard<'a, Maps>,
    _others_wait: Option<Flock<File>>,
}

/// What a pass or search came across.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Addresses of socks.
    pub addresses: Vec<u64>,
    /// How many more there were, for which there was no room.
    pub left_out: u64,
}

impl Programs {
    /// Those of attached tracing.
    ///
    /// # Errors
    /// A pin that is missing or is not what it should be.
    pub fn open(pins: &PinDirectory) -> Result<Self, TracerError> {
        let programs = PROGRAMS.iter().map(|(name, _)| {
            let path = pins.programs().join(name);
            let fd = bpf::open_pin(&path).map_err(files("open pinned program", &path))?;
            Ok((*name, OnceLock::from(fd)))
        });
        let map = |name| {
            Map::from_map_data(open_pin(&pins.maps(), name)?)
                .map_err(|source| TracerError::Map { map: name, source })
        };
        let shared = Some(pins.clone());
        Ok(Self { shared, ..Self::build(programs.collect::<Result<_, TracerError>>()?, map)? })
    }

    /// For this process alone, which loads each when it is first run: most questions take two of them, and
    /// the verifier is busy with the others for a long time.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn load() -> Result<Self, TracerError> {
        let sizes = Sizes { ring_bytes: 4096, sockets: 1, census: 1, ..Sizes::default() };
        let mut loader = OnDemand::open(sizes)?;
        let programs = PROGRAMS.map(|(name, _)| (name, OnceLock::new()));
        let map = |name| {
            let failed = |source| TracerError::Map { map: name, source };
            let data = MapData::from_fd(loader.map(name)?).map_err(failed)?;
            Map::from_map_data(data).map_err(failed)
        };
        let built = Self::build(programs.into(), map)?;
        Ok(Self { loader: Some(Mutex::new(loader)), ..built })
    }

    /// Those of an object that is loaded in this process, whose maps are ours alone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn of(object: &mut Object) -> Result<Self, TracerError> {
        object.load_programs(&PROGRAMS)?;
        let mut programs = Vec::new();
        for (name, _) in PROGRAMS {
            programs.push((name, duplicate(object.loaded(name)?.as_fd(), name)?.into()));
        }
        Self::build(programs, |name| object.take_map(name))
    }

    fn build(
        programs: Vec<(&'static str, OnceLock<OwnedFd>)>,
        mut map: impl FnMut(&'static str) -> Result<Map, TracerError>,
    ) -> Result<Self, TracerError> {
        let (wanted, found, sight) = (map("WANTED")?, map("FOUND")?, map("SIGHT")?);
        let ends = Array::try_from(map("ENDS")?);
        let Map::Array(sight) = sight else { return Err(TracerError::Missing("array SIGHT")) };
        let Map::Array(data) = found else { return Err(TracerError::Missing("array FOUND")) };
        let room = data.info().map_err(|source| TracerError::Map { map: "FOUND", source })?;
        let room = usize::try_from(room.max_entries()).unwrap_or(1);
        let mapped = |data: &MapData, name, length: usize| {
            Mapped::new(data.fd().as_fd(), length.next_multiple_of(4096)).map_err(|source| {
                TracerError::Map { map: name, source: aya::maps::MapError::IoError(source) }
            })
        };
        let found_memory = mapped(&data, "FOUND", room * size_of::<u64>())?;
        let sight = mapped(&sight, "SIGHT", sights::LOOK_LEN)?;
        let typed = |source| TracerError::Map { map: "FOUND", source };
        let maps = Maps {
            wanted: Array::try_from(wanted)
                .map_err(|source| TracerError::Map { map: "WANTED", source })?,
            found: Array::try_from(Map::Array(data)).map_err(typed)?,
            found_memory,
            room,
            sight,
            ends: ends.map_err(|source| TracerError::Map { map: "ENDS", source })?,
        };
        Ok(Self { programs, loader: None, maps: Mutex::new(maps), shared: None })
    }

    /// A program, loaded if it was not.
    ///
    /// # Errors
    /// [`TracerError::Missing`], or the kernel's refusal.
    pub fn get(&self, program: &'static str) -> Result<BorrowedFd<'_>, TracerError> {
        let found = self.programs.iter().find(|(name, _)| *name == program);
        let (_, fd) = found.ok_or(TracerError::Missing(program))?;
        if let Some(fd) = fd.get() {
            return Ok(fd.as_fd());
        }
        let loader = self.loader.as_ref().ok_or(TracerError::Missing(program))?;
        let loaded = loader.lock().unwrap_or_else(PoisonError::into_inner).program(program)?;
        Ok(fd.get_or_init(|| loaded).as_fd())
    }

    /// A pass over the descriptors of all processes, or over those of one thread: everything that leads to a
    /// unix socket, of whatever network namespace.
    ///
    /// # Errors
    /// The kernel's; that a thread is gone is none.
    pub fn see_descriptors(&self, thread: Option<i32>) -> Result<Vec<Sight>, TracerError> {
        let (mut sights, mut parser) = (Vec::new(), Parser::default());
        self.pour_descriptors(thread, |piece| parser.take(&piece, |sight| sights.push(sight)))?;
        Ok(sights)
    }

    /// The same as bytes for a [`Parser`], piece by piece as the kernel gives them: who has many to go through
    /// can do so while the kernel goes on.
    ///
    /// # Errors
    /// As of [`see_descriptors`](Self::see_descriptors).
    pub fn pour_descriptors(
        &self,
        thread: Option<i32>,
        piece: impl FnMut(Vec<u8>),
    ) -> Result<(), TracerError> {
        let program = self.get("see_descriptors")?;
        let pass = match thread {
            None => bpf::iterate_all(program),
            Some(thread) => bpf::iterate_thread(program, thread),
        };
        match pass.and_then(|pass| sights::read(pass, piece)) {
            Ok(()) => Ok(()),
            Err(error) if thread.is_some() && error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(source) => Err(TracerError::Pass { program: "see_descriptors", source }),
        }
    }

    /// Addresses of all unix sockets, embryos included, of our own network namespace; or also of all others
    /// that some task is in.
    ///
    /// # Errors
    /// The kernel's; only if not even our own namespace can be visited.
    pub fn see_addresses(&self, scope: Scope) -> Result<(Addresses, Pass), TracerError> {
        let mut turn = self.turn()?;
        turn.maps.clear()?;
        let program = self.get("see_addresses")?;
        let pass = match scope {
            Scope::OwnNamespace => pass::run_here(program)?,
            Scope::AllNamespaces => pass::run(program)?,
        };
        Ok((turn.maps.noted(), pass))
    }

    /// Searches the ledger.
    ///
    /// # Errors
    /// The kernel's.
    pub fn search(&self, sought: &Sought<'_>) -> Result<Addresses, TracerError> {
        let mut turn = self.turn()?;
        turn.maps.clear()?;
        turn.maps.want(&spelled(sought))?;
        self.run("search_ledger", 0)?;
        Ok(turn.maps.noted())
    }

    /// How many sockets of each type and state the ledger has: of the unix and of the internet families.
    ///
    /// # Errors
    /// The kernel's.
    pub fn count(&self) -> Result<(UnixCounts, InetCounts), TracerError> {
        let mut turn = self.turn()?;
        for at in 0..COUNTS {
            turn.maps.set(at, 0)?;
        }
        turn.maps.want(&Wanted { kind: wanted::COUNT, ..NOTHING })?;
        self.run("search_ledger", 0)?;
        let bytes = turn.maps.found_memory.copy(usize::try_from(COUNTS).unwrap_or(0) * 8);
        Ok(counts::read(&bytes))
    }

    /// Looks at the sock at an address; `None` if there is no living unix sock there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn look(&self, address: u64) -> Result<Option<Sight>, TracerError> {
        // Nothing else is the kernel's, and some addresses are nobody's: kernels before 6.2 warn of reads
        // from these.
        const KERNELS: u64 = 0xff00_0000_0000_0000;
        if address < KERNELS {
            return Ok(None);
        }
        let turn = self.turn()?;
        self.run("see_socket", address)?;
        Ok(sights::living(&turn.maps.sight.copy(sights::LOOK_LEN)))
    }

    fn run(&self, program: &'static str, argument: u64) -> Result<(), TracerError> {
        bpf::run(self.get(program)?, [argument, 0])
            .map(drop)
            .map_err(|source| TracerError::Pass { program, source })
    }

    fn turn(&self) -> Result<Turn<'_>, TracerError> {
        self.turn_within(PATIENCE)
    }

    fn turn_within(&self, patience: Duration) -> Result<Turn<'_>, TracerError> {
        // What a panic may have left in the maps is overwritten.
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pins) = &self.shared else { return Ok(Turn { maps, _others_wait: None }) };
        let path = pins.programs();
        let directory = File::open(&path).map_err(files("open", &path))?;
        let deadline = Instant::now() + patience;
        let mut directory = directory;
        loop {
            match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Turn { maps, _others_wait: Some(lock) }),
                // Somebody else asks, which takes no time, unless he was stopped while he did.
                Err((file, Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                    directory = file;
                    thread::sleep(Duration::from_millis(1));
                }
                Err((_, Errno::EWOULDBLOCK)) => return Err(TracerError::Occupied { path }),
                Err((_, errno)) => return Err(files("lock", &path)(errno.into())),
            }
        }
    }
}

impl Maps {
    fn clear(&mut self) -> Result<(), TracerError> {
        self.set(0, 0)
    }

    fn set(&mut self, at: u32, value: u64) -> Result<(), TracerError> {
        self.found.set(at, value, 0).map_err(|source| TracerError::Map { map: "FOUND", source })
    }

    fn want(&mut self, wanted: &Wanted) -> Result<(), TracerError> {
        let mut bytes = [0; size_of::<Wanted>()];
        bytes.copy_from_slice(wanted.as_bytes());
        let set = self.wanted.set(0, bytes, 0);
        set.map_err(|source| TracerError::Map { map: "WANTED", source })
    }

    fn noted(&self) -> Addresses {
        let count = self.found_memory.copy(8).try_into().map_or(0, u64::from_ne_bytes);
        let written = usize::try_from(count).unwrap_or(usize::MAX).min(self.room - 1);
        let bytes = self.found_memory.copy((written + 1) * 8);
        let words = bytes.chunks_exact(8).skip(1);
        let addresses: Vec<u64> =
            words.filter_map(|word| word.try_into().ok().map(u64::from_ne_bytes)).collect();
        let left_out = count.saturating_sub(u64::try_from(addresses.len()).unwrap_or(u64::MAX));
        Addresses { addresses, left_out }
    }
}

fn duplicate(fd: BorrowedFd<'_>, program: &'static str) -> Result<OwnedFd, TracerError> {
    fd.try_clone_to_owned().map_err(|source| TracerError::Pass { program, source })
}

const NOTHING: Wanted =
    Wanted { kind: 0, name_len: 0, key: 0, name: [0; NAME_WORDS], mask: [0; NAME_WORDS] };

/// As the program wants it.
fn spelled(sought: &Sought<'_>) -> Wanted {
    let mut spelled = NOTHING;
    match sought {
        Sought::Inode(inode) => {
            (spelled.kind, spelled.key) = (wanted::INODE, u64::from(*inode));
        }
        Sought::Cookie(cookie) => (spelled.kind, spelled.key) = (wanted::COOKIE, *cookie),
        Sought::Related(address) => (spelled.kind, spelled.key) = (wanted::RELATED, *address),
        Sought::Name(name) => {
            let bytes = name.to_sun_path();
            spelled.kind = wanted::NAME;
            spelled.name_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let words = spelled.name.iter_mut().zip(&mut spelled.mask);
            for ((word, mask), part) in words.zip(bytes.chunks(4)) {
                let (mut value, mut bits) = ([0; 4], [0; 4]);
                for ((to, bit), byte) in value.iter_mut().zip(&mut bits).zip(part) {
                    (*to, *bit) = (*byte, u8::MAX);
                }
                (*word, *mask) = (u32::from_ne_bytes(value), u32::from_ne_bytes(bits));
            }
        }
    }
    spelled
}

/// Runs a pass that writes nothing.
pub(super) fn run_silently(mut pass: File) -> io::Result<()> {
    let mut nothing = [0; 8];
    loop {
        match pass.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // A million sockets in one read are enough: the next one goes on from there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    };

    use super::*;

    fn listener(name: &[u8]) -> UnixListener {
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        UnixListener::bind_addr(&address).expect("bind")
    }

    #[test]
    fn our_own_sockets_are_seen_as_they_are() {
        let name = format!("ucr-programs-{}\n\u{1}", std::process::id());
        let listener = listener(name.as_bytes());
        let address = listener.local_addr().expect("its name");
        let client = UnixStream::connect_addr(&address).expect("connect");
        io::Write::write_all(&mut &client, b"hello").expect("write");
        let programs = Programs::load().expect("load");
        let own = i32::try_from(std::process::id()).expect("a pid");
        let sights = programs.see_descriptors(Some(own)).expect("a pass");
        let of = |fd: i32| {
            let wanted = u32::try_from(fd).expect("a descriptor");
            sights.iter().find(|sight| sight.raw.fd == wanted).expect("seen").clone()
        };
        let server = of(listener.as_raw_fd());
        assert_eq!(server.name, UnixName::Abstract(name.into_bytes()));
        assert_eq!((server.raw.state, server.raw.receive_count), (10, 1));
        assert_eq!((server.raw.references, server.raw.socket_type), (1, 1));
        let client = of(client.as_raw_fd());
        assert_eq!((client.raw.name_len, client.name.clone()), (0, UnixName::Unnamed));
        // The embryo, which no descriptor leads to.
        let embryo = programs.look(client.raw.peer.sk).expect("a look").expect("a socket");
        assert_eq!((embryo.raw.receive_bytes, embryo.raw.receive_count), (5, 1));
        assert_eq!(embryo.raw.peer.sk, client.raw.socket.sk);
        assert_eq!(embryo.name, server.name);
        assert!(embryo.raw.flags & ucr_common::sighting::SIGHT_NO_SOCKET != 0);
        let (all, _) = programs.see_addresses(Scope::OwnNamespace).expect("a pass");
        assert_eq!(all.left_out, 0);
        for sight in [&server, &client, &embryo] {
            assert!(all.addresses.contains(&sight.raw.socket.sk));
        }
    }

    #[test]
    fn nobody_is_at_an_address_of_nobody() {
        let programs = Programs::load().expect("load");
        for address in [0, 8, 0xffff_ffff_ffff_f000, 0x0000_8000_0000_0000] {
            assert_eq!(programs.look(address).expect("a look"), None, "{address:#x}");
        }
    }

    #[test]
    fn a_name_is_spelled_in_words_with_a_mask() {
        let spelled = spelled(&Sought::Name(&UnixName::Abstract(b"abcde".to_vec())));
        assert_eq!(spelled.name_len, 6);
        assert_eq!(spelled.name[0].to_ne_bytes(), *b"\0abc");
        assert_eq!(spelled.name[1].to_ne_bytes(), *b"de\0\0");
        assert_eq!(spelled.mask[1].to_ne_bytes(), [255, 255, 0, 0]);
        assert!(spelled.mask[2..].iter().all(|mask| *mask == 0));
    }
}
