//! The root role: loads the kernel side, makes runs, hands out descriptors. Parses nothing that an agent wrote.

pub mod cgroup;
pub mod messages;
