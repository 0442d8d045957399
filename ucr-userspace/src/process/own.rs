//! This very process: its memory, its time, its descriptors, as `/proc/self` tells them.

use std::{fs, io, path::Path, time::Duration};

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::{SysconfVar, sysconf},
};

use super::procfs::ProcError;
use crate::kernel::clock;

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Memory that it has now, in bytes (`VmRSS`).
    pub resident: u64,
    /// Most memory that it ever had, in bytes (`VmHWM`).
    pub peak: u64,
    /// Address space, in bytes (`VmSize`).
    pub mapped: u64,
    /// Processor time, of user and kernel, of all its threads, also those that have ended.
    pub cpu: Duration,
    /// When it was started, in nanoseconds since the epoch.
    pub started: u64,
    /// Threads that it has.
    pub threads: u64,
    /// Descriptors that it has open.
    pub descriptors: u64,
    /// Descriptors that it may have open.
    pub max_descriptors: u64,
}

/// What this process uses now.
///
/// # Errors
/// See [`ProcError`].
pub fn own() -> Result<Own, ProcError> {
    let (status, stat) = (Path::new("/proc/self/status"), Path::new("/proc/self/stat"));
    let memory = parse_status(&read(status)?).ok_or_else(|| odd(status))?;
    let ticks = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100));
    let times = parse_stat(&read(stat)?, ticks.unwrap_or(100)).ok_or_else(|| odd(stat))?;
    let (max_descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| failed(Path::new("/proc/self/limits"), errno.into()))?;
    Ok(Own {
        resident: memory.resident,
        peak: memory.peak,
        mapped: memory.mapped,
        threads: memory.threads,
        cpu: times.cpu,
        started: clock::to_realtime(times.started),
        descriptors: descriptors()?,
        max_descriptors,
    })
}

/// Descriptors that are open, but for that by which they are counted.
fn descriptors() -> Result<u64, ProcError> {
    let path = Path::new("/proc/self/fd");
    let entries = fs::read_dir(path).map_err(|source| failed(path, source))?;
    let mut open = 0_u64;
    for entry in entries {
        entry.map_err(|source| failed(path, source))?;
        open += 1;
    }
    Ok(open.saturating_sub(1))
}

fn read(path: &Path) -> Result<Vec<u8>, ProcError> {
    fs::read(path).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> ProcError {
    ProcError { path: path.to_owned(), source }
}

fn odd(path: &Path) -> ProcError {
    failed(path, io::Error::new(io::ErrorKind::InvalidData, "a field is missing"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    resident: u64,
    peak: u64,
    mapped: u64,
    threads: u64,
}

/// The lines of `status` that are wanted; sizes are in KiB there, whatever it calls them.
fn parse_status(bytes: &[u8]) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let value =
            lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
        std::str::from_utf8(value).ok()?.trim().trim_end_matches(" kB").parse().ok()
    };
    let size = |name| field(name)?.checked_mul(1024);
    Some(Memory {
        resident: size("VmRSS")?,
        peak: size("VmHWM")?,
        mapped: size("VmSize")?,
        threads: field("Threads")?,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    cpu: Duration,
    /// Nanoseconds since boot.
    started: u64,
}

/// The fields of `stat` that are wanted. The second one is the name, in parentheses, and may hold
/// anything, also parentheses.
fn parse_stat(bytes: &[u8], ticks_per_second: u64) -> Option<Times> {
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
    let field = |number: usize| -> Option<u64> {
        rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
    };
    let nanoseconds = |ticks: u64| {
        let nanoseconds = u128::from(ticks) * 1_000_000_000;
        u64::try_from(nanoseconds.checked_div(ticks_per_second.into())?).ok()
    };
    let cpu = nanoseconds(field(14)?.checked_add(field(15)?)?)?;
    Some(Times { cpu: Duration::from_nanos(cpu), started: nanoseconds(field(22)?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_of() {
        let before = own().expect("ours");
        assert!(before.resident > 0 && before.peak >= before.resident);
        assert!(before.mapped >= before.resident);
        assert!(before.threads >= 2, "the program's and this test's");
        assert!(before.max_descriptors >= before.descriptors);
        let age = clock::realtime().checked_sub(before.started).expect("it began before now");
        assert!(age < 3_600_000_000_000, "it began within the hour: {age} ns ago");
    }

    #[test]
    fn time_memory_and_descriptors_grow_with_use() {
        let before = own().expect("ours");
        let files: Vec<fs::File> =
            (0..200).map(|_| fs::File::open("/dev/null").expect("a file")).collect();
        let memory = vec![1_u8; 64 << 20];
        let mut after = own().expect("ours");
        // Other tests open and close some meanwhile.
        assert!(after.descriptors >= before.descriptors + 100, "{before:?} {after:?}");
        assert!(after.peak >= before.resident + (32 << 20), "{before:?} {after:?}");
        // A tick is a hundredth of a second.
        while after.cpu == before.cpu {
            after = own().expect("ours");
        }
        assert!(after.cpu > before.cpu);
        drop((files, memory));
    }

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat = b"7 (a) R 1 (b)) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 1234 8192 99";
        let times = Times { cpu: Duration::from_secs(2), started: 12_340_000_000 };
        assert_eq!(parse_stat(stat, 100), Some(times));
        assert_eq!(parse_stat(b"7 (a) S 1 7", 100), None);
        assert_eq!(parse_stat(b"", 100), None);
        assert_eq!(parse_stat(stat, 0), None);
    }

    #[test]
    fn sizes_are_in_bytes() {
        let status =
            b"Name:\tx\nVmSize:\t    40 kB\nVmHWM:\t  30 kB\nVmRSS:\t  20 kB\nThreads:\t3\n";
        let memory = Memory { resident: 20_480, peak: 30_720, mapped: 40_960, threads: 3 };
        assert_eq!(parse_status(status), Some(memory));
        assert_eq!(parse_status(b"Name:\tx\n"), None);
    }
}
