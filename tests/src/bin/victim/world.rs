//! The orders that a victim obeys. Descriptors are numbers; it makes no difference whether the
//! victim made them or was started with them. Names are `sun_path` bytes in hexadecimal digits.

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::channel,
    },
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown,
            SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt, listen, recv,
            recvmsg, send, sendmsg, setsockopt, shutdown, socket, socketpair,
            sockopt::{PassCred, PeerCredentials},
        },
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::{Pid, chdir, chroot, close, gettid},
};
use rustix::{
    net::connect_unspec,
    process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use ucr::sys::{
    addr,
    descriptor::{OnExec, duplicate_of, duplicate_onto},
};
use ucr_tests::world::{hex, unhex};

use crate::messages;

/// What a victim has.
pub(crate) struct World {
    base: PathBuf,
    own: HashMap<RawFd, OwnedFd>,
    children: Vec<Child>,
    counter: Arc<AtomicU64>,
    /// By thread id.
    threads: HashMap<i32, JoinHandle<Done>>,
    alarms: Option<(Arc<AtomicBool>, JoinHandle<Done>)>,
}

/// Why an order was not carried out: an errno's name, or words.
pub(crate) type Refusal = String;

pub(crate) type Done = Result<String, Refusal>;

impl World {
    pub(crate) fn new(base: PathBuf) -> Self {
        Self {
            base,
            own: HashMap::new(),
            children: Vec::new(),
            counter: Arc::default(),
            threads: HashMap::new(),
            alarms: None,
        }
    }

    /// Obeys one line.
    pub(crate) fn obey(&mut self, line: &str) -> Done {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            // Making sockets.
            ["socket", kind] => self.socket(kind),
            ["pair", kind] => {
                let kind = Kind::parse(kind)?;
                let made = socketpair(kind.family, kind.socket_type, None, kind.flags);
                let (a, b) = made.map_err(name_of)?;
                Ok(format!("{} {}", self.keep(a), self.keep(b)))
            }
            ["pairs", count] => self.pairs(number(count)?),
            // What one does to them.
            ["bind", fd, name] => self.named(fd, name, addr::bind),
            ["autobind", fd] => {
                bind(number(fd)?, &UnixAddr::new_unnamed()).map_err(name_of)?;
                done()
            }
            ["connect", fd, name] => self.named(fd, name, addr::connect),
            ["disconnect", fd] => {
                self.with(fd, |fd| connect_unspec(fd).map_err(io::Error::from))?;
                done()
            }
            ["listen", fd, backlog] => {
                let backlog = Backlog::new(number::<i32>(backlog)?).map_err(name_of)?;
                self.with(fd, |fd| listen(&fd, backlog).map_err(io::Error::from))?;
                done()
            }
            ["accept", fd] => accepted(number(fd)?),
            ["passcred", fd] => {
                self.with(fd, |fd| setsockopt(&fd, PassCred, &true).map_err(io::Error::from))?;
                done()
            }
            ["shutdown", fd, how] => {
                let how = match *how {
                    "read" => Shutdown::Read,
                    "write" => Shutdown::Write,
                    _ => Shutdown::Both,
                };
                shutdown(number(fd)?, how).map_err(name_of)?;
                done()
            }
            ["send", fd, text] => {
                send(number(fd)?, text.as_bytes(), MsgFlags::MSG_NOSIGNAL).map_err(name_of)?;
                done()
            }
            // A message without data.
            ["send", fd] => {
                send(number(fd)?, &[], MsgFlags::MSG_NOSIGNAL).map_err(name_of)?;
                done()
            }
            ["recv", fd] => received(number(fd)?),
            ["msg", rest @ ..] => {
                let fd = rest.get(1).ok_or("no descriptor")?;
                self.with(fd, |fd| messages::obey(fd, rest))
            }
            ["error", fd] => self.with(fd, |fd| {
                let error = ucr::sys::sockopt::get(fd, libc::SO_ERROR)?;
                Ok(ucr::sys::sockopt::as_int(&error).unwrap_or(0).to_string())
            }),
            ["set", fd, option, value] => {
                let (option, value) = (number(option)?, number::<i32>(value)?);
                self.with(fd, |fd| ucr::sys::sockopt::set(fd, option, &value.to_ne_bytes()))?;
                done()
            }
            ["get", fd, option] => {
                let option = number(option)?;
                self.with(fd, |fd| ucr::sys::sockopt::get(fd, option)).map(|value| hex(&value))
            }
            ["pass", fd, over] => passed(number(fd)?, number(over)?, None),
            ["pass", fd, over, name] => {
                let name = UnixAddr::new_abstract(unhex(name)?.get(1..).unwrap_or_default());
                passed(number(fd)?, number(over)?, Some(name.map_err(name_of)?))
            }
            ["take", fd] => taken(number(fd)?),
            ["getfd", pid, fd] => self.taken_out_of(number(pid)?, number(fd)?),
            // Descriptors.
            ["close", fd] => self.close(number(fd)?),
            ["dup", fd, to] => self.duplicate(fd, number(to)?, OnExec::Keep),
            ["dupcloexec", fd, to] => self.duplicate(fd, number(to)?, OnExec::Close),
            ["nonblock", fd] => {
                let set = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
                self.with(fd, |fd| fcntl(fd, set).map_err(io::Error::from))?;
                done()
            }
            // What one can ask them.
            ["name", fd] => self.with(fd, addr::local).map(|name| hex(trimmed(&name))),
            ["peername", fd] => self.with(fd, addr::peer).map(|name| hex(trimmed(&name))),
            ["peercred", fd] => {
                let asked =
                    |fd: BorrowedFd<'_>| getsockopt(&fd, PeerCredentials).map_err(io::Error::from);
                let ids = self.with(fd, asked)?;
                Ok(format!("{} {} {}", ids.pid(), ids.uid(), ids.gid()))
            }
            // The process itself.
            ["chdir", path] => chdir(*path).map_err(name_of).and_then(|()| done()),
            ["chroot", path] => chroot(*path).map_err(name_of).and_then(|()| done()),
            ["unshare"] => unshare(CloneFlags::CLONE_NEWNET).map_err(name_of).and_then(|()| done()),
            ["limit", count] => self.limit(number(count)?),
            ["child", base] => self.child(base),
            ["reap"] => {
                let ended =
                    self.children.drain(..).try_for_each(|mut child| child.wait().map(drop));
                ended.map_err(|error| text_of(&error)).and_then(|()| done())
            }
            ["zombie"] => self.zombie(),
            ["count"] => self.count(),
            ["counter"] => Ok(self.counter.load(Ordering::Relaxed).to_string()),
            ["thread", "accept", fd] => {
                let fd = number(fd)?;
                self.thread(move || accepted(fd))
            }
            ["thread", "recv", fd] => {
                let fd = number(fd)?;
                self.thread(move || received(fd))
            }
            ["thread", "connect", fd, name] => {
                let (fd, name) = (number(fd)?, unhex(name)?);
                self.thread(move || connected(fd, &name))
            }
            ["join", thread] => match self.threads.remove(&number(thread)?) {
                Some(thread) => joined(thread),
                None => Err("no such thread".to_owned()),
            },
            ["alarms", number_of] => self.alarms(number(number_of)?),
            ["quiet"] => match self.alarms.take() {
                Some((stop, thread)) => {
                    stop.store(true, Ordering::Relaxed);
                    joined(thread)
                }
                None => Err("no alarms".to_owned()),
            },
            ["exec"] => Err(text_of(&own_program()?.arg(&self.base).exec())),
            ["exit"] => std::process::exit(0),
            words => super::settings::obey(self, words)
                .or_else(|| super::gently::obey(self, words))
                .or_else(|| super::files::obey(self, words))
                .or_else(|| super::internet::obey(self, words))
                .or_else(|| super::waits::obey(self, words))
                .unwrap_or_else(|| Err(format!("no such order: {line}"))),
        }
    }

    pub(crate) fn keep(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.own.insert(number, fd);
        number
    }

    /// Does something with a descriptor: through the very number if the victim made it itself, so
    /// that a tracer sees that number; else through a duplicate.
    pub(crate) fn with<T>(
        &self,
        fd: &str,
        act: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Result<T, Refusal> {
        let fd = number(fd)?;
        let done = match self.own.get(&fd) {
            Some(own) => act(own.as_fd()),
            None => match duplicate_of(fd).map_err(|error| text_of(&error))? {
                Some((duplicate, _)) => act(duplicate.as_fd()),
                None => Err(Errno::EBADF.into()),
            },
        };
        done.map_err(|error| text_of(&error))
    }

    fn named(
        &self,
        fd: &str,
        name: &str,
        act: fn(BorrowedFd<'_>, &[u8]) -> io::Result<()>,
    ) -> Done {
        let name = unhex(name)?;
        self.with(fd, |fd| act(fd, &name))?;
        done()
    }

    fn socket(&mut self, kind: &str) -> Done {
        let kind = Kind::parse(kind)?;
        let made = socket(kind.family, kind.socket_type, kind.flags, None).map_err(name_of)?;
        Ok(self.keep(made).to_string())
    }

    fn pairs(&mut self, count: usize) -> Done {
        for _ in 0..count {
            let made = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty());
            let (a, b) = made.map_err(name_of)?;
            self.keep(a);
            self.keep(b);
        }
        done()
    }

    fn close(&mut self, fd: RawFd) -> Done {
        match self.own.remove(&fd) {
            Some(own) => drop(own),
            None => close(fd).map_err(name_of)?,
        }
        done()
    }

    fn duplicate(&self, fd: &str, to: RawFd, then: OnExec) -> Done {
        self.with(fd, |from| duplicate_onto(from, to, then))?;
        done()
    }

    /// Takes a descriptor out of another process.
    fn taken_out_of(&mut self, pid: i32, fd: RawFd) -> Done {
        let pid = rustix::process::Pid::from_raw(pid).ok_or("no pid")?;
        let taken = pidfd_open(pid, PidfdFlags::empty())
            .and_then(|process| pidfd_getfd(process, fd, PidfdGetfdFlags::empty()));
        let taken = taken.map_err(|error| text_of(&error.into()))?;
        Ok(self.keep(taken).to_string())
    }

    fn limit(&self, count: u64) -> Done {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(name_of)?;
        setrlimit(Resource::RLIMIT_NOFILE, count, hard).map_err(name_of)?;
        done()
    }

    fn child(&mut self, base: &str) -> Done {
        let child = own_program()?.arg(base).stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| text_of(&error))?;
        let pid = child.id();
        self.children.push(child);
        Ok(pid.to_string())
    }

    /// A child that has ended and is not reaped.
    fn zombie(&mut self) -> Done {
        let child = Command::new("true").stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| text_of(&error))?;
        let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
        waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            .map_err(name_of)?;
        self.children.push(child);
        Ok(pid.to_string())
    }

    /// Lets a thread do something that may block; its id.
    pub(crate) fn thread(&mut self, act: impl FnOnce() -> Done + Send + 'static) -> Done {
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            tell.send(gettid().as_raw()).map_err(|error| error.to_string())?;
            act()
        });
        let tid = told.recv().map_err(|error| error.to_string())?;
        self.threads.insert(tid, thread);
        Ok(tid.to_string())
    }

    /// Raises a signal over and over, in a thread, and looks each time whether it arrived. The
    /// thread's answer: how often it was raised, how often it was missed.
    fn alarms(&mut self, signal: i32) -> Done {
        let arrived = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal, Arc::clone(&arrived)).map_err(|e| text_of(&e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut raised, mut missed) = (0_u64, 0_u64);
            while !stopped.load(Ordering::Relaxed) {
                // Delivered to this very thread before the call returns.
                signal_hook::low_level::raise(signal).map_err(|e| text_of(&e))?;
                raised += 1;
                missed += u64::from(!arrived.swap(false, Ordering::Relaxed));
            }
            Ok(format!("{raised} {missed}"))
        });
        self.alarms = Some((stop, thread));
        done()
    }

    /// Counts milliseconds from now on, in a thread: what stops the process stops the counter.
    fn count(&self) -> Done {
        let counter = Arc::clone(&self.counter);
        thread::spawn(move || {
            while poll(&mut [], PollTimeout::from(1u8)).is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            // A call that was interrupted: what a dump must not make visible.
            counter.store(u64::MAX, Ordering::Relaxed);
        });
        done()
    }
}

/// Family, type and flags, as in `stream+cloexec`.
struct Kind {
    family: AddressFamily,
    socket_type: SockType,
    flags: SockFlag,
}

impl Kind {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut words = text.split('+');
        let (family, socket_type) = match words.next() {
            Some("stream") => (AddressFamily::Unix, SockType::Stream),
            Some("seqpacket") => (AddressFamily::Unix, SockType::SeqPacket),
            Some("dgram") => (AddressFamily::Unix, SockType::Datagram),
            Some("packet") => (AddressFamily::Packet, SockType::Raw),
            _ => return Err(format!("no such kind of socket: {text}")),
        };
        let mut flags = SockFlag::empty();
        for word in words {
            flags |= match word {
                "nonblock" => SockFlag::SOCK_NONBLOCK,
                "cloexec" => SockFlag::SOCK_CLOEXEC,
                _ => return Err(format!("no such flag: {word}")),
            };
        }
        Ok(Self { family, socket_type, flags })
    }
}

pub(crate) fn done() -> Done {
    Ok(String::new())
}

fn accepted(fd: RawFd) -> Done {
    accept4(fd, SockFlag::empty()).map(|made| made.to_string()).map_err(name_of)
}

fn received(fd: RawFd) -> Done {
    let mut buffer = [0; 4096];
    let length = recv(fd, &mut buffer, MsgFlags::empty()).map_err(name_of)?;
    let heard = buffer.get(..length).unwrap_or_default();
    Ok(String::from_utf8_lossy(heard).into_owned())
}

/// The descriptor that comes with the next message.
fn taken(fd: RawFd) -> Done {
    let (mut text, mut space) = ([0], nix::cmsg_space!(RawFd));
    let mut text = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(fd, &mut text, Some(&mut space), MsgFlags::empty());
    let message = message.map_err(name_of)?;
    let rights = message.cmsgs().map_err(name_of)?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    rights.map(|fd| fd.to_string()).ok_or_else(|| "no descriptor came".to_owned())
}

/// Sends a descriptor over a socket: to its peer, or to an address.
fn passed(fd: RawFd, over: RawFd, to: Option<UnixAddr>) -> Done {
    let fds = [fd];
    let rights = [ControlMessage::ScmRights(&fds)];
    let text = [IoSlice::new(b"x")];
    sendmsg(over, &text, &rights, MsgFlags::MSG_NOSIGNAL, to.as_ref()).map_err(name_of)?;
    done()
}

/// Connects to an abstract name, with its leading NUL.
fn connected(fd: RawFd, name: &[u8]) -> Done {
    let name = UnixAddr::new_abstract(name.get(1..).unwrap_or_default()).map_err(name_of)?;
    connect(fd, &name).map_err(name_of)?;
    done()
}

fn joined(thread: JoinHandle<Done>) -> Done {
    thread.join().unwrap_or_else(|_| Err("the thread panicked".to_owned()))
}

fn own_program() -> Result<Command, Refusal> {
    std::env::current_exe().map(Command::new).map_err(|error| text_of(&error))
}

pub(crate) fn number<N: std::str::FromStr>(text: &str) -> Result<N, Refusal> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

pub(crate) fn name_of(errno: Errno) -> Refusal {
    format!("{errno:?}")
}

pub(crate) fn text_of(error: &io::Error) -> Refusal {
    error.raw_os_error().map_or_else(|| error.to_string(), |raw| name_of(Errno::from_raw(raw)))
}

/// Without the NUL that the kernel puts behind a pathname.
pub(crate) fn trimmed(name: &[u8]) -> &[u8] {
    match name.split_last() {
        Some((0, rest)) if rest.first().is_some_and(|first| *first != 0) => rest,
        _ => name,
    }
}
