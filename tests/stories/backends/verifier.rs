//! What the verifier has to do for each program is what it was: a program that has become dearer by a change is
//! noticed before a kernel refuses it.

use std::collections::BTreeMap;

use ucr_tests::verifier::{self, LIMIT, WRITE};

#[test]
fn each_program_costs_what_the_table_says() {
    let loaded = verifier::load_all().expect("load the programs");
    assert!(!loaded.counts.is_empty(), "no program could be loaded: {:#?}", loaded.refused);
    for (name, count) in &loaded.counts {
        println!("{name}: {count}");
        assert!(*count < LIMIT, "the verifier follows {count} instructions of {name}");
    }
    let release = nix::sys::utsname::uname().expect("the kernel's name");
    let release = release.release().to_str().expect("as text");
    if let Some(column) = verifier::column(release).expect("the table") {
        let wrong = verifier::differences(&column, &loaded.counts);
        let refused = &loaded.refused;
        assert!(wrong.is_empty(), "{wrong:#?}\nrefused: {refused:#?}\n`{WRITE}` writes it anew");
    }
}

#[test]
fn a_program_that_has_become_dearer_is_named() {
    let counts = |of: &[(&str, u32)]| -> BTreeMap<String, u32> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    let table = counts(&[("large", 10_000), ("small", 20), ("gone", 7)]);
    let now = counts(&[("large", 11_001), ("small", 60), ("new", 1)]);
    assert_eq!(
        verifier::differences(&table, &now),
        [
            "large: 11001, and the table has 10000 (± 1000)",
            "new: 1, and is not in the table",
            "gone: was not loaded",
        ]
    );
    assert!(verifier::differences(&table, &table).is_empty());
    let near = counts(&[("large", 9_000), ("small", 70), ("gone", 7)]);
    assert!(verifier::differences(&table, &near).is_empty());
}

#[test]
fn a_kernel_goes_by_its_own_column() {
    assert!(verifier::column("6.1.0-32-cloud-amd64").expect("the table").is_some());
    assert_eq!(verifier::column("6.18.19").expect("the table"), None);
    let of = |release: &str| verifier::column(release).expect("the table");
    assert_ne!(of("6.1.192"), of("6.12.117"));
}
