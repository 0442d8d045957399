//! Callers of 32 bits, on kernels that run them: by calls of their own numbers (359 and on), and by
//! `socketcall`, whose arguments lie in memory.

use serde_json::Value;
use ucr::tracer::hooks::Backend;
use ucr_common::record::{origin, role};
use ucr_tests::{Follower, I386, Need, World, needs, outside, world::hex};

use super::record;
use crate::{tracing::inode, watched};

/// By which number a victim asks for sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Direct,
    Socketcall,
}

/// A call in both spellings: its number in `syscall_32.tbl`, and as `socketcall` has it.
type Call = (u32, u32);

const SOCKET: Call = (359, 1);
const SOCKETPAIR: Call = (360, 8);
const BIND: Call = (361, 2);
const CONNECT: Call = (362, 3);
const LISTEN: Call = (363, 4);
/// `accept4`
const ACCEPT: Call = (364, 18);
const SHUTDOWN: Call = (373, 13);

/// `socketcall` itself.
const ANY: u32 = 102;
/// Where in the victim's memory names and results are; before it, the arguments of `socketcall`.
const DATA: u32 = 64;

/// A victim, and how it calls.
struct Caller {
    victim: I386,
    entry: Entry,
}

impl Caller {
    fn start(world: &World, entry: Entry) -> Option<Self> {
        match I386::start(world) {
            Ok(victim) => Some(Self { victim, entry }),
            Err(why) => {
                needs::absent(&why);
                None
            }
        }
    }

    fn pid(&self) -> i32 {
        self.victim.pid()
    }

    fn inode(&self, fd: i32) -> u64 {
        outside::inode(self.pid(), fd).expect("a socket").into()
    }

    /// Makes a call that must succeed, with data for a pointer to lead to.
    fn call(&mut self, (direct, sub): Call, arguments: &[u32], data: &[u8]) -> (i32, Vec<u8>) {
        let mut memory: Vec<u8> = arguments.iter().flat_map(|word| word.to_ne_bytes()).collect();
        memory.resize(DATA as usize, 0);
        memory.extend(data);
        let (outcome, memory) = match self.entry {
            Entry::Direct => self.victim.call(direct, arguments, &memory),
            Entry::Socketcall => {
                let pointer = self.victim.address(0);
                self.victim.call(ANY, &[sub, pointer], &memory)
            }
        };
        let result = outcome.unwrap_or_else(|errno| panic!("call {direct}: errno {errno}"));
        (result, memory)
    }

    fn socket(&mut self) -> i32 {
        self.call(SOCKET, &[1, 1, 0], &[]).0
    }

    fn named(&mut self, call: Call, fd: i32, name: &[u8]) {
        let address = [&1_u16.to_ne_bytes(), name].concat();
        let length = u32::try_from(address.len()).expect("short");
        let pointer = self.victim.address(DATA);
        self.call(call, &[fd.cast_unsigned(), pointer, length], &address);
    }

    fn pair(&mut self) -> [i32; 2] {
        let pointer = self.victim.address(DATA);
        let (_, memory) = self.call(SOCKETPAIR, &[1, 1, 0, pointer], &[]);
        [0, 4].map(|at| {
            let bytes = memory.get(DATA as usize + at..).and_then(|rest| rest.first_chunk());
            i32::from_ne_bytes(*bytes.expect("a descriptor"))
        })
    }
}

/// The next event, from this caller, with the descriptor if the number of the call tells where it is.
fn next(events: &mut Follower, caller: &Caller, kind: &str, fd: i32) -> Value {
    let event = events.event(kind, |_| true);
    assert_eq!((&event["event"], &event["pid"]), (&kind.into(), &caller.pid().into()), "{event:#}");
    let shown = if caller.entry == Entry::Direct { fd.into() } else { Value::Null };
    assert_eq!(event["fd"], shown, "{:?}: {event:#}", caller.entry);
    event
}

#[test]
pub(crate) fn trampolines_see_them_like_any_other() {
    if !needs::met(&[Need::Root, Need::Program("cc"), Need::Backend(Backend::Trampoline)]) {
        return;
    }
    let world = watched(Backend::Trampoline);
    for entry in [Entry::Direct, Entry::Socketcall] {
        let Some(mut caller) = Caller::start(&world, entry) else { return };
        steps(&world, &mut caller);
    }
}

fn steps(world: &World, caller: &mut Caller) {
    let pid = caller.pid();
    let mut events = world.ucr.follow(&["--pid", &pid.to_string(), "--failed"]);
    let name = world.abstract_name(format!("-{:?}", caller.entry).as_bytes());

    let listener = caller.socket();
    // What it returns is the kernel's to say, whatever the call.
    let event = events.event("socket", |_| true);
    assert_eq!((&event["event"], &event["fd"]), (&"socket".into(), &listener.into()), "{event:#}");
    assert_eq!(inode(&event["socket"]), caller.inode(listener));
    caller.named(BIND, listener, &name);
    let event = next(&mut events, caller, "bind", listener);
    assert_eq!(event["name"]["hex"], hex(&name[1..]));
    caller.call(LISTEN, &[listener.cast_unsigned(), 6], &[]);
    assert_eq!(next(&mut events, caller, "listen", listener)["argument"], 6);

    let client = caller.socket();
    events.next("socket");
    caller.named(CONNECT, client, &name);
    let event = next(&mut events, caller, "connect", client);
    assert_eq!(inode(&event["socket"]), caller.inode(client));
    let (accepted, _) = caller.call(ACCEPT, &[listener.cast_unsigned(), 0, 0, 0], &[]);
    let event = next(&mut events, caller, "accept", listener);
    assert_eq!(event["fd2"], accepted);
    assert_eq!(inode(&event["socket"]), caller.inode(accepted));
    assert_eq!(inode(&event["peer"]), caller.inode(client));

    caller.call(SHUTDOWN, &[accepted.cast_unsigned(), 0], &[]);
    assert_eq!(next(&mut events, caller, "shutdown", accepted)["argument"], 1);
    let [a, b] = caller.pair();
    let event = events.event("socketpair", |_| true);
    assert_eq!(event["event"], "socketpair", "{event:#}");
    assert_eq!(inode(&event["socket"]), caller.inode(a));
    assert_eq!(inode(&event["peer"]), caller.inode(b));

    let known = |fd| record(world, pid, fd).expect("a record");
    let tracked = known(listener);
    assert_eq!((tracked.origin, tracked.backlog), (origin::SOCKET, 6));
    assert_eq!(tracked.name.as_bytes(), name);
    assert_eq!((known(client).role, known(accepted).role), (role::CLIENT, role::SERVER));
    assert_eq!(known(accepted).opener.pid, pid.cast_unsigned());
    assert_eq!((known(a).origin, known(a).peer.sk), (origin::PAIR, known(b).socket.sk));
}

#[test]
pub(crate) fn tracepoints_count_them_and_see_no_more() {
    if !needs::met(&[Need::Root, Need::Program("cc"), Need::Backend(Backend::Tracepoint)]) {
        return;
    }
    let world = watched(Backend::Tracepoint);
    let counted = || {
        let status = world.ucr.run(&["status", "--json"]).done().json();
        status["counters"]["compat"].as_u64().expect("a count")
    };
    for entry in [Entry::Direct, Entry::Socketcall] {
        let Some(mut caller) = Caller::start(&world, entry) else { return };
        let before = counted();
        let name = world.abstract_name(format!("-{entry:?}").as_bytes());
        let listener = caller.socket();
        caller.named(BIND, listener, &name);
        caller.call(LISTEN, &[listener.cast_unsigned(), 6], &[]);
        let client = caller.socket();
        caller.named(CONNECT, client, &name);
        let (accepted, _) = caller.call(ACCEPT, &[listener.cast_unsigned(), 0, 0, 0], &[]);
        let [a, b] = caller.pair();
        caller.call(SHUTDOWN, &[accepted.cast_unsigned(), 0], &[]);
        // Others of this machine may call that way as well.
        assert!(counted() >= before + 8, "{entry:?}: {before}, {}", counted());

        let all = [listener, client, accepted, a, b];
        assert!(all.iter().all(|fd| record(&world, caller.pid(), *fd).is_none()), "{entry:?}");
        world.ucr.run(&["reconcile"]).done();
        let found = all.map(|fd| record(&world, caller.pid(), fd).expect("found"));
        assert!(found.iter().all(|found| found.origin == origin::FOUND));
        assert_eq!(found[0].name.as_bytes(), name);
        assert_eq!((found[0].backlog, found[2].shutdown, found[1].shutdown), (6, 1, 2));
        assert_eq!((found[1].peer.sk, found[3].peer.sk), (found[2].socket.sk, found[4].socket.sk));
    }
}
