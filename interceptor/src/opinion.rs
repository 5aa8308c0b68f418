//! The program that gives a second opinion of SQL texts, and how it is asked.
//!
//! Promise: whatever goes wrong with it is an error, never an opinion; what has gone wrong once stays so, since later
//! answers could be those to earlier questions. It must never know what an opinion is for.
//!
//! Who asks waits for the answer, as for a reading of one's own; only texts whose shape is new are asked about.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use interceptor_core::sql::{Opinion, SecondOpinion};

/// The longest text that is asked about, in bytes.
const LONGEST_TEXT: usize = 1 << 20;
/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 16 << 20;
/// How long it may be silent. The program gives up on a text earlier, and says so.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum OpinionError {
    /// The program cannot be started.
    #[error("the second opinion's program {0} cannot be started")]
    Start(PathBuf, #[source] io::Error),
    /// Somebody else may change it.
    #[error(
        "the second opinion's program {0} must be a file of root's that nobody else may write: chown root, chmod go-w"
    )]
    Loose(PathBuf),
    /// It answers, but not what it should.
    #[error("the second opinion's program {0} does not work: {1}")]
    Broken(PathBuf, String),
}

/// The running program.
#[derive(Debug)]
pub struct Program(Mutex<Talk>);

#[derive(Debug)]
struct Talk {
    child: Child,
    stream: UnixStream,
    /// What went wrong, after which nothing is asked any more.
    broken: Option<String>,
}

impl Program {
    /// Starts the program and sees whether it reads a text. It is a process of the caller's own user, without
    /// environment, and goes with the caller.
    pub fn start(path: &Path) -> Result<Self, OpinionError> {
        let cannot = |error| OpinionError::Start(path.to_owned(), error);
        let found = fs::metadata(path).map_err(cannot)?;
        if found.uid() != 0 || found.mode() & 0o022 != 0 || !found.is_file() {
            return Err(OpinionError::Loose(path.to_owned()));
        }
        let mut command = Command::new(path);
        let (stream, its) = UnixStream::pair().map_err(cannot)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(cannot)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(cannot)?;
        let (input, output) = (OwnedFd::from(its.try_clone().map_err(cannot)?), OwnedFd::from(its));
        command.env_clear().current_dir("/").stdin(input).stdout(output);
        let child = command.spawn().map_err(cannot)?;
        // With it, this process would be its own peer.
        drop(command);
        let program = Self(Mutex::new(Talk { child, stream, broken: None }));
        match program.of("SELECT 1") {
            Ok(Opinion::Read(told)) if told.len() == 1 => Ok(program),
            Ok(other) => Err(OpinionError::Broken(path.to_owned(), format!("it says {other:?} of SELECT 1"))),
            Err(why) => Err(OpinionError::Broken(path.to_owned(), why)),
        }
    }
}

impl SecondOpinion for Program {
    fn of(&self, text: &str) -> Result<Opinion, String> {
        if text.len() > LONGEST_TEXT {
            return Err(format!("the text has {} bytes, and {LONGEST_TEXT} are read at most", text.len()));
        }
        let mut talk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &talk.broken {
            return Err(format!("its program does not answer any more ({why}): restart the daemon"));
        }
        let answer = talk.ask(text).map_err(|error| {
            let why = error.to_string();
            tracing::error!(why, "the second opinion's program is asked no more: restart the daemon");
            talk.broken = Some(why.clone());
            why
        })?;
        if answer.is_empty() {
            return Err("its program gave up on the text".to_owned());
        }
        serde_json::from_slice(&answer)
            .map_err(|error| format!("its program answered something else: {error}"))
    }
}

impl Talk {
    fn ask(&mut self, text: &str) -> io::Result<Vec<u8>> {
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        self.stream.write_all(&length.to_be_bytes())?;
        self.stream.write_all(text.as_bytes())?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        if length > LONGEST_ANSWER {
            return Err(io::Error::other(format!("an answer of {length} bytes")));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // One that hangs would be left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program that says these bytes and then does `then`.
    fn saying(folder: &Path, bytes: &[u8], then: &str) -> PathBuf {
        let path = folder.join("program");
        let said: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
        fs::write(&path, format!("#!/bin/sh\nprintf '{said}'\n{then}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    fn answer(json: &str) -> Vec<u8> {
        let length = u32::try_from(json.len()).expect("a length");
        [&length.to_be_bytes(), json.as_bytes()].concat()
    }

    const ONE: &str = r#"{"read":[{"kind":"SelectStmt","relations":[],"with":[],"functions":[],"sets_constraints":false,"imports":false}]}"#;

    #[test]
    fn what_goes_wrong_is_no_opinion_and_stays_wrong() {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let twice = [answer(ONE), answer(""), answer("{}"), answer(ONE)].concat();
        let program = Program::start(&saying(folder.path(), &twice, "exec /bin/sleep 60")).expect("it works");
        let of = |text: &str| program.of(text).expect_err("no opinion");
        assert_eq!(of("SELECT 2"), "its program gave up on the text");
        assert!(of("SELECT 3").contains("answered something else"));
        assert!(of(&"x".repeat(LONGEST_TEXT + 1)).contains("at most"));
        assert!(program.of("SELECT 4").is_ok(), "another text is another matter");
        assert!(!of("SELECT 5").contains("restart the daemon"), "it was asked");
        assert!(of("SELECT 6").contains("restart the daemon"), "a late answer would be another text's");
    }

    #[test]
    fn a_program_that_does_not_work_is_not_begun_with() {
        let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
        let start =
            |bytes: &[u8]| Program::start(&saying(folder.path(), bytes, "")).expect_err("it does not work");
        assert!(matches!(start(b""), OpinionError::Broken(..)));
        assert!(matches!(start(b"\xff\xff\xff\xff"), OpinionError::Broken(..)));
        assert!(matches!(start(&answer(r#"{"refused":"x"}"#)), OpinionError::Broken(..)));
        let path = saying(folder.path(), &answer(ONE), "");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("its mode");
        assert!(matches!(Program::start(&path), Err(OpinionError::Loose(_))));
        assert!(matches!(Program::start(Path::new("/nowhere/program")), Err(OpinionError::Start(..))));
    }
}
