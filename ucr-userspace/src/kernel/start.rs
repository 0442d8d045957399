//! When a process began: with its pid it is one process and no other.

use std::fs;

/// When a process began, in clock ticks since boot (its low 32 bits); `None` if it is gone.
#[must_use]
pub fn started(pid: u32) -> Option<u32> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22 of `/proc/PID/stat` (`proc(5)`). The second field is a name, in which anything may stand.
fn parse(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    u32::try_from(ticks & u64::from(u32::MAX)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_began_once() {
        let own = std::process::id();
        assert!(started(own).is_some());
        assert_eq!(started(own), started(own));
        assert_eq!(started(u32::MAX), None);
    }

    #[test]
    fn a_name_may_hold_anything() {
        let mut stat = b"7 (a) b) 1 2) S 1".to_vec();
        for field in 5..=21 {
            stat.extend_from_slice(format!(" {field}").as_bytes());
        }
        stat.extend_from_slice(b" 4711 0\n");
        assert_eq!(parse(&stat), Some(4711));
        assert_eq!(parse(b"7 (a"), None);
    }
}
