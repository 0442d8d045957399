//! `bpf(2)` commands that aya does not offer, or only for what its own loader has loaded.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
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

/// `union bpf_attr`, its `link_create` member as an iterator uses it; for what else is linked here the second half
/// is zero.
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

/// Begins a pass of a task iterator (`iter/task_file`) over one thread only.
///
/// # Errors
/// The kernel's: among them `EINVAL` where it cannot restrict the iterator (before 6.1), and `ESRCH` for a
/// thread that is gone.
pub fn iterate_thread(program: BorrowedFd<'_>, tid: i32) -> io::Result<File> {
    iterate(program, Some(&TaskInfo { tid: tid.cast_unsigned(), pid: 0, pid_fd: 0, padding: 0 }))
}

/// Begins a pass of a task iterator over all tasks.
///
/// # Errors
/// The kernel's.
pub fn iterate_all(program: BorrowedFd<'_>) -> io::Result<File> {
    iterate(program, None)
}

/// Hangs a program on something that is named by a number (a cgroup's descriptor, the index of an interface), until
/// what is returned is closed.
///
/// # Errors
/// The kernel's.
pub fn link(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: target,
        attach_type,
        flags,
        iter_info: 0,
        iter_info_len: 0,
        padding: 0,
    };
    command(LINK_CREATE, &attributes)
}

/// The kernel's number of a program.
///
/// # Errors
/// What `/proc` refuses, or what is no program.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let text = std::fs::read_to_string(path)?;
    let number = text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("no eBPF program"))
}

/// `BPF_OBJ_PIN`.
const OBJ_PIN: libc::c_int = 6;
/// `BPF_OBJ_GET`.
const OBJ_GET: libc::c_int = 7;

/// `union bpf_attr`, its member for pins.
#[repr(C)]
struct Pin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned at a path, which must be a program's pin: what it is, is not looked at.
///
/// # Errors
/// The kernel's.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes =
        Pin { pathname: path.as_ptr().expose_provenance() as u64, bpf_fd: 0, file_flags: 0 };
    command(OBJ_GET, &attributes)
}

/// Pins a program, map or link at a path.
///
/// # Errors
/// The kernel's.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Pin {
        pathname: path.as_ptr().expose_provenance() as u64,
        bpf_fd: object.as_raw_fd().cast_unsigned(),
        file_flags: 0,
    };
    order(OBJ_PIN, &attributes)
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
    let link = command(LINK_CREATE, &attributes)?;
    let attributes = IterCreate { link_fd: link.as_raw_fd().cast_unsigned(), flags: 0 };
    command(ITER_CREATE, &attributes).map(File::from)
}

/// `BPF_PROG_TEST_RUN`.
const TEST_RUN: libc::c_int = 10;

/// `union bpf_attr`, its `test` member.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs a raw tracepoint program once, with two arguments; what it returns.
///
/// # Errors
/// The kernel's: `EINVAL` where it cannot run such a program (before 5.10).
pub fn run(program: BorrowedFd<'_>, arguments: [u64; 2]) -> io::Result<i32> {
    const ARGUMENTS_LEN: u32 = 16;
    const _: () = assert!(size_of::<[u64; 2]>() == 16);
    let mut attributes = TestRun {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        ctx_size_in: ARGUMENTS_LEN,
        ctx_in: arguments.as_ptr().expose_provenance() as u64,
        ..TestRun::default()
    };
    // SAFETY: `attributes` is the kernel's structure for this command with its true size; the arguments
    // that it points to outlive the call, which writes into `attributes` alone.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            TEST_RUN,
            std::ptr::from_mut(&mut attributes),
            size_of::<TestRun>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(attributes.retval.cast_signed())
}

/// The only element of an array map with `BPF_F_MMAPABLE`, mapped.
#[derive(Debug)]
pub struct Mapped {
    address: std::ptr::NonNull<u8>,
    length: usize,
    is_writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Mapped {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps it; `length` is the size of the element, a multiple of the page size.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        Self::at(map, 0, length)
    }

    /// Maps a part of what a map shows; both numbers are multiples of the page size.
    ///
    /// # Errors
    /// The kernel's.
    pub fn at(map: BorrowedFd<'_>, offset: usize, length: usize) -> io::Result<Self> {
        Self::with(map, offset, length, libc::PROT_READ)
    }

    /// Maps it to be written, too.
    ///
    /// # Errors
    /// The kernel's.
    pub fn writable(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        Self::with(map, 0, length, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn with(
        map: BorrowedFd<'_>,
        offset: usize,
        length: usize,
        protection: libc::c_int,
    ) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice, of a map that is not shorter.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = std::ptr::NonNull::new(address.cast()).ok_or(io::ErrorKind::Other)?;
        Ok(Self { address, length, is_writable: protection & libc::PROT_WRITE != 0 })
    }

    /// Writes bytes to its beginning, as many as there is room for; none if it is not writable.
    pub fn write(&mut self, bytes: &[u8]) {
        let length = if self.is_writable { bytes.len().min(self.length) } else { 0 };
        // SAFETY: the mapping has that many bytes, may be written, stays as long as `self`, and does not overlap
        // what is borrowed.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.as_ptr(), length);
        }
    }

    /// A copy of the first bytes, as many as are asked for and as there are.
    #[must_use]
    pub fn copy(&self, length: usize) -> Vec<u8> {
        let length = length.min(self.length);
        let mut bytes = vec![0; length];
        // SAFETY: the mapping has that many bytes, stays as long as `self`, and nobody writes into it but
        // the program that the caller runs.
        unsafe {
            std::ptr::copy_nonoverlapping(self.address.as_ptr(), bytes.as_mut_ptr(), length);
        }
        bytes
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows from it.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

/// A command that returns a descriptor.
pub(super) fn command<A>(command: libc::c_int, attributes: &A) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(call(command, attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A command that returns nothing.
pub(super) fn order<A>(command: libc::c_int, attributes: &A) -> io::Result<()> {
    call(command, attributes).map(drop)
}

fn call<A>(command: libc::c_int, attributes: &A) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is the kernel's structure for this command with its true size; what it
    // points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<A>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
