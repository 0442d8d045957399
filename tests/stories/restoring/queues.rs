//! What had been sent and not yet received is there again: data, boundaries, senders, descriptors,
//! credentials, out-of-band bytes. And a process that goes on after its dump finds all of it untouched.

use ucr_tests::{Need, Victim, World, needs, world::hex};

use super::{bring_back, take};
use crate::{dumping::dump, world};

/// Receives one message; without the descriptors' numbers.
fn next(victim: &mut Victim, fd: i32, how: &str) -> Result<String, String> {
    victim.tell(format!("msg recv {fd} {how}").trim_end())
}

/// One message's data as text.
fn data(message: &Result<String, String>) -> String {
    let message = message.as_ref().expect("a message");
    let word = message.split(' ').find_map(|word| word.strip_prefix("data=")).expect("data");
    let bytes = ucr_tests::world::unhex(word).expect("digits");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A field of a message.
fn field<'a>(message: &'a str, name: &str) -> &'a str {
    let mut words = message.split(' ');
    words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).expect("a field")
}

/// Sends text.
fn send(victim: &mut Victim, fd: i32, text: &str, more: &str) {
    victim.ask(format!("msg send {fd} data={} {more}", hex(text.as_bytes())).trim_end());
}

/// Lets a victim be dumped and go on, then takes it down for good.
fn twice(world: &World, victim: Victim) -> Victim {
    let _image = dump(world, &victim, &world.path("first"), &["--tree"]).done();
    bring_back(world, &take(world, victim))
}

#[test]
fn streams_continue_where_they_were() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    send(&mut victim, a, "first", "");
    send(&mut victim, a, "second", "");
    victim.ask(&format!("msg recv {b} size=3"));
    send(&mut victim, b, "back", "");
    // Longer than a page, than 32 KiB, and than a send buffer's half.
    let (c, d) = victim.pair("stream");
    for count in [5000, 36_000, 100_000] {
        victim.ask(&format!("msg send {c} fill={count}"));
    }
    let mut victim = twice(&world, victim);
    assert_eq!(data(&next(&mut victim, b, "size=4")), "stse");
    assert_eq!(data(&next(&mut victim, b, "")), "cond");
    assert_eq!(data(&next(&mut victim, a, "")), "back");
    assert_eq!(next(&mut victim, b, ""), Err("EAGAIN".to_owned()));
    for count in [5000, 36_000, 100_000] {
        assert_eq!(victim.ask(&format!("msg drain {d} {count}")), "as sent");
    }
    ucr_tests::victim::talk_both(&mut victim, a, b);
}

#[test]
fn messages_keep_their_boundaries_and_senders() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("seqpacket");
    for text in ["one", "", "three", ""] {
        send(&mut victim, a, text, "");
    }
    let at = |rest: &str| world.abstract_name(rest.as_bytes());
    let receiver = victim.socket("dgram");
    victim.bind(receiver, &world.path_name("receiver"));
    let to = format!("to={}", hex(&world.path_name("receiver")));
    let (named, nameless, leaving, last) = (
        victim.socket("dgram"),
        victim.socket("dgram"),
        victim.socket("dgram"),
        victim.socket("dgram"),
    );
    victim.bind(named, &at("named"));
    victim.bind(leaving, &world.path_name("leaving"));
    victim.bind(last, &at("last"));
    for (from, text) in
        [(named, "n"), (leaving, "l"), (nameless, ""), (last, "z"), (named, ""), (leaving, "m")]
    {
        send(&mut victim, from, text, &to);
    }
    victim.close(leaving);
    std::fs::remove_file(world.path("leaving")).expect("remove a socket file");
    victim.close(last);
    // Connected only afterwards: only its peer may send to it now.
    victim.connect(receiver, &at("named"));
    let mut victim = twice(&world, victim);
    let heard: Vec<_> = (0..4).map(|_| data(&next(&mut victim, b, ""))).collect();
    assert_eq!(heard, ["one", "", "three", ""]);
    let (named_hex, left, gone) =
        (hex(&at("named")), hex(&world.path_name("leaving")), hex(&at("last")));
    for (text, from) in [
        ("n", named_hex.as_str()),
        ("l", &left),
        ("", ""),
        ("z", &gone),
        ("", &named_hex),
        ("m", &left),
    ] {
        let message = next(&mut victim, receiver, "").expect("a message");
        let found = (field(&message, "data"), field(&message, "from"));
        assert_eq!(found, (hex(text.as_bytes()).as_str(), from));
    }
    assert_eq!(next(&mut victim, receiver, ""), Err("EAGAIN".to_owned()));
}

#[test]
fn descriptors_in_flight_arrive() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    // In a stream, many in one message; a socket that lives only in the queue, with something in its own;
    // and two that are queued in themselves and in each other.
    let (a, b) = victim.pair("stream");
    let (kept, far) = victim.pair("stream");
    let many = [format!("{kept},{far}").as_str()].repeat(126).join(",");
    send(&mut victim, a, "before", "");
    send(&mut victim, a, "many", &format!("fds={many},{b}"));
    let (only, other) = victim.pair("seqpacket");
    send(&mut victim, only, "inside", "");
    send(&mut victim, a, "only", &format!("fds={other}"));
    victim.close(other);
    let (x, y) = victim.pair("dgram");
    send(&mut victim, x, "each", &format!("fds={x},{y}"));
    send(&mut victim, y, "other", &format!("fds={x},{y}"));
    victim.close(y);
    let mut victim = twice(&world, victim);
    assert_eq!(data(&next(&mut victim, b, "size=6")), "before");
    let message = next(&mut victim, b, "size=4").expect("a message");
    let files: Vec<i32> =
        field(&message, "fds").split(',').map(|fd| fd.parse().expect("a number")).collect();
    assert_eq!(files.len(), 253);
    let inodes: Vec<u32> = files.iter().map(|fd| victim.inode(*fd)).collect();
    for pair in inodes.chunks_exact(2) {
        assert_eq!(pair, [victim.inode(kept), victim.inode(far)]);
    }
    assert_eq!(inodes.last(), Some(&victim.inode(b)));
    let message = next(&mut victim, b, "").expect("a message");
    let arrived: i32 = field(&message, "fds").parse().expect("one descriptor");
    assert_eq!(data(&next(&mut victim, arrived, "")), "inside");
    send(&mut victim, arrived, "through", "");
    assert_eq!(data(&next(&mut victim, only, "")), "through");
    let message = next(&mut victim, x, "").expect("a message");
    let [first, second]: [i32; 2] = field(&message, "fds")
        .split(',')
        .map(|fd| fd.parse().expect("a number"))
        .collect::<Vec<_>>()
        .try_into()
        .expect("two");
    assert_eq!(victim.inode(first), victim.inode(x));
    assert_eq!(data(&next(&mut victim, second, "")), "each");
}

#[test]
fn a_socket_that_is_twice_in_one_message_and_nowhere_else_arrives_twice() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let (only, other) = victim.pair("seqpacket");
    send(&mut victim, a, "twice", &format!("fds={other},{other}"));
    victim.close(other);
    let mut victim = twice(&world, victim);
    let message = next(&mut victim, b, "").expect("a message");
    let files: Vec<i32> =
        field(&message, "fds").split(',').map(|fd| fd.parse().expect("a number")).collect();
    let &[first, second] = files.as_slice() else { panic!("two") };
    assert_eq!(victim.inode(first), victim.inode(second));
    ucr_tests::victim::talk_both(&mut victim, only, second);
}

#[test]
fn what_could_not_be_brought_back_is_not_ended() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    // Two had one name, one after the other, and what the first one sent is still there.
    let (name, to) = (world.abstract_name(b"name"), world.abstract_name(b"receiver"));
    let (first, second, receiver) =
        (victim.socket("dgram"), victim.socket("dgram"), victim.socket("dgram"));
    victim.bind(receiver, &to);
    victim.bind(first, &name);
    send(&mut victim, first, "x", &format!("to={}", hex(&to)));
    victim.close(first);
    victim.bind(second, &name);
    let image = world.path("image");
    let said = dump(&world, &victim, &image, &["--kill"]).ended(ucr_tests::ucr::REFUSED);
    let _said = said.complains("a socket that has closed had the name");
    assert!(!image.exists());
    assert_eq!(data(&next(&mut victim, receiver, "")), "x", "it goes on");
}

/// Somebody with a socket that is sent itself, under a name; and the socket.
fn in_its_own_queue(world: &World) -> (Victim, i32) {
    let mut victim = world.victim();
    let name = world.abstract_name(b"own");
    let own = victim.socket("dgram");
    victim.bind(own, &name);
    victim.connect(own, &name);
    send(&mut victim, own, "itself", &format!("fds={own}"));
    (victim, own)
}

#[test]
fn a_name_is_free_whose_socket_is_only_in_its_own_queue() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (victim, own) = in_its_own_queue(&world);
    let mut victim = bring_back(&world, &take(&world, victim));
    let message = next(&mut victim, own, "").expect("a message");
    let arrived: i32 = field(&message, "fds").parse().expect("one descriptor");
    assert_eq!(victim.inode(arrived), victim.inode(own));
}

/// Nobody has the kernel collect it but the restore: a dump that ends its processes would.
#[test]
fn a_name_is_free_as_soon_as_the_kernel_is_told_to_collect() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (victim, own) = in_its_own_queue(&world);
    let image = world.path("image");
    let _written = dump(&world, &victim, &image, &["--tree"]).done();
    victim.kill();
    let mut victim = bring_back(&world, &image);
    assert_eq!(data(&next(&mut victim, own, "")), "itself");
}

#[test]
fn out_of_band_bytes_keep_their_place() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    for (text, more) in [("ab", ""), ("!", "oob"), ("cd", "")] {
        send(&mut victim, a, text, more);
    }
    let (c, d) = victim.pair("stream");
    for (text, more) in [("12", ""), ("?", "oob"), ("34", "")] {
        send(&mut victim, c, text, more);
    }
    assert_eq!(data(&next(&mut victim, d, "size=1 oob")), "?");
    // And in a socket that is left as it was.
    let (e, f) = victim.pair("stream");
    for (text, more) in [("12", ""), ("?", "oob"), ("34", "")] {
        send(&mut victim, e, text, more);
    }
    assert_eq!(data(&next(&mut victim, f, "size=1 oob")), "?");
    let as_before = [data(&next(&mut victim, f, "")), data(&next(&mut victim, f, ""))];
    let mut victim = twice(&world, victim);
    assert_eq!(data(&next(&mut victim, b, "size=1 oob")), "!");
    assert_eq!([data(&next(&mut victim, d, "")), data(&next(&mut victim, d, ""))], as_before);
    assert_eq!(next(&mut victim, d, "size=1 oob"), Err("EINVAL".to_owned()));
}

#[test]
fn credentials_that_were_sent_along_are_told() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    let (c, d) = victim.pair("dgram");
    victim.ask(&format!("passcred {b}"));
    victim.ask(&format!("passcred {d}"));
    // Init is there, whatever happens; users need not exist.
    for (from, ids) in [(a, "1,1234,5678"), (c, "1,0,4321")] {
        send(&mut victim, from, "x", &format!("creds={ids}"));
    }
    send(&mut victim, c, "mine", "");
    let pid = victim.pid();
    let mut victim = twice(&world, victim);
    let creds =
        |message: Result<String, String>| field(&message.expect("a message"), "creds").to_owned();
    assert_eq!(creds(next(&mut victim, b, "")), "1,1234,5678");
    assert_eq!(creds(next(&mut victim, d, "")), "1,0,4321");
    // By a process that is gone.
    assert_eq!(creds(next(&mut victim, d, "")), format!("{pid},0,0"));
}

#[test]
fn where_peeking_goes_on_is_kept_where_nothing_comes_any_more() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("dgram");
    let (c, d) = victim.pair("dgram");
    send(&mut victim, a, "abcdef", "");
    for fd in [b, d] {
        victim.ask(&format!("shutdown {fd} both"));
        victim.ask(&format!("set {fd} {} 2", libc::SO_PEEK_OFF));
    }
    let mut victim = bring_back(&world, &take(&world, victim));
    assert_eq!(data(&next(&mut victim, b, "size=3 peek")), "cde");
    assert_eq!(victim.tell(&format!("send {c} x")), Err("EPIPE".to_owned()));
}

#[test]
fn where_peeking_goes_on_is_kept() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (a, b) = victim.pair("stream");
    send(&mut victim, a, "abcdef", "");
    victim.ask(&format!("set {b} {} 2", libc::SO_PEEK_OFF));
    assert_eq!(data(&next(&mut victim, b, "size=1 peek")), "c");
    let mut victim = twice(&world, victim);
    assert_eq!(data(&next(&mut victim, b, "size=1 peek")), "d");
    assert_eq!(data(&next(&mut victim, b, "")), "abcdef");
}

#[test]
fn more_datagrams_than_a_stranger_may_send_come_from_the_peer() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let names = [world.abstract_name(b"one"), world.abstract_name(b"other")];
    let [a, b] = [0, 1].map(|at: usize| {
        let fd = victim.socket("dgram");
        victim.bind(fd, &names[at]);
        fd
    });
    let stranger = victim.socket("dgram");
    send(&mut victim, stranger, "stranger", &format!("to={}", hex(&names[1])));
    victim.connect(a, &names[1]);
    victim.connect(b, &names[0]);
    for number in 0..40 {
        victim.ask(&format!("send {a} {number}"));
    }
    let mut victim = bring_back(&world, &take(&world, victim));
    assert_eq!(victim.ask(&format!("recv {b}")), "stranger");
    for number in 0..40 {
        assert_eq!(victim.ask(&format!("recv {b}")), number.to_string());
    }
}
