//! What the other rooms talk about: names, sockets, processes. Pure: no I/O, no kernel calls.

pub mod cgroup;
pub mod count;
pub mod directory;
pub mod inet;
pub mod inet_options;
pub mod name;
pub mod netlink;
pub mod option_list;
pub mod option_table;
pub mod socket;
pub mod time;
pub mod verdict;
pub mod view;
pub mod who;

pub use cgroup::Cgroup;
pub use count::Count;
pub use directory::{Directories, Directory};
pub use name::UnixName;
pub use socket::{Credentials, Pid, Shutdown, SocketState, SocketType};
pub use verdict::VerdictCounts;
pub use view::{InetView, SeenInet, SeenSocket, VfsFile, View};
pub use who::Who;
