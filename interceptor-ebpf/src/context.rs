//! Reads and writes of a program's context.
//!
//! The verifier allows only accesses of the exact width at the exact place, so every one of them is volatile: the
//! compiler must neither join nor split them.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    programs::{SockAddrContext, SockContext},
};

/// The place of a field behind a raw pointer.
macro_rules! field {
    ($base:expr, $($path:tt)+) => {
        // SAFETY: only names a place inside what the pointer points at; nothing is read here.
        unsafe { &raw const (*$base).$($path)+ }
    };
}

/// Reads one field.
#[inline(always)]
pub fn load<T: Copy>(field: *const T) -> T {
    // SAFETY: the callers pass a field of the context, which lives as long as the program runs.
    unsafe { field.read_volatile() }
}

/// Writes one field.
#[inline(always)]
pub fn store<T: Copy>(field: *mut T, value: T) {
    // SAFETY: as in `load`; the kernel says which fields can be written, and the verifier checks.
    unsafe { field.write_volatile(value) }
}

/// The fields of a socket address hook.
pub trait Address {
    /// The context.
    fn raw(&self) -> *mut bpf_sock_addr;

    /// The IPv4 address, in network byte order.
    #[inline(always)]
    fn v4(&self) -> u32 {
        load(field!(self.raw(), user_ip4))
    }

    /// The IPv6 address, each word in network byte order.
    #[inline(always)]
    fn v6(&self) -> [u32; 4] {
        let words = field!(self.raw(), user_ip6).cast::<u32>();
        // SAFETY: the four words of the field.
        unsafe { [load(words), load(words.add(1)), load(words.add(2)), load(words.add(3))] }
    }

    /// The port, in host byte order.
    #[inline(always)]
    fn port(&self) -> u32 {
        u32::from(u16::from_be(load(field!(self.raw(), user_port)) as u16))
    }

    /// The kind of the socket, `SOCK_STREAM` and so on.
    #[inline(always)]
    fn kind(&self) -> u32 {
        load(field!(self.raw(), type_))
    }

    /// The socket's protocol.
    #[inline(always)]
    fn protocol(&self) -> u32 {
        load(field!(self.raw(), protocol))
    }

    /// The local port of the socket, in host byte order; 0 when it is not bound.
    #[inline(always)]
    fn local_port(&self) -> u32 {
        // SAFETY: the union's only member with a meaning.
        let sock = load(field!(self.raw(), __bindgen_anon_1.sk));
        if sock.is_null() {
            return 0;
        }
        load(field!(sock, src_port))
    }

    /// Puts another IPv4 address.
    #[inline(always)]
    fn set_v4(&self, address: u32) {
        // SAFETY: only names a place in the context.
        store(unsafe { &raw mut (*self.raw()).user_ip4 }, address);
    }

    /// Puts another IPv6 address.
    #[inline(always)]
    fn set_v6(&self, address: [u32; 4]) {
        // SAFETY: only names a place in the context.
        let words = unsafe { &raw mut (*self.raw()).user_ip6 }.cast::<u32>();
        // SAFETY: the four words of the field.
        unsafe {
            store(words, address[0]);
            store(words.add(1), address[1]);
            store(words.add(2), address[2]);
            store(words.add(3), address[3]);
        }
    }

    /// Puts another port, given in host byte order.
    #[inline(always)]
    fn set_port(&self, port: u32) {
        // SAFETY: only names a place in the context.
        store(unsafe { &raw mut (*self.raw()).user_port }, u32::from((port as u16).to_be()));
    }
}

impl Address for SockAddrContext {
    #[inline(always)]
    fn raw(&self) -> *mut bpf_sock_addr {
        self.sock_addr
    }
}

/// A field of a socket hook's context.
#[inline(always)]
pub fn sock_field(ctx: &SockContext, select: impl Fn(*const bpf_sock) -> *const u32) -> u32 {
    load(select(ctx.sock))
}
