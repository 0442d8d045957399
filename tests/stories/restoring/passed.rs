//! Files in flight that are no unix sockets: taken from a process that has them open as well.

use std::path::Path;

use ucr_tests::{Answer, Need, Victim, World, needs, outside, ucr::REFUSED, world::hex};

use super::bring_back;
use crate::{dumping::dump, world};

/// Sends descriptors of one victim from an end that another one has, so that the sender keeps none of them.
fn pass(sender: &mut Victim, over: i32, holder: &Victim, fds: &[i32]) {
    let taken: Vec<i32> =
        fds.iter().map(|fd| sender.number(&format!("getfd {} {fd}", holder.pid()))).collect();
    let list: Vec<String> = taken.iter().map(ToString::to_string).collect();
    sender.ask(&format!("msg send {over} data=78 fds={}", list.join(",")));
    taken.into_iter().for_each(|fd| sender.close(fd));
}

/// Receives a message with descriptors; their numbers.
fn arrived(victim: &mut Victim, fd: i32) -> Vec<i32> {
    let message = victim.ask(&format!("msg recv {fd}"));
    let list = message.split(' ').find_map(|word| word.strip_prefix("fds=")).expect("descriptors");
    list.split(',').map(|fd| fd.parse().expect("a number")).collect()
}

/// A restore that does not begin.
fn refused(world: &World, image: &Path) -> Answer {
    let control = world.control();
    let [program, control] = world.victim_command(&control);
    let image = image.to_str().expect("text");
    world.ucr.run(&["restore", image, "--", &program, &control]).ended(REFUSED)
}

fn text(victim: &mut Victim, fd: i32) -> String {
    let digits = victim.ask(&format!("read {fd}"));
    String::from_utf8(ucr_tests::world::unhex(&digits).expect("digits")).expect("text")
}

fn write(victim: &mut Victim, fd: i32, text: &str) {
    victim.ask(&format!("write {fd} {}", hex(text.as_bytes())));
}

#[test]
fn files_in_flight_come_from_whoever_else_has_them() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let (mut victim, mut holder) = (world.victim(), world.victim());
    let pipe = holder.ask("pipe");
    let (from, to) = pipe.split_once(' ').expect("two");
    let (from, to): (i32, i32) = (from.parse().expect("a number"), to.parse().expect("a number"));
    let path = world.path("file");
    let file = holder.number(&format!("open {}", path.display()));
    // The first of two has the number that is not meant: all of them are one inode.
    let counters = [(); 2].map(|()| holder.number("eventfd"));
    let (a, b) = victim.pair("stream");
    let (c, d) = victim.pair("dgram");
    pass(&mut victim, a, &holder, &[to, file, counters[1]]);
    victim.ask(&format!("msg send {a} data=79 fds={c}"));
    pass(&mut victim, c, &holder, &[from]);
    write(&mut holder, to, "before");
    let bound = victim.listener("stream", &world.path_name("listener"), 8);
    let image = world.path("image");
    let _left = dump(&world, &victim, &world.path("first"), &[]).done();
    let _written = dump(&world, &victim, &image, &["--kill"]).done();
    let _status = victim.ended();
    let shown = world.ucr.run(&["show", image.to_str().expect("text")]).done().stdout;
    let pid = holder.pid();
    assert!(shown.contains(&format!("{} among them, from pid {pid} fd {file}", path.display())));

    let mut victim = bring_back(&world, &image);
    let &[sink, log, counter] = arrived(&mut victim, b).as_slice() else { panic!("three") };
    let &[socket] = arrived(&mut victim, b).as_slice() else { panic!("one") };
    assert_eq!(victim.inode(socket), victim.inode(c));
    let &[source] = arrived(&mut victim, d).as_slice() else { panic!("one") };
    assert_eq!(text(&mut victim, source), "before");
    write(&mut victim, sink, "through");
    assert_eq!(text(&mut holder, from), "through");
    // One open file has one position.
    write(&mut holder, file, "holder,");
    assert_eq!(text(&mut victim, log), "");
    write(&mut victim, log, "victim");
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "holder,victim");
    let seven = 7_u64.to_ne_bytes();
    victim.ask(&format!("write {counter} {}", hex(&seven)));
    assert_eq!(holder.ask(&format!("read {}", counters[1])), hex(&seven));
    assert!(holder.tell(&format!("read {}", counters[0])).is_err(), "the other one");
    assert!(outside::seen(victim.pid(), bound).peer.is_none());

    // Another file there; nobody there.
    std::fs::remove_file(world.path("listener")).expect("remove the socket file");
    world.end_restored();
    holder.close(file);
    assert_eq!(holder.number("open /dev/null"), file);
    let said = refused(&world, &image);
    let what = format!("process {pid}, whose descriptor {file} leads to something else now");
    drop(said.complains("refused: 1 obstacle").complains(&what));
    holder.kill();
    let said = refused(&world, &image).complains("refused: 4 obstacles");
    drop(
        said.complains(&format!("taken from process {pid} (descriptor {from}): open the process")),
    );
    assert!(!world.path("listener").exists(), "nothing was made");
}

#[test]
fn the_process_itself_may_have_them_as_long_as_it_goes_on() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let pipe = victim.ask("pipe");
    let (from, to) = pipe.split_once(' ').expect("two");
    let (from, to): (i32, i32) = (from.parse().expect("a number"), to.parse().expect("a number"));
    let (a, b) = victim.pair("seqpacket");
    victim.ask(&format!("msg send {a} data=78 fds={from}"));
    let image = world.path("image");
    let said = dump(&world, &victim, &image, &["--kill"]).ended(REFUSED);
    let said = said.complains("carries pipe:[").complains("no process that goes on has it open");
    drop(said.complains(&format!("fd {b} ")));
    let _written = dump(&world, &victim, &image, &[]).done();
    let mut second = bring_back(&world, &image);
    let &[source] = arrived(&mut second, b).as_slice() else { panic!("one") };
    write(&mut victim, to, "to-both");
    assert_eq!(text(&mut second, source), "to-both");
    // Without its own it has only the one in flight; the pipe's other end is another file.
    victim.close(from);
    let again = world.path("again");
    let holder = dump(&world, &victim, &again, &[]);
    drop(second);
    drop(holder.done());
    world.end_restored();
    let said = dump(&world, &victim, &again, &[]).ended(REFUSED);
    drop(said.complains("no process that goes on has it open"));
    assert_eq!(arrived(&mut victim, b).len(), 1, "untouched");
}
