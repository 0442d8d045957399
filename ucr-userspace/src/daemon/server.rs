//! The control socket: lets clients in, hears one question of each, and sends the answers. Whatever a client
//! does or does not do, it costs the daemon a bounded amount of memory and time, and nobody else anything.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::fd::AsFd as _,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::{Gid, Group, chown},
};
use tokio::{
    io::AsyncReadExt as _,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{
    answer,
    config::Control,
    frame::{self, FrameError},
    hub::Delivered,
    protocol::{About, Question, Refusal, Reply, Sent, Wanted},
    shared::Shared,
};
use crate::sys::peer;

/// Questions that are worked on at once; others wait. Each may need a pass over all sockets.
const WORKED_ON: usize = 2;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another daemon answers there.
    #[error("{} answers at {path} already", holder(*.pid))]
    InUse {
        /// The socket.
        path: PathBuf,
        /// Which, if it is a daemon of ours.
        pid: Option<u32>,
    },
    /// Something else has the name.
    #[error("{path} is no socket")]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The group that is configured does not exist.
    #[error("there is no group {group}")]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// The file system refuses.
    #[error("{operation} {path}")]
    Files {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "somebody".to_owned(), |pid| format!("the daemon with pid {pid}"))
}

/// The socket, whose file goes with it.
#[derive(Debug)]
pub struct Door {
    listener: StdListener,
    path: PathBuf,
    group: Option<u32>,
    /// Two that begin at once would each take the other's socket for one that was left behind.
    _lock: Flock<File>,
}

impl Drop for Door {
    fn drop(&mut self) {
        // That it is gone already is nothing to report.
        fs::remove_file(&self.path).ok();
    }
}

fn files<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ServerError + 'a {
    move |source| ServerError::Files { operation, path: path.to_owned(), source }
}

/// The number of the group that may ask.
fn group(control: &Control) -> Result<Option<u32>, ServerError> {
    let Some(name) = &control.group else { return Ok(None) };
    let known = Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    known
        .or_else(|| name.parse().ok())
        .map(Some)
        .ok_or_else(|| ServerError::NoGroup { group: name.clone() })
}

impl Door {
    /// Opens it: a socket file for root, and for the group. One that a daemon which is gone has left behind
    /// is replaced.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn open(control: &Control) -> Result<Self, ServerError> {
        let path = control.socket.as_path();
        if let Some(folder) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
            made.map_err(files("create directory", folder))?;
        }
        let lock = lock(path)?;
        let group = group(control)?;
        match fs::symlink_metadata(path) {
            Ok(facts) if !facts.file_type().is_socket() => {
                return Err(ServerError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => match StdStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(files("remove", path))?;
                }
                _ => return Err(ServerError::InUse { path: path.to_owned(), pid: None }),
            },
            Err(_) => {}
        }
        let listener = StdListener::bind(path).map_err(files("bind", path))?;
        let door = Self { listener, path: path.to_owned(), group, _lock: lock };
        door.admit()?;
        door.listener.set_nonblocking(true).map_err(files("set up", path))?;
        Ok(door)
    }

    /// Lets the group in, or root alone.
    fn admit(&self) -> Result<(), ServerError> {
        let mode = if self.group.is_some() { 0o660 } else { 0o600 };
        let gid = Gid::from_raw(self.group.unwrap_or(0));
        chown(&self.path, None, Some(gid))
            .map_err(io::Error::from)
            .and_then(|()| fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)))
            .map_err(files("give rights to", &self.path))
    }

    /// The socket within a tokio runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listener(&self) -> io::Result<UnixListener> {
        UnixListener::from_std(self.listener.try_clone()?)
    }

    /// The group that may ask, beside root.
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        self.group
    }
}

/// Keeps other daemons from this socket as long as what is returned is there.
fn lock(path: &Path) -> Result<Flock<File>, ServerError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&name)
        .map_err(files("open", &name))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // A courtesy: the lock holds all the same if the disk is full.
            lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).ok();
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let pid = file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            Err(ServerError::InUse { path: path.to_owned(), pid })
        }
        Err((_, errno)) => Err(files("lock", &name)(errno.into())),
    }
}

/// What all conversations have in common.
struct Reception {
    shared: Arc<Shared>,
    /// A group whose members may ask. Looked up once: to ask for it can take as long as a directory service.
    group: Option<u32>,
    work: Semaphore,
}

/// Lets clients in for as long as it is polled: root, and members of a group.
pub async fn serve(listener: UnixListener, group: Option<u32>, shared: Arc<Shared>) {
    let reception = Arc::new(Reception { shared, group, work: Semaphore::new(WORKED_ON) });
    loop {
        match listener.accept().await {
            Ok((client, _)) => admit(client, &reception),
            Err(error) => {
                // Out of descriptors, for one: those who wait go on waiting.
                tracing::warn!("accept a client: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A client that is counted as long as it lives.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counts.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

fn admit(mut client: UnixStream, reception: &Arc<Reception>) {
    let reception = Arc::clone(reception);
    let limit = reception.shared.config().control.max_clients;
    let before = reception.shared.counts.clients.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(Arc::clone(&reception.shared));
    tokio::spawn(async move {
        let _counted = counted;
        let refused = if before >= u64::from(limit) {
            Err(Refusal::Busy { limit })
        } else {
            converse(&mut client, &reception).await
        };
        if let Err(refusal) = refused {
            reception.shared.counts.refuse(refusal.reason());
            let patience = Duration::from_secs(1);
            // It may be gone, or not listen.
            timeout(patience, frame::write(&mut client, &Reply::Refused(refusal))).await.ok();
        }
    });
}

async fn converse(client: &mut UnixStream, reception: &Arc<Reception>) -> Result<(), Refusal> {
    let shared = &reception.shared;
    let config = shared.config();
    let control = &config.control;
    authorize(client, reception.group)?;
    let message = timeout(control.request_timeout, frame::read_bytes(client, control.max_request));
    let message = match message.await {
        Err(_) => return Err(Refusal::TooSlow),
        Ok(Err(FrameError::TooLong { limit, .. })) => return Err(Refusal::TooLong { limit }),
        Ok(Err(FrameError::Malformed(_))) => return Err(Refusal::Malformed),
        // It has gone without having asked.
        Ok(Err(FrameError::Read(_))) => return Ok(()),
        Ok(Ok(message)) => message,
    };
    let Question { about, .. } = Question::decode(&message)?;
    drop(message);
    if let About::Trace(wanted) = &about {
        return follow(client, shared, wanted, control).await;
    }
    let kind = about.kind();
    let replies = match about {
        // Told whatever others ask meanwhile: it is all there.
        About::Status => answer::answer(shared, &about)?,
        about => {
            // Closed only with the daemon.
            let _turn = reception.work.acquire().await.map_err(|_| Refusal::Malformed)?;
            let shared = Arc::clone(shared);
            tokio::task::spawn_blocking(move || answer::answer(&shared, &about))
                .await
                .map_err(|panic| Refusal::Failed { message: panic.to_string(), hint: None })??
        }
    };
    shared.counts.answered(kind);
    for reply in replies.into_iter().chain([Reply::End]) {
        // One that does not listen is let go.
        let written = timeout(control.request_timeout, frame::write(client, &reply)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    crate::sys::heap::give_back();
    Ok(())
}

/// Who may ask: root, our own user, the group.
fn authorize(client: &UnixStream, group: Option<u32>) -> Result<(), Refusal> {
    let Ok(caller) = client.peer_cred() else { return Err(Refusal::NotAllowed { uid: u32::MAX }) };
    let own = nix::unistd::geteuid().as_raw();
    let is_member = group.is_some_and(|group| {
        caller.gid() == group
            || peer::groups(client.as_fd())
                .is_ok_and(|groups| groups.is_some_and(|groups| groups.contains(&group)))
    });
    if caller.uid() == 0 || caller.uid() == own || is_member {
        Ok(())
    } else {
        Err(Refusal::NotAllowed { uid: caller.uid() })
    }
}

/// Sends events until the client goes.
async fn follow(
    client: &mut UnixStream,
    shared: &Arc<Shared>,
    wanted: &Wanted,
    control: &Control,
) -> Result<(), Refusal> {
    let queue = usize::try_from(shared.config().followers.queue).unwrap_or(usize::MAX);
    let mut subscription = shared.hub.subscribe(answer::filter(wanted)?, queue);
    shared.counts.answered("trace");
    let (mut from, mut to) = client.split();
    let patience = control.idle_timeout;
    if frame::write(&mut to, &Reply::Following).await.is_err() {
        return Ok(());
    }
    let mut nothing = [0; 64];
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        let delivered = tokio::select! {
            delivered = subscription.queue.recv() => delivered,
            // It says nothing more; that it hangs up shows here.
            heard = from.read(&mut nothing) => match heard {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => continue,
            },
            _ = tick.tick() => None,
        };
        let mut bytes = Vec::new();
        let mut append = |reply: &Reply| {
            if let Ok(message) = frame::encode(reply) {
                bytes.extend_from_slice(&message);
            }
        };
        let mut next = delivered;
        let mut taken = 0;
        while let Some(delivered) = next {
            match delivered {
                Delivered::Event(event) => append(&Reply::Event(Box::new(Sent::new(&event)))),
                Delivered::Lost(events) => append(&Reply::Lost(events)),
            }
            taken += 1;
            // All that is there, in one go, but not without end.
            next = if taken < 256 { subscription.queue.try_recv().ok() } else { None };
        }
        // When the queue was full, what is in it was there already.
        match subscription.missed() {
            0 => {}
            missed => append(&Reply::Missed(missed)),
        }
        if bytes.is_empty() {
            continue;
        }
        let written = timeout(patience, tokio::io::AsyncWriteExt::write_all(&mut to, &bytes)).await;
        if !matches!(written, Ok(Ok(()))) {
            return Ok(());
        }
    }
}
