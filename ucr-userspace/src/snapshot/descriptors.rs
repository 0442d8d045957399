//! The sockets of a process: every descriptor that leads to one, in one pass of
//! `iter/task_file`, without a system call for each.
//!
//! It tells what `/proc/PID/fd` cannot: the address of the sock, which is the ledger's key, and
//! close-on-exec. Where the kernel has no iterators, `/proc` and `pidfd_getfd` would have to do;
//! that is refused for now.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use ucr_common::{descriptor::SocketDescriptor, memory::LAYOUT, record::Record};
use zerocopy::FromBytes as _;

use super::memory::Layout;
use crate::{
    kernel::btf::Btf,
    model::Pid,
    sys::bpf::{self, iterate_all, iterate_thread},
    tracer::{
        TracerError,
        demand::OnDemand,
        object::{Sizes, open_pin},
        pins::{PinDirectory, files},
        session,
    },
};

/// The iterator program.
const PROGRAM: &str = "list_sockets";

/// Why the descriptors could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// The iterator program could not be loaded.
    #[error("prepare to list descriptors")]
    Prepare(#[source] TracerError),
    /// The pass over all processes failed.
    #[error("list the descriptors of all processes")]
    ListAll(#[source] io::Error),
    /// The pass failed.
    #[error("list the descriptors of process {pid}")]
    List {
        /// Whose.
        pid: Pid,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Descriptors, and records of the sockets that they lead to.
pub type Listed = (Vec<SocketDescriptor>, Vec<Record>);

/// The loaded iterator: one for as many processes as there are.
#[derive(Debug)]
pub struct Lister {
    program: OwnedFd,
    source: Source,
}

/// Where the programs are from.
#[derive(Debug)]
enum Source {
    /// Loaded for this process alone.
    Own(Box<OnDemand>),
    /// Attached tracing keeps them.
    Pinned(PinDirectory),
}

/// The program that reads kernel memory, and what it takes.
#[derive(Debug)]
pub(super) struct MemoryProgram {
    pub(super) program: OwnedFd,
    /// What is wanted.
    pub(super) wants: OwnedFd,
    /// Where it is put.
    pub(super) memory: OwnedFd,
    /// Where the kernel keeps what.
    pub(super) layout: Layout,
    /// The pinned maps are everybody's: nobody else may ask as long as this lives.
    pub(super) turn: Option<Flock<File>>,
}

impl Lister {
    /// Loads the iterator program.
    ///
    /// # Errors
    /// A kernel without BTF or iterators, or no permission.
    pub fn load() -> Result<Self, DescriptorError> {
        // The object's own maps stay empty: this program writes to its reader.
        let sizes = Sizes { ring_bytes: 4096, sockets: 1, census: 1, found: 1 };
        let load = || -> Result<Self, TracerError> {
            let mut object = OnDemand::open(sizes)?;
            Ok(Self { program: object.program(PROGRAM)?, source: Source::Own(Box::new(object)) })
        };
        load().map_err(DescriptorError::Prepare)
    }

    /// Takes the one that attached tracing keeps: to load one takes longer than to dump thousands of sockets. Where
    /// there is none, loads it.
    ///
    /// # Errors
    /// As of [`load`](Self::load).
    pub fn open(pins: &PinDirectory) -> Result<Self, DescriptorError> {
        // Pins of another version have other shapes.
        let is_ours = || session::open(pins).is_ok();
        match bpf::open_pin(&pins.programs().join(PROGRAM)) {
            Ok(program) if is_ours() => Ok(Self { program, source: Source::Pinned(pins.clone()) }),
            Ok(_) | Err(_) => Self::load(),
        }
    }

    /// The program that reads kernel memory, from the same source.
    pub(super) fn memory(&mut self) -> Result<MemoryProgram, TracerError> {
        match &mut self.source {
            Source::Own(object) => from_object(object),
            Source::Pinned(pins) => match from_pins(pins)? {
                Some(program) => Ok(program),
                // Somebody else reads memory by it.
                None => {
                    *self = Self::load().map_err(|error| match error {
                        DescriptorError::Prepare(error) => error,
                        DescriptorError::ListAll(source) | DescriptorError::List { source, .. } => {
                            TracerError::Pass { program: PROGRAM, source }
                        }
                    })?;
                    self.memory()
                }
            },
        }
    }

    /// Every descriptor of a process that leads to a socket of any family, by number; also those of threads
    /// that have a table of their own.
    ///
    /// It is asked thread by thread: where the kernel goes through the threads of a process by itself, it
    /// takes some for others when it skips those that share their table (until 6.6).
    ///
    /// # Errors
    /// The kernel's; a process that is gone has no descriptors and is no error.
    pub fn sockets_of(&mut self, pid: Pid) -> Result<Vec<SocketDescriptor>, DescriptorError> {
        self.sockets_and_records_of(pid).map(|(sockets, _)| sockets)
    }

    /// The same, with what attached tracing knows of these sockets, if the program is from there.
    ///
    /// # Errors
    /// As of [`sockets_of`](Self::sockets_of).
    pub fn sockets_and_records_of(&mut self, pid: Pid) -> Result<Listed, DescriptorError> {
        let program = self.program.as_fd();
        let failed = |source| DescriptorError::List { pid, source };
        let (mut found, mut records) = (Vec::new(), Vec::new());
        for thread in threads(pid).map_err(failed)? {
            match iterate_thread(program, thread).and_then(read) {
                Ok((of_thread, known)) => {
                    found.extend(of_thread);
                    records.extend(known);
                }
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        sort(&mut found);
        // The iterator says pids of the initial pid namespace; ours may be another one.
        for descriptor in &mut found {
            let own_table = descriptor.tid != descriptor.pid;
            descriptor.pid = pid.0.cast_unsigned();
            if !own_table {
                descriptor.tid = descriptor.pid;
            }
        }
        Ok((found, records))
    }

    /// Some of what [`sockets_of`](Self::sockets_of) tells, for whoever wants to know what to expect: the first few hundred
    /// of the process's own table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn some_sockets_of(&mut self, pid: Pid) -> Result<Vec<SocketDescriptor>, DescriptorError> {
        let pass = iterate_thread(self.program.as_fd(), pid.0);
        let some = pass.and_then(|pass| read(pass.take(SOME)));
        some.map(|(found, _)| found).map_err(|source| DescriptorError::List { pid, source })
    }

    /// Every descriptor of every process that leads to a socket: one pass over the whole machine.
    /// The pids are those of the initial pid namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all_sockets(&mut self) -> Result<Vec<SocketDescriptor>, DescriptorError> {
        let all = iterate_all(self.program.as_fd()).and_then(read);
        all.map(|(found, _)| found).map_err(DescriptorError::ListAll)
    }
}

/// How it is called.
const MEMORY_PROGRAM: &str = "read_memory";

fn from_object(object: &mut OnDemand) -> Result<MemoryProgram, TracerError> {
    let program = object.program(MEMORY_PROGRAM)?;
    let (wants, memory) = (object.map("WANTS")?, object.map("MEMORY")?);
    let layout = Layout::resolve(object.types())?;
    Ok(MemoryProgram { program, wants, memory, layout, turn: None })
}

/// `None`: somebody else reads memory by them.
fn from_pins(pins: &PinDirectory) -> Result<Option<MemoryProgram>, TracerError> {
    let path = pins.maps();
    let directory = File::open(&path).map_err(files("open", &path))?;
    let turn = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(turn) => turn,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(files("lock", &path)(errno.into())),
    };
    let open = |path: PathBuf| bpf::open_pin(&path).map_err(files("open pinned", &path));
    Ok(Some(MemoryProgram {
        program: open(pins.programs().join(MEMORY_PROGRAM))?,
        wants: open(path.join("WANTS"))?,
        memory: open(path.join("MEMORY"))?,
        layout: kept_layout(&path)?,
        turn: Some(turn),
    }))
}

/// Where the kernel keeps what, as somebody found out before; else it is found out, and kept for the next.
fn kept_layout(maps: &Path) -> Result<Layout, TracerError> {
    const NAME: &str = "LAYOUT";
    let failed = |source| TracerError::Map { map: NAME, source };
    let mut map: Array<MapData, [u8; LAYOUT]> =
        Array::try_from(Map::Array(open_pin(maps, NAME)?)).map_err(failed)?;
    if let Some(known) = map.get(&0, 0).ok().as_ref().and_then(Layout::from_bytes) {
        return Ok(known);
    }
    let layout = Layout::resolve(&Btf::of_kernel()?)?;
    match layout.to_bytes() {
        Some(bytes) => map.set(0, bytes, 0).map_err(failed)?,
        None => tracing::debug!("there is no room for what the kernel keeps where"),
    }
    Ok(layout)
}

/// How many bytes are some.
const SOME: u64 = 1 << 16;

/// Reads a pass to its end.
fn read(mut pass: impl Read) -> io::Result<Listed> {
    let mut bytes = Vec::new();
    // After a million descriptors that lead elsewhere the kernel wants to be asked again.
    while let Err(error) = pass.read_to_end(&mut bytes) {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
    }
    let mut seen = foldhash::HashSet::default();
    let (mut found, mut records): Listed = Default::default();
    let mut left = bytes.as_slice();
    while let Ok((descriptor, rest)) = SocketDescriptor::read_from_prefix(left) {
        let length = usize::try_from(descriptor.record_len).unwrap_or(usize::MAX);
        let Some((record, rest)) = rest.split_at_checked(length) else { break };
        left = rest;
        // The kernel may show a descriptor again after a full buffer.
        if seen.insert((descriptor.tid, descriptor.fd)) {
            found.push(descriptor);
            // Split as in the ledger.
            records.extend(Record::read_from_bytes(record).ok().map(Record::join));
        }
    }
    sort(&mut found);
    Ok((found, records))
}

fn sort(found: &mut [SocketDescriptor]) {
    found.sort_by_key(|d| (d.pid, d.tid != d.pid, d.tid, d.fd));
}

/// The threads of a process; none if it is gone.
fn threads(pid: Pid) -> io::Result<Vec<i32>> {
    let entries = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let thread = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(entries.flatten().filter_map(thread).collect())
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd as _, unix::net::UnixStream};

    use nix::{
        fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
        sys::resource::{Resource, getrlimit, setrlimit},
    };

    use super::*;

    #[test]
    fn every_socket_is_listed_with_its_flags_however_many_there_are() {
        // A login usually has 1024.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
        let raised = soft.max(hard.min(8192));
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard).expect("raise the limit");
        let pairs: Vec<_> = (0..2000).map(|_| UnixStream::pair().expect("a socketpair")).collect();
        let (first, _) = pairs.first().expect("some");
        fcntl(first, FcntlArg::F_SETFD(FdFlag::empty())).expect("clear close-on-exec");
        first.set_nonblocking(true).expect("set O_NONBLOCK");

        let mut lister = Lister::load().expect("the iterator");
        let own = Pid(i32::try_from(std::process::id()).expect("a pid"));
        let found = lister.sockets_of(own).expect("a list");
        for (a, b) in &pairs {
            for end in [a, b] {
                let fd = u32::try_from(end.as_raw_fd()).expect("a descriptor");
                let entry = found.iter().find(|d| d.fd == fd).expect("listed");
                assert_eq!((entry.family, entry.socket_type), (1, 1));
                assert!(entry.socket.cookie != 0 && entry.socket.inode != 0);
                let plain = end.as_raw_fd() == first.as_raw_fd();
                assert_eq!(entry.close_on_exec, u32::from(!plain));
                let nonblocking = entry.file_flags & OFlag::O_NONBLOCK.bits().cast_unsigned();
                assert_eq!(nonblocking != 0, plain);
            }
        }
    }

    #[test]
    fn a_process_that_is_gone_has_no_descriptors() {
        let mut child = std::process::Command::new("true").spawn().expect("spawn");
        let pid = Pid(i32::try_from(child.id()).expect("a pid"));
        child.wait().expect("wait");
        let mut lister = Lister::load().expect("the iterator");
        // Either answer will do; what counts is that it is one.
        if let Ok(found) = lister.sockets_of(pid) {
            assert!(found.is_empty());
        }
    }
}
