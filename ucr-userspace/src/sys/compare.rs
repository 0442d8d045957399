//! Whether two descriptors are one open file.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

/// `KCMP_FILE`.
const FILE: libc::c_int = 0;

/// `kcmp(2)`: whether two descriptors, each of a process, lead to the same open file, not only to the same inode.
///
/// # Errors
/// The kernel's: `ENOSYS` without `CONFIG_KCMP`, `EBADF` and `ESRCH` for what is gone, `EPERM` without the
/// right to trace the processes.
pub fn same_file(one: (i32, RawFd), other: (i32, RawFd)) -> io::Result<bool> {
    let number = |fd: RawFd| libc::c_ulong::try_from(fd).unwrap_or(libc::c_ulong::MAX);
    // SAFETY: this request takes numbers and touches no memory.
    let result = unsafe {
        libc::syscall(libc::SYS_kcmp, one.0, other.0, FILE, number(one.1), number(other.1))
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result == 0) }
}

/// The same for a descriptor of ours and one of another process.
///
/// # Errors
/// As of [`same_file`].
pub fn is_same_file(own: BorrowedFd<'_>, pid: i32, fd: RawFd) -> io::Result<bool> {
    same_file((nix::unistd::getpid().as_raw(), own.as_raw_fd()), (pid, fd))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_duplicate_is_the_same_and_a_second_open_is_not() {
        let own = nix::unistd::getpid().as_raw();
        let file = File::open("/dev/null").expect("open");
        let (same, other) =
            (file.try_clone().expect("duplicate"), File::open("/dev/null").expect("open"));
        let is_same = |fd: &File| is_same_file(file.as_fd(), own, fd.as_raw_fd()).expect("kcmp");
        assert!(is_same(&same));
        assert!(!is_same(&other));
        assert!(is_same_file(file.as_fd(), own, i32::MAX).is_err());
    }
}
