//! `cgroup/connect_unix` and `cgroup/sendmsg_unix` at the root of the hierarchy (Linux 6.7).
//!
//! Strategy: who listens behind a path cannot be seen here, but the launcher of a run can tell, and makes the call in its
//! place. So whoever is in a run with a network of its own may not make it: what the launcher has let go on as something
//! else, and is a Unix socket by then, ends here, and so does what is sent by name past it. Relies on: the launcher
//! being in no run. The section's name is another hook's, since the library knows none for these; user space loads the
//! program for both.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use interceptor_common::{Counter, RunConfig};

use crate::{
    admission::{answer_refused, run_of_caller},
    report::{Subject, refused},
};

/// `AF_UNIX`
const FAMILY: u32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn guard_unix(_: SockAddrContext) -> i32 {
    let Some(run) = run_of_caller() else { return 1 };
    if run.flags & RunConfig::OWN_NETNS == 0 {
        return 1;
    }
    let subject = Subject { run: run.run, address: [0; 4], family: FAMILY, port: 0, protocol: 0 };
    refused(Counter::RefusedUnix, &subject);
    answer_refused();
    0
}
