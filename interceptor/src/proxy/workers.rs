//! The threads that serve connections: one for each CPU, with a runtime of its own, so that callers on several CPUs are
//! served at once, and nothing on a statement's way wakes another thread. They are not kept on their CPUs: the kernel
//! wakes a thread beside whoever wrote to it where that is cheaper, and to wake another CPU costs more than a statement.
//!
//! Promise: [`Workers::turn`] ends only when every one of them turns; the heartbeat rests on it. When they end, so
//! does all that they serve, in good order.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::mpsc::sync_channel,
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::helper;

/// The stack of a thread that parses: it needs depth. It is address space until it is used.
const STACK: usize = 16 * 1024 * 1024;
/// How many threads each has for long work.
const LONG_WORK: usize = 4;
/// How long that may go on when they end.
const LAST_WORK: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Debug)]
pub struct Workers {
    each: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    cpu: usize,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts one on each CPU that has a listener of its own.
    pub fn start() -> io::Result<Self> {
        let each = helper::cpus()?.into_iter().map(Worker::start).collect::<io::Result<Vec<_>>>()?;
        if each.is_empty() { Err(io::Error::other("there is no CPU to serve on")) } else { Ok(Self { each }) }
    }

    /// The runtime on the CPU that `listener` is for.
    pub(super) fn of(&self, listener: BorrowedFd<'_>) -> io::Result<&Handle> {
        let cpu = SockRef::from(&listener).cpu_affinity().ok();
        let its_own = self.each.iter().find(|worker| Some(worker.cpu) == cpu);
        let worker = its_own.or(self.each.first());
        worker.map(|worker| &worker.runtime).ok_or_else(|| io::Error::other("there is nobody to serve"))
    }

    /// All runtimes, for what belongs to no CPU.
    pub(super) fn all(&self) -> Vec<Handle> {
        self.each.iter().map(|worker| worker.runtime.clone()).collect()
    }

    /// Ends when each of them has had a turn.
    pub async fn turn(&self) {
        for worker in &self.each {
            // One that panicked takes no turn; its runtime goes on.
            let _ = worker.runtime.spawn(async {}).await;
        }
    }
}

impl Worker {
    fn start(cpu: usize) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = sync_channel(1);
        let serve = move || {
            let mut builder = Builder::new_current_thread();
            let runtime =
                builder.enable_all().thread_stack_size(STACK).max_blocking_threads(LONG_WORK).build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            let _ = tell.send(Ok(runtime.handle().clone()));
            // Its sender says stop by being dropped, too.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(LAST_WORK);
        };
        let thread = thread::Builder::new().name(format!("worker-{cpu}")).stack_size(STACK).spawn(serve)?;
        let runtime =
            told.recv().unwrap_or_else(|_| Err(io::Error::other("a worker ended before it began")))?;
        Ok(Self { cpu, runtime, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(cpu = self.cpu, "a worker panicked");
        }
    }
}
