//! What the programs hang on, held against the types of the running kernel.

use ucr::{
    causes::one_line,
    tracer::{
        TracerError,
        hooks::{Backend, Hook, Need as HookNeed, Point},
        object::{LogLevel, Object, Sizes},
    },
};
use ucr_tests::{Need, needs};

/// What some of the kernels that ucr is tested on do not have, and since when the others do.
const YOUNG: [(&str, &str); 1] = [("sched_prepare_exec", "6.10")];

/// That of `unix_listen`, on every kernel so far.
const RIGHT: &str = "int (struct socket *, int)";

fn object() -> Object {
    Object::load(None, Sizes::default(), LogLevel::Off).expect("load the object")
}

#[test]
fn this_kernel_has_all_that_the_programs_hang_on_as_they_are_written_for_it() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let object = object();
    for hook in Backend::ALL.into_iter().flat_map(Backend::hooks) {
        let target = hook.point.target();
        let is_function = !matches!(hook.point, Point::Tracepoint(_));
        assert_eq!(!hook.prototypes.is_empty(), is_function, "{target} is compared to nothing");
        match object.check(hook) {
            Ok(()) => {}
            Err(TracerError::NoSuchPoint { .. })
                if hook.need == HookNeed::Optional
                    && YOUNG.iter().any(|(young, _)| *young == target) => {}
            Err(error) => panic!("{target}: {}", one_line(&error)),
        }
    }
}

#[test]
fn another_prototype_is_not_attached_to() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let object = object();
    let hook = |name, prototypes| Hook {
        program: "unix_listen",
        point: Point::Exit(name),
        need: HookNeed::Required,
        prototypes,
    };
    assert!(object.check(&hook("unix_listen", &[RIGHT])).is_ok());
    let wrong: [&'static [&'static str]; 4] = [
        &["int (struct socket *, long)"],
        &["int (struct sock *, int)"],
        &["void (struct socket *, int)"],
        &["int (struct socket *)", "int (struct socket *, int, int)"],
    ];
    for wrong in wrong {
        match object.check(&hook("unix_listen", wrong)) {
            Err(TracerError::OtherPrototype { target: "unix_listen", found }) => {
                assert_eq!(found, RIGHT);
            }
            other => panic!("{wrong:?}: {other:?}"),
        }
    }
    let absent = object.check(&hook("unix_nonesuch", &[RIGHT]));
    assert!(
        matches!(absent, Err(TracerError::NoSuchPoint { target: "unix_nonesuch" })),
        "{absent:?}"
    );
}
