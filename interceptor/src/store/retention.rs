//! What the keeper looks after by the clock: checkpoints that are due, room on the disk, and sealed segments past
//! their retention.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use interceptor_core::model::{Entry, EventKind, EventRecord};
use nix::sys::statvfs::statvfs;

use super::{Space, StoreError, Writer, now, segment};

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A sealed segment.
struct Sealed {
    path: PathBuf,
    number: u64,
    bytes: u64,
    age: Duration,
}

impl Writer {
    /// Signs when it is time, and looks at the disk. Call it often; it does little when nothing is due.
    pub fn look_after(&mut self) -> Result<(), StoreError> {
        if self.signed_at.elapsed() >= self.config.checkpoint_every {
            self.sign()?;
        }
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(Instant::now());
        let sealed = self.sealed()?;
        let removed = self.retire(&sealed)?;
        let kept: u64 = sealed.iter().skip(removed).map(|s| s.bytes).sum();
        self.look_at_space(kept.saturating_add(self.length))
    }

    fn look_at_space(&mut self, bytes: u64) -> Result<(), StoreError> {
        let disk = statvfs(&self.dir).map_err(|e| StoreError::io(&self.dir, e.into()))?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        let space = if free < self.config.free_refuse || bytes >= self.config.total_bytes {
            Space::Refuse
        } else if free < self.config.free_warn {
            Space::Low
        } else {
            Space::Enough
        };
        if space == self.space {
            return Ok(());
        }
        self.set_space(space);
        let state = match space {
            Space::Enough => "there is room again",
            Space::Low => "the disk is filling up; requests will be refused when it is full",
            Space::Refuse => "requests are refused until there is room",
        };
        let text = format!("{state}: {free} bytes free, {bytes} bytes of records");
        tracing::warn!(free, bytes, "{state}");
        self.own_event(EventKind::Store, text, None)?;
        self.flush()
    }

    fn sealed(&self) -> Result<Vec<Sealed>, StoreError> {
        let mut sealed = Vec::new();
        for (number, path) in segment::list(&self.dir)? {
            if number < self.segment {
                let metadata = path.metadata().map_err(|e| StoreError::io(&path, e))?;
                let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
                sealed.push(Sealed { path, number, bytes: metadata.len(), age: age.unwrap_or_default() });
            }
        }
        Ok(sealed)
    }

    /// Removes the oldest sealed segments that are past their retention, and gives how many. The entry that says so
    /// is written and signed before the first file goes; sealing has signed what the files hold.
    fn retire(&mut self, sealed: &[Sealed]) -> Result<usize, StoreError> {
        let Some(retention) = self.config.retention else { return Ok(0) };
        let count = sealed.iter().take_while(|s| s.age > retention).count();
        let old = sealed.get(..count).unwrap_or_default();
        let Some(last) = old.last() else { return Ok(0) };
        let text = format!("segments up to {} are past their retention and were removed", last.number);
        let event =
            EventRecord { at: now(), run: None, agent: None, kind: EventKind::Store, text, attempt: None };
        self.own(Entry::Event(event), None, Some(last.number + 1))?;
        self.flush()?;
        self.sign()?;
        for segment in old {
            std::fs::remove_file(&segment.path).map_err(|e| StoreError::io(&segment.path, e))?;
        }
        Ok(count)
    }
}
