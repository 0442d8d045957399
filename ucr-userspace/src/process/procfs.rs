//! What `/proc` tells of processes and threads: a few small files, parsed from bytes.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::model::Pid;

/// A file of `/proc` could not be read or understood.
#[derive(Debug, thiserror::Error)]
#[error("read {path}")]
pub struct ProcError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl ProcError {
    /// Whether the process or thread is simply gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        // A read of a file of a dead thread gives ESRCH.
        self.source.kind() == io::ErrorKind::NotFound
            || self.source.raw_os_error() == Some(libc::ESRCH)
    }
}

fn read(path: PathBuf) -> Result<Vec<u8>, ProcError> {
    fs::read(&path).map_err(|source| ProcError { path, source })
}

/// The thread's name (`comm`), without the newline.
///
/// # Errors
/// See [`ProcError`].
pub fn comm(pid: Pid) -> Result<Vec<u8>, ProcError> {
    let mut name = read(PathBuf::from(format!("/proc/{pid}/comm")))?;
    if name.last() == Some(&b'\n') {
        name.pop();
    }
    Ok(name)
}

/// The arguments that the process was started with; none for a kernel thread or a zombie.
///
/// # Errors
/// See [`ProcError`].
pub fn arguments(pid: Pid) -> Result<Vec<Vec<u8>>, ProcError> {
    read(PathBuf::from(format!("/proc/{pid}/cmdline"))).map(|bytes| split_arguments(&bytes))
}

fn split_arguments(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Some(bytes) = bytes.strip_suffix(&[0]).filter(|b| !b.is_empty()) else {
        // A program may overwrite its arguments, also the last NUL.
        return if bytes.is_empty() || bytes == [0] { Vec::new() } else { vec![bytes.to_vec()] };
    };
    bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
}

/// Some lines of `/proc/PID/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The process that a thread belongs to.
    pub process: Pid,
    /// Its parent; 0 if that is outside this pid namespace.
    pub parent: Pid,
    /// Who traces it; 0 if nobody.
    pub tracer: Pid,
    /// One letter, as `ps` shows it.
    pub state: char,
    /// Whether its system calls are filtered (seccomp).
    pub is_filtered: bool,
}

/// The state of a process or thread.
///
/// # Errors
/// See [`ProcError`].
pub fn status(pid: Pid) -> Result<Status, ProcError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let bytes = read(path.clone())?;
    parse_status(&bytes).ok_or_else(|| ProcError {
        path,
        source: io::Error::new(io::ErrorKind::InvalidData, "a line is missing"),
    })
}

/// A line of `/proc/PID/status`, without its name.
fn field<'a>(bytes: &'a [u8], name: &str) -> Option<&'a str> {
    bytes.split(|b| *b == b'\n').find_map(|line| {
        let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        std::str::from_utf8(value).ok().map(str::trim)
    })
}

fn parse_status(bytes: &[u8]) -> Option<Status> {
    let field = |name| field(bytes, name);
    let pid = |name| field(name)?.parse().ok().map(Pid);
    Some(Status {
        process: pid("Tgid")?,
        parent: pid("PPid")?,
        tracer: pid("TracerPid")?,
        state: field("State")?.chars().next()?,
        // A kernel without seccomp has no such line.
        is_filtered: field("Seccomp").is_some_and(|mode| mode != "0"),
    })
}

/// Effective user, effective group, and supplementary groups of a process.
///
/// # Errors
/// See [`ProcError`].
pub fn ids(pid: Pid) -> Result<(u32, u32, Vec<u32>), ProcError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let bytes = read(path.clone())?;
    let numbers = |name| -> Option<Vec<u32>> {
        field(&bytes, name)?.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
    };
    // Real, effective, saved, file system.
    let effective = |name| numbers(name)?.get(1).copied();
    let ids = || Some((effective("Uid")?, effective("Gid")?, numbers("Groups")?));
    ids().ok_or_else(|| ProcError {
        path,
        source: io::Error::new(io::ErrorKind::InvalidData, "a line is missing"),
    })
}

/// How many descriptors a process may have, soft and hard (`RLIMIT_NOFILE`).
///
/// # Errors
/// See [`ProcError`].
pub fn descriptor_limit(pid: Pid) -> Result<(u64, u64), ProcError> {
    let path = PathBuf::from(format!("/proc/{pid}/limits"));
    let bytes = read(path.clone())?;
    let limit = || {
        let mut lines = bytes.split(|b| *b == b'\n');
        let line = lines.find_map(|line| line.strip_prefix(b"Max open files"))?;
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        // There is no unlimited number of descriptors.
        let mut next = || words.next()?.parse().ok();
        Some((next()?, next()?))
    };
    limit().ok_or_else(|| ProcError {
        path,
        source: io::Error::new(io::ErrorKind::InvalidData, "a line is missing"),
    })
}

/// The threads of a process.
///
/// # Errors
/// See [`ProcError`].
pub fn threads(pid: Pid) -> Result<Vec<Pid>, ProcError> {
    let path = PathBuf::from(format!("/proc/{pid}/task"));
    let entries = fs::read_dir(&path).map_err(|source| ProcError { path: path.clone(), source })?;
    let mut threads = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| ProcError { path: path.clone(), source })?;
        threads.extend(entry.file_name().to_str().and_then(|n| n.parse().ok()).map(Pid));
    }
    Ok(threads)
}

/// The children of a process: those of each of its threads.
///
/// # Errors
/// See [`ProcError`]; a thread that is gone meanwhile has none.
pub fn children(pid: Pid) -> Result<Vec<Pid>, ProcError> {
    let mut children = Vec::new();
    for thread in threads(pid)? {
        match read(PathBuf::from(format!("/proc/{pid}/task/{thread}/children"))) {
            Ok(bytes) => children.extend(parse_pids(&bytes)),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

fn parse_pids(bytes: &[u8]) -> impl Iterator<Item = Pid> {
    bytes
        .split(u8::is_ascii_whitespace)
        .filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok().map(Pid))
}

/// A process and all its descendants, parents before children. One that is gone meanwhile is left
/// out, but not the root.
///
/// # Errors
/// See [`ProcError`].
pub fn tree(root: Pid) -> Result<Vec<Pid>, ProcError> {
    Ok(generations(root)?.concat())
}

/// The same by generations: the process, its children, their children, …
///
/// # Errors
/// See [`ProcError`].
pub fn generations(root: Pid) -> Result<Vec<Vec<Pid>>, ProcError> {
    let mut known = HashSet::from([root]);
    let mut found = Vec::new();
    let mut generation = vec![root];
    while !generation.is_empty() {
        let mut next = Vec::new();
        for &pid in &generation {
            match children(pid) {
                Ok(children) => next.extend(children.into_iter().filter(|pid| known.insert(*pid))),
                Err(error) if error.is_gone() && pid != root => {}
                Err(error) => return Err(error),
            }
        }
        found.push(std::mem::replace(&mut generation, next));
    }
    Ok(found)
}

/// A part of a process's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The address behind it.
    pub end: u64,
    /// Whether it is code.
    pub is_executable: bool,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file's device, as `makedev` makes it.
    pub device: u64,
    /// The file's inode; 0 if there is none.
    pub inode: u64,
}

/// The address space of a process, in ascending order, as far as it can be read.
///
/// # Errors
/// See [`ProcError`].
pub fn mappings(pid: Pid) -> Result<Vec<Mapping>, ProcError> {
    let bytes = read(PathBuf::from(format!("/proc/{pid}/maps")))?;
    // Old programs have a page at a fixed address that only executes.
    let readable = bytes.split(|b| *b == b'\n').filter(|line| !line.ends_with(b"[vsyscall]"));
    Ok(readable.filter_map(parse_mapping).collect())
}

fn parse_mapping(line: &[u8]) -> Option<Mapping> {
    // What is behind the inode is a path, of any bytes.
    let mut words = line.split(|b| *b == b' ').map(|word| std::str::from_utf8(word).ok());
    let mut next = || words.next().flatten();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = next()?.split_once('-')?;
    let rights = next()?;
    let offset = hex(next()?)?;
    let (major, minor) = next()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let device = libc::makedev(number(major)?, number(minor)?);
    let inode = next()?.parse().ok()?;
    let is_executable = rights.starts_with('r') && rights.contains('x');
    Some(Mapping { start: hex(start)?, end: hex(end)?, is_executable, offset, device, inode })
}

/// What this boot is called (`boot_id`).
///
/// # Errors
/// See [`ProcError`].
pub fn boot_id() -> Result<String, ProcError> {
    let id = read(PathBuf::from("/proc/sys/kernel/random/boot_id"))?;
    Ok(String::from_utf8_lossy(&id).trim().to_owned())
}

/// Which file a link of `/proc/PID` leads to (`root`, `ns/mnt`, `ns/net` …).
///
/// # Errors
/// See [`ProcError`].
pub fn link_identity(pid: Pid, link: &str) -> Result<(u64, u64), ProcError> {
    use std::os::unix::fs::MetadataExt as _;
    let path = Path::new("/proc").join(pid.to_string()).join(link);
    match fs::metadata(&path) {
        Ok(target) => Ok((target.dev(), target.ino())),
        Err(source) => Err(ProcError { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_read() {
        let own = Pid(i32::try_from(std::process::id()).expect("a pid"));
        let status = status(own).expect("our status");
        assert_eq!((status.process, status.tracer), (own, Pid(0)));
        assert!(threads(own).expect("our threads").contains(&own));
        assert!(!arguments(own).expect("our arguments").is_empty());
        assert!(tree(own).expect("our tree").contains(&own));
    }

    #[test]
    fn a_process_that_is_not_there_is_gone() {
        assert!(status(Pid(i32::MAX)).expect_err("no such process").is_gone());
        assert!(tree(Pid(i32::MAX)).expect_err("no such process").is_gone());
    }

    #[test]
    fn odd_bytes_are_parsed_or_refused() {
        assert_eq!(split_arguments(b""), Vec::<Vec<u8>>::new());
        assert_eq!(split_arguments(b"\0"), Vec::<Vec<u8>>::new());
        assert_eq!(split_arguments(b"a\0\0\xff\0"), [&b"a"[..], b"", b"\xff"]);
        assert_eq!(split_arguments(b"setproctitle: x"), [b"setproctitle: x"]);
        assert_eq!(parse_status(b"Name:\tx\n"), None);
        assert_eq!(parse_mapping(b"nonsense"), None);
        let line = b"7f0000001000-7f0000003000 r-xp 00028000 fd:01 4711      /lib/\xff y";
        let mapping = parse_mapping(line).expect("a mapping");
        assert_eq!((mapping.start, mapping.end), (0x7f00_0000_1000, 0x7f00_0000_3000));
        assert_eq!((mapping.offset, mapping.inode, mapping.is_executable), (0x28000, 4711, true));
        assert_eq!(parse_pids(b"12 7 \n").collect::<Vec<_>>(), [Pid(12), Pid(7)]);
    }
}
