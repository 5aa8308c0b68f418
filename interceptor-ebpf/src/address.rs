//! Destinations, in one form however they were written.

use interceptor_common::{FAMILY_V4, FAMILY_V6, Flow, Form, RunConfig};

/// 127.0.0.1, in network byte order.
pub const LOOPBACK_V4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
/// `::1`
pub const LOOPBACK_V6: [u32; 4] = [0, 0, 0, u32::from_ne_bytes([0, 0, 0, 1])];
/// The third word of a mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// Where the agent asked to go.
#[derive(Clone, Copy)]
pub struct Destination {
    pub address: [u32; 4],
    pub family: u32,
    pub form: u32,
    pub port: u32,
}

impl Destination {
    /// From an IPv4 address. 0.0.0.0 means this host.
    #[inline(always)]
    pub fn v4(address: u32, port: u32) -> Self {
        let address = if address == 0 { LOOPBACK_V4 } else { address };
        Self { address: [address, 0, 0, 0], family: FAMILY_V4, form: Form::Native as u32, port }
    }

    /// From an IPv6 address. `::` means this host; an embedded IPv4 address is judged as what it is.
    #[inline(always)]
    pub fn v6(address: [u32; 4], port: u32) -> Self {
        let [first, second, third, last] = address;
        let native = |address| Self { address, family: FAMILY_V6, form: Form::Native as u32, port };
        if first != 0 || second != 0 {
            return native(address);
        }
        if third == MAPPED {
            return Self { form: Form::Mapped as u32, ..Self::v4(last, port) };
        }
        if third != 0 || last == LOOPBACK_V6[3] {
            return native(address);
        }
        if last == 0 {
            return native(LOOPBACK_V6);
        }
        Self { form: Form::Compatible as u32, ..Self::v4(last, port) }
    }

    /// Whether this is the run itself: loopback, or an address of its own.
    #[inline(always)]
    pub fn is_own(&self, run: &RunConfig) -> bool {
        if self.family == FAMILY_V4 { is_own_v4(self.address[0], run) } else { is_own_v6(self.address, run) }
    }
}

/// Whether an IPv4 address is loopback or the run's own.
#[inline(always)]
pub fn is_own_v4(address: u32, run: &RunConfig) -> bool {
    address.to_ne_bytes()[0] == 127 || (run.own_v4 != 0 && address == run.own_v4)
}

/// Whether an IPv6 address is loopback or the run's own.
#[inline(always)]
pub fn is_own_v6(address: [u32; 4], run: &RunConfig) -> bool {
    same(address, LOOPBACK_V6) || (run.own_v6[0] != 0 && same(address, run.own_v6))
}

#[inline(always)]
fn same(left: [u32; 4], right: [u32; 4]) -> bool {
    left[0] == right[0] && left[1] == right[1] && left[2] == right[2] && left[3] == right[3]
}

/// Whether an IPv6 address is one that our IPv6 listeners answer from: `::1`, or 127.0.0.1 mapped.
#[inline(always)]
pub fn is_listener_v6(address: [u32; 4]) -> bool {
    same(address, LOOPBACK_V6) || same(address, mapped(LOOPBACK_V4))
}

/// `::ffff:a.b.c.d`
#[inline(always)]
pub fn mapped(v4: u32) -> [u32; 4] {
    [0, 0, MAPPED, v4]
}

/// The original destination as an IPv6 socket wrote it.
#[inline(always)]
pub fn as_written_v6(flow: &Flow) -> [u32; 4] {
    if flow.family == FAMILY_V6 {
        flow.address
    } else if flow.form == Form::Compatible as u32 {
        [0, 0, 0, flow.address[0]]
    } else {
        mapped(flow.address[0])
    }
}
