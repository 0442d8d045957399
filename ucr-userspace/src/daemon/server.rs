//! The control socket: lets clients in, hears one question of each, and sends the answers. Whatever a client
//! does or does not do, it costs the daemon a bounded amount of memory and time, and nobody else anything.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::AsFd as _,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::unistd::{Gid, Group, chown};
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
    protocol::{About, PROTOCOL, Question, Refusal, Reply, Sent, Wanted},
    shared::Shared,
};
use crate::sys::peer;

/// Questions that are worked on at once; others wait. Each may need a pass over all sockets.
const WORKED_ON: usize = 2;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another daemon answers there.
    #[error("a daemon answers at {path} already")]
    InUse {
        /// The socket.
        path: PathBuf,
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

/// The socket, whose file goes with it.
#[derive(Debug)]
pub struct Door {
    listener: StdListener,
    path: PathBuf,
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
///
/// # Errors
/// [`ServerError::NoGroup`].
pub fn group(control: &Control) -> Result<Option<u32>, ServerError> {
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
        match fs::symlink_metadata(path) {
            Ok(facts) if !facts.file_type().is_socket() => {
                return Err(ServerError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => match StdStream::connect(path) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(files("remove", path))?;
                }
                _ => return Err(ServerError::InUse { path: path.to_owned() }),
            },
            Err(_) => {}
        }
        let listener = StdListener::bind(path).map_err(files("bind", path))?;
        let door = Self { listener, path: path.to_owned() };
        door.admit(group(control)?)?;
        door.listener.set_nonblocking(true).map_err(files("set up", path))?;
        Ok(door)
    }

    /// Lets a group in, or root alone.
    ///
    /// # Errors
    /// The file system's.
    pub fn admit(&self, group: Option<u32>) -> Result<(), ServerError> {
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        let gid = Gid::from_raw(group.unwrap_or(0));
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
}

/// Lets clients in for as long as it is polled.
pub async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    let work = Arc::new(Semaphore::new(WORKED_ON));
    loop {
        match listener.accept().await {
            Ok((client, _)) => admit(client, &shared, &work),
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

fn admit(mut client: UnixStream, shared: &Arc<Shared>, work: &Arc<Semaphore>) {
    let limit = shared.config().control.max_clients;
    let before = shared.counts.clients.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(Arc::clone(shared));
    let (shared, work) = (Arc::clone(shared), Arc::clone(work));
    tokio::spawn(async move {
        let _counted = counted;
        let refused = if before >= u64::from(limit) {
            Err(Refusal::Busy { limit })
        } else {
            converse(&mut client, &shared, &work).await
        };
        if let Err(refusal) = refused {
            shared.counts.refuse(refusal.reason());
            let patience = Duration::from_secs(1);
            // It may be gone, or not listen.
            timeout(patience, frame::write(&mut client, &Reply::Refused(refusal))).await.ok();
        }
    });
}

async fn converse(
    client: &mut UnixStream,
    shared: &Arc<Shared>,
    work: &Arc<Semaphore>,
) -> Result<(), Refusal> {
    let config = shared.config();
    let control = &config.control;
    authorize(client, control)?;
    let question =
        timeout(control.request_timeout, frame::read::<Question>(client, control.max_request));
    let question = match question.await {
        Err(_) => return Err(Refusal::TooSlow),
        Ok(Err(FrameError::TooLong { limit, .. })) => return Err(Refusal::TooLong { limit }),
        Ok(Err(FrameError::Malformed(_))) => return Err(Refusal::Malformed),
        // It has gone without having asked.
        Ok(Err(FrameError::Read(_))) => return Ok(()),
        Ok(Ok(question)) => question,
    };
    if question.protocol != PROTOCOL {
        return Err(Refusal::OtherProtocol { ours: PROTOCOL, theirs: question.protocol });
    }
    if let About::Trace(wanted) = &question.about {
        return follow(client, shared, wanted, control).await;
    }
    let kind = question.about.kind();
    let replies = {
        // Closed only with the daemon.
        let _turn = work.acquire().await.map_err(|_| Refusal::Malformed)?;
        let shared = Arc::clone(shared);
        tokio::task::spawn_blocking(move || answer::answer(&shared, &question.about))
            .await
            .map_err(|panic| Refusal::Failed { message: panic.to_string(), hint: None })??
    };
    shared.counts.answered(kind);
    for reply in replies.iter().chain([&Reply::End]) {
        // One that does not listen is let go.
        let written = timeout(control.request_timeout, frame::write(client, reply)).await;
        if !matches!(written, Ok(Ok(()))) {
            return Ok(());
        }
    }
    drop(replies);
    crate::sys::heap::give_back();
    Ok(())
}

/// Who may ask: root, our own user, the group.
fn authorize(client: &UnixStream, control: &Control) -> Result<(), Refusal> {
    let Ok(caller) = client.peer_cred() else { return Err(Refusal::NotAllowed { uid: u32::MAX }) };
    let own = nix::unistd::geteuid().as_raw();
    let member = match group(control) {
        Ok(Some(group)) => {
            caller.gid() == group
                || peer::groups(client.as_fd())
                    .is_ok_and(|groups| groups.is_some_and(|groups| groups.contains(&group)))
        }
        _ => false,
    };
    if caller.uid() == 0 || caller.uid() == own || member {
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
