//! Loading of single eBPF programs, with what they refer to made before.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::maps::MapData;
use aya_obj::generated::bpf_insn;

use super::bpf::{command, order};

/// `BPF_MAP_UPDATE_ELEM` (`enum bpf_cmd`).
const MAP_UPDATE_ELEM: libc::c_int = 2;
/// `BPF_PROG_LOAD`.
const PROG_LOAD: libc::c_int = 5;
/// `BPF_BTF_LOAD`.
const BTF_LOAD: libc::c_int = 18;
/// `BPF_MAP_FREEZE`.
const MAP_FREEZE: libc::c_int = 22;

/// `BPF_OBJ_NAME_LEN`.
const NAME_LEN: usize = 16;

/// `union bpf_attr`, its member for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LEN],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_btf_obj_fd: u32,
    core_relo_cnt: u32,
}

const _: () = assert!(size_of::<ProgramLoad>() == 120);

/// `union bpf_attr`, its member for `BPF_BTF_LOAD`.
#[repr(C)]
struct TypesLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    padding: u32,
}

/// `union bpf_attr`, its member for elements of maps.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr`, what `BPF_MAP_FREEZE` takes of it.
#[repr(C)]
struct Freeze {
    map_fd: u32,
}

/// A program of a type that is known.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its name; the kernel keeps 15 bytes of it.
    pub name: &'a str,
    /// `enum bpf_prog_type`.
    pub kind: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
    /// The kernel's function that it hangs on: its type. 0 if there is none.
    pub attach_to: u32,
    /// Its instructions; maps are descriptors in them.
    pub instructions: &'a [bpf_insn],
    /// Its license.
    pub license: &'a CStr,
    /// The object's own types.
    pub types: BorrowedFd<'a>,
    /// `struct bpf_func_info` for each of its functions: where it begins, and its type.
    pub functions: &'a [u8],
    /// The size of one of these.
    pub function_size: usize,
}

fn address<T: ?Sized>(of: *const T) -> u64 {
    of.cast::<u8>().expose_provenance() as u64
}

fn narrow(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(io::Error::other)
}

impl Program<'_> {
    /// Loads it. What the verifier has to say is written to `log`, unless that is empty.
    ///
    /// # Errors
    /// The kernel's.
    pub fn load(&self, log: &mut [u8]) -> io::Result<OwnedFd> {
        // BPF_LOG_LEVEL1 and BPF_LOG_STATS.
        const LEVEL: u32 = 1 | 4;
        let mut prog_name = [0; NAME_LEN];
        let (kept, name) = (prog_name.iter_mut().take(NAME_LEN - 1), self.name.bytes());
        kept.zip(name).for_each(|(to, from)| *to = from);
        let has_log = !log.is_empty();
        let count = self.functions.len().checked_div(self.function_size).unwrap_or(0);
        let attributes = ProgramLoad {
            prog_type: self.kind,
            insn_cnt: narrow(self.instructions.len())?,
            insns: address(self.instructions.as_ptr()),
            license: address(self.license.as_ptr()),
            log_level: if has_log { LEVEL } else { 0 },
            log_size: narrow(log.len())?,
            log_buf: if has_log { address(log.as_mut_ptr()) } else { 0 },
            kern_version: 0,
            prog_flags: 0,
            prog_name,
            prog_ifindex: 0,
            expected_attach_type: self.attach_type,
            prog_btf_fd: self.types.as_raw_fd().cast_unsigned(),
            func_info_rec_size: narrow(self.function_size)?,
            func_info: address(self.functions.as_ptr()),
            func_info_cnt: narrow(count)?,
            line_info_rec_size: 0,
            line_info: 0,
            line_info_cnt: 0,
            attach_btf_id: self.attach_to,
            attach_btf_obj_fd: 0,
            core_relo_cnt: 0,
        };
        command(PROG_LOAD, &attributes)
    }
}

/// Loads the types of an object.
///
/// # Errors
/// The kernel's.
pub fn types(bytes: &[u8]) -> io::Result<OwnedFd> {
    command(
        BTF_LOAD,
        &TypesLoad {
            btf: address(bytes.as_ptr()),
            btf_log_buf: 0,
            btf_size: narrow(bytes.len())?,
            btf_log_size: 0,
            btf_log_level: 0,
            padding: 0,
        },
    )
}

/// Fills the only element of an array map, which must have the length of `value`.
///
/// # Errors
/// The kernel's; `EINVAL` if it has another length.
pub fn fill(map: &MapData, value: &[u8]) -> io::Result<()> {
    let info = map.info().map_err(io::Error::other)?;
    if usize::try_from(info.value_size()).ok() != Some(value.len()) || info.key_size() != 4 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let key = 0_u32;
    let attributes = Element {
        map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
        padding: 0,
        key: address(&raw const key),
        value: address(value.as_ptr()),
        flags: 0,
    };
    order(MAP_UPDATE_ELEM, &attributes)
}

/// Makes a map's content final for user space: the verifier then takes it for constants.
///
/// # Errors
/// The kernel's.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    order(MAP_FREEZE, &Freeze { map_fd: map.as_raw_fd().cast_unsigned() })
}
