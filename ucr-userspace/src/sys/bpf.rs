//! `bpf(2)` commands that aya does not offer.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// `BPF_LINK_CREATE` (`enum bpf_cmd`).
const LINK_CREATE: libc::c_int = 28;
/// `BPF_ITER_CREATE`.
const ITER_CREATE: libc::c_int = 33;
/// `BPF_TRACE_ITER` (`enum bpf_attach_type`).
const TRACE_ITER: u32 = 28;

/// `union bpf_iter_link_info`, its `task` member (6.1 and later).
#[repr(C)]
struct TaskInfo {
    tid: u32,
    pid: u32,
    pid_fd: u32,
    padding: u32,
}

/// `union bpf_attr`, its `link_create` member as an iterator uses it.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    padding: u32,
}

/// `union bpf_attr`, its `iter_create` member.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// Begins a pass of a task iterator (`iter/task_file`) over the tasks of one process only.
///
/// # Errors
/// The kernel's: among them `EINVAL` where it cannot restrict the iterator (before 6.1).
pub fn iterate_process(program: BorrowedFd<'_>, pid: i32) -> io::Result<File> {
    iterate(program, Some(&TaskInfo { tid: 0, pid: pid.cast_unsigned(), pid_fd: 0, padding: 0 }))
}

/// Begins a pass of a task iterator over all tasks.
///
/// # Errors
/// The kernel's.
pub fn iterate_all(program: BorrowedFd<'_>) -> io::Result<File> {
    iterate(program, None)
}

fn iterate(program: BorrowedFd<'_>, info: Option<&TaskInfo>) -> io::Result<File> {
    const INFO_LEN: u32 = 16;
    const _: () = assert!(size_of::<TaskInfo>() == 16);
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: 0,
        attach_type: TRACE_ITER,
        flags: 0,
        iter_info: info.map_or(0, |info| std::ptr::from_ref(info).expose_provenance() as u64),
        iter_info_len: info.map_or(0, |_| INFO_LEN),
        padding: 0,
    };
    let link = bpf(LINK_CREATE, &attributes)?;
    let attributes = IterCreate { link_fd: link.as_raw_fd().cast_unsigned(), flags: 0 };
    bpf(ITER_CREATE, &attributes).map(File::from)
}

/// A command that returns a descriptor.
fn bpf<A>(command: libc::c_int, attributes: &A) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is the kernel's structure for this command with its true size; what it
    // points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
