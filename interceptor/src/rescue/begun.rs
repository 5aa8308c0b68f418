//! Root's note that a rescue lasts. Every process of the daemon goes by it, whichever starts when.
//!
//! Promise: it holds by the clock of this boot as well as by the calendar, and not beyond either.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use interceptor_core::{model::RescueId, rescue::Rescue};
use serde::{Deserialize, Serialize};

use super::{RescueError, Saved, failed};
use crate::{places::Places, store::docket::Moment};

const MICROS: i64 = 1_000_000;

/// A rescue that root began, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// The rescue.
    pub rescue: Rescue,
    /// The digest of what was saved then.
    pub saved: String,
    /// In which boot, and until when by its clock, in microseconds.
    boot: String,
    until_boot: i64,
}

impl Begun {
    /// One that begins now, of what is saved.
    pub fn now(saved: &Saved, reason: String, by: String, seconds: u64) -> Result<Self, RescueError> {
        let now = Moment::now()?;
        let lasts = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(MICROS);
        let mut bits = [0; 8];
        getrandom::fill(&mut bits)
            .map_err(|error| failed("read", "getrandom".as_ref())(io::Error::other(error.to_string())))?;
        let rescue = Rescue {
            id: RescueId::from_random(u64::from_ne_bytes(bits)),
            reason,
            by,
            begun_at: now.wall,
            until: now.wall.saturating_add(lasts),
        };
        let until_boot = now.since_boot.saturating_add(lasts);
        Ok(Self { rescue, saved: saved.digest().to_owned(), boot: now.boot, until_boot })
    }

    /// The note that is there, and how much of its time is left; nothing where there is none, or its time is over.
    pub fn lasting(places: &Places) -> Result<Option<(Self, Duration)>, RescueError> {
        let path = path(places);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let begun: Self = serde_json::from_slice(&text).map_err(|_| RescueError::Note(path))?;
        let now = Moment::now()?;
        Ok(begun.left(&now).map(|left| (begun, left)))
    }

    fn left(&self, now: &Moment) -> Option<Duration> {
        let alive = self.boot == now.boot && now.wall >= self.rescue.begun_at;
        let wall = self.rescue.until.saturating_sub(now.wall);
        let left = wall.min(self.until_boot.saturating_sub(now.since_boot));
        let left = u64::try_from(left).ok().filter(|left| alive && *left > 0);
        left.map(Duration::from_micros)
    }

    /// Puts it on the disk, in the place of any other: from now on it lasts, for whoever looks.
    pub fn write(&self, places: &Places) -> Result<(), RescueError> {
        let (path, folder) = (path(places), places.rescue());
        let fresh = folder.join("begun.new");
        let written = (|| {
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&folder)?.sync_all()
        })();
        written.map_err(failed("write", &path))
    }

    /// Takes away whatever note there is: no rescue lasts from now on.
    pub fn remove(places: &Places) -> Result<(), RescueError> {
        let path = path(places);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

fn path(places: &Places) -> PathBuf {
    places.rescue().join("begun.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Begun {
        let rescue = Rescue {
            id: RescueId::from_random(1),
            reason: "pager".to_owned(),
            by: "alice".to_owned(),
            begun_at: 1_000 * MICROS,
            until: 1_600 * MICROS,
        };
        Begun { rescue, saved: "abc".to_owned(), boot: "b1".to_owned(), until_boot: 650 * MICROS }
    }

    #[test]
    fn it_lasts_by_both_clocks_and_for_one_boot() {
        let left = |boot: &str, wall: i64, since_boot: i64| {
            let now = Moment { boot: boot.to_owned(), wall: wall * MICROS, since_boot: since_boot * MICROS };
            begun().left(&now).map(|left| left.as_secs())
        };
        assert_eq!(left("b1", 1_000, 50), Some(600));
        assert_eq!(left("b1", 1_000, 640), Some(10), "the calendar was set back");
        assert_eq!(left("b1", 1_599, 60), Some(1), "or forth");
        for (boot, wall, since_boot) in
            [("b1", 1_600, 60), ("b1", 1_100, 650), ("b1", 999, 50), ("b2", 1_000, 50)]
        {
            assert_eq!(left(boot, wall, since_boot), None, "{boot} {wall} {since_boot}");
        }
    }

    #[test]
    fn a_note_is_there_until_it_is_removed_and_a_damaged_one_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Places::under(folder.path());
        fs::create_dir_all(places.rescue()).expect("a folder");
        assert_eq!(Begun::lasting(&places).expect("none"), None);
        let now = Moment::now().expect("a clock");
        let (wall, since_boot) = (now.wall, now.since_boot);
        let rescue = Rescue { begun_at: wall, until: wall + 60 * MICROS, ..begun().rescue };
        let lasts = Begun { rescue, boot: now.boot, until_boot: since_boot + 60 * MICROS, ..begun() };
        lasts.write(&places).expect("written");
        let (read, left) = Begun::lasting(&places).expect("read").expect("it lasts");
        assert_eq!(read, lasts);
        assert!(left <= Duration::from_secs(60));
        fs::write(path(&places), "{}").expect("written");
        assert!(matches!(Begun::lasting(&places), Err(RescueError::Note(_))));
        Begun::remove(&places).expect("removed");
        assert_eq!(Begun::lasting(&places).expect("none"), None);
        Begun::remove(&places).expect("nothing to remove");
    }
}
