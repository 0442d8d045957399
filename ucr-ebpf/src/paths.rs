//! Spells a directory by climbing its dentries and mounts (`bpf_d_path` may be called from a few
//! kernel functions only, and system call tracepoints are not among them).

use aya_ebpf::helpers::bpf_probe_read_kernel_buf;
use ucr_common::paths::{
    BindPaths, CWD_MAX, LEVELS_MAX, PATH_TRUNCATED, PATH_UNREADABLE, ROOT_MAX,
};

use crate::kernel::{Pointer, current_task, follow, offset, probed, repeat, typed, unreadable};

/// What a pair of directories is made from.
pub(crate) static BLANK: BindPaths = BindPaths {
    cwd_len: 0,
    cwd_flags: 0,
    root_len: 0,
    root_flags: 0,
    cwd: [0; CWD_MAX],
    root: [0; ROOT_MAX],
    slack: [0; 256],
};

/// Longest name of one directory entry (`NAME_MAX`), in bytes.
const COMPONENT_MAX: u32 = 255;

/// Fills in where the current task stands.
#[inline(always)]
pub(crate) fn fill(paths: &mut BindPaths) {
    paths.cwd_len = 0;
    paths.root_len = 0;
    paths.cwd_flags = PATH_UNREADABLE;
    paths.root_flags = PATH_UNREADABLE;
    // SAFETY: the current task is typed.
    let fs: Pointer = unsafe { typed(current_task(), offset!(task_fs)) };
    if fs.is_null() {
        return;
    }
    let pwd = Position::of(fs, offset!(fs_pwd_dentry), offset!(fs_pwd_mnt));
    (paths.cwd_len, paths.cwd_flags) = spell::<CWD_MAX>(pwd, paths.cwd.as_mut_ptr());
    let top = Position::of(fs, offset!(fs_root_dentry), offset!(fs_root_mnt));
    (paths.root_len, paths.root_flags) = spell::<ROOT_MAX>(top, paths.root.as_mut_ptr());
}

/// A directory: where in which mounted tree.
struct Position {
    dentry: Pointer,
    mount: Pointer,
}

impl Position {
    #[inline(always)]
    fn of(fs: Pointer, dentry: u64, mount: u64) -> Self {
        Self {
            dentry: probed(fs, dentry).unwrap_or(core::ptr::null()),
            mount: probed(fs, mount).unwrap_or(core::ptr::null()),
        }
    }
}

/// A climb from a directory to the root of its mount namespace.
#[repr(C)]
struct Climb {
    dentry: Pointer,
    mount: Pointer,
    out: *mut u8,
    length: u32,
    flags: u32,
}

/// What one step of a climb did.
const GO_ON: i64 = 0;
const ARRIVED: i64 = 1;

/// Writes `leaf/parent/…/` to `out`, which has `ROOM` bytes (a power of two) and more than
/// [`COMPONENT_MAX`] bytes of the same map value behind them. Returns the length and `PATH_*`.
#[inline(always)]
fn spell<const ROOM: usize>(from: Position, out: *mut u8) -> (u32, u32) {
    let mut climb = Climb {
        dentry: from.dentry,
        mount: from.mount,
        out,
        length: 0,
        // Stands if the climb does not arrive.
        flags: PATH_TRUNCATED,
    };
    repeat(LEVELS_MAX, step::<ROOM>, &mut climb);
    (climb.length, climb.flags)
}

extern "C" fn step<const ROOM: usize>(_index: u64, climb: *mut Climb) -> i64 {
    // SAFETY: the context that `spell` hands over, on its stack.
    let climb = unsafe { &mut *climb };
    match try_step::<ROOM>(climb) {
        Some(outcome) => outcome,
        None => {
            climb.flags = PATH_UNREADABLE;
            ARRIVED
        }
    }
}

#[inline(always)]
fn try_step<const ROOM: usize>(climb: &mut Climb) -> Option<i64> {
    let top = follow(climb.mount, offset!(vfsmount_root))?;
    let parent = follow(climb.dentry, offset!(dentry_parent))?;
    if climb.dentry == top || climb.dentry == parent {
        // The top of a mounted tree: go on at the place where it is mounted.
        let outer = climb.mount.cast::<u8>().wrapping_sub(offset!(mount_mnt) as usize).cast();
        let below = follow(outer, offset!(mount_parent))?;
        if below == outer {
            climb.flags = 0;
            return Some(ARRIVED);
        }
        climb.dentry = follow(outer, offset!(mount_mountpoint))?;
        climb.mount = below.cast::<u8>().wrapping_add(offset!(mount_mnt) as usize).cast();
        return Some(GO_ON);
    }
    let size = probed::<u32>(climb.dentry, offset!(dentry_name_len))?;
    let name = follow(climb.dentry, offset!(dentry_name))?;
    if size == 0 || size > COMPONENT_MAX {
        return None;
    }
    let length = climb.length;
    if length >= ROOM as u32 || length + size + 1 > ROOM as u32 {
        return Some(ARRIVED);
    }
    let at = length as usize & (ROOM - 1);
    let size = (size & COMPONENT_MAX) as usize;
    // SAFETY: `at` is below `ROOM`, and there is room for a component behind that.
    let place = unsafe { core::slice::from_raw_parts_mut(climb.out.add(at), size) };
    // SAFETY: the helper checks the address itself.
    if unsafe { bpf_probe_read_kernel_buf(name.cast(), place) }.is_err() {
        unreadable();
        return None;
    }
    // SAFETY: as above.
    unsafe { *climb.out.add(at + size) = b'/' };
    climb.length = length + size as u32 + 1;
    climb.dentry = parent;
    Some(GO_ON)
}
