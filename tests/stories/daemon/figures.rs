//! Figures over HTTP and over the control socket, held against what a victim does.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use ucr_tests::{Need, daemon::Daemon, needs, wait};

use super::{figure, metrics, status};
use crate::world_alone;

fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(wait::patience())).expect("set a time-out");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("ask");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn the_figures_move_with_a_victims_sockets() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world_alone();
    // Nobody else takes a port that was just given back.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    let address = address.expect("a port").to_string();
    let daemon = Daemon::start_with(&world, &[("metrics.listen", &format!("{address:?}"))]);
    let (head, before) = get(&address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(before.ends_with("# EOF\n"), "{before}");

    let mut victim = world.victim();
    victim.ask("limit 4096");
    victim.ask("pairs 500");
    let (closed, _) = victim.pair("seqpacket");
    victim.close(closed);
    let name = world.abstract_name(b"figures");
    victim.listener("stream", &name, 5);

    // Others of this machine have sockets, too: so much more, at least.
    let least = [
        ("ucr_events_total{kind=\"socketpair\"}", 501),
        ("ucr_events_total{kind=\"close\"}", 1),
        ("ucr_events_total{kind=\"bind\"}", 1),
        ("ucr_events_total{kind=\"listen\"}", 1),
        ("ucr_history_entries{kind=\"events\"}", 504),
        ("ucr_history_entries{kind=\"sockets\"}", 1),
    ];
    for (name, more) in least {
        wait::until(&format!("{name} to grow by {more}"), || {
            let (_, now) = get(&address, "/metrics");
            (figure(&now, name) >= figure(&before, name) + more).then_some(())
        });
    }
    let connected = "ucr_sockets{type=\"stream\",state=\"connected\"}";
    let (_, now) = get(&address, "/metrics");
    assert!(figure(&now, connected) >= 1_000, "{now}");

    // Over the control socket it is the same text, but for what moves meanwhile.
    let asked = metrics(&daemon);
    let names = |text: &str| {
        let values = text.lines().filter(|line| !line.starts_with('#'));
        let name = |line: &str| line.rsplit_once(' ').map(|(name, _)| name.to_owned());
        values.filter_map(name).collect::<Vec<_>>()
    };
    let of_asking = |name: &String| name.starts_with("ucr_control_requests");
    let without =
        |text: &str| names(text).into_iter().filter(|n| !of_asking(n)).collect::<Vec<_>>();
    assert_eq!(without(&asked), without(&now));
    assert_eq!(figure(&metrics(&daemon), "ucr_control_requests_total{kind=\"metrics\"}"), 1);
    let requests = figure(&metrics(&daemon), "ucr_control_requests_total{kind=\"status\"}");
    status(&daemon);
    let more = figure(&metrics(&daemon), "ucr_control_requests_total{kind=\"status\"}");
    assert_eq!(more, requests + 1);

    assert!(get(&address, "/healthz").0.starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/").0.starts_with("HTTP/1.1 404"));
}
