//! Who processes and users are: looked up once each, when somebody asks.

use std::{cell::RefCell, collections::HashMap, fs, rc::Rc};

use nix::unistd::{Uid, User};

use crate::model::cgroup::{Cgroup, parse_proc_cgroup};

/// What has been looked up so far.
#[derive(Debug, Default)]
pub struct People {
    users: RefCell<HashMap<u32, Rc<str>>>,
    groups: RefCell<HashMap<u32, Option<Rc<Cgroup>>>>,
}

impl People {
    /// Name of a user, or the number if there is no name.
    pub fn user(&self, uid: u32) -> Rc<str> {
        let mut users = self.users.borrow_mut();
        let name = users.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| user.name).into()
        });
        Rc::clone(name)
    }

    /// cgroup of a process; `None` if it is gone or may not be looked at.
    pub fn cgroup(&self, pid: u32) -> Option<Rc<Cgroup>> {
        let mut groups = self.groups.borrow_mut();
        let group = groups.entry(pid).or_insert_with(|| {
            let bytes = fs::read(format!("/proc/{pid}/cgroup")).ok()?;
            Some(Rc::new(Cgroup::of(parse_proc_cgroup(&bytes)?)))
        });
        group.clone()
    }
}
