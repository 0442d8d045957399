//! x86-64. Sources: the ABI of system calls and of signal frames (`arch/x86/include/uapi/asm/sigcontext.h`,
//! `ucontext.h`), the layout of XSAVE areas (Intel SDM, volume 1, 13.4).

use std::arch::{global_asm, x86_64::__cpuid_count};
use std::io;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::{Frame, Gadgets};
use crate::sys::tracee;

/// `syscall; ret`.
pub const CALL: &[u8] = &[0x0f, 0x05, 0xc3];

/// `pop %rax; ret`.
pub const POP: &[u8] = &[0x58, 0xc3];

/// `mov $15,%rax; syscall`, as C libraries have it for handlers to return to, and its shorter form.
pub const RETURN: [&[u8]; 2] = [
    &[0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05],
    &[0xb8, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05],
];

/// Selector of 64-bit code in user space (`__USER_CS`).
const CODE_64: u64 = 0x33;
/// Bytes below the stack pointer that belong to the function that runs (System V ABI).
const RED_ZONE: u64 = 128;
/// `NT_X86_XSTATE`.
const XSTATE: usize = 0x202;
/// `NT_X86_SHSTK`.
const SHADOW_STACK: usize = 0x204;
/// More than any XSAVE area has (that with AMX has 11 KiB).
const XSTATE_ROOM: usize = 32 * 1024;
/// Of the legacy area, and of the header behind it.
const LEGACY: usize = 512;
const HEADER: usize = 64;
/// Where the legacy area leaves room for software: in the signal frame, for how much there is.
const SOFTWARE: usize = 464;
const MAGIC_1: u32 = 0x4650_5853;
const MAGIC_2: u32 = 0x4650_5845;
/// `UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const FRAME_FLAGS: u64 = 7;
/// Flags of an alternate signal stack that the kernel does not know: it leaves the one that there is.
const NO_STACK: u64 = 4;
/// From the address that a handler returns to, to the end of `struct ucontext`.
const CONTEXT: usize = 8 + 304;

// Position-independent. `rbx`: the data, at whose beginning is a `Head`; `rsp`: a stack there.
global_asm!(
    ".pushsection .rodata.ucr_parasite, \"a\", @progbits",
    ".balign 16",
    ".globl ucr_parasite_begin",
    ".globl ucr_parasite_end",
    ".hidden ucr_parasite_begin",
    ".hidden ucr_parasite_end",
    "ucr_parasite_begin:",
    // mprotect(data, mapped - PAGE, PROT_READ | PROT_WRITE): all was mapped in one call.
    "mov eax, 10",
    "mov rdi, rbx",
    "mov rsi, [rbx + 56]",
    "sub rsi, 4096",
    "mov edx, 3",
    "syscall",
    "test eax, eax",
    "js 5f",
    // socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, &channel)
    "mov eax, 53",
    "mov edi, 1",
    "mov esi, 0x80005",
    "xor edx, edx",
    "mov r10, rbx",
    "syscall",
    "test eax, eax",
    "js 5f",
    // close(channel[1])
    "mov eax, 3",
    "mov edi, [rbx + 4]",
    "syscall",
    "2:",
    // recvfrom(channel[0], &byte, 1, 0, 0, 0)
    "mov eax, 45",
    "mov edi, [rbx]",
    "lea rsi, [rbx + 8]",
    "mov edx, 1",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "syscall",
    "cmp rax, 1",
    "jne 4f",
    "mov rbp, [rbx + 16]",
    "call 6f",
    // sendto(channel[0], &byte, 1, MSG_NOSIGNAL, 0, 0)
    "mov eax, 44",
    "mov edi, [rbx]",
    "lea rsi, [rbx + 8]",
    "mov edx, 1",
    "mov r10d, 0x4000",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "syscall",
    "jmp 2b",
    "4:",
    "mov rbp, [rbx + 24]",
    "call 6f",
    // close(channel[0])
    "mov eax, 3",
    "mov edi, [rbx]",
    "syscall",
    "5:",
    // munmap of all this, by code that stays; what stands on that stack leads back.
    "mov rsp, [rbx + 32]",
    "mov rdx, [rbx + 40]",
    "mov rdi, [rbx + 48]",
    "mov rsi, [rbx + 56]",
    "mov eax, 11",
    "jmp rdx",
    // A list of calls: `rbp`.
    "6:",
    "mov rax, [rbp]",
    "cmp rax, -1",
    "je 9f",
    "mov rdi, [rbp + 8]",
    "test byte ptr [rbp + 56], 4",
    "jz 7f",
    "movsxd rdi, dword ptr [rdi]",
    "7:",
    "mov rsi, [rbp + 16]",
    "mov rdx, [rbp + 24]",
    "mov r10, [rbp + 32]",
    "mov r8, [rbp + 40]",
    "mov r9, [rbp + 48]",
    "syscall",
    "mov [rbp + 64], rax",
    "test byte ptr [rbp + 56], 8",
    "jz 11f",
    "mov rdx, [rbp + 8]",
    "mov dword ptr [rdx], -1",
    "11:",
    "test byte ptr [rbp + 56], 1",
    "jz 8f",
    "test rax, rax",
    "js 9f",
    "8:",
    "test byte ptr [rbp + 56], 2",
    "jz 10f",
    "test rax, rax",
    "jle 9f",
    "10:",
    "add rbp, 72",
    "jmp 6b",
    "9:",
    "ret",
    "ucr_parasite_end:",
    ".popsection",
);

/// The code. It begins at its first byte, with `rbx` at a [`Head`](super::Head).
#[must_use]
pub fn code() -> &'static [u8] {
    // SAFETY: both symbols are labels of the block above.
    unsafe extern "C" {
        static ucr_parasite_begin: u8;
        static ucr_parasite_end: u8;
    }
    let (begin, end) = (&raw const ucr_parasite_begin, &raw const ucr_parasite_end);
    // SAFETY: both are of one block of read-only data of this program, the first before the second.
    let length = unsafe { end.offset_from_unsigned(begin) };
    // SAFETY: as above; it is never written to.
    unsafe { std::slice::from_raw_parts(begin, length) }
}

/// The registers of a thread that stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers(libc::user_regs_struct);

fn raw(thread: i32) -> Pid {
    Pid::from_raw(thread)
}

impl Registers {
    /// Reads them.
    ///
    /// # Errors
    /// `ESRCH` if it does not stand still, or is gone.
    pub fn of(thread: i32) -> io::Result<Self> {
        Ok(Self(ptrace::getregs(raw(thread))?))
    }

    /// Gives them to the thread.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn give(&self, thread: i32) -> io::Result<()> {
        Ok(ptrace::setregs(raw(thread), self.0)?)
    }

    /// Whether the thread runs 64-bit code.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.0.cs == CODE_64
    }

    /// The lowest address of the stack that is in use.
    #[must_use]
    pub fn stack(&self) -> u64 {
        self.0.rsp.wrapping_sub(RED_ZONE)
    }

    /// Which system call it was in last, if in any.
    #[must_use]
    pub fn call(&self) -> Option<i64> {
        self.interrupted_call()
    }

    /// What the last system call returned.
    #[must_use]
    pub fn result(&self) -> i64 {
        self.0.rax.cast_signed()
    }

    fn interrupted_call(&self) -> Option<i64> {
        let number = self.0.orig_rax.cast_signed();
        (number >= 0).then_some(number)
    }

    /// Registers with which a call that our stop has interrupted is made again, if the kernel would tell
    /// the program instead that it was interrupted (`EINTR`), as if a signal had come. Time limits begin anew.
    #[must_use]
    pub fn mended(&self) -> Option<Self> {
        const AGAIN: [libc::c_long; 26] = [
            libc::SYS_epoll_wait,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_accept,
            libc::SYS_accept4,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_recvmmsg,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_sendmmsg,
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_preadv2,
            libc::SYS_pwritev2,
            libc::SYS_connect,
            libc::SYS_rt_sigtimedwait,
            libc::SYS_semop,
            libc::SYS_semtimedop,
            libc::SYS_io_getevents,
            libc::SYS_sendfile,
            libc::SYS_splice,
        ];
        let call = self.interrupted_call()?;
        let is_told = self.result() == -i64::from(Errno::EINTR as i32);
        if !is_told || !AGAIN.contains(&call) {
            return None;
        }
        let mut registers = self.0;
        // The kernel makes the call again, unless a signal handler is to run first (`arch_do_signal_or_restart`).
        registers.rax = (-NO_HANDLER).cast_unsigned();
        Some(Self(registers))
    }

    /// Registers with which the thread makes a call, and returns by the frame at `back`.
    #[must_use]
    pub fn calling(&self, gadgets: Gadgets, back: u64, number: i64, arguments: [u64; 6]) -> Self {
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let mut registers = libc::user_regs_struct { rdi, rsi, rdx, r10, r8, r9, ..self.0 };
        registers.rip = gadgets.call;
        registers.rsp = back;
        registers.rax = number.cast_unsigned();
        // No call is to be made again.
        registers.orig_rax = u64::MAX;
        Self(registers)
    }

    /// Registers with which the thread begins the [`code`] at an address.
    #[must_use]
    pub fn beginning(&self, code: u64, data: u64, stack: u64) -> Self {
        let mut registers = self.0;
        (registers.rip, registers.rbx, registers.rsp) = (code, data, stack);
        registers.orig_rax = u64::MAX;
        Self(registers)
    }

    /// Registers after the call that the stop has interrupted is begun again, as a signal frame has them: from
    /// there the kernel does not do it.
    fn resumed(&self) -> libc::user_regs_struct {
        let mended = self.mended().unwrap_or(*self);
        let mut registers = mended.0;
        // `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND`, `ERESTART_RESTARTBLOCK`.
        if let Some(call) = mended.interrupted_call()
            && [512, 513, NO_HANDLER, 516].contains(&-mended.result())
        {
            registers.rax = call.cast_unsigned();
            registers.rip = registers.rip.wrapping_sub(2);
        }
        registers
    }
}

/// `ERESTARTNOHAND`.
const NO_HANDLER: i64 = 514;

/// Vector and floating point registers, as the kernel hands them out.
///
/// # Errors
/// The kernel's.
pub fn extended_state(thread: i32) -> io::Result<Vec<u8>> {
    tracee::register_set(thread, XSTATE, XSTATE_ROOM)
}

/// Whether a thread has a shadow stack, which allows no return to where nobody came from.
#[must_use]
pub fn is_shadowed(thread: i32) -> bool {
    tracee::register_set(thread, SHADOW_STACK, 8).is_ok()
}

/// How many bytes of an XSAVE area are in use.
fn used(area: &[u8]) -> usize {
    let features = word(area, LEGACY);
    let mut end = LEGACY + HEADER;
    for feature in (2..63).filter(|feature| features >> feature & 1 == 1) {
        let leaf = __cpuid_count(0xd, feature);
        end = end.max(usize::try_from(leaf.ebx + leaf.eax).unwrap_or_default());
    }
    end.min(area.len())
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_ne_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

/// How many bytes of the stack [`frame`] takes at most.
#[must_use]
pub fn frame_room(extended: &[u8]) -> usize {
    CONTEXT + 64 + used(extended) + 4
}

/// What is put on the stack of a thread so that it returns to what it was about. From below: what unmaps what a call has
/// just mapped (whose arguments are still in their registers), the address of code that returns from a signal handler,
/// and the frame that this takes.
#[must_use]
pub fn frame(registers: &Registers, mask: u64, extended: &[u8], gadgets: Gadgets) -> Frame {
    let room = u64::try_from(frame_room(extended)).unwrap_or_default();
    let at = (registers.stack().wrapping_sub(room)) & !63;
    let pop = gadgets.pop.unwrap_or_default();
    let unmap = [pop, libc::SYS_munmap.cast_unsigned(), gadgets.call];
    let sigreturn = gadgets.sigreturn;
    // The area has to be at a multiple of 64.
    let area = (CONTEXT + 63) & !63;
    let size = used(extended);
    let mut bytes = vec![0; area + size + 4];
    let r = registers.resumed();
    let segments = r.cs & 0xffff | (r.ss & 0xffff) << 48;
    let general = [
        r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx,
        r.rax, r.rcx, r.rsp, r.rip, r.eflags, segments,
    ];
    put(&mut bytes, 0, &sigreturn.to_ne_bytes());
    put(&mut bytes, 8, &FRAME_FLAGS.to_ne_bytes());
    put(&mut bytes, 32, &NO_STACK.to_ne_bytes());
    for (number, value) in general.iter().enumerate() {
        put(&mut bytes, 48 + number * 8, &value.to_ne_bytes());
    }
    let area_at = at + u64::try_from(area).unwrap_or_default();
    put(&mut bytes, 48 + 184, &area_at.to_ne_bytes());
    put(&mut bytes, 48 + 256, &mask.to_ne_bytes());
    put(&mut bytes, area, extended.get(..size).unwrap_or_default());
    // The kernel hands out there which features the machine has.
    let features = word(extended, SOFTWARE) & !(0b11 << 17) | word(extended, LEGACY);
    let size = u32::try_from(size).unwrap_or_default();
    let software = area + SOFTWARE;
    put(&mut bytes, software, &[0; 48]);
    put(&mut bytes, software, &MAGIC_1.to_ne_bytes());
    put(&mut bytes, software + 4, &(size + 4).to_ne_bytes());
    put(&mut bytes, software + 8, &features.to_ne_bytes());
    put(&mut bytes, software + 16, &size.to_ne_bytes());
    let end = bytes.len() - 4;
    put(&mut bytes, end, &MAGIC_2.to_ne_bytes());
    let mut all = unmap.map(u64::to_ne_bytes).concat();
    let begin = at - u64::try_from(all.len()).unwrap_or_default();
    all.extend(bytes);
    let unmapping = if gadgets.pop.is_some() { begin } else { at };
    Frame { at: begin, bytes: all, back: at, unmapping }
}
