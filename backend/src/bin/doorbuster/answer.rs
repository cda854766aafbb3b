//! What a command comes to: an answer for people and machines, or a failure with its exit code.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use doorbuster_domain::schedule::FieldError;
use serde_json::Value;

/// What a command has to say.
pub(crate) struct Answer {
    people: String,
    machines: Option<Value>,
}

impl Answer {
    /// The same for people, as lines, and for machines.
    pub(crate) fn new(people: String, machines: Value) -> Self {
        Self { people, machines: Some(machines) }
    }

    /// A text that is what it is, such as a script.
    pub(crate) fn text_only(text: String) -> Self {
        Self { people: text, machines: None }
    }

    /// Prints it.
    pub(crate) fn tell(&self, json: bool) -> ExitCode {
        match &self.machines {
            Some(value) if json => print(&format!("{value:#}\n"), ExitCode::SUCCESS),
            _ => print(&self.people, ExitCode::SUCCESS),
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It makes no sense as it was given.
    Usage(String),
    /// A file cannot be read.
    NoInput(String),
    /// A file holds what does not hold.
    Data { file: String, errors: Vec<FieldError> },
    /// The server said no, with this problem.
    Refused { status: u16, problem: Value },
    /// The server did not answer, or what answered is no Doorbuster.
    Unavailable(String),
}

impl Failure {
    /// A file that cannot be read.
    pub(crate) fn no_input(path: &Path, error: &std::io::Error) -> Self {
        Self::NoInput(format!("{} cannot be read: {error}", path.display()))
    }

    /// Prints it to the standard error, and for machines the server's own words to the standard output.
    pub(crate) fn tell(&self, json: bool) -> ExitCode {
        eprintln!("{self}");
        match self {
            Self::Refused { problem, .. } if json => print(&format!("{problem:#}\n"), self.exit_code()),
            _ => self.exit_code(),
        }
    }

    /// Exit codes are those of sysexits.h, and 1 for a refusal.
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused { status: 500.., .. } | Self::Unavailable(_) => 69,
            Self::Refused { .. } => 1,
            Self::Usage(_) => 64,
            Self::Data { .. } => 65,
            Self::NoInput(_) => 66,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::NoInput(text) | Self::Unavailable(text) => write!(f, "error: {text}"),
            Self::Data { file, errors } => {
                write!(f, "error: {file} does not hold")?;
                errors.iter().try_for_each(|error| write_field(f, &error.field, &error.message))
            }
            Self::Refused { status, problem } => {
                let word = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
                write!(f, "refused: {} ({}, {status})", word("title"), word("code"))?;
                for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
                    let word = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
                    write_field(f, word("field"), word("message"))?;
                }
                Ok(())
            }
        }
    }
}

/// A reader that has heard enough is no failure.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => code,
    }
}

fn write_field(f: &mut fmt::Formatter<'_>, field: &str, message: &str) -> fmt::Result {
    if field.is_empty() { write!(f, "\n  {message}") } else { write!(f, "\n  {field}: {message}") }
}
