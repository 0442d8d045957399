//! `sendmsg(2)` and `recvmsg(2)` with any address, descriptors and credentials: the typed ones do not take
//! every name, nor credentials without a pid.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::addr;

/// What goes along with the data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Along<'a> {
    /// `SCM_RIGHTS`.
    pub files: &'a [RawFd],
    /// `SCM_CREDENTIALS`: pid, user, group.
    pub credentials: Option<(i32, u32, u32)>,
    /// `MSG_OOB`.
    pub out_of_band: bool,
    /// Bytes of `sun_path`, if it does not go to the socket's peer.
    pub to: Option<&'a [u8]>,
}

/// Sends one message without waiting or `SIGPIPE`; how many bytes were taken.
///
/// # Errors
///
/// The kernel's, and `InvalidInput` for an address of no bytes or too many.
pub fn send(socket: BorrowedFd<'_>, data: &[u8], along: Along<'_>) -> io::Result<usize> {
    let mut control = Control::default();
    if !along.files.is_empty() {
        let bytes: Vec<u8> = along.files.iter().flat_map(|file| file.to_ne_bytes()).collect();
        control.add(libc::SCM_RIGHTS, &bytes);
    }
    if let Some((pid, uid, gid)) = along.credentials {
        let bytes = [pid.to_ne_bytes(), uid.to_ne_bytes(), gid.to_ne_bytes()].concat();
        control.add(libc::SCM_CREDENTIALS, &bytes);
    }
    let mut address = along.to.map(addr::address).transpose()?;
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: all zeroes are a valid `msghdr`: null pointers with lengths of 0.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some((address, length)) = &mut address {
        message.msg_name = std::ptr::from_mut(address).cast();
        message.msg_namelen = *length;
    }
    if !control.0.is_empty() {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() * size_of::<u64>();
    }
    let mut flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    if along.out_of_band {
        flags |= libc::MSG_OOB;
    }
    // SAFETY: what the message points to has the lengths that it says and outlives the call, which does
    // not write to it; the descriptor is open for as long as it is borrowed.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What was received.
#[derive(Debug, Default)]
pub struct Received {
    /// The data, as far as there was room.
    pub data: Vec<u8>,
    /// Bytes of the sender's `sun_path`.
    pub from: Vec<u8>,
    /// `SCM_RIGHTS`; close-on-exec.
    pub files: Vec<OwnedFd>,
    /// `SCM_CREDENTIALS`: pid, user, group.
    pub credentials: Option<(i32, u32, u32)>,
    /// `MSG_*` that came back.
    pub flags: i32,
}

/// Room for control messages, in words: 253 descriptors, credentials, a pidfd, a label, time stamps.
const ROOM: usize = 256;

/// Receives up to `size` bytes without waiting; `flags` are `MSG_PEEK`, `MSG_OOB` or neither.
///
/// # Errors
///
/// The kernel's.
pub fn receive(socket: BorrowedFd<'_>, size: usize, flags: libc::c_int) -> io::Result<Received> {
    let mut data = vec![0_u8; size];
    let mut control = vec![0_u64; ROOM];
    let mut address = addr::Address([0; 128]);
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: all zeroes are a valid `msghdr`: null pointers with lengths of 0.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = libc::socklen_t::try_from(size_of::<addr::Address>()).unwrap_or_default();
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len() * size_of::<u64>();
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: what the message points to has the lengths that it says, may be written to, and outlives the
    // call; the descriptor is open for as long as it is borrowed.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    data.truncate(length);
    let mut received = Received {
        data,
        from: addr::path_of(&address, message.msg_namelen),
        flags: message.msg_flags,
        ..Received::default()
    };
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    received.read(bytes.get(..message.msg_controllen).unwrap_or_default());
    Ok(received)
}

impl Received {
    fn read(&mut self, mut control: &[u8]) {
        let head = size_of::<libc::cmsghdr>();
        while let Some((length, _)) = control.split_first_chunk() {
            let length = usize::from_ne_bytes(*length);
            let Some(whole) = control.get(..length) else { return };
            let Some((head, data)) = whole.split_at_checked(head) else { return };
            let (_, kind) = head.split_at(head.len() - size_of::<libc::c_int>());
            let kind = kind.first_chunk().map(|kind| i32::from_ne_bytes(*kind));
            let (numbers, _) = data.as_chunks::<4>();
            match kind {
                Some(libc::SCM_RIGHTS) => self.files.extend(numbers.iter().map(|number| {
                    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                    unsafe { OwnedFd::from_raw_fd(i32::from_ne_bytes(*number)) }
                })),
                Some(libc::SCM_CREDENTIALS) => {
                    if let &[pid, uid, gid] = numbers {
                        let ids = (u32::from_ne_bytes(uid), u32::from_ne_bytes(gid));
                        self.credentials = Some((i32::from_ne_bytes(pid), ids.0, ids.1));
                    }
                }
                Some(SCM_PIDFD) => {
                    if let Some(number) = numbers.first() {
                        // SAFETY: as above.
                        drop(unsafe { OwnedFd::from_raw_fd(i32::from_ne_bytes(*number)) });
                    }
                }
                _ => {}
            }
            let next = length.next_multiple_of(size_of::<u64>());
            control = control.get(next..).unwrap_or_default();
        }
    }
}

/// Not in libc.
const SCM_PIDFD: libc::c_int = 4;

/// Control messages, in words so that they are aligned as the kernel wants them (`CMSG_ALIGN`).
#[derive(Default)]
struct Control(Vec<u64>);

impl Control {
    fn add(&mut self, kind: libc::c_int, data: &[u8]) {
        // `struct cmsghdr`: the length with the head, level and type.
        let head = size_of::<libc::cmsghdr>();
        let level = libc::SOL_SOCKET.to_ne_bytes();
        let mut bytes = (head + data.len()).to_ne_bytes().to_vec();
        bytes.extend([level, kind.to_ne_bytes()].concat());
        bytes.extend(data);
        let words = bytes.chunks(size_of::<u64>()).map(|chunk| {
            let mut word = [0; size_of::<u64>()];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            u64::from_ne_bytes(word)
        });
        self.0.extend(words);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn descriptors_and_credentials_go_along() {
        let (one, other) = UnixDatagram::pair().expect("a pair");
        let pid = i32::try_from(std::process::id()).expect("a pid");
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let files = [one.as_raw_fd(); 3];
        let credentials = Some((pid, uid, gid));
        let along = Along { files: &files, credentials, ..Along::default() };
        assert_eq!(send(one.as_fd(), b"hello", along).expect("send"), 5);
        nix::sys::socket::setsockopt(&other, nix::sys::socket::sockopt::PassCred, &true)
            .expect("SO_PASSCRED");
        let got = receive(other.as_fd(), 16, 0).expect("receive");
        assert_eq!((got.data.as_slice(), got.credentials), (&b"hello"[..], credentials));
        assert_eq!(got.files.len(), 3);
        assert!(got.from.is_empty());
    }
}
