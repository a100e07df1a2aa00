//! Running `hipac` and looking at what came of it.

#![allow(dead_code)] // each test file uses its share

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Memory of a run: far above what any input of these tests needs, far below what would hurt.
const MEMORY_KIB_MAX: u64 = 4 << 20;

/// What one run gave.
pub(crate) struct Run {
    /// The exit code; `None`: ended by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) time: Duration,
}

/// Runs `hipac` with these arguments and nothing on standard input.
#[track_caller]
pub(crate) fn hipac(arguments: &[&str]) -> Run {
    hipac_reading(arguments, b"")
}

/// Runs `hipac` with these arguments and bytes on standard input, within a limit of memory where
/// there is a shell to set one. It never panics: that is looked at here, for every run.
#[track_caller]
pub(crate) fn hipac_reading(arguments: &[&str], input: &[u8]) -> Run {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {MEMORY_KIB_MAX}; exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_hipac")).args(arguments).env("COLUMNS", "80");
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hipac starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output: Output = std::thread::scope(|scope| {
        // It may end without reading all of it.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("hipac ends")
    });
    let run = Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        time: begin.elapsed(),
    };
    assert!(!run.stderr.contains("panicked"), "{arguments:?}: {}", run.stderr);
    run
}

impl Run {
    /// It ended with this exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Run {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, tail(&self.stderr));
        self
    }

    /// Standard error has all of these words.
    #[track_caller]
    pub(crate) fn complains(self, words: &[&str]) -> Run {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in: {}", tail(&self.stderr));
        }
        self
    }

    /// Each line of standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(2000);
    let from = (from..text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    &text[from..]
}

/// The path of an example ruleset.
pub(crate) fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    path.to_str().expect("a name in UTF-8").to_owned()
}

/// A folder for files of one test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    /// The path of a name in it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a name in UTF-8").to_owned()
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = PathBuf::from(self.path(name));
        std::fs::write(&path, bytes).expect("the file is written");
        self.path(name)
    }

    /// The names of its files.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("the folder");
        let names = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}
