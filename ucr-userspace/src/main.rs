use ucr::tracer::{object::*, pins::PinDirectory, session};
fn main() {
    let pins = PinDirectory::new("/sys/fs/bpf/ucr".into());
    let t = std::time::Instant::now();
    match std::env::args().nth(1).as_deref() {
        Some("attach") => {
            println!(
                "{:?}",
                session::attach(&pins, Sizes::default()).map_err(|e| {
                    let mut s = format!("{e}");
                    let mut e: &dyn std::error::Error = &e;
                    while let Some(x) = e.source() {
                        s += &format!(": {x}");
                        e = x;
                    }
                    println!("{s}");
                    s.len()
                })
            )
        }
        Some("detach") => println!("{:?}", session::detach(&pins)),
        Some("status") => println!("{:#?}", session::status(&pins)),
        _ => {
            let s = session::open(&pins).unwrap();
            for r in s.records().unwrap() {
                println!(
                    "{} ino {} cookie {} peer {} type {} state {} role {} origin {} name {:?} creator {:?} {} opener {:?}",
                    r.socket.sk & 0xffffff,
                    r.socket.inode,
                    r.socket.cookie,
                    r.peer.inode,
                    r.socket_type,
                    r.state,
                    r.role,
                    r.origin,
                    String::from_utf8_lossy(r.name.as_bytes()),
                    r.creator.pid,
                    String::from_utf8_lossy(r.creator.comm()),
                    r.opener.pid
                )
            }
        }
    }
    println!("{:?}", t.elapsed());
}
