//! The names of the network interfaces that an image has to do with: numbers mean nothing elsewhere.

use std::{fs::File, io};

use nix::net::if_::if_nameindex;

use crate::{
    image::{Image, Interface, interfaces},
    kernel::netns,
    model::Pid,
};

/// Writes them into the image, as they are called in the network namespace of this process. One that has gone by now
/// has no name.
///
/// # Errors
/// The kernel's.
pub(super) fn name(image: &mut Image, root: Pid) -> io::Result<()> {
    let used = interfaces::used(image);
    if used.is_empty() {
        return Ok(());
    }
    let names = || -> nix::Result<Vec<Interface>> {
        let all = if_nameindex()?;
        let all = all.iter().filter(|interface| used.contains(&interface.index()));
        let named = |found: &nix::net::if_::Interface| Interface {
            number: found.index(),
            name: found.name().to_bytes().to_vec(),
        };
        Ok(all.map(named).collect())
    };
    let namespace = File::open(format!("/proc/{root}/ns/net"))?;
    image.interfaces = netns::run_in(Some(namespace), names)??;
    image.interfaces.sort_by_key(|interface| interface.number);
    Ok(())
}
