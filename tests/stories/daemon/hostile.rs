//! Whatever a client does or does not do, others are answered, and nothing of it stays.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use ucr::{
    daemon::{
        client::Client,
        frame,
        protocol::{About, LONGEST_REPLY, PROTOCOL, Question, Refusal, Reply, Wanted},
    },
    query::listing::Request,
    tracer::programs::Scope,
};
use ucr_tests::{Need, World, daemon::Daemon, needs, wait};

use super::{figure, metrics, resident, status};
use crate::world_alone;

/// How long the daemon waits for a question in these tests.
const PATIENCE: &str = "'300ms'";
/// A good client is answered within this: a load of a busy machine is in it.
const PROMPTLY: Duration = Duration::from_secs(5);

fn daemon(world: &World) -> Daemon<'_> {
    Daemon::start_with(
        world,
        &[
            ("control.request_timeout", PATIENCE),
            ("control.max_request", "'1KiB'"),
            ("control.max_clients", "16"),
        ],
    )
}

fn connect(daemon: &Daemon<'_>) -> UnixStream {
    let client = UnixStream::connect(daemon.control()).expect("connect to the daemon");
    client.set_read_timeout(Some(wait::patience())).expect("set a time-out");
    client
}

fn refusal(client: &mut UnixStream) -> Refusal {
    let limit = u64::try_from(LONGEST_REPLY).expect("a limit");
    match frame::read_now::<Reply>(client, limit).expect("an answer") {
        Reply::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// That the daemon has hung up, and said nothing more.
fn is_over(client: &mut UnixStream) {
    match client.read(&mut [0; 16]) {
        Ok(0) => {}
        // What it had not read is gone.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

fn refused(daemon: &Daemon<'_>) -> BTreeMap<String, u64> {
    status(daemon).refused.into_iter().collect()
}

fn good_client_is_answered(daemon: &Daemon<'_>) {
    let begun = Instant::now();
    status(daemon);
    daemon.run(&["ls", "--limit", "1"]).done();
    assert!(begun.elapsed() < PROMPTLY, "it took {:?}", begun.elapsed());
}

fn listing() -> About {
    About::Live { listing: Request::default(), scope: Scope::AllNamespaces }
}

fn asked(protocol: u32, about: About) -> Vec<u8> {
    frame::encode(&Question { protocol, about }).expect("a message")
}

#[test]
fn what_is_no_question_is_refused_by_its_reason() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = daemon(&world);
    let mut garbage = vec![200, 0, 0, 0];
    garbage.extend([0xff; 200]);
    let mut longer = asked(PROTOCOL, About::Status);
    longer[0] += 3;
    longer.extend([0; 3]);
    let mut later = asked(PROTOCOL + 1, About::Status);
    // What only that version knows.
    later[5] = 99;
    let just_over = vec![0x01, 0x04, 0, 0];
    let endless = vec![0xff; 4];
    let half = asked(PROTOCOL, About::Status)[..5].to_vec();
    let cases = [
        ("malformed", garbage, Refusal::Malformed),
        ("malformed", longer, Refusal::Malformed),
        ("other_protocol", later, Refusal::OtherProtocol { ours: PROTOCOL, theirs: PROTOCOL + 1 }),
        ("too_long", just_over, Refusal::TooLong { limit: 1024 }),
        ("too_long", endless, Refusal::TooLong { limit: 1024 }),
        ("too_slow", half, Refusal::TooSlow),
        ("too_slow", Vec::new(), Refusal::TooSlow),
    ];
    for (reason, bytes, expected) in cases {
        let before = refused(&daemon).get(reason).copied().unwrap_or_default();
        let mut client = connect(&daemon);
        client.write_all(&bytes).expect("write to the daemon");
        good_client_is_answered(&daemon);
        assert_eq!(refusal(&mut client), expected, "{bytes:?}");
        is_over(&mut client);
        assert_eq!(refused(&daemon).get(reason), Some(&(before + 1)), "{bytes:?}");
    }
    let name = "ucr_control_refused_total{reason=\"too_long\"}";
    assert_eq!(figure(&metrics(&daemon), name), 2);
}

#[test]
fn a_question_as_long_as_allowed_is_heard() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = daemon(&world);
    let comms = |length: usize| {
        let wanted =
            Wanted { comms: vec!["[".to_owned() + &"x".repeat(length)], ..Wanted::default() };
        asked(PROTOCOL, About::Trace(wanted))
    };
    let over = comms(0).len() - 4;
    let longest = comms(1024 - over - 1);
    assert_eq!(longest.len(), 4 + 1024);
    for (message, reason) in [(longest, "request"), (comms(1024 - over), "too_long")] {
        let mut client = connect(&daemon);
        client.write_all(&message).expect("write to the daemon");
        assert_eq!(refusal(&mut client).reason(), reason);
    }
}

#[test]
fn clients_that_come_in_crowds_are_turned_away_and_leave_nothing() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let mut daemon = daemon(&world);
    // Who is silent is to stay for as long as it takes.
    daemon.set("control.request_timeout", "'1h'");
    daemon.reload();
    let descriptors =
        || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("its descriptors").count();
    good_client_is_answered(&daemon);
    let (before, memory) = (descriptors(), resident(daemon.pid()));
    let crowd: Vec<UnixStream> = (0..200).map(|_| connect(&daemon)).collect();
    let mut turned_away = 0;
    for mut client in crowd.iter().skip(16) {
        assert_eq!(frame::read_now::<Reply>(&mut client, 1 << 20).expect("an answer"), {
            turned_away += 1;
            Reply::Refused(Refusal::Busy { limit: 16 })
        });
    }
    assert!(descriptors() <= before + 17, "who is turned away holds nothing");
    drop(crowd);
    wait::until("their places to be free", || daemon.status().ok());
    good_client_is_answered(&daemon);
    assert!(refused(&daemon)["busy"] >= turned_away);
    wait::until("all descriptors to be given back", || (descriptors() <= before).then_some(()));
    assert_eq!(status(&daemon).clients, 1, "the one that asks");
    let now = resident(daemon.pid());
    assert!(now < memory + (8 << 20), "{memory} bytes have become {now}");
}

#[test]
fn who_does_not_read_or_goes_away_holds_up_nobody() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = daemon(&world);
    let mut victim = world.victim();
    victim.ask("limit 8192");
    victim.ask("pairs 3000");
    daemon.run(&["ls"]).done();
    let memory = resident(daemon.pid());
    for _ in 0..10 {
        // Asks for more than a socket holds, and never reads.
        let mut deaf = connect(&daemon);
        deaf.write_all(&asked(PROTOCOL, listing())).expect("ask");
        // Goes away in the middle of the answer.
        let mut fickle = connect(&daemon);
        fickle.write_all(&asked(PROTOCOL, listing())).expect("ask");
        fickle.read_exact(&mut [0; 4096]).expect("some of the answer");
        drop(fickle);
        good_client_is_answered(&daemon);
        // It is let go of, whatever it had not read.
        deaf.shutdown(Shutdown::Write).expect("say that nothing more is asked");
        wait::until("the deaf one to be let go", || (status(&daemon).clients == 1).then_some(()));
    }
    let now = resident(daemon.pid());
    assert!(now < memory + (16 << 20), "{memory} bytes have become {now}");
}

#[test]
fn a_follower_that_does_not_read_is_told_what_it_missed() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    let daemon = Daemon::start_with(&world, &[("followers.queue", "16")]);
    let client = Client::connect(&daemon.control()).expect("connect to the daemon");
    let mut answers = client.ask(About::Trace(Wanted::default())).expect("ask the daemon");
    assert_eq!(answers.hear().expect("an answer"), Some(Reply::Following));
    let mut victim = world.victim();
    victim.ask("limit 8192");
    wait::until("it to miss something", || {
        victim.ask("pairs 100");
        (status(&daemon).missed > 0).then_some(())
    });
    good_client_is_answered(&daemon);
    let mut missed = 0;
    while missed == 0 {
        if let Some(Reply::Missed(events)) = answers.hear().expect("an answer") {
            missed += events;
        }
    }
    drop(answers);
    wait::until("it to be forgotten", || (status(&daemon).followers == 0).then_some(()));
    assert_eq!(status(&daemon).lost, 0, "the history has them all");
}
