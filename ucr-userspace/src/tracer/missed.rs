//! Events that the kernel itself did not hand to a program, since the same program was at work on that
//! CPU already: it had interrupted itself, which only happens where the kernel can be preempted.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::programs::{ProgramInfo, loaded_programs};

/// How many, summed over the programs that use a map; `None` if the kernel does not tell (before
/// 5.12).
#[must_use]
pub fn missed(map_id: u32) -> Option<u64> {
    let ours = loaded_programs().flatten().filter(|program| uses(program, map_id));
    // One that is unloaded meanwhile has no say.
    ours.filter_map(|program| fdinfo(&program)).map(|fdinfo| misses_in(&fdinfo)).sum()
}

fn uses(program: &ProgramInfo, map_id: u32) -> bool {
    program.map_ids().ok().flatten().is_some_and(|ids| ids.contains(&map_id))
}

fn fdinfo(program: &ProgramInfo) -> Option<String> {
    let descriptor = program.fd().ok()?;
    let number = descriptor.as_fd().as_raw_fd();
    fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()
}

/// `recursion_misses` of a program's `fdinfo`.
fn misses_in(fdinfo: &str) -> Option<u64> {
    let value = fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_fdinfo() {
        assert_eq!(
            misses_in("prog_type:\t26\nrecursion_misses:\t7\nverified_insns:\t9\n"),
            Some(7)
        );
        assert_eq!(misses_in("prog_type:\t26\n"), None);
    }
}
