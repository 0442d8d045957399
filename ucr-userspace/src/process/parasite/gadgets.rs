//! Finds instructions in the memory of a process that it has anyway: through them the first call is made,
//! and the way back leads. Nothing is written into its code.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt as _};

use memchr::memmem;

use crate::{
    model::Pid,
    process::procfs::{self, Mapping, ProcError},
    sys::parasite::{CALL, Gadgets, POP, RETURN},
};

/// Read at a time.
const PIECE: usize = 256 * 1024;

/// What was found, for the next process with the same files.
#[derive(Debug, Default)]
pub struct Known {
    /// By device, inode and offset of a mapping: where in it each of the patterns is, if it is.
    files: HashMap<(u64, u64, u64), [Option<u64>; 3]>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum NoGadgets {
    /// Its mappings could not be read.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// A program like no other.
    #[error("there is no code in it that {0}")]
    Missing(&'static str),
}

impl Known {
    /// Looks for them in processes that need not stand still yet: that takes milliseconds where a program's code is large.
    /// What is not found, or not there any more, is looked for again.
    pub fn learn(&mut self, pids: &[Pid]) {
        for pid in pids {
            if let Ok(memory) = File::open(format!("/proc/{pid}/mem")) {
                self.find(*pid, &memory).ok();
            }
        }
    }

    /// Whether one of these has none: a program that has just been executed has no C library yet.
    pub fn lacks(&mut self, pids: &[Pid]) -> bool {
        pids.iter().any(|pid| {
            let memory = File::open(format!("/proc/{pid}/mem"));
            let found = memory.map(|memory| self.find(*pid, &memory));
            matches!(found, Ok(Err(NoGadgets::Missing(_))))
        })
    }

    /// Finds them in a stopped process.
    ///
    /// # Errors
    /// See [`NoGadgets`].
    pub fn find(&mut self, pid: Pid, memory: &File) -> Result<Gadgets, NoGadgets> {
        let mappings = procfs::mappings(pid)?;
        let mut found = [None; 3];
        // C libraries, which have both, are files; what belongs to no file comes last.
        let (files, others): (Vec<_>, Vec<_>) =
            mappings.iter().filter(|mapping| mapping.is_executable).partition(|m| m.inode != 0);
        for mapping in files.into_iter().chain(others) {
            let inside = self.look(mapping, memory);
            for (found, inside) in found.iter_mut().zip(inside) {
                *found = found.or(inside.map(|offset| mapping.start + offset));
            }
            if let [Some(call), pop @ Some(_), Some(sigreturn)] = found {
                return Ok(Gadgets { call, pop, sigreturn });
            }
        }
        if let [Some(call), pop, Some(sigreturn)] = found {
            return Ok(Gadgets { call, pop, sigreturn });
        }
        Err(NoGadgets::Missing(match found {
            [None, _, _] => "makes a system call",
            _ => "ends a signal handler",
        }))
    }

    fn look(&mut self, mapping: &Mapping, memory: &File) -> [Option<u64>; 3] {
        let key = (mapping.device, mapping.inode, mapping.offset);
        // Who has the same file may have written over it; so what was found there is looked at again.
        if mapping.inode != 0
            && let Some(known) = self.files.get(&key)
            && stands(mapping, *known, memory)
        {
            return *known;
        }
        let Ok(Found { at, is_all }) = search(mapping, memory) else { return [None; 3] };
        // Of a program that is executed at this moment nothing can be read, but what is in the same files of others can.
        if is_all || at.iter().all(Option::is_some) {
            self.files.insert(key, at);
        }
        at
    }
}

/// What was found in a mapping: where in it, and whether all of it was read.
struct Found {
    at: [Option<u64>; 3],
    is_all: bool,
}

fn patterns() -> [Vec<&'static [u8]>; 3] {
    [vec![CALL], vec![POP], RETURN.to_vec()]
}

fn stands(mapping: &Mapping, known: [Option<u64>; 3], memory: &File) -> bool {
    patterns().iter().zip(known).all(|(patterns, offset)| {
        let Some(offset) = offset else { return true };
        patterns.iter().any(|pattern| {
            let mut bytes = vec![0; pattern.len()];
            let read = memory.read_exact_at(&mut bytes, mapping.start + offset);
            read.is_ok() && bytes == *pattern
        })
    })
}

fn search(mapping: &Mapping, memory: &File) -> io::Result<Found> {
    let patterns = patterns();
    let overlap = patterns.iter().flatten().map(|pattern| pattern.len()).max().unwrap_or(1) - 1;
    let length = usize::try_from(mapping.end - mapping.start).unwrap_or(0);
    let mut found = [None; 3];
    let mut from = 0;
    while from < length {
        let mut bytes = vec![0; PIECE.min(length - from)];
        let start = u64::try_from(from).unwrap_or_default();
        // Pages behind the end of a file cannot be read.
        let read = memory.read_at(&mut bytes, mapping.start + start)?;
        bytes.truncate(read);
        for (found, patterns) in found.iter_mut().zip(&patterns) {
            let first = patterns.iter().filter_map(|pattern| memmem::find(&bytes, pattern)).min();
            let first = first.and_then(|at| u64::try_from(at).ok()).map(|at| start + at);
            *found = found.or(first);
        }
        let is_all = from + read == length;
        if found.iter().all(Option::is_some) || is_all || read <= overlap {
            return Ok(Found { at: found, is_all });
        }
        from += read - overlap;
    }
    Ok(Found { at: found, is_all: true })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LENGTH: usize = 3 * PIECE;

    /// Code whose last bytes are these.
    fn memory(code: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![0x90; LENGTH - code.len()]).expect("write");
        file.write_all(code).expect("write");
        file
    }

    #[test]
    fn what_could_not_be_read_is_looked_for_again_and_what_is_not_there_is_not() {
        let end = u64::try_from(LENGTH).expect("a length");
        let mapping =
            Mapping { start: 0, end, is_executable: true, offset: 0, device: 1, inode: 2 };
        let code = memory(&[CALL, POP, RETURN[0]].concat());
        let mut known = Known::default();
        // Of somebody who is executing another program nothing can be read, or not all.
        assert_eq!(known.look(&mapping, &tempfile::tempfile().expect("a file")), [None; 3]);
        let half = memory(&[]);
        half.set_len(end / 2).expect("a shorter file");
        assert_eq!(known.look(&mapping, &half), [None; 3]);
        assert!(known.look(&mapping, &code).iter().all(Option::is_some));
        let mut known = Known::default();
        assert_eq!(known.look(&mapping, &memory(&[])), [None; 3]);
        assert_eq!(known.look(&mapping, &code), [None; 3]);
    }
}
