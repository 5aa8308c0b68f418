//! What somebody who can write the files may try, and that `verify` sees it.

use super::*;

/// A store with three checkpoints and a tail, its key, and its newest checkpoint.
fn written() -> (Place, LogKey, String) {
    let place = Place::new();
    let (mut writer, _) = place.writer_with(Config { checkpoint_lines: 5, ..config() });
    let producer = place.producer();
    for n in 0..18 {
        commit(&producer, &format!("SELECT {n}"));
        writer.drain().unwrap();
    }
    let key = writer.public_key();
    let text = fs::read_to_string(place.audit().join("checkpoints")).unwrap();
    let note = checkpoint::notes(&text).pop().unwrap();
    (place, key, note)
}

fn lines(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.audit().join("segments/0000000001.jsonl")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Writes `json` as the store's only segment, with a chain that is right in itself.
fn rechain(place: &Place, lines: &[String]) {
    let mut end = segment::ChainEnd::empty();
    let mut bytes = Vec::new();
    for line in lines {
        end.append(&line.as_bytes()[65..], &mut bytes);
    }
    fs::write(place.audit().join("segments/0000000001.jsonl"), bytes).unwrap();
}

#[test]
fn a_good_store_says_how_far_it_is_proven() {
    let (place, key, note) = written();
    let report = verify(&place.audit(), &key, Some(&note)).unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.lines, report.checkpoints, report.unproven), (19, 4, 4));
    assert_eq!(report.proven, Some(Proven { lines: 15, seq: 14 }));
    assert_eq!(key.to_string().parse::<LogKey>(), Ok(key));
}

#[test]
fn each_way_to_change_the_record_shows() {
    type Change = fn(&mut Vec<String>);
    let changes: [(&str, Change); 5] = [
        ("an edit", |lines| lines[7] = lines[7].replace("SELECT 6", "SELECT 9")),
        ("a removal", |lines| drop(lines.remove(7))),
        ("another order", |lines| lines.swap(7, 8)),
        ("a repetition", |lines| lines.insert(8, lines[7].clone())),
        ("a cut behind a checkpoint", |lines| lines.truncate(9)),
    ];
    for (what, change) in changes {
        for chained in [false, true] {
            let (place, key, note) = written();
            let mut changed = lines(&place);
            change(&mut changed);
            if chained {
                rechain(&place, &changed);
            } else {
                let path = place.audit().join("segments/0000000001.jsonl");
                fs::write(path, changed.join("\n") + "\n").unwrap();
            }
            let report = verify(&place.audit(), &key, None).unwrap();
            assert!(!report.is_good(), "{what}, chained anew: {chained}");
            assert!(report.proven.is_none_or(|p| p.lines <= 10), "{what}: {report:?}");
            // With the checkpoints gone too, the verifier's own shows it.
            fs::remove_file(place.audit().join("checkpoints")).unwrap();
            let report = verify(&place.audit(), &key, Some(&note)).unwrap();
            assert!(!report.is_good(), "{what}, checkpoints removed");
        }
    }
}

#[test]
fn checkpoints_of_another_key_and_a_store_cut_behind_one_are_refused() {
    let (place, key, _) = written();
    let (other, other_key, other_note) = written();
    assert!(!verify(&place.audit(), &other_key, None).unwrap().is_good());
    assert!(!verify(&place.audit(), &key, Some(&other_note)).unwrap().is_good());
    drop(other);
    let mut cut = lines(&place);
    cut.truncate(9);
    rechain(&place, &cut);
    assert!(matches!(
        Writer::open(&place.audit(), &place.journal, config()),
        Err(StoreError::Damaged { .. })
    ));
}

#[test]
fn a_tail_without_a_checkpoint_is_said_to_be_unproven() {
    let (place, key, _) = written();
    let mut changed = lines(&place);
    changed.truncate(17);
    rechain(&place, &changed);
    let report = verify(&place.audit(), &key, None).unwrap();
    assert!(report.is_good());
    assert_eq!(report.unproven, 2, "the tail is chained only, and the report says so");
}

/// A store of several segments, its key, and a checkpoint from the middle of it.
fn in_segments() -> (Place, LogKey, SignedCheckpoint) {
    let place = Place::new();
    let config = Config { checkpoint_lines: 3, segment_bytes: 4096, ..config() };
    let (mut writer, _) = place.writer_with(config);
    let producer = place.producer();
    for n in 0..40 {
        commit(&producer, &format!("SELECT {n}"));
        writer.drain().unwrap();
    }
    let key = writer.public_key();
    let all = checkpoints(&place.audit(), &key).unwrap();
    let middle = all[all.len() / 2].clone();
    assert!(segment::list(&place.audit()).unwrap().len() > 3);
    (place, key, middle)
}

/// The place of the line that a checkpoint ends with: a segment's path, and the line's index in it.
fn last_covered(place: &Place, size: u64) -> (PathBuf, usize) {
    let mut before = 0;
    for (_, path) in segment::list(&place.audit()).unwrap() {
        let count = fs::read_to_string(&path).unwrap().lines().count() as u64;
        if before + count >= size {
            return (path, usize::try_from(size - before - 1).unwrap());
        }
        before += count;
    }
    panic!("fewer lines than {size}");
}

#[test]
fn what_came_since_a_checkpoint_is_verified_without_what_stands_before_it() {
    let (place, key, middle) = in_segments();
    let whole = verify(&place.audit(), &key, None).unwrap();
    let report = verify_since(&place.audit(), &key, &middle.note).unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!(report.since, Some(middle.checkpoint.size));
    assert_eq!((report.proven, report.lines, report.unproven), (whole.proven, whole.lines, whole.unproven));
    // The segments before it are not even needed.
    let (path, _) = last_covered(&place, middle.checkpoint.size);
    for (_, earlier) in segment::list(&place.audit()).unwrap().into_iter().filter(|(_, at)| *at < path) {
        fs::remove_file(earlier).unwrap();
    }
    let report = verify_since(&place.audit(), &key, &middle.note).unwrap();
    assert!(report.is_good(), "{report:?}");
    // But the one that it ends in is.
    fs::remove_file(path).unwrap();
    assert!(!verify_since(&place.audit(), &key, &middle.note).unwrap().is_good());
}

#[test]
fn each_way_to_change_what_came_since_a_checkpoint_shows() {
    type Change = fn(&Place, (PathBuf, usize));
    fn edit(path: &Path, at: usize, change: impl FnOnce(&mut Vec<String>, usize)) {
        let mut lines: Vec<String> = fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        change(&mut lines, at);
        fs::write(path, lines.join("\n") + "\n").unwrap();
    }
    let changes: [(&str, Change); 5] = [
        ("an edit of the last line that it covers", |_, (path, at)| {
            edit(&path, at, |lines, at| lines[at] = lines[at].replace("\"entry\":", "\"entry\": "));
        }),
        ("an edit of the last line of all", |place, _| {
            let (_, path) = segment::list(&place.audit()).unwrap().pop().unwrap();
            let last = fs::read_to_string(&path).unwrap().lines().count() - 1;
            edit(&path, last, |lines, at| lines[at] = lines[at].replace("\"entry\":", "\"entry\": "));
        }),
        ("everything since cut off, and the checkpoints with it", |place, (path, at)| {
            edit(&path, at, |lines, at| lines.truncate(at));
            for (_, later) in segment::list(&place.audit()).unwrap().into_iter().filter(|(_, p)| *p > path) {
                fs::remove_file(later).unwrap();
            }
            fs::remove_file(place.audit().join("checkpoints")).unwrap();
        }),
        ("a later segment removed", |place, (path, _)| {
            let segments = segment::list(&place.audit()).unwrap();
            let later = segments.into_iter().map(|(_, at)| at).find(|at| *at > path).unwrap();
            fs::remove_file(later).unwrap();
        }),
        ("a record of another log in its place", |place, _| {
            let (other, _, _) = in_segments();
            for part in ["segments", "checkpoints"] {
                let (from, to) = (other.audit().join(part), place.audit().join(part));
                assert!(Command::new("cp").arg("-rfT").args([from, to]).status().unwrap().success());
            }
        }),
    ];
    for (what, change) in changes {
        let (place, key, middle) = in_segments();
        change(&place, last_covered(&place, middle.checkpoint.size));
        let report = verify_since(&place.audit(), &key, &middle.note).unwrap();
        assert!(!report.is_good(), "{what}: {report:?}");
    }
}

#[test]
fn a_signing_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (place, _, _) = written();
    fs::set_permissions(place.audit().join("log.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let opened = Writer::open(&place.audit(), &place.journal, config());
    assert!(matches!(opened, Err(StoreError::KeyExposed { .. })));
}
