//! Orders that are about what a socket remembers of its user: options, filters, who is told by a
//! signal, and under whose ids it was made.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Gid, Pid, Uid, setgroups, setpgid, setresgid, setresuid},
};
use ucr::sys::{
    filter,
    notify::{self, OwnerEx},
    peer, sockopt,
};
use ucr_tests::world::{hex, unhex};

use super::world::{Done, World, done, name_of, number};

/// Signals that are caught, and whether they came.
static CAUGHT: Mutex<Vec<(i32, Arc<AtomicBool>)>> = Mutex::new(Vec::new());

/// `BPF_RET | BPF_K`.
const RETURN: u16 = 6;

/// Obeys one line, if it is one of these.
pub(crate) fn obey(world: &World, words: &[&str]) -> Option<Done> {
    Some(match words {
        ["setopt", fd, option, value] => set(world, fd, option, value),
        ["getopt", fd, option] => {
            let option = number(option);
            option.and_then(|n| world.with(fd, |fd| sockopt::get(fd, n))).map(|value| hex(&value))
        }
        // Of each message so many bytes are kept.
        ["filter", fd, kept] => number(kept).and_then(|kept| {
            world.with(fd, |fd| filter::attach(fd, &[(RETURN, 0, 0, kept)]))?;
            done()
        }),
        ["owner", fd, kind, pid, signal] => owner(world, fd, kind, pid, signal),
        ["ownerof", fd] => world.with(fd, notify::get).map(|(owner, signal)| {
            let kind = ["thread", "process", "group"];
            let kind = usize::try_from(owner.kind).ok().and_then(|at| kind.get(at).copied());
            format!("{} {} {signal}", kind.unwrap_or("?"), owner.pid)
        }),
        ["async", fd] => {
            let set = FcntlArg::F_SETFL(OFlag::O_ASYNC);
            world.with(fd, |fd| fcntl(fd, set).map_err(io::Error::from)).and_then(|_| done())
        }
        ["catch", signal] => number(signal).and_then(|signal| {
            let came = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, Arc::clone(&came)).map_err(|e| e.to_string())?;
            CAUGHT.lock().unwrap_or_else(PoisonError::into_inner).push((signal, came));
            done()
        }),
        ["caught", signal] => number::<i32>(signal).map(|signal| {
            let caught = CAUGHT.lock().unwrap_or_else(PoisonError::into_inner);
            let came = caught.iter().find(|(known, _)| *known == signal);
            came.is_some_and(|(_, came)| came.load(std::sync::atomic::Ordering::Relaxed))
                .to_string()
        }),
        ["lead"] => {
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(name_of).and_then(|()| done())
        }
        ["ids", uid, gid] => effective(uid, gid),
        ["groups", list @ ..] => groups(list),
        ["peergroups", fd] => world.with(fd, peer::groups).map(|groups| {
            let groups: Vec<_> = groups.iter().flatten().map(ToString::to_string).collect();
            groups.join(" ")
        }),
        _ => return None,
    })
}

fn set(world: &World, fd: &str, option: &str, value: &str) -> Done {
    let (option, value) = (number(option)?, unhex(value)?);
    world.with(fd, |fd| sockopt::set(fd, option, &value))?;
    done()
}

fn owner(world: &World, fd: &str, kind: &str, pid: &str, signal: &str) -> Done {
    let kind = match kind {
        "thread" => notify::THREAD,
        "process" => notify::PROCESS,
        _ => notify::GROUP,
    };
    let (owner, signal) = (OwnerEx { kind, pid: number(pid)? }, number(signal)?);
    world.with(fd, |fd| notify::set(fd, owner, signal))?;
    done()
}

/// The effective ids alone, so that they can be taken back.
fn effective(uid: &str, gid: &str) -> Done {
    let (uid, gid) = (Uid::from_raw(number(uid)?), Gid::from_raw(number(gid)?));
    let (keep_uid, keep_gid) = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
    let root = Uid::from_raw(0);
    setresuid(keep_uid, root, keep_uid).map_err(name_of)?;
    setresgid(keep_gid, gid, keep_gid).map_err(name_of)?;
    setresuid(keep_uid, uid, keep_uid).map_err(name_of)?;
    // A change of ids takes it away.
    set_pdeathsig(Signal::SIGKILL).map_err(name_of)?;
    done()
}

fn groups(list: &[&str]) -> Done {
    let list: Result<Vec<Gid>, _> = list.iter().map(|id| number(id).map(Gid::from_raw)).collect();
    setgroups(&list?).map_err(name_of)?;
    done()
}
