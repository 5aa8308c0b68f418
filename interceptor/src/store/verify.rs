//! Checks a store offline, from its files and the public key alone. It believes nothing: not the chain (whoever can
//! write the files can write a new chain), only the signatures, and a checkpoint that the verifier kept itself.
//!
//! It says up to which entry the record is proven, and which tail is chained only.

use std::{collections::BTreeMap, path::Path};

use super::{
    StoreError,
    checkpoint::{Checkpoint, LogKey, notes},
    line::{self, Header, Line, Parsed},
    places,
    recover::before,
    segment::{self, ChainEnd, FoundLine, Lines},
    tree::Node,
};

/// More faults are only counted.
const MOST_FAULTS: usize = 100;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, or the checkpoint's size.
    pub place: String,
    /// In words.
    pub what: String,
}

/// How far the record is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Lines that the newest good checkpoint covers.
    pub lines: u64,
    /// The newest entry among them.
    pub seq: u64,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The log's name.
    pub log: String,
    /// The first entry that is there.
    pub first_seq: Option<u64>,
    /// The last entry that is there.
    pub last_seq: u64,
    /// Lines that are there, and those that retention removed.
    pub lines: u64,
    /// Lines that retention removed.
    pub retired: u64,
    /// Lines that the verifier's own checkpoint covers, where only what came since was read.
    pub since: Option<u64>,
    /// How far it is proven.
    pub proven: Option<Proven>,
    /// Lines behind the newest good checkpoint: chained, but whoever can write the files could have changed them.
    pub unproven: u64,
    /// Checkpoints that were found to be good.
    pub checkpoints: u64,
    /// Checkpoints over lines that retention removed: their trees can no longer be rebuilt.
    pub beyond: u64,
    /// Ranges of numbers that were skipped after a loss, with both ends.
    pub skipped: Vec<(u64, u64)>,
    /// What is wrong; empty for a good record.
    pub faults: Vec<Fault>,
    /// How many faults there are in all.
    pub fault_count: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.fault_count == 0
    }
}

/// Verifies the store at `dir` with the log's public key, and against `known`, a checkpoint that the verifier kept.
pub fn verify(dir: &Path, key: &LogKey, known: Option<&str>) -> Result<Report, StoreError> {
    let mut check = Check::new(key);
    check.read_checkpoints(dir)?;
    if let Some(note) = known {
        match Checkpoint::verify(note, key) {
            Some(checkpoint) => check.expect("the checkpoint you kept", checkpoint),
            None => check.fault("the checkpoint you kept", "its signature is not this log's"),
        }
    }
    for (number, path) in segment::list(dir)? {
        check.segment(number, &path)?;
    }
    Ok(check.finish())
}

/// Verifies what came since `note`, a checkpoint that the verifier kept, up to the newest line. Of what stands before it
/// only the end of one segment is read: its tree must be the one that was signed.
pub fn verify_since(dir: &Path, key: &LogKey, note: &str) -> Result<Report, StoreError> {
    const KEPT: &str = "the checkpoint you kept";
    let mut check = Check::new(key);
    check.read_checkpoints(dir)?;
    let Some(checkpoint) = Checkpoint::verify(note, key) else {
        check.fault(KEPT, "its signature is not this log's");
        return Ok(check.finish());
    };
    let size = checkpoint.size;
    check.expect(KEPT, checkpoint);
    let segments = segment::list(dir)?;
    let begin = segments.iter().rposition(|(_, path)| lines_before(path).is_some_and(|lines| lines < size));
    let Some(begin) = begin else {
        check.fault(
            KEPT,
            format!("no segment reaches back to line {size}: it was removed, by retention or by somebody"),
        );
        return Ok(check.finish());
    };
    // That earlier segments are passed over, or were removed, is no fault: the checkpoint stands for them.
    check.told = segments.get(begin).map_or(1, |(number, _)| *number);
    check.report.since = Some(size);
    for (number, path) in segments.iter().skip(begin) {
        check.segment(*number, path)?;
    }
    Ok(check.finish())
}

/// How many lines stand before a segment, as its header says.
fn lines_before(path: &Path) -> Option<u64> {
    let mut lines = Lines::open(path, 0).ok()?;
    let found = lines.next().ok()??;
    match line::parse(line::split(found.bytes)?.1).ok()? {
        Parsed::Header(header) => Some(header.lines),
        Parsed::Line(_) => None,
    }
}

struct Check {
    name: String,
    key: LogKey,
    /// Roots that are signed, by size.
    signed: BTreeMap<u64, Vec<(String, Node)>>,
    report: Report,
    end: ChainEnd,
    segment: Option<u64>,
    first_segment: u64,
    /// The newest `first_segment` that an entry told.
    told: u64,
    /// Set by the first bad line: nothing behind it is proven.
    broken: bool,
}

impl Check {
    fn new(key: &LogKey) -> Self {
        Self {
            name: key.name().to_owned(),
            key: key.clone(),
            signed: BTreeMap::new(),
            report: Report { log: key.name().to_owned(), ..Report::default() },
            end: ChainEnd::empty(),
            segment: None,
            first_segment: 1,
            told: 1,
            broken: false,
        }
    }

    fn fault(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.report.fault_count += 1;
        if self.report.faults.len() < MOST_FAULTS {
            self.report.faults.push(Fault { place: place.into(), what: what.into() });
        }
    }

    fn expect(&mut self, place: &str, checkpoint: Checkpoint) {
        self.signed.entry(checkpoint.size).or_default().push((place.to_owned(), checkpoint.root));
    }

    fn read_checkpoints(&mut self, dir: &Path) -> Result<(), StoreError> {
        let path = places::checkpoints(dir);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io(&path, error)),
        };
        let mut newest = 0;
        for (index, note) in notes(&text).iter().enumerate() {
            let place = format!("{}: checkpoint {}", path.display(), index + 1);
            match Checkpoint::verify(note, &self.key) {
                None => self.fault(place, "its signature is not this log's"),
                Some(checkpoint) if checkpoint.size <= newest => self.fault(place, "it is out of order"),
                Some(checkpoint) => {
                    newest = checkpoint.size;
                    self.expect(&place, checkpoint);
                }
            }
        }
        Ok(())
    }

    fn segment(&mut self, number: u64, path: &Path) -> Result<(), StoreError> {
        let place = path.display().to_string();
        let mut lines = Lines::open(path, 0)?;
        let Some(found) = lines.next()? else {
            self.fault(place, "it is empty");
            return Ok(());
        };
        self.header(number, &place, &found);
        while let Some(found) = lines.next()? {
            self.line(&place, &found);
        }
        Ok(())
    }

    fn header(&mut self, number: u64, place: &str, found: &FoundLine<'_>) {
        let parsed = line::split(found.bytes).map(|(hash, json)| (hash, json, line::parse(json)));
        let Some((hash, json, Ok(Parsed::Header(header)))) = parsed else {
            self.broken = true;
            return self.fault(place, "its first line is no segment header");
        };
        match self.segment {
            None => self.begin(number, &header, place),
            Some(last) if last + 1 != number => {
                self.broken = true;
                self.fault(place, format!("the segments between {last} and {number} are missing"));
            }
            Some(_) => {}
        }
        self.segment = Some(number);
        let named = self.name.strip_prefix("interceptor/").unwrap_or_default();
        let claims = before(&header).map(|end| (end.hash, end.seq, end.sub, end.tree));
        let ours = (self.end.hash, self.end.seq, self.end.sub, self.end.tree.clone());
        if header.store != named || header.segment != number || claims.as_ref() != Some(&ours) {
            self.broken = true;
            self.fault(place, "its header does not continue what stands before it");
        }
        self.follow(place, found, hash, json);
    }

    /// The first segment that is there: what came before it is what its header says, and the checkpoints, which
    /// cover it, prove that.
    fn begin(&mut self, number: u64, header: &Header, place: &str) {
        self.first_segment = number;
        self.report.retired = header.lines;
        match before(header) {
            Some(end) if number > 1 => self.end = end,
            Some(_) => {}
            None => self.fault(place, "its header's tree cannot be read"),
        }
        let retired = self.end.tree.size();
        let later = self.signed.split_off(&retired.saturating_add(1));
        self.report.beyond = self.signed.values().map(|v| v.len() as u64).sum();
        self.signed = later;
    }

    fn line(&mut self, place: &str, found: &FoundLine<'_>) {
        let at = format!("{place}: byte {}", found.offset);
        if !found.whole {
            // An unsynced end after a crash; the keeper cuts it. Nothing signed can be in it.
            return;
        }
        let parsed = line::split(found.bytes).map(|(hash, json)| (hash, json, line::parse(json)));
        let Some((hash, json, Ok(Parsed::Line(line)))) = parsed else {
            self.broken = true;
            return self.fault(at, "it is no entry");
        };
        self.order(&at, &line);
        self.follow(&at, found, hash, json);
        self.report.first_seq.get_or_insert(line.seq);
    }

    /// Numbers go up by one; the keeper's own count within them.
    fn order(&mut self, at: &str, line: &Line) {
        let (seq, sub) = (self.end.seq, self.end.sub);
        let next = if line.sub == 0 {
            line.seq == seq.saturating_add(1)
        } else {
            line.seq == seq && line.sub == sub.saturating_add(1)
        };
        let own = line.sub > 0 || (line.skipped.is_none() && line.first_segment.is_none());
        if !next || !own {
            self.broken = true;
            self.fault(at, format!("entry {}.{} does not follow {seq}.{sub}", line.seq, line.sub));
        }
        (self.end.seq, self.end.sub) = (line.seq, line.sub);
        if let Some(skipped) = line.skipped.filter(|skipped| *skipped > line.seq) {
            self.report.skipped.push((line.seq.saturating_add(1), skipped));
            (self.end.seq, self.end.sub) = (skipped, 0);
        }
        self.told = self.told.max(line.first_segment.unwrap_or(1));
        self.report.last_seq = self.report.last_seq.max(line.seq);
    }

    fn follow(&mut self, at: &str, found: &FoundLine<'_>, hash: line::ChainHash, json: &[u8]) {
        if !self.end.follow(found.bytes, hash, json) {
            self.broken = true;
            self.fault(at, "its hash does not match: this line, or the one before it, was changed");
        }
        let size = self.end.tree.size();
        for (place, root) in self.signed.remove(&size).unwrap_or_default() {
            if root != self.end.tree.root() {
                self.broken = true;
                self.fault(place, format!("the {size} lines it covers are not those that were signed"));
            } else if !self.broken {
                self.report.checkpoints += 1;
                self.report.proven = Some(Proven { lines: size, seq: self.end.seq });
            }
        }
    }

    fn finish(mut self) -> Report {
        let lines = self.end.tree.size();
        for (size, found) in std::mem::take(&mut self.signed) {
            for (place, _) in found {
                self.fault(
                    place,
                    format!("it covers {size} lines, and there are {lines}: the end was cut off"),
                );
            }
        }
        if self.first_segment > self.told {
            let what = format!("segments before {} are missing, and no entry says why", self.first_segment);
            self.fault("segments", what);
        }
        self.report.lines = lines;
        self.report.unproven = lines - self.report.proven.map_or(0, |p| p.lines).min(lines);
        self.report
    }
}
