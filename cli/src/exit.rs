//! How a command ends.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done, nothing found.
    Clean,
    /// 1: done, and something was found: faults, mismatches.
    Findings,
    /// 2: could not be done: unreadable input, wrong use, no room.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Clean => ExitCode::SUCCESS,
            Exit::Findings => ExitCode::from(1),
            Exit::Failed => ExitCode::from(2),
        }
    }
}

/// Why a command could not be done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One line for the reader.
    Message(String),
    /// Whoever reads our output has gone: no error.
    BrokenPipe,
}

impl Failure {
    pub(crate) fn new(message: impl fmt::Display) -> Failure {
        Failure::Message(message.to_string())
    }

    /// About a file.
    pub(crate) fn at(name: &str, problem: impl fmt::Display) -> Failure {
        Failure::Message(format!("{name}: {problem}"))
    }

    /// Prints it and gives its exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Failure::BrokenPipe => Exit::Clean.into(),
            Failure::Message(message) => {
                // If standard error is gone too there is nobody to tell.
                let _ = io::Write::write_all(&mut io::stderr(), format!("hipac: {message}\n").as_bytes());
                Exit::Failed.into()
            }
        }
    }
}

impl From<io::Error> for Failure {
    /// An error of our own output.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::new(format_args!("cannot write the output: {error}")),
        }
    }
}
