//! What to do about each obstacle: advice that somebody at a prompt can follow, with the very pids and
//! rules in it.

use std::{collections::BTreeSet, fmt};

use super::obstacle::{Obstacle, Party, Reason};
use crate::model::{Pid, UnixName};

impl Obstacle {
    /// What can be done so that the next dump does not meet it; one line, to be said behind "hint: ".
    #[must_use]
    pub fn hint(&self) -> String {
        let (pid, own) = (self.pid, Peer::Inode(self.inode));
        match &self.reason {
            Reason::Family { .. } => format!("have pid {pid} close it before the dump"),
            Reason::RemoteWaiting { remote } => format!(
                "have pid {pid} accept it first, or leave it out, as if pid {pid} had ended: --external \
                 {remote}=dangling"
            ),
            Reason::WaitingIn { .. } => format!("have pid {pid} accept it first"),
            Reason::Connection { .. } => format!(
                "have pid {pid} close it before the dump, see to it that a program can be hung on each \
                 interface (before Linux 6.6: modprobe -a sch_ingress cls_bpf), or leave it to another tool \
                 (criu dump --tcp-established)"
            ),
            Reason::OwnTable { thread } => format!(
                "dump when thread {thread} has ended, or have it share its process's descriptors (no \
                 unshare(CLONE_FILES))"
            ),
            Reason::Waiting { clients, .. } => format!(
                "have pid {pid} accept it first{}, or take all peers outside for closed: --external dangling",
                Too(clients)
            ),
            Reason::NotAccepted { listener } => format!(
                "dump when the connection has been accepted{}, or say {}",
                Too(listener),
                own.rule("reconnect|dangling|keep")
            ),
            Reason::ExternalPeer { peer, name, holders } => {
                let (peer, policies) = match Peer::of(name, *peer) {
                    // Whoever has no name cannot be connected to.
                    peer if !name.is_named() => (peer, "dangling|keep"),
                    peer => (peer, "reconnect|dangling|keep"),
                };
                either(&Also(holders), &format!("say {}", peer.rule(policies)))
            }
            Reason::ExternalSenders { holders } => {
                either(&Also(holders), &format!("say {}", own.rule("dangling|keep")))
            }
            Reason::SharedOutside { holders } => either(
                &Also(holders),
                &format!("have them close it, or, if it is no listener, say {}", own.rule("keep")),
            ),
            Reason::HeldElsewhere { .. } => format!(
                "have whoever was sent it receive it, or unregister it from io_uring; or, without --kill and \
                 if it is no listener, say {}",
                own.rule("keep")
            ),
            Reason::SharedTable { .. } => format!(
                "dump when whoever was cloned from pid {pid} with CLONE_FILES has ended or executed another \
                 program"
            ),
            Reason::OtherNamespace { netns } => format!(
                "dump a process that lives in network namespace {netns} by itself, or have pid {pid} close \
                 it first"
            ),
            Reason::OtherMounts { .. } => {
                format!("run ucr in there: nsenter --mount --target {pid} ucr …")
            }
            Reason::OtherRoot { .. } => format!(
                "mount that directory where ucr sees it, or run ucr in there: nsenter --mount --root \
                 --target {pid} ucr …"
            ),
            Reason::Moved { name, .. } => {
                format!("move the file back to {name}, or remove it: the name outlives its file")
            }
            Reason::Linked { name, .. } => format!(
                "remove the other names (find … -xdev -samefile {name} lists them), and make them \
                 again afterwards with ln"
            ),
            Reason::OneSidedShutdown { .. } => format!(
                "have pid {pid} call shutdown once more, now that there is a peer to hear of it, or close the \
                 connection"
            ),
            Reason::UnknownDirectory { .. } => {
                "attach tracing (ucr attach) before the socket is bound, or have it bound by a path that \
                 begins with /"
                    .to_owned()
            }
            Reason::Setting { .. } => format!(
                "have pid {pid} take that setting back (setsockopt, fcntl); a pending error is taken by \
                 getsockopt(SO_ERROR)"
            ),
            Reason::FileInFlight { .. } => format!(
                "have pid {pid} receive that message first, or another process that goes on hold the very \
                 open file as well (without --kill, the one that is dumped)"
            ),
            Reason::SocketOutOfReach => format!("have pid {pid} accept that connection first"),
            Reason::ClosedMeanwhile => "dump again: the next one finds it closed".to_owned(),
            Reason::NobodyToReconnect { .. } => {
                format!("say {} in place of reconnect", own.rule("dangling|keep"))
            }
            Reason::LostQueue { .. } => format!(
                "have pid {pid} receive it first, or say {} in place of reconnect",
                own.rule("dangling|keep")
            ),
            Reason::NobodyKeeps => format!(
                "dump without --kill, have another process hold it as well, or say {} in place of keep",
                own.rule("dangling")
            ),
            Reason::KeptWithSockets => format!(
                "have pid {pid} receive that message first, or say {} in place of keep",
                own.rule("dangling")
            ),
            Reason::NotReported => {
                format!("dump again; if that does not help, have pid {pid} close it first")
            }
        }
    }
}

/// Two ways out, of which the first may not be there.
fn either(first: &impl fmt::Display, second: &str) -> String {
    match first.to_string().as_str() {
        "" => second.to_owned(),
        first => format!("{first}, or {second}"),
    }
}

/// Whom a rule of `--external` is about.
enum Peer {
    /// A name that a shell, and the rule's own syntax, leave as it is.
    Name(String),
    Inode(u32),
}

impl Peer {
    /// By its name, which a person recognises, wherever that can be typed as it is shown.
    fn of(name: &UnixName, inode: u32) -> Self {
        let shown = name.to_string();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "@/._-+,".contains(c);
        let is_word = name.is_named() && shown.chars().all(is_plain) && !shown.starts_with('-');
        if is_word { Self::Name(shown) } else { Self::Inode(inode) }
    }

    /// The option, with the policies to choose from.
    fn rule(&self, policies: &str) -> String {
        match self {
            Self::Name(name) => format!("--external {name}={policies}"),
            Self::Inode(inode) => format!("--external inode:{inode}={policies}"),
        }
    }
}

/// Advice to dump others as well; nothing if nobody is known.
struct Also<'a>(&'a [Party]);

impl fmt::Display for Also<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        let pids: BTreeSet<Pid> = self.0.iter().map(|party| party.pid).collect();
        if pids.is_empty() {
            return Ok(());
        }
        f.write_str("dump pid ")?;
        for (index, pid) in pids.iter().take(SHOWN).enumerate() {
            write!(f, "{}{pid}", if index == 0 { "" } else { ", " })?;
        }
        match pids.len().saturating_sub(SHOWN) {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        f.write_str(" as well (--tree of a common parent)")
    }
}

/// The same in the middle of a sentence.
struct Too<'a>(&'a [Party]);

impl fmt::Display for Too<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", {}", Also(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Shutdown,
        inet::{Endpoint, Family, TcpState},
    };

    /// How many kinds there are, and which this is: a new one is missed here by the compiler.
    const KINDS: usize = 28;

    fn number(reason: &Reason) -> usize {
        match reason {
            Reason::Family { .. } => 0,
            Reason::OwnTable { .. } => 1,
            Reason::Waiting { .. } => 2,
            Reason::NotAccepted { .. } => 3,
            Reason::ExternalPeer { .. } => 4,
            Reason::ExternalSenders { .. } => 5,
            Reason::SharedOutside { .. } => 6,
            Reason::HeldElsewhere { .. } => 7,
            Reason::SharedTable { .. } => 8,
            Reason::OtherNamespace { .. } => 9,
            Reason::OtherMounts { .. } => 10,
            Reason::OtherRoot { .. } => 11,
            Reason::Moved { .. } => 12,
            Reason::Linked { .. } => 13,
            Reason::OneSidedShutdown { .. } => 14,
            Reason::UnknownDirectory { .. } => 15,
            Reason::Setting { .. } => 16,
            Reason::FileInFlight { .. } => 17,
            Reason::SocketOutOfReach => 18,
            Reason::ClosedMeanwhile => 19,
            Reason::NobodyToReconnect { .. } => 20,
            Reason::LostQueue { .. } => 21,
            Reason::NobodyKeeps => 22,
            Reason::KeptWithSockets => 23,
            Reason::NotReported => 24,
            Reason::RemoteWaiting { .. } => 25,
            Reason::Connection { .. } => 26,
            Reason::WaitingIn { .. } => 27,
        }
    }

    fn hint(reason: Reason) -> String {
        Obstacle { pid: Pid(17), fd: 4, inode: 99, reason }.hint()
    }

    fn path(name: &str) -> UnixName {
        UnixName::Pathname(name.into())
    }

    fn party(pid: i32) -> Vec<Party> {
        vec![Party::new(Pid(pid), b"other", 3)]
    }

    #[test]
    fn each_kind_has_advice_that_names_what_to_do() {
        let name = || path("/run/x");
        let end = Endpoint::new(Family::V4.any(), 80);
        let netlink = libc::AF_NETLINK.cast_unsigned();
        let rule = |policies: &str| format!("--external inode:99={policies}");
        let advice = [
            (
                Reason::Connection {
                    local: end,
                    remote: end,
                    state: TcpState::Established,
                    why: "no room".to_owned(),
                },
                "--tcp-established".to_owned(),
            ),
            (Reason::RemoteWaiting { remote: end }, "--external 0.0.0.0:80=dangling".to_owned()),
            (
                Reason::WaitingIn { remote: end, state: TcpState::SynReceived },
                "pid 17 accept it".to_owned(),
            ),
            (
                Reason::Family { family: netlink, socket_type: 3, protocol: 12 },
                "pid 17 close it".to_owned(),
            ),
            (Reason::OwnTable { thread: Pid(18) }, "thread 18 has ended".to_owned()),
            (
                Reason::Waiting { connections: 1, clients: party(204) },
                "pid 17 accept it first, dump pid 204 as well".to_owned(),
            ),
            (Reason::NotAccepted { listener: party(204) }, rule("reconnect|dangling|keep")),
            (
                Reason::ExternalPeer { peer: 5, name: name(), holders: party(204) },
                "dump pid 204 as well (--tree of a common parent), or say --external \
                 /run/x=reconnect|dangling|keep"
                    .to_owned(),
            ),
            (Reason::ExternalSenders { holders: party(204) }, rule("dangling|keep")),
            (Reason::SharedOutside { holders: party(204) }, rule("keep")),
            (Reason::HeldElsewhere { references: 1 }, "receive it".to_owned()),
            (Reason::SharedTable { users: 2, threads: 1 }, "CLONE_FILES has ended".to_owned()),
            (Reason::OtherNamespace { netns: 7 }, "namespace 7 by itself".to_owned()),
            (Reason::OtherMounts { name: name() }, "nsenter --mount --target 17".to_owned()),
            (Reason::OtherRoot { name: name() }, "--root --target 17".to_owned()),
            (
                Reason::Moved { name: name(), now: "/x".to_owned() },
                "move the file back to /run/x".to_owned(),
            ),
            (Reason::Linked { name: name(), links: 2 }, "-samefile /run/x".to_owned()),
            (
                Reason::OneSidedShutdown { own: Shutdown(1), peer: Shutdown(0) },
                "call shutdown".to_owned(),
            ),
            (Reason::UnknownDirectory { name: path("x") }, "ucr attach".to_owned()),
            (Reason::Setting { setting: "SO_X".to_owned() }, "setsockopt".to_owned()),
            (Reason::FileInFlight { name: "/x".to_owned() }, "receive that message".to_owned()),
            (Reason::SocketOutOfReach, "accept that connection".to_owned()),
            (Reason::ClosedMeanwhile, "dump again".to_owned()),
            (Reason::NobodyToReconnect { name: name() }, rule("dangling|keep")),
            (Reason::LostQueue { bytes: 3 }, rule("dangling|keep")),
            (Reason::NobodyKeeps, "without --kill".to_owned()),
            (Reason::KeptWithSockets, rule("dangling")),
            (Reason::NotReported, "dump again".to_owned()),
        ];
        let mut seen = BTreeSet::new();
        for (reason, words) in advice {
            seen.insert(number(&reason));
            let hint = hint(reason.clone());
            assert!(hint.contains(&words), "no `{words}` for {reason:?}: {hint}");
            assert!(!hint.contains("  ") && !hint.contains('\n'), "{hint}");
        }
        assert_eq!(seen, (0..KINDS).collect(), "a kind without a sample");
    }

    #[test]
    fn a_rule_is_one_that_can_be_typed() {
        let rule = |name: UnixName| {
            let hint = hint(Reason::ExternalPeer { peer: 5, name, holders: Vec::new() });
            hint.strip_prefix("say --external ").expect("nothing but a rule").to_owned()
        };
        let all = "=reconnect|dangling|keep";
        assert_eq!(rule(UnixName::Abstract(b"a.b".to_vec())), format!("@a.b{all}"));
        // Blanks, stars, what is escaped, what looks like an option.
        for name in ["/a b", "/a*", "/\u{1}", "-x", "inode:5"] {
            assert_eq!(rule(path(name)), format!("inode:5{all}"), "{name}");
        }
        // Nobody can connect to what has no name.
        assert_eq!(rule(UnixName::Unnamed), "inode:5=dangling|keep");
    }

    #[test]
    fn a_process_is_named_once_and_a_crowd_is_cut_short() {
        let holders: Vec<Party> = (0..14).flat_map(|pid| party(pid / 2)).collect();
        let hint = hint(Reason::SharedOutside { holders });
        assert!(hint.starts_with("dump pid 0, 1, 2, 3, 4 and 2 more as well"), "{hint}");
    }
}
