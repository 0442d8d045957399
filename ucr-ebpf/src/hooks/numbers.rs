//! System call numbers. Nothing else in the programs depends on the architecture but `pt_regs`,
//! whose fields are found by name.

/// The 64-bit entry (`arch/x86/entry/syscalls/syscall_64.tbl`).
#[cfg(bpf_target_arch = "x86_64")]
pub(crate) mod x86_64 {
    pub(crate) const CLOSE: u64 = 3;
    pub(crate) const DUP2: u64 = 33;
    pub(crate) const SOCKET: u64 = 41;
    pub(crate) const CONNECT: u64 = 42;
    pub(crate) const ACCEPT: u64 = 43;
    pub(crate) const SENDTO: u64 = 44;
    pub(crate) const SENDMSG: u64 = 46;
    pub(crate) const RECVMSG: u64 = 47;
    pub(crate) const SHUTDOWN: u64 = 48;
    pub(crate) const BIND: u64 = 49;
    pub(crate) const LISTEN: u64 = 50;
    pub(crate) const SOCKETPAIR: u64 = 53;
    pub(crate) const ACCEPT4: u64 = 288;
    pub(crate) const DUP3: u64 = 292;
    pub(crate) const RECVMMSG: u64 = 299;
    pub(crate) const SENDMMSG: u64 = 307;
    pub(crate) const CLOSE_RANGE: u64 = 436;
}

/// The 32-bit entry (`arch/x86/entry/syscalls/syscall_32.tbl`).
#[cfg(bpf_target_arch = "x86_64")]
pub(crate) mod i386 {
    /// All socket calls by one number, with their arguments in memory.
    pub(crate) const SOCKETCALL: u64 = 102;
    pub(crate) const RECVMMSG: u64 = 337;
    pub(crate) const SENDMMSG: u64 = 345;
    pub(crate) const SOCKET: u64 = 359;
    pub(crate) const SOCKETPAIR: u64 = 360;
    pub(crate) const BIND: u64 = 361;
    pub(crate) const CONNECT: u64 = 362;
    pub(crate) const LISTEN: u64 = 363;
    pub(crate) const ACCEPT4: u64 = 364;
    pub(crate) const SENDTO: u64 = 369;
    pub(crate) const SENDMSG: u64 = 370;
    pub(crate) const RECVMSG: u64 = 372;
    pub(crate) const SHUTDOWN: u64 = 373;
    pub(crate) const RECVMMSG_TIME64: u64 = 417;
}
