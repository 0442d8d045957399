//! Connections of which only one end is left, and those that are half closed.

use ucr_tests::{Need, Victim, needs, outside};

use super::{bring_back, take};
use crate::world;

fn text(victim: &mut Victim, fd: i32) -> String {
    match victim.tell(&format!("recv {fd}")) {
        Ok(text) => text,
        Err(errno) => errno,
    }
}

#[test]
fn what_is_left_of_a_connection_comes_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    for kind in ["stream", "seqpacket"] {
        let mut victim = world.victim();
        let listening = world.path_name(&format!("{kind}-listener"));
        let lost = world.abstract_name(format!("{kind}-lost").as_bytes());
        let listener = victim.listener(kind, &listening, 8);
        let leaving = victim.listener(kind, &lost, 8);
        // Of a pair: with data, with an error, with both, with a name.
        let (half, other) = victim.pair(kind);
        victim.ask(&format!("send {other} from-the-other"));
        victim.close(other);
        let (spoilt, other) = victim.pair(kind);
        victim.ask(&format!("send {other} unread"));
        victim.ask(&format!("send {spoilt} never-read"));
        victim.close(other);
        let (called, other) = victim.pair(kind);
        victim.bind(other, &world.abstract_name(format!("{kind}-half").as_bytes()));
        victim.close(other);
        // Clients whose server has closed, servers whose client has; the listener there or gone.
        let client = victim.client(kind, &listening);
        let server = victim.accept(listener);
        victim.ask(&format!("send {server} served"));
        victim.close(server);
        let orphan = victim.client(kind, &lost);
        let server = victim.accept(leaving);
        victim.close(server);
        let named = victim.socket(kind);
        victim.bind(named, &world.path_name(&format!("{kind}-client")));
        victim.connect(named, &listening);
        let served = victim.accept(listener);
        victim.ask(&format!("send {named} goodbye"));
        victim.close(named);
        let refused = victim.client(kind, &lost);
        victim.close(leaving);
        let fds = [half, spoilt, called, client, orphan, served, refused];
        let names: Vec<_> =
            fds.iter().map(|fd| (victim.name(*fd), victim.peer_name(*fd))).collect();

        let mut victim = bring_back(&world, &take(&world, victim));
        let found: Vec<_> =
            fds.iter().map(|fd| (victim.name(*fd), victim.peer_name(*fd))).collect();
        assert_eq!(found, names);
        for fd in fds {
            assert_eq!(outside::seen(victim.pid(), fd).peer, None);
        }
        assert_eq!(text(&mut victim, half), "from-the-other");
        assert_eq!(text(&mut victim, half), "");
        // The error comes first, then what had been sent.
        let reset = libc::ECONNRESET.to_string();
        for fd in [spoilt, refused] {
            assert_eq!(victim.ask(&format!("error {fd}")), reset);
        }
        assert_eq!(text(&mut victim, spoilt), "unread");
        assert_eq!(text(&mut victim, refused), "");
        assert_eq!(text(&mut victim, client), "served");
        assert_eq!(text(&mut victim, served), "goodbye");
        for fd in [called, client, orphan, served] {
            assert_eq!(text(&mut victim, fd), "");
        }
        for fd in fds {
            assert_eq!(victim.tell(&format!("send {fd} x")), Err("EPIPE".to_owned()));
        }
    }
}

#[test]
fn each_way_of_shutting_down_comes_back() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let name = world.abstract_name(b"listener");
    let listener = victim.listener("stream", &name, 8);
    let mut pairs = Vec::new();
    for how in ["", "read", "write", "both"] {
        for other in ["", "read", "write"] {
            let (a, b) = victim.pair("stream");
            victim.ask(&format!("send {a} forth"));
            victim.ask(&format!("send {b} back"));
            for (fd, how) in [(a, how), (b, other)] {
                if !how.is_empty() {
                    victim.ask(&format!("shutdown {fd} {how}"));
                }
            }
            pairs.push((a, b));
        }
    }
    // Before it connected: its peer does not know.
    let early = victim.socket("stream");
    victim.ask(&format!("shutdown {early} write"));
    victim.connect(early, &name);
    let served = victim.accept(listener);
    pairs.push((early, served));
    let alone = victim.socket("seqpacket");
    victim.ask(&format!("shutdown {alone} read"));
    let state = |victim: &mut Victim| {
        let of = |fd: i32| outside::seen(victim.pid(), fd).shutdown;
        let masks: Vec<_> = pairs.iter().map(|(a, b)| (of(*a), of(*b))).collect();
        (masks, of(alone))
    };
    let before = state(&mut victim);
    let mut victim = bring_back(&world, &take(&world, victim));
    assert_eq!(state(&mut victim), before);
    for (a, b) in pairs {
        let was_sent = (a, b) != (early, served);
        if was_sent {
            assert_eq!(text(&mut victim, b), "forth");
            assert_eq!(text(&mut victim, a), "back");
        }
    }
}

#[test]
fn what_a_half_threw_away_is_an_error_to_the_other() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (left, turned) = victim.pair("dgram");
    victim.ask(&format!("send {left} never-read"));
    victim.ask(&format!("disconnect {turned}"));
    let (still, elsewhere) = victim.pair("dgram");
    let service = victim.socket("dgram");
    victim.bind(service, &world.abstract_name(b"service"));
    victim.ask(&format!("send {still} never-read"));
    victim.connect(elsewhere, &world.abstract_name(b"service"));
    victim.ask(&format!("send {elsewhere} hello"));
    let mut victim = bring_back(&world, &take(&world, victim));
    for fd in [left, still] {
        assert_eq!(text(&mut victim, fd), "ECONNRESET");
        assert_eq!(victim.ask(&format!("error {fd}")), "0");
    }
    assert_eq!(text(&mut victim, service), "hello");
}
